//! How fast the engine is on this machine, beside what its disk can do.
//!
//! Every figure is measured in the call that returns it: the disk's own synced writes, the journal's
//! synced commits, and the engine's steps, one after the other in the same minute.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::engine::apply::{Appliers, NoSecrets, NotificationApplier};
use crate::engine::parts::{Endpoints, Notifier, Unobserved};
use crate::engine::{Engine, EngineError, Parts, RunLocks, StartOptions};
use crate::history::HistoryError;
use crate::journal::store::{Append, Durability, Expect};
use crate::journal::{Event, Journal, JournalError, Outcome, Principal, SqliteJournal, Stream};
use crate::kernel::kill::Unarmed;
use crate::kernel::{
    BoxFuture, Clock, Digest, Failure, IdSource, Redactor, Risk, Severity, Span, Target, Timestamp,
};
use crate::plan::document::{
    Action, ApprovalMode, Limits, Need, PinnedText, PlanError, Retry, RunIf,
};
use crate::plan::{Plan, PlanBody, PlannedStep};
use crate::postgres::PgEndpoint;
use crate::tools::Catalog;

/// How long each of the disk's own figures is measured.
const WINDOW: Duration = Duration::from_secs(1);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Steps of the chain.
    pub chain: u32,
    /// Runs at once.
    pub runs: u32,
    /// Steps of each of them.
    pub steps: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self { chain: 1_000, runs: 200, steps: 10 }
    }
}

/// A figure of the engine.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was run.
    pub what: String,
    /// Steps in all.
    pub steps: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Steps each second.
    pub steps_per_second: f64,
    /// Commits of the journal meanwhile.
    pub commits: u64,
}

/// All figures of one call.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// 4 KiB writes each made durable with `fdatasync`, each second.
    pub disk_synced_writes_per_second: f64,
    /// Events each committed alone (WAL, `synchronous=FULL`), each second.
    pub journal_synced_commits_per_second: f64,
    /// The engine.
    pub figures: Vec<Figure>,
    /// Whether the program was built without optimisation: its figures then say little.
    pub debug_build: bool,
}

