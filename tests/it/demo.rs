//! The demo's sick database, and the demo itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lakeops::cli::demo::load::{Forgotten, Load, WORKERS};
use lakeops::cli::demo::patient::{Patient, TableFigures};
use lakeops::kernel::{Clock as _, RandomIds, SystemClock};

use crate::harness::{self, value};

#[tokio::test(flavor = "multi_thread")]
async fn the_patient_is_as_sick_as_the_story_says() {
    let database = harness::postgres().await.fresh_database("patient").await;
    let patient = Patient::prepare(database.clone()).await.unwrap();
    let tables: BTreeMap<String, TableFigures> =
        patient.tables().await.unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
    for name in ["orders", "order_lines", "carts", "payments", "shipments", "reviews"] {
        let table = &tables[&format!("shop.{name}")];
        assert!(table.dead_rows * 2 > table.live_rows, "{table:?}");
        assert_eq!(table.vacuums, 0);
    }
    let trail = &tables["shop.audit_trail"];
    assert_eq!((trail.dead_rows, trail.live_rows), (0, 30_000));
    assert!(trail.bytes > 40 << 20, "{trail:?}");

    let load = Load::start(&patient, Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap();
    assert!(load.watch(Duration::from_millis(500)).await.payments > 20);
    let forgotten = Forgotten::begin(&patient).await.unwrap();
    while patient.blocked(Duration::ZERO).await.unwrap() < WORKERS as u64 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
    }
    assert_eq!(load.watch(Duration::from_millis(100)).await.payments, 0);
    drop(forgotten);
    while patient.blocked(Duration::ZERO).await.unwrap() > 0 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
    }
    assert!(load.watch(Duration::from_millis(500)).await.payments > 20);
    let superuser: bool =
        value(&patient.operator(), "select rolsuper from pg_roles where rolname = current_user")
            .await;
    assert!(!superuser, "lakeops needs no superuser");
}

#[test]
fn every_file_of_the_demo_is_used_and_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = fs::read_dir(root.join("src/cli/demo"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for entry in fs::read_dir(root.join("sql/demo")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(sources.contains(&format!("sql_file!(\"demo/{stem}\")")), "{stem} is not used");
        let text = fs::read_to_string(&path).unwrap();
        for key in ["purpose", "needs", "params", "columns"] {
            assert!(text.contains(&format!("-- {key}: ")), "{stem} lacks `-- {key}:`");
        }
    }
}
