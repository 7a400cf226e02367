//! What an author puts in the place of inverses (`compensate:`) is judged and approved like any set.

use std::time::Duration;

use lakeops::journal::event::{Compensation, Decision, Event};
use lakeops::journal::store::{Append, Durability, Expect};
use lakeops::journal::{Outcome, Stream};
use lakeops::kernel::{Direction, RunId, Span};
use lakeops::plan::document::{
    Action, ApprovalMode, ForEach, OnVerifyFail, PinnedText, ToolCall, Verify,
};
use lakeops::plan::{Plan, PlannedStep};
use serde_json::{Value, json};

use super::kit::{Kit, me, plan, plan_with, sql, step, tool};
use super::props;
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, postgres, value};

const TABLES: [&str; 3] = [
    "create table public.t (n bigint)",
    "create table public.todo (n bigint)",
    "create table public.done (n bigint)",
];

async fn kit(name: &str) -> Kit {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &TABLES).await;
    let mut kit = Kit::new(endpoint);
    kit.parts.catalog = props::catalog();
    kit
}

async fn rows(kit: &Kit) -> String {
    let text = "select coalesce(string_agg(n::text, ',' order by n), '') from public.t";
    value(&kit.endpoint(), text).await
}

fn insert(n: u32) -> Action {
    sql(&[&format!("insert into public.t values ({n})")])
}

/// An insert whose undoing is of the author's choice.
fn replaced(id: &str, needs: &[&str], n: u32, undo: &str) -> PlannedStep {
    let mut change = step(id, needs, insert(n));
    let with = json!({ "statements": [undo] });
    change.compensate = Some(ToolCall { tool: "execute_sql".to_owned(), with });
    change
}

/// A verification that fails at once and asks for the changes before it to be undone.
pub(super) fn failing_verify() -> Action {
    Action::Verify(Verify {
        call: ToolCall { tool: "monitor_connections".to_owned(), with: json!({}) },
        assert: vec!["result.total < 0".to_owned()],
        every: Span::parse("10ms").unwrap(),
        within: Span::parse("10ms").unwrap(),
        on_fail: OnVerifyFail::Compensate,
    })
}

/// Of high risk, since it has no condition.
const ALL: &str = "delete from public.t";

fn risky() -> Plan {
    plan(vec![replaced("change", &[], 1, ALL), step("check", &["change"], failing_verify())])
}

async fn decide(kit: &Kit, run: &RunId, decision: Decision) {
    kit.decide(run, decision).await;
}

#[tokio::test]
async fn a_risky_undoing_waits_for_an_approval_of_exactly_its_statements() {
    let kit = kit("undo_approved").await;
    let (run, outcome) = kit.run(&risky()).await;
    assert_eq!(outcome, Outcome::WaitingApproval, "{:?}", kit.state(&run).await.stuck);
    assert_eq!(rows(&kit).await, "1", "nothing is undone before");
    let state = kit.state(&run).await;
    let asked: Vec<_> = state.open_approvals().collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].request.direction, Direction::Undo);
    assert_eq!(asked[0].request.reasons, ["risk high"]);
    assert!(asked[0].sets["change"].changes.last().unwrap().operation.to_string().contains(ALL));
    // An approval of anything else is refused.
    let other = lakeops::kernel::Digest::of_bytes(b"something else");
    let (engine, by) = (kit.engine(), me());
    let refused =
        engine.decide_approval((&run, None), Some(&other), Decision::Approved, (&by, "?"));
    assert!(refused.await.is_err());
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "a resume alone changes nothing");
    assert_eq!(kit.count(&run, "approval_requested").await, 1);
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Complete)));
    assert_eq!(rows(&kit).await, "");
}

#[tokio::test]
async fn a_rejected_undoing_is_listed_and_the_rest_goes_on() {
    let kit = kit("undo_rejected").await;
    let steps = vec![
        replaced("first", &[], 1, "delete from public.t where n = 1"),
        replaced("second", &["first"], 2, ALL),
        step("check", &["second"], failing_verify()),
    ];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    decide(&kit, &run, Decision::Rejected).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Partial)));
    assert_eq!(rows(&kit).await, "2", "the other step is undone");
    let state = kit.state(&run).await;
    let undo = state.nodes[state.find("second").unwrap()].undo.clone().unwrap();
    assert!(undo.impossible.iter().any(|why| why.contains("rejected by ann")), "{undo:?}");
}

#[tokio::test]
async fn an_undoing_that_nobody_decides_on_expires() {
    let endpoint = postgres().await.fresh_database("undo_expired").await;
    execute(&endpoint, &TABLES).await;
    let (kit, clock) = Kit::with_clock(endpoint);
    let (run, outcome) = kit.run(&risky()).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    clock.turn(Duration::from_hours(25));
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Partial)));
    assert_eq!(rows(&kit).await, "1");
}

fn under_policy(steps: Vec<PlannedStep>) -> Plan {
    let policy = include_str!("../../../sops/change_policy.rhai");
    plan_with(steps, &[], |body| {
        body.scripts.insert("sops/change_policy.rhai".to_owned(), PinnedText::new(policy));
        body.policy = Some("sops/change_policy.rhai".to_owned());
    })
}

