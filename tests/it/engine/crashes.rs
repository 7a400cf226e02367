//! Killed anywhere, resumed, and nothing lost or done twice.

use std::process::Child;
use std::time::Duration;

use lakeops::journal::event::Event;
use lakeops::kernel::{Direction, Span};
use lakeops::plan::Plan;
use lakeops::plan::document::ForEach;
use lakeops::postgres::PgEndpoint;
use serde_json::json;
use sqlx::PgConnection;

use super::kit::{plan, sql, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, postgres, until, value};

async fn database(hint: &str, statements: &[&str]) -> PgEndpoint {
    let endpoint = postgres().await.fresh_database(hint).await;
    execute(&endpoint, statements).await;
    endpoint
}

/// A draw that differs from call to call and is the same from run to run.
fn draw(seed: u64, most: u64) -> u64 {
    let mixed =
        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (mixed >> 33) % most
}

/// Every change that ended has a start before it, and none ended twice.
pub(crate) fn check_starts(entries: &[lakeops::journal::Entry]) -> usize {
    let mut open = std::collections::BTreeSet::new();
    let mut settled = std::collections::BTreeSet::new();
    for entry in entries {
        match &entry.event {
            Event::ChangeStarted { step, index, direction: Direction::Do, .. } => {
                open.insert((step.clone(), *index));
            }
            Event::ChangeSettled { step, index, direction: Direction::Do, .. } => {
                assert!(open.contains(&(step.clone(), *index)), "{step} {index} has no start");
                assert!(settled.insert((step.clone(), *index)), "{step} {index} ended twice");
            }
            _ => {}
        }
    }
    settled.len()
}

fn kill_often(crash: &Crash, kills: u64, longest: u64) -> u64 {
    let mut killed = 0;
    for n in 0..kills {
        let after = Duration::from_millis(60 + draw(n + 7, longest));
        if crash.kill_after(after) {
            killed += 1;
        }
    }
    killed
}

#[tokio::test]
async fn two_hundred_inserts_and_thirty_kills_make_two_hundred_rows() {
    let endpoint = database("inserts", &["create table public.t (n bigint)"]).await;
    let ids: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let steps = ids.iter().enumerate().map(|(n, id)| {
        let needs: Vec<&str> =
            n.checked_sub(1).map(|before| ids[before].as_str()).into_iter().collect();
        step(id, &needs, sql(&[&format!("insert into public.t values ({n})")]))
    });
    let crash = Crash::new(&plan(steps.collect()), &endpoint);
    let killed = kill_often(&crash, 30, 150);
    assert_eq!(crash.finish(), "succeeded");
    assert!(killed > 5, "only {killed} kills met a process at work");
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 200);
    assert_eq!(value::<i64>(&endpoint, "select count(distinct n) from public.t").await, 200);
    assert!(check_starts(&crash.entries().await) >= 200);
}

#[tokio::test]
async fn a_fan_out_of_a_hundred_and_thirty_kills_makes_a_hundred_rows() {
    let endpoint = database("hundred", &["create table public.t (n bigint)"]).await;
    let change = json!({
        "statements": [{ "sql": "insert into public.t values ($1)", "binds": ["${{ item }}"] }]
    });
    let mut fan = step("fan", &[], tool("execute_sql", change));
    fan.for_each = Some(ForEach {
        items: json!((0..100).collect::<Vec<_>>()),
        key: "n${{ item }}".to_owned(),
        max_parallel: 4,
        fail_fast: true,
    });
    let crash = Crash::new(&plan(vec![fan]), &endpoint);
    kill_often(&crash, 30, 150);
    assert_eq!(crash.finish(), "succeeded");
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 100);
    assert_eq!(value::<i64>(&endpoint, "select count(distinct n) from public.t").await, 100);
    assert!(check_starts(&crash.entries().await) >= 100);
}

