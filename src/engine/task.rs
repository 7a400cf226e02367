//! One step at work: what its task is given, and what every kind of task does alike.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::looking::journal_failure;
use super::parts::{History, Observer, Parts};
use super::programs::Programs;
use super::recorder::{Gone, Recorder};
use super::rehearsal::Stage;
use super::retry::retry_at;
use super::sessions::Sessions;
use crate::config::Settings;
use crate::journal::event::{Event, Fact, StepKey};
use crate::journal::store::Durability;
use crate::kernel::{BoxFuture, Failure, RunId, Target};
use crate::lakebase::{ReadApi, Workspace};
use crate::plan::{Plan, PlannedStep};
use crate::postgres::{PgEndpoint, PgReader};
use crate::sop::Scope;
use crate::tools::tool::{ErasedTool, HistoryRow, ToolOutput};
use crate::tools::{AnyTool, Places, ReadContext, Rules};

/// A step at work.
pub(super) struct Task {
    pub(super) parts: Parts,
    pub(super) run: RunId,
    pub(super) plan: Arc<Plan>,
    pub(super) key: StepKey,
    pub(super) step: Arc<PlannedStep>,
    pub(super) target: Target,
    pub(super) settings: Arc<Settings>,
    /// How many events caused one another before the run.
    pub(super) depth: u32,
    /// Tries before this one.
    pub(super) attempts: u32,
    /// The arguments with every expression resolved.
    pub(super) arguments: Value,
    pub(super) recorder: Recorder,
    /// The sessions that the run keeps.
    pub(super) sessions: Arc<Sessions>,
    /// No further change is started once it is cancelled.
    pub(super) stop: CancellationToken,
    /// Reads are dropped once it is cancelled.
    pub(super) abort: CancellationToken,
    pub(super) observer: Arc<dyn Observer>,
    /// The scripts of the plan, compiled.
    pub(super) programs: Arc<Programs>,
    /// Whether nothing is carried out: a preview.
    pub(super) preview: bool,
    /// Where changes are tried instead: a rehearsal.
    pub(super) stage: Option<Arc<Stage>>,
}

/// How looking ended.
pub(super) enum Looked<T> {
    /// With a result or a failure.
    Done(Result<T, Failure>),
    /// The run is ending or parking; nothing is recorded.
    Aborted,
}

impl Task {
    /// The number of this try.
    pub(super) const fn attempt(&self) -> u32 {
        self.attempts + 1
    }

    /// The event that begins this try.
    pub(super) fn started(&self) -> Event {
        Event::AttemptStarted {
            step: self.key.clone(),
            attempt: self.attempt(),
            arguments: self.arguments.clone(),
        }
    }

    /// The event that ends this try without success, with the time of the next one.
    pub(super) fn failed(&self, failure: Failure) -> Event {
        let now = (self.parts.clock.now(), self.parts.ids.draw());
        let retry_at = retry_at(&self.step.retry, self.attempt(), &failure, now);
        Event::AttemptFailed { step: self.key.clone(), attempt: self.attempt(), failure, retry_at }
    }

    pub(super) async fn record(
        &self,
        events: Vec<Event>,
        durability: Durability,
    ) -> Result<(), Gone> {
        self.recorder.record(events, durability).await
    }

    /// The endpoint of the step's database.
    pub(super) async fn endpoint(&self, wake: bool) -> Result<PgEndpoint, Failure> {
        self.parts.endpoints.endpoint(&self.plan.body.connection, &self.target, wake).await
    }

    /// Whether the step's database is there to be thrown away.
    pub(super) async fn throw_away(&self) -> Result<bool, Failure> {
        self.parts.endpoints.throw_away(&self.plan.body.connection, &self.target).await
    }

    /// The workspace of the plan's connection, when it has one.
    pub(super) fn workspace(&self) -> Option<Arc<dyn Workspace>> {
        self.parts.endpoints.workspace(&self.plan.body.connection)
    }

    /// A read-only session on the step's database; connects on first use.
    pub(super) fn reader(&self) -> PgReader {
        self.reader_of(&self.target)
    }

    /// Such a session for a proposal: the one of an earlier proposal, when the run has kept it.
    pub(super) async fn proposer(&self) -> PgReader {
        let reader = self.reader();
        match self.sessions.reader(&self.target).await {
            Some((kept, is_proven)) => reader.on(kept, is_proven),
            None => reader,
        }
    }

    /// Keeps the session of a proposal for the next one.
    pub(super) fn keep(&self, reader: PgReader) {
        if let Some(kept) = reader.into_kept() {
            self.sessions.keep_reader(&self.target, kept);
        }
    }

