//! Outside a transaction: looked for afterwards, and half-done work removed.

use std::time::Duration;

use lakeops::engine::apply::{Applied, Recovered};
use lakeops::kernel::{Operation, Query, Recovery, RetryClass, Span};
use serde_json::{Value, json};

use super::world::{At, World, terminate};
use crate::harness::{connect, execute, value};

const BUILD: &str = "create index concurrently i on public.t (b)";
const BUILD_UNIQUE: &str = "create unique index concurrently i on public.t (b)";

/// `valid`, `invalid` or `absent`.
async fn state_of(world: &World, index: &str) -> String {
    let query = format!(
        "select coalesce((select case when i.indisvalid then 'valid' else 'invalid' end \
         from pg_index i where i.indexrelid = to_regclass('public.{index}')), 'absent')"
    );
    value(world.endpoint(), &query).await
}

async fn is_applied(world: &World, fingerprint: &Value) -> bool {
    match world.recover(fingerprint).await.unwrap() {
        Recovered::Applied(receipt) => {
            assert!(receipt.recovered);
            true
        }
        Recovered::NotApplied => false,
        Recovered::Unknown(why) => panic!("unknown: {why}"),
    }
}

#[tokio::test]
async fn a_build_is_found_when_it_is_there() {
    let world = World::outside("cic", BUILD, Recovery::Probe).await;
    let before = world.fingerprint().await;
    assert!(!is_applied(&world, &before).await);
    world.done().await;
    assert!(is_applied(&world, &before).await);
    assert_eq!(state_of(&world, "i").await, "valid");
    assert!(matches!(world.recover(&Value::Null).await, Ok(Recovered::Unknown(_))));
}

#[tokio::test]
async fn a_half_built_index_is_removed_and_only_ours() {
    let world = World::outside("leftover", BUILD_UNIQUE, Recovery::Probe).await;
    let before = world.fingerprint().await;
    // The values are not unique: the server leaves an invalid index behind, as a crash would.
    let mut other = connect(world.endpoint()).await;
    sqlx::raw_sql(BUILD_UNIQUE).execute(&mut other).await.unwrap_err();
    assert_eq!(state_of(&world, "i").await, "invalid");
    // What stood there before we began is not ours.
    let foreign = world.fingerprint().await;
    assert!(!is_applied(&world, &foreign).await);
    assert_eq!(state_of(&world, "i").await, "invalid");
    assert!(!is_applied(&world, &before).await);
    assert_eq!(state_of(&world, "i").await, "absent");
}

#[tokio::test]
async fn a_build_that_fails_leaves_nothing() {
    let world = World::outside("tidy", BUILD_UNIQUE, Recovery::Probe).await;
    let refused = world.refused().await;
    assert_eq!(refused.code, "postgres::constraint_violated");
    assert_eq!(state_of(&world, "i").await, "absent", "{refused}");
}

#[tokio::test]
async fn the_own_clean_up_is_used_when_there_is_one() {
    let mut world = World::outside("cleanup", BUILD_UNIQUE, Recovery::Probe).await;
    execute(world.endpoint(), &["create table log (line text)"]).await;
    world.change.cleanup =
        Some(Operation::sql_outside_transaction("drop index concurrently if exists public.i"));
    world.refused().await;
    assert_eq!(state_of(&world, "i").await, "absent");
    assert!(world.lines.lock().unwrap()[0].contains("if exists public.i"));
}

#[tokio::test]
async fn a_build_waits_for_old_snapshots_longer_than_others_wait_for_locks() {
    let mut world = World::outside("snapshots", BUILD, Recovery::Probe).await;
    world.settings.limits.lock_timeout = Span(Duration::from_millis(100));
    let mut writer = connect(world.endpoint()).await;
    sqlx::raw_sql("begin; update t set b = 0 where a = 1").execute(&mut writer).await.unwrap();
    // A build that stops writes waits as briefly as everything else.
    world.change.operation = Operation::sql_outside_transaction("create index i on public.t (b)");
    assert_eq!(world.refused().await.code, "postgres::lock_timeout");
    world.change.operation = Operation::sql_outside_transaction(BUILD);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() \
                 and wait_event_type = 'Lock' and clock_timestamp() - query_start > '500ms'";
    let endpoint = world.endpoint().clone();
    let release = async {
        while value::<i64>(&endpoint, waits).await == 0 {}
        sqlx::raw_sql("commit").execute(&mut writer).await.unwrap();
    };
    tokio::join!(world.done(), release);
    assert_eq!(state_of(&world, "i").await, "valid");
}

