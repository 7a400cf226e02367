//! The shipped workflows.

use std::fs;
use std::path::Path;

use lakeops::workflow::{SourceText, parse};

#[test]
fn shipped_workflows_read_without_a_mistake() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (spec, diagnostics) = parse(&SourceText::new(name, text));
        assert!(diagnostics.is_empty(), "{diagnostics:#?}");
        assert!(spec.is_some());
    }
}
