//! Locks of runs and of steps.

use lakeops::journal::Outcome;
use lakeops::journal::event::{Decision, Event};
use lakeops::kernel::Span;
use lakeops::plan::document::{Action, ApprovalMode, ForEach, Wait};
use lakeops::plan::{Plan, PlannedStep};
use serde_json::json;

use super::kit::{Kit, embedded, plan, plan_with, sql, step};
use crate::harness::{execute, postgres, value};

async fn kit(name: &str) -> Kit {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &["create table public.t (n bigint, at bigserial)"]).await;
    Kit::new(endpoint)
}

/// What was inserted, in the order in which it was.
async fn order(kit: &Kit) -> String {
    let text = "select coalesce(string_agg(n::text, ',' order by at), '') from public.t";
    value(&kit.endpoint(), text).await
}

fn insert(n: u32) -> Action {
    sql(&[&format!("insert into public.t (n) values ({n})")])
}

fn nap(duration: &str) -> Action {
    Action::Wait(Wait::Timer { duration: json!(duration) })
}

fn locked(steps: Vec<PlannedStep>) -> Plan {
    plan_with(steps, &[], |body| body.lock = Some("demo".to_owned()))
}

#[tokio::test]
async fn runs_with_one_lock_take_turns_in_the_order_in_which_they_came() {
    let kit = kit("fifo").await;
    // A change that stands keeps the lock while the run waits.
    let first = locked(vec![step("one", &[], insert(1)), step("nap", &["one"], nap("300ms"))]);
    let run = kit.start(&first).await;
    let (_, first) = kit.spawn(&run);
    kit.until(&run, "lock_acquired").await;
    let mut others = Vec::new();
    for n in 2..=4 {
        let run = kit.start(&locked(vec![step("one", &[], insert(n))])).await;
        others.push(kit.spawn(&run).1);
        kit.until(&run, "lock_queued").await;
    }
    assert_eq!(first.await.unwrap(), Outcome::Succeeded);
    for other in others {
        assert_eq!(other.await.unwrap(), Outcome::Succeeded);
    }
    assert_eq!(order(&kit).await, "1,2,3,4");
}

/// A run that holds one lock and needs another, as a workflow with a `lock` whose step has one too.
fn crosswise(own: &str, other: &str, n: u32) -> Plan {
    let mut inner = step("inner", &["first"], insert(n));
    inner.lock = Some(other.to_owned());
    inner.retry.max_attempts = 1;
    let steps = vec![step("first", &[], insert(n * 10)), inner];
    plan_with(steps, &[], |body| body.lock = Some(own.to_owned()))
}

#[tokio::test]
async fn of_two_runs_whose_locks_cross_one_gives_way() {
    let mut kit = kit("crosswise").await;
    let one = kit.start(&crosswise("a", "b", 1)).await;
    let two = kit.start(&crosswise("b", "a", 2)).await;
    // Each has its own lock before either asks for the other's: the second begins while the first waits.
    let held = vec![step("hold", &[], insert(9)), step("nap", &["hold"], nap("600ms"))];
    let blocker = plan_with(held, &[], |body| body.lock = Some("b".to_owned()));
    let blocker = kit.start(&blocker).await;
    let (_, blocking) = kit.spawn(&blocker);
    kit.until(&blocker, "lock_acquired").await;
    let (_, second) = kit.spawn(&two);
    kit.until(&two, "lock_queued").await;
    // Only this one has little patience: with as much as the other's, a busy machine may let both give way.
    kit.change_settings(|settings| settings.limits.lock_wait = Span::from_secs(2));
    let (_, first) = kit.spawn(&one);
    assert_eq!(blocking.await.unwrap(), Outcome::Succeeded);
    // It waits too long, fails, and frees its own lock: then the other goes on.
    assert_eq!(first.await.unwrap(), Outcome::Failed);
    assert_eq!(kit.ended(&one, "inner").await.1, "engine::lock_wait");
    assert_eq!(second.await.unwrap(), Outcome::Succeeded);
}