#[tokio::test]
async fn the_change_policy_judges_an_undoing() {
    let kit = kit("undo_frozen").await;
    let undo = "delete from public.t where n = 1";
    let steps = || {
        let change = replaced("change", &[], 1, undo);
        let gate = lakeops::plan::document::ApprovalGate {
            prompt: "Go on?".to_owned(),
            show: Vec::new(),
            covers: Vec::new(),
            expires: Span::from_secs(3600),
            on_reject: lakeops::plan::document::OnReject::Stop,
            rehearsed_within: None,
        };
        let gate = step("gate", &["change"], Action::Approval(gate));
        vec![change, gate, step("check", &["gate"], failing_verify())]
    };
    let (run, outcome) = kit.run(&under_policy(steps())).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let freeze = Event::Override {
        what: "freeze *".to_owned(),
        by: me(),
        reason: "test".to_owned(),
        expires: None,
    };
    let append = Append { stream: Stream::System, expect: Expect::Anything, events: vec![freeze] };
    kit.journal.append(vec![append], Durability::Synced).await.unwrap();
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Partial)));
    assert_eq!(rows(&kit).await, "1", "a frozen target is left alone");
    let state = kit.state(&run).await;
    let undo = state.nodes[state.find("change").unwrap()].undo.clone().unwrap();
    assert!(undo.impossible[0].contains("frozen by ann: test"), "{undo:?}");
}

#[tokio::test]
async fn a_step_that_always_asks_asks_for_its_undoing_too() {
    let kit = kit("undo_required").await;
    let mut change = replaced("change", &[], 1, "delete from public.t where n = 1");
    change.approval = ApprovalMode::Required;
    let (run, _) = kit.run(&plan(vec![change, step("check", &["change"], failing_verify())])).await;
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "the undoing asks by itself");
    assert_eq!(rows(&kit).await, "1");
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(rows(&kit).await, "");
}

#[tokio::test]
async fn an_undoing_that_moved_after_its_approval_is_asked_for_again() {
    let kit = kit("undo_moved").await;
    execute(&kit.endpoint(), &["insert into public.todo values (1)"]).await;
    let mut change = step("change", &[], insert(1));
    let with = json!({ "independent": false });
    change.compensate = Some(ToolCall { tool: "sweep".to_owned(), with });
    let steps = vec![change, step("check", &["change"], failing_verify())];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    execute(&kit.endpoint(), &["insert into public.todo values (2)"]).await;
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "it is another set now");
    let done = "select count(*) from public.done";
    assert_eq!(value::<i64>(&kit.endpoint(), done).await, 0);
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(value::<i64>(&kit.endpoint(), done).await, 2);
}

#[tokio::test]
async fn a_fan_out_asks_once_for_the_undoing_of_all_its_items() {
    let kit = kit("undo_items").await;
    let statement = json!({ "sql": "insert into public.t values ($1)", "binds": ["${{ item }}"] });
    let mut fan = step("fan", &[], tool("execute_sql", json!({ "statements": [statement] })));
    fan.for_each = Some(ForEach {
        items: json!([1, 2, 3]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 2,
        fail_fast: true,
    });
    let with = json!({ "statements": ["truncate public.todo"] });
    fan.compensate = Some(ToolCall { tool: "execute_sql".to_owned(), with });
    let (run, outcome) = kit.run(&plan(vec![fan, step("check", &["fan"], failing_verify())])).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let state = kit.state(&run).await;
    let asked: Vec<_> = state.open_approvals().collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].step, "fan");
    assert_eq!(asked[0].request.covers.len(), 3);
    decide(&kit, &run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.count(&run, "approval_requested").await, 1);
    assert_eq!(kit.count(&run, "step_compensated").await, 3);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Complete)));
}

#[tokio::test]
async fn a_kill_anywhere_in_an_approved_undoing_changes_nothing_in_the_end() {
    let database = async || {
        let endpoint = postgres().await.fresh_database("undo_killed").await;
        execute(&endpoint, &["create table public.t (n bigint)"]).await;
        execute(&endpoint, &["create table public.undone (n bigint)"]).await;
        endpoint
    };
    let undo = "with gone as (delete from public.t returning n) \
                insert into public.undone select n from gone";
    let mut change = replaced("change", &[], 1, undo);
    change.approval = ApprovalMode::Required;
    let plan = plan(vec![change, step("check", &["change"], failing_verify())]);
    let whole = Crash::new(&plan, &database().await);
    assert_eq!(whole.finish(), "failed");
    let names = whole.boundaries();
    let first = names.iter().position(|name| name.starts_with("check/")).unwrap();
    let undoing = names.iter().enumerate().skip(first);
    assert!(undoing.clone().any(|(_, name)| name.contains("undo 0")), "{names:#?}");
    let (mut killed, mut places) = (0, 0);
    for (place, name) in undoing {
        places += 1;
        // Which events share a commit is chance, and so are the names of some boundaries.
        for _ in 0..3 {
            let endpoint = database().await;
            let crash = Crash::new(&plan, &endpoint);
            let end = crash.run_until_place(&names, place);
            assert_eq!(crash.finish(), "failed", "killed at {name}");
            let undone = "select count(*) from public.undone";
            assert_eq!(value::<i64>(&endpoint, undone).await, 1, "killed at {name}");
            let entries = crash.entries().await;
            let ended = entries.iter().rev().find_map(|entry| match &entry.event {
                Event::RunFinished { compensation, outputs: Value::Null, .. } => {
                    Some(*compensation)
                }
                _ => None,
            });
            assert_eq!(ended, Some(Compensation::Complete), "killed at {name}");
            if end == End::Killed {
                killed += 1;
                break;
            }
        }
    }
    assert!(killed * 10 > places * 7, "only {killed} of {places} boundaries were reached");
}