/// A figure that could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The disk failed.
    #[error("the disk could not be measured in {place}")]
    Disk {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The journal failed.
    #[error("the journal could not be measured")]
    Journal(#[from] JournalError),
    /// The engine failed.
    #[error("the engine could not be measured")]
    Engine(#[from] EngineError),
    /// The plan could not be made.
    #[error("the plan could not be made")]
    Plan(#[from] PlanError),
    /// A run did not succeed.
    #[error("a run ended {}", .0.as_str())]
    Ended(Outcome),
    /// A run was lost.
    #[error("a run was lost: {0}")]
    Lost(String),
    /// The server of the benchmark failed.
    #[error("the benchmark's server failed: {0}")]
    Server(#[from] sqlx::Error),
    /// The history failed.
    #[error("the history could not be measured: {0}")]
    HistoryTable(#[from] HistoryError),
    /// The history failed.
    #[error("the history could not be measured: {0}")]
    History(Failure),
}

/// Measures in a directory, which it leaves with a journal of its own.
pub async fn measure(
    dir: &Path,
    size: Size,
    (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>),
) -> Result<BenchReport, BenchError> {
    let bench = Bench::new(dir, clock, ids)?;
    let disk = bench.disk(dir)?;
    let journal = bench.commits().await?;
    let chain = bench.chain(size.chain).await?;
    let many = bench.many(size).await?;
    Ok(BenchReport {
        disk_synced_writes_per_second: disk,
        journal_synced_commits_per_second: journal,
        figures: vec![chain, many],
        debug_build: cfg!(debug_assertions),
    })
}

struct Bench {
    clock: Arc<dyn Clock>,
    journal: Arc<SqliteJournal>,
    engine: Engine,
}

/// Script steps touch no database.
struct NoDatabase;

impl Endpoints for NoDatabase {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        let failure = Failure::permanent("bench::no_database", "the benchmark uses no database");
        Box::pin(async { Err(failure) })
    }
}

pub(super) struct Silent;

impl Notifier for Silent {
    fn notify(&self, _severity: Severity, _title: &str, _body: &str) {}
}

impl Bench {
    fn new(dir: &Path, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Self, BenchError> {
        let journal = SqliteJournal::open(dir, Arc::clone(&clock), Redactor::default())?;
        let engine = Engine::new(Parts {
            journal: Arc::<SqliteJournal>::clone(&journal),
            ownership: Arc::new(RunLocks::new(dir)),
            catalog: Catalog::builtin(),
            appliers: Arc::new(Appliers::new(NotificationApplier::default())),
            endpoints: Arc::new(NoDatabase),
            settings: Arc::new(Settings::default()),
            secrets: Arc::new(NoSecrets),
            clock: Arc::clone(&clock),
            ids,
            kill: Arc::new(Unarmed),
            history: None,
            notifier: Arc::new(Silent),
            principal: nobody(),
            pid: std::process::id(),
        });
        Ok(Self { clock, journal, engine })
    }

    fn since(&self, start: Timestamp) -> Duration {
        self.clock.now().since(start).max(Duration::from_millis(1))
    }

    fn disk(&self, dir: &Path) -> Result<f64, BenchError> {
        let path = dir.join("disk.bench");
        let failed = |source| BenchError::Disk { place: path.display().to_string(), source };
        let mut file = File::create(&path).map_err(failed)?;
        let page = [7_u8; 4096];
        file.write_all(&page).and_then(|()| file.sync_all()).map_err(failed)?;
        let (start, mut writes) = (self.clock.now(), 0_u32);
        while self.since(start) < WINDOW {
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            file.write_all(&page).and_then(|()| file.sync_data()).map_err(failed)?;
            writes += 1;
        }
        let rate = f64::from(writes) / self.since(start).as_secs_f64();
        std::fs::remove_file(&path).map_err(failed)?;
        Ok(rate)
    }

    async fn commits(&self) -> Result<f64, BenchError> {
        let (start, mut commits) = (self.clock.now(), 0_u32);
        while self.since(start) < WINDOW {
            let event = Event::EventPublished {
                name: "bench".to_owned(),
                payload: json!({ "number": commits, "text": "x".repeat(100) }),
                depth: 1,
            };
            let append =
                Append { stream: Stream::System, expect: Expect::Anything, events: vec![event] };
            self.journal.append(vec![append], Durability::Synced).await?;
            commits += 1;
        }
        Ok(f64::from(commits) / self.since(start).as_secs_f64())
    }

    async fn chain(&self, steps: u32) -> Result<Figure, BenchError> {
        let plan = script_chain(steps, self.clock.now())?;
        let (before, start) = (self.journal.commits(), self.clock.now());
        run(self.engine.clone(), plan).await?;
        let what = format!("{steps} script steps in a chain");
        Ok(self.figure(what, u64::from(steps), start, before))
    }

    async fn many(&self, size: Size) -> Result<Figure, BenchError> {
        let plan = script_chain(size.steps, self.clock.now())?;
        let (before, start) = (self.journal.commits(), self.clock.now());
        let mut runs = tokio::task::JoinSet::new();
        for _ in 0..size.runs {
            runs.spawn(run(self.engine.clone(), plan.clone()));
        }
        while let Some(ended) = runs.join_next().await {
            ended.map_err(|error| BenchError::Lost(error.to_string()))??;
        }
        let what = format!("{} runs of {} script steps at once", size.runs, size.steps);
        Ok(self.figure(what, u64::from(size.runs) * u64::from(size.steps), start, before))
    }

    fn figure(&self, what: String, steps: u64, start: Timestamp, commits_before: u64) -> Figure {
        let elapsed = self.since(start);
        let count = u32::try_from(steps).map_or(f64::INFINITY, f64::from);
        Figure {
            what,
            steps,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            steps_per_second: count / elapsed.as_secs_f64(),
            commits: self.journal.commits() - commits_before,
        }
    }
}

pub(super) fn nobody() -> Principal {
    Principal { name: "bench".to_owned(), from: "bench".to_owned() }
}

pub(super) async fn run(engine: Engine, plan: Plan) -> Result<(), BenchError> {
    let options = StartOptions { key: None, by: nobody(), yes: false, forked_from: None };
    let run = engine.start(&plan, options).await?;
    let outcome = engine.execute(&run, CancellationToken::new(), Arc::new(Unobserved)).await?;
    if outcome == Outcome::Succeeded { Ok(()) } else { Err(BenchError::Ended(outcome)) }
}

/// A chain of scripts, each adding one to what the one before it returned.
fn script_chain(steps: u32, now: Timestamp) -> Result<Plan, PlanError> {
    let path = "bench.rhai";
    let step = |number: u32| PlannedStep {
        id: format!("s{number}"),
        needs: number
            .checked_sub(1)
            .map(|before| Need { step: format!("s{before}"), inferred: true })
            .into_iter()
            .collect(),
        when: None,
        run_if: RunIf::Success,
        for_each: None,
        target: None,
        action: Action::Script {
            script: path.to_owned(),
            with: match number.checked_sub(1) {
                None => json!({ "n": 0 }),
                Some(before) => json!({ "n": format!("${{{{ steps.s{before}.n }}}}") }),
            },
        },
        approval: ApprovalMode::Auto,
        risk: Risk::Low,
        timeout: Span::from_secs(60),
        retry: Retry::default(),
        allow_failure: false,
        lock: None,
        wake: false,
        compensate: None,
    };
    let body = PlanBody {
        workflow: "bench".to_owned(),
        description: String::new(),
        workflow_digest: Digest::of_bytes(b"bench"),
        params: Map::new(),
        target: Target::default(),
        connection: "none".to_owned(),
        lock: None,
        limits: Limits::default(),
        steps: (0..steps).map(step).collect(),
        on_failure: Vec::new(),
        always: Vec::new(),
        outputs: [("n".to_owned(), format!("steps.s{}.n", steps.saturating_sub(1)))].into(),
        scripts: [(path.to_owned(), PinnedText::new("#{ n: n + 1 }"))].into(),
        sql: std::collections::BTreeMap::new(),
        tools: std::collections::BTreeMap::new(),
        policy: None,
        secrets: Vec::new(),
        preconditions: Vec::new(),
        replaces: None,
        schedule: Value::Null,
        triggers: Value::Null,
    };
    Plan::seal(body, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{RandomIds, SystemClock};

    /// Counts are what can be promised on any machine: steps share commits.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn scripts_share_commits() {
        let dir = tempfile::tempdir().unwrap();
        let size = Size { chain: 300, runs: 20, steps: 5 };
        let outside: (Arc<dyn Clock>, Arc<dyn IdSource>) =
            (Arc::new(SystemClock), Arc::new(RandomIds));
        let report = measure(dir.path(), size, outside).await.unwrap();
        eprintln!("{}", serde_json::to_string_pretty(&report).unwrap());
        let [chain, many] = report.figures.as_slice() else { panic!("two figures") };
        assert!(chain.commits < 150, "{} commits for {} steps", chain.commits, chain.steps);
        assert!(many.commits < 100, "{} commits for {} steps", many.commits, many.steps);
    }
}
