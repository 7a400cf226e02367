//! Five hundred branches behind the emulator's API, some with a PostgreSQL that runs: what a server costs
//! that looks after all of them, what it wakes, and what it keeps awake.
//!
//! Emulator, API, PostgreSQL, journal and engine are real, and so are the shipped workflows. Only time is
//! not: it goes as it goes while somebody works, and jumps on otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::config::{FixedEnvironment, LakebaseConnection, Settings};
use lakeops::emulator::{Emulator, EmulatorOptions};
use lakeops::engine::RunLocks;
use lakeops::engine::parts::Parts;
use lakeops::journal::store::{EntryFilter, RunFilter};
use lakeops::journal::{Event, Journal as _, Outcome, Principal, SlotFate, SqliteJournal};
use lakeops::kernel::{Clock, Failure, RandomIds, Redactor, Target, Timestamp};
use lakeops::lakebase::{Lakebase, Login, Outside, Patience, WorkspaceClient};
use lakeops::plan::{Given, Plan};
use lakeops::postgres::Quiet;
use lakeops::server::{Occasions, Wanted, Workflows};
use lakeops::tools::Catalog;
use lakeops::workflow::{Resolution, Resolver};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::clock::Passing;
use super::simulated::{plan_of, serve};
use crate::emulator::{client, log_in};
use crate::harness::parts::parts;
use crate::harness::{Place, by_itself};
use crate::workflows::library;

const BRANCHES: usize = 10;
const MOST_RUNS: usize = 16;
/// How far time jumps, in milliseconds.
const STRIDE: i64 = 30_000;
/// The server, the two keepers of the emulator, and the application.
const LOOPS: usize = 4;

/// What may make a run fail here: there is no history, and no SQL warehouse that knows the cost; and the branch that
/// `reset_staging` is given is production, which its policy keeps.
const REFUSED: [&str; 3] = ["history::none", "lakebase::no_warehouse", "branch_policy::refused"];

/// What is simulated.
struct Scale {
    start: &'static str,
    projects: usize,
    /// How many of them have a compute that is awake at the beginning.
    awake: usize,
    time: Duration,
    /// After how long a compute is suspended.
    timeout: Duration,
    /// The schedules of all projects but the first one, which has every one.
    elsewhere: &'static [&'static str],
}

/// Every workflow that is shipped, for every project.
struct Shipped {
    scale: Scale,
    resolution: Resolution,
    clock: Arc<Passing>,
    told: AtomicBool,
}

impl Shipped {
    fn new(scale: Scale, clock: Arc<Passing>) -> Self {
        let catalog = Catalog::builtin();
        let resolution = Resolver::new(&catalog, &library()).resolve_all();
        Self { scale, resolution, clock, told: AtomicBool::new(false) }
    }
}

impl Workflows for Shipped {
    fn occasions(&self) -> Option<Occasions> {
        if self.told.swap(true, Ordering::SeqCst) {
            return None;
        }
        let mut found = Occasions::default();
        for project in 0..self.scale.projects {
            for (name, workflow) in &self.resolution.workflows {
                if project > 0 && !self.scale.elsewhere.contains(&name.as_str()) {
                    continue;
                }
                for spec in &workflow.spec.schedule {
                    let mut spec = spec.clone();
                    spec.id = format!("p{project} {}", spec.id);
                    found.schedules.push((format!("p{project} {name}"), spec));
                }
            }
        }
        Some(found)
    }

    fn plan(&self, wanted: &Wanted) -> Result<Plan, Failure> {
        let (project, name) = wanted.workflow.split_once(' ').unwrap();
        let workflow = &self.resolution.workflows[name];
        let given = [("project", project), ("branch", "production")];
        let known = |name: &str| workflow.spec.params.iter().any(|param| param.name.value == name);
        let params = given.into_iter().filter(|(name, _)| known(name));
        let params = params.map(|(n, v)| (n.to_owned(), Given::Text(v.to_owned()))).collect();
        plan_of(workflow, params, ("emulator", Target::default()), self.clock.now())
    }
}

/// An emulator under the clock of the simulation, and a client of its API.
struct Region {
    emulator: Emulator,
    place: Place,
    client: reqwest::Client,
    clock: Arc<Passing>,
}

