//! A session that is kept for the next change: its name is always that of the change that it carries out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lakeops::engine::apply::Recovered;
use lakeops::engine::{Parts, Sessions};
use lakeops::journal::{MemoryJournal, Principal};
use lakeops::kernel::{
    Bind, BoxFuture, Clock, Operation, Receipt, Redactor, RetryClass, Span, SystemClock, Timestamp,
};
use lakeops::postgres::PgEndpoint;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::world::{At, World, execute_now, terminate};
use crate::harness::parts::parts;
use crate::harness::{execute, until, value};

/// A clock by which no session is kept too long: a busy machine may stand still for seconds.
struct Endless;

impl Clock for Endless {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        if at.since(self.now()) < Duration::from_secs(1) {
            return SystemClock.sleep_until(at);
        }
        Box::pin(std::future::pending())
    }
}

/// Whether nothing is at work: a session that is kept was reset by now.
const AT_REST: &str = "select not exists (select from pg_stat_activity where backend_type = 'client backend' \
     and datname = current_database() and pid <> pg_backend_pid() \
     and (state <> 'idle' or application_name <> 'lakeops:00000000000000aa'))";

/// A world whose changes share sessions, with a table of what each has seen of its session.
async fn world(hint: &str) -> World {
    let mut world = World::transactional(hint, "").await;
    let endpoint = world.endpoint().clone();
    execute(&endpoint, &["create table seen (place int, pid int, name text, said text)"]).await;
    let journal = Arc::new(MemoryJournal::new(Arc::new(SystemClock), Redactor::default()));
    let me = Principal { name: "ann".to_owned(), from: "test".to_owned() };
    let parts = Parts { clock: Arc::new(Endless), ..parts(journal, Arc::new(endpoint), me) };
    world.sessions = Some(Sessions::new(&parts, &world.key.run, "local"));
    world
}

/// Carries out the change of this place: it writes down its backend, its name, and what `says` says.
async fn look(world: &mut World, place: u32, says: &str) -> Receipt {
    world.key.index = place;
    world.change.operation = Operation::sql(
        format!(
            "insert into seen select {place}, pg_backend_pid(), \
             current_setting('application_name'), ({says})::text"
        ),
        Vec::new(),
    );
    world.done().await
}

async fn pid(world: &World, place: u32) -> i32 {
    value(world.endpoint(), &format!("select pid from seen where place = {place}")).await
}

async fn said(endpoint: &PgEndpoint, place: u32) -> Option<String> {
    value(endpoint, &format!("select said from seen where place = {place}")).await
}

async fn at_rest(world: &World) {
    until(world.endpoint(), AT_REST, Duration::from_mins(1)).await;
}

#[tokio::test]
async fn a_session_carries_changes_out_under_the_name_of_each() {
    let mut world = world("kept").await;
    for place in 0..5 {
        look(&mut world, place, "select current_setting('statement_timeout')").await;
        let name: String =
            value(world.endpoint(), &format!("select name from seen where place = {place}")).await;
        assert_eq!(name, world.key.application_name());
        assert_eq!(pid(&world, place).await, pid(&world, 0).await);
        assert_eq!(said(world.endpoint(), place).await.unwrap(), format!("{}s", 30 + place));
        world.timeout += Duration::from_secs(1);
    }
    // While nobody has it, it is not called like any change, and nobody waits for it.
    at_rest(&world).await;
    world.settings.limits.orphan_wait = Span(Duration::ZERO);
    assert!(matches!(world.recover(&Value::Null).await, Ok(Recovered::Applied(_))));
    // What was done already gives its session back as well.
    assert!(world.done().await.recovered);
    look(&mut world, 5, "null").await;
    assert_eq!(pid(&world, 5).await, pid(&world, 0).await);
}

/// What a change may leave in its session, and how the next one would see it.
const LEFT: [(&str, &str); 8] = [
    ("set work_mem = ''9MB''", "select current_setting('work_mem') = '9MB'"),
    ("set statement_timeout = 0", "select current_setting('statement_timeout') = '0'"),
    ("set role pg_monitor", "select current_user = 'pg_monitor'"),
    ("create temp table left_over (a int)", "select to_regclass('pg_temp.left_over') is not null"),
    ("listen left_over", "select exists (select pg_listening_channels())"),
    (
        "select pg_advisory_lock(77)",
        "select exists (select from pg_locks where pid = pg_backend_pid() and locktype = 'advisory')",
    ),
    (
        "declare left_over cursor with hold for select 1",
        "select exists (select from pg_cursors where name = 'left_over')",
    ),
    ("set search_path = lakeops", "select current_setting('search_path') = 'lakeops'"),
];

