//! Rows come in exactly once, whoever dies when.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use lakeops::tools::tool::HistoryRow;
use serde_json::json;

use super::kit::{DiesAt, Kit, begun, ended, metric, worked};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_leaves_its_rows_and_the_engine_s() {
    let kit = Kit::new();
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("cache_hit_ratio", 0.99), metric("txid_age", 7.0)])
        .await;
    let appended = kit.writer().append_owed().await.unwrap();
    assert_eq!(appended.rows["lakebase_metrics"], 2);
    assert_eq!(appended.commits, 4, "metrics, runs, steps, audit: one commit each");
    let rows = kit
        .ask(
            "select metric_name, metric_value, run_id, step, project_id, branch_id, metric_id,
                 day = cast(recorded_at as date) as same_day, snapshot_timestamp = recorded_at as filled
             from lakebase_metrics order by metric_name",
        )
        .await;
    assert_eq!(
        rows[0],
        json!({
            "metric_name": "cache_hit_ratio", "metric_value": 0.99, "run_id": "aaaaaaaaaaaaaaaa",
            "step": "look", "project_id": "shop", "branch_id": "main",
            "metric_id": "aaaaaaaaaaaaaaaa/look/0", "same_day": true, "filled": true,
        })
    );
    let runs = kit
        .ask("select workflow, outcome, started_by, steps_succeeded, outputs from workflow_runs")
        .await;
    let expected = json!([{
        "workflow": "health_check", "outcome": "succeeded", "started_by": "ann",
        "steps_succeeded": 1, "outputs": r#"{"level":"normal"}"#,
    }]);
    assert_eq!(json!(runs), expected);
    let steps = kit.ask("select step, attempt, outcome, history_rows from step_runs").await;
    let expected =
        json!([{ "step": "look", "attempt": 1, "outcome": "succeeded", "history_rows": 2 }]);
    assert_eq!(json!(steps), expected);
    let audit = kit.ask("select action, actor from audit order by position").await;
    let said: Vec<_> = audit.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(said, ["run_created", "run_claimed", "run_finished"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_appended_twice_nor_before_its_run_is_over() {
    let kit = Kit::new();
    let writer = kit.writer();
    kit.record("aaaaaaaaaaaaaaaa", begun("a")).await;
    kit.record("aaaaaaaaaaaaaaaa", worked(vec![metric("one", 1.0)])).await;
    writer.append_owed().await.unwrap();
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 0);
    kit.record("aaaaaaaaaaaaaaaa", vec![ended()]).await;
    for _ in 0..3 {
        writer.append_owed().await.unwrap();
        // Another process, which knows nothing but what is stored.
        kit.writer().append_owed().await.unwrap();
    }
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 1);
    assert_eq!(kit.number("select count(*) from audit").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_between_two_tables_leaves_each_row_once() {
    for at in [
        "lakebase_metrics/before append",
        "lakebase_metrics/after append",
        "step_runs/after append",
        "audit/before append",
        "audit/after append",
    ] {
        let kit = Kit::new();
        kit.run("aaaaaaaaaaaaaaaa", vec![metric("one", 1.0)]).await;
        let dying = kit.writer_with(Arc::new(DiesAt(at)));
        let died = AssertUnwindSafe(dying.append_owed()).catch_unwind().await;
        assert!(died.is_err(), "{at}");
        drop(dying);
        // Meanwhile more is owed: the position that is written is a later one.
        kit.run("bbbbbbbbbbbbbbbb", vec![metric("two", 2.0)]).await;
        kit.writer().append_owed().await.unwrap();
        let once = "select count(*) from lakebase_metrics";
        assert_eq!(kit.number(once).await, 2, "{at}");
        assert_eq!(kit.number("select count(distinct metric_id) from lakebase_metrics").await, 2);
        assert_eq!(kit.number("select count(*) from step_runs").await, 2, "{at}");
        assert_eq!(kit.number("select count(*) from audit").await, 6, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_lost_is_made_again_from_the_journal() {
    let kit = Kit::new();
    let writer = kit.writer();
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("one", 1.0)]).await;
    writer.append_owed().await.unwrap();
    std::fs::remove_dir_all(kit.folder()).unwrap();
    kit.run("bbbbbbbbbbbbbbbb", vec![metric("two", 2.0)]).await;
    writer.append_owed().await.unwrap();
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_keeps_the_rows_for_later() {
    let kit = Kit::new();
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("one", 1.0)]).await;
    // A file where the folder should be.
    std::fs::write(kit.folder(), "").unwrap();
    kit.writer().append_owed().await.unwrap_err();
    std::fs::remove_file(kit.folder()).unwrap();
    kit.writer().append_owed().await.unwrap();
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fits_no_table_is_kept_as_it_is() {
    let kit = Kit::new();
    let odd = |table: &str, row| HistoryRow { table: table.to_owned(), row };
    let rows = vec![
        odd("lakebase_metrics", json!({ "metric_value": "high" })),
        odd("nonsense", json!({ "x": 1 })),
        metric("one", 1.0),
    ];
    kit.run("aaaaaaaaaaaaaaaa", rows).await;
    let appended = kit.writer().append_owed().await.unwrap();
    assert_eq!(appended.rejected(), 2);
    let kept = kit.ask("select table_name, row, why from rejected_rows order by row_id").await;
    assert_eq!(kept[0]["row"], r#"{"metric_value":"high"}"#);
    assert!(kept[0]["why"].as_str().unwrap().contains("is of type float"), "{kept:?}");
    assert_eq!(kept[1]["table_name"], "nonsense");
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_several_journals_share_a_place() {
    let (one, other) = (Kit::new(), Kit::new());
    let into_one = lakeops::history::HistoryWriter::new(
        one.location(),
        Arc::clone(&other.journal),
        other.state(),
        (Arc::new(lakeops::kernel::SystemClock), Arc::new(lakeops::kernel::kill::Unarmed)),
    );
    let own = one.writer();
    for round in 0..4 {
        one.run(&format!("aaaaaaaaaaaaaaa{round}"), vec![metric("one", 1.0)]).await;
        other.run(&format!("bbbbbbbbbbbbbbb{round}"), vec![metric("two", 2.0)]).await;
        let (mine, theirs) = tokio::join!(own.append_owed(), into_one.append_owed());
        mine.unwrap();
        theirs.unwrap();
    }
    let counts = "select metric_name, count(*) as n from lakebase_metrics group by 1 order by 1";
    let expected = json!([{ "metric_name": "one", "n": 4 }, { "metric_name": "two", "n": 4 }]);
    assert_eq!(json!(one.ask(counts).await), expected);
}
