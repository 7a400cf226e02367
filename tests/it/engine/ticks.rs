//! A tick of a collection is in the history once, whenever the process dies.

use lakeops::history::{self, Location};
use lakeops::kernel::Query;
use serde_json::json;

use super::kit::{Kit, plan, plan_with, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{alone, execute};

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_there_once_wherever_its_process_was_killed() {
    // On the server of all, others reset what statements were counted.
    let (_place, server) = alone("ticks").await;
    let endpoint = server.endpoint();
    execute(&endpoint, &["create extension pg_stat_statements", "create table t (a int)"]).await;
    let steps = vec![
        step("statements", &[], tool("persist_pg_stat_statements", json!({}))),
        step("statistics", &["statements"], tool("collect_statistics", json!({}))),
    ];
    // What a plan says of its tools tells that it asks a database, and so that it is appended at once.
    let tick = plan_with(steps, &[], |body| {
        let tools = ["persist_pg_stat_statements", "collect_statistics"];
        body.tools = tools.map(|name| (name.to_owned(), 1)).into();
    });
    for at in [
        "history/pg_stat_history/before append",
        "history/pg_stat_history/after append",
        "history/table_stats/after append",
        "history/audit/before append",
        "history/audit/after append",
    ] {
        let crash = Crash::remembering(&tick, &endpoint);
        assert_eq!(crash.run_until(at, 1), End::Killed, "{at}");
        assert_eq!(crash.finish(), "succeeded", "{at}");
        let location = Location::folder(&crash.state().join("history")).unwrap();
        for (table, key) in [
            ("pg_stat_history", "row_id"),
            ("table_stats", "relid"),
            ("workflow_runs", "run_id"),
            ("audit", "position"),
        ] {
            let sql =
                format!("select count(*) as rows, count(distinct {key}) as once from {table}");
            let answer = history::answer(&location, &Query::new(sql), &[], None).await.unwrap();
            let counted = &answer.rows().unwrap()[0];
            assert!(counted["rows"].as_i64().unwrap() > 0, "{at}: {table} has no row");
            assert_eq!(counted["rows"], counted["once"], "{at}: {table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_goes_on_from_the_one_before() {
    let (_place, server) = alone("windows").await;
    let endpoint = server.endpoint();
    execute(&endpoint, &["create extension pg_stat_statements"]).await;
    let kit = Kit::new(endpoint);
    let tick = plan(vec![step("statements", &[], tool("persist_pg_stat_statements", json!({})))]);
    let mut windows = Vec::new();
    for _ in 0..2 {
        let (run, _) = kit.run(&tick).await;
        windows.push(kit.output(&run, "statements").await["window_seconds"].as_f64());
    }
    assert!(windows[0].is_none() && windows[1].is_some_and(|seconds| seconds > 0.0), "{windows:?}");
}
