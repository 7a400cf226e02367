//! Advice about indexes on the emulator: found, tried on a branch, approved, followed and measured again, in one
//! workflow, by processes that are killed on the way.

use std::time::Duration;

use lakeops::kernel::{Clock as _, SystemClock, Target};
use lakeops::lakebase::branches;
use lakeops::postgres::PgEndpoint;
use serde_json::{Value, json};

use super::whole::{Cloud, Said};
use crate::harness::{connect, execute, until, value};
use crate::tools::pause;

/// What the application does all day: no index serves it.
const ASKS: &str = "select note from public.orders where customer_id = 17";

/// A project whose production misses one index and has one twice.
async fn shop(cloud: &Cloud) -> PgEndpoint {
    cloud.ship();
    cloud.make_project("shop").await;
    let branch = Some("production".to_owned());
    let target = Target { project: Some("shop".to_owned()), branch, database: None };
    let endpoint = cloud.databases().endpoint(&target, true).await.unwrap();
    let setup = [
        "create extension if not exists pg_stat_statements",
        "create table public.orders (id int primary key, customer_id int, state text, note text)",
        "insert into public.orders select g, g % 2000, 'state ' || g % 7, 'note ' || g \
         from generate_series(1, 40000) as g",
        // Small, so that the missing index comes first.
        "create table public.states (id int, name text)",
        "insert into public.states select g, 'state ' || g from generate_series(1, 2000) as g",
        "create index states_name on public.states (name)",
        "create index states_name_twin on public.states (name)",
        "vacuum analyze public.orders, public.states",
    ];
    execute(&endpoint, &setup).await;
    work(&endpoint).await;
    endpoint
}

/// Twenty calls of what the application asks, and a few of what has an index.
async fn work(endpoint: &PgEndpoint) {
    let mut session = connect(endpoint).await;
    let others = [
        "select id from public.states where name = 'state 7'",
        "select state from public.orders where id = 5",
    ];
    for statement in std::iter::repeat_n(ASKS, 20).chain(others).chain(others) {
        sqlx::raw_sql(statement).execute(&mut session).await.unwrap();
    }
    sqlx::Connection::close(session).await.unwrap();
    let seen = "select coalesce(seq_scan + idx_scan, 0) > 20 from pg_stat_user_tables \
                where relname = 'orders'";
    until(endpoint, seen, Duration::from_mins(1)).await;
}

async fn branch_ids(cloud: &Cloud) -> Vec<String> {
    let found = branches(&*cloud.client, "shop").await.unwrap();
    found.iter().filter(|it| !it.is_deleted()).map(|it| it.id().to_owned()).collect()
}

/// The indexes of the table, `name valid`, in order.
async fn indexes(endpoint: &PgEndpoint) -> String {
    let query = "select string_agg(format('%s %s', indexrelid::regclass, indisvalid), ', ' \
                 order by indexrelid::regclass::text) from pg_index \
                 where indrelid in ('public.orders'::regclass, 'public.states'::regclass)";
    value(endpoint, query).await
}

async fn review(cloud: &Cloud, kill: Option<&str>) -> Said {
    let review = ["index_review", "-p", "project=shop", "-p", "branch=production"];
    let more = ["-p", "measure_after=1s", "--output", "json"];
    let args = [&["run"], &review[..], &more].concat();
    dying(cloud, &args, kill).await
}

async fn resume(cloud: &Cloud, run: &str, kill: Option<&str>) -> Said {
    dying(cloud, &["resume", run, "--output", "json"], kill).await
}

/// A process that dies when it reaches a boundary of this name.
async fn dying(cloud: &Cloud, args: &[&str], kill: Option<&str>) -> Said {
    let mut command = cloud.command(args);
    if let Some(boundary) = kill {
        command.env("LAKEOPS_KILL_AT", "1").env("LAKEOPS_KILL_AMONG", boundary);
    }
    let said = Said::from(command.output().await.unwrap());
    if let Some(boundary) = kill {
        assert_eq!(said.code, None, "nobody died at {boundary}: {}\n{}", said.out, said.err);
    }
    said
}

