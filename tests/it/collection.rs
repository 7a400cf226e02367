//! What is collected from a real server: growth within an epoch of its counters, and none across.

use std::collections::BTreeMap;

use lakeops::config::Settings;
use lakeops::history::check;
use lakeops::kernel::{Failure, SystemClock, Target};
use lakeops::postgres::{PgEndpoint, PgReader};
use lakeops::tools::tool::{HistoryRow, ToolOutput};
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::harness::{Place, connect, execute, postgres, value};

const STATEMENTS: &str = "persist_pg_stat_statements";

/// Tools that are run again and again on one database, each with its earlier outputs.
struct Collector {
    endpoint: PgEndpoint,
    settings: Settings,
    target: Target,
    earlier: BTreeMap<String, Vec<Value>>,
}

impl Collector {
    fn new(endpoint: PgEndpoint) -> Self {
        let target = Target { branch: Some("main".into()), ..Target::default() };
        Self { endpoint, settings: Settings::default(), target, earlier: BTreeMap::new() }
    }

    async fn collect_from(&mut self, reader: PgReader, tool: &str, arguments: Value) -> ToolOutput {
        let AnyTool::Read(found) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        let earlier = self.earlier.entry(tool.to_owned()).or_default();
        let cx = ReadContext {
            earlier,
            ..ReadContext::new(&reader, &SystemClock, &self.settings, &self.target)
        };
        let output = found.read(&cx, arguments).await;
        reader.close().await;
        let output = output.unwrap_or_else(|failure| panic!("{failure:?}"));
        earlier.insert(0, output.earlier());
        for row in &output.history {
            check(row).unwrap_or_else(|error| panic!("{error}"));
        }
        output
    }

    async fn collect_with(&mut self, tool: &str, arguments: Value) -> ToolOutput {
        let reader = PgReader::new(self.endpoint.clone(), &self.settings.limits, "lakeops:test");
        self.collect_from(reader, tool, arguments).await
    }

    async fn collect(&mut self, tool: &str) -> ToolOutput {
        self.collect_with(tool, json!({})).await
    }

    /// Calls of the one statement that counts rows of `t`.
    async fn call(&self, times: usize) {
        let statements = vec!["select count(*) from t where a = 1"; times];
        execute(&self.endpoint, &statements).await;
    }
}

fn rows<'a>(output: &'a ToolOutput, table: &'a str) -> impl Iterator<Item = &'a Value> {
    let of = move |row: &&HistoryRow| row.table == table;
    output.history.iter().filter(of).map(|row| &row.row)
}

/// The row of the one statement, by its fingerprint.
fn statement(output: &ToolOutput, queryid: i64) -> &Value {
    let mut found = rows(output, "pg_stat_history").filter(|row| row["queryid"] == queryid);
    found.next().unwrap_or_else(|| panic!("no row in {}", output.value))
}

