//! The suite that holds for every journal: named checks of what [`Journal`] promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};

use super::event::{Compensation, Decision, Event, Fact, Found, Outcome, Principal, Rows};
use super::store::{
    Append, Durability, Entry, EntryFilter, Expect, Journal, JournalError, RunFilter, Stream,
};
use super::tail::verify_against;
use crate::kernel::{BoxFuture, Clock, Digest, RunId, Target, Timestamp};
use crate::plan::Plan;
use crate::plan::document::{Limits, PlanBody, PlanError};
use crate::tools::tool::HistoryRow;

use Durability::{Buffered, Synced};

/// A clock that stands still until it is turned. It can be turned back.
#[derive(Debug, Default)]
pub struct TurnedClock(AtomicI64);

impl TurnedClock {
    /// Turns the clock to an instant.
    pub fn turn(&self, to: Timestamp) {
        self.0.store(to.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        self.0.fetch_max(at.as_millis(), Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }
}

/// A promise that a journal does not keep.
#[derive(Debug, thiserror::Error)]
#[error("{check}: {what}")]
pub struct Violation {
    /// The check.
    pub check: &'static str,
    /// What it found.
    pub what: Broken,
}

/// How a promise is broken.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The journal failed where it must not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The plan of the check cannot be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Something else came out than what is promised.
    #[error("{0}")]
    Promise(String),
}

type Checked = Result<(), Broken>;

/// What a check works on.
struct Bench {
    journal: Arc<dyn Journal>,
    clock: Arc<TurnedClock>,
}

/// Runs every check, each on a journal of its own that reads the given clock.
pub async fn run_all(make: impl Fn(Arc<dyn Clock>) -> Arc<dyn Journal>) -> Result<(), Violation> {
    type Check = fn(Bench) -> BoxFuture<'static, Checked>;
    let checks: [(&'static str, Check); 20] = [
        ("positions and sequence numbers have no gaps", |b| Box::pin(numbering(b))),
        ("a batch across streams is all or nothing", |b| Box::pin(atomic_batches(b))),
        ("a wrong expectation is a conflict", |b| Box::pin(conflicts(b))),
        ("a claim fences the executor before", |b| Box::pin(claims(b))),
        ("decisions interleave with an executor", |b| Box::pin(interleaving(b))),
        ("decisions are found", |b| Box::pin(decisions(b))),
        ("buffered events keep their order", |b| Box::pin(buffered_order(b))),
        ("a sync shows what it returned", |b| Box::pin(read_your_sync(b))),
        ("a lost buffered append is told", |b| Box::pin(lost_buffered(b))),
        ("journal time never runs backwards", |b| Box::pin(time(b))),
        ("a key starts one run", |b| Box::pin(keys(b))),
        ("a stream has one beginning", |b| Box::pin(one_beginning(b))),
        ("runs are found by a unique prefix", |b| Box::pin(prefixes(b))),
        ("runs are listed and filtered", |b| Box::pin(listing(b))),
        ("locks are first in, first out", |b| Box::pin(locks(b))),
        ("outputs are found by tool and place", |b| Box::pin(facts(b))),
        ("many rows come back, and what the newest look carried", |b| Box::pin(large_parts(b))),
        ("plans are kept", |b| Box::pin(plans(b))),
        ("entries are filtered", |b| Box::pin(filters(b))),
        ("the chain verifies, against a head too", |b| Box::pin(heads(b))),
    ];
    for (check, run) in checks {
        let clock = Arc::new(TurnedClock::default());
        clock.turn(Timestamp::from_millis(1_000));
        let journal = make(Arc::<TurnedClock>::clone(&clock));
        run(Bench { journal, clock }).await.map_err(|what| Violation { check, what })?;
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(Broken::Promise(format!("found {found:?}, expected {expected:?}")))
}

fn is_conflict<T>(result: Result<T, JournalError>) -> Checked {
    match result {
        Err(JournalError::Conflict { .. }) => Ok(()),
        Err(other) => Err(other.into()),
        Ok(_) => Err(Broken::Promise("it was appended".into())),
    }
}

fn somebody() -> Principal {
    Principal { name: "ada".into(), from: "here".into() }
}

fn created(key: Option<&str>) -> Event {
    Event::RunCreated {
        plan: Digest::of_bytes(b"plan"),
        workflow: "sweep".into(),
        target: Target::default(),
        key: key.map(str::to_owned),
        by: somebody(),
        yes: false,
        forked_from: None,
        cause: None,
    }
}

fn claimed() -> Event {
    Event::RunClaimed { by: somebody(), pid: 1 }
}

fn attempt(step: &str) -> Event {
    Event::AttemptStarted { step: step.into(), attempt: 1, arguments: json!({ "n": 0.1 }) }
}

fn approved(step: &str) -> Event {
    Event::ApprovalDecided {
        step: step.into(),
        digest: Digest::of_bytes(b"set"),
        decision: Decision::Approved,
        by: somebody(),
        reason: "it is fine".into(),
    }
}

fn finished() -> Event {
    let outputs = Value::Null;
    Event::RunFinished { outcome: Outcome::Succeeded, compensation: Compensation::None, outputs }
}

fn run(id: &str) -> Stream {
    Stream::Run(RunId::new(id))
}

fn to(stream: &Stream, expect: Expect, events: Vec<Event>) -> Append {
    Append { stream: stream.clone(), expect, events }
}

impl Bench {
    async fn sync(&self, batch: Vec<Append>) -> Result<Vec<Entry>, JournalError> {
        self.journal.append(batch, Synced).await
    }

    async fn buffer(&self, batch: Vec<Append>) -> Result<Vec<Entry>, JournalError> {
        self.journal.append(batch, Buffered).await
    }

    /// A run with the events `run_created` and `run_claimed`.
    async fn begin(&self, id: &str) -> Result<Stream, JournalError> {
        let stream = run(id);
        self.sync(vec![to(&stream, Expect::Last(0), vec![created(None), claimed()])]).await?;
        Ok(stream)
    }

    async fn kinds(&self, stream: &Stream, after: u64) -> Result<Vec<&'static str>, JournalError> {
        let entries = self.journal.read(stream, after).await?;
        Ok(entries.iter().map(|entry| entry.event.kind()).collect())
    }
}

async fn numbering(bench: Bench) -> Checked {
    let (a, b) = (bench.begin("aa").await?, bench.begin("bb").await?);
    let both = vec![
        to(&b, Expect::Last(2), vec![attempt("x")]),
        to(&a, Expect::Last(2), vec![attempt("x"), attempt("y")]),
        to(&b, Expect::Last(3), vec![attempt("y")]),
    ];
    bench.sync(both).await?;
    let all = bench.journal.entries(EntryFilter::default()).await?;
    let positions: Vec<_> = all.iter().map(|entry| entry.position).collect();
    same(&positions, &(1..=8).collect())?;
    for stream in [&a, &b] {
        let seqs = bench.journal.read(stream, 0).await?.iter().map(|entry| entry.seq).collect();
        same::<Vec<_>>(&seqs, &(1..=4).collect())?;
    }
    same(&bench.kinds(&a, 3).await?, &vec!["attempt_started"])
}

async fn atomic_batches(bench: Bench) -> Checked {
    let (a, b) = (bench.begin("aa").await?, bench.begin("bb").await?);
    let before = bench.journal.head().await?;
    let half_wrong = vec![
        to(&a, Expect::Last(2), vec![attempt("x")]),
        to(&b, Expect::Last(7), vec![attempt("x")]),
    ];
    is_conflict(bench.sync(half_wrong).await)?;
    same(&bench.journal.head().await?, &before)?;
    same(&bench.journal.read(&a, 2).await?, &vec![])?;
    bench.sync(vec![to(&a, Expect::Last(2), vec![attempt("x")])]).await?;
    Ok(())
}

async fn conflicts(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    for wrong in [Expect::Last(1), Expect::Last(3), Expect::Claim(1), Expect::Claim(0)] {
        is_conflict(bench.sync(vec![to(&a, wrong, vec![attempt("x")])]).await)?;
    }
    // An expectation is checked although nothing is appended.
    is_conflict(bench.sync(vec![to(&a, Expect::Last(1), vec![])]).await)?;
    bench.sync(vec![to(&a, Expect::Last(2), vec![])]).await?;
    same(&bench.journal.head().await?.position, &2)
}

async fn claims(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("x")])]).await?;
    bench.sync(vec![to(&a, Expect::Last(3), vec![claimed()])]).await?;
    is_conflict(bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("late")])]).await)?;
    bench.sync(vec![to(&a, Expect::Claim(4), vec![attempt("y")])]).await?;
    same(&bench.kinds(&a, 3).await?, &vec!["run_claimed", "attempt_started"])
}

