//! How fast the engine is on this machine, beside what its disk can do.
//!
//! Every figure is measured in the call that returns it, with its limit beside it: the disk's own synced
//! writes, the journal's synced commits, the server's commits, one after the other in the same minute.
//! Whoever works beside it on the machine makes synced writes seem slow: measure alone.

mod changes;
mod planning;
mod program;
mod records;

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::engine::apply::{Appliers, NoSecrets, NotificationApplier};
use crate::engine::parts::{Endpoints, History, Notifier, Unobserved};
use crate::engine::{Engine, EngineError, Parts, RunLocks, StartOptions};
use crate::history::HistoryError;
use crate::journal::store::{Append, Durability, Expect};
use crate::journal::{Event, Journal, JournalError, Outcome, Principal, SqliteJournal, Stream};
use crate::kernel::kill::Unarmed;
use crate::kernel::{
    BoxFuture, Clock, Digest, Failure, IdSource, Redactor, Risk, RunId, Severity, Span, Target,
    Timestamp,
};
use crate::plan::document::{
    Action, ApprovalMode, ForEach, Limits, Need, PinnedText, PlanError, Retry, RunIf,
};
use crate::plan::{Plan, PlanBody, PlannedStep};
use crate::postgres::PgEndpoint;
use crate::tools::Catalog;

/// How long each of the disk's own figures is measured.
const WINDOW: Duration = Duration::from_secs(1);

