//! Comparing a table with its copy on a real server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::Project;
use crate::harness::{connect, execute};
use crate::tools::{Bench, pause, run};

const ORDERS: &str = "create unlogged table orders (id bigint primary key, customer int, \
    amount numeric(10, 2), note text, payload bytea, updated_at timestamptz)";

fn rows(from: u32, to: u32) -> String {
    format!(
        "insert into orders select g, g % 1000, g / 7.0, 'note ' || g, decode(md5(g::text), 'hex'), \
         timestamptz '2026-01-01 00:00:00Z' + g * interval '1 second' from generate_series({from}, {to}) g"
    )
}

/// A table on one database and its copy on another one.
struct Pair {
    source: Bench,
    target: Bench,
}

impl Pair {
    async fn new(hint: &str, count: u32) -> Self {
        let (source, target) = (Bench::new(hint).await, Bench::new(hint).await);
        for bench in [&source, &target] {
            // What a session is set to does not change what a row is.
            let name = bench.endpoint.database();
            let zone = format!("alter database \"{name}\" set timezone = 'Asia/Tokyo'");
            execute(&source.endpoint, &[&zone]).await;
            execute(&bench.endpoint, &[ORDERS, &rows(1, count), "analyze orders"]).await;
        }
        let zone =
            format!("alter database \"{}\" set datestyle = 'german'", target.endpoint.database());
        execute(&source.endpoint, &[&zone]).await;
        Self { source, target }
    }

    async fn compare(&self, tool: &str, mut more: Value) -> Value {
        more["source"] = json!({"table": "public.orders"});
        more["target"] =
            json!({"table": "public.orders", "database": self.target.endpoint.database()});
        self.source.read(tool, more).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_tables_are_compared_in_one_go() {
    let pair = Pair::new("pairs", 100).await;
    execute(&pair.target.endpoint, &["delete from orders where id = 7"]).await;
    let mut project = Project::new();
    project.url = Some(pair.source.endpoint.to_url().expose().clone());
    let workflow = include_str!("../../workflows/run_full_sync_validation.yaml");
    let script = include_str!("../../sops/sync.rhai");
    project.write("workflows/run_full_sync_validation.yaml", workflow);
    project.write("sops/sync.rhai", script);
    let copy = json!({ "table": "public.orders", "database": pair.target.endpoint.database() });
    let pairs =
        json!([{ "source": { "table": "public.orders" }, "target": copy, "mode": "batch" }]);
    let pairs = format!("pairs={pairs}");
    let output = project.json(&["tools", "run", "run_full_sync_validation", "-p", &pairs]);
    assert_eq!((&output["total_pairs"], &output["healthy"]), (&json!(1), &json!(0)), "{output:#}");
    assert!(output.to_string().contains("\"7\""), "the key is named: {output:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_among_a_million_is_named() {
    let pair = Pair::new("million", 1_000_000).await;
    let tamper = [
        "delete from orders where id = 4711",
        "insert into orders (id, note) values (2000000, 'more')",
        "update orders set note = 'other' where id = 777777",
    ];
    execute(&pair.target.endpoint, &tamper).await;
    // Meanwhile both sides are at work, and a row is always on its way from one to the other.
    let (source, target) = (pair.source.endpoint.clone(), pair.target.endpoint.clone());
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let worker = tokio::spawn(async move {
        let (mut source, mut target) = (connect(&source).await, connect(&target).await);
        for side in [&mut source, &mut target] {
            // Who reads holds no writer up, however long a busy machine makes both of them wait.
            run(side, "set lock_timeout = '500ms'").await.unwrap();
        }
        let mut writes = 0;
        for turn in 0.. {
            if stopped.is_cancelled() {
                break;
            }
            let text = format!("update orders set customer = {turn} where id = {}", turn % 500 + 1);
            for side in [&mut source, &mut target] {
                run(side, &text).await.unwrap();
                writes += 1;
                pause(20).await;
            }
        }
        writes
    });
    let begin = Instant::now();
    let found = pair.compare("validate_sync_integrity", json!({"settle": "2s"})).await;
    let took = begin.elapsed();
    stop.cancel();
    let writes: u32 = worker.await.unwrap();
    println!("a million rows on both sides: {took:?}; {writes} writes meanwhile");
    assert_eq!(
        found["keys"],
        json!({"missing": ["4711"], "extra": ["2000000"], "different": ["777777"]}),
        "{found}"
    );
    assert_eq!((&found["status"], &found["differing_keys"]), (&json!("different"), &json!(3)));
    // A row that moves while it is counted can be counted twice, or not at all.
    let counted = found["source_count"].as_u64().unwrap();
    assert!((999_000..1_001_000).contains(&counted), "{counted}");
    assert!(took < Duration::from_mins(2), "{took:?}");
    assert!(writes > 0, "nobody wrote meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_tables_are_verified_and_lag_is_no_loss() {
    let pair = Pair::new("equal", 3_000).await;
    let found = pair.compare("validate_sync_integrity", json!({})).await;
    assert_eq!((&found["status"], &found["checksum_match"]), (&json!("verified"), &json!(true)));
    assert_eq!(found["key_columns"], json!(["id"]));

    // Half an hour of rows is not there yet: that is lag, and within what is tolerated.
    execute(&pair.source.endpoint, &[&rows(3_001, 4_800)]).await;
    let found = pair.compare("validate_sync_completeness", json!({})).await;
    assert_eq!(
        (&found["status"], &found["count_drift"]),
        (&json!("healthy"), &json!(0)),
        "{found}"
    );
    assert_eq!(found["freshness_lag_seconds"], 1_800.0);
    assert_eq!(found["cut"], "2026-01-01T00:50:00");
    execute(&pair.source.endpoint, &[&rows(4_801, 7_000)]).await;
    let found = pair.compare("validate_sync_completeness", json!({})).await;
    assert_eq!(found["status"], "stale");
    let batch = json!({"mode": "batch"});
    assert_eq!(
        pair.compare("validate_sync_completeness", batch.clone()).await["status"],
        "healthy"
    );
    // Rows from before the cut that are not there are lost.
    execute(&pair.target.endpoint, &["delete from orders where id % 20 = 1"]).await;
    let found = pair.compare("validate_sync_completeness", batch).await;
    assert_eq!((&found["status"], &found["count_drift"]), (&json!("drift_detected"), &json!(150)));
    let keys = json!({"most_keys": 2, "settle": "1ms"});
    let found = pair.compare("validate_sync_integrity", keys).await;
    // Of so many buckets some are looked into.
    assert_eq!(found["truncated"], true);
    assert!(found["differing_keys"].as_u64().unwrap() > 500, "{found}");
    assert_eq!(found["keys"]["missing"].as_array().unwrap().len(), 2);
}
