//! How runs end: cancelled at any point, out of time, interrupted, undone, or stuck.

use std::time::Duration;

use lakeops::journal::event::{Compensation, Decision, Event};
use lakeops::journal::store::Durability;
use lakeops::journal::{Append, Expect, Outcome, Stream};
use lakeops::kernel::{RunId, Span};
use lakeops::plan::document::{Action, ApprovalMode, OnVerifyFail, RunIf, ToolCall, Verify, Wait};
use lakeops::plan::{Plan, PlannedStep};
use serde_json::json;

use super::kit::{Kit, embed, me, plan, plan_with, sql, step, tool};
use super::props;
use crate::harness::{connect, execute, postgres, value};

async fn kit(name: &str) -> Kit {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    let mut kit = Kit::new(endpoint);
    kit.parts.catalog = props::catalog();
    // A change that a test holds up does not give up by itself.
    kit.change_settings(|settings| settings.limits.lock_timeout = Span::from_secs(60));
    kit
}

async fn rows(kit: &Kit) -> String {
    let text = "select coalesce(string_agg(n::text, ',' order by n), '') from public.t";
    value(&kit.endpoint(), text).await
}

fn insert(n: u32) -> Action {
    sql(&[&format!("insert into public.t values ({n})")])
}

/// An insert that can be undone.
fn undoable(n: u32) -> Action {
    let undo = format!("delete from public.t where n = {n}");
    let statement = json!({ "sql": format!("insert into public.t values ({n})"), "undo": undo });
    tool("execute_sql", json!({ "statements": [statement] }))
}

fn timer(duration: &str) -> Action {
    Action::Wait(Wait::Timer { duration: json!(duration) })
}

/// A verification that fails at once and asks for the changes before it to be undone.
fn failing_verify() -> Action {
    Action::Verify(Verify {
        call: ToolCall { tool: "monitor_connections".to_owned(), with: json!({}) },
        assert: vec!["result.total < 0".to_owned()],
        every: Span::parse("10ms").unwrap(),
        within: Span::parse("10ms").unwrap(),
        on_fail: OnVerifyFail::Compensate,
    })
}

/// These steps, and an event at the end of every run.
fn with_always(steps: Vec<PlannedStep>) -> Plan {
    plan_with(steps, &[], |body| {
        let over = tool("publish_event", json!({ "event": "over" }));
        body.always = vec![step("always_1", &[], over)];
    })
}

#[tokio::test]
async fn a_run_cancelled_before_it_begins_does_nothing_but_its_last_steps() {
    let kit = kit("cancel_first").await;
    let plan = with_always(vec![step("a", &[], insert(1)), step("b", &["a"], insert(2))]);
    let run = kit.start(&plan).await;
    kit.cancel(&run, false).await;
    assert_eq!(kit.execute(&run).await, Outcome::Cancelled);
    assert_eq!(rows(&kit).await, "");
    assert_eq!(kit.count(&run, "event_published").await, 1);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Cancelled, Compensation::None)));
    let again = kit.engine().cancel(&run, false, (&me(), "again")).await.unwrap_err();
    assert!(again.to_string().contains("it is over: cancelled"), "{again}");
}

#[tokio::test]
async fn a_run_cancelled_while_it_waits_for_approval_ends() {
    let kit = kit("cancel_approval").await;
    let mut asked = step("asked", &["a"], insert(2));
    asked.approval = ApprovalMode::Required;
    let (run, outcome) = kit.run(&with_always(vec![step("a", &[], insert(1)), asked])).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    kit.cancel(&run, false).await;
    let late =
        kit.engine().decide_approval((&run, None), None, Decision::Approved, (&me(), "late")).await;
    assert!(late.is_err(), "what is cancelled cannot be approved");
    assert_eq!(kit.execute(&run).await, Outcome::Cancelled);
    assert_eq!(rows(&kit).await, "1", "without `--compensate` what is done stays");
    assert_eq!(kit.ended(&run, "asked").await.0, "skipped");
    assert_eq!(kit.count(&run, "event_published").await, 1);
}

