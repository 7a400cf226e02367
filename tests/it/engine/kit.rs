//! An engine on a fresh database, and plans made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::config::Settings;
use lakeops::engine::parts::{Notifier, Observer, Parts, Unobserved};
use lakeops::engine::state::RunState;
use lakeops::engine::{Engine, StartOptions};
use lakeops::journal::event::{Compensation, Decision};
use lakeops::journal::faulty::InFront;
use lakeops::journal::store::{Append, Durability, Entry, JournalError};
use lakeops::journal::{Journal, MemoryJournal, Outcome, Principal};
use lakeops::kernel::{
    BoxFuture, Clock, Digest, Redactor, Risk, RunId, Severity, Span, SystemClock, Target, Timestamp,
};
use lakeops::plan::document::{
    Action, ApprovalMode, Backoff, Embedded, Limits, Need, PinnedText, Retry, RunIf, ToolCall,
};
use lakeops::plan::{Plan, PlanBody, PlannedStep};
use lakeops::postgres::PgEndpoint;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::clock::TurnedClock;
use crate::harness::parts::parts;

/// Remembers the titles of messages.
#[derive(Default)]
pub(super) struct Messages(pub(super) Mutex<Vec<String>>);

impl Notifier for Messages {
    fn notify(&self, _severity: Severity, title: &str, _body: &str) {
        self.0.lock().unwrap().push(title.to_owned());
    }
}

/// An engine with a journal in memory.
pub(super) struct Kit {
    pub(super) parts: Parts,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) messages: Arc<Messages>,
    endpoint: PgEndpoint,
}

pub(super) fn me() -> Principal {
    somebody("ann")
}

pub(super) fn somebody(name: &str) -> Principal {
    Principal { name: name.to_owned(), from: "test".to_owned() }
}

impl Kit {
    pub(super) fn new(endpoint: PgEndpoint) -> Self {
        let clock = Arc::new(SystemClock);
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(clock, Redactor::default()));
        Self::on(endpoint, journal)
    }

    pub(super) fn on(endpoint: PgEndpoint, journal: Arc<dyn Journal>) -> Self {
        let messages = Arc::new(Messages::default());
        let parts = Parts {
            notifier: Arc::<Messages>::clone(&messages),
            ..parts(Arc::clone(&journal), Arc::new(endpoint.clone()), me())
        };
        Self { parts, journal, messages, endpoint }
    }

    pub(super) fn engine(&self) -> Engine {
        Engine::new(self.parts.clone())
    }

    pub(super) async fn start(&self, plan: &Plan) -> RunId {
        let options = StartOptions { key: None, by: me(), yes: false, forked_from: None };
        self.engine().start(plan, options).await.unwrap()
    }

    pub(super) async fn start_as(&self, plan: &Plan, by: &str, yes: bool) -> RunId {
        let by = somebody(by);
        let options = StartOptions { key: None, by, yes, forked_from: None };
        self.engine().start(plan, options).await.unwrap()
    }

    /// A kit whose clock the test turns.
    pub(super) fn with_clock(endpoint: PgEndpoint) -> (Self, Arc<TurnedClock>) {
        let clock = Arc::new(TurnedClock::default());
        let (for_journal, for_parts) = (Arc::clone(&clock), Arc::clone(&clock));
        let journal: Arc<dyn Journal> =
            Arc::new(MemoryJournal::new(for_journal, Redactor::default()));
        let mut kit = Self::on(endpoint, journal);
        kit.parts.clock = for_parts;
        (kit, clock)
    }

    /// Works in a task of its own, until it is interrupted or the run rests.
    pub(super) fn spawn(&self, run: &RunId) -> (CancellationToken, JoinHandle<Outcome>) {
        let interrupt = CancellationToken::new();
        let (engine, run, token) = (self.engine(), run.clone(), interrupt.clone());
        let work = async move { engine.execute(&run, token, Arc::new(Unobserved)).await.unwrap() };
        (interrupt, tokio::spawn(work))
    }

    /// Resolves once the journal holds an event of this kind for the run.
    pub(super) async fn until(&self, run: &RunId, kind: &str) {
        while self.count(run, kind).await == 0 {
            SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
        }
    }

    pub(super) async fn state(&self, run: &RunId) -> RunState {
        self.engine().load(run).await.unwrap().state
    }

    /// How many events of a kind the run has.
    pub(super) async fn count(&self, run: &RunId, kind: &str) -> usize {
        let entries = self.engine().load(run).await.unwrap().entries;
        entries.iter().filter(|entry| entry.event.kind() == kind).count()
    }

    pub(super) async fn finished(&self, run: &RunId) -> Option<(Outcome, Compensation)> {
        self.state(run).await.finished
    }

    pub(super) async fn cancel(&self, run: &RunId, compensate: bool) {
        self.engine().cancel(run, compensate, (&me(), "test")).await.unwrap();
    }

    pub(super) fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.parts.settings.settings(&Target::default());
        change(&mut settings);
        self.parts.settings = Arc::new(settings);
    }

    pub(super) fn endpoint(&self) -> PgEndpoint {
        self.endpoint.clone()
    }

    pub(super) async fn execute(&self, run: &RunId) -> Outcome {
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        self.engine().execute(run, CancellationToken::new(), observer).await.unwrap()
    }

    pub(super) async fn run(&self, plan: &Plan) -> (RunId, Outcome) {
        let run = self.start(plan).await;
        let outcome = self.execute(&run).await;
        (run, outcome)
    }

    /// Decides the one approval that waits.
    pub(super) async fn decide(&self, run: &RunId, decision: Decision) {
        let by = me();
        let decided =
            self.engine().decide_approval((run, None), None, decision, (&by, "test")).await;
        decided.unwrap();
    }

    /// The output of a step.
    pub(super) async fn output(&self, run: &RunId, step: &str) -> Value {
        let loaded = self.engine().load(run).await.unwrap();
        let node = &loaded.state.nodes[loaded.state.find(step).unwrap()];
        assert_eq!(node.phase.as_str(), "succeeded", "{step}: {:?}", node.failure);
        node.output.clone().unwrap_or_default().into_value()
    }

    /// The state of a step, and why it failed.
    pub(super) async fn ended(&self, run: &RunId, step: &str) -> (String, String) {
        let loaded = self.engine().load(run).await.unwrap();
        let node = &loaded.state.nodes[loaded.state.find(step).unwrap()];
        let code = node.failure.as_ref().map(|failure| failure.code.clone()).unwrap_or_default();
        (node.phase.as_str().to_owned(), code)
    }
}

