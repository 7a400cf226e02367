//! Branches: made while the parent is written to, consistent, independent, gone when deleted.

use lakeops::emulator::fleet::{BranchId, BranchPoint, FleetError};
use lakeops::kernel::{Clock as _, SqlFile, SystemClock};
use serde::Deserialize;
use std::time::Duration;

use super::{TestFleet, processes_on, run};

const COUNT: SqlFile = SqlFile { name: "test/count", text: "select count(*) as n from t" };

#[derive(Deserialize)]
struct Counted {
    n: i64,
}

async fn count(test: &TestFleet, branch: &BranchId) -> i64 {
    let mut admin = Box::pin(test.fleet.admin(branch, "postgres")).await.unwrap();
    let counted: Counted = admin.row(&COUNT, &[]).await.unwrap();
    admin.close().await;
    counted.n
}

#[tokio::test]
async fn a_branch_begins_like_its_parent_and_shares_nothing_afterwards() {
    let test = TestFleet::new().await;
    let parent = test.root("br-parent").await;
    let child = BranchId("br-child".to_owned());
    let origin = Box::pin(test.fleet.branch(&parent, BranchPoint::Head, &child)).await.unwrap();
    assert!(origin.lsn.starts_with("0/"), "{origin:?}");
    assert_eq!(count(&test, &child).await, 100);
    run(&test.fleet, &child, "delete from t where x > 10").await;
    run(&test.fleet, &parent, "insert into t select generate_series(101, 150)").await;
    assert_eq!((count(&test, &parent).await, count(&test, &child).await), (150, 10));
    // The parent goes; the child does not need it.
    Box::pin(test.fleet.delete_branch(&parent)).await.unwrap();
    assert_eq!(count(&test, &child).await, 10);
    assert!(!test.clusters().join("br-parent").exists());
    Box::pin(test.fleet.shutdown()).await.unwrap();
    assert_eq!(processes_on(&test.clusters()), 0);
}

#[tokio::test]
async fn names_and_doubles_are_refused() {
    let test = TestFleet::new().await;
    let root = BranchId("br-root".to_owned());
    let create = |id: &str, version| {
        let id = BranchId(id.to_owned());
        let fleet = &test.fleet;
        Box::pin(async move { fleet.create_root(&id, version).await })
    };
    create("br-root", 17).await.unwrap();
    assert!(matches!(create("br-root", 17).await, Err(FleetError::BranchExists(_))));
    assert!(matches!(create("br-other", 16).await, Err(FleetError::Version { wanted: 16, .. })));
    for id in ["", "../x", "BR", "ro-x", "template-17"] {
        assert!(matches!(create(id, 17).await, Err(FleetError::Id { .. })), "{id}");
    }
    let missing = BranchId("br-missing".to_owned());
    let deleted = Box::pin(test.fleet.delete_branch(&missing)).await;
    assert!(matches!(deleted, Err(FleetError::NoBranch(_))));
    assert_eq!(test.fleet.branches(), [root]);
    assert!(matches!(TestFleet::open(&test.place).await, Err(FleetError::InUse { .. })));
}

#[tokio::test]
async fn the_past_shows_a_table_that_was_dropped_later() {
    let test = TestFleet::new().await;
    let parent = test.root("br-parent").await;
    let facts = Box::pin(test.fleet.branch_facts(&parent)).await.unwrap();
    let oldest = facts.oldest.unwrap();
    let pause = || SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5)));
    pause().await;
    let before = SystemClock.now();
    pause().await;
    run(&test.fleet, &parent, "drop table t").await;
    let branch = |point, child: &str| {
        let (fleet, parent) = (&test.fleet, &parent);
        let child = BranchId(child.to_owned());
        Box::pin(async move { fleet.branch(parent, point, &child).await.map(|_| child) })
    };
    let by_time = branch(BranchPoint::Time(before), "br-by-time").await.unwrap();
    assert_eq!(count(&test, &by_time).await, 100);
    let by_lsn = branch(BranchPoint::Lsn(facts.lsn), "br-by-lsn").await.unwrap();
    assert_eq!(count(&test, &by_lsn).await, 100);
    // The present is in the past, too.
    let now = branch(BranchPoint::Time(SystemClock.now()), "br-now").await.unwrap();
    let mut admin = Box::pin(test.fleet.admin(&now, "postgres")).await.unwrap();
    assert!(admin.row::<Counted>(&COUNT, &[]).await.is_err(), "the table is gone");
    admin.close().await;
    // It lives on: it can be written to, and be branched itself.
    run(&test.fleet, &by_time, "insert into t values (101)").await;
    let grandchild = BranchId("br-grandchild".to_owned());
    let head = test.fleet.branch(&by_time, BranchPoint::Head, &grandchild);
    Box::pin(head).await.unwrap();
    assert_eq!(count(&test, &grandchild).await, 101);
    let second = Duration::from_secs(1);
    let early = SystemClock.now().plus(second).as_millis() - 3_600_000;
    let early = lakeops::kernel::Timestamp::from_millis(early.min(oldest.as_millis() - 1));
    for point in [
        BranchPoint::Time(early),
        BranchPoint::Time(SystemClock.now().plus(second * 3600)),
        BranchPoint::Lsn("FF/0".to_owned()),
        BranchPoint::Lsn("0/28".to_owned()),
        BranchPoint::Lsn("soon".to_owned()),
    ] {
        let refused = branch(point.clone(), "br-never").await;
        assert!(matches!(refused, Err(FleetError::Point { .. })), "{point:?}: {refused:?}");
    }
    assert!(!test.fleet.branches().contains(&BranchId("br-never".to_owned())));
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test]
async fn another_process_takes_over_what_is_finished_and_removes_the_rest() {
    let mut test = TestFleet::new().await;
    let branch = test.root("br-kept").await;
    let records = test.place.state().join("emulator/branches");
    let record = std::fs::read_to_string(records.join("br-kept.json")).unwrap();
    let half = record.replace("br-kept", "br-half").replace("\"ready\": true", "\"ready\": false");
    std::fs::write(records.join("br-half.json"), half).unwrap();
    let place = std::mem::replace(&mut test.place, crate::harness::Place::new());
    // The process ends without a word: its servers are told to stop.
    drop(test);
    let fleet = TestFleet::open(&place).await.unwrap();
    let test = TestFleet { fleet, place };
    assert_eq!(test.fleet.branches(), std::slice::from_ref(&branch));
    assert!(!records.join("br-half.json").exists());
    assert_eq!(count(&test, &branch).await, 100);
    Box::pin(test.fleet.shutdown()).await.unwrap();
    assert_eq!(processes_on(&test.clusters()), 0);
}

