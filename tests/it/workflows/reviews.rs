//! The workflows that go on from what was recorded: on rows that a real collection left, days later.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lakeops::history::{self, Location};
use lakeops::journal::Outcome;
use lakeops::journal::event::Event;
use lakeops::journal::store::{Append, Durability, Expect, Stream};
use lakeops::kernel::{Clock as _, Digest, Query, RunId, SystemClock, Target, Timestamp};
use lakeops::postgres::PgEndpoint;
use lakeops::tools::tool::HistoryRow;
use serde_json::{Value, json};

use super::{Bench, somebody};
use crate::harness::{self, alone, execute, until, value};
use crate::history::kit::{Ahead, ended, worked};

const DAY: Duration = Duration::from_hours(24);

/// How long counters may take to tell what was done.
const PATIENCE: Duration = Duration::from_mins(2);

impl Bench {
    /// The same, some time later.
    fn later(&self, endpoint: &PgEndpoint, state: &Path, by: Duration) -> Self {
        let there = (endpoint.clone(), Arc::clone(&self.journal));
        Self::of(there, Some(state), Arc::new(Ahead(by)))
    }

    /// Rows in the history, as a run that is over leaves them.
    async fn remember(&self, rows: Vec<HistoryRow>) {
        let mut events = vec![
            Event::RunCreated {
                plan: Digest::of_bytes(b"earlier"),
                workflow: "collect_metrics".to_owned(),
                target: Target::default(),
                key: None,
                by: somebody(),
                yes: false,
                forked_from: None,
                cause: None,
            },
            Event::RunClaimed { by: somebody(), pid: 1 },
        ];
        events.extend(worked(rows));
        events.push(ended());
        let stream = Stream::Run(RunId::new("eeeeeeeeeeeeeeee"));
        let append = Append { stream, expect: Expect::Anything, events };
        self.journal.append(vec![append], Durability::Synced).await.unwrap();
        self.history.as_ref().unwrap().append_owed().await.unwrap();
    }

    async fn succeeds(&self, workflow: &str, params: &[(&str, &str)]) -> lakeops::report::RunView {
        let (run, outcome) = self.run(workflow, params).await;
        let view = self.view(&run).await;
        assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
        view
    }
}