pub(crate) fn step(id: &str, needs: &[&str], action: Action) -> PlannedStep {
    PlannedStep {
        id: id.to_owned(),
        needs: needs.iter().map(|s| Need { step: (*s).to_owned(), inferred: false }).collect(),
        when: None,
        run_if: RunIf::Success,
        for_each: None,
        target: None,
        action,
        approval: ApprovalMode::Auto,
        risk: Risk::Low,
        timeout: Span::from_secs(30),
        retry: Retry {
            max_attempts: 3,
            backoff: Backoff { initial: Span::parse("50ms").unwrap(), ..Backoff::default() },
            ..Retry::default()
        },
        allow_failure: false,
        lock: None,
        wake: false,
        compensate: None,
    }
}

pub(crate) fn tool(name: &str, with: Value) -> Action {
    Action::Tool(ToolCall { tool: name.to_owned(), with })
}

/// A workflow of these steps in a workflow.
pub(super) fn embed(steps: Vec<PlannedStep>) -> Action {
    Action::Workflow(Box::new(embedded(steps)))
}

pub(super) fn embedded(steps: Vec<PlannedStep>) -> Embedded {
    Embedded {
        workflow: "child".to_owned(),
        digest: Digest::of_bytes(b""),
        params: json!({}),
        target: None,
        lock: None,
        steps,
        on_failure: Vec::new(),
        always: Vec::new(),
        outputs: BTreeMap::new(),
    }
}

pub(crate) fn sql(statements: &[&str]) -> Action {
    tool("execute_sql", json!({ "statements": statements }))
}

pub(crate) fn plan(steps: Vec<PlannedStep>) -> Plan {
    plan_with(steps, &[], |_| ())
}

pub(super) fn plan_with(
    steps: Vec<PlannedStep>,
    scripts: &[(&str, &str)],
    change: impl FnOnce(&mut PlanBody),
) -> Plan {
    let pinned = scripts.iter().map(|(path, text)| ((*path).to_owned(), PinnedText::new(*text)));
    let tools: BTreeSet<String> = BTreeSet::new();
    let mut body = PlanBody {
        workflow: "test".to_owned(),
        description: String::new(),
        workflow_digest: Digest::of_bytes(b""),
        params: serde_json::Map::new(),
        target: Target::default(),
        connection: "local".to_owned(),
        lock: None,
        limits: Limits::default(),
        steps,
        on_failure: Vec::new(),
        always: Vec::new(),
        outputs: BTreeMap::new(),
        scripts: pinned.collect(),
        sql: BTreeMap::new(),
        tools: tools.into_iter().map(|name| (name, 1)).collect(),
        policy: None,
        secrets: Vec::new(),
        preconditions: Vec::new(),
        replaces: None,
        schedule: Value::Null,
        triggers: Value::Null,
    };
    change(&mut body);
    let now = Timestamp::from_millis(0);
    Plan::seal(body, now).unwrap()
}

/// A journal into which somebody else writes right after a run was claimed and its decisions were read.
pub(super) struct Meddled {
    inner: Arc<dyn Journal>,
    other: Mutex<Option<Append>>,
    claimed: AtomicI64,
}

impl Meddled {
    pub(super) fn after_claim(inner: Arc<dyn Journal>, other: Append) -> Self {
        Self { inner, other: Mutex::new(Some(other)), claimed: AtomicI64::new(0) }
    }
}

impl InFront for Meddled {
    fn behind(&self) -> &dyn Journal {
        self.inner.as_ref()
    }

    fn take(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(async move {
            // The first append is the claim.
            if self.claimed.fetch_add(1, Ordering::SeqCst) == 1 {
                let other = self.other.lock().unwrap().take();
                self.inner.append(other.into_iter().collect(), Durability::Synced).await?;
            }
            self.inner.append(batch, durability).await
        })
    }
}
