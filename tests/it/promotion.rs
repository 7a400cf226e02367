//! Workflows that take changes over branches: what was tried is promoted, once each, whatever happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lakeops::config::Settings;
use lakeops::kernel::{Clock as _, SystemClock, Target};
use lakeops::plan::Plan;
use lakeops::plan::planner::{self, Given, PlanInputs};
use lakeops::report::RunView;
use lakeops::tools::Catalog;
use lakeops::workflow::{Library, Resolver};
use serde_json::{Value, json};

use crate::harness::branches::Branches;
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, value};

const TABLES: [&str; 2] =
    ["create table t (n int, tenant_id text)", "insert into t values (1, 'a'), (2, 'b')"];

fn planned(library: &Library, workflow: &str, params: &[(&str, Value)]) -> Plan {
    let catalog = Catalog::builtin();
    let resolution = Resolver::new(&catalog, library).resolve(workflow);
    let given = params.iter().map(|(name, value)| ((*name).to_owned(), Given::Json(value.clone())));
    let inputs = PlanInputs {
        params: given.collect::<BTreeMap<_, _>>(),
        connection: "test".to_owned(),
        target: Target::default(),
        wake: false,
        settings: &Settings::default(),
        policy: None,
        replaces: None,
        now: SystemClock.now(),
    };
    planner::plan(resolution.get(workflow).unwrap(), &inputs).unwrap()
}

/// A project and the plan that takes these files to production.
async fn migrating(
    hint: &str,
    files: &[(&str, &str)],
    more: &[(&str, Value)],
) -> (Crash, Branches) {
    let plan = |dir: &Path| {
        let folder = dir.join("migrations");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let mut params =
            vec![("project", json!("shop")), ("directory", json!(folder.to_str().unwrap()))];
        params.extend(more.iter().cloned());
        planned(&crate::workflows::library(), "migrate_schema", &params)
    };
    Crash::on_branches(hint, &TABLES, plan).await
}

async fn history(branches: &Branches, branch: &str) -> String {
    let endpoint = branches.branch(branch);
    let there = "select to_regclass('lakeops.schema_migration') is not null";
    if !value::<bool>(&endpoint, there).await {
        return "none".to_owned();
    }
    let all = "select coalesce(string_agg(version, ',' order by version), '') \
               from lakeops.schema_migration";
    value(&endpoint, all).await
}

async fn view(crash: &Crash) -> RunView {
    RunView::from_entries(&crash.plan(), &crash.entries().await)
}

const TWO: [(&str, &str); 4] = [
    ("1_add.sql", "alter table t add column note text;"),
    ("1_add.down.sql", "alter table t drop column note;"),
    ("2_fill.sql", "insert into t (n, note) values (3, 'x'); create index t_n on t (n);"),
    ("2_fill.down.sql", "drop index t_n; delete from t where n = 3;"),
];

