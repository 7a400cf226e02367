//! The shipped workflows.

use std::fs;
use std::path::Path;

use lakeops::tools::Catalog;
use lakeops::workflow::{Library, Resolver};

/// The shipped files of a folder with an ending, as `folder/name` and text.
fn shipped(folder: &str, ending: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|found| found == ending));
    let name = |path: &Path| format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
    paths.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn shipped_workflows_resolve_without_a_mistake() {
    let mut library = Library::new();
    for (path, text) in shipped("sops", "rhai") {
        library = library.with_script(path, text);
    }
    let workflows = shipped("workflows", "yaml");
    for (path, text) in &workflows {
        library = library.with_workflow(path, text.clone());
    }
    let catalog = Catalog::builtin();
    let resolution = Resolver::new(&catalog, &library).resolve_all();
    assert!(resolution.diagnostics.is_empty(), "{:#?}", resolution.diagnostics);
    assert_eq!(resolution.workflows.len(), workflows.len());
}
