//! The sessions that a run keeps while it is at work: few, and none while it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lakeops::journal::event::Event;
use lakeops::journal::faulty::InFront;
use lakeops::journal::store::{Append, Durability, JournalError};
use lakeops::journal::{Entry, Journal, MemoryJournal, Outcome};
use lakeops::kernel::{BoxFuture, Redactor, Settlement, SystemClock};
use lakeops::plan::document::{Action, Wait};
use lakeops::plan::{Plan, PlannedStep};
use lakeops::postgres::PgEndpoint;

use super::crashes::check_starts;
use super::kit::{Kit, plan, sql, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, postgres, until, value};

const TABLE: &str = "create table public.t (n int, pid int)";

/// No session of a run.
const NONE: &str = "select not exists (select from pg_stat_activity \
     where datname = current_database() and application_name like 'lakeops:%')";

async fn database(hint: &str) -> PgEndpoint {
    let endpoint = postgres().await.fresh_database(hint).await;
    execute(&endpoint, &[TABLE]).await;
    endpoint
}

fn insert(id: &str, needs: &[&str], n: u32) -> PlannedStep {
    step(id, needs, sql(&[&format!("insert into public.t values ({n}, pg_backend_pid())")]))
}

/// Changes one after the other.
fn chain(ids: &[&str]) -> Vec<PlannedStep> {
    let before = |at: usize| at.checked_sub(1).map(|before| &ids[before..at]).unwrap_or_default();
    let all = (0..).zip(ids).enumerate();
    all.map(|(at, (n, id))| insert(id, before(at), n)).collect()
}

/// Counts the appends that somebody waits for: each costs a commit, and what is buffered rides in it.
struct Counted(Arc<dyn Journal>, AtomicU64);

impl InFront for Counted {
    fn behind(&self) -> &dyn Journal {
        self.0.as_ref()
    }

    fn take(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.1.fetch_add(u64::from(durability == Durability::Synced), Ordering::SeqCst);
        self.0.append(batch, durability)
    }
}

#[tokio::test]
async fn changes_in_a_chain_share_sessions_and_cost_a_commit_each() {
    let endpoint = database("chain").await;
    let memory = MemoryJournal::new(Arc::new(SystemClock), Redactor::default());
    let journal = Arc::new(Counted(Arc::new(memory), AtomicU64::default()));
    let kit = Kit::on(endpoint.clone(), Arc::<Counted>::clone(&journal) as Arc<dyn Journal>);
    // The first change makes the table of keys.
    kit.run(&plan(chain(&["first"]))).await;
    let ids: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let before = journal.1.load(Ordering::SeqCst);
    let (_, outcome) = kit.run(&plan(chain(&ids))).await;
    let synced = journal.1.load(Ordering::SeqCst) - before;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 101);
    assert!((100..110).contains(&synced), "{synced} synced appends for 100 changes");
    // A machine that stands still for seconds lets a session run out.
    let backends = value::<i64>(&endpoint, "select count(distinct pid) from public.t").await;
    assert!(backends <= 20, "{backends} sessions for 101 changes");
}

#[tokio::test]
async fn a_run_that_waits_holds_no_session() {
    let endpoint = database("waits").await;
    let kit = Kit::new(endpoint.clone());
    let wait = Wait::Timer { duration: serde_json::json!("1h") };
    let steps = vec![insert("a", &[], 1), step("wait", &["a"], Action::Wait(wait))];
    let run = kit.start(&plan(steps)).await;
    let (interrupt, work) = kit.spawn(&run);
    kit.until(&run, "wait_started").await;
    until(&endpoint, NONE, Duration::from_mins(1)).await;
    assert!(!work.is_finished(), "the run waits in this process");
    interrupt.cancel();
    work.await.unwrap();
    // One that waits for a person.
    let mut asked = insert("b", &["a"], 2);
    asked.approval = lakeops::plan::document::ApprovalMode::Required;
    let (_, outcome) = kit.run(&plan(vec![insert("a", &[], 1), asked])).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    until(&endpoint, NONE, Duration::from_mins(1)).await;
}