impl Region {
    async fn start(clock: Arc<Passing>) -> Self {
        let place = Place::new();
        let options = EmulatorOptions::new(
            place.state(),
            (Arc::<Passing>::clone(&clock), Arc::new(RandomIds)),
            place.local.clone(),
            Arc::new(Quiet),
        );
        let emulator = Box::pin(Emulator::start(options)).await.unwrap();
        Self { emulator, place, client: client(), clock }
    }

    async fn call(&self, verb: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.emulator.host());
        let token = self.emulator.token().expose().clone();
        let request = self.client.request(verb.parse().unwrap(), url).bearer_auth(token);
        let request = if verb == "GET" { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{verb} {path}: {answer}");
        answer
    }

    /// A project with ten branches, none of which was ever used.
    async fn make(&self, project: &str, timeout: Duration) {
        let branches: Vec<String> = (1..BRANCHES).map(|n| format!("b{n}")).collect();
        let timeout = format!("{}s", timeout.as_secs());
        let body = json!({
            "project": project,
            "branches": branches,
            "spec": { "default_endpoint_settings": { "suspend_timeout_duration": timeout } },
        });
        self.call("POST", "emulator/asleep", body).await;
    }

    /// A session of an application, which wakes the compute.
    async fn session(&self, project: &str) -> PgConnection {
        let endpoint = primary(project);
        let shown = self.call("GET", &format!("api/2.0/postgres/{endpoint}"), Value::Null).await;
        let hosts = &shown["status"]["hosts"];
        let port = u16::try_from(hosts["port"].as_u64().unwrap_or(5432)).unwrap();
        let place = (hosts["host"].as_str().unwrap(), port);
        let path = "api/2.0/postgres/credentials";
        let minted = self.call("POST", path, json!({ "endpoint": endpoint })).await;
        let user = self.emulator.connection().user.clone();
        let who = (user.as_str(), minted["token"].as_str().unwrap());
        log_in(&self.emulator, place, who, "databricks_postgres").await.unwrap()
    }

    /// The computes that do not sleep.
    async fn awake(&self) -> BTreeSet<String> {
        let listed = self.call("GET", "emulator/endpoints", Value::Null).await;
        let all = listed["endpoints"].as_array().unwrap();
        let awake = all.iter().filter(|it| it["state"] != "IDLE");
        awake.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    }

    /// How many data directories there are, base copies not counted.
    fn data_directories(&self) -> usize {
        let mut found = 0;
        let mut folders = vec![self.place.base.path().to_owned()];
        while let Some(folder) = folders.pop() {
            if folder.join("PG_VERSION").is_file() {
                found += 1;
                continue;
            }
            for entry in std::fs::read_dir(&folder).unwrap().flatten() {
                // Base copies are the past of those that are there.
                if entry.file_type().unwrap().is_dir() && entry.file_name() != "bases" {
                    folders.push(entry.path());
                }
            }
        }
        found
    }

    fn databases(&self) -> Lakebase {
        let file = self.place.state().join("emulator/connection.json");
        let connection = LakebaseConnection::from_emulator(&file).unwrap();
        let redactor = Redactor::default();
        let login = Login::resolve(&connection, &FixedEnvironment::default(), &redactor).unwrap();
        let outside = Outside {
            clock: Arc::<Passing>::clone(&self.clock),
            ids: Arc::new(RandomIds),
            redactor,
            patience: Patience { request: Duration::from_mins(2), ..Patience::default() },
        };
        let client = WorkspaceClient::new(login, outside).unwrap();
        Lakebase::new(client, None, connection.ca_file, &Settings::default().limits)
    }
}

fn primary(project: &str) -> String {
    format!("projects/{project}/branches/production/endpoints/primary")
}

/// What was seen from outside while the server worked.
#[derive(Default)]
struct Seen {
    memory: u64,
    files: usize,
    /// The most computes that were awake at once.
    most_awake: usize,
    ever_awake: BTreeSet<String>,
    /// When the compute that nobody uses was first seen asleep.
    asleep: Option<Timestamp>,
}

