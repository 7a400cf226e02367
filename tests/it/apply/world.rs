//! All that an applier is given, ready to be changed by a test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::config::Settings;
use lakeops::engine::apply::{
    Applied, Appliers, ApplyContext, ChangeKey, Notes, NotificationApplier, Recovered,
    SecretSource, setup_changes,
};
use lakeops::engine::{Sessions, SessionsOf};
use lakeops::kernel::{
    BoxFuture, Change, Digest, Direction, Failure, KillPoints, Operation, Receipt, Recovery,
    RetryClass, RunId, Secret, SystemClock, Target,
};
use lakeops::lakebase::Workspace;
use lakeops::postgres::{PgEndpoint, ServerFacts};
use serde_json::Value;

use crate::harness::{execute, postgres};

/// One change, and where it is carried out.
pub(super) struct World {
    pub(super) endpoint: Option<PgEndpoint>,
    pub(super) key: ChangeKey,
    pub(super) change: Change,
    pub(super) settings: Settings,
    pub(super) throw_away: bool,
    pub(super) expected: Option<ServerFacts>,
    pub(super) kill: Box<dyn KillPoints>,
    pub(super) appliers: Appliers,
    pub(super) lines: Mutex<Vec<String>>,
    pub(super) timeout: Duration,
    pub(super) workspace: Option<Arc<dyn Workspace>>,
    pub(super) notes: Kept,
    pub(super) sessions: Option<Sessions>,
    target: Target,
}

/// Notes that a test reads and writes.
#[derive(Default)]
pub(super) struct Kept(pub(super) Mutex<Option<String>>);

