//! Workflows in workflows, order, and what failures and skips mean for it.

use lakeops::journal::Outcome;
use lakeops::journal::store::EntryFilter;
use lakeops::kernel::{Clock as _, Span, SystemClock};
use lakeops::plan::document::{
    Action, ForEach, OnVerifyFail, PinnedText, RunIf, ToolCall, Verify, Wait,
};
use serde_json::{Value, json};

use super::kit::{Kit, embed, embedded, plan, plan_with, sql, step, tool};
use super::props;
use crate::harness::{execute, postgres, value};

async fn kit(name: &str) -> Kit {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    Kit::new(endpoint)
}

async fn rows(kit: &Kit) -> String {
    let text = "select coalesce(string_agg(n::text, ',' order by n), '') from public.t";
    value(&kit.endpoint(), text).await
}

fn insert(n: impl Into<Value>) -> Action {
    let n: Value = n.into();
    let statement = json!({ "sql": "insert into public.t values ($1)", "binds": [n] });
    tool("execute_sql", json!({ "statements": [statement] }))
}

fn script(path: &str, with: Value) -> Action {
    Action::Script { script: path.to_owned(), with }
}

#[tokio::test]
async fn a_child_has_keys_parameters_and_outputs_of_its_own() {
    let kit = kit("child").await;
    let mut child = embedded(vec![
        step("double", &[], script("double", json!({ "n": "${{ params.n }}" }))),
        step("write", &["double"], insert("${{ steps.double.n }}")),
    ]);
    child.params = json!({ "n": "${{ item }}" });
    child.outputs.insert("n".to_owned(), "steps.double.n".to_owned());
    let mut fan = step("fan", &[], Action::Workflow(Box::new(child)));
    fan.for_each = Some(ForEach {
        items: json!([1, 2, 3]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 2,
        fail_fast: true,
    });
    let sum = step("sum", &["fan"], script("sum", json!({ "all": "${{ steps.fan }}" })));
    let scripts = [
        ("double", "#{ n: n * 2 }"),
        ("sum", "let s = 0; for one in all { s += one.n; } #{ sum: s }"),
    ];
    let (run, outcome) = kit.run(&plan_with(vec![fan, sum], &scripts, |_| ())).await;
    assert_eq!(outcome, Outcome::Succeeded, "{:?}", kit.ended(&run, "fan").await);
    assert_eq!(kit.output(&run, "fan[k2]/double").await, json!({ "n": 4 }));
    assert_eq!(kit.output(&run, "sum").await, json!({ "sum": 12 }));
    assert_eq!(rows(&kit).await, "2,4,6");
}

#[tokio::test]
async fn no_more_children_are_at_work_than_allowed() {
    let kit = kit("parallel").await;
    let nap = Action::Wait(Wait::Timer { duration: json!("60ms") });
    let mut fan = step("fan", &[], embed(vec![step("nap", &[], nap)]));
    fan.for_each = Some(ForEach {
        items: json!([1, 2, 3, 4, 5, 6]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 2,
        fail_fast: true,
    });
    let (run, outcome) = kit.run(&plan(vec![fan])).await;
    assert_eq!(outcome, Outcome::Succeeded);
    let (mut open, mut most) = (0, 0);
    for entry in kit.engine().load(&run).await.unwrap().entries {
        let step = entry.event.step().unwrap_or_default().to_owned();
        match entry.event.kind() {
            "scope_opened" => open += 1,
            "step_succeeded" if step.ends_with(']') => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    assert_eq!(most, 2);
}

#[tokio::test]
async fn the_failure_of_a_child_is_the_failure_of_its_step() {
    let kit = kit("child_fails").await;
    let inner =
        || embed(vec![step("bad", &[], sql(&["select 1/0"])), step("next", &["bad"], insert(1))]);
    let after = step("after", &["child"], insert(2));
    let (run, outcome) = kit.run(&plan(vec![step("child", &[], inner()), after.clone()])).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "child").await.1, "engine::child_failed");
    assert_eq!(kit.ended(&run, "child/next").await.0, "skipped");
    assert_eq!(kit.ended(&run, "after").await.0, "skipped");
    let mut allowed = step("child", &[], inner());
    allowed.allow_failure = true;
    let (run, outcome) = kit.run(&plan(vec![allowed, after])).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(kit.ended(&run, "child").await.0, "failed");
    assert_eq!(rows(&kit).await, "2");
}

#[tokio::test]
async fn skips_pass_on_and_always_ends_them() {
    let kit = kit("skips").await;
    let mut no = step("no", &[], insert(1));
    no.when = Some("false".to_owned());
    let child = step("child", &["no"], embed(vec![step("inner", &[], insert(2))]));
    let mut always = step("always", &["child"], insert(3));
    always.run_if = RunIf::Always;
    // Not all that it needs was skipped.
    let mixed = step("mixed", &["child", "always"], insert(4));
    let (run, outcome) = kit.run(&plan(vec![no, child, always, mixed])).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(kit.ended(&run, "child").await.0, "skipped");
    assert_eq!(rows(&kit).await, "3,4");
}

#[tokio::test]
async fn the_first_failed_item_keeps_further_ones_from_starting() {
    let kit = kit("fail_fast").await;
    for (fail_fast, expected) in [(true, "1"), (false, "1,3,4")] {
        execute(&kit.endpoint(), &["truncate public.t"]).await;
        let divide = json!({
            "sql": "insert into public.t select $1::bigint + 0 / ($1::bigint - 2)",
            "binds": ["${{ item }}"]
        });
        let mut fan = step("fan", &[], tool("execute_sql", json!({ "statements": [divide] })));
        fan.for_each = Some(ForEach {
            items: json!([1, 2, 3, 4]),
            key: "k${{ item }}".to_owned(),
            max_parallel: 1,
            fail_fast,
        });
        let (run, outcome) = kit.run(&plan(vec![fan])).await;
        assert_eq!(outcome, Outcome::Failed);
        assert_eq!(kit.ended(&run, "fan").await.1, "engine::items_failed");
        assert_eq!(rows(&kit).await, expected);
    }
}

#[tokio::test]
async fn a_verification_looks_until_it_holds() {
    let mut kit = kit("verify").await;
    kit.parts.catalog = props::catalog();
    let verify = Action::Verify(Verify {
        call: ToolCall { tool: "tally".to_owned(), with: json!({}) },
        assert: vec!["result.count >= 1".to_owned(), "result.count < params.most".to_owned()],
        every: Span::parse("10ms").unwrap(),
        within: Span::from_secs(60),
        on_fail: OnVerifyFail::Stop,
    });
    let plan = plan_with(vec![step("verify", &[], verify)], &[], |body| {
        body.params.insert("most".to_owned(), json!(5));
    });
    let run = kit.start(&plan).await;
    let (_, work) = kit.spawn(&run);
    kit.until(&run, "wait_polled").await;
    execute(&kit.endpoint(), &["insert into public.t values (1)"]).await;
    assert_eq!(work.await.unwrap(), Outcome::Succeeded);
    let output = kit.output(&run, "verify").await;
    assert_eq!(output["result"]["count"], 1);
    assert_eq!(output["assertions"][1]["holds"], true);
}

#[tokio::test]
async fn an_event_of_another_run_wakes_the_one_that_waits() {
    let kit = kit("event").await;
    let wait = Action::Wait(Wait::Event {
        event: "ready".to_owned(),
        when: Some("event.n == 2".to_owned()),
        within: Span::from_secs(60),
    });
    let waits = plan(vec![step("wait", &[], wait), step("after", &["wait"], insert(1))]);
    let says = |n: u32| {
        let event = json!({ "event": "ready", "payload": { "n": n } });
        plan(vec![step("say", &[], tool("publish_event", event))])
    };
    assert_eq!(kit.run(&says(2)).await.1, Outcome::Succeeded);
    SystemClock.sleep_until(SystemClock.now().plus(std::time::Duration::from_millis(5))).await;
    let run = kit.start(&waits).await;
    let (interrupt, work) = kit.spawn(&run);
    kit.until(&run, "wait_polled").await;
    assert_eq!(kit.run(&says(1)).await.1, Outcome::Succeeded);
    // The event comes while nobody works on the run that waits for it.
    interrupt.cancel();
    assert_eq!(work.await.unwrap(), Outcome::Waiting, "neither an earlier nor another event");
    assert_eq!(kit.run(&says(2)).await.1, Outcome::Succeeded);
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.output(&run, "wait").await["event"]["n"], 2);
    let filter = EntryFilter { kinds: vec!["event_published".to_owned()], ..Default::default() };
    assert_eq!(kit.journal.entries(filter).await.unwrap().len(), 3);
    assert_eq!(rows(&kit).await, "1");
}

#[tokio::test]
async fn tries_are_counted_and_spaced() {
    let kit = kit("tries").await;
    let look = Action::Sql { sql: "look".to_owned(), with: Vec::new() };
    let mut look = step("look", &[], look);
    look.timeout = Span::parse("50ms").unwrap();
    look.retry.backoff.initial = Span::parse("20ms").unwrap();
    let plan = plan_with(vec![look], &[], |body| {
        body.sql.insert("look".to_owned(), PinnedText::new("select pg_sleep(20)::text as x"));
    });
    let (run, outcome) = kit.run(&plan).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.ended(&run, "look").await.1, "engine::timeout");
    assert_eq!(kit.count(&run, "attempt_failed").await, 3, "all tries, the first one included");
    assert_eq!(kit.state(&run).await.nodes[0].attempts, 3);
    let bad = step("bad", &[], sql(&["select 1/0"]));
    let (run, _) = kit.run(&super::kit::plan(vec![bad])).await;
    assert_eq!(kit.count(&run, "attempt_failed").await, 1, "what is permanent is not retried");
}