    fn reader_of(&self, target: &Target) -> PgReader {
        let name = format!("lakeops:{}", self.run);
        let (endpoints, target) = (Arc::clone(&self.parts.endpoints), target.clone());
        let (connection, wake) = (self.plan.body.connection.clone(), self.step.wake);
        let find = move || -> BoxFuture<'static, Result<PgEndpoint, Failure>> {
            let (endpoints, target) = (Arc::clone(&endpoints), target.clone());
            let connection = connection.clone();
            Box::pin(async move { endpoints.endpoint(&connection, &target, wake).await })
        };
        PgReader::found_by(find, &self.settings.limits, &name)
    }

    /// Awaits something that only looks: within a time, and as long as nobody aborts.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        look: impl Future<Output = Result<T, Failure>>,
    ) -> Looked<T> {
        let deadline = self.parts.clock.now().plus(limit);
        tokio::select! {
            biased;
            () = self.abort.cancelled() => Looked::Aborted,
            result = look => Looked::Done(result),
            () = self.parts.clock.sleep_until(deadline) => {
                let limit = humantime::format_duration(limit);
                let text = format!("step `{}` took longer than {limit}", self.key);
                Looked::Done(Err(Failure::transient("engine::timeout", text)
                    .with_help("raise `timeout` of the step, or find out what it waits for")))
            }
        }
    }

    /// Runs a read tool.
    pub(super) async fn read(
        &self,
        reader: &PgReader,
        tool: &str,
        arguments: Value,
    ) -> Result<ToolOutput, Failure> {
        let Some(AnyTool::Read(found)) = self.parts.catalog.find(tool) else {
            return Err(unknown_tool(tool));
        };
        let (workspace, earlier) = (self.workspace(), self.earlier(found).await?);
        found.read(&self.context(reader, workspace.as_deref(), &earlier), arguments).await
    }

    /// What the tool found here before, as much as it goes on from.
    pub(super) async fn earlier<T: ErasedTool + ?Sized>(
        &self,
        tool: &T,
    ) -> Result<Vec<Value>, Failure> {
        let Some(fact) = self.fact(tool) else { return Ok(Vec::new()) };
        let found = self.parts.journal.facts(&fact, tool.earlier()).await;
        found.map_err(|error| journal_failure(&error))
    }

    /// The name under which later looks find what the tool finds now.
    pub(super) fn fact<T: ErasedTool + ?Sized>(&self, tool: &T) -> Option<Fact> {
        let name = tool.meta().name;
        let fact = || Fact::of(name, &self.plan.body.connection, &self.target);
        (tool.earlier() > 0).then(fact)
    }

    /// The rows with the target that they are of.
    pub(super) fn located(&self, rows: Vec<HistoryRow>) -> Vec<HistoryRow> {
        rows.into_iter().map(|row| row.of(&self.target)).collect()
    }

    /// The read-only context of a tool.
    pub(super) fn context<'a>(
        &'a self,
        reader: &'a PgReader,
        workspace: Option<&'a dyn Workspace>,
        earlier: &'a [Value],
    ) -> ReadContext<'a> {
        ReadContext {
            earlier,
            rules: self,
            workspace: workspace.map(|workspace| -> &dyn ReadApi { workspace }),
            places: Some(self),
            history: self.parts.history.as_deref().map(History::reader),
            model: self.parts.endpoints.model(),
            ..ReadContext::new(reader, &*self.parts.clock, &self.settings, &self.target)
        }
    }
}

/// A tool judges by the SOPs that the plan pins.
impl Rules for Task {
    fn decide(&self, sop: &str, scope: &Scope) -> Result<Value, Failure> {
        self.programs.script(&self.plan.body, sop, scope).map(|evaluated| evaluated.value)
    }
}

impl Places for Task {
    fn reader_at(&self, target: &Target) -> PgReader {
        self.reader_of(target)
    }

    fn left_alone<'a>(
        &'a self,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        // Whoever asks for this collects, and will come again soon.
        let connection = &self.plan.body.connection;
        self.parts.endpoints.left_alone(connection, target, Duration::ZERO)
    }
}

/// Its sessions are closed by now, or kept by the run, which tells when it closes them.
impl Drop for Task {
    fn drop(&mut self) {
        self.parts.endpoints.used(&self.plan.body.connection, &self.target);
    }
}

/// A tool that this version does not have, or not of the kind that the plan says.
pub(super) fn unknown_tool(tool: &str) -> Failure {
    let text = format!("this version has no tool `{tool}` of the kind that the plan was made for");
    Failure::permanent("plan::unknown_tool", text).with_help("make the plan again")
}
