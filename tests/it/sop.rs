//! The shipped SOPs decide what their cases say.

use std::fs;
use std::path::Path;

use lakeops::sop::{Sandbox, check, run_cases};

#[test]
fn every_case_of_every_shipped_sop_passes() {
    let sandbox = Sandbox::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sops");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let scripts: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "rhai")).collect();
    assert!(!scripts.is_empty());
    let mut failed = Vec::new();
    for path in scripts {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let script = fs::read_to_string(&path).unwrap();
        let cases = fs::read_to_string(folder.join(format!("{name}.cases.yaml")))
            .unwrap_or_else(|_| panic!("{name} has no cases"));
        match run_cases(&sandbox, name, &script, &cases) {
            Ok(report) => {
                let wrong = report.cases.iter().filter(|case| !case.passed());
                failed.extend(wrong.map(|case| format!("{name}: {case:#?}")));
            }
            Err(error) => failed.push(format!("{name}: {error}")),
        }
        let problems = check(&sandbox, name, &script, None, Some(&cases));
        failed.extend(problems.iter().map(|problem| format!("{name}: {problem:#?}")));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