#[tokio::test]
async fn a_run_cancelled_during_a_timer_ends_at_once() {
    let kit = kit("cancel_timer").await;
    let steps = vec![step("sleep", &[], timer("1h")), step("b", &["sleep"], insert(2))];
    let run = kit.start(&with_always(steps)).await;
    let (_, work) = kit.spawn(&run);
    kit.until(&run, "wait_started").await;
    kit.cancel(&run, false).await;
    assert_eq!(work.await.unwrap(), Outcome::Cancelled);
    assert_eq!(rows(&kit).await, "");
    assert_eq!(kit.count(&run, "event_published").await, 1);
}

#[tokio::test]
async fn a_run_cancelled_during_a_change_settles_it_and_can_undo_it() {
    for compensate in [false, true] {
        let kit = kit("cancel_change").await;
        let mut holder = connect(&kit.endpoint()).await;
        sqlx::raw_sql("begin; lock table public.t").execute(&mut holder).await.unwrap();
        let steps = vec![step("a", &[], undoable(1)), step("b", &["a"], insert(2))];
        let run = kit.start(&with_always(steps)).await;
        let (_, work) = kit.spawn(&run);
        let waits = "select count(*) from pg_stat_activity \
                     where datname = current_database() and wait_event_type = 'Lock'";
        while value::<i64>(&kit.endpoint(), waits).await == 0 {}
        kit.cancel(&run, compensate).await;
        kit.until(&run, "cancel_requested").await;
        // The engine has seen it when it says that the run is ending.
        kit.until(&run, "ending_began").await;
        sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
        assert_eq!(work.await.unwrap(), Outcome::Cancelled);
        let (left, undone) =
            if compensate { ("", Compensation::Complete) } else { ("1", Compensation::None) };
        assert_eq!(rows(&kit).await, left);
        assert_eq!(kit.finished(&run).await, Some((Outcome::Cancelled, undone)));
        assert_eq!(kit.count(&run, "event_published").await, 1);
    }
}

#[tokio::test]
async fn undoing_that_fails_is_loud_and_goes_on_when_a_person_says_so() {
    let kit = kit("stuck_undo").await;
    let mut change = step("change", &[], undoable(1));
    change.retry.max_attempts = 2;
    let steps = vec![change, step("check", &["change"], failing_verify())];
    let run = kit.start(&plan(steps)).await;
    // The undoing meets a trigger that refuses it.
    execute(
        &kit.endpoint(),
        &[
            "create function public.refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'no'; end $$",
            "create trigger refuse before delete on public.t \
             for each row execute function public.refuse()",
        ],
    )
    .await;
    assert_eq!(kit.execute(&run).await, Outcome::Stuck);
    assert!(kit.messages.0.lock().unwrap().iter().any(|title| title.contains("is stuck")));
    assert_eq!(kit.count(&run, "change_not_applied").await, 2, "tried as often as allowed");
    assert_eq!(kit.execute(&run).await, Outcome::Stuck, "resuming alone changes nothing");
    assert_eq!(kit.count(&run, "change_not_applied").await, 2);
    execute(&kit.endpoint(), &["drop trigger refuse on public.t"]).await;
    kit.engine().unstick(&run, (&me(), "the trigger is gone")).await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Complete)));
    assert_eq!(rows(&kit).await, "");
    assert!(kit.engine().unstick(&run, (&me(), "again")).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_undone_is_listed_and_blocks_nothing() {
    let kit = kit("partial").await;
    let steps = vec![
        step("a", &[], undoable(1)),
        step("b", &["a"], insert(2)),
        step("apart", &[], undoable(3)),
        step("check", &["b"], failing_verify()),
    ];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Partial)));
    assert_eq!(rows(&kit).await, "2,3", "only ancestors of the verification are undone");
    let state = kit.state(&run).await;
    let undo = state.nodes[state.find("b").unwrap()].undo.clone().unwrap();
    assert_eq!(undo.impossible.len(), 1);
}

