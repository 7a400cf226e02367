//! Rehearsals on branches of the emulator: what a person types before a risky change.

use serde_json::{Value, json};

use super::daemon::{ask, done, gone, lakeops, project};
use crate::harness::Place;

const GROW: &str = r#"version: 1
name: grow
target: { project: shop, branch: production, database: databricks_postgres }
steps:
  - id: gate
    approval: { prompt: "Make the table?", covers: [make], rehearsed_within: 24h }
  - id: make
    needs: [gate]
    tool: execute_sql
    with: { statements: ["create table public.made (a int)"] }
    wake: true
"#;

const BRANCHES: &str = "/api/2.0/postgres/projects/shop/branches";

async fn branches(status: &Value) -> Vec<String> {
    let found = ask(status, "GET", BRANCHES, Value::Null).await;
    let all = found["branches"].as_array().unwrap().iter();
    all.map(|branch| branch["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_approval_is_granted_once_a_branch_has_shown_what_the_change_does() {
    let place = Place::new();
    let status = done(&place, &["emulator", "start"]);
    project(&status, "shop").await;
    std::fs::create_dir_all(place.base.path().join("workflows")).unwrap();
    std::fs::write(place.base.path().join("workflows/grow.yaml"), GROW).unwrap();

    let (code, waiting) = lakeops(&place, &["--connection", "emulator", "run", "grow"]);
    assert_eq!((code, &waiting["outcome"]), (3, &json!("waiting_approval")), "{waiting}");
    let run = waiting["run_id"].as_str().unwrap().to_owned();
    let approve = ["approve", &run, "gate", "--reason", "it was rehearsed"];
    let (code, refused) = lakeops(&place, &approve);
    assert_eq!(code, 2, "{refused}");
    assert!(refused.to_string().contains("never rehearsed"), "{refused}");

    let rehearse = ["--connection", "emulator", "run", "grow", "--rehearse"];
    let rehearsed = done(&place, &rehearse);
    assert_eq!(rehearsed["outcome"], "succeeded", "{rehearsed}");
    let shown = &rehearsed["rehearsal"];
    let branch = shown["branches"][0]["branch"].as_str().unwrap();
    assert!(branch.starts_with("tmp-") && shown["branches"][0]["removed"] == true, "{shown}");
    let make = &shown["steps"][0];
    assert_eq!((&make["step"], &make["branch"]), (&json!("make"), &json!(branch)));
    assert_eq!(make["changes"][0]["ended"], "applied");
    assert_eq!(make["schema"][0]["action"], "added");
    assert_eq!(branches(&status).await, ["projects/shop/branches/production"]);

    let asked = done(&place, &["approvals", &run]);
    assert_eq!(asked[0]["rehearsed"]["make"]["run"], rehearsed["run_id"], "{asked}");
    assert_eq!(done(&place, &approve)["outcome"], "succeeded");
    done(&place, &["emulator", "stop"]);
    gone(&place.state()).await;
}