async fn interleaving(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    bench.sync(vec![to(&a, Expect::Last(2), vec![approved("x")])]).await?;
    bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("x")])]).await?;
    is_conflict(bench.sync(vec![to(&a, Expect::Last(2), vec![approved("x")])]).await)?;
    let kinds = vec!["approval_decided", "attempt_started"];
    same(&bench.kinds(&a, 2).await?, &kinds)
}

async fn decisions(bench: Bench) -> Checked {
    let (a, b) = (bench.begin("aa").await?, bench.begin("bb").await?);
    same(&bench.journal.decisions(&a, 0).await?, &vec![])?;
    bench.sync(vec![to(&a, Expect::Last(2), vec![approved("x"), attempt("x")])]).await?;
    bench.sync(vec![to(&b, Expect::Last(2), vec![approved("y")])]).await?;
    let found = bench.journal.decisions(&a, 0).await?;
    same(&found.iter().map(|entry| entry.seq).collect(), &vec![3])?;
    same(&bench.journal.decisions(&a, 3).await?, &vec![])?;
    same(&bench.journal.decisions(&a, 2).await?.len(), &1)?;
    let cancel =
        Event::CancelRequested { by: somebody(), compensate: false, reason: String::new() };
    let undone = Event::Unstuck { by: somebody(), reason: String::new() };
    bench.sync(vec![to(&a, Expect::Last(4), vec![cancel, undone])]).await?;
    same(&bench.journal.decisions(&a, 3).await?.len(), &2)
}

