//! The program itself: appends at the end of a run, answers, draws and tidies up.

use serde_json::{Value, json};

use crate::cli::Project;
use crate::harness::within_a_day;

const TICK: &str = "version: 1
name: tick
description: Measure the health.
steps:
  - id: health
    tool: monitor_system_health
    with: { depth: live }
";

fn metrics(project: &Project) -> Value {
    let tables = project.json(&["history", "tables"]);
    let mut tables = tables.as_array().unwrap().iter();
    tables.find(|table| table["table"] == "lakebase_metrics").unwrap().clone()
}

#[tokio::test]
async fn the_program_measures_asks_draws_and_tidies_up() {
    within_a_day().await;
    let project = Project::with_database("program").await;
    project.write("workflows/tick.yaml", TICK);
    for _ in 0..3 {
        project.run(&["run", "tick"]).ends(0);
    }
    let before = metrics(&project);
    assert!(before["rows"].as_u64() > Some(3), "{before}");
    assert_eq!(before["files"], 3);
    let counted =
        ["history", "query", "select count(*) as n from workflow_runs", "--output", "csv"];
    assert_eq!(project.run(&counted).ends(0).out, "n\n3\n");

    let drawn = project.run(&["history", "chart", "connection_utilization"]).ends(0).out;
    assert!(drawn.contains('┤') && drawn.contains('█'), "{drawn}");
    let points = project.json(&["history", "chart", "connection_utilization", "--since", "1h"]);
    assert_eq!(points.as_array().unwrap().len(), 3, "{points}");
    let series =
        ["history", "chart", "--sql", "select finished_at, duration_seconds from workflow_runs"];
    assert_eq!(project.json(&series).as_array().unwrap().len(), 3);
    let odd = ["history", "chart", "--sql", "select 1"];
    assert!(project.run(&odd).ends(2).err.contains("select two columns"));

    let shown = project.json(&["history", "optimize", "lakebase_metrics", "--preview"]);
    assert_eq!(shown["changes"][0]["operation"]["work"]["work"], "compact", "{shown}");
    assert_eq!(metrics(&project)["files"], 3, "a preview changes nothing");
    project.run(&["history", "optimize", "lakebase_metrics"]).ends(0);
    let after = metrics(&project);
    assert_eq!((&after["files"], &after["rows"]), (&json!(1), &before["rows"]));
    project.run(&["history", "expire", "--keep", "1d"]).ends(0);
    assert_eq!(metrics(&project)["rows"], before["rows"]);
    let told = project.run(&["history", "optimize", "no_such_table"]);
    assert!(told.code != 0 && told.out.contains("no_such_table"), "{}{}", told.out, told.err);
}

/// It takes milliseconds, and appending takes more time and memory than that.
#[test]
fn a_run_that_asked_no_database_comes_into_the_history_when_that_is_asked() {
    let project = Project::new();
    project.write("sops/add.rhai", "#{ sum: n + 1 }");
    let text =
        "version: 1\nname: think\nsteps:\n  - { id: a, script: sops/add.rhai, with: { n: 1 } }\n";
    project.write("workflows/think.yaml", text);
    for known in 1..3 {
        project.run(&["run", "think"]).ends(0);
        let folder = project.path().join("state/history");
        assert!(known > 1 || !folder.exists(), "nothing was asked");
        let counted =
            ["history", "query", "select count(*) as n from workflow_runs", "--output", "csv"];
        assert_eq!(project.run(&counted).ends(0).out, format!("n\n{known}\n"));
    }
}