/// How much is measured; what is 0 is left out.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Starts of the program.
    pub starts: u32,
    /// Steps of the chain.
    pub chain: u32,
    /// Runs at once.
    pub runs: u32,
    /// Steps of each of them.
    pub steps: u32,
    /// Changes on a server, one after the other, and as many of a fan-out.
    pub changes: u32,
    /// Settled steps of a run that is gone on with; a hundredth of it is measured too.
    pub settled: u32,
    /// Steps of the workflow that is planned.
    pub dag: u32,
    /// Files that are read and checked together.
    pub files: u32,
    /// Items of the fan-out.
    pub items: u32,
    /// Events of the large journal.
    pub events: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            starts: 50,
            chain: 1_000,
            runs: 200,
            steps: 10,
            changes: 1_000,
            settled: 100_000,
            dag: 10_000,
            files: 1_000,
            items: 100_000,
            events: 1_000_000,
        }
    }
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was done.
    pub what: String,
    /// How much of it.
    pub count: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: f64,
    /// How many each second.
    pub per_second: f64,
    /// Commits of the journal meanwhile, where it is one journal's work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits: Option<u64>,
    /// What is possible at most, each second, where something measured beside it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_per_second: Option<f64>,
    /// The most memory that the process had meanwhile, in bytes, where the system says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
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
    /// A process of the program failed.
    #[error("a process of the program cannot be worked with")]
    Process(#[source] std::io::Error),
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

/// What is measured besides this process; what is not there is left out.
#[derive(Default)]
pub struct Beside {
    /// Where changes are made.
    pub server: Option<PgEndpoint>,
    /// The program's file.
    pub program: Option<PathBuf>,
}

/// Measures in a directory, which it leaves with journals of its own. `tell` hears what is being measured.
pub async fn measure(
    dir: &Path,
    size: Size,
    (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>),
    beside: Beside,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<BenchReport, BenchError> {
    let bench = Bench::new(dir, (clock, ids), Arc::new(NoDatabase))?;
    tell("the disk");
    let disk = bench.disk(dir)?;
    let journal = bench.commits().await?;
    let mut figures = Vec::new();
    if let Some(program) = beside.program.filter(|_| size.starts > 0) {
        tell("the program");
        let folder = dir.join("program");
        make_folder(&folder)?;
        figures.extend(bench.program(&program, &folder, size.starts).await?);
    }
    if size.chain > 0 {
        tell("a chain of scripts");
        figures.push(bench.chain(size.chain).await?);
    }
    if size.runs > 0 {
        tell("many runs at once");
        figures.push(bench.many(size).await?);
    }
    if let Some(server) = beside.server.filter(|_| size.changes > 0) {
        tell("changes on a server");
        figures.extend(bench.changes(&dir.join("changes"), server, size.changes).await?);
    }
    if size.items > 0 {
        tell("a fan-out");
        figures.push(bench.fan_out(size.items).await?);
    }
    if size.settled > 0 {
        tell("runs that are gone on with");
        for settled in [(size.settled / 100).max(1), size.settled] {
            figures.push(bench.resumed(&dir.join(format!("resumed-{settled}")), settled).await?);
        }
    }
    if size.dag > 0 {
        tell("a large workflow");
        figures.extend(bench.large_workflow(size.dag)?);
    }
    if size.files > 0 {
        tell("many workflows");
        figures.push(bench.many_files(size.files)?);
    }
    if size.events > 0 {
        tell("a large journal");
        figures.extend(bench.large_journal(&dir.join("large"), size.events).await?);
    }
    Ok(BenchReport {
        disk_synced_writes_per_second: disk,
        journal_synced_commits_per_second: journal,
        figures,
        debug_build: cfg!(debug_assertions),
    })
}

struct Bench {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
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

struct Silent;

impl Notifier for Silent {
    fn notify(&self, _severity: Severity, _title: &str, _body: &str) {}
}

impl Bench {
    fn new(
        dir: &Path,
        (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>),
        endpoints: Arc<dyn Endpoints>,
    ) -> Result<Self, BenchError> {
        let journal = SqliteJournal::open(dir, Arc::clone(&clock), Redactor::default())?;
        let kept = Arc::<SqliteJournal>::clone(&journal);
        let outside = (Arc::clone(&clock), Arc::clone(&ids));
        let engine = engine((dir, kept), outside, endpoints, None);
        Ok(Self { clock, ids, journal, engine })
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
        let mut figure = self.figure(what, u64::from(steps), start);
        figure.commits = Some(self.journal.commits() - before);
        Ok(figure)
    }

    async fn many(&self, size: Size) -> Result<Figure, BenchError> {
        let plan = Arc::new(script_chain(size.steps, self.clock.now())?);
        let (before, began) = (self.journal.commits(), self.clock.now());
        let mut runs = tokio::task::JoinSet::new();
        for _ in 0..size.runs {
            let (engine, plan) = (self.engine.clone(), Arc::clone(&plan));
            runs.spawn(async move {
                let run = start(&engine, &plan).await?;
                work(&engine, &run, Outcome::Succeeded).await
            });
        }
        while let Some(ended) = runs.join_next().await {
            ended.map_err(|error| BenchError::Lost(error.to_string()))??;
        }
        let what = format!("{} runs of {} script steps at once", size.runs, size.steps);
        let mut figure = self.figure(what, u64::from(size.runs) * u64::from(size.steps), began);
        figure.commits = Some(self.journal.commits() - before);
        Ok(figure)
    }

    /// A fan-out of so many scripts in one run.
    async fn fan_out(&self, items: u32) -> Result<Figure, BenchError> {
        let plan = script_plan(vec![fan_out_step(items)], self.clock.now())?;
        let there = forget_peak();
        let (before, start) = (self.journal.commits(), self.clock.now());
        run(self.engine.clone(), plan).await?;
        let what = format!("{items} items of a fan-out");
        let mut figure = self.figure(what, u64::from(items), start);
        figure.commits = Some(self.journal.commits() - before);
        figure.note_memory(there);
        Ok(figure)
    }

    fn figure(&self, what: String, count: u64, start: Timestamp) -> Figure {
        let elapsed = self.since(start);
        Figure {
            what,
            count,
            elapsed_ms: elapsed.as_secs_f64() * 1_000.0,
            per_second: rate(count, elapsed),
            commits: None,
            limit_per_second: None,
            peak_memory_bytes: None,
            note: String::new(),
        }
    }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from) / elapsed.as_secs_f64()
}

/// The most memory that a process had (`self`: this one, since it was last forgotten), in bytes.
pub(super) fn peak_memory(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// Begins the peak anew, where the system can. Returns what the process has at this moment, in bytes: most of
/// it is its own code, and what earlier figures needed and the allocator keeps.
fn forget_peak() -> Option<u64> {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the peak of memory includes what came before");
        return None;
    }
    peak_memory("self")
}

impl Figure {
    /// Notes the peak since it was forgotten, and how much of it was there already.
    fn note_memory(&mut self, there: Option<u64>) {
        self.peak_memory_bytes = peak_memory("self");
        if let Some(there) = there {
            self.note = format!("{} of it before", bytesize::ByteSize(there));
        }
    }
}

pub(super) fn nobody() -> Principal {
    Principal { name: "bench".to_owned(), from: "bench".to_owned() }
}

/// Makes a directory that is worked in.
pub(super) fn make_folder(folder: &Path) -> Result<(), BenchError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| BenchError::Disk { place: folder.display().to_string(), source })
}

