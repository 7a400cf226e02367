//! Whole runs.

use lakeops::journal::Outcome;
use lakeops::journal::event::Decision;
use lakeops::kernel::Span;
use lakeops::plan::document::{
    Action, ApprovalGate, ForEach, OnReject, OnVerifyFail, ToolCall, Verify, Wait,
};
use serde_json::json;

use super::kit::{Kit, me, plan, plan_with, sql, step, tool};
use crate::harness::{execute, postgres, value};

async fn kit(name: &str) -> Kit {
    Kit::new(postgres().await.fresh_database(name).await)
}

fn endpoint(kit: &Kit) -> lakeops::postgres::PgEndpoint {
    kit.endpoint()
}

#[tokio::test]
async fn changes_are_carried_out_in_order_and_recorded() {
    let kit = kit("order").await;
    let steps = vec![
        step("make", &[], sql(&["create table public.t (n bigint)"])),
        step(
            "fill",
            &["make"],
            sql(&["insert into public.t values (1)", "insert into public.t values (2)"]),
        ),
    ];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Succeeded, "{:?}", kit.ended(&run, "make").await);
    assert_eq!(value::<i64>(&endpoint(&kit), "select sum(n)::bigint from public.t").await, 3);
    let keys = value::<i64>(&endpoint(&kit), "select count(*) from lakeops.applied_change").await;
    assert_eq!(keys, 3, "one key for each transactional change");
}

#[tokio::test]
async fn scripts_decide_and_conditions_skip() {
    let kit = kit("decide").await;
    let script = Action::Script {
        script: "sops/x.rhai".to_owned(),
        with: json!({ "rows": "${{ steps.look.rows }}" }),
    };
    let look = Action::Sql { sql: "look".to_owned(), with: vec![json!(7)] };
    let mut yes = step("yes", &["decide"], sql(&["create table public.yes ()"]));
    yes.when = Some("steps.decide.n == 7".to_owned());
    let mut no = step("no", &["decide"], sql(&["create table public.no ()"]));
    no.when = Some("steps.decide.n > 7".to_owned());
    let after = step("after", &["no"], sql(&["create table public.after ()"]));
    let steps = vec![step("look", &[], look), step("decide", &["look"], script), yes, no, after];
    let plan = plan_with(steps, &[("sops/x.rhai", "#{ n: rows[0].n }")], |body| {
        let text = lakeops::plan::document::PinnedText::new("select $1::bigint as n");
        body.sql.insert("look".to_owned(), text);
        body.outputs.insert("n".to_owned(), "steps.decide.n".to_owned());
    });
    let (run, outcome) = kit.run(&plan).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(kit.ended(&run, "no").await.0, "skipped");
    assert_eq!(kit.ended(&run, "after").await.0, "skipped");
    assert_eq!(kit.ended(&run, "yes").await.0, "succeeded");
    assert_eq!(kit.engine().load(&run).await.unwrap().state.outputs, json!({ "n": 7 }));
}

#[tokio::test]
async fn a_fan_out_works_on_every_item_once() {
    let kit = kit("fan_out").await;
    execute(&endpoint(&kit), &["create table public.t (n bigint)"]).await;
    let mut fan = step(
        "fan",
        &[],
        tool(
            "execute_sql",
            json!({
                "statements": [{ "sql": "insert into public.t values ($1)", "binds": ["${{ item }}"] }]
            }),
        ),
    );
    fan.for_each = Some(ForEach {
        items: json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        key: "n${{ item }}".to_owned(),
        max_parallel: 4,
        fail_fast: true,
    });
    let (run, outcome) = kit.run(&plan(vec![fan])).await;
    assert_eq!(outcome, Outcome::Succeeded, "{:?}", kit.ended(&run, "fan[n1]").await);
    assert_eq!(value::<i64>(&endpoint(&kit), "select sum(n)::bigint from public.t").await, 55);
    assert_eq!(value::<i64>(&endpoint(&kit), "select count(*) from public.t").await, 10);
}

#[tokio::test]
async fn a_risky_change_waits_for_exactly_its_approval() {
    let kit = kit("approval").await;
    execute(&endpoint(&kit), &["create table public.t (n bigint)"]).await;
    let steps = vec![step("drop", &[], sql(&["drop table public.t"]))];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "resuming changes nothing");
    assert!(kit.messages.0.lock().unwrap()[0].contains("waits for an approval"));
    let engine = kit.engine();
    let other = lakeops::kernel::Digest::of_bytes(b"other");
    let wrong = engine
        .decide_approval((&run, None), Some(&other), Decision::Approved, (&me(), "yes"))
        .await;
    assert!(wrong.unwrap_err().to_string().contains("not those that you saw"));
    kit.decide(&run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    let gone = value::<bool>(&endpoint(&kit), "select to_regclass('public.t') is null").await;
    assert!(gone);
}

