//! Approvals: who, what exactly, until when, and only once.

use std::sync::Arc;
use std::time::Duration;

use lakeops::engine::EngineError;
use lakeops::journal::Outcome;
use lakeops::journal::event::{Decision, Event};
use lakeops::journal::store::{Append, Durability, Expect, Stream};
use lakeops::kernel::{Digest, RunId, Span};
use lakeops::plan::Plan;
use lakeops::plan::document::{Action, ApprovalGate, ApprovalMode, ForEach, OnReject, PinnedText};
use serde_json::json;

use super::kit::{Kit, Meddled, me, plan, plan_with, somebody, sql, step, tool};
use super::props;
use crate::harness::crash::{Crash, End};
use crate::harness::{Place, execute, postgres, value};

const DAY: Duration = Duration::from_hours(24);
const TABLES: [&str; 3] = [
    "create table public.todo (n bigint)",
    "create table public.done (n bigint)",
    "insert into public.todo values (1), (2), (3)",
];

async fn kit(name: &str) -> Kit {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &TABLES).await;
    let mut kit = Kit::new(endpoint);
    kit.parts.catalog = props::catalog();
    kit
}

fn sweep(independent: bool) -> Plan {
    plan(vec![step("sweep", &[], tool("sweep", json!({ "independent": independent })))])
}

async fn done(kit: &Kit) -> String {
    let text = "select coalesce(string_agg(n::text, ',' order by n), '') from public.done";
    value(&kit.endpoint(), text).await
}

async fn decide(
    kit: &Kit,
    run: &RunId,
    decision: Decision,
    by: &str,
) -> Result<String, EngineError> {
    let by = somebody(by);
    kit.engine().decide_approval((run, None), None, decision, (&by, "test")).await
}

#[tokio::test]
async fn an_expired_request_is_refused_and_the_run_fails() {
    let endpoint = postgres().await.fresh_database("expired").await;
    execute(&endpoint, &TABLES).await;
    let (mut kit, clock) = Kit::with_clock(endpoint);
    kit.parts.catalog = props::catalog();
    let (run, outcome) = kit.run(&sweep(false)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    clock.turn(Duration::from_hours(23));
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "an hour is left");
    clock.turn(Duration::from_mins(61));
    let late = decide(&kit, &run, Decision::Approved, "ann").await.unwrap_err();
    assert!(late.to_string().contains("expired"), "{late}");
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.ended(&run, "sweep").await, ("failed".into(), "approval::expired".into()));
    assert_eq!(done(&kit).await, "");
}

#[tokio::test]
async fn an_approval_beats_the_expiry_that_comes_after_it() {
    // The executor that decides about the expiry has not seen the approval yet.
    let endpoint = postgres().await.fresh_database("late").await;
    execute(&endpoint, &TABLES).await;
    let (mut kit, clock) = Kit::with_clock(endpoint);
    kit.parts.catalog = props::catalog();
    let (run, _) = kit.run(&sweep(false)).await;
    let waiting = kit.state(&run).await;
    let digest = waiting.approvals[0].request.digest.clone();
    clock.turn(DAY * 2);
    // The approval comes from a process whose clock is behind.
    let approved = Event::ApprovalDecided {
        step: "sweep".to_owned(),
        digest,
        decision: Decision::Approved,
        by: me(),
        reason: "in time".to_owned(),
    };
    let decision = Append {
        stream: Stream::Run(run.clone()),
        expect: Expect::Last(waiting.last_seq + 1),
        events: vec![approved],
    };
    let journal = Arc::clone(&kit.journal);
    kit.parts.journal = Arc::new(Meddled::after_claim(journal, decision));
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.count(&run, "approval_decided").await, 1);
    assert_eq!(done(&kit).await, "1,2,3");
}

#[tokio::test]
async fn who_started_a_run_may_not_approve_it_where_that_is_forbidden() {
    let mut kit = kit("self_approval").await;
    kit.change_settings(|settings| settings.approvals.allow_self = false);
    let run = kit.start_as(&sweep(false), "ann", true).await;
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval);
    let own = decide(&kit, &run, Decision::Approved, "ann").await.unwrap_err();
    assert!(own.to_string().contains("may not approve"), "{own}");
    decide(&kit, &run, Decision::Approved, "bob").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(done(&kit).await, "1,2,3");
}

