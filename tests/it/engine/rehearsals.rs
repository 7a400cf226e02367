//! Rehearsals: the same changes on a branch, evidence that approvals ask for, and nothing left over.
//!
//! A branch here is a copy of the database by `create database … template`: the engine only sees the
//! change that makes it and the one that removes it.

use std::sync::Arc;
use std::time::Duration;

use lakeops::engine::EngineError;
use lakeops::engine::parts::{Endpoints, Rehearsals, ThrowAway, Unobserved};
use lakeops::journal::Outcome;
use lakeops::journal::event::{Decision, Event};
use lakeops::journal::rehearsal::{Rehearsed, TrialEnd};
use lakeops::kernel::{
    BoxFuture, Change, Failure, Ident, Inverse, Operation, Recovery, RunId, Span, SqlStatement,
    Target,
};
use lakeops::plan::Plan;
use lakeops::plan::document::{Action, ApprovalGate, OnReject};
use lakeops::postgres::PgEndpoint;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, me, plan, somebody, sql, step, tool};
use crate::harness::{execute, postgres, value};

/// A database that is branched by copying it.
#[derive(Clone)]
struct Copied(PgEndpoint);

const PREFIX: &str = "tmp-";

impl Endpoints for Copied {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        let branch = target.branch.as_deref().filter(|branch| branch.starts_with(PREFIX));
        let endpoint = branch.map_or_else(|| self.0.clone(), |name| self.0.with_database(name));
        Box::pin(async { Ok(endpoint) })
    }

    fn throw_away<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        let is_copy = target.branch.as_deref().is_some_and(|branch| branch.starts_with(PREFIX));
        Box::pin(async move { Ok(is_copy) })
    }

    fn rehearsals(&self, _connection: &str) -> Option<Arc<dyn Rehearsals>> {
        Some(Arc::new(self.clone()))
    }
}

impl Rehearsals for Copied {
    fn branch<'a>(
        &'a self,
        target: &'a Target,
        suffix: &'a str,
        _ttl: Span,
    ) -> BoxFuture<'a, Result<ThrowAway, Failure>> {
        let id = format!("{PREFIX}{suffix}");
        let (copy, own) = (Ident::new(&id), Ident::new(self.0.database()));
        let statement = |text: String| Operation::Sql {
            statement: SqlStatement::new(text),
            transactional: false,
        };
        let make = statement(format!("create database {copy} template {own}"));
        let mut change = Change::new(format!("branch {id}"), "to rehearse on", make);
        change.recovery = Recovery::Repeatable;
        change.inverse = Inverse::By {
            operation: statement(format!("drop database if exists {copy} with (force)")),
            recovery: Recovery::Repeatable,
        };
        let target = Target { branch: Some(id.clone()), ..target.clone() };
        Box::pin(async move { Ok(ThrowAway { id, target, change }) })
    }
}

pub(super) async fn copied(hint: &str) -> (Kit, PgEndpoint) {
    let endpoint = postgres().await.fresh_database(hint).await;
    let fill = "insert into public.big select generate_series(1, 2000)";
    execute(&endpoint, &["create table public.big (n bigint)", fill]).await;
    let mut kit = Kit::new(endpoint.clone());
    kit.parts.endpoints = Arc::new(Copied(endpoint.clone()));
    (kit, endpoint)
}

pub(super) async fn rehearse(kit: &Kit, plan: &Plan) -> (RunId, Outcome) {
    let stop = CancellationToken::new();
    kit.engine().rehearse(plan, me(), stop, Arc::new(Unobserved)).await.unwrap()
}