#[tokio::test]
async fn the_child_is_undone_alone_and_the_parent_with_its_child() {
    let child = |verified: bool| {
        let mut steps = vec![step("inner", &[], undoable(2))];
        if verified {
            steps.push(step("inner_check", &["inner"], failing_verify()));
        }
        steps
    };
    // The child's verification undoes the child's change only.
    let kit = kit("scopes").await;
    let before = step("before", &[], undoable(1));
    let steps = vec![before.clone(), step("child", &["before"], embed(child(true)))];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "child/inner_check").await.1, "engine::not_verified");
    assert_eq!(rows(&kit).await, "1");
    // The parent's undoes the child's as well.
    execute(&kit.endpoint(), &["truncate public.t"]).await;
    let steps = vec![
        before,
        step("child", &["before"], embed(child(false))),
        step("check", &["child"], failing_verify()),
    ];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Complete)));
    assert_eq!(rows(&kit).await, "");
}

#[tokio::test]
async fn a_tool_of_the_authors_choice_undoes() {
    let kit = kit("compensate_tool").await;
    let mut change = step("change", &[], insert(1));
    let delete = json!({
        "sql": "delete from public.t where n = $1", "binds": ["${{ steps.change.rows }}"]
    });
    change.compensate =
        Some(ToolCall { tool: "execute_sql".to_owned(), with: json!({ "statements": [delete] }) });
    let steps = vec![change, step("check", &["change"], failing_verify())];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Failed, "{:?}", kit.state(&run).await.stuck);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Complete)));
    assert_eq!(rows(&kit).await, "");
}

#[tokio::test]
async fn an_undoing_that_cannot_be_proposed_is_tried_again_and_then_loud() {
    let mut kit = kit("compensate_late").await;
    let mut change = step("change", &[], insert(1));
    change.compensate = Some(ToolCall { tool: "sweep".to_owned(), with: json!({}) });
    change.retry.max_attempts = 3;
    change.retry.on.push(lakeops::kernel::RetryClass::Permanent);
    kit.parts.catalog = props::catalog();
    let steps = vec![change, step("check", &["change"], failing_verify())];
    let run = kit.start(&plan(steps)).await;
    // What the tool looks at is not there.
    assert_eq!(kit.execute(&run).await, Outcome::Stuck);
    assert!(kit.messages.0.lock().unwrap().iter().any(|title| title.contains("is stuck")));
    let (_, why) = kit.state(&run).await.stuck.unwrap();
    assert!(why.contains("cannot be proposed"), "{why}");
    let tables = ["create table public.todo (n bigint)", "create table public.done (n bigint)"];
    execute(&kit.endpoint(), &tables).await;
    kit.engine().unstick(&run, (&me(), "made them")).await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.finished(&run).await, Some((Outcome::Failed, Compensation::Complete)));
}

#[tokio::test]
async fn a_run_out_of_time_drops_what_it_reads() {
    let kit = kit("out_of_time").await;
    let slow = Action::Sql { sql: "slow".to_owned(), with: Vec::new() };
    let steps = vec![step("slow", &[], slow), step("after", &["slow"], insert(1))];
    let plan = plan_with(steps, &[], |body| {
        let text = lakeops::plan::document::PinnedText::new("select pg_sleep(600)::text as x");
        body.sql.insert("slow".to_owned(), text);
        body.limits.timeout = Some(Span::parse("300ms").unwrap());
    });
    let work = kit.run(&plan);
    let (run, outcome) = tokio::time::timeout(Duration::from_mins(1), work).await.unwrap();
    assert_eq!(outcome, Outcome::Failed);
    let failure = kit.state(&run).await.ending.unwrap().failure.unwrap();
    assert_eq!(failure.code, "engine::run_timeout");
    assert_eq!(rows(&kit).await, "");
}

#[tokio::test]
async fn time_spent_waiting_is_not_time_spent_working() {
    let endpoint = postgres().await.fresh_database("waiting_time").await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    let (kit, clock) = Kit::with_clock(endpoint);
    let steps = vec![step("sleep", &[], timer("2h")), step("after", &["sleep"], insert(1))];
    let plan =
        plan_with(steps, &[], |body| body.limits.timeout = Some(Span::parse("10m").unwrap()));
    let run = kit.start(&plan).await;
    let (_, work) = kit.spawn(&run);
    kit.until(&run, "wait_started").await;
    clock.turn(Duration::from_hours(2));
    assert_eq!(work.await.unwrap(), Outcome::Succeeded);
    assert_eq!(rows(&kit).await, "1");
}