#[tokio::test]
async fn a_rejection_ends_the_run_without_a_change() {
    let kit = kit("rejection").await;
    execute(&endpoint(&kit), &["create table public.t (n bigint)"]).await;
    let (run, _) = kit.run(&plan(vec![step("drop", &[], sql(&["drop table public.t"]))])).await;
    kit.decide(&run, Decision::Rejected).await;
    assert_eq!(kit.execute(&run).await, Outcome::Failed);
    assert_eq!(kit.ended(&run, "drop").await.1, "approval::rejected");
    assert!(value::<bool>(&endpoint(&kit), "select to_regclass('public.t') is not null").await);
}

#[tokio::test]
async fn a_gate_binds_the_sets_that_it_covers() {
    let kit = kit("gate").await;
    let gate = Action::Approval(ApprovalGate {
        prompt: "Go?".to_owned(),
        show: Vec::new(),
        covers: vec!["make".to_owned()],
        expires: Span::from_secs(3600),
        on_reject: OnReject::Stop,
        rehearsed_within: None,
    });
    let steps =
        vec![step("ok", &[], gate), step("make", &["ok"], sql(&["create table public.t ()"]))];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let loaded = kit.engine().load(&run).await.unwrap();
    assert_eq!(loaded.state.approvals[0].request.covers, ["make"]);
    kit.decide(&run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.output(&run, "ok").await["approved_by"], "ann");
}

#[tokio::test]
async fn a_failed_verification_undoes_what_it_verifies() {
    let kit = kit("compensate").await;
    let change = json!({ "statements": [
        { "sql": "create table public.t (n bigint)", "undo": "drop table public.t" },
        { "sql": "create table public.u (n bigint)", "undo": "drop table public.u" },
    ] });
    let verify = Action::Verify(Verify {
        call: ToolCall { tool: "monitor_connections".to_owned(), with: json!({}) },
        assert: vec!["result.total < 0".to_owned()],
        every: Span::parse("50ms").unwrap(),
        within: Span::parse("200ms").unwrap(),
        on_fail: OnVerifyFail::Compensate,
    });
    let steps =
        vec![step("change", &[], tool("execute_sql", change)), step("verify", &["change"], verify)];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "verify").await.1, "engine::not_verified");
    let loaded = kit.engine().load(&run).await.unwrap();
    let complete = lakeops::journal::event::Compensation::Complete;
    assert_eq!(loaded.state.finished, Some((Outcome::Failed, complete)));
    let gone = "select to_regclass('public.t') is null and to_regclass('public.u') is null";
    assert!(value::<bool>(&endpoint(&kit), gone).await);
}

#[tokio::test]
async fn a_failure_runs_the_handlers_and_skips_the_rest() {
    let kit = kit("handlers").await;
    let steps = vec![
        step("bad", &[], sql(&["select 1/0"])),
        step("next", &["bad"], sql(&["create table public.t ()"])),
    ];
    let plan = plan_with(steps, &[], |body| {
        body.on_failure = vec![step(
            "on_failure_1",
            &[],
            tool(
                "publish_event",
                json!({
                    "event": "it_failed", "payload": { "why": "${{ run.failure.code }}" }
                }),
            ),
        )];
        body.always =
            vec![step("always_1", &[], tool("publish_event", json!({ "event": "over" })))];
    });
    let (run, outcome) = kit.run(&plan).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "next").await.0, "skipped");
    let filter = lakeops::journal::store::EntryFilter {
        kinds: vec!["event_published".to_owned()],
        ..Default::default()
    };
    let events = kit.journal.entries(filter).await.unwrap();
    assert_eq!(events.len(), 2, "both handlers ran");
}

#[tokio::test]
async fn waits_are_durable_and_timers_run_out() {
    let kit = kit("waits").await;
    let timer = Action::Wait(Wait::Timer { duration: json!("100ms") });
    let condition = Action::Wait(Wait::Condition {
        call: ToolCall { tool: "monitor_connections".to_owned(), with: json!({}) },
        holds: "result.total >= 0".to_owned(),
        every: Span::parse("50ms").unwrap(),
        within: Span::from_secs(120),
    });
    let never = Action::Wait(Wait::Event {
        event: "never".to_owned(),
        when: None,
        within: Span::parse("100ms").unwrap(),
    });
    let mut never = step("never", &["condition"], never);
    never.allow_failure = true;
    let steps = vec![step("timer", &[], timer), step("condition", &["timer"], condition), never];
    let (run, outcome) = kit.run(&plan(steps)).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(kit.ended(&run, "never").await.1, "engine::wait_timeout");
}

