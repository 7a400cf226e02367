//! SQL over the history: what it answers, and what it refuses.

use lakeops::config::settings::Limits;
use lakeops::history::{self, FileForm, HistoryError, HotTables, Travel, UnifiedRows};
use lakeops::kernel::{Bind, BoxFuture, Failure, Query};
use lakeops::postgres::PgReader;
use serde_json::{Value, json};

use super::kit::{Kit, metric};
use crate::harness::{execute, postgres};

async fn filled() -> Kit {
    let kit = Kit::new();
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("one", 1.0), metric("two", 2.0)]).await;
    kit.writer().append_owed().await.unwrap();
    kit
}

async fn refused(kit: &Kit, sql: &str) -> String {
    let answer = history::answer(&kit.location(), &Query::new(sql), &[], None).await;
    answer.unwrap_err().to_string()
}

/// Nothing was archived.
struct Nothing;

impl UnifiedRows for Nothing {
    fn rows<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_queries_are_accepted() {
    let kit = filled().await;
    for sql in [
        "delete from lakebase_metrics",
        "insert into lakebase_metrics (metric_name) values ('x')",
        "create table x as select 1",
        "drop table lakebase_metrics",
        "copy (select 1) to '/tmp/x.csv'",
        "set datafusion.execution.batch_size = 1",
        "explain analyze insert into lakebase_metrics (metric_name) values ('x')",
    ] {
        let told = refused(&kit, sql).await;
        assert!(told.contains("queries only"), "{sql}: {told}");
    }
    let told = refused(&kit, "select 1; select 2").await;
    assert!(told.contains("cannot be answered"), "{told}");
    let told = refused(&kit, "select * from '/etc/passwd'").await;
    assert!(!told.contains("root"), "{told}");
    assert_eq!(kit.number("select count(*) from lakebase_metrics").await, 2);
    assert!(!kit.ask("explain select * from lakebase_metrics").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_helped_with() {
    let kit = filled().await;
    let query = Query::new("select 1 from audits");
    let error = history::answer(&kit.location(), &query, &[], None).await.unwrap_err();
    assert_eq!(error.to_string(), "the history has no table `audits`");
    assert!(error.help().unwrap().contains("did you mean `audit`?"));
    // A table that nothing was written to has its columns and no rows.
    assert!(kit.ask("select queryid, calls, day from pg_stat_history").await.is_empty());
    let sql = "with lately as (select * from audit) select count(*) as n from lately";
    assert_eq!(kit.number(sql).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_bound() {
    let kit = filled().await;
    let sql =
        "select metric_name from lakebase_metrics where metric_name = $1 and metric_value < $2";
    let binds = vec![Bind::Text("one".to_owned()), Bind::Float(1.5)];
    let query = Query::with_binds(sql, binds);
    let answer = history::answer(&kit.location(), &query, &[], None).await.unwrap();
    assert_eq!(json!(answer.rows().unwrap()), json!([{ "metric_name": "one" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn older_states_are_read() {
    let kit = filled().await;
    kit.run("bbbbbbbbbbbbbbbb", vec![metric("three", 3.0)]).await;
    kit.writer().append_owed().await.unwrap();
    let count = Query::new("select count(*) as n from lakebase_metrics");
    let at = |state: &str| vec![Travel::parse(state).unwrap()];
    let mut counts = Vec::new();
    for state in ["0", "lakebase_metrics=1", "lakebase_metrics=2", "audit=0"] {
        let answer = history::answer(&kit.location(), &count, &at(state), None).await.unwrap();
        counts.push(answer.rows().unwrap()[0]["n"].as_i64().unwrap());
    }
    assert_eq!(counts, [0, 2, 3, 3]);
    let late = history::answer(&kit.location(), &count, &at("9"), None).await;
    assert!(matches!(late, Err(HistoryError::Delta { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_forms_that_others_read() {
    let kit = filled().await;
    let query = Query::new("select metric_name, metric_value from lakebase_metrics order by 1");
    let answer = history::answer(&kit.location(), &query, &[], None).await.unwrap();
    assert_eq!(answer.csv().unwrap(), "metric_name,metric_value\none,1.0\ntwo,2.0\n");
    let write = |name: &str| {
        let path = kit.state().join(name);
        answer.write(&path, FileForm::of(&path).unwrap()).unwrap();
        std::fs::read(path).unwrap()
    };
    let rows: Vec<Value> = serde_json::from_slice(&write("rows.json")).unwrap();
    assert_eq!(rows[1], json!({ "metric_name": "two", "metric_value": 2.0 }));
    assert_eq!(write("rows.jsonl").split(|byte| *byte == b'\n').count(), 3);
    assert_eq!(write("rows.csv"), answer.csv().unwrap().as_bytes());
    let parquet = write("rows.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let none = Query::new("select metric_name from lakebase_metrics where false");
    let none = history::answer(&kit.location(), &none, &[], None).await.unwrap();
    assert_eq!((none.csv().unwrap().as_str(), none.rows().unwrap().len()), ("metric_name\n", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_postgresql_stand_beside() {
    let kit = filled().await;
    let endpoint = postgres().await.fresh_database("history").await;
    execute(
        &endpoint,
        &["create table owner (metric text, team text, budget numeric, since timestamptz, tags int[])",
            "insert into owner values ('one', 'core', 1.5, '2026-01-02T03:04:05Z', '{1,2}'), ('two', null, null, null, null)"],
    )
    .await;
    let reader = PgReader::new(endpoint, &Limits::default(), "test");
    let sql = "select team, budget, metric_value, since > '2026-01-01T00:00:00Z' as new, tags
        from lakebase_metrics m join pg.public.owner o on o.metric = m.metric_name order by metric_name";
    assert!(history::names_postgres(sql).unwrap());
    let hot = HotTables { reader: &reader, unified: &Nothing, most_rows: 2 };
    let answer = history::answer(&kit.location(), &Query::new(sql), &[], Some(hot)).await.unwrap();
    let expected = json!([
        { "team": "core", "budget": 1.5, "metric_value": 1.0, "new": true, "tags": "{1,2}" },
        { "team": null, "budget": null, "metric_value": 2.0, "new": null, "tags": null },
    ]);
    assert_eq!(json!(answer.rows().unwrap()), expected);
    let few = HotTables { reader: &reader, unified: &Nothing, most_rows: 1 };
    let told =
        history::answer(&kit.location(), &Query::new(sql), &[], Some(few)).await.unwrap_err();
    assert_eq!(told.to_string(), "`pg.public.owner` has more than 1 rows");
    reader.close().await;
}
