//! Workflow files: what is understood, what is refused and how it is told, and the plans made of them.

mod cron;
mod events;
mod files;
pub(super) mod mutations;
mod plans;
mod shipped;
pub(super) mod tools;

use lakeops::workflow::{Library, Resolution, Resolver, SourceText};

/// The files of `tests/data/workflows`, below a folder, by name.
pub(super) fn texts(folder: &str, ending: &str) -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/workflows");
    let mut found: Vec<(String, String)> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// The scripts and queries that the files name, and the workflows of some folders.
pub(super) fn library(folders: &[&str]) -> Library {
    let count = "-- purpose: counts\n-- params: $1 schema text, $2 least int4\nselect 1\n";
    let mut library = Library::new().with_sql("fixtures/count", count);
    for (name, text) in texts("sops", "rhai") {
        library = library.with_script(format!("sops/{name}"), text);
    }
    for folder in folders {
        for (name, text) in texts(folder, "yaml") {
            library = library.with_workflow(&format!("workflows/{name}"), text);
        }
    }
    library
}

/// Resolves one text as the file `workflows/<name>.yaml`, next to the good ones.
pub(super) fn resolve(name: &str, text: &str) -> Resolution {
    let library = library(&["good"]);
    let source = SourceText::new(format!("workflows/{name}.yaml"), text);
    Resolver::new(&tools::catalog(), &library).resolve_file(&source)
}