#[tokio::test]
async fn a_database_that_comes_back_lets_the_run_finish() {
    let good = postgres().await.fresh_database("flap").await;
    let mut kit = Kit::new(good.clone());
    kit.change_settings(|settings| settings.limits.lock_timeout = Span::from_secs(60));
    execute(&good, &["create table public.t (n bigint)"]).await;
    // The change waits behind a lock, and its session is ended while it waits.
    let mut holder = crate::harness::connect(&good).await;
    let lock = "begin; lock table public.t in share mode";
    sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
    let change = step("change", &[], sql(&["insert into public.t values (1)"]));
    let run = kit.start(&plan(vec![change])).await;
    let end = async {
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where datname = current_database() and wait_event_type = 'Lock'";
        while value::<i64>(&good, ended).await == 0 {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(kit.execute(&run), end);
    assert_eq!(outcome, Outcome::Succeeded, "{:?}", kit.ended(&run, "change").await);
    assert_eq!(value::<i64>(&good, "select count(*) from public.t").await, 1);
    let loaded = kit.engine().load(&run).await.unwrap();
    let again = |entry: &lakeops::journal::Entry| entry.event.kind() == "change_not_applied";
    assert!(loaded.entries.iter().any(again), "the first try was lost");
}

#[tokio::test]
async fn a_preview_carries_nothing_out_and_its_plan_goes_stale() {
    let kit = kit("preview").await;
    execute(&endpoint(&kit), &["create table public.t (n bigint)"]).await;
    let verify = Action::Verify(Verify {
        call: ToolCall { tool: "monitor_connections".to_owned(), with: json!({}) },
        assert: vec!["result.total < 0".to_owned()],
        every: Span::from_secs(1),
        within: Span::from_secs(5),
        on_fail: OnVerifyFail::Stop,
    });
    let steps = vec![
        step("vacuum", &[], tool("schedule_vacuum_analyze", json!({ "tables": ["public.t"] }))),
        step("drop", &["vacuum"], sql(&["drop table public.t"])),
        step("verify", &["drop"], verify),
    ];
    let plan = plan(steps);
    let scratch = Kit::new(endpoint(&kit)).journal;
    let observer = std::sync::Arc::new(lakeops::engine::parts::Unobserved);
    let previewed = kit.engine().preview(&plan, scratch, observer).await.unwrap();
    let outcome = previewed.state.finished.unwrap().0;
    assert_eq!(outcome, Outcome::Succeeded);
    let proposed = previewed.entries.iter().filter(|e| e.event.kind() == "changes_proposed");
    assert_eq!(proposed.count(), 2);
    assert!(value::<bool>(&endpoint(&kit), "select to_regclass('public.t') is not null").await);
    let pinned = kit.engine().pin(&plan, &previewed.state).await.unwrap();
    assert_ne!(pinned.id, plan.id);
    let (fresh, _) = kit.run(&pinned).await;
    assert_eq!(kit.ended(&fresh, "vacuum").await.0, "succeeded", "nothing had moved");
    execute(&endpoint(&kit), &["alter table public.t add column m bigint"]).await;
    let (stale, outcome) = kit.run(&pinned).await;
    assert_eq!(outcome, Outcome::Failed);
    let loaded = kit.engine().load(&stale).await.unwrap();
    let failure = loaded.state.ending.unwrap().failure.unwrap();
    assert_eq!(failure.code, "plan::stale");
    assert!(failure.message.contains("relation public.t"), "{}", failure.message);
}

#[tokio::test]
async fn a_fork_takes_over_what_does_not_follow_from_its_step() {
    let kit = kit("fork").await;
    execute(&endpoint(&kit), &["create table public.t (n bigint)"]).await;
    let steps = vec![
        step("first", &[], sql(&["insert into public.t values (1)"])),
        step("second", &["first"], sql(&["insert into public.t values (2)"])),
        step("third", &["second"], sql(&["insert into public.t values (3)"])),
    ];
    let (run, _) = kit.run(&plan(steps)).await;
    let options =
        lakeops::engine::StartOptions { key: None, by: me(), yes: false, forked_from: None };
    let fork = kit.engine().fork(&run, "second", options.clone()).await.unwrap();
    assert_eq!(kit.execute(&fork).await, Outcome::Succeeded);
    let rows = "select string_agg(n::text, ',' order by n) from public.t";
    assert_eq!(value::<String>(&endpoint(&kit), rows).await, "1,2,2,3,3");
    assert!(kit.engine().fork(&run, "fourth", options).await.is_err());
}

#[tokio::test]
async fn a_tool_goes_on_from_what_it_found_before() {
    let (kit, clock) = Kit::with_clock(postgres().await.fresh_database("facts").await);
    let setup = [
        "create table public.t (n bigint)",
        "insert into public.t select generate_series(1, 1000)",
        "create index t_n on public.t (n)",
    ];
    execute(&endpoint(&kit), &setup).await;
    let look = || tool("detect_unused_indexes", json!({ "min_size": "8KiB" }));
    let plan = plan(vec![step("look", &[], look())]);
    let (first, _) = kit.run(&plan).await;
    assert_eq!(kit.output(&first, "look").await["unused"], 0, "one look says nothing");
    clock.turn(std::time::Duration::from_hours(24 * 8));
    let (second, _) = kit.run(&plan).await;
    let found = kit.output(&second, "look").await;
    assert_eq!((&found["unused"], &found["findings"][0]["quiet_days"]), (&json!(1), &json!(8.0)));
    // The same server under another name is another place: nobody knows whether it is the same.
    let elsewhere = plan_with(vec![step("look", &[], look())], &[], |body| {
        body.target.branch = Some("other".to_owned());
    });
    let (third, _) = kit.run(&elsewhere).await;
    assert_eq!(kit.output(&third, "look").await["unused"], 0);
}
