//! Inside a transaction: exactly once.

use std::time::Duration;

use lakeops::engine::apply::{Applied, Recovered, is_set_up};
use lakeops::kernel::{Bind, Operation, Query, RetryClass, Span};
use lakeops::postgres::PgReader;
use serde_json::{Value, json};

use super::proxy::{self, Fault};
use super::world::{World, execute_now, set_up};
use crate::harness::{connect, execute, postgres, value};

const INSERT: &str = "insert into t values (1, 2)";

async fn rows(world: &World) -> i64 {
    value(world.endpoint(), "select count(*) from t").await
}

#[tokio::test]
async fn setting_up_stands_rivals() {
    let endpoint = postgres().await.fresh_database("setup").await;
    let reader = |endpoint: &_| {
        PgReader::new(Clone::clone(endpoint), &lakeops::config::settings::Limits::default(), "x")
    };
    assert!(!is_set_up(&reader(&endpoint)).await.unwrap());
    let rivals = (0..6).map(|_| set_up(&endpoint));
    futures::future::join_all(rivals).await;
    assert!(is_set_up(&reader(&endpoint)).await.unwrap());
    execute(&endpoint, &["create role stranger login"]).await;
    assert!(!is_set_up(&reader(&endpoint.with_user("stranger", None))).await.unwrap());
}