impl Notes for Kept {
    fn note<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        *self.0.lock().unwrap() = Some(text.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn last(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Knows one secret: `TOKEN`.
struct OneSecret;

impl SecretSource for OneSecret {
    fn secret(&self, name: &str) -> Option<Secret<String>> {
        (name == "TOKEN").then(|| Secret::new("sesame-open".to_owned()))
    }
}

/// Reaches every boundary unharmed.
struct Safe;

impl KillPoints for Safe {
    fn reach(&self, _boundary: &str) {}
}

/// Does something at the boundaries of one phase.
pub(super) struct At<F>(pub(super) &'static str, pub(super) F);

impl<F: Fn() + Send + Sync> KillPoints for At<F> {
    fn reach(&self, boundary: &str) {
        if boundary.ends_with(self.0) {
            (self.1)();
        }
    }
}

impl World {
    pub(super) fn new(endpoint: Option<PgEndpoint>, operation: Operation) -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let mut settings = Settings::default();
        // A busy machine is no reason to give up behind a rival, or behind one's own last statement.
        settings.limits.lock_timeout = lakeops::kernel::Span(Duration::from_mins(1));
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let key = ChangeKey {
            run: RunId::new("00000000000000aa"),
            step: "heal[a]".into(),
            set: Digest::of_bytes(&number.to_be_bytes()),
            index: 0,
            direction: Direction::Do,
        };
        Self {
            endpoint,
            key,
            change: Change::new("public.t", "a test", operation),
            settings,
            throw_away: false,
            expected: None,
            kill: Box::new(Safe),
            appliers: Appliers::new(NotificationApplier::default()),
            lines: Mutex::default(),
            timeout: Duration::from_secs(30),
            workspace: None,
            notes: Kept::default(),
            sessions: None,
            target: Target::default(),
        }
    }

    /// A change inside a transaction, in a fresh database with the table of keys and a table `t (a)`.
    pub(super) async fn transactional(hint: &str, text: &str) -> Self {
        let endpoint = postgres().await.fresh_database(hint).await;
        set_up(&endpoint).await;
        execute(&endpoint, &["create table t (a int primary key, b int)"]).await;
        let mut world = Self::new(Some(endpoint), Operation::sql(text, Vec::new()));
        world.change.recovery = Recovery::Transactional;
        world
    }

    /// A change outside a transaction, in a fresh database with a filled table `t (a, b)`.
    pub(super) async fn outside(hint: &str, text: &str, recovery: Recovery) -> Self {
        let endpoint = postgres().await.fresh_database(hint).await;
        execute(
            &endpoint,
            &[
                "create table t (a int primary key, b int)",
                "insert into t select n, n / 2 from generate_series(1, 1000) as n",
            ],
        )
        .await;
        let mut world = Self::new(Some(endpoint), Operation::sql_outside_transaction(text));
        world.change.recovery = recovery;
        world
    }

    pub(super) fn endpoint(&self) -> &PgEndpoint {
        self.endpoint.as_ref().unwrap()
    }

    pub(super) async fn apply(&self) -> Result<Applied, Failure> {
        self.with(async |cx| {
            let applier = self.appliers.of(cx.operation);
            applier.prepare(cx).await;
            applier.apply(cx).await
        })
        .await
    }

    pub(super) async fn fingerprint(&self) -> Value {
        self.with(async |cx| self.appliers.of(cx.operation).fingerprint(cx).await).await.unwrap()
    }

    pub(super) async fn recover(&self, fingerprint: &Value) -> Result<Recovered, Failure> {
        self.with(async |cx| self.appliers.of(cx.operation).recover(cx, fingerprint).await).await
    }

    /// The receipt of a change that must succeed.
    pub(super) async fn done(&self) -> Receipt {
        match self.apply().await {
            Ok(Applied::Done(receipt)) => receipt,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Has the change's session killed at a phase, of which the failure is of a class, or none; whether it
    /// happened is found, and doing it again does it once.
    pub(super) async fn done_though_killed(
        &mut self,
        phase: &'static str,
        class: Option<RetryClass>,
    ) {
        let (endpoint, key) = (self.endpoint().clone(), self.key.clone());
        self.kill = Box::new(At(phase, move || terminate(&endpoint, &key)));
        let ended = self.apply().await;
        assert_eq!(ended.as_ref().err().map(|failure| failure.class), class, "{phase}: {ended:?}");
        let found = self.recover(&Value::Null).await.unwrap();
        let is_found = matches!(found, Recovered::Applied(_));
        assert_eq!(is_found, class.is_none(), "{phase}: {found:?}");
        self.kill = Box::new(At("no phase", || ()));
        assert_eq!(self.done().await.recovered, class.is_none(), "{phase}");
    }

    /// The failure of a change that must fail.
    pub(super) async fn refused(&self) -> Failure {
        self.apply().await.unwrap_err()
    }

    async fn with<R>(&self, work: impl AsyncFnOnce(&ApplyContext<'_>) -> R) -> R {
        let progress = |line| self.lines.lock().unwrap().push(line);
        let cx = ApplyContext {
            key: &self.key,
            change: &self.change,
            operation: &self.change.operation,
            recovery: self.change.recovery,
            endpoint: self.endpoint.as_ref(),
            throw_away: self.throw_away,
            expected: self.expected.as_ref(),
            settings: &self.settings,
            step_timeout: self.timeout,
            secrets: &OneSecret,
            clock: &SystemClock,
            kill: &*self.kill,
            workspace: self.workspace.as_deref(),
            history: None,
            notes: &self.notes,
            sessions: self.sessions.as_ref().map(|run| SessionsOf { run, target: &self.target }),
            witness: None,
            progress: &progress,
        };
        work(&cx).await
    }
}

/// Carries out what the engine itself needs.
pub(super) async fn set_up(endpoint: &PgEndpoint) {
    for change in setup_changes() {
        let mut world = World::new(Some(endpoint.clone()), change.operation.clone());
        world.change = change;
        world.done().await;
    }
}

/// Runs statements on a thread of its own: kill points are not asynchronous.
pub(super) fn execute_now(endpoint: &PgEndpoint, statement: String) {
    let endpoint = endpoint.clone();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(execute(&endpoint, &[&statement]));
    };
    std::thread::spawn(run).join().unwrap();
}

/// Ends every session that carries out the change of this key.
pub(super) fn terminate(endpoint: &PgEndpoint, key: &ChangeKey) {
    let name = key.application_name();
    execute_now(
        endpoint,
        format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
             where application_name = '{name}'"
        ),
    );
}
