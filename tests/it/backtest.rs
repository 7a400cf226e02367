//! A new version of a SOP over what real runs gave the old one.

use serde_json::{Value, json};

use crate::cli::Project;

const WORKFLOW: &str = r#"version: 1
name: judge
description: Judge numbers.
params:
  numbers: { type: list, default: [] }
  most: { type: number, default: 10 }
steps:
  - id: first
    script: sops/much.rhai
    with: { n: 1, limits: { most: "${{ params.most }}" } }
  - id: each
    needs: [first]
    for_each: { in: "${{ params.numbers }}", key: "k${{ item }}" }
    script: sops/much.rhai
    with: { n: "${{ item }}", limits: { most: "${{ params.most }}" } }
"#;

fn sop(factor: &str) -> String {
    format!(
        "// with: n, limits\nlet much = rule(\"much\", n > limits.most * {factor}, `${{n}}`);\n\
         #{{ act: much, n: n }}\n"
    )
}

fn field<'a>(report: &'a Value, case: usize, name: &str) -> &'a Value {
    &report["cases"][case][name]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_replayed_over_recorded_runs() {
    let project = Project::with_database("backtest").await;
    project.write("workflows/judge.yaml", WORKFLOW).write("sops/much.rhai", &sop("1"));
    let nothing = project.run(&["sop", "backtest", "much"]).ends(2);
    assert!(nothing.err.contains("nothing is recorded"), "{}", nothing.err);

    let numbers: [&[i64]; 2] = [&[2, 6, 9, 12], &[5, 40]];
    for numbers in numbers {
        let given = format!("numbers={}", json!(numbers));
        project.run(&["run", "judge", "-p", &given]).ends(0);
    }
    // As it is, it decides what it decided.
    let same = project.run(&["sop", "backtest", "much", "--output", "json"]).ends(0).json();
    assert_eq!((&same["evaluated"], &same["same"]), (&json!(8), &json!(8)), "{same:#}");

    // Half the limit: exactly the numbers between the two are otherwise.
    project.write("sops/much.rhai", &sop("0.5"));
    let report = project.run(&["sop", "backtest", "much", "--output", "json"]).ends(1).json();
    let between: Vec<i64> = numbers.concat().into_iter().filter(|n| *n > 5 && *n <= 10).collect();
    assert_eq!((&report["differ"], between.len()), (&json!(2), 2), "{report:#}");
    let found: Vec<i64> = report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["given"]["n"].as_i64().unwrap())
        .collect();
    assert_eq!(found, between);
    assert_eq!(field(&report, 0, "given")["limits"]["most"].as_f64(), Some(10.0));
    let act = json!([{ "path": "act", "old": false, "new": true }]);
    assert_eq!(field(&report, 0, "differences"), &act);
    let rule = &field(&report, 0, "rules")[0];
    assert_eq!((&rule["rule"], &rule["old"]), (&json!("much"), &json!(false)), "{rule:#}");
    assert!(field(&report, 0, "from").as_str().unwrap().ends_with("step each[k6]"), "{report:#}");
    let shown = project.run(&["sop", "backtest", "much"]).ends(1).out;
    assert!(shown.contains("8 evaluations: 6 the same, 2 otherwise"), "{shown}");
    assert!(shown.contains("act: false -> true") && shown.contains("n = 6"), "{shown}");

    // Fields that are not asked for do not count, and what is older is left out.
    project.run(&["sop", "backtest", "much", "--field", "n"]).ends(0);
    project.run(&["sop", "backtest", "much", "--since", "2999-01-01T00:00:00Z"]).ends(2);
    // A version that fails says so for every evaluation.
    project.write("other.rhai", "gone > n");
    let fails = ["sop", "backtest", "much", "--new", "other.rhai", "--output", "json"];
    assert_eq!(project.run(&fails).ends(1).json()["fail"], 8);

    // Measurements of the history, judged by what the newest plan has and by the file as it is.
    let sql =
        "select count(*) as n, 3 as \"limits.most\" from workflow_runs where workflow = 'judge'";
    let args = ["sop", "backtest", "much", "--since", "2999-01-01T00:00:00Z", "--history", sql];
    let wants_old = project.run(&args).ends(2);
    assert!(wants_old.err.contains("--against"), "{}", wants_old.err);
    project.write("old.rhai", &sop("1"));
    let args = [&args[..], &["--against", "old.rhai", "--output", "json"]].concat();
    let report = project.run(&args).ends(1).json();
    assert_eq!(report["evaluated"], 1);
    assert_eq!(field(&report, 0, "given")["n"], 2, "two runs: {report:#}");
}