async fn ask(state: &Path, sql: &str) -> Vec<Value> {
    let location = Location::folder(&state.join("history")).unwrap();
    history::answer(&location, &Query::new(sql), &[], None).await.unwrap().rows().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_vacuums_tunes_and_later_finds_what_nobody_used() {
    // What others have open would keep its dead rows alive.
    let (_place, server) = alone("window").await;
    let endpoint = server.endpoint();
    let setup = [
        "create table public.large (id int primary key, n int)",
        "insert into public.large select g, g from generate_series(1, 200000) as g",
        "create index large_n on public.large (n)",
        "create table public.worn (id int primary key, n int)",
        "insert into public.worn select g, g from generate_series(1, 20000) as g",
        "create table public.still (id int primary key)",
        "insert into public.still select generate_series(1, 150000)",
        // What was inserted before the VACUUM counts as before it.
        "select pg_stat_force_next_flush()",
        "vacuum analyze",
        "select pg_stat_force_next_flush()",
    ];
    execute(&endpoint, &setup).await;
    let state = tempfile::tempdir().unwrap();
    let today = Bench::keeping(endpoint.clone(), Some(state.path()));
    today.succeeds("collect_branch", &[]).await;
    execute(
        &endpoint,
        &[
            "update public.large set n = n + 1 where id <= 15000",
            "update public.worn set n = n + 1",
            "select pg_stat_force_next_flush()",
        ],
    )
    .await;
    let dead = "select n_dead_tup >= 20000 from pg_stat_user_tables where relname = 'worn'";
    until(&endpoint, dead, PATIENCE).await;

    // A day later: 15,000 rows of the large table die in a day, and a fifth of it would be 40,000.
    let window = today.later(&endpoint, state.path(), DAY);
    let view = window.succeeds("vacuum_window", &[]).await;
    assert_eq!(view.outputs["vacuumed"], json!(["public.worn"]), "{:#}", view.outputs);
    let left = "select n_dead_tup = 0 from pg_stat_user_tables where relname = 'worn'";
    until(&endpoint, left, PATIENCE).await;
    let tuned = view.outputs["tuned"].as_array().unwrap();
    assert_eq!(tuned.len(), 1, "{tuned:#?}");
    assert_eq!(
        (&tuned[0]["table"], &tuned[0]["ended"]),
        (&json!("public.large"), &json!("applied"))
    );
    let churn = tuned[0]["churn_per_day"].as_f64().unwrap();
    assert!((14_900.0..=15_100.0).contains(&churn), "{churn}");
    let options = "select array_to_string(reloptions, ' ') from pg_class where relname = 'large'";
    let options: String = value(&endpoint, options).await;
    assert_eq!(options, "autovacuum_vacuum_scale_factor=0.05");
    let changes = "select table_name, parameter, status from autovacuum_changes";
    let expected = json!([{
        "table_name": "large", "parameter": "autovacuum_vacuum_scale_factor", "status": "applied",
    }]);
    assert_eq!(json!(ask(state.path(), changes).await), expected);
    let vacuumed = "select table_name from vacuum_history";
    assert_eq!(json!(ask(state.path(), vacuumed).await), json!([{ "table_name": "worn" }]));

    // By its new parameter the large table is due as well; after that there is nothing to do.
    let view = window.succeeds("vacuum_window", &[]).await;
    assert_eq!(view.outputs["vacuumed"], json!(["public.large"]), "{:#}", view.outputs);
    assert_eq!(view.outputs["tuned"], json!([]), "{:#}", view.outputs);
    let view = window.succeeds("vacuum_window", &[]).await;
    assert_eq!((&view.outputs["vacuumed"], &view.outputs["tuned"]), (&json!([]), &json!([])));
    assert_eq!(view.step("vacuum").unwrap().state, "skipped");

    // The history knows since when nobody has used an index. Reading by it starts the time anew.
    let unused = |view: &lakeops::report::RunView| -> Vec<Value> {
        let found = view.step("unused").unwrap().output["findings"].as_array().unwrap().clone();
        let named = |it: &Value| it["index"].to_string().contains("large_n");
        found.into_iter().filter(named).map(|it| it["verdict"].clone()).collect()
    };
    let week = today.later(&endpoint, state.path(), DAY * 13);
    assert_eq!(unused(&week.succeeds("run_full_index_analysis", &[]).await), ["watching"]);
    let fresh = Bench::keeping(endpoint.clone(), Some(state.path()));
    let month = fresh.later(&endpoint, state.path(), DAY * 15);
    assert_eq!(unused(&month.succeeds("run_full_index_analysis", &[]).await), ["unused"]);
    execute(
        &endpoint,
        &[
            "set enable_seqscan = off",
            "select count(*) from public.large where n = 5",
            "select pg_stat_force_next_flush()",
        ],
    )
    .await;
    let fresh = Bench::keeping(endpoint.clone(), Some(state.path()));
    let month = fresh.later(&endpoint, state.path(), DAY * 15);
    assert!(unused(&month.succeeds("run_full_index_analysis", &[]).await).is_empty());
    server.stop().await.unwrap();
}

/// A day's measurements of a branch; the highest counts.
fn measured(branch: &str, metric: &str, at: Timestamp, value: f64) -> Vec<HistoryRow> {
    let row = |hour: i64, value: f64| HistoryRow {
        table: "lakebase_metrics".to_owned(),
        row: json!({
            "project_id": "local", "branch_id": branch, "metric_name": metric,
            "metric_value": value, "snapshot_timestamp": Timestamp::from_millis(at.as_millis() + hour * 3_600_000),
        }),
    };
    vec![row(3, value * 0.8), row(12, value), row(21, value * 0.9)]
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_is_foretold_from_recorded_days_alone() {
    let endpoint = harness::postgres().await.fresh_database("capacity").await;
    let state = tempfile::tempdir().unwrap();
    let bench = Bench::keeping(endpoint, Some(state.path()));
    let now = SystemClock.now();
    let midnight = now.as_millis().div_euclid(86_400_000) * 86_400_000;
    let day = |ago: i64| Timestamp::from_millis(midnight - ago * 86_400_000);
    let mut rows = Vec::new();
    for ago in 1..=40_u32 {
        // Two more connections a day, of 100: the limit comes in ten days. Storage has room for years.
        let days = f64::from(40 - ago);
        let wobble = f64::from(ago % 3);
        let at = day(i64::from(ago));
        rows.extend(measured("main", "connections", at, 2.0f64.mul_add(days, wobble)));
        rows.extend(measured("main", "max_connections", at, 100.0));
        rows.extend(measured(
            "main",
            "database_size_bytes",
            at,
            1e6f64.mul_add(days, 1e9 + wobble),
        ));
        // Another branch goes elsewhere.
        rows.extend(measured("other", "connections", at, 90.0 + wobble));
    }
    // The day that still runs would look like a fall.
    let this_hour = now.as_millis() - midnight;
    let mut young = measured("main", "connections", day(0), 1.0);
    young.truncate(usize::try_from(this_hour / 3_600_000).unwrap().min(1));
    rows.extend(young);
    for ago in 1..=5 {
        rows.extend(measured("young", "connections", day(ago), 5.0));
    }
    bench.remember(rows).await;

    let view = bench.succeeds("capacity_review", &[]).await;
    let told = view.outputs["forecasts"].as_array().unwrap();
    assert_eq!(told.len(), 2, "{told:#?}");
    let connections = &told[0];
    assert_eq!(
        (&connections["metric"], &connections["verdict"]),
        (&json!("connections"), &json!("reaches_limit"))
    );
    assert_eq!((&connections["current"], &connections["points"]), (&json!(79.0), &json!(40)));
    let days = connections["days_to_limit"].as_f64().unwrap();
    assert!((8.0..=12.0).contains(&days), "{connections:#}");
    assert_eq!(told[1]["verdict"], "fine", "{:#}", told[1]);
    assert_eq!(view.step("alert").unwrap().output["sent"], true);
    let kept = "select metric_name, verdict, points from capacity_forecasts order by 1";
    let expected = json!([
        { "metric_name": "connections", "verdict": "reaches_limit", "points": 40 },
        { "metric_name": "database_size_bytes", "verdict": "fine", "points": 40 },
    ]);
    assert_eq!(json!(ask(state.path(), kept).await), expected);

    // Five days say nothing, and nothing is said.
    let view = bench.succeeds("capacity_review", &[("branch", "young")]).await;
    assert_eq!(view.outputs["forecasts"], json!([]));
    assert!(view.outputs["not_measured"].to_string().contains("5 days"), "{:#}", view.outputs);
    assert_eq!(view.step("alert").unwrap().state, "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_goes_and_what_is_kept_stays() {
    let endpoint = harness::postgres().await.fresh_database("expiry").await;
    let state = tempfile::tempdir().unwrap();
    let bench = Bench::keeping(endpoint, Some(state.path()));
    let now = SystemClock.now();
    let ago = |days: i64| Timestamp::from_millis(now.as_millis() - days * 86_400_000);
    let rows = [400, 100, 80].into_iter();
    let mut rows: Vec<_> = rows.flat_map(|days| measured("main", "age", ago(days), 1.0)).collect();
    rows.push(HistoryRow {
        table: "vacuum_history".to_owned(),
        row: json!({ "table_name": "t", "executed_at": ago(100) }),
    });
    bench.remember(rows).await;
    let counted = "select (select count(*) from lakebase_metrics) as metrics, \
                   (select count(*) from vacuum_history) as vacuums";
    assert_eq!(json!(ask(state.path(), counted).await), json!([{ "metrics": 9, "vacuums": 1 }]));
    let view = bench.succeeds("history_maintenance", &[]).await;
    assert_eq!(view.outputs["rows_expired"], 6, "{:#}", view.outputs);
    assert_eq!(json!(ask(state.path(), counted).await), json!([{ "metrics": 3, "vacuums": 1 }]));
    let actions =
        "select action, detail from audit where detail like '%lakebase_metrics%' order by position";
    let told = json!(ask(state.path(), actions).await).to_string();
    assert!(told.contains("expire") && told.contains("clean"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn costly_statements_with_a_fault_are_told() {
    let endpoint = harness::postgres().await.fresh_database("slow_review").await;
    execute(
        &endpoint,
        &[
            "create extension pg_stat_statements",
            "create table public.orders (id int primary key, customer int, note text)",
            "insert into public.orders select g, g % 2000, 'n ' || g from generate_series(1, 50000) as g",
            "vacuum analyze public.orders",
        ],
    )
    .await;
    // The setup above costs as much: it is no business of the review.
    let mut session = harness::connect(&endpoint).await;
    let forget = "select pg_stat_statements_reset(0, (select oid from pg_database \
                  where datname = current_database()), 0)";
    sqlx::raw_sql(forget).execute(&mut session).await.unwrap();
    for _ in 0..20 {
        let slow = "select * from public.orders where customer = 4711";
        sqlx::raw_sql(slow).execute(&mut session).await.unwrap();
        let quick = "select * from public.orders where id = 7";
        sqlx::raw_sql(quick).execute(&mut session).await.unwrap();
    }
    drop(session);
    let flushed = "select seq_scan >= 20 from pg_stat_user_tables where relname = 'orders'";
    until(&endpoint, flushed, PATIENCE).await;
    let bench = Bench::on(endpoint);
    let view = bench.succeeds("slow_query_review", &[]).await;
    let findings = view.outputs["findings"].as_array().unwrap();
    let told: Vec<_> =
        findings.iter().filter(|it| it["text"].to_string().contains("customer")).collect();
    assert_eq!(told.len(), 1, "{:#}", view.outputs);
    assert!(
        !findings.iter().any(|it| it["text"].to_string().contains("where id")),
        "{findings:#?}"
    );
    assert_eq!(view.step("alert").unwrap().output["sent"], true);
    assert_eq!(view.outputs["explanations"], json!([]), "no model is configured");
    assert!(!view.outputs.to_string().contains("4711"), "literals stay where they are");

    let view = bench.succeeds("slow_query_review", &[("min_share", "1.0")]).await;
    assert_eq!(view.outputs["findings"], json!([]));
    assert_eq!(view.step("alert").unwrap().state, "skipped");
}
