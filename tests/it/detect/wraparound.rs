//! Old transactions, and who holds them, on a server that has used many.

use std::time::Duration;

use lakeops::config::settings::Threshold;
use serde_json::json;
use sqlx::Connection as _;

use super::bench::{Bench, now, sorted};
use crate::harness::{connect, execute};

/// Uses up so many transaction numbers.
async fn age(bench: &Bench, transactions: u32) {
    let text = format!(
        "do $$ begin for i in 1..{transactions} loop \
         perform pg_catalog.pg_current_xact_id(); commit; end loop; end $$"
    );
    execute(&bench.endpoint, &[&text]).await;
}

#[tokio::test]
async fn old_tables_and_their_holders_are_told() {
    let mut bench = Bench::start("ages").await;
    bench
        .settings
        .thresholds
        .insert("txid_age".into(), Threshold { warning: 20_000.0, critical: 1e9 });
    execute(
        &bench.endpoint,
        &["create schema w", "create table w.old (n int)", "insert into w.old values (1)"],
    )
    .await;
    let tool = "check_txid_wraparound_risk";
    let arguments = json!({"vacuum_from": 20_000});
    let first = bench.read_at(tool, arguments.clone(), &[], now()).await.value;
    assert_eq!((&first["level"], &first["consumption"]), (&json!("normal"), &json!(null)));

    // Somebody opens a transaction, looks, and forgets it.
    let mut holder = connect(&bench.endpoint).await;
    for statement in ["begin isolation level repeatable read", "select count(*) from w.old"] {
        sqlx::raw_sql(statement).execute(&mut holder).await.unwrap();
    }
    age(&bench, 30_000).await;
    execute(&bench.endpoint, &["create table w.young (n int)"]).await;
    let in_an_hour = now().plus(Duration::from_hours(1));
    let earlier = [first];
    let held = bench.read_at(tool, arguments.clone(), &earlier, in_an_hour).await.value;
    assert_eq!(held["level"], "warning");
    let find = |output: &serde_json::Value, name: &str| {
        let mut tables = output["tables"].as_array().unwrap().clone();
        tables.retain(|table| table["table"] == name);
        tables.pop()
    };
    let old = find(&held, "w.old").unwrap();
    assert_eq!((&old["due"], &old["blocked_by"].as_array().unwrap().len()), (&json!(true), &1));
    assert!(old["reachable_age"].as_i64().unwrap() >= 30_000, "{old}");
    let young = find(&held, "w.young");
    assert!(young.is_none_or(|young| young["due"] == false));
    let who = held["horizon_holders"][0]["kind"].as_str().unwrap();
    assert_eq!(who, "session");
    assert!(held["actions"][0].as_str().unwrap().contains("pg_terminate_backend"), "{held:#}");
    let pace = held["consumption"]["transactions_per_day"].as_f64().unwrap();
    assert!((29_000.0 * 24.0..40_000.0 * 24.0).contains(&pace), "{pace}");
    assert!(held["days_to_stop"].as_f64().unwrap() > 1_000.0);
    assert!(held["members_used"].as_f64().is_some());
    assert_eq!(sorted(&held["databases"], "database").len(), 3, "template0 counts");
    // VACUUM under the holder leaves the table as old as it was.
    execute(&bench.endpoint, &["vacuum (freeze) w.old"]).await;
    let still = bench.read(tool, arguments.clone()).await;
    assert_eq!(find(&still, "w.old").unwrap()["due"], true);

    holder.close().await.unwrap();
    // Its goodbye is on the way, and until it has arrived it holds what it held.
    let gone = "select count(*) = 1 from pg_stat_activity where backend_type = 'client backend'";
    bench.until(gone).await;
    execute(&bench.endpoint, &["vacuum (freeze)"]).await;
    let done = bench.read(tool, arguments).await;
    assert_eq!((&done["vacuum"], &done["horizon_holders"]), (&json!([]), &json!([])));
    bench.stop().await;
}