#[tokio::test]
async fn nothing_that_a_change_leaves_reaches_the_next() {
    let mut world = world("left").await;
    execute(
        world.endpoint(),
        &["create function public.leave(text) returns int language plpgsql as \
           $$ begin execute $1; return 1; end $$"],
    )
    .await;
    // The next one has the session reset as it begins, or comes when it was reset by itself.
    let both = LEFT.iter().flat_map(|left| [(*left, false), (*left, true)]);
    for (number, ((leaves, seen), waits)) in (0..).zip(both) {
        look(&mut world, 2 * number, &format!("select public.leave('{leaves}')")).await;
        if waits {
            at_rest(&world).await;
        }
        look(&mut world, 2 * number + 1, seen).await;
        assert_eq!(
            said(world.endpoint(), 2 * number + 1).await.as_deref(),
            Some("false"),
            "{leaves}"
        );
        assert_eq!(pid(&world, 2 * number + 1).await, pid(&world, 0).await, "{leaves}");
    }
    // A statement that was prepared cannot be told from the driver's own: such a session is not kept.
    look(&mut world, 100, "select public.leave('prepare p as select 1')").await;
    look(&mut world, 101, "select exists (select from pg_prepared_statements where from_sql)")
        .await;
    assert_eq!(said(world.endpoint(), 101).await.as_deref(), Some("false"));
    assert_ne!(pid(&world, 101).await, pid(&world, 100).await);
    // One that lost what the driver had prepared is found out, and another one made.
    look(&mut world, 102, "select public.leave('deallocate all')").await;
    look(&mut world, 103, "null").await;
    assert_eq!(pid(&world, 102).await, pid(&world, 101).await);
    assert_ne!(pid(&world, 103).await, pid(&world, 102).await);
}

/// The driver knows a prepared statement by its text alone, and would send a half as the integer of its bits.
#[tokio::test]
async fn a_statement_stays_prepared_for_values_of_the_same_types() {
    let mut world = world("types").await;
    execute(
        world.endpoint(),
        &["create table public.amounts (amount float8, prepared int, pid int default pg_backend_pid())"],
    )
    .await;
    let text = "insert into public.amounts select $1, count(*) from pg_prepared_statements \
                where statement ~ '^insert into public.amounts'";
    for (index, amount) in
        (0..).zip([Bind::Int(1), Bind::Int(2), Bind::Float(2.5), Bind::Int(4), Bind::Float(5.5)])
    {
        world.key.index = index;
        world.change.operation = Operation::sql(text, vec![amount]);
        world.done().await;
    }
    let amounts = "select string_agg(amount::text, ' ' order by amount) from public.amounts";
    assert_eq!(value::<String>(world.endpoint(), amounts).await, "1 2 2.5 4 5.5");
    let kept = "select count(distinct pid) = 1 and bool_and(prepared = 1) from public.amounts";
    assert!(value::<bool>(world.endpoint(), kept).await);
}

#[tokio::test]
async fn what_is_left_is_seen_by_who_looks_in_the_same_session() {
    let endpoint = world("seen").await.endpoint().clone();
    for (leaves, seen) in LEFT {
        let mut session = crate::harness::connect(&endpoint).await;
        let leaves = leaves.replace("''", "'");
        sqlx::raw_sql(AssertSqlSafe(leaves.clone())).execute(&mut session).await.unwrap();
        let is_seen: bool =
            sqlx::query_scalar(AssertSqlSafe(seen)).fetch_one(&mut session).await.unwrap();
        assert!(is_seen, "{leaves}");
    }
}

#[tokio::test]
async fn what_may_leave_something_or_has_no_transaction_is_alone() {
    let mut world = world("alone").await;
    look(&mut world, 0, "null").await;
    let text = "insert into seen select 1, pg_backend_pid(), set_config('app.x', '1', true), null";
    world.key.index = 1;
    world.change.operation = Operation::sql(text, Vec::new());
    world.done().await;
    look(&mut world, 2, "select current_setting('app.x', true) is null").await;
    assert_eq!(said(world.endpoint(), 2).await.as_deref(), Some("true"));
    assert_ne!(pid(&world, 1).await, pid(&world, 0).await);
    assert_eq!(pid(&world, 2).await, pid(&world, 0).await);
    // After a failure a session is dropped.
    world.key.index = 3;
    world.change.operation = Operation::sql("insert into seen values (1 / 0)", Vec::new());
    assert_eq!(world.refused().await.class, RetryClass::Permanent);
    look(&mut world, 4, "null").await;
    assert_ne!(pid(&world, 4).await, pid(&world, 2).await);
}

