//! Branches: made while the parent is written to, consistent, independent, gone when deleted.

use lakeops::emulator::fleet::{BranchId, BranchPoint, FleetError};
use lakeops::kernel::SqlFile;
use serde::Deserialize;

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