async fn buffered_order(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    for number in 0..100 {
        let returned = bench
            .buffer(vec![to(&a, Expect::Claim(2), vec![attempt(&number.to_string())])])
            .await?;
        same(&returned, &vec![])?;
    }
    bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("100")])]).await?;
    let steps: Vec<_> = bench.journal.read(&a, 2).await?.into_iter().map(step_of).collect();
    same(&steps, &(0..=100).map(|number| number.to_string()).collect())?;
    let mut after = 2;
    for piece in [40, 40, 21, 0] {
        let some = bench.journal.read_some(&a, after, 40).await?;
        same(&some.len(), &piece)?;
        same(&some.first().map_or(after + 1, |entry| entry.seq), &(after + 1))?;
        after = some.last().map_or(after, |entry| entry.seq);
    }
    same(&after, &103)
}

fn step_of(entry: Entry) -> String {
    match entry.event {
        Event::AttemptStarted { step, .. } => step,
        other => other.kind().to_owned(),
    }
}

async fn read_your_sync(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    bench.buffer(vec![to(&a, Expect::Claim(2), vec![attempt("x")])]).await?;
    let written = bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("y")])]).await?;
    same(&bench.journal.read(&a, 3).await?, &written)?;
    same(&bench.kinds(&a, 2).await?.len(), &2)?;
    bench.buffer(vec![to(&a, Expect::Claim(2), vec![attempt("z")])]).await?;
    // An empty batch is a barrier.
    same(&bench.sync(vec![]).await?, &vec![])?;
    same(&bench.kinds(&a, 4).await?.len(), &1)
}

