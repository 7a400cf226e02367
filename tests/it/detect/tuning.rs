//! Autovacuum made to come in time: proposed by what was seen, carried out, and proposed no more.

use lakeops::kernel::{Inverse, Operation};
use serde_json::json;

use super::bench::Bench;
use crate::harness::{execute, value};

const TOOL: &str = "tune_autovacuum_parameters";

#[tokio::test]
async fn what_changes_too_slowly_for_its_share_is_tuned_once() {
    let bench = Bench::start("tuning").await;
    execute(
        &bench.endpoint,
        &[
            "create schema \"T u\"",
            "create table \"T u\".large (id int primary key, n int)",
            "insert into \"T u\".large select g, g from generate_series(1, 200000) as g",
            "create table \"T u\".by_hand (id int) with (autovacuum_vacuum_scale_factor = 0.3)",
            "insert into \"T u\".by_hand select generate_series(1, 200000)",
            "create table \"T u\".small (id int)",
            "insert into \"T u\".small select generate_series(1, 2000)",
            "vacuum analyze",
            "update \"T u\".large set n = n + 1 where id <= 3000",
            "update \"T u\".by_hand set id = id + 1 where id <= 3000",
            "update \"T u\".small set id = id + 1",
        ],
    )
    .await;
    bench.until("select n_dead_tup >= 3000 from pg_stat_user_tables where relname = 'large'").await;
    // What was seen in a second is taken for an hour's pace here: 20 % of 200,000 rows take too long.
    let arguments = json!({
        "min_window": "1ms", "vacuum_every": "1s", "least_rows": 1000,
        "insert_vacuum_every": "3650d", "analyze_every": "3650d",
    });
    let set = bench.propose(TOOL, arguments.clone()).await;
    assert_eq!(set.changes.len(), 1, "{:#?}", set.changes);
    let change = &set.changes[0];
    let Operation::Sql { statement, .. } = &change.operation else { panic!("{change:?}") };
    let text = &statement.text;
    assert!(text.starts_with("alter table \"T u\".\"large\" set (autovacuum_vacuum_"), "{text}");
    execute(&bench.endpoint, &[text]).await;
    let again = bench.propose(TOOL, arguments.clone()).await;
    assert!(again.is_empty(), "{:#?}", again.changes);
    // Taken back, everything is as it was.
    let Inverse::By { operation, .. } = &change.inverse else { panic!("{change:?}") };
    execute(&bench.endpoint, &[&operation.to_string()]).await;
    let options = "select reloptions is null from pg_class where relname = 'large'";
    assert!(value::<bool>(&bench.endpoint, options).await);
    assert_eq!(bench.propose(TOOL, arguments).await.changes.len(), 1);
    bench.stop().await;
}
