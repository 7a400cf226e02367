//! Kills a process that carries a plan out: at the nth boundary, or at any moment. Reusable for every
//! tool and workflow: give it a plan and a database.
//!
//! The process is this test binary again, running [`crash_child`] only.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lakeops::config::Settings;
use lakeops::engine::kill::ArmedKill;
use lakeops::engine::parts::{Endpoints, History, Parts, Unobserved};
use lakeops::engine::{Engine, RunLocks, StartOptions};
use lakeops::history::{HistoryWriter, Location};
use lakeops::journal::event::Decision;
use lakeops::journal::store::RunFilter;
use lakeops::journal::{Entry, Journal, Principal, SqliteJournal};
use lakeops::kernel::{Clock, KillPoints, Redactor, Secret, Span, SystemClock};
use lakeops::plan::Plan;
use lakeops::postgres::PgEndpoint;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::parts::parts;
use super::scratch::scratch;

/// A plan, a database and a state directory: what outlives the processes.
pub(crate) struct Crash {
    dir: TempDir,
}

fn somebody() -> Principal {
    Principal { name: "crash".to_owned(), from: "test".to_owned() }
}

fn engine(
    state: &Path,
    endpoints: Arc<dyn Endpoints>,
    kill: ArmedKill,
    keeps_history: bool,
) -> (Engine, Arc<SqliteJournal>) {
    let clock = Arc::new(SystemClock);
    let journal = SqliteJournal::open(state, clock, Redactor::default()).unwrap();
    let kill: Arc<dyn KillPoints> = Arc::new(kill);
    let history = keeps_history.then(|| -> Arc<dyn History> {
        let outside = (Arc::new(SystemClock) as Arc<dyn Clock>, Arc::clone(&kill));
        let journal = Arc::<SqliteJournal>::clone(&journal);
        let location = Location::folder(&state.join("history")).unwrap();
        Arc::new(HistoryWriter::new(location, journal, state, outside))
    });
    let mut settings = Settings::default();
    // On a busy machine many in a row are killed between their claim and the first thing they settle.
    settings.limits.max_barren_resumes = 1_000;
    // Who holds a change up lets it go when the test has seen enough, however long that takes.
    settings.limits.lock_timeout = Span::from_secs(300);
    let parts = Parts {
        ownership: Arc::new(RunLocks::new(state)),
        settings: Arc::new(settings),
        kill,
        history,
        ..parts(Arc::<SqliteJournal>::clone(&journal), endpoints, somebody())
    };
    (Engine::new(parts), journal)
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By SIGKILL.
    Killed,
    /// By itself, with the run's outcome.
    Outcome(String),
}

impl Crash {
    pub(crate) fn new(plan: &Plan, endpoint: &PgEndpoint) -> Self {
        let dir = scratch();
        fs::write(dir.path().join("plan.json"), plan.to_bytes().unwrap()).unwrap();
        fs::write(dir.path().join("url"), endpoint.to_url().expose()).unwrap();
        Self { dir }
    }

    /// Processes leave approvals to a person.
    pub(crate) fn ask_from_now_on(&self) {
        fs::write(self.path("ask"), "").unwrap();
    }

    /// What somebody else left: `fill` writes the journal of one run into a state directory.
    pub(crate) fn left_by(endpoint: &PgEndpoint, fill: impl FnOnce(&Path)) -> Self {
        let dir = scratch();
        let state = dir.path().join("state");
        fs::create_dir_all(&state).unwrap();
        fill(&state);
        fs::write(dir.path().join("url"), endpoint.to_url().expose()).unwrap();
        let connection = rusqlite::Connection::open(state.join("journal.db")).unwrap();
        let plan: Vec<u8> =
            connection.query_row("select bytes from plan", [], |row| row.get(0)).unwrap();
        fs::write(dir.path().join("plan.json"), plan).unwrap();
        Self { dir }
    }

