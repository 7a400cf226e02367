//! The shipped SOPs decide what their cases say.

use lakeops::sop::{Sandbox, check, run_cases};

/// Every script of `sops/` with its cases.
const SHIPPED: [(&str, &str, &str); 7] = [
    (
        "branch_policy",
        include_str!("../../sops/branch_policy.rhai"),
        include_str!("../../sops/branch_policy.cases.yaml"),
    ),
    (
        "change_policy",
        include_str!("../../sops/change_policy.rhai"),
        include_str!("../../sops/change_policy.cases.yaml"),
    ),
    (
        "connections",
        include_str!("../../sops/connections.rhai"),
        include_str!("../../sops/connections.cases.yaml"),
    ),
    ("bloat", include_str!("../../sops/bloat.rhai"), include_str!("../../sops/bloat.cases.yaml")),
    (
        "health",
        include_str!("../../sops/health.rhai"),
        include_str!("../../sops/health.cases.yaml"),
    ),
    (
        "vacuum_window",
        include_str!("../../sops/vacuum_window.rhai"),
        include_str!("../../sops/vacuum_window.cases.yaml"),
    ),
    (
        "wraparound",
        include_str!("../../sops/wraparound.rhai"),
        include_str!("../../sops/wraparound.cases.yaml"),
    ),
];

#[test]
fn every_case_of_every_shipped_sop_passes() {
    let sandbox = Sandbox::new();
    for (name, script, cases) in SHIPPED {
        let report = run_cases(&sandbox, name, script, cases).unwrap();
        for case in report.cases.iter().filter(|case| !case.passed()) {
            println!("{name}: {case:#?}");
        }
        assert!(report.passed(), "{name}");
        let problems = check(&sandbox, name, script, None, Some(cases));
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn no_sop_is_shipped_without_being_listed_here() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sops");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "README.md")
        .collect();
    files.sort();
    let mut listed: Vec<String> = SHIPPED
        .iter()
        .flat_map(|(name, ..)| [format!("{name}.cases.yaml"), format!("{name}.rhai")])
        .collect();
    listed.sort();
    assert_eq!(files, listed);
}