#[tokio::test]
async fn who_waits_for_people_gives_the_lock_back_unless_changes_stand() {
    let kit = kit("park").await;
    let asked = |n: u32, needs: &[&str]| {
        let mut asked = step("asked", needs, insert(n));
        asked.approval = ApprovalMode::Required;
        asked
    };
    let (waits, outcome) = kit.run(&locked(vec![asked(2, &[])])).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let (_, outcome) = kit.run(&locked(vec![step("one", &[], insert(1))])).await;
    assert_eq!(outcome, Outcome::Succeeded, "the lock was free");
    kit.decide(&waits, Decision::Approved).await;
    assert_eq!(kit.execute(&waits).await, Outcome::Succeeded, "it queues again");
    assert_eq!(order(&kit).await, "1,2");
    let steps = vec![step("one", &[], insert(3)), asked(4, &["one"])];
    let (stands, outcome) = kit.run(&locked(steps)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let next = kit.start(&locked(vec![step("one", &[], insert(5))])).await;
    let (_, work) = kit.spawn(&next);
    kit.until(&next, "lock_queued").await;
    kit.decide(&stands, Decision::Approved).await;
    assert_eq!(kit.execute(&stands).await, Outcome::Succeeded);
    assert_eq!(work.await.unwrap(), Outcome::Succeeded);
    assert_eq!(order(&kit).await, "1,2,3,4,5", "unverified changes keep the lock");
}

#[tokio::test]
async fn a_lock_that_is_not_free_in_time_fails_the_run() {
    let mut kit = kit("lock_wait").await;
    kit.change_settings(|settings| {
        settings.limits.lock_wait = Span::parse("100ms").unwrap();
    });
    let holder = kit
        .start(&locked(vec![step("one", &[], insert(1)), step("nap", &["one"], nap("1h"))]))
        .await;
    let (interrupt, work) = kit.spawn(&holder);
    kit.until(&holder, "change_settled").await;
    let (run, outcome) = kit.run(&locked(vec![step("two", &[], insert(2))])).await;
    assert_eq!(outcome, Outcome::Failed);
    let failure = kit.state(&run).await.ending.unwrap().failure.unwrap();
    assert_eq!(failure.code, "engine::lock_wait");
    interrupt.cancel();
    assert_eq!(work.await.unwrap(), Outcome::Waiting);
    assert_eq!(order(&kit).await, "1");
}

/// Most steps that held the lock at once.
async fn most_holders(kit: &Kit, run: &lakeops::kernel::RunId) -> usize {
    let (mut held, mut most) = (std::collections::BTreeSet::new(), 0);
    for entry in kit.engine().load(run).await.unwrap().entries {
        match entry.event {
            Event::LockAcquired { step, .. } => {
                held.insert(step);
            }
            Event::LockReleased { step, .. } => {
                held.remove(&step);
            }
            _ => {}
        }
        most = most.max(held.len());
    }
    most
}

#[tokio::test]
async fn siblings_with_one_lock_exclude_each_other() {
    let kit = kit("siblings").await;
    let steps = (1..=3).map(|n| {
        let mut one = step(&format!("s{n}"), &[], insert(n));
        one.lock = Some("table".to_owned());
        one
    });
    let (run, outcome) = kit.run(&plan(steps.collect())).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(kit.count(&run, "lock_acquired").await, 3);
    assert_eq!(kit.count(&run, "lock_released").await, 3);
    assert_eq!(most_holders(&kit, &run).await, 1);
}

#[tokio::test]
async fn what_an_embedding_step_holds_its_children_hold() {
    let kit = kit("reentrant").await;
    let child = |n: u32| {
        let mut inner = step("inner", &[], insert(n));
        inner.lock = Some("table".to_owned());
        let mut child = embedded(vec![inner]);
        child.lock = Some("table".to_owned());
        Action::Workflow(Box::new(child))
    };
    let mut fan = step("fan", &["one"], child(2));
    fan.lock = Some("table".to_owned());
    fan.for_each = Some(ForEach {
        items: json!([1, 2]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 2,
        fail_fast: true,
    });
    let plan = plan(vec![step("one", &[], child(1)), fan]);
    let work = kit.run(&plan);
    let work = tokio::time::timeout(std::time::Duration::from_mins(1), work);
    let (_, outcome) = work.await.expect("nobody waits for itself");
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(order(&kit).await, "1,2,2");
}

#[tokio::test]
async fn items_take_the_lock_of_their_own_workflow() {
    let kit = kit("item_locks").await;
    let mut child = embedded(vec![step("inner", &[], insert(1))]);
    child.params = json!({ "name": "${{ item }}" });
    child.lock = Some("${{ params.name }}".to_owned());
    let mut fan = step("fan", &[], Action::Workflow(Box::new(child)));
    fan.for_each = Some(ForEach {
        items: json!(["a", "b"]),
        key: "${{ item }}".to_owned(),
        max_parallel: 2,
        fail_fast: true,
    });
    let (run, outcome) = kit.run(&plan(vec![fan])).await;
    assert_eq!(outcome, Outcome::Succeeded, "{:?}", kit.ended(&run, "fan").await);
    let entries = kit.engine().load(&run).await.unwrap().entries;
    let mut locks: Vec<String> = entries
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::LockAcquired { lock, .. } => Some(lock),
            _ => None,
        })
        .collect();
    locks.sort();
    assert_eq!(locks, ["a", "b"]);
}

#[tokio::test]
async fn who_waits_for_an_event_lets_others_have_the_lock() {
    let kit = kit("lock_event").await;
    let wait = Action::Wait(Wait::Event {
        event: "go".to_owned(),
        when: None,
        within: Span::from_secs(120),
    });
    let waiting =
        kit.start(&locked(vec![step("wait", &[], wait), step("a", &["wait"], insert(1))])).await;
    let event = super::kit::tool("publish_event", serde_json::json!({ "event": "go" }));
    let waking =
        kit.start(&locked(vec![step("b", &[], insert(2)), step("say", &["b"], event)])).await;
    let (first, second) = tokio::join!(kit.execute(&waiting), kit.execute(&waking));
    assert_eq!((first, second), (Outcome::Succeeded, Outcome::Succeeded));
    assert_eq!(order(&kit).await, "2,1");
}