    /// The plan of the run.
    pub(crate) fn plan(&self) -> Plan {
        Plan::parse(&fs::read(self.path("plan.json")).unwrap()).unwrap()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The same, with processes that leave approvals to a person.
    pub(crate) fn asking(plan: &Plan, endpoint: &PgEndpoint) -> Self {
        let crash = Self::new(plan, endpoint);
        crash.ask_from_now_on();
        crash
    }

    /// The same, with processes that append to a history below the state directory.
    pub(crate) fn remembering(plan: &Plan, endpoint: &PgEndpoint) -> Self {
        let crash = Self::new(plan, endpoint);
        fs::write(crash.path("history"), "").unwrap();
        crash
    }

    /// Further processes approve what waits.
    pub(crate) fn approve_from_now_on(&self) {
        fs::remove_file(self.path("ask")).unwrap();
    }

    /// Further processes find the database here.
    pub(crate) fn moved_to(&self, endpoint: &PgEndpoint) {
        fs::write(self.path("url"), endpoint.to_url().expose()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a process that goes on with the run, and dies at the nth boundary when told to.
    pub(crate) fn spawn(&self, kill_at: Option<u64>) -> Child {
        self.spawn_among(kill_at, "")
    }

    /// Counts only boundaries with this in their names.
    fn spawn_among(&self, kill_at: Option<u64>, among: &str) -> Child {
        drop(fs::remove_file(self.path("trace")));
        drop(fs::remove_file(self.path("outcome")));
        let at = kill_at.map(|n| n.to_string()).unwrap_or_default();
        fs::write(self.path("kill"), at).unwrap();
        fs::write(self.path("among"), among).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness::crash::crash_child", "--ignored", "--nocapture"])
            .env("RUST_BACKTRACE", "0")
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn wait(&self, child: Child) -> End {
        let output = child.wait_with_output().unwrap();
        if output.status.signal() == Some(9) {
            return End::Killed;
        }
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "the child failed: {stderr}");
        End::Outcome(fs::read_to_string(self.path("outcome")).unwrap())
    }

    pub(crate) fn run(&self, kill_at: Option<u64>) -> End {
        self.wait(self.spawn(kill_at))
    }

    /// Kills a process when it reaches the boundary of this name for the nth time. What a step appends
    /// and what the next one does are at work at once, so places among all boundaries are chance.
    pub(crate) fn run_until(&self, boundary: &str, nth: u64) -> End {
        self.wait(self.spawn_among(Some(nth), boundary))
    }

    /// The same for the boundary at a place of those that another run reached, each name counted as it is
    /// killed: by what it contains.
    pub(crate) fn run_until_place(&self, reached: &[String], place: usize) -> End {
        let name = &reached[place];
        let nth = reached[..=place].iter().filter(|earlier| earlier.contains(name)).count();
        self.run_until(name, u64::try_from(nth).unwrap())
    }

    /// Lets processes go on until one of them ends the run.
    pub(crate) fn finish(&self) -> String {
        match self.run(None) {
            End::Outcome(outcome) => outcome,
            End::Killed => panic!("nobody killed it"),
        }
    }

    /// Kills a process after a while; says whether it was still at work.
    pub(crate) fn kill_after(&self, after: Duration) -> bool {
        let mut child = self.spawn(None);
        std::thread::sleep(after);
        child.kill().unwrap();
        self.wait(child) == End::Killed
    }

    /// The boundaries that the latest process reached.
    pub(crate) fn boundaries(&self) -> Vec<String> {
        let trace = fs::read_to_string(self.path("trace")).unwrap_or_default();
        let name = |line: &str| line.split_once(' ').map(|(_, name)| name.to_owned());
        trace.lines().filter_map(name).collect()
    }

    /// The run's entries, after checking that the chain is whole.
    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let state = self.path("state");
        let clock = Arc::new(SystemClock);
        let journal = SqliteJournal::open(&state, clock, Redactor::default()).unwrap();
        assert_eq!(journal.verify().await.unwrap().broken, None);
        let runs = journal.runs(RunFilter::default()).await.unwrap();
        assert_eq!(runs.len(), 1, "starting with a key is idempotent");
        let stream = lakeops::journal::Stream::Run(runs[0].run_id.clone());
        journal.read(&stream, 0).await.unwrap()
    }
}

/// The process: goes on with the run of its directory, and approves what waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that crash tests kill"]
async fn crash_child() {
    let dir = std::env::current_dir().unwrap();
    let Ok(plan) = fs::read(dir.join("plan.json")) else { return };
    let plan = Plan::parse(&plan).unwrap();
    let url = Secret::new(fs::read_to_string(dir.join("url")).unwrap());
    let kill_at = fs::read_to_string(dir.join("kill")).unwrap().parse().ok();
    let among = fs::read_to_string(dir.join("among")).unwrap();
    let kill = ArmedKill::new(kill_at, Some(&dir.join("trace"))).unwrap().among(among);
    let endpoints: Arc<dyn Endpoints> = Arc::new(PgEndpoint::from_url(&url).unwrap());
    let keeps_history = dir.join("history").exists();
    let (engine, _journal) = engine(&dir.join("state"), endpoints, kill, keeps_history);
    let key = fs::read_to_string(dir.join("key")).unwrap_or_else(|_| "crash".to_owned());
    let key = Some(key);
    let options = StartOptions { key, by: somebody(), yes: false, forked_from: None };
    let run = engine.start(&plan, options).await.unwrap();
    loop {
        let outcome =
            engine.execute(&run, CancellationToken::new(), Arc::new(Unobserved)).await.unwrap();
        if outcome.as_str() == "waiting_approval" && !dir.join("ask").exists() {
            let (by, approved) = (somebody(), Decision::Approved);
            engine.decide_approval((&run, None), None, approved, (&by, "test")).await.unwrap();
            continue;
        }
        fs::write(dir.join("outcome"), outcome.as_str()).unwrap();
        return;
    }
}