#[tokio::test]
async fn a_timer_that_ran_out_while_nobody_worked_is_over_at_once() {
    let endpoint = postgres().await.fresh_database("timer").await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    let (kit, clock) = Kit::with_clock(endpoint);
    let steps = vec![step("sleep", &[], timer("2h")), step("after", &["sleep"], insert(1))];
    let run = kit.start(&plan(steps)).await;
    let (interrupt, work) = kit.spawn(&run);
    kit.until(&run, "wait_started").await;
    interrupt.cancel();
    assert_eq!(work.await.unwrap(), Outcome::Waiting);
    assert!(kit.state(&run).await.parked.unwrap().1.is_some(), "it is known when it goes on");
    clock.turn(Duration::from_hours(2));
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.count(&run, "wait_started").await, 1);
    assert_eq!(rows(&kit).await, "1");
}

#[tokio::test]
async fn an_interrupted_run_settles_its_change_and_goes_on_later() {
    let kit = kit("interrupt").await;
    let mut holder = connect(&kit.endpoint()).await;
    sqlx::raw_sql("begin; lock table public.t").execute(&mut holder).await.unwrap();
    let two = sql(&["insert into public.t values (1)", "insert into public.t values (2)"]);
    let run = kit.start(&plan(vec![step("a", &[], two), step("b", &["a"], insert(3))])).await;
    let (interrupt, work) = kit.spawn(&run);
    let waits = "select count(*) from pg_stat_activity \
                 where datname = current_database() and wait_event_type = 'Lock'";
    while value::<i64>(&kit.endpoint(), waits).await == 0 {}
    interrupt.cancel();
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    assert_eq!(work.await.unwrap(), Outcome::Waiting);
    assert_eq!(rows(&kit).await, "1", "what had begun is settled, the rest has not begun");
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(rows(&kit).await, "1,2,3");
    assert_eq!(kit.state(&run).await.nodes[0].attempts, 1, "an interruption is no failure");
}

#[tokio::test]
async fn a_panic_in_a_tool_fails_its_step_for_good() {
    let kit = kit("panic").await;
    let panics = step("panics", &[], tool("panics", json!({})));
    let mut after = step("after", &["panics"], insert(1));
    after.run_if = RunIf::Always;
    let (run, outcome) = kit.run(&with_always(vec![panics, after])).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "panics").await.1, "engine::panic");
    assert_eq!(kit.count(&run, "attempt_failed").await, 1);
    assert_eq!(rows(&kit).await, "1", "`run_if: always` runs all the same");
    assert_eq!(kit.count(&run, "event_published").await, 1);
}

#[tokio::test]
async fn a_workflow_that_always_runs_does_all_of_it() {
    let kit = kit("always").await;
    let bad = step("bad", &[], sql(&["select 1/0"]));
    let inner = vec![step("one", &[], insert(1)), step("two", &["one"], insert(2))];
    let mut clean = step("clean", &["bad"], embed(inner));
    clean.run_if = RunIf::Always;
    let (run, outcome) = kit.run(&plan(vec![bad, clean])).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "clean").await.0, "succeeded");
    assert_eq!(rows(&kit).await, "1,2");
}