#[tokio::test]
async fn a_fan_out_keeps_a_few_sessions_and_leaves_none() {
    let endpoint = database("fan").await;
    let kit = Kit::new(endpoint.clone());
    kit.run(&plan(chain(&["first"]))).await;
    let change = serde_json::json!({ "statements": [
        { "sql": "insert into public.t values ($1, pg_backend_pid())", "binds": ["${{ item }}"] },
    ] });
    let mut fan = step("fan", &[], tool("execute_sql", change));
    fan.for_each = Some(lakeops::plan::document::ForEach {
        items: serde_json::json!((0..60).collect::<Vec<_>>()),
        key: "n${{ item }}".to_owned(),
        max_parallel: 3,
        fail_fast: true,
    });
    let (_, outcome) = kit.run(&plan(vec![fan])).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 61);
    let backends = value::<i64>(&endpoint, "select count(distinct pid) from public.t").await;
    assert!(backends <= 30, "{backends} sessions for 61 changes");
    until(&endpoint, NONE, Duration::from_mins(1)).await;
}

/// What a change outside a transaction does, such as dropping a database, may need that nobody else is there.
#[tokio::test]
async fn nothing_is_kept_while_something_works_outside_a_transaction() {
    let endpoint = database("outside").await;
    let vacuum = tool("schedule_vacuum_analyze", serde_json::json!({ "tables": ["public.t"] }));
    let steps = vec![
        insert("a", &[], 1),
        insert("b", &["a"], 2),
        step("vacuum", &["b"], vacuum),
        insert("c", &["vacuum"], 3),
    ];
    let (_, outcome) = Kit::new(endpoint.clone()).run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Succeeded);
    let same = "select count(distinct pid) from public.t where n in";
    assert_eq!(value::<i64>(&endpoint, &format!("{same} (2, 3)")).await, 2);
}

fn killed() -> Plan {
    plan(chain(&["a", "b", "c"]))
}

/// Between a settlement that is not on disk and the next start; before and after the session was reset; when it
/// has the name of a change that has not begun there yet, its key, and its rows.
#[tokio::test]
async fn a_kill_around_the_hand_over_of_a_session_changes_nothing_in_the_end() {
    let settled = "b/change_settled do 0+step_succeeded/after commit";
    let mut boundaries = Vec::new();
    // On a machine that stands still for long a session may run out before its next change.
    for _ in 0..TRIES {
        let calm = database("calm").await;
        let whole = Crash::new(&killed(), &calm);
        assert_eq!(whole.finish(), "succeeded");
        boundaries.extend(whole.boundaries().into_iter().filter(|name| name.starts_with("b/")));
        if boundaries.iter().any(|name| name == "b/do 0/session named") {
            break;
        }
    }
    boundaries.sort();
    boundaries.dedup();
    let change =
        ["session named", "key claimed", "before effect", "in transaction", "session kept"];
    let change = change.map(|phase| format!("b/do 0/{phase}"));
    for known in change.iter().map(String::as_str).chain([settled]) {
        assert!(boundaries.iter().any(|name| name == known), "{known}: {boundaries:#?}");
    }
    let mut looked_up = 0;
    for name in &boundaries {
        let (endpoint, crash) = killed_at(name).await;
        assert_eq!(crash.finish(), "succeeded", "killed at {name}");
        let rows = "select string_agg(n::text, ',' order by n) from public.t";
        assert_eq!(value::<String>(&endpoint, rows).await, "0,1,2", "killed at {name}");
        let entries = crash.entries().await;
        assert_eq!(
            check_starts(&entries),
            5,
            "killed at {name}: two changes make the table of keys"
        );
        looked_up += entries.iter().filter(|entry| is_looked_up(&entry.event)).count();
        let keys = "select count(*) from lakeops.applied_change where step in ('a', 'b', 'c')";
        assert_eq!(value::<i64>(&endpoint, keys).await, 3, "killed at {name}");
    }
    assert!(looked_up > 0, "no settlement was lost, and found by its key");
}

/// How often a place is tried that a machine that stands still does not come to.
const TRIES: u32 = 5;

async fn killed_at(name: &str) -> (PgEndpoint, Crash) {
    for _ in 0..TRIES {
        let endpoint = database("killed").await;
        let crash = Crash::new(&killed(), &endpoint);
        if crash.run_until(name, 1) == End::Killed {
            return (endpoint, crash);
        }
    }
    panic!("{name} was not reached");
}

fn is_looked_up(event: &Event) -> bool {
    let Event::ChangeSettled { settlement: Settlement::Applied { receipt }, .. } = event else {
        return false;
    };
    receipt.recovered
}