#[tokio::test]
async fn an_approval_of_other_changes_is_refused() {
    let kit = kit("other").await;
    let (run, _) = kit.run(&sweep(false)).await;
    let other = Digest::of_bytes(b"other");
    let engine = kit.engine();
    let wrong =
        engine.decide_approval((&run, None), Some(&other), Decision::Approved, (&me(), "")).await;
    assert!(wrong.unwrap_err().to_string().contains("not those that you saw"));
    let missing = engine
        .decide_approval((&run, Some("nothing")), None, Decision::Approved, (&me(), ""))
        .await;
    assert!(
        matches!(missing, Err(EngineError::Refused { help: Some(help), .. }) if help.contains("sweep"))
    );
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval);
}

#[tokio::test]
async fn a_proposal_that_moved_asks_again_and_at_most_three_times() {
    let kit = kit("moving").await;
    let (run, _) = kit.run(&sweep(false)).await;
    for n in 10..13 {
        execute(&kit.endpoint(), &[&format!("insert into public.todo values ({n})")]).await;
        decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
        assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "asked again");
        assert_eq!(done(&kit).await, "", "nothing that nobody saw");
    }
    execute(&kit.endpoint(), &["insert into public.todo values (99)"]).await;
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.ended(&run, "sweep").await.1, "approval::moving_target");
    assert_eq!(kit.count(&run, "approval_requested").await, 4);
    assert_eq!(done(&kit).await, "");
}

#[tokio::test]
async fn what_was_shown_last_is_carried_out_when_it_still_holds() {
    let kit = kit("moved_once").await;
    let (run, _) = kit.run(&sweep(false)).await;
    execute(&kit.endpoint(), &["delete from public.todo where n = 2"]).await;
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "the set shrank");
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(done(&kit).await, "1,3");
}

#[tokio::test]
async fn an_ordered_subset_of_independent_changes_does_not_ask_again() {
    let kit = kit("subset").await;
    let (run, _) = kit.run(&sweep(true)).await;
    execute(&kit.endpoint(), &["delete from public.todo where n = 2"]).await;
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.count(&run, "approval_requested").await, 1);
    assert_eq!(done(&kit).await, "1,3");
}

#[tokio::test]
async fn a_fan_out_asks_once_for_all_its_items() {
    let kit = kit("fan_approval").await;
    let mut fan = step("fan", &[], tool("sweep", json!({ "at_least": "${{ item }}" })));
    fan.for_each = Some(ForEach {
        items: json!([1, 2, 3]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 1,
        fail_fast: true,
    });
    let (run, outcome) = kit.run(&plan(vec![fan])).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let state = kit.state(&run).await;
    assert_eq!(state.approvals[0].request.covers, ["fan[k1]", "fan[k2]", "fan[k3]"]);
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    // The first item makes the table of keys; that the others need not is no reason to ask again.
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.count(&run, "approval_requested").await, 1);
    assert_eq!(done(&kit).await, "1,2,2,3,3,3");
}

#[tokio::test]
async fn yes_approves_what_the_workflow_asks_for_and_never_high_risk() {
    let kit = kit("yes").await;
    let mut asked = step("asked", &[], sql(&["insert into public.done values (7)"]));
    asked.approval = ApprovalMode::Required;
    let risky = step("risky", &["asked"], sql(&["drop table public.todo"]));
    let run = kit.start_as(&plan(vec![asked, risky]), "ann", true).await;
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval);
    assert_eq!(done(&kit).await, "7");
    let state = kit.state(&run).await;
    assert_eq!(state.approvals.len(), 2);
    assert_eq!(state.approvals[0].decided.as_ref().unwrap().by, me());
    assert!(state.approvals[1].decided.is_none());
    let mut never = step("never", &[], sql(&["drop table public.todo"]));
    never.approval = ApprovalMode::Never;
    let (run, outcome) = kit.run(&plan(vec![never])).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "never").await.1, "policy::refused");
}

