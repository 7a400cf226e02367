//! An engine on a fresh database, and plans made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use lakeops::config::Settings;
use lakeops::engine::apply::{Appliers, NoSecrets, NotificationApplier};
use lakeops::engine::parts::{Endpoints, Notifier, Observer, Parts, Unobserved};
use lakeops::engine::{Alone, Engine, StartOptions};
use lakeops::journal::event::Decision;
use lakeops::journal::{Journal, MemoryJournal, Outcome, Principal};
use lakeops::kernel::kill::Unarmed;
use lakeops::kernel::{
    Digest, Failure, RandomIds, Redactor, Risk, RunId, Severity, Span, SystemClock, Target,
};
use lakeops::plan::document::{
    Action, ApprovalMode, Backoff, Limits, Need, PinnedText, Retry, RunIf, ToolCall,
};
use lakeops::plan::{Plan, PlanBody, PlannedStep};
use lakeops::postgres::PgEndpoint;
use lakeops::tools::Catalog;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// One database, whatever the target.
pub(super) struct OneDatabase(pub(super) PgEndpoint);

impl Endpoints for OneDatabase {
    fn endpoint(&self, _connection: &str, _target: &Target) -> Result<PgEndpoint, Failure> {
        Ok(self.0.clone())
    }
}

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
}

pub(super) fn me() -> Principal {
    Principal { name: "ann".to_owned(), from: "test".to_owned() }
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
            journal: Arc::clone(&journal),
            ownership: Arc::new(Alone),
            catalog: Catalog::builtin(),
            appliers: Arc::new(Appliers::new(NotificationApplier::default())),
            endpoints: Arc::new(OneDatabase(endpoint)),
            settings: Arc::new(Settings::default()),
            secrets: Arc::new(NoSecrets),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            kill: Arc::new(Unarmed),
            notifier: Arc::<Messages>::clone(&messages),
            principal: me(),
            pid: std::process::id(),
        };
        Self { parts, journal, messages }
    }

    pub(super) fn engine(&self) -> Engine {
        Engine::new(self.parts.clone())
    }

    pub(super) async fn start(&self, plan: &Plan) -> RunId {
        let options = StartOptions { key: None, by: me(), yes: false, forked_from: None };
        self.engine().start(plan, options).await.unwrap()
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
        Value::clone(&node.output)
    }

    /// The state of a step, and why it failed.
    pub(super) async fn ended(&self, run: &RunId, step: &str) -> (String, String) {
        let loaded = self.engine().load(run).await.unwrap();
        let node = &loaded.state.nodes[loaded.state.find(step).unwrap()];
        let code = node.failure.as_ref().map(|failure| failure.code.clone()).unwrap_or_default();
        (node.phase.as_str().to_owned(), code)
    }
}

pub(super) fn step(id: &str, needs: &[&str], action: Action) -> PlannedStep {
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

pub(super) fn tool(name: &str, with: Value) -> Action {
    Action::Tool(ToolCall { tool: name.to_owned(), with })
}

pub(super) fn sql(statements: &[&str]) -> Action {
    tool("execute_sql", json!({ "statements": statements }))
}

pub(super) fn plan(steps: Vec<PlannedStep>) -> Plan {
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
    let now = lakeops::kernel::Timestamp::from_millis(0);
    Plan::seal(body, now).unwrap()
}