#[tokio::test]
async fn a_branch_of_a_busy_parent_is_consistent() {
    let test = TestFleet::new().await;
    let parent = test.root("br-parent").await;
    let table = "create table pair (side int primary key, n bigint); \
                 insert into pair values (1, 0), (2, 0)";
    run(&test.fleet, &parent, table).await;
    let fleet = std::sync::Arc::clone(&test.fleet);
    let (busy, stop) = (parent.clone(), tokio_util::sync::CancellationToken::new());
    let stopped = stop.clone();
    let load = tokio::spawn(async move {
        let mut admin = Box::pin(fleet.admin(&busy, "postgres")).await.unwrap();
        let mut rounds = 0;
        while !stopped.is_cancelled() {
            let both = "begin; update pair set n = n + 1 where side = 1; \
                        insert into t select generate_series(1, 50); \
                        update pair set n = n + 1 where side = 2; commit";
            admin.run("load", both).await.unwrap();
            rounds += 1;
        }
        admin.close().await;
        rounds
    });
    for number in 0..3 {
        let child = BranchId(format!("br-child-{number}"));
        Box::pin(test.fleet.branch(&parent, BranchPoint::Head, &child)).await.unwrap();
        let same = SqlFile {
            name: "test/same",
            text: "select count(distinct n) as n from pair union all \
                   select (select n from pair where side = 1) * 50 + 100 - count(*) from t",
        };
        let mut admin = Box::pin(test.fleet.admin(&child, "postgres")).await.unwrap();
        let found: Vec<Counted> = admin.rows(&same, &[]).await.unwrap();
        assert_eq!(found.iter().map(|row| row.n).collect::<Vec<_>>(), [1, 0]);
        admin.close().await;
    }
    stop.cancel();
    assert!(load.await.unwrap() > 0);
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test]
async fn branches_that_live_on_get_one_base_copy_each() {
    let place = crate::harness::Place::on_disk();
    let fleet = TestFleet::open(&place).await.unwrap();
    let test = TestFleet { fleet, place };
    let parent = test.root("br-parent").await;
    // Large enough that several copies at once take longer than the pause between two looks.
    let fill = "create table much as
        select x, repeat('y', 900) as y from generate_series(1, 100000) as x";
    run(&test.fleet, &parent, fill).await;
    let children: Vec<BranchId> = (1..=4).map(|n| BranchId(format!("br-child-{n}"))).collect();
    for child in &children {
        Box::pin(test.fleet.branch(&parent, BranchPoint::Head, child)).await.unwrap();
    }
    let copies = |child: &BranchId| {
        let folder = test.clusters().join(&child.0).join("bases");
        let names = std::fs::read_dir(folder).into_iter().flatten();
        names.filter(|entry| entry.as_ref().unwrap().file_name() != "new").count()
    };
    let until = SystemClock.now().plus(Duration::from_mins(5));
    while children.iter().any(|child| copies(child) == 0) {
        assert!(SystemClock.now() < until, "a branch gets no base copy");
        for child in &children {
            // Who is used is awake.
            Box::pin(test.fleet.branch_facts(child)).await.unwrap();
        }
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(50))).await;
    }
    let settled = SystemClock.now().plus(Duration::from_secs(3));
    SystemClock.sleep_until(settled).await;
    assert_eq!(children.iter().map(copies).collect::<Vec<_>>(), [1; 4]);
    Box::pin(test.fleet.discard()).await.unwrap();
    assert!(!test.place.state().join("emulator").exists());
    assert_eq!(processes_on(&test.place.state()), 0);
}