async fn lost_buffered(bench: Bench) -> Checked {
    let (a, b) = (bench.begin("aa").await?, bench.begin("bb").await?);
    bench.buffer(vec![to(&a, Expect::Claim(1), vec![attempt("lost")])]).await?;
    // Other streams have nothing to do with it.
    bench.sync(vec![to(&b, Expect::Claim(2), vec![attempt("x")])]).await?;
    is_conflict(bench.sync(vec![to(&a, Expect::Last(2), vec![approved("x")])]).await)?;
    bench.sync(vec![to(&a, Expect::Last(2), vec![approved("x")])]).await?;
    // Nobody goes on by a claim over the hole.
    is_conflict(bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("after")])]).await)?;
    bench.sync(vec![to(&a, Expect::Last(3), vec![claimed()])]).await?;
    bench.sync(vec![to(&a, Expect::Claim(4), vec![attempt("after")])]).await?;
    let kinds = vec!["approval_decided", "run_claimed", "attempt_started"];
    same(&bench.kinds(&a, 2).await?, &kinds)
}

async fn time(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    let mut times = Vec::new();
    for millis in [5_000, 2_000, i64::MIN, 6_000] {
        bench.clock.turn(Timestamp::from_millis(millis));
        let written = bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("x")])]).await?;
        times.extend(written.iter().map(|entry| entry.at.as_millis()));
    }
    same(&times, &vec![5_000, 5_000, 5_000, 6_000])
}

async fn keys(bench: Bench) -> Checked {
    let (a, b, c) = (run("aa"), run("bb"), run("cc"));
    bench.sync(vec![to(&a, Expect::Last(0), vec![created(Some("nightly"))])]).await?;
    let again = bench.sync(vec![to(&b, Expect::Last(0), vec![created(Some("nightly"))])]).await;
    let known = JournalError::DuplicateKey { key: "nightly".into(), run: RunId::new("aa") };
    same(&again, &Err(known))?;
    same(&bench.journal.read(&b, 0).await?, &vec![])?;
    let both = vec![
        to(&b, Expect::Last(0), vec![created(Some("weekly"))]),
        to(&c, Expect::Last(0), vec![created(Some("weekly"))]),
    ];
    let twice = bench.sync(both).await;
    let known = JournalError::DuplicateKey { key: "weekly".into(), run: RunId::new("bb") };
    same(&twice, &Err(known))?;
    for stream in [&b, &c] {
        bench.sync(vec![to(stream, Expect::Last(0), vec![created(None)])]).await?;
    }
    Ok(())
}

async fn one_beginning(bench: Bench) -> Checked {
    let a = bench.begin("aa").await?;
    is_conflict(bench.sync(vec![to(&a, Expect::Last(2), vec![created(None)])]).await)?;
    is_conflict(bench.sync(vec![to(&a, Expect::Last(0), vec![created(None)])]).await)?;
    let twice = vec![to(&run("bb"), Expect::Last(0), vec![created(None), created(None)])];
    is_conflict(bench.sync(twice).await)
}

async fn prefixes(bench: Bench) -> Checked {
    for id in ["aab1", "aab2", "ab", "ab77", "%"] {
        bench.begin(id).await?;
    }
    let mut found = Vec::new();
    for prefix in ["aab1", "ab", "ab7", "%"] {
        found.push(bench.journal.find_run(prefix).await?.run_id.as_str().to_owned());
    }
    same(&found, &["aab1", "ab", "ab77", "%"].map(str::to_owned).to_vec())?;
    for (prefix, expected) in [("aab", 2), ("a", 4), ("", 5), ("x", 0), ("a_b1", 0)] {
        let missing = bench.journal.find_run(prefix).await;
        let error = JournalError::NoSuchRun { prefix: prefix.to_owned(), found: expected };
        same(&missing, &Err(error))?;
    }
    Ok(())
}

