//! A PostgreSQL that is just there.

use crate::harness::{execute, postgres, value};

#[tokio::test]
async fn the_shared_server_gives_each_test_its_database() {
    let server = postgres().await;
    let one = server.fresh_database("each").await;
    let two = server.fresh_database("each").await;
    assert_ne!(one.database(), two.database());
    execute(&one, &["create table t (x int)", "insert into t values (1), (2)"]).await;
    let rows: i64 = value(&one, "select count(*) from t").await;
    assert_eq!(rows, 2);
    let version: String = value(&two, "show server_version").await;
    assert!(version.starts_with("17."), "{version}");
    let preloaded: String = value(&two, "show shared_preload_libraries").await;
    assert_eq!(preloaded, "pg_stat_statements");
    assert_eq!(server.installation().version.major, 17);
    let directory: String = value(&one, "show data_directory").await;
    assert_eq!(directory, server.cluster().data_dir().to_str().unwrap());
}
