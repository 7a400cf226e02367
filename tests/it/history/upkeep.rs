//! Upkeep: fewer files, no row lost or doubled, older states as far as they reach.

use std::path::Path;
use std::sync::Arc;

use deltalake::DeltaTableBuilder;
use deltalake::arrow::array::{Float64Array, RecordBatch, StringArray};
use deltalake::arrow::datatypes::{DataType, Field, Schema};
use lakeops::config::Settings;
use lakeops::engine::parts::History;
use lakeops::history::{self, HistoryError, HistoryWriter, Travel};
use lakeops::journal::Event;
use lakeops::journal::retention::seal_of;
use lakeops::journal::store::{RunFilter, RunSummary};
use lakeops::kernel::{ChangeSet, Failure, Operation, Query, SystemClock};
use lakeops::postgres::PgReader;
use lakeops::tools::tool::HistoryRow;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};

use super::kit::{self, Kit, metric, target};
use crate::harness::within_a_day;

const METRICS: &str = "lakebase_metrics";

/// What the tool proposes about the metrics.
async fn proposed(writer: &HistoryWriter, clock: &dyn lakeops::kernel::Clock) -> ChangeSet {
    let nowhere = PgReader::unavailable(Failure::permanent("test::none", "no database"));
    let (settings, target) = (Settings::default(), target());
    let cx = ReadContext {
        history: Some(writer),
        ..ReadContext::new(&nowhere, clock, &settings, &target)
    };
    let Some(AnyTool::Write(tool)) = Catalog::builtin().find("maintain_history") else { panic!() };
    tool.propose(&cx, json!({ "tables": [METRICS] })).await.unwrap()
}

/// Carries a set out; says what was done to each.
async fn carry_out(writer: &HistoryWriter, set: &ChangeSet) -> Vec<(String, Value)> {
    let mut done = Vec::new();
    for change in &set.changes {
        let Operation::History(upkeep) = &change.operation else { panic!("{change:?}") };
        done.push((upkeep.to_string(), writer.upkeep(upkeep).await.unwrap()));
    }
    done
}

fn old(name: &str, value: f64) -> HistoryRow {
    let mut row = metric(name, value);
    row.row["snapshot_timestamp"] = json!("2020-01-02T03:04:05Z");
    row
}