async fn listing(bench: Bench) -> Checked {
    let (a, b) = (bench.begin("aa").await?, bench.begin("bb").await?);
    bench.begin("00").await?;
    bench.clock.turn(Timestamp::from_millis(9_000));
    let wake_at = Some(Timestamp::from_millis(20_000));
    let reason = "a timer".to_owned();
    let parked = Event::RunParked { outcome: Outcome::Waiting, wake_at, reason };
    bench.sync(vec![to(&a, Expect::Claim(2), vec![parked])]).await?;
    bench.sync(vec![to(&b, Expect::Claim(2), vec![finished()])]).await?;
    let ids = async |filter| -> Result<Vec<String>, JournalError> {
        let runs = bench.journal.runs(filter).await?;
        Ok(runs.iter().map(|run| run.run_id.as_str().to_owned()).collect())
    };
    same(&ids(RunFilter::default()).await?, &["00", "bb", "aa"].map(str::to_owned).to_vec())?;
    let unfinished = RunFilter { unfinished: true, ..RunFilter::default() };
    same(&ids(unfinished).await?, &["00", "aa"].map(str::to_owned).to_vec())?;
    let two = RunFilter { limit: Some(2), workflow: Some("sweep".into()), unfinished: false };
    same(&ids(two).await?.len(), &2)?;
    let other = RunFilter { workflow: Some("other".into()), ..RunFilter::default() };
    same(&ids(other).await?, &vec![])?;
    let waiting = bench.journal.find_run("aa").await?;
    same(&(waiting.outcome, waiting.wake_at), &(Outcome::Waiting, wake_at))?;
    same(&(waiting.created_at.as_millis(), waiting.updated_at.as_millis()), &(1_000, 9_000))?;
    bench.sync(vec![to(&a, Expect::Last(3), vec![claimed()])]).await?;
    let again = bench.journal.find_run("aa").await?;
    same(&(again.outcome, again.wake_at), &(Outcome::Running, None))?;
    same(&bench.journal.find_run("bb").await?.outcome, &Outcome::Succeeded)
}

async fn locks(bench: Bench) -> Checked {
    let lock = |name: &str| Event::LockQueued { lock: name.to_owned(), step: None };
    let (a, b) = (bench.begin("bb").await?, bench.begin("aa").await?);
    same(&bench.journal.lock_holder("db").await?, &None)?;
    bench.sync(vec![to(&a, Expect::Claim(2), vec![lock("db"), lock("other")])]).await?;
    bench.sync(vec![to(&b, Expect::Claim(2), vec![lock("db")])]).await?;
    // Queueing again is no second place.
    bench.sync(vec![to(&a, Expect::Claim(2), vec![lock("db")])]).await?;
    same(&bench.journal.lock_holder("db").await?, &Some(RunId::new("bb")))?;
    let released = Event::LockReleased { lock: "db".into(), step: None };
    bench.sync(vec![to(&a, Expect::Claim(2), vec![released])]).await?;
    same(&bench.journal.lock_holder("db").await?, &Some(RunId::new("aa")))?;
    bench.sync(vec![to(&a, Expect::Claim(2), vec![lock("db")])]).await?;
    bench.sync(vec![to(&b, Expect::Claim(2), vec![finished()])]).await?;
    same(&bench.journal.lock_holder("db").await?, &Some(RunId::new("bb")))?;
    bench.sync(vec![to(&a, Expect::Claim(2), vec![finished()])]).await?;
    same(&bench.journal.lock_holder("db").await?, &None)?;
    same(&bench.journal.lock_holder("other").await?, &None)
}

async fn facts(bench: Bench) -> Checked {
    let found = |tool: &str, branch: &str, number: u32| Event::StepSucceeded {
        step: "look".into(),
        output: json!({ "number": number }).into(),
        history: Rows::default(),
        seen: Vec::new(),
        fact: Some(Found::new(on(tool, branch), None)),
    };
    let stream = bench.begin("aa").await?;
    let claim = Expect::Claim(2);
    let events = vec![found("a", "x", 1), found("a", "y", 2), found("b", "x", 3), attempt("s")];
    bench.sync(vec![to(&stream, claim, events)]).await?;
    bench.sync(vec![to(&stream, claim, vec![found("a", "x", 4), found("a", "x", 5)])]).await?;
    let (place, all) = (on("a", "x"), [5, 4, 1].map(|number| json!({ "number": number })));
    same(&bench.journal.facts(&place, 9).await?.as_slice(), &all.as_slice())?;
    same(&bench.journal.facts(&place, 2).await?.as_slice(), &all[..2].as_ref())?;
    same(&bench.journal.facts(&on("b", "y"), 9).await?, &Vec::new())?;
    same(&bench.journal.verify().await?.broken, &None)
}