/// An engine on a journal and its state directory, that tells nobody anything.
pub(super) fn engine(
    (state, journal): (&Path, Arc<SqliteJournal>),
    (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>),
    endpoints: Arc<dyn Endpoints>,
    history: Option<Arc<dyn History>>,
) -> Engine {
    Engine::new(Parts {
        journal,
        ownership: Arc::new(RunLocks::new(state)),
        catalog: Catalog::builtin(),
        appliers: Arc::new(Appliers::new(NotificationApplier::default())),
        endpoints,
        settings: Arc::new(Settings::default()),
        secrets: Arc::new(NoSecrets),
        clock,
        ids,
        kill: Arc::new(Unarmed),
        history,
        notifier: Arc::new(Silent),
        principal: nobody(),
        pid: std::process::id(),
    })
}

/// The first event of a run that is made up.
pub(super) fn run_created(plan: Digest) -> Event {
    Event::RunCreated {
        plan,
        workflow: "bench".to_owned(),
        target: Target::default(),
        key: None,
        by: nobody(),
        yes: false,
        forked_from: None,
        cause: None,
    }
}

pub(super) async fn run(engine: Engine, plan: Plan) -> Result<(), BenchError> {
    let run = start(&engine, &plan).await?;
    work(&engine, &run, Outcome::Succeeded).await
}

async fn start(engine: &Engine, plan: &Plan) -> Result<RunId, BenchError> {
    let options = StartOptions { key: None, by: nobody(), yes: false, forked_from: None };
    Ok(engine.start(plan, options).await?)
}

/// Works on a run, which has to come to this.
async fn work(engine: &Engine, run: &RunId, wanted: Outcome) -> Result<(), BenchError> {
    let outcome = engine.execute_apart(run, CancellationToken::new(), Arc::new(Unobserved)).await?;
    if outcome == wanted { Ok(()) } else { Err(BenchError::Ended(outcome)) }
}

/// A chain of scripts, each adding one to what the one before it returned.
fn script_chain(steps: u32, now: Timestamp) -> Result<Plan, PlanError> {
    script_plan((0..steps).map(chained).collect(), now)
}

fn chained(number: u32) -> PlannedStep {
    let before = number.checked_sub(1).map(|before| format!("s{before}"));
    let with = match &before {
        None => json!({ "n": 0 }),
        Some(before) => json!({ "n": format!("${{{{ steps.{before}.n }}}}") }),
    };
    script_step(format!("s{number}"), before, with)
}

const SCRIPT: &str = "bench.rhai";

fn script_step(id: String, needs: Option<String>, with: Value) -> PlannedStep {
    bench_step(id, needs, Action::Script { script: SCRIPT.to_owned(), with })
}

/// A fan-out of so many scripts.
fn fan_out_step(items: u32) -> PlannedStep {
    let mut step = script_step("each".to_owned(), None, json!({ "n": "${{ item }}" }));
    step.for_each = Some(each(items, 8));
    step
}

/// For each of so many numbers.
fn each(items: u32, max_parallel: u32) -> ForEach {
    ForEach {
        items: json!((0..items).collect::<Vec<_>>()),
        key: "${{ item }}".to_owned(),
        max_parallel,
        fail_fast: true,
    }
}

fn bench_step(id: String, needs: Option<String>, action: Action) -> PlannedStep {
    PlannedStep {
        id,
        needs: needs.map(|step| Need { step, inferred: true }).into_iter().collect(),
        when: None,
        run_if: RunIf::Success,
        for_each: None,
        target: None,
        action,
        approval: ApprovalMode::Auto,
        risk: Risk::Low,
        timeout: Span::from_secs(60),
        retry: Retry::default(),
        allow_failure: false,
        lock: None,
        wake: false,
        compensate: None,
    }
}