#[tokio::test]
async fn a_build_still_at_work_is_waited_for() {
    let world = World::outside("busy", BUILD, Recovery::Probe).await;
    let before = world.fingerprint().await;
    // An old transaction that has written holds the build up.
    let mut writer = connect(world.endpoint()).await;
    sqlx::raw_sql("begin; update t set b = 0 where a = 1").execute(&mut writer).await.unwrap();
    let name = world.key.application_name();
    let orphan = world.endpoint().with_application_name(&name);
    let building = tokio::spawn(async move {
        let mut session = connect(&orphan).await;
        sqlx::raw_sql(BUILD).execute(&mut session).await.unwrap();
    });
    let phase = format!(
        "select count(*) from pg_stat_progress_create_index p \
         join pg_stat_activity a using (pid) where a.application_name = '{name}'"
    );
    while value::<i64>(world.endpoint(), &phase).await == 0 {}
    let release = async {
        while world.lines.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("commit").execute(&mut writer).await.unwrap();
    };
    let (found, ()) = tokio::join!(is_applied(&world, &before), release);
    assert!(found);
    building.await.unwrap();
    assert_eq!(state_of(&world, "i").await, "valid");
}

#[tokio::test]
async fn a_drop_is_found() {
    let mut world = World::outside("drop", BUILD, Recovery::Probe).await;
    world.done().await;
    world.change.operation = Operation::sql_outside_transaction("drop index concurrently public.i");
    let before = world.fingerprint().await;
    assert!(!is_applied(&world, &before).await);
    world.done().await;
    assert!(is_applied(&world, &before).await);
    assert_eq!(state_of(&world, "i").await, "absent");
}

#[tokio::test]
async fn a_rebuild_is_found_by_its_file() {
    for text in [
        "reindex index concurrently public.t_pkey",
        "reindex index public.t_pkey",
        "reindex table concurrently public.t",
    ] {
        let world = World::outside("reindex", text, Recovery::Probe).await;
        let before = world.fingerprint().await;
        assert!(!is_applied(&world, &before).await, "{text}");
        world.done().await;
        assert!(is_applied(&world, &before).await, "{text}");
    }
}

#[tokio::test]
async fn remnants_of_a_rebuild_are_removed() {
    let mut world = World::outside("remnant", BUILD, Recovery::Probe).await;
    world.done().await;
    world.change.operation =
        Operation::sql_outside_transaction("reindex index concurrently public.i");
    let before = world.fingerprint().await;
    // A writer in the way and a short patience for locks: the server gives up half-way.
    let mut writer = connect(world.endpoint()).await;
    sqlx::raw_sql("begin; update t set b = 0 where a = 1").execute(&mut writer).await.unwrap();
    let mut other = connect(world.endpoint()).await;
    let half = sqlx::raw_sql("set lock_timeout = '200ms'").execute(&mut other).await;
    half.unwrap();
    let half = sqlx::raw_sql("reindex index concurrently public.i").execute(&mut other).await;
    half.unwrap_err();
    drop(writer);
    assert_eq!(state_of(&world, "i_ccnew").await, "invalid");
    assert!(!is_applied(&world, &before).await);
    assert_eq!(state_of(&world, "i_ccnew").await, "absent");
    assert_eq!(state_of(&world, "i").await, "valid");
}

#[tokio::test]
async fn vacuum_is_measured_and_repeatable() {
    let mut world =
        World::outside("vacuum", "vacuum (analyze) public.t", Recovery::Repeatable).await;
    world.change.guard = Some(Query::new("select count(*) > 0 as ok from t"));
    world.change.measure = Some(Query::new(
        "select relallvisible > 0 as seen from pg_class where oid = 't'::regclass",
    ));
    let receipt = world.done().await;
    assert_eq!((receipt.before, receipt.after), (json!({"seen": false}), json!({"seen": true})));
    assert!(receipt.duration_ms.is_some());
    assert_eq!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
    world.done().await;
    world.change.guard = Some(Query::new("select false"));
    assert_eq!(world.apply().await.unwrap(), Applied::Moot);
}

#[tokio::test]
async fn a_session_lost_at_work_is_in_doubt() {
    let mut world = World::outside("lost", BUILD, Recovery::Probe).await;
    let before = world.fingerprint().await;
    let (endpoint, key) = (world.endpoint().clone(), world.key.clone());
    world.kill = Box::new(At("before effect", move || terminate(&endpoint, &key)));
    assert_eq!(world.refused().await.class, RetryClass::InDoubt);
    assert!(!is_applied(&world, &before).await);
}

#[tokio::test]
async fn contradictions_and_unknowns_are_told() {
    let mut world = World::outside("ask", "vacuum public.t", Recovery::Transactional).await;
    assert_eq!(world.refused().await.code, "apply::not_transactional");
    for recovery in [Recovery::Ask, Recovery::Probe] {
        world.change.recovery = recovery;
        assert!(matches!(world.recover(&Value::Null).await, Ok(Recovered::Unknown(_))));
    }
    world.change.statement_timeout = Some(Span(Duration::from_millis(100)));
    world.change.operation = Operation::sql_outside_transaction("select pg_sleep(60)");
    assert_eq!(world.refused().await.code, "postgres::statement_timeout");
    let two = "vacuum public.t; drop table public.t";
    world.change.operation = Operation::sql_outside_transaction(two);
    assert_eq!(world.refused().await.code, "postgres::syntax");
}