#[tokio::test]
async fn each_of_twenty_tables_is_vacuumed_and_none_again_once_that_was_durable() {
    let tables: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let made: Vec<String> = tables
        .iter()
        .map(|t| format!("create table public.{t} as select g n from generate_series(1, 500) g"))
        .collect();
    let endpoint = database("vacuum", &made.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let names: Vec<String> = tables.iter().map(|t| format!("public.{t}")).collect();
    let vacuum = tool("schedule_vacuum_analyze", json!({ "tables": names }));
    let crash = Crash::new(&plan(vec![step("vacuum", &[], vacuum)]), &endpoint);
    let kills = kill_often(&crash, 10, 250);
    assert_eq!(crash.finish(), "succeeded");
    let entries = crash.entries().await;
    assert_eq!(check_starts(&entries), 20);
    let count = "select sum(vacuum_count)::bigint from pg_stat_user_tables where relname like 't%'";
    let least = "select min(vacuum_count)::bigint from pg_stat_user_tables where relname like 't%'";
    let vacuums = value::<i64>(&endpoint, count).await;
    assert!(value::<i64>(&endpoint, least).await >= 1, "a table was left out");
    assert!(vacuums <= 20 + i64::try_from(kills).unwrap(), "{vacuums} vacuums, {kills} kills");
}

/// What every kind of change that can be told apart from outside goes through.
fn varied() -> Plan {
    let index = "create index concurrently t_n on public.t (n)";
    let mut last = step("last", &["event"], sql(&["insert into public.t values (3)"]));
    last.approval = lakeops::plan::document::ApprovalMode::Required;
    plan(vec![
        step(
            "fill",
            &[],
            sql(&["insert into public.t values (1)", "insert into public.t values (2)"]),
        ),
        step("index", &["fill"], sql(&[index])),
        step(
            "vacuum",
            &["index"],
            tool("schedule_vacuum_analyze", json!({ "tables": ["public.t"] })),
        ),
        step("event", &["vacuum"], tool("publish_event", json!({ "event": "done" }))),
        last,
    ])
}

async fn end_state(endpoint: &PgEndpoint) -> String {
    value(
        endpoint,
        "select (select string_agg(n::text, ',' order by n) from public.t) || ' ' || \
        (select string_agg(c.relname || i.indisvalid, ',' order by c.relname) from pg_index i \
         join pg_class c on c.oid = i.indexrelid where i.indrelid = 'public.t'::regclass)",
    )
    .await
}

const TABLE: &str = "create table public.t (n bigint)";

/// Kills at the nth boundary for every n, each but one or two proven to be reached; with `again`, a second time
/// during recovery.
async fn kill_at_every_boundary(stride: usize, again: Option<u64>) {
    let calm = database("calm", &[TABLE]).await;
    let whole = Crash::new(&varied(), &calm);
    assert_eq!(whole.finish(), "succeeded");
    let boundaries = whole.boundaries();
    let expected = end_state(&calm).await;
    assert_eq!(expected, "1,2,3 t_ntrue");
    assert!(boundaries.len() > 40, "{boundaries:#?}");
    let mut missed = Vec::new();
    for (place, name) in boundaries.iter().enumerate().step_by(stride) {
        let endpoint = database("killed", &[TABLE]).await;
        let crash = Crash::new(&varied(), &endpoint);
        if crash.run_until_place(&boundaries, place) == End::Killed {
            assert_eq!(crash.boundaries().last(), Some(name), "killed elsewhere");
            if let Some(second) = again {
                crash.run(Some(second));
            }
        } else {
            missed.push(name);
        }
        assert_eq!(crash.finish(), "succeeded", "killed at {name}");
        assert_eq!(end_state(&endpoint).await, expected, "killed at {name}");
        let entries = crash.entries().await;
        assert_eq!(check_starts(&entries), 8, "killed at {name}");
        let events = entries.iter().filter(|e| e.event.kind() == "event_published").count();
        assert_eq!(events, 1, "killed at {name}");
    }
    // A try more in the calm run (a lock, a connection) makes boundaries that no other run has.
    assert!(missed.len() < 3, "{missed:?} were not reached");
}

#[tokio::test]
async fn a_kill_at_every_boundary_changes_nothing_in_the_end() {
    kill_at_every_boundary(1, None).await;
}

#[tokio::test]
async fn a_second_kill_during_recovery_changes_nothing_either() {
    kill_at_every_boundary(5, Some(4)).await;
}

#[tokio::test]
async fn an_index_whose_client_died_is_waited_for_and_not_built_again() {
    let endpoint =
        database("cic", &[TABLE, "insert into public.t select generate_series(1, 1000)"]).await;
    // An older transaction holds the build up.
    let mut holder = crate::harness::connect(&endpoint).await;
    let hold = "begin; insert into public.t values (0)";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    let build = step(
        "index",
        &[],
        tool(
            "execute_sql",
            json!({ "statements": [
        "create index concurrently t_n on public.t (n)"
    ] }),
        ),
    );
    let crash = Crash::new(&plan(vec![build]), &endpoint);
    let mut child = crash.spawn(None);
    // The index stands in the catalog, and its build waits for the holder.
    let building = "select exists (select from pg_stat_progress_create_index as p join pg_class as c \
                    on c.oid = p.index_relid and c.relname = 't_n' \
                    where p.datname = current_database() and p.phase like 'waiting%')";
    until(&endpoint, building, Duration::from_mins(2)).await;
    child.kill().unwrap();
    assert_eq!(crash.wait(child), End::Killed);
    let oid = "select oid::bigint from pg_class where relname = 't_n'";
    let before = value::<i64>(&endpoint, oid).await;
    let resumed = crash.spawn(None);
    std::thread::sleep(Duration::from_millis(500));
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    assert_eq!(crash.wait(resumed), End::Outcome("succeeded".to_owned()));
    assert_eq!(value::<i64>(&endpoint, oid).await, before, "it was built again");
    let valid = "select indisvalid from pg_index where indexrelid = 'public.t_n'::regclass";
    assert!(value::<bool>(&endpoint, valid).await);
}

/// A process in the middle of its one change: it waits for a lock that the session holds.
async fn held_up(endpoint: &PgEndpoint) -> (PgConnection, Crash, Child) {
    let mut holder = crate::harness::connect(endpoint).await;
    sqlx::raw_sql("begin; lock table public.t").execute(&mut holder).await.unwrap();
    let mut change = step("change", &[], sql(&["insert into public.t values (1)"]));
    // Other processes start meanwhile, which takes a busy machine its time.
    change.timeout = Span::from_secs(600);
    let crash = Crash::new(&plan(vec![change]), endpoint);
    let child = crash.spawn(None);
    let waits = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' \
                 and datname = current_database()";
    until(endpoint, waits, Duration::from_mins(2)).await;
    (holder, crash, child)
}

#[tokio::test]
async fn of_two_processes_one_works_and_the_other_is_told_who() {
    let endpoint = database("two", &[TABLE]).await;
    let (mut holder, crash, first) = held_up(&endpoint).await;
    let second = crash.spawn(None).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    let about = format!("process {}", first.id());
    assert!(!second.status.success() && told.contains(&about), "{told}");
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    assert_eq!(crash.wait(first), End::Outcome("succeeded".to_owned()));
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 1);
}

/// There is no lease that could run out: a process that stands still keeps its run, and goes on with it.
#[tokio::test]
async fn a_process_that_was_stopped_keeps_its_run() {
    let endpoint = database("stopped", &[TABLE]).await;
    let (mut holder, crash, first) = held_up(&endpoint).await;
    let signal = |name: &str| {
        let pid = first.id().to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    };
    signal("-STOP");
    for _ in 0..2 {
        let second = crash.spawn(None).wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success(), "two processes work on one run");
        assert!(told.contains(&format!("process {}", first.id())), "{told}");
    }
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    signal("-CONT");
    assert_eq!(crash.wait(first), End::Outcome("succeeded".to_owned()));
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 1);
    assert_eq!(check_starts(&crash.entries().await), 3, "two changes make the table of keys");
}