/// An application on every compute but the first; it looks around as well.
async fn apply(region: &Region, mut sessions: Vec<PgConnection>, seen: &Mutex<Seen>) {
    loop {
        let soon = region.clock.now().plus(Duration::from_secs(10));
        region.clock.sleep_until(soon).await;
        for session in &mut sessions {
            sqlx::query("select 1").execute(session).await.unwrap();
        }
        let awake = region.awake().await;
        let mut seen = seen.lock().unwrap();
        if !awake.contains(&primary("p0")) && seen.asleep.is_none() {
            seen.asleep = Some(region.clock.now());
        }
        seen.memory = seen.memory.max(super::day::memory());
        seen.files = seen.files.max(open_files());
        seen.most_awake = seen.most_awake.max(awake.len());
        seen.ever_awake.extend(awake);
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct Figures {
    seen: Seen,
    memory_before: u64,
    files_before: usize,
    slept_after: Duration,
    runs: Vec<(String, Outcome)>,
    /// What made runs fail, and how many.
    failures: BTreeMap<String, u64>,
    slots: BTreeMap<SlotFate, u64>,
    data_directories: usize,
}

async fn simulate(scale: Scale) -> Figures {
    let start = Timestamp::parse(scale.start).unwrap();
    let end = start.plus(scale.time);
    let clock = Arc::new(Passing::new((start, end), STRIDE, LOOPS));
    let region = Region::start(Arc::clone(&clock)).await;
    for project in 0..scale.projects {
        region.make(&format!("p{project}"), scale.timeout).await;
    }
    assert!(region.awake().await.is_empty(), "they are made asleep");
    let mut sessions = Vec::new();
    for project in 0..scale.awake {
        let mut session = region.session(&format!("p{project}")).await;
        let table = "create table public.t (id bigint primary key, at timestamptz)";
        sqlx::query(table).execute(&mut session).await.unwrap();
        sessions.push(session);
    }
    // Nobody uses the first one any more.
    drop(sessions.remove(0));
    let left = clock.now();
    let dir = tempfile::tempdir().unwrap();
    let shared: Arc<dyn Clock> = Arc::<Passing>::clone(&clock);
    let journal =
        SqliteJournal::open(dir.path(), Arc::clone(&shared), Redactor::default()).unwrap();
    let parts = Parts {
        ownership: Arc::new(RunLocks::new(dir.path())),
        clock: shared,
        ..parts(
            Arc::<SqliteJournal>::clone(&journal),
            Arc::new(region.databases()),
            Principal { name: "fleet".to_owned(), from: "test".to_owned() },
        )
    };
    let (memory_before, files_before) = (super::day::memory(), open_files());
    let workflows = Shipped::new(scale, Arc::clone(&clock));
    let seen = Mutex::new(Seen::default());
    let begun = std::time::Instant::now();
    {
        let served = serve(parts, &workflows, &*clock, (CancellationToken::new(), MOST_RUNS));
        tokio::select! {
            served = served => served.unwrap(),
            () = apply(&region, sessions, &seen) => {}
        }
    }
    let seen = seen.into_inner().unwrap();
    let mut slots = BTreeMap::new();
    let filter = EntryFilter { kinds: vec!["slots_decided".into()], ..EntryFilter::default() };
    for entry in journal.entries(filter).await.unwrap() {
        if let Event::SlotsDecided { fate, count, .. } = entry.event {
            *slots.entry(fate).or_default() += count;
        }
    }
    let mut failures = BTreeMap::new();
    let filter = EntryFilter { kinds: vec!["ending_began".into()], ..EntryFilter::default() };
    for entry in journal.entries(filter).await.unwrap() {
        if let Event::EndingBegan { failure: Some(failure), .. } = entry.event {
            *failures.entry(failure.code).or_default() += 1;
        }
    }
    let runs = journal.runs(RunFilter::default()).await.unwrap();
    let figures = Figures {
        slept_after: seen.asleep.expect("the unused compute fell asleep").since(left),
        seen,
        memory_before,
        files_before,
        runs: runs.into_iter().map(|run| (run.workflow, run.outcome)).collect(),
        failures,
        slots,
        data_directories: region.data_directories(),
    };
    figures.print(&workflows.scale, begun.elapsed());
    Box::pin(region.emulator.stop()).await.unwrap();
    figures
}

impl Figures {
    fn print(&self, scale: &Scale, took: Duration) {
        let mut by_workflow: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for (workflow, outcome) in &self.runs {
            let outcomes = by_workflow.entry(workflow).or_default();
            *outcomes.entry(outcome.as_str()).or_default() += 1;
        }
        println!(
            "{} branches in {} projects, {} computes awake; {} simulated in {}",
            scale.projects * BRANCHES,
            scale.projects,
            scale.awake,
            humantime::format_duration(scale.time),
            humantime::format_duration(Duration::from_secs(took.as_secs())),
        );
        println!("slots: {:?}; {} runs: {by_workflow:?}", self.slots, self.runs.len());
        println!("failures: {:?}", self.failures);
        println!(
            "memory {} -> {} MiB, open files {} -> {}; at most {} computes awake at once, {} ever, {} data directories",
            self.memory_before,
            self.seen.memory,
            self.files_before,
            self.seen.files,
            self.seen.most_awake,
            self.seen.ever_awake.len(),
            self.data_directories,
        );
        println!(
            "the compute that nobody used slept {} after its last use, with every schedule on",
            humantime::format_duration(Duration::from_secs(self.slept_after.as_secs()))
        );
    }

    fn check(&self, scale: &Scale, interval: Duration) {
        let used: BTreeSet<String> =
            (0..scale.awake).map(|project| primary(&format!("p{project}"))).collect();
        assert_eq!(self.seen.ever_awake, used, "no compute that slept was woken");
        // One more: what they all begin as.
        assert_eq!(self.data_directories, scale.awake + 1 + 1, "the rest was never needed");
        let stride = Duration::from_millis(STRIDE.unsigned_abs());
        let most = scale.timeout + interval + stride * 2;
        assert!(self.slept_after <= most, "{:?} > {most:?}", self.slept_after);
        assert!(self.slots[&SlotFate::LeftAlone] > 0, "{:?}", self.slots);
        assert!(!self.slots.contains_key(&SlotFate::Missed), "{:?}", self.slots);
        let unexpected = self.failures.keys().any(|code| !REFUSED.contains(&code.as_str()));
        assert!(!unexpected, "only what is not to be had may fail here: {:?}", self.failures);
        // A run works on four branches at once at most, and a session has three ends here: ours, and both
        // of the endpoint's.
        let most = self.files_before + MOST_RUNS * 4 * 3;
        assert!(self.seen.files < most, "{} -> {}", self.files_before, self.seen.files);
    }
}

#[test]
fn a_few_minutes_wake_nothing_and_let_the_unused_fall_asleep() {
    by_itself("serve::branches::a_few_minutes");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures its process: the test before it gives it one"]
async fn a_few_minutes() {
    let scale = || Scale {
        start: "2026-12-06T03:01:30Z",
        projects: 2,
        awake: 2,
        time: Duration::from_mins(8),
        timeout: Duration::from_mins(5),
        elsewhere: &["collect_metrics", "watch_health"],
    };
    let figures = Box::pin(simulate(scale())).await;
    figures.check(&scale(), Duration::from_mins(1));
    let looked = figures.runs.iter().filter(|(workflow, _)| workflow == "watch_health").count();
    assert!((6..=8).contains(&looked), "{looked}: once where nobody works, else every minute");
}

/// Fifty projects for so many hours; a Sunday, from shortly before what is done once a week.
async fn five_hundred(hours: u64) {
    let scale = || Scale {
        start: "2026-12-06T02:57:30Z",
        projects: 50,
        awake: 20,
        time: Duration::from_hours(hours),
        timeout: Duration::from_mins(5),
        elsewhere: &["collect_metrics", "health_check", "wraparound_guard", "branch_housekeeping"],
    };
    let figures = Box::pin(simulate(scale())).await;
    figures.check(&scale(), Duration::from_mins(5));
    assert!(figures.seen.memory - figures.memory_before < 400);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: the figures of two hours"]
async fn two_hours_of_five_hundred_branches() {
    five_hundred(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: the figures of a whole day"]
async fn a_day_of_five_hundred_branches() {
    five_hundred(24).await;
}
