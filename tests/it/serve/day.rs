//! Many branches, a simulated day: how much memory and how many connections it takes.
//!
//! The clock jumps to the next thing that is due whenever nothing is being worked on. Everything else is real:
//! the journal on disk, the engine, the database that is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lakeops::engine::RunLocks;
use lakeops::engine::parts::{Endpoints, Parts};
use lakeops::journal::store::RunFilter;
use lakeops::journal::{Journal as _, Outcome, Principal, SqliteJournal};
use lakeops::kernel::{BoxFuture, Clock, Failure, Redactor, Span, Target, Timestamp};
use lakeops::plan::Plan;
use lakeops::postgres::PgEndpoint;
use lakeops::server::{Occasions, Wanted, Workflows};
use lakeops::workflow::elements::ScheduleSpec;
use lakeops::workflow::{Library, SourceText};
use tokio_util::sync::CancellationToken;

use super::clock::Jumping;
use super::simulated::{planned, schedule, serve};
use crate::harness::parts::parts;
use crate::harness::{by_itself, postgres, value};

const PROJECTS: u32 = 50;
const BRANCHES: u32 = 10;
const MOST_RUNS: usize = 16;

/// One workflow for every branch: `measure` on its own target.
struct Fleet {
    library: Library,
    clock: Arc<Jumping>,
    told: AtomicBool,
}

const MEASURE: &str = "version: 1\nname: measure\ndescription: Look at a branch.\nsteps:\n  - id: look\n    tool: \
    monitor_connections\n";

fn branch(workflow: &str) -> Target {
    let (project, branch) = workflow.trim_start_matches("measure_").split_once('_').unwrap();
    Target {
        project: Some(format!("p{project}")),
        branch: Some(format!("b{branch}")),
        database: None,
    }
}

impl Workflows for Fleet {
    fn occasions(&self) -> Option<Occasions> {
        if self.told.swap(true, Ordering::SeqCst) {
            return None;
        }
        let mut found = Occasions::default();
        for project in 0..PROJECTS {
            for branch in 0..BRANCHES {
                let id = format!("measure_{project}_{branch}");
                let jitter = Span::from_secs(600);
                let spec = ScheduleSpec { jitter, ..schedule(&id, "0 * * * *") };
                found.schedules.push((id, spec));
            }
        }
        Some(found)
    }

    fn plan(&self, wanted: &Wanted) -> Result<Plan, Failure> {
        let place = ("fleet", branch(&wanted.workflow));
        planned(&self.library, "measure", place, self.clock.now())
    }
}

/// Every branch is the same database here; connections to it are counted.
struct Counted {
    endpoint: PgEndpoint,
    asked: AtomicU64,
}

impl Endpoints for Counted {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(self.endpoint.clone()) })
    }
}

/// The memory that this process holds, in MiB.
pub(super) fn memory() -> u64 {
    memory_of("self")
}

/// The memory that a process holds, in MiB.
pub(super) fn memory_of(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// Simulates so many hours; prints and checks what it took.
async fn simulate(hours: i64) {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = postgres().await.fresh_database("serve_day").await;
    let start = Timestamp::parse("2026-12-01T00:00:30Z").unwrap().as_millis();
    let stop = CancellationToken::new();
    // The last slot is delayed by up to ten minutes.
    let clock = Arc::new(Jumping::new(start, start + hours * 3_600_000 + 15 * 60_000));
    let shared: Arc<dyn Clock> = Arc::<Jumping>::clone(&clock);
    let journal =
        SqliteJournal::open(dir.path(), Arc::clone(&shared), Redactor::default()).unwrap();
    let endpoints = Arc::new(Counted { endpoint: endpoint.clone(), asked: AtomicU64::new(0) });
    let parts = Parts {
        ownership: Arc::new(RunLocks::new(dir.path())),
        clock: shared,
        ..parts(
            Arc::<SqliteJournal>::clone(&journal),
            Arc::<Counted>::clone(&endpoints),
            Principal { name: "fleet".to_owned(), from: "test".to_owned() },
        )
    };
    let mut library = Library::new();
    library.add_workflow(SourceText::new("measure.yaml", MEASURE));
    let fleet = Fleet { library, clock: Arc::clone(&clock), told: AtomicBool::new(false) };
    let before = memory();
    let (peak, sessions) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicU64::new(0)));
    let sampler = {
        let (peak, sessions, endpoint) =
            (Arc::clone(&peak), Arc::clone(&sessions), endpoint.clone());
        tokio::spawn(async move {
            loop {
                let sql = "select count(*) from pg_stat_activity where datname = current_database() \
                           and pid <> pg_backend_pid()";
                let open: i64 = value(&endpoint, sql).await;
                sessions.fetch_max(open.cast_unsigned(), Ordering::SeqCst);
                peak.fetch_max(memory(), Ordering::SeqCst);
            }
        })
    };
    serve(parts, &fleet, &*clock, (stop, MOST_RUNS)).await.unwrap();
    sampler.abort();
    let runs = journal.runs(RunFilter::default()).await.unwrap();
    let failed = runs.iter().filter(|run| run.outcome != Outcome::Succeeded).count();
    let targets: std::collections::BTreeSet<_> = runs.iter().map(|run| &run.target).collect();
    let (sessions, peak) = (sessions.load(Ordering::SeqCst), peak.load(Ordering::SeqCst));
    let file = std::fs::metadata(dir.path().join("journal.db")).unwrap().len() >> 20;
    println!(
        "{hours} hours: {} runs on {} branches, {failed} not succeeded; memory {before} -> {peak} MiB, at most \
         {sessions} sessions at once, {} opened; journal {file} MiB",
        runs.len(),
        targets.len(),
        endpoints.asked.load(Ordering::SeqCst),
    );
    let branches = usize::try_from(PROJECTS * BRANCHES).unwrap();
    assert_eq!(targets.len(), branches);
    assert_eq!(runs.len(), branches * usize::try_from(hours).unwrap(), "each branch, each hour");
    assert_eq!(failed, 0);
    // One that was closed is seen until its process is gone, which on a busy machine takes a while.
    assert!(sessions <= 2 * u64::try_from(MOST_RUNS).unwrap(), "{sessions} sessions");
    assert!(peak - before < 400, "{before} -> {peak} MiB");
}

#[test]
fn five_hundred_branches_take_bounded_memory_and_connections() {
    by_itself("serve::day::five_hundred_branches_for_two_hours");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures its process: the test before it gives it one"]
async fn five_hundred_branches_for_two_hours() {
    simulate(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: the figures of a whole day"]
async fn five_hundred_branches_for_a_day() {
    simulate(24).await;
}