async fn history(cloud: &Cloud, sql: &str) -> Value {
    cloud.run(&["history", "query", sql, "--output", "json"]).await.ends(0).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_index_is_found_tried_approved_built_and_its_gain_confirmed_through_kills() {
    let cloud = Cloud::start().await;
    let production = shop(&cloud).await;

    // It dies with the branch just made, with the index just built there, and while that is measured.
    review(&cloud, Some("trial/make/do 0/after effect")).await;
    let runs = cloud.run(&["runs", "--output", "json"]).await.ends(0).json();
    let run = runs[0]["run_id"].as_str().unwrap().to_owned();
    assert_eq!(branch_ids(&cloud).await.len(), 2);
    for boundary in
        ["trial/before/", "trial/follow/do 0/after effect", "trial/after/", "trial/judge/"]
    {
        resume(&cloud, &run, Some(boundary)).await;
        assert_eq!(branch_ids(&cloud).await.len(), 2, "the branch of the trial, after {boundary}");
    }
    let waiting = resume(&cloud, &run, None).await.ends(3).json();
    assert_eq!(waiting["outcome"], "waiting_approval", "{waiting:#}");
    // The trial is over, and so is its branch; production is as it was.
    assert_eq!(branch_ids(&cloud).await, ["production"]);
    let untouched = "orders_pkey t, states_name t, states_name_twin t";
    assert_eq!(indexes(&production).await, untouched);

    let asked = cloud.run(&["approvals", &run, "--output", "json"]).await.ends(0).json();
    let shown = asked.to_string();
    assert!(shown.contains("create index concurrently"), "{asked:#}");
    assert!(shown.contains("verified on a branch: 1 of "), "{asked:#}");
    assert!(shown.contains("ms instead of"), "{asked:#}");

    // It dies before the first effect, after it, and in the middle of CREATE INDEX CONCURRENTLY, which
    // waits for whoever is at work on the table.
    let mut blocker = connect(&production).await;
    let hold = "begin; update public.orders set state = 'held' where id = 1";
    sqlx::raw_sql(hold).execute(&mut blocker).await.unwrap();
    let approve = ["approve", &run, "--reason", "a branch has shown it"];
    dying(&cloud, &approve, Some("apply/do 0/before effect")).await;
    let mut child = cloud.command(&["resume", &run]).spawn().unwrap();
    let building = "select exists (select from pg_stat_progress_create_index \
                    where command = 'CREATE INDEX CONCURRENTLY') or exists (select from pg_index \
                    where indrelid = 'public.orders'::regclass and not indisvalid)";
    let deadline = SystemClock.now().plus(Duration::from_mins(1));
    while !value::<bool>(&production, building).await {
        assert!(SystemClock.now() < deadline, "nobody builds: {}", indexes(&production).await);
        pause(50).await;
    }
    child.kill().await.unwrap();
    sqlx::raw_sql("commit").execute(&mut blocker).await.unwrap();
    resume(&cloud, &run, Some("apply/do 1/after effect")).await;
    // ... and when all is done and the day of waiting begins.
    resume(&cloud, &run, Some("step_succeeded/after commit")).await;
    let wanted = |all: &str| {
        let twins = all.split(", ").filter(|it| it.starts_with("states_name")).count();
        let new = all.split(", ").filter(|it| it.contains("customer_id")).count();
        (twins, new, all.contains(" f"))
    };
    let now = indexes(&production).await;
    assert_eq!(wanted(&now), (1, 1, false), "{now}");

    work(&production).await;
    let over = resume(&cloud, &run, None).await.ends(0).json();
    assert_eq!(over["outcome"], "succeeded", "{over:#}");
    let shown = cloud.run(&["show", &run, "--output", "json"]).await.ends(0).json();
    let outputs = &shown["outputs"];
    assert_eq!(outputs["held"], true, "{outputs:#}");
    assert_eq!(outputs["verified"], 2, "{outputs:#}");
    let gain = &outputs["gains"][0];
    assert!(gain["after_ms"].as_f64().unwrap() < gain["before_ms"].as_f64().unwrap(), "{gain}");
    assert_eq!(gain["calls"], 20, "{gain}");
    assert_eq!(wanted(&indexes(&production).await), (1, 1, false));
    assert_eq!(branch_ids(&cloud).await, ["production"]);

    // The life of the advice, and the evidence, as the history has them.
    let sql = "select status, recommendation_type as kind from index_recommendations \
               where branch_id = 'production' and recommendation_type = 'create_missing' \
               order by recorded_at";
    let life = history(&cloud, sql).await;
    let mut life: Vec<&str> =
        life.as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap()).collect();
    life.dedup();
    assert_eq!(life, ["pending", "approved", "executed", "verified"]);
    let evidence = "select evidence from index_recommendations where status = 'executed' \
                    and branch_id = 'production' and recommendation_type = 'create_missing'";
    let found = history(&cloud, evidence).await[0]["evidence"].clone();
    let evidence: Value =
        found.as_str().map_or(found.clone(), |it| serde_json::from_str(it).unwrap());
    let seen = &evidence["verification"];
    assert_eq!((&evidence["verified"], &seen["verdict"]), (&json!(true), &json!("verified")));
    assert!(seen["gain"].as_f64().unwrap() > 0.2, "{seen:#}");
    // How long a build took whose end a kill hid, nobody knows.
    assert!(seen["bytes_after"].as_u64().unwrap() > 0, "{seen:#}");
    assert!(
        seen["writes"]["wal_bytes_with"].as_u64() > seen["writes"]["wal_bytes_without"].as_u64(),
        "{seen:#}"
    );
    let statement = &seen["statements"][0];
    assert_eq!(
        (&statement["uses_index"], &statement["plan_changed"]),
        (&json!(true), &json!(true))
    );

    // What was done is not advised again.
    let again = review(&cloud, None).await.ends(0).json();
    assert_eq!(again["outcome"], "succeeded", "{again:#}");
    cloud.stop().await;
}