#[tokio::test]
async fn a_kept_session_that_is_gone_is_replaced_once() {
    let mut world = world("gone").await;
    look(&mut world, 0, "null").await;
    at_rest(&world).await;
    execute(
        world.endpoint(),
        &["select pg_terminate_backend(pid, 5000) from pg_stat_activity \
           where application_name = 'lakeops:00000000000000aa' and datname = current_database()"],
    )
    .await;
    look(&mut world, 1, "null").await;
    assert_ne!(pid(&world, 1).await, pid(&world, 0).await);
    // It has the change's name before it has its key: whoever looks for the name ends it, and nothing is lost.
    at_rest(&world).await;
    let (endpoint, mut key) = (world.endpoint().clone(), world.key.clone());
    key.index = 2;
    let is_first = AtomicBool::new(true);
    world.kill = Box::new(At("session named", move || {
        if is_first.swap(false, Ordering::SeqCst) {
            let name = key.application_name();
            let is_there = "select 1 / count(*) from pg_stat_activity";
            execute_now(&endpoint, format!("{is_there} where application_name = '{name}'"));
            terminate(&endpoint, &key);
        }
    }));
    look(&mut world, 2, "null").await;
    assert_ne!(pid(&world, 2).await, pid(&world, 1).await);
    assert_eq!(
        value::<i64>(world.endpoint(), "select count(*) from seen where place = 2").await,
        1
    );
}

#[tokio::test]
async fn a_kept_session_killed_in_its_transaction_leaves_one_effect() {
    for (phase, class) in [("in transaction", Some(RetryClass::InDoubt)), ("after effect", None)] {
        let mut world = world("killed").await;
        look(&mut world, 0, "null").await;
        world.key.index = 1;
        world.done_though_killed(phase, class).await;
        assert_eq!(value::<i64>(world.endpoint(), "select count(*) from seen").await, 2, "{phase}");
        look(&mut world, 2, "null").await;
    }
}

/// A process that dies before the start of a change is on disk may leave a session that has its key.
#[tokio::test]
async fn the_key_of_a_change_is_waited_for_while_a_session_of_its_name_is_at_work() {
    let mut world = world("orphan").await;
    look(&mut world, 0, "null").await;
    at_rest(&world).await;
    world.settings.limits.lock_timeout = Span(Duration::from_millis(100));
    world.key.index = 1;
    let (endpoint, name) = (world.endpoint().clone(), world.key.application_name());
    let mut orphan = PgConnection::connect_with(endpoint.options()).await.unwrap();
    let is_at_work = format!(
        "begin; set application_name = '{name}'; lock table lakeops.applied_change in exclusive mode"
    );
    orphan.execute(AssertSqlSafe(is_at_work)).await.unwrap();
    let ends = async {
        // Three tries are over by then.
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_secs(1))).await;
        orphan.close().await.unwrap();
    };
    tokio::join!(look(&mut world, 1, "null"), ends);
    assert!(said(&endpoint, 1).await.is_none());
    assert_eq!(value::<i64>(&endpoint, "select count(*) from seen where place = 1").await, 1);
}

#[tokio::test]
async fn another_user_and_another_place_get_none_of_it() {
    let mut world = world("places").await;
    look(&mut world, 0, "null").await;
    let owner = world.endpoint().clone();
    execute(
        &owner,
        &[
            "create role keeper_of_none login",
            "grant usage on schema lakeops to keeper_of_none",
            "grant select, insert on lakeops.applied_change, seen to keeper_of_none",
        ],
    )
    .await;
    world.endpoint = Some(owner.with_user("keeper_of_none", None));
    look(&mut world, 1, "select current_user").await;
    world.endpoint = Some(owner.clone());
    assert_eq!(said(&owner, 1).await.as_deref(), Some("keeper_of_none"));
    assert_ne!(pid(&world, 1).await, pid(&world, 0).await);
    // A set that was proposed elsewhere meets the refusal of a new session.
    let elsewhere =
        lakeops::postgres::ServerFacts { database: "other".into(), ..Default::default() };
    world.expected = Some(elsewhere);
    world.key.index = 2;
    assert_eq!(world.refused().await.code, "postgres::wrong_place");
    execute(&owner, &["drop owned by keeper_of_none", "drop role keeper_of_none"]).await;
}