async fn large_parts(bench: Bench) -> Checked {
    let row = |n: u32| HistoryRow {
        table: "lakebase_metrics".into(),
        row: json!({ "metric_name": "m", "metric_value": n }),
    };
    let found = |number: u32| Event::StepSucceeded {
        step: "look".into(),
        output: json!({ "number": number }).into(),
        history: (0..200).map(row).collect::<Vec<_>>().into(),
        seen: Vec::new(),
        fact: Some(Found::new(on("a", "x"), Some(json!({ "baseline": vec![number; 200] })))),
    };
    let stream = bench.begin("aa").await?;
    let claim = Expect::Claim(2);
    for number in 1..=4 {
        bench.sync(vec![to(&stream, claim, vec![found(number)])]).await?;
    }
    let newest = bench.journal.facts(&on("a", "x"), 1).await?;
    same(&newest, &vec![json!({ "number": 4, "baseline": vec![4; 200] })])?;
    let ended = Event::RunFinished {
        outcome: Outcome::Succeeded,
        compensation: Compensation::None,
        outputs: Value::Null,
    };
    // Whatever may go of a run that is at work does not.
    let head = bench.journal.head().await?.position;
    let later = Timestamp::from_millis(i64::MAX);
    same(&bench.journal.drop_rows(head, later).await?, &0)?;
    bench.sync(vec![to(&stream, claim, vec![ended])]).await?;
    same(&bench.journal.drop_rows(head, later).await?, &0)?;
    let entries = bench.journal.read(&stream, 2).await?;
    let count = entries.len();
    for entry in bench.journal.with_rows(entries).await? {
        if let Event::StepSucceeded { history, .. } = entry.event {
            same(&history.count(), &200)?;
            same(&history.fetched().get(7), &Some(&row(7)))?;
        }
    }
    same(&count, &5)?;
    same(&bench.journal.verify().await?.broken, &None)?;
    // Of a run that was over by then, rows may go: of all four events, or of none where nothing lies apart.
    let head = bench.journal.head().await?.position;
    same(&bench.journal.drop_rows(head, Timestamp::from_millis(0)).await?, &0)?;
    let dropped = bench.journal.drop_rows(head, later).await?;
    same(&[0, 4].contains(&dropped), &true)?;
    same(&bench.journal.drop_rows(head, later).await?, &0)?;
    let left = if dropped == 0 { 200 } else { 0 };
    for entry in bench.journal.with_rows(bench.journal.read(&stream, 2).await?).await? {
        if let Event::StepSucceeded { history, .. } = entry.event {
            // How many there were is part of the event.
            same(&history.count(), &200)?;
            same(&history.fetched().len(), &left)?;
        }
    }
    // What the next look goes on from stays, and so does the chain.
    same(&bench.journal.facts(&on("a", "x"), 1).await?, &newest)?;
    same(&bench.journal.verify().await?.broken, &None)
}

fn on(tool: &str, branch: &str) -> Fact {
    let target = Target { branch: Some(branch.into()), ..Target::default() };
    Fact::of(tool, "local", &target)
}

async fn plans(bench: Bench) -> Checked {
    let plan = sample_plan("sweep")?;
    same(&bench.journal.plan(&plan.id).await?, &None)?;
    bench.journal.put_plan(&plan).await?;
    let later = Plan { created_at: Timestamp::from_millis(99), ..plan.clone() };
    bench.journal.put_plan(&later).await?;
    // The first one stays: equal plans have equal ids.
    same(&bench.journal.plan(&plan.id).await?, &Some(plan))
}