fn is_whole(branches: &Branches) {
    let names = branches.names();
    let safety: Vec<_> = names.iter().filter(|name| name.starts_with("safety-")).collect();
    assert_eq!((names.len(), safety.len()), (3, 1), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_over_a_branch_and_staging_to_production() {
    let assertions = json!([{"name": "there is a note", "sql": "select count(note) = 1 from t"}]);
    let (crash, branches) = migrating("promote", &TWO, &[("assertions", assertions)]).await;
    let outcome = crash.finish();
    let view = view(&crash).await;
    assert_eq!(outcome, "succeeded", "{view:#?}");
    for branch in ["production", "staging"] {
        assert_eq!(history(&branches, branch).await, "1,2", "{branch}");
        let rows: i64 = value(&branches.branch(branch), "select count(*) from t").await;
        assert_eq!(rows, 3, "{branch}");
    }
    is_whole(&branches);
    let names = branches.names();
    let safety = names.iter().find(|name| name.starts_with("safety-")).unwrap();
    assert_eq!(history(&branches, safety).await, "none", "production as it was");
    let trial = &view.step("trial").unwrap().output;
    assert!(trial["diff"].as_str().unwrap().contains("note"), "{trial}");
    assert!(
        trial["review"].as_str().unwrap().contains("require-concurrent-index-creation"),
        "{trial}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_its_test_never_leaves_its_branch() {
    let assertions = json!([{"name": "impossible", "sql": "select count(*) = 77 from t"}]);
    let (crash, branches) = migrating("promote_test", &TWO, &[("assertions", assertions)]).await;
    assert_eq!(crash.finish(), "failed");
    assert_eq!(branches.names(), ["production", "staging"]);
    for branch in ["production", "staging"] {
        assert_eq!(history(&branches, branch).await, "none", "{branch}");
    }
}

/// Production changes after the review, so that the second file fails there and nowhere else.
async fn fails_in_production(hint: &str, files: &[(&str, &str)]) -> (Crash, Branches) {
    let (crash, branches) = migrating(hint, files, &[]).await;
    crash.ask_from_now_on();
    assert_eq!(crash.finish(), "waiting_approval");
    assert_eq!(history(&branches, "staging").await, "none", "nothing before the review");
    execute(&branches.branch("production"), &["insert into t values (1, 'a')"]).await;
    crash.approve_from_now_on();
    assert_eq!(crash.finish(), "failed");
    assert_eq!(history(&branches, "staging").await, "1,2");
    is_whole(&branches);
    (crash, branches)
}

const UNIQUE: [(&str, &str); 4] = [
    ("1_add.sql", "alter table t add column note text;"),
    ("1_add.down.sql", "alter table t drop column note;"),
    ("2_unique.sql", "alter table t add constraint t_n unique (n);"),
    ("2_unique.down.sql", "alter table t drop constraint t_n;"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_production_is_undone_where_nothing_is_lost() {
    let (_, branches) = fails_in_production("promote_undo", &UNIQUE).await;
    assert_eq!(history(&branches, "production").await, "");
    let columns =
        "select count(*) from pg_attribute where attrelid = 't'::regclass and attname = 'note'";
    assert_eq!(value::<i64>(&branches.branch("production"), columns).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_production_stops_where_something_would_be_lost() {
    let files: Vec<_> =
        UNIQUE.into_iter().filter(|(name, _)| *name != "2_unique.down.sql").collect();
    let (crash, branches) = fails_in_production("promote_stop", &files).await;
    assert_eq!(history(&branches, "production").await, "1");
    let told = serde_json::to_string(&view(&crash).await).unwrap();
    assert!(told.contains("migrations of shop stopped"), "somebody is told");
}

/// Each process dies at the nth of the boundaries with this in their names; the next goes on.
async fn killed_again_and_again(hint: &str, among: &str, nth: u64) {
    let (crash, branches) = migrating(hint, &TWO, &[]).await;
    let mut kills = 0;
    while crash.run_until(among, nth) == End::Killed {
        kills += 1;
        assert!(kills < 200, "it does not end");
    }
    let view = view(&crash).await;
    assert_eq!(crash.finish(), "succeeded", "{among} after {kills} kills: {view:#?}");
    assert!(kills >= 8, "only {kills} kills at {among}");
    for branch in ["production", "staging"] {
        assert_eq!(history(&branches, branch).await, "1,2", "{branch}");
        let rows: i64 = value(&branches.branch(branch), "select count(*) from t").await;
        assert_eq!(rows, 3, "{branch}, {among}: each migration once");
    }
    is_whole(&branches);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_every_effect_each_migration_happens_once() {
    killed_again_and_again("promote_after", "/after effect", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_every_transaction_each_migration_happens_once() {
    killed_again_and_again("promote_within", "/in transaction", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_every_effect_each_migration_happens_once() {
    killed_again_and_again("promote_before", "/before effect", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_commits_each_migration_happens_once() {
    killed_again_and_again("promote_commits", " commit", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_isolated_after_a_trial() {
    let plan = |_: &Path| {
        let params = [
            ("project", json!("shop")),
            ("tables", json!(["public.t"])),
            ("tenants", json!([{"id": "a"}, {"id": "b"}])),
        ];
        planned(&crate::workflows::library(), "isolate_tenants", &params)
    };
    let (crash, branches) = Crash::on_branches("isolate", &TABLES, plan).await;
    let outcome = crash.finish();
    let view = view(&crash).await;
    assert_eq!(outcome, "succeeded", "{view:#?}");
    assert_eq!(branches.names(), ["production", "staging"]);
    let forced = "select relforcerowsecurity from pg_class where oid = 't'::regclass";
    assert!(value::<bool>(&branches.branch("production"), forced).await);
    let proof = &view.step("proof").unwrap().output;
    assert_eq!(proof["isolated"], true, "{proof}");
    // The owner without a tenant sees nothing any more.
    assert_eq!(value::<i64>(&branches.branch("production"), "select count(*) from t").await, 0);
}