#[tokio::test]
async fn of_racing_decisions_exactly_one_wins() {
    let kit = kit("race").await;
    for _ in 0..10 {
        let (run, _) = kit.run(&sweep(false)).await;
        let (ann, bob) = (me(), somebody("bob"));
        let engine = kit.engine();
        let (approved, rejected, ()) = tokio::join!(
            engine.decide_approval((&run, None), None, Decision::Approved, (&ann, "")),
            engine.decide_approval((&run, None), None, Decision::Rejected, (&bob, "")),
            kit.cancel(&run, false),
        );
        assert!(!(approved.is_ok() && rejected.is_ok()), "both won");
        assert_eq!(kit.execute(&run).await, Outcome::Cancelled);
        assert!(kit.count(&run, "approval_decided").await <= 1);
        let after = decide(&kit, &run, Decision::Approved, "ann").await;
        assert!(after.is_err());
        assert_eq!(done(&kit).await, "");
    }
}

fn gated(on_reject: OnReject) -> Plan {
    let gate = Action::Approval(ApprovalGate {
        prompt: "Sweep?".to_owned(),
        show: Vec::new(),
        covers: vec!["sweep".to_owned(), "fan".to_owned()],
        expires: Span::from_secs(3600),
        on_reject,
        rehearsed_within: None,
    });
    let mut fan = step("fan", &["ok"], tool("sweep", json!({ "at_least": "${{ item }}" })));
    fan.for_each = Some(ForEach {
        items: json!([3]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 1,
        fail_fast: true,
    });
    plan(vec![
        step("ok", &[], gate),
        step("sweep", &["ok"], tool("sweep", json!({}))),
        fan,
        step("after", &["sweep"], sql(&["insert into public.done values (8)"])),
        step("apart", &[], sql(&["insert into public.done values (9)"])),
    ])
}

#[tokio::test]
async fn a_rejection_can_skip_the_dependents_and_nothing_else() {
    let kit = kit("skip_dependents").await;
    let (run, outcome) = kit.run(&gated(OnReject::SkipDependents)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    decide(&kit, &run, Decision::Rejected, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded, "{:?}", kit.ended(&run, "sweep").await);
    for skipped in ["ok", "sweep", "fan", "fan[k3]", "after"] {
        assert_eq!(kit.ended(&run, skipped).await.0, "skipped", "{skipped}");
    }
    assert_eq!(done(&kit).await, "9");
}

#[tokio::test]
async fn a_rejected_gate_stops_the_run() {
    let kit = kit("stop").await;
    let (run, _) = kit.run(&gated(OnReject::Stop)).await;
    decide(&kit, &run, Decision::Rejected, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.ended(&run, "ok").await.1, "approval::rejected");
    assert_eq!(done(&kit).await, "9");
}

#[tokio::test]
async fn one_approval_of_a_gate_covers_all_its_steps() {
    let kit = kit("covers").await;
    let (run, _) = kit.run(&gated(OnReject::Stop)).await;
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.count(&run, "approval_requested").await, 1);
    assert_eq!(done(&kit).await, "1,2,3,3,8,9");
}

#[tokio::test]
async fn a_run_carries_out_no_more_changes_than_it_may() {
    let kit = kit("max_changes").await;
    let insert = |n: u32| sql(&[&format!("insert into public.done values ({n})")]);
    let side_by_side = (1..=4).map(|n| step(&format!("s{n}"), &[], insert(n))).collect();
    let few = plan_with(side_by_side, &[], |body| body.limits.max_changes = Some(2));
    let (run, outcome) = kit.run(&few).await;
    assert_eq!(outcome, Outcome::Failed);
    let state = kit.state(&run).await;
    assert!(state.changes_applied <= 2, "{}", state.changes_applied);
    let mut fan = step("fan", &[], tool("sweep", json!({})));
    fan.for_each = Some(ForEach {
        items: json!([1, 2, 3]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 3,
        fail_fast: true,
    });
    let few = plan_with(vec![fan], &[], |body| body.limits.max_changes = Some(6));
    let (run, _) = kit.run(&few).await;
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.state(&run).await.changes_applied, 6);
}

fn under_policy(steps: Vec<lakeops::plan::PlannedStep>) -> Plan {
    let policy = include_str!("../../../sops/change_policy.rhai");
    plan_with(steps, &[], |body| {
        body.scripts.insert("sops/change_policy.rhai".to_owned(), PinnedText::new(policy));
        body.policy = Some("sops/change_policy.rhai".to_owned());
    })
}

async fn declare(kit: &Kit, what: &str, expires: Option<&str>) {
    let event = Event::Override {
        what: what.to_owned(),
        by: me(),
        reason: "test".to_owned(),
        expires: expires.map(|span| Span::parse(span).unwrap()),
    };
    let append = Append { stream: Stream::System, expect: Expect::Anything, events: vec![event] };
    kit.journal.append(vec![append], Durability::Synced).await.unwrap();
}

#[tokio::test]
async fn a_freeze_refuses_changes_until_it_is_lifted() {
    let endpoint = postgres().await.fresh_database("freeze").await;
    execute(&endpoint, &TABLES).await;
    let (kit, clock) = Kit::with_clock(endpoint);
    let write = || under_policy(vec![step("w", &[], sql(&["insert into public.done values (1)"]))]);
    let event = under_policy(vec![step(
        "say",
        &[],
        tool("publish_event", json!({ "event": "frozen_here" })),
    )]);
    declare(&kit, "freeze *", None).await;
    // A shorter freeze does not lift the longer one when it ends.
    declare(&kit, "freeze *", Some("1h")).await;
    clock.turn(Duration::from_hours(2));
    let (run, outcome) = kit.run(&write()).await;
    assert_eq!(outcome, Outcome::Failed);
    let failure = kit.state(&run).await.nodes[0].failure.clone().unwrap();
    assert!(failure.message.contains("frozen by ann: test"), "{failure}");
    assert_eq!(kit.run(&event).await.1, Outcome::Succeeded, "events get through");
    declare(&kit, "thaw *", None).await;
    assert_eq!(kit.run(&write()).await.1, Outcome::Succeeded);
    declare(&kit, "freeze *", Some("1h")).await;
    assert_eq!(kit.run(&write()).await.1, Outcome::Failed);
    clock.turn(Duration::from_hours(2));
    assert_eq!(kit.run(&write()).await.1, Outcome::Succeeded);
    assert_eq!(done(&kit).await, "1,1");
}

#[tokio::test]
async fn a_freeze_after_the_approval_still_refuses() {
    let mut kit = kit("freeze_late").await;
    kit.parts.catalog = props::catalog();
    let plan = under_policy(vec![step("sweep", &[], tool("sweep", json!({})))]);
    let (run, _) = kit.run(&plan).await;
    decide(&kit, &run, Decision::Approved, "ann").await.unwrap();
    declare(&kit, "freeze *", None).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.ended(&run, "sweep").await.1, "policy::refused");
    assert_eq!(done(&kit).await, "");
}