#[tokio::test]
async fn a_key_is_applied_once() {
    let world = World::transactional("once", "insert into t values (1, 2) returning a, b").await;
    assert_eq!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
    let first = world.done().await;
    assert_eq!((first.rows, first.recovered), (Some(1), false));
    assert_eq!(first.result, json!([{"a": 1, "b": 2}]));
    let second = world.done().await;
    assert!(second.recovered);
    assert!(matches!(world.recover(&Value::Null).await, Ok(Recovered::Applied(_))));
    assert_eq!(rows(&world).await, 1);
    // Another key is another change; the statement itself then fails.
    let mut other = world;
    other.key.index = 1;
    assert_eq!(other.refused().await.code, "postgres::constraint_violated");
    assert_eq!(other.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
}

#[tokio::test]
async fn rivals_apply_a_key_once() {
    let world =
        World::transactional("rivals", "insert into t select 1, 2 from pg_sleep(0.2)").await;
    let (first, second) = tokio::join!(world.done(), world.done());
    assert_eq!(u8::from(first.recovered) + u8::from(second.recovered), 1);
    assert_eq!(rows(&world).await, 1);
}

#[tokio::test]
async fn a_session_killed_at_any_phase_leaves_one_effect() {
    for (phase, class) in [
        ("before effect", Some(RetryClass::Transient)),
        ("in transaction", Some(RetryClass::InDoubt)),
        ("after effect", None),
    ] {
        let mut world = World::transactional("killed", INSERT).await;
        world.done_though_killed(phase, class).await;
        assert_eq!(rows(&world).await, 1, "{phase}");
    }
}

#[tokio::test]
async fn a_lost_reply_to_commit_is_in_doubt_and_found() {
    let mut world = World::transactional("commit", INSERT).await;
    let direct = world.endpoint().clone();
    world.endpoint = Some(proxy::start(&direct, Fault::CommitReplyLost).await);
    let failure = world.refused().await;
    assert_eq!(failure.class, RetryClass::InDoubt, "{failure:?}");
    world.endpoint = Some(direct);
    assert!(matches!(world.recover(&Value::Null).await, Ok(Recovered::Applied(_))));
    assert!(world.done().await.recovered);
    assert_eq!(rows(&world).await, 1);
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_is_no_doubt() {
    let world = World::transactional("deferred", INSERT).await;
    execute(
        world.endpoint(),
        &["alter table t add foreign key (b) references t (a) deferrable initially deferred"],
    )
    .await;
    let failure = world.refused().await;
    assert_eq!((failure.class, failure.code.as_str()), {
        (RetryClass::Permanent, "postgres::constraint_violated")
    });
    assert_eq!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
}

#[tokio::test]
async fn a_key_stays_the_same_when_privileges_change() {
    let mut world = World::transactional("privileges", INSERT).await;
    execute(
        world.endpoint(),
        &[
            "create role worker login",
            "grant usage on schema lakeops to worker",
            "grant select, insert on lakeops.applied_change, t to worker",
        ],
    )
    .await;
    let worker = world.endpoint().with_user("worker", None);
    let limits = lakeops::config::settings::Limits::default();
    world.expected = Some(PgReader::new(worker.clone(), &limits, "x").server().await.unwrap());
    let owner = world.endpoint.replace(worker).unwrap();
    world.done().await;
    execute(&owner, &["revoke execute on function pg_control_system() from public"]).await;
    assert!(world.done().await.recovered);
    assert!(matches!(world.recover(&Value::Null).await, Ok(Recovered::Applied(_))));
}

#[tokio::test]
async fn guard_and_measure_share_the_transaction() {
    let mut world = World::transactional("guard", "update t set b = b + $1 where a = 7").await;
    world.change.operation =
        Operation::sql("update t set b = b + $1 where a = 7", vec![Bind::Int(5)]);
    world.change.guard =
        Some(Query::with_binds("select b = $1 as ok from t where a = 7", vec![Bind::Int(10)]));
    world.change.measure = Some(Query::new("select sum(b) as total from t"));
    // No row, so no truth.
    assert_eq!(world.apply().await.unwrap(), Applied::Moot);
    execute(world.endpoint(), &["insert into t values (7, 9)"]).await;
    assert_eq!(world.apply().await.unwrap(), Applied::Moot);
    execute(world.endpoint(), &["update t set b = 10"]).await;
    // Moot left no key behind.
    let receipt = world.done().await;
    assert_eq!((receipt.before, receipt.after), (json!({"total": 10}), json!({"total": 15})));
    assert_eq!(receipt.rows, Some(1));
    world.key.index = 1;
    world.change.guard = Some(Query::new("select 1"));
    assert_eq!(world.refused().await.code, "apply::guard_not_boolean");
    world.change.guard = Some(Query::new("with x as (delete from t returning 1) select true"));
    world.refused().await;
    assert_eq!(rows(&world).await, 1);
}

#[tokio::test]
async fn measures_see_the_sessions_of_now() {
    let endpoint = postgres().await.fresh_database("measure").await;
    set_up(&endpoint).await;
    let _idle = connect(&endpoint.with_application_name("victim-of-measure")).await;
    let victims = "from pg_stat_activity where application_name = 'victim-of-measure'";
    let kill = format!("select pg_terminate_backend(pid, 5000) {victims}");
    let mut world = World::new(Some(endpoint), Operation::sql(kill, Vec::new()));
    world.change.measure = Some(Query::new(format!("select count(*) as n {victims}")));
    let receipt = world.done().await;
    assert_eq!((receipt.before, receipt.after), (json!({"n": 1}), json!({"n": 0})));
    assert_eq!(receipt.result, json!([{"pg_terminate_backend": true}]));
}

#[tokio::test]
async fn locks_and_time_limits_have_their_class() {
    let mut world = World::transactional("locks", INSERT).await;
    world.change.lock_timeout = Some(Span(Duration::from_millis(100)));
    let mut holder = connect(world.endpoint()).await;
    sqlx::raw_sql("begin; lock table t").execute(&mut holder).await.unwrap();
    assert_eq!(world.refused().await.class, RetryClass::LockTimeout);
    drop(holder);
    world.change.operation = Operation::sql("select pg_sleep(60)", Vec::new());
    world.change.statement_timeout = Some(Span(Duration::from_millis(100)));
    let failure = world.refused().await;
    assert_eq!(failure.class, RetryClass::Permanent);
    assert_eq!(failure.code, "postgres::statement_timeout");
    assert_eq!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
}

#[tokio::test]
async fn a_missing_privilege_names_the_grant() {
    let mut world = World::transactional("privilege", "vacuum_is_not_it").await;
    execute(
        world.endpoint(),
        &[
            "create role clerk login",
            "grant usage on schema lakeops to clerk",
            "grant select, insert on lakeops.applied_change to clerk",
        ],
    )
    .await;
    world.endpoint = Some(world.endpoint().with_user("clerk", None));
    world.change.operation = Operation::sql("select pg_reload_conf()", Vec::new());
    let failure = world.refused().await;
    assert_eq!(failure.code, "postgres::missing_privilege");
    let help = failure.help.unwrap();
    assert!(help.contains("GRANT execute ON function pg_reload_conf"), "{help}");
    world.change.operation = Operation::sql("alter table t add c int", Vec::new());
    let help = world.refused().await.help.unwrap();
    assert!(help.contains("owner of table t"), "{help}");
}

#[tokio::test]
async fn another_place_is_refused() {
    let mut world = World::transactional("place", INSERT).await;
    let reader =
        PgReader::new(world.endpoint().clone(), &lakeops::config::settings::Limits::default(), "x");
    let here = reader.server().await.unwrap();
    for wrong in [
        lakeops::postgres::ServerFacts { system_identifier: Some("1".into()), ..here.clone() },
        lakeops::postgres::ServerFacts { database: "other".into(), ..here.clone() },
        lakeops::postgres::ServerFacts { database_oid: 1, ..here.clone() },
    ] {
        world.expected = Some(wrong);
        assert_eq!(world.refused().await.code, "postgres::wrong_place");
        assert_eq!(world.recover(&Value::Null).await.unwrap_err().code, "postgres::wrong_place");
    }
    world.expected = Some(here);
    let direct = world.endpoint().clone();
    world.endpoint = Some(proxy::start(&direct, Fault::OptionsDropped).await);
    let failure = world.refused().await;
    assert!(failure.message.contains("pooler"), "{failure:?}");
    assert_eq!(rows(&world).await, 0);
    world.endpoint = Some(direct);
    world.done().await;
}

#[tokio::test]
async fn statements_cannot_leave_their_transaction() {
    let mut world = World::transactional("leave", "commit").await;
    assert_eq!(world.refused().await.code, "postgres::not_a_change");
    world.change.operation = Operation::sql("insert into t values (1); commit", Vec::new());
    assert_eq!(world.refused().await.code, "postgres::syntax");
    world.change.operation = Operation::sql("do $$ begin commit; end $$", Vec::new());
    assert_eq!(world.refused().await.class, RetryClass::Permanent);
    world.change.operation = Operation::sql("vacuum t", Vec::new());
    assert_eq!(world.refused().await.code, "postgres::not_in_transaction");
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test]
async fn recovery_waits_for_the_session_of_a_dead_process() {
    let world = World::transactional("orphan", INSERT).await;
    let name = world.key.application_name();
    let mut orphan = connect(&world.endpoint().with_application_name(&name)).await;
    sqlx::raw_sql("begin; select 1").execute(&mut orphan).await.unwrap();
    let found = async {
        let found = world.recover(&Value::Null).await;
        (found, world.lines.lock().unwrap().clone())
    };
    let leave = async {
        while world.lines.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        drop(orphan);
    };
    let ((found, lines), ()) = tokio::join!(found, leave);
    assert_eq!(found.unwrap(), Recovered::NotApplied);
    assert!(lines[0].contains("idle in transaction"), "{lines:?}");
}

#[tokio::test]
async fn recovery_gives_up_on_a_session_that_stays() {
    let mut world = World::transactional("stays", INSERT).await;
    world.settings.limits.orphan_wait = Span(Duration::ZERO);
    let name = world.key.application_name();
    let _orphan = connect(&world.endpoint().with_application_name(&name)).await;
    let found = world.recover(&Value::Null).await.unwrap();
    let Recovered::Unknown(why) = found else { panic!("{found:?}") };
    assert!(why.contains("pg_terminate_backend("), "{why}");
}

#[tokio::test]
async fn without_the_table_of_keys_nothing_happens() {
    let endpoint = postgres().await.fresh_database("bare").await;
    execute_now(&endpoint, "create table t (a int, b int)".to_owned());
    let mut world = World::new(Some(endpoint), Operation::sql(INSERT, Vec::new()));
    world.change.recovery = lakeops::kernel::Recovery::Transactional;
    assert_eq!(world.refused().await.code, "apply::not_set_up");
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test]
async fn secrets_enter_last() {
    let mut world = World::transactional("secrets", INSERT).await;
    execute(world.endpoint(), &["create table kept (word text)"]).await;
    world.change.operation =
        Operation::sql("insert into kept values ($1)", vec![Bind::Secret("TOKEN".into())]);
    world.done().await;
    assert_eq!(value::<String>(world.endpoint(), "select word from kept").await, "sesame-open");
    world.key.index = 1;
    world.change.operation =
        Operation::sql("insert into kept values ($1)", vec![Bind::Secret("OTHER".into())]);
    assert_eq!(world.refused().await.code, "postgres::bind");
}