fn parquet_files(folder: &Path) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            found += parquet_files(&path);
        } else {
            found += usize::from(path.extension().is_some_and(|ending| ending == "parquet"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_merged_old_rows_go_and_nothing_else_changes() {
    within_a_day().await;
    let kit = Kit::new();
    let writer = kit.writer();
    for run in 0..4 {
        let rows = vec![metric(&format!("m{run}"), f64::from(run)), old("ancient", 1.0)];
        kit.run(&format!("aaaaaaaaaaaaaaa{run}"), rows).await;
        writer.append_owed().await.unwrap();
    }
    let all = "select metric_name, metric_value, run_id from lakebase_metrics \
               where metric_name <> 'ancient' order by 1";
    let before = kit.ask(all).await;
    let set = proposed(&writer, &SystemClock).await;
    let done = carry_out(&writer, &set).await;
    let said: Vec<&str> = done.iter().map(|(text, _)| text.split(' ').next().unwrap()).collect();
    assert_eq!(said, ["expire", "compact", "clean"]);
    assert_eq!((&done[0].1["rows_before"], &done[0].1["rows_after"]), (&json!(8), &json!(4)));
    assert_eq!((&done[1].1["files_before"], &done[1].1["files_after"]), (&json!(4), &json!(1)));
    assert_eq!(kit.ask(all).await, before);
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 4);
    // Nothing that a reader of an older state needs is gone yet.
    assert_eq!((&done[2].1["files_deleted"], &done[2].1["rows_after"]), (&json!(0), &json!(4)));
    let travel = [Travel::parse("lakebase_metrics=3").unwrap()];
    let count = Query::new("select count(*) as n from lakebase_metrics");
    let then = history::answer(&kit.location(), &count, &travel, None).await.unwrap();
    assert_eq!(then.rows().unwrap()[0]["n"], 6);
    // Done again, it finds nothing to do.
    assert!(proposed(&writer, &SystemClock).await.is_empty());
    carry_out(&writer, &set).await;
    assert_eq!(kit.ask(all).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_later_only_the_newest_files_are_left_and_rows_still_come_once() {
    within_a_day().await;
    let kit = Kit::new();
    let writer = kit.writer();
    for run in 0..3 {
        kit.run(&format!("aaaaaaaaaaaaaaa{run}"), vec![metric("one", 1.0)]).await;
        writer.append_owed().await.unwrap();
    }
    carry_out(&writer, &proposed(&writer, &SystemClock).await).await;
    let folder = kit.folder().join(METRICS);
    assert_eq!(parquet_files(&folder), 4, "three and the merged one");
    let later = kit.writer_in(8);
    let set = proposed(&later, &SystemClock).await;
    let done = carry_out(&later, &set).await;
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(done[0].1["files_deleted"], 3);
    assert!(done[0].1["log_entries_deleted"].as_u64().unwrap() > 0, "{done:?}");
    assert_eq!(parquet_files(&folder), 1);
    let travel = [Travel::parse("lakebase_metrics=1").unwrap()];
    let query = Query::new("select count(*) as n from lakebase_metrics");
    let then = history::answer(&kit.location(), &query, &travel, None).await;
    assert!(matches!(then, Err(HistoryError::Delta { .. } | HistoryError::Query(_))), "{then:?}");
    // How far the journal was appended outlives the log that said so.
    kit.run("bbbbbbbbbbbbbbbb", vec![metric("two", 2.0)]).await;
    kit.writer().append_owed().await.unwrap();
    kit.writer().append_owed().await.unwrap();
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_version_grows_and_loses_nothing() {
    let kit = Kit::new();
    let folder = kit.folder().join(METRICS);
    std::fs::create_dir_all(&folder).unwrap();
    let text = |name| Field::new(name, DataType::Utf8, true);
    let fields =
        vec![text("metric_name"), Field::new("metric_value", DataType::Float64, true), text("x")];
    let schema = Arc::new(Schema::new(fields));
    let texts = |text: &str| Arc::new(StringArray::from(vec![text]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![texts("before"), Arc::new(Float64Array::from(vec![7.0])), texts("kept")],
    );
    let url = url::Url::from_directory_path(&folder).unwrap();
    let table = DeltaTableBuilder::from_url(url).unwrap().build().unwrap();
    table.write(vec![batch.unwrap()]).await.unwrap();
    // Read before it has grown: the columns are there, and empty.
    let read = "select metric_name, threshold_level, x from lakebase_metrics order by 1";
    let expected = json!([{ "metric_name": "before", "threshold_level": null, "x": "kept" }]);
    assert_eq!(json!(kit.ask(read).await), expected);
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("after", 1.0)]).await;
    kit.writer().append_owed().await.unwrap();
    let expected = json!([
        { "metric_name": "after", "threshold_level": "normal", "x": null },
        { "metric_name": "before", "threshold_level": null, "x": "kept" },
    ]);
    assert_eq!(json!(kit.ask(read).await), expected);
}

fn sealed(runs: &[RunSummary]) -> Vec<(&str, bool)> {
    runs.iter().map(|run| (run.run_id.as_str(), run.sealed.is_some())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_in_the_history_are_sealed_when_they_are_old() {
    let kit = Kit::new();
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("one", 1.0)]).await;
    kit.record("cccccccccccccccc", kit::begun("cccccccccccccccc")).await;
    let later = kit.writer_in(366);
    let runs = || kit.journal.runs(RunFilter::default());
    // A history that cannot be appended to has taken nothing.
    std::fs::write(kit.folder(), "").unwrap();
    History::append_owed(&later).await.unwrap_err();
    let all = runs().await.unwrap();
    assert_eq!(sealed(&all), [("cccccccccccccccc", false), ("aaaaaaaaaaaaaaaa", false)]);
    std::fs::remove_file(kit.folder()).unwrap();
    History::append_owed(&kit.writer()).await.unwrap();
    assert_eq!(runs().await.unwrap()[1].sealed, None, "it is not old");
    // Another writer: the first one looks again in a while.
    History::append_owed(&kit.writer_in(366)).await.unwrap();
    let all = runs().await.unwrap();
    assert_eq!(sealed(&all), [("cccccccccccccccc", false), ("aaaaaaaaaaaaaaaa", true)]);
    let seal = seal_of(kit.journal.as_ref(), &all[1].run_id).await.unwrap().unwrap();
    let Event::RunsSealed { by, in_history, .. } = &seal.event else { panic!("{seal:?}") };
    assert_eq!((by.name.as_str(), in_history), ("lakeops", &true));
    assert!(by.from.contains("keep_runs"), "{by:?}");
    assert_eq!(kit.journal.verify().await.unwrap().broken, None);

    // The history has it as it was, and the seal is a line of its audit.
    let rows = "select steps_succeeded as n, outcome from workflow_runs";
    let before = kit.ask(rows).await;
    assert_eq!((before.len(), &before[0]["n"]), (1, &json!(1)), "{before:?}");
    kit.writer().append_owed().await.unwrap();
    assert_eq!(kit.ask(rows).await, before);
    assert_eq!(kit.number("select count(*) from audit where action = 'runs_sealed'").await, 1);

    // A history that is made again says nothing of it rather than something else.
    std::fs::remove_dir_all(kit.folder()).unwrap();
    kit.run("bbbbbbbbbbbbbbbb", vec![metric("two", 2.0)]).await;
    kit.writer().append_owed().await.unwrap();
    assert_eq!(kit.number("select count(*) from workflow_runs").await, 1);
    let created = "select count(*) from audit where action = 'run_created'";
    assert_eq!(kit.number(created).await, 3, "who began it stays in the journal");
}