#[tokio::test]
async fn outside_its_window_a_person_is_asked() {
    let mut kit = kit("window").await;
    let write = || under_policy(vec![step("w", &[], sql(&["insert into public.done values (1)"]))]);
    assert_eq!(kit.run(&write()).await.1, Outcome::Succeeded);
    // A window of one minute, twelve hours away.
    kit.change_settings(|settings| {
        let opens = lakeops::kernel::SystemClock;
        let half_a_day = lakeops::kernel::Clock::now(&opens).plus(DAY / 2).to_datetime();
        let (from, to) = (half_a_day, half_a_day + chrono::Duration::minutes(1));
        settings.windows = vec![lakeops::config::settings::Window {
            days: Vec::new(),
            from: from.format("%H:%M").to_string(),
            to: to.format("%H:%M").to_string(),
            time_zone: "UTC".to_owned(),
        }];
    });
    let (run, outcome) = kit.run(&write()).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let reasons = &kit.state(&run).await.approvals[0].request.reasons;
    assert!(reasons.iter().any(|why| why.contains("maintenance window")), "{reasons:?}");
}

#[tokio::test]
async fn an_approval_outlives_every_process_and_a_restart_of_the_server() {
    let place = Place::new();
    let cluster = place.start("approvals").await.unwrap();
    let endpoint = cluster.endpoint();
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    let mut change = step("change", &[], sql(&["insert into public.t values (1)"]));
    change.approval = ApprovalMode::Required;
    let crash = Crash::asking(&plan(vec![change]), &endpoint);
    assert_eq!(crash.run(None), End::Outcome("waiting_approval".to_owned()));
    cluster.stop().await.unwrap();
    let cluster = place.start("approvals").await.unwrap();
    crash.moved_to(&cluster.endpoint());
    assert_eq!(crash.run(None), End::Outcome("waiting_approval".to_owned()), "it still waits");
    crash.approve_from_now_on();
    assert_eq!(crash.finish(), "succeeded");
    let endpoint = cluster.endpoint();
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 1);
    cluster.stop().await.unwrap();
}