/// What was kept of a step.
async fn kept(kit: &Kit, run: &RunId, wanted: &str) -> Rehearsed {
    let entries = kit.engine().load(run).await.unwrap().entries;
    let found = entries.into_iter().rev().find_map(|entry| match entry.event {
        Event::SetRehearsed { step, rehearsed } if step == wanted => Some(*rehearsed),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing of {wanted}"))
}

async fn copies_left(endpoint: &PgEndpoint, run: &RunId) -> String {
    let text = format!("select count(*)::text from pg_database where datname like 'tmp-%{run}%'");
    said(endpoint, &text).await
}

async fn said(endpoint: &PgEndpoint, query: &str) -> String {
    value(endpoint, query).await
}

#[tokio::test]
async fn changes_are_tried_on_a_copy_and_touch_nothing_else() {
    let (kit, endpoint) = copied("rehearsed").await;
    let full =
        json!({ "statements": [{ "sql": "vacuum full public.big", "transactional": false }] });
    let alert = json!({ "title": "done", "severity": "info" });
    let made =
        sql(&["create table public.made (a int)", "insert into public.made values (1), (2)"]);
    let plan = plan(vec![
        step("make", &[], made),
        step("rewrite", &["make"], tool("execute_sql", full)),
        step("tell", &["rewrite"], tool("send_alert", alert)),
    ]);
    let (run, outcome) = rehearse(&kit, &plan).await;
    assert_eq!(outcome, Outcome::Succeeded, "{:?}", kit.state(&run).await.ending);
    let untouched = "select coalesce(to_regclass('public.made'), to_regclass('lakeops.applied_change'))::text is null";
    assert_eq!(said(&endpoint, &format!("select ({untouched})::text")).await, "true");
    assert_eq!(copies_left(&endpoint, &run).await, "0");

    let make = kept(&kit, &run, "make").await;
    assert!(make.passed());
    let ends: Vec<TrialEnd> = make.changes.iter().map(|trial| trial.ended).collect();
    assert_eq!(ends, [TrialEnd::Applied, TrialEnd::Applied]);
    let receipt = make.changes[1].receipt.as_ref().unwrap();
    assert_eq!((receipt.rows, receipt.duration_ms.is_some()), (Some(2), true));
    let holds = |trial: usize, relation: &str, mode: &str| {
        let locks = &make.changes[trial].locks;
        locks.iter().any(|lock| lock.relation == relation && lock.mode == mode)
    };
    assert!(holds(1, "public.made", "RowExclusiveLock"), "{:?}", make.changes[1].locks);
    let table = &make.schema[0];
    assert_eq!((&table["action"], &table["kind"]), (&json!("added"), &json!("table")), "{table}");
    let rewrite = kept(&kit, &run, "rewrite").await;
    assert!(rewrite.passed() && rewrite.schema == json!([]), "{rewrite:?}");
    assert_eq!(kept(&kit, &run, "tell").await.changes[0].ended, TrialEnd::NotRehearsed);

    // Nothing in the journal can be taken for a change that happened.
    let entries = kit.engine().load(&run).await.unwrap().entries;
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.event.kind()).collect();
    let expected = [
        "run_created",
        "rehearsal_began",
        "run_claimed",
        "branch_wanted",
        "set_rehearsed",
        "set_rehearsed",
        "set_rehearsed",
        "branch_removed",
        "run_finished",
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_change_that_fails_on_the_copy_fails_the_rehearsal() {
    let (kit, endpoint) = copied("rehearsed_failure").await;
    let statements =
        ["create table public.first (a int)", "create table public.big (a int)", "select 1"];
    let (run, outcome) = rehearse(&kit, &plan(vec![step("make", &[], sql(&statements))])).await;
    assert_eq!(outcome, Outcome::Failed);
    let make = kept(&kit, &run, "make").await;
    let ends: Vec<TrialEnd> = make.changes.iter().map(|trial| trial.ended).collect();
    assert_eq!(ends, [TrialEnd::Applied, TrialEnd::Failed, TrialEnd::NotReached]);
    let ending = kit.state(&run).await.ending.unwrap().failure.unwrap();
    assert!(ending.message.contains("already exists"), "{ending}");
    assert_eq!(copies_left(&endpoint, &run).await, "0");
}

#[tokio::test]
async fn an_approval_can_demand_a_rehearsal_that_is_not_too_old() {
    let endpoint = postgres().await.fresh_database("demanded").await;
    let (mut kit, clock) = Kit::with_clock(endpoint.clone());
    kit.parts.endpoints = Arc::new(Copied(endpoint.clone()));
    let gate = Action::Approval(ApprovalGate {
        prompt: "Make it?".to_owned(),
        show: Vec::new(),
        covers: vec!["make".to_owned()],
        expires: Span::parse("30d").unwrap(),
        on_reject: OnReject::Stop,
        rehearsed_within: Some(Span::parse("24h").unwrap()),
    });
    let make = sql(&["create table public.made (a int)"]);
    let plan = plan(vec![step("gate", &[], gate), step("make", &["gate"], make)]);
    let run = kit.start_as(&plan, "ann", true).await;
    assert_eq!(kit.execute(&run).await, Outcome::WaitingApproval, "--yes is no rehearsal");
    let refused = async |part: &str| {
        let (engine, by) = (kit.engine(), somebody("ben"));
        let decided = (&by, "looks good");
        let done = engine.decide_approval((&run, None), None, Decision::Approved, decided).await;
        let Err(EngineError::Refused { why, help, .. }) = done else { panic!("{done:?}") };
        assert!(why.contains(part), "{why}");
        assert!(help.unwrap().contains("--rehearse"));
    };
    refused("were never rehearsed").await;
    assert_eq!(rehearse(&kit, &plan).await.1, Outcome::Succeeded);
    clock.turn(Duration::from_hours(25));
    refused("longer than 1day").await;
    assert_eq!(rehearse(&kit, &plan).await.1, Outcome::Succeeded);
    kit.decide(&run, Decision::Approved).await;
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(said(&endpoint, "select to_regclass('public.made')::text").await, "made");
}

#[tokio::test]
async fn a_rehearsal_whose_process_dies_is_tidied_up_by_the_next() {
    let (kit, endpoint) = copied("rehearsed_dying").await;
    let slow = plan(vec![step("slow", &[], sql(&["select pg_sleep(30)"]))]);
    let (engine, stop) = (kit.engine(), CancellationToken::new());
    let task = tokio::spawn(async move {
        engine.rehearse(&slow, me(), stop, Arc::new(Unobserved)).await.map(drop)
    });
    let sleeps = "select count(*)::text from pg_stat_activity where query like '%pg_sleep(30)%' and datname like 'tmp-%'";
    while said(&endpoint, sleeps).await == "0" {
        assert!(!task.is_finished(), "it ended too early");
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let runs = kit.journal.runs(lakeops::journal::store::RunFilter::default()).await.unwrap();
    let run = &runs[0].run_id;
    assert_eq!(copies_left(&endpoint, run).await, "1");
    assert_eq!(kit.execute(run).await, Outcome::Failed);
    assert_eq!(copies_left(&endpoint, run).await, "0");
    let ending = kit.state(run).await.ending.unwrap().failure.unwrap();
    assert_eq!(ending.code, "rehearsal::interrupted");
}

#[tokio::test]
async fn whoever_cancels_a_rehearsal_ends_it() {
    let (kit, endpoint) = copied("rehearsed_cancelled").await;
    let slow = sql(&["select pg_sleep(2)", "create table public.never (a int)"]);
    let slow = plan(vec![step("slow", &[], slow)]);
    let (engine, stop) = (kit.engine(), CancellationToken::new());
    let task = tokio::spawn(async move {
        engine.rehearse(&slow, me(), stop, Arc::new(Unobserved)).await.unwrap()
    });
    let runs = || kit.journal.runs(lakeops::journal::store::RunFilter::default());
    let run = loop {
        let found = runs().await.unwrap();
        match found.first() {
            Some(one) if kit.count(&one.run_id, "branch_wanted").await > 0 => {
                break one.run_id.clone();
            }
            _ => tokio::task::yield_now().await,
        }
    };
    kit.cancel(&run, false).await;
    assert_eq!(task.await.unwrap(), (run.clone(), Outcome::Cancelled));
    assert_eq!(copies_left(&endpoint, &run).await, "0");
}

#[tokio::test]
async fn a_connection_that_cannot_branch_is_refused() {
    let kit = Kit::new(postgres().await.fresh_database("unbranched").await);
    let plan = plan(vec![step("make", &[], sql(&["create table made (a int)"]))]);
    let (stop, observer) = (CancellationToken::new(), Arc::new(Unobserved));
    let refused = kit.engine().rehearse(&plan, me(), stop, observer).await.unwrap_err();
    assert!(matches!(refused, EngineError::NoRehearsal { .. }), "{refused}");
    let runs = kit.journal.runs(lakeops::journal::store::RunFilter::default()).await.unwrap();
    assert!(runs.is_empty());
}