/// No row says that anything grew by less than nothing.
fn assert_nothing_negative(output: &ToolOutput) {
    for row in rows(output, "pg_stat_history") {
        for (name, value) in row.as_object().unwrap() {
            let negative = name.ends_with("_delta") && value.as_f64().is_some_and(|by| by < 0.0);
            assert!(!negative, "{name} of {row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_grow_within_an_epoch_and_never_across() {
    let place = Place::new();
    let server = place.start("counters").await.unwrap();
    let mut collector = Collector::new(server.endpoint());
    let secret = "create role r password 'hunter2hunter2'";
    execute(
        &collector.endpoint,
        &["create extension pg_stat_statements", "create table t (a int)", secret],
    )
    .await;
    collector.call(3).await;
    let first = collector.collect(STATEMENTS).await;
    assert_eq!(first.value["status"], "collected");
    assert_eq!(first.value["no_window"], "no run before this one");
    let text = rows(&first, "query_texts")
        .find(|row| row["query"] == "select count(*) from t where a = $1")
        .unwrap();
    let id = text["queryid"].as_i64().unwrap();
    assert_eq!(statement(&first, id)["calls"], 3);
    assert!(statement(&first, id).get("calls_delta").is_none());
    let all = format!("{}{}", serde_json::to_string(&first.history).unwrap(), first.value);
    assert!(!all.contains("hunter2") && all.contains("create role r password '…'"), "{all}");

    collector.call(5).await;
    let second = collector.collect(STATEMENTS).await;
    assert!(second.value["window_seconds"].as_f64().unwrap() > 0.0, "{}", second.value);
    assert_eq!(statement(&second, id)["calls"], 8);
    assert_eq!(statement(&second, id)["calls_delta"], 5.0);
    assert!(second.value["unchanged"].as_u64().unwrap() > 0, "who did nothing has no row");
    assert!(rows(&second, "query_texts").all(|row| row["queryid"] != id), "a text is kept once");

    // A statement that is reset alone has counted since only what it has.
    let mut session = connect(&collector.endpoint).await;
    let reset = format!("select pg_stat_statements_reset(0, 0, {id})");
    sqlx::query(AssertSqlSafe(reset)).execute(&mut session).await.unwrap();
    collector.call(2).await;
    let third = collector.collect(STATEMENTS).await;
    assert_eq!(statement(&third, id)["calls_delta"], 2.0);
    assert!(third.value["restarted"].as_u64().unwrap() >= 1);

    sqlx::query("select pg_stat_statements_reset()").execute(&mut session).await.unwrap();
    drop(session);
    collector.call(4).await;
    let fourth = collector.collect(STATEMENTS).await;
    assert_eq!(statement(&fourth, id)["calls"], 4);
    assert_ne!(fourth.value["epoch"], third.value["epoch"]);

    // Counters outlive an orderly restart, and yet nothing is compared: in between they may have been lost.
    server.stop().await.unwrap();
    let server = place.start("counters").await.unwrap();
    collector.endpoint = server.endpoint();
    collector.call(1).await;
    let fifth = collector.collect(STATEMENTS).await;
    for output in [&first, &fourth, &fifth] {
        assert_eq!(output.value["window_seconds"], Value::Null);
        assert!(rows(output, "pg_stat_history").all(|row| row.get("calls_delta").is_none()));
    }
    // Another server of the same name and place: failover, or a branch that was made anew.
    let other = place.start("other").await.unwrap();
    execute(&other.endpoint(), &["create extension pg_stat_statements", "create table t (a int)"])
        .await;
    collector.endpoint = other.endpoint();
    collector.call(1).await;
    let sixth = collector.collect(STATEMENTS).await;
    assert_eq!(sixth.value["window_seconds"], Value::Null);
    assert!(sixth.value["no_window"].as_str().unwrap().contains("another server"));
    for output in [&first, &second, &third, &fourth, &fifth, &sixth] {
        assert_nothing_negative(output);
    }
    other.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_suspended_compute_did_is_not_invented() {
    let endpoint = postgres().await.fresh_database("suspended").await;
    execute(&endpoint, &["create extension pg_stat_statements", "create table t (a int)"]).await;
    let mut collector = Collector::new(endpoint);
    let first = collector.collect(STATEMENTS).await;
    for tool in [STATEMENTS, "collect_statistics", "collect_sessions"] {
        let asleep = Failure::permanent("lakebase::suspended", "the compute is suspended");
        let reader = PgReader::unavailable(asleep);
        let skipped = collector.collect_from(reader, tool, json!({})).await;
        assert_eq!(skipped.value["status"], "skipped", "{tool}");
        assert!(skipped.history.is_empty(), "{tool}");
    }
    // The next run goes on from the last that saw anything, over the whole time.
    collector.call(2).await;
    let next = collector.collect(STATEMENTS).await;
    let window = next.value["window_seconds"].as_f64().unwrap();
    assert!(window > 0.0 && next.value["epoch"] == first.value["epoch"], "{}", next.value);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_measured() {
    let endpoint = postgres().await.fresh_database("unmeasured").await;
    let mut collector = Collector::new(endpoint.clone());
    for tool in [STATEMENTS, "collect_pg_stat_statements_info"] {
        let output = collector.collect(tool).await;
        let missing = &output.value["not_measured"][0];
        assert_eq!(missing["needs"], "create extension pg_stat_statements", "{tool}");
        assert!(output.history.is_empty(), "{tool}");
    }
    // The extension may be in any schema; who may not see others is told so.
    execute(
        &endpoint,
        &[
            "create schema \"My Stats\"",
            "create extension pg_stat_statements schema \"My Stats\"",
            "create role plain_collector login",
            "grant usage on schema \"My Stats\" to plain_collector",
        ],
    )
    .await;
    let mut plain = Collector::new(endpoint.with_user("plain_collector", None));
    let output = plain.collect(STATEMENTS).await;
    assert_eq!(output.value["status"], "collected");
    let missing = &output.value["not_measured"][0];
    assert_eq!(missing["needs"], "grant pg_read_all_stats to current_user", "{}", output.value);
    let info = collector.collect("collect_pg_stat_statements_info").await;
    let row = rows(&info, "pg_stat_statements_info").next().unwrap();
    assert!(row["statements"].as_u64().unwrap() > 0 && row["max_statements"] == 5000, "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_indexes_and_checkpoints_are_recorded_when_they_are_due() {
    let endpoint = postgres().await.fresh_database("statistics").await;
    execute(
        &endpoint,
        &[
            "create table busy (a int primary key)",
            "create table quiet (a int primary key)",
            "insert into busy select generate_series(1, 1000)",
            "select pg_stat_force_next_flush()",
        ],
    )
    .await;
    let mut collector = Collector::new(endpoint.clone());
    let first = collector.collect("collect_statistics").await;
    let names: Vec<_> = rows(&first, "table_stats").map(|row| row["table_name"].clone()).collect();
    assert!(names.contains(&json!("busy")) && names.contains(&json!("quiet")), "{names:?}");
    let busy = rows(&first, "table_stats").find(|row| row["table_name"] == "busy").unwrap();
    assert_eq!((&busy["n_tup_ins"], &busy["schema_name"]), (&json!(1000), &json!("public")));
    assert!(busy["total_size_bytes"].as_i64() > busy["table_size_bytes"].as_i64());
    assert_eq!(rows(&first, "index_stats").count(), 2);
    assert_eq!(rows(&first, "checkpoint_stats").count(), 1);
    let size =
        rows(&first, "lakebase_metrics").find(|row| row["metric_name"] == "database_size_bytes");
    let really: i64 = value(&endpoint, "select pg_database_size(current_database())").await;
    assert!((size.unwrap()["metric_value"].as_i64().unwrap() - really).abs() < 1 << 20);

    // At once nothing is due. Tables that are: only those that changed.
    let second = collector.collect("collect_statistics").await;
    assert!(second.history.is_empty(), "{}", second.value);
    execute(&endpoint, &["delete from busy where a > 900", "select pg_stat_force_next_flush()"])
        .await;
    let third = collector.collect_with("collect_statistics", json!({ "tables": "0s" })).await;
    let names: Vec<_> = rows(&third, "table_stats").map(|row| row["table_name"].clone()).collect();
    assert_eq!(names, [json!("busy")]);
    assert_eq!(third.value["tables"], json!({ "found": 2, "recorded": 1 }));
    assert_eq!(third.value["indexes"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_whom_is_sampled() {
    let endpoint = postgres().await.fresh_database("sessions").await;
    execute(&endpoint, &["create table t (a int)", "insert into t values (1)"]).await;
    let mut holder = connect(&endpoint).await;
    let held: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    sqlx::query("begin").execute(&mut holder).await.unwrap();
    sqlx::query("update t set a = 2").execute(&mut holder).await.unwrap();
    let mut waiter = connect(&endpoint).await;
    let waiting = tokio::spawn(async move {
        sqlx::query("update t set a = 3 where 'x' <> 'secret'").execute(&mut waiter).await
    });
    let blocked = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
    while value::<i64>(&endpoint, blocked).await == 0 {}
    let mut collector = Collector::new(endpoint);
    let output = collector.collect("collect_sessions").await;
    let found = rows(&output, "lock_samples").find(|row| row["root_pid"] == held).unwrap();
    assert_eq!((&found["blocked_by"], &found["depth"]), (&json!([held]), &json!(1)));
    assert_eq!(found["query"], "update t set a = 3 where '…' <> '…'");
    assert!(output.value["others_active"].as_bool().unwrap());
    let connections: i64 =
        rows(&output, "connection_samples").map(|row| row["connections"].as_i64().unwrap()).sum();
    assert_eq!(output.value["connections"], connections);
    sqlx::query("rollback").execute(&mut holder).await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_weighed_from_what_was_recorded() {
    let project = crate::cli::Project::with_database("suspension").await;
    let workflows = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows");
    for _ in 0..3 {
        project.run(&["--workflows", workflows, "run", "sample_sessions"]).ends(0);
    }
    let tool = ["tools", "run", "recommend_scale_to_zero_timeout", "--target", "local/main"];
    let said = project.run(&tool).ends(1);
    assert!(said.err.contains("current: 5m"), "{}", said.err);
    let found = project.json(&[&tool[..], &["-p", "current=5m"]].concat());
    assert_eq!(
        (&found["verdict"], &found["recommended"]),
        (&json!("too_little_data"), &json!(null))
    );
    assert!(found["observed_days"].as_f64().unwrap() > 0.0, "{found:#}");
    assert!(found["reason"].as_str().unwrap().contains("days were observed"), "{found:#}");
    let current = found["choices"].as_array().unwrap().iter().find(|it| it["is_current"] == true);
    assert_eq!(current.unwrap()["timeout_seconds"], 300.0);
}