/// Processes claim the run and die, one after the other, as often as is allowed.
async fn claim_in_vain(kit: &Kit, run: &RunId) {
    for _ in 0..10 {
        let append = Append {
            stream: Stream::Run(run.clone()),
            expect: Expect::Last(kit.state(run).await.last_seq),
            events: vec![Event::RunClaimed { by: me(), pid: 1 }],
        };
        kit.journal.append(vec![append], Durability::Synced).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_that_makes_no_progress_is_stuck_until_a_person_acts() {
    let kit = kit("barren").await;
    let run = kit.start(&plan(vec![step("a", &[], insert(1))])).await;
    claim_in_vain(&kit, &run).await;
    assert_eq!(kit.execute(&run).await, Outcome::Stuck);
    assert!(kit.messages.0.lock().unwrap().iter().any(|title| title.contains("is stuck")));
    assert_eq!(kit.execute(&run).await, Outcome::Stuck);
    kit.engine().unstick(&run, (&me(), "looked")).await.unwrap();
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(rows(&kit).await, "1");
}

#[tokio::test]
async fn a_stuck_run_can_be_cancelled() {
    let kit = kit("cancel_stuck").await;
    let run = kit.start(&with_always(vec![step("a", &[], insert(1))])).await;
    claim_in_vain(&kit, &run).await;
    assert_eq!(kit.execute(&run).await, Outcome::Stuck);
    kit.cancel(&run, false).await;
    assert_eq!(kit.execute(&run).await, Outcome::Cancelled);
    assert_eq!(rows(&kit).await, "");
    assert_eq!(kit.count(&run, "event_published").await, 1);
}

/// Whatever is found wrong, exactly what it looked at is undone, what came later first.
#[tokio::test]
async fn each_step_in_turn_is_found_wrong_and_undone_with_what_it_needs() {
    const STEPS: [(&str, &[&str]); 5] =
        [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"]), ("e", &["d"])];
    const BEFORE: [&str; 5] = ["a", "ab", "ac", "abcd", "abcde"];
    for ((wrong, _), before) in STEPS.into_iter().zip(BEFORE) {
        let kit = kit("in_turn").await;
        let mut steps: Vec<PlannedStep> =
            (1..).zip(STEPS).map(|(n, (id, needs))| step(id, needs, undoable(n))).collect();
        // What comes after the wrong step waits for the look at it.
        for later in &mut steps {
            for need in later.needs.iter_mut().filter(|need| need.step == wrong) {
                need.step = "look".to_owned();
            }
        }
        let behind = steps.iter().position(|step| step.id == wrong).unwrap() + 1;
        steps.insert(behind, step("look", &[wrong], failing_verify()));
        let (run, outcome) = kit.run(&plan(steps)).await;
        assert_eq!(outcome, Outcome::Failed, "{wrong}");
        assert_eq!(
            kit.finished(&run).await,
            Some((Outcome::Failed, Compensation::Complete)),
            "{wrong}"
        );
        let entries = kit.engine().load(&run).await.unwrap().entries;
        let undone: Vec<&str> = entries
            .iter()
            .filter_map(|entry| match &entry.event {
                Event::StepCompensated { step, .. } => Some(step.as_str()),
                _ => None,
            })
            .collect();
        let mut sorted = undone.clone();
        sorted.sort_unstable();
        assert_eq!(sorted.concat(), before, "{wrong}");
        for (id, needs) in STEPS {
            let place = |id: &str| undone.iter().position(|other| *other == id);
            for need in needs {
                if let (Some(step), Some(need)) = (place(id), place(need)) {
                    assert!(step < need, "{wrong}: {undone:?}");
                }
            }
        }
        // What was done beside it stays.
        let beside: Vec<String> = (1..)
            .zip(STEPS)
            .filter(|(_, (id, _))| !before.contains(id))
            .map(|(n, _): (u32, _)| n.to_string())
            .collect();
        let left = rows(&kit).await;
        assert!(left.is_empty() || beside.contains(&left), "{wrong}: {left} is left");
    }
}

/// Deadlines are moments of the wall clock; how long something took never is negative.
#[tokio::test]
async fn a_clock_that_is_set_back_or_forward_ends_no_wait_too_early_and_none_never() {
    let endpoint = postgres().await.fresh_database("clock").await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    let hour = 3_600_000;
    for jump in [-24 * hour, -hour, hour, 24 * hour] {
        execute(&endpoint, &["truncate public.t"]).await;
        let (kit, clock) = Kit::with_clock(endpoint.clone());
        let plan = plan(vec![
            step("a", &[], insert(1)),
            step("wait", &["a"], timer("30m")),
            step("b", &["wait"], insert(2)),
        ]);
        let run = kit.start(&plan).await;
        let (interrupt, work) = kit.spawn(&run);
        kit.until(&run, "wait_started").await;
        clock.turn_by(jump);
        if jump < 0 {
            assert_eq!(rows(&kit).await, "1", "{jump}: it waited no half hour");
            clock.turn_by(-jump);
            clock.turn(Duration::from_mins(31));
        }
        assert_eq!(work.await.unwrap(), Outcome::Succeeded, "{jump}");
        drop(interrupt);
        assert_eq!(rows(&kit).await, "1,2", "{jump}");
        let entries = kit.engine().load(&run).await.unwrap().entries;
        assert!(entries.is_sorted_by_key(|entry| entry.at), "{jump}: time went backwards");
    }
}