/// The smallest plan of a workflow.
pub fn sample_plan(workflow: &str) -> Result<Plan, PlanError> {
    let body = PlanBody {
        workflow: workflow.to_owned(),
        description: String::new(),
        workflow_digest: Digest::of_bytes(workflow.as_bytes()),
        params: serde_json::Map::new(),
        target: Target::default(),
        connection: "local".into(),
        lock: None,
        limits: Limits::default(),
        steps: Vec::new(),
        on_failure: Vec::new(),
        always: Vec::new(),
        outputs: std::collections::BTreeMap::new(),
        scripts: std::collections::BTreeMap::new(),
        sql: std::collections::BTreeMap::new(),
        tools: std::collections::BTreeMap::new(),
        policy: None,
        secrets: Vec::new(),
        preconditions: Vec::new(),
        replaces: None,
        schedule: Value::Null,
        triggers: Value::Null,
    };
    Plan::seal(body, Timestamp::from_millis(1_000))
}

async fn filters(bench: Bench) -> Checked {
    let (a, _) = (bench.begin("aa").await?, bench.begin("bb").await?);
    bench.clock.turn(Timestamp::from_millis(9_000));
    bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("x"), approved("x")])]).await?;
    let freeze = Event::Override {
        what: "freeze".into(),
        by: somebody(),
        reason: "holiday".into(),
        expires: None,
    };
    bench.sync(vec![to(&Stream::System, Expect::Anything, vec![freeze])]).await?;
    let none = EntryFilter::default;
    let cases = [
        (none(), vec![1, 2, 3, 4, 5, 6, 7]),
        (EntryFilter { stream: Some("aa".into()), ..none() }, vec![1, 2, 5, 6]),
        (EntryFilter { stream: Some("system".into()), ..none() }, vec![7]),
        (EntryFilter { stream: Some("aa".into()), after: 2, limit: Some(1), ..none() }, vec![5]),
        (EntryFilter { kinds: vec!["run_claimed".into()], ..none() }, vec![2, 4]),
        (
            EntryFilter { kinds: vec!["override".into(), "run_created".into()], ..none() },
            vec![1, 3, 7],
        ),
        (EntryFilter { after: 6, ..none() }, vec![7]),
        (EntryFilter { since: Some(Timestamp::from_millis(2_000)), ..none() }, vec![5, 6, 7]),
        (EntryFilter { limit: Some(2), ..none() }, vec![1, 2]),
        (EntryFilter { limit: Some(2), newest: true, ..none() }, vec![6, 7]),
        (
            EntryFilter { stream: Some("aa".into()), limit: Some(2), newest: true, ..none() },
            vec![5, 6],
        ),
        (EntryFilter { kinds: vec!["nonsense".into()], ..none() }, vec![]),
    ];
    for (filter, expected) in cases {
        let found = bench.journal.entries(filter).await?;
        same(&found.iter().map(|entry| entry.position).collect(), &expected)?;
    }
    Ok(())
}

async fn heads(bench: Bench) -> Checked {
    let empty = bench.journal.head().await?;
    same(&empty.position, &0)?;
    same(&verify_against(&*bench.journal, &empty).await?.broken, &None)?;
    let a = bench.begin("aa").await?;
    let early = bench.journal.head().await?;
    bench.sync(vec![to(&a, Expect::Claim(2), vec![attempt("x")])]).await?;
    let found = verify_against(&*bench.journal, &early).await?;
    same(&(found.broken, found.events), &(None, 3))?;
    same(&found.head, &bench.journal.head().await?)?;
    let mut cut = found.head.clone();
    cut.position = 5;
    let broken = verify_against(&*bench.journal, &cut).await?.broken;
    same(&broken.map(|broken| broken.position), &Some(4))?;
    let mut other = early.clone();
    other.hash = found.head.hash;
    let broken = verify_against(&*bench.journal, &other).await?.broken;
    same(&broken.map(|broken| broken.position), &Some(2))?;
    other.journal = "another".into();
    let broken = verify_against(&*bench.journal, &other).await?.broken;
    same(&broken.map(|broken| broken.position), &Some(0))
}