fn script_plan(steps: Vec<PlannedStep>, now: Timestamp) -> Result<Plan, PlanError> {
    let body = PlanBody {
        workflow: "bench".to_owned(),
        description: String::new(),
        workflow_digest: Digest::of_bytes(b"bench"),
        params: Map::new(),
        target: Target::default(),
        connection: "none".to_owned(),
        lock: None,
        limits: Limits::default(),
        steps,
        on_failure: Vec::new(),
        always: Vec::new(),
        outputs: std::collections::BTreeMap::new(),
        scripts: [(SCRIPT.to_owned(), PinnedText::new("#{ n: n + 1 }"))].into(),
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

    fn outside() -> (Arc<dyn Clock>, Arc<dyn IdSource>) {
        (Arc::new(SystemClock), Arc::new(RandomIds))
    }

    /// Counts are what can be promised on any machine: steps share commits.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn scripts_share_commits() {
        const MOST: [(&str, u64); 3] = [("in a chain", 100), ("at once", 60), ("fan-out", 350)];
        let size = Size {
            starts: 0,
            chain: 300,
            runs: 20,
            steps: 5,
            changes: 0,
            settled: 300,
            dag: 1_200,
            files: 20,
            items: 2_000,
            events: 2_000,
        };
        // Whenever a busy machine holds the engine up, the journal commits what it has; not each time as often.
        let mut least = [u64::MAX; MOST.len()];
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let report = Box::pin(measure(dir.path(), size, outside(), Beside::default(), &|_| ()))
                .await
                .unwrap();
            eprintln!("{}", serde_json::to_string_pretty(&report).unwrap());
            for ((text, _), least) in MOST.iter().zip(&mut least) {
                let figure = report.figures.iter().find(|figure| figure.what.contains(text));
                let figure = figure.unwrap_or_else(|| panic!("no figure of {text}"));
                *least = figure.commits.unwrap().min(*least);
            }
            if MOST.iter().zip(least).all(|((_, most), least)| least < *most) {
                break;
            }
        }
        for ((text, most), least) in MOST.iter().zip(least) {
            assert!(least < *most, "{least} commits {text} instead of at most {most}");
        }
    }

    /// What the thread of the engine allocates is counted; the writer of the journal has its own.
    #[test]
    fn a_step_allocates_and_writes_little() {
        const STEPS: u32 = 400;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let allocated = |steps: u32| {
            let dir = tempfile::tempdir().unwrap();
            let bench = Bench::new(dir.path(), outside(), Arc::new(NoDatabase)).unwrap();
            let work = || {
                runtime.block_on(bench.chain(steps)).unwrap();
            };
            let count = allocation_counter::measure(work).count_total;
            let last = runtime.block_on(bench.journal.head()).unwrap().position;
            drop(bench);
            let size = |name: &str| dir.path().join(name).metadata().map_or(0, |file| file.len());
            (count, last, size("journal.db") + size("journal.db-wal"))
        };
        let ((few, first_events, first_bytes), (many, events, bytes)) =
            (allocated(STEPS / 4), allocated(STEPS));
        let more = u64::from(STEPS - STEPS / 4);
        let (per_step, per_event) =
            ((many - few) / more, (bytes - first_bytes) / (events - first_events));
        eprintln!("{per_step} allocations a step, {per_event} bytes an event");
        assert!(per_step < 950, "{per_step} allocations a step");
        assert!(per_event < 600, "{per_event} bytes an event");
    }

    /// What follows from a plan is worked out once, however many of its runs are at work.
    #[test]
    fn runs_of_one_plan_share_what_follows_from_it() {
        const FEW: u32 = 5;
        const MANY: u32 = 25;
        let none = Size { starts: 0, chain: 0, changes: 0, settled: 0, dag: 0, ..Size::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let allocated = |runs: u32| {
            let dir = tempfile::tempdir().unwrap();
            let bench = Bench::new(dir.path(), outside(), Arc::new(NoDatabase)).unwrap();
            let work = || {
                runtime.block_on(bench.many(Size { runs, ..none })).unwrap();
            };
            allocation_counter::measure(work).count_total
        };
        let (few, many) = (allocated(FEW), allocated(MANY));
        let per_run = (many - few) / u64::from(MANY - FEW);
        eprintln!("{per_run} allocations a run of {} steps", none.steps);
        assert!(per_run < 1_000, "{per_run} allocations a run of {} steps", none.steps);
    }
}
