//! More than a server can work on at once: it keeps its order, goes past what waits for a lock, refuses what it has
//! no room for, and leaves slots and events for later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lakeops::engine::RunLocks;
use lakeops::engine::parts::{Endpoints, Parts};
use lakeops::journal::event::Event;
use lakeops::journal::store::{EntryFilter, RunFilter, Stream};
use lakeops::journal::{Entry, Journal as _, Outcome, Principal, SqliteJournal};
use lakeops::kernel::{BoxFuture, Clock, Failure, Redactor, Span, Target, Timestamp};
use lakeops::plan::Plan;
use lakeops::postgres::PgEndpoint;
use lakeops::server::{Most, Occasions, Wanted, Workflows};
use lakeops::workflow::elements::{CatchUp, Overlap, ScheduleSpec};
use lakeops::workflow::{Library, SourceText};
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::Connection as _;
use tokio_util::sync::CancellationToken;

use super::clock::Jumping;
use super::simulated::{Shop, planned, schedule, serve_within};
use super::{CONFIG, Served, entries, execute, project, record, until};
use crate::cli::Project;
use crate::harness::connect;
use crate::harness::parts::parts;

const GATED: &str = r#"version: 1
name: gated
description: Waits for a table that the test has locked, and keeps its own lock meanwhile.
lock: hot
defaults: { retry: { max_attempts: 1000, backoff: { initial: 100ms, factor: 1.0, max: 100ms }, on: [transient, lock_timeout] } }
steps:
  - id: pass
    tool: execute_sql
    with: { statements: ["insert into public.gate values (1)"] }
"#;

const SCRIPT: &str = "// with: n\n#{ n: n + 1 }\n";

fn quick(name: &str, more: &str) -> String {
    format!(
        "version: 1\nname: {name}\ndescription: Adds one.\n{more}steps:\n  - id: add\n    script: sops/one.rhai\n    \
         with: {{ n: 1 }}\n"
    )
}

/// A project whose server takes on so much.
async fn crowded(hint: &str, max_runs: u32, max_queued: u32) -> Project {
    let project = project(hint, "").await;
    let limits = format!("[server]\nmax_runs = {max_runs}\nmax_queued = {max_queued}\n");
    project.write(".config/lakeops.toml", &CONFIG.replace("[server]\n", &limits));
    project.write("sops/one.rhai", SCRIPT);
    project.write("workflows/free.yaml", &quick("free", ""));
    project
}

/// The runs in the order of their first claims.
async fn claimed(project: &Project) -> Vec<String> {
    in_order(entries(project, &["run_claimed"]).await)
}

fn in_order(entries: Vec<Entry>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for Entry { stream, .. } in entries {
        if !order.contains(&stream) {
            order.push(stream);
        }
    }
    order
}

/// Whether something holds within some minutes.
fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    (0..4).any(|_| until(&mut holds))
}

fn succeeded(served: &Served) -> u64 {
    served.metric("lakeops_runs_left_total{outcome=\"succeeded\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_lock_keeps_nobody_and_too_many_are_refused() {
    let project = crowded("serve_overload", 2, 8).await;
    project.write("workflows/gated.yaml", GATED);
    project.write("workflows/hot.yaml", &quick("hot", "lock: hot\n"));
    let trigger = "triggers: [{ event: branch_created, overlap: allow }]\n";
    project.write("workflows/triggered.yaml", &quick("triggered", trigger));
    execute(&project, "create table public.gate as select 0 as n").await;
    let mut session = connect(&project.endpoint()).await;
    let mut gate = session.begin().await.unwrap();
    sqlx::query("lock table public.gate in share mode").execute(&mut *gate).await.unwrap();

    let served = Served::start(&project, &[]);
    let start = |workflow: &str, key: Option<&str>| {
        served.api("POST /v1/runs", key, &json!({ "workflow": workflow }).to_string())
    };
    let (status, run) = start("gated", None);
    assert_eq!(status, 202, "{run}");
    let gated = format!("GET /v1/runs/{}", run["run_id"].as_str().unwrap());
    let mut seen = json!(null);
    let mut is_at_work = || {
        seen = served.api(&gated, None, "").1;
        seen["steps"][0]["state"] == "running"
    };
    assert!(eventually(&mut is_at_work), "{seen:#}");
    let mut hot = Vec::new();
    let mut accept = |key: Option<&str>| {
        let (status, run) = start("hot", key);
        if status == 202 {
            hot.push(run["run_id"].as_str().unwrap().to_owned());
        }
        (status, run)
    };
    for number in 0..5 {
        assert_eq!(accept((number == 0).then_some("first")).0, 202);
    }
    for _ in 0..2 {
        assert_eq!(start("free", None).0, 202);
    }
    let free = eventually(|| succeeded(&served) == 2);
    assert!(free, "who needs no lock waits behind those who do");

    // Two at work, eight in the queue, and no more.
    let refused = (0..20).map(|_| accept(None)).find(|(status, _)| *status != 202).unwrap();
    assert_eq!((refused.0, &refused.1["error"]["code"]), (429, &json!("server::overloaded")));
    assert_eq!(hot.len(), 9);
    let (status, again) = start("hot", Some("first"));
    assert_eq!((status, again["run_id"].as_str()), (202, Some(hot[0].as_str())), "it is there");
    let bearer = format!("Bearer {}", super::TOKEN);
    let body = json!({ "workflow": "free" }).to_string();
    let answer = served.whole("POST /v1/runs", &[("Authorization", &bearer)], &body).unwrap();
    assert!(answer.to_lowercase().contains("\r\nretry-after: 5\r\n"), "{answer}");
    for number in 0..2 {
        let name = "branch_created".to_owned();
        let event = Event::EventPublished { name, payload: json!({ "n": number }), depth: 0 };
        record(&project, Stream::System, event).await;
    }
    let looked = || {
        serde_json::from_str::<serde_json::Value>(&served.ask("GET /health", &[], "").1).unwrap()["looked_at"].clone()
    };
    for _ in 0..3 {
        let before = looked();
        assert!(eventually(|| looked() != before));
    }
    assert_eq!(entries(&project, &["trigger_decided"]).await.len(), 0, "there is no room");

    gate.rollback().await.unwrap();
    assert!(eventually(|| succeeded(&served) == 1 + 9 + 2 + 2));
    assert_eq!(entries(&project, &["trigger_decided"]).await.len(), 2, "each event once");
    let order = claimed(&project).await;
    let order: Vec<&String> = order.iter().filter(|run| hot.contains(run)).collect();
    assert!(order.into_iter().eq(&hot), "first come, first served");
    session.close().await.unwrap();
    assert_eq!(served.end(Signal::SIGTERM), Some(0));
}

/// From several clients at once: all end, in their order, and the history has every one.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_starts_are_worked_off_in_their_order() {
    const AT_ONCE: usize = 4;
    const CLIENTS: usize = 8;
    const EACH: usize = 125;
    let project = crowded("serve_thousand", u32::try_from(AT_ONCE).unwrap(), 2_000).await;
    let served = Served::start(&project, &[]);
    let slowest = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let asked = Instant::now();
                    let (status, run) =
                        served.api("POST /v1/runs", None, "{\"workflow\":\"free\"}");
                    assert_eq!(status, 202, "{run}");
                    let took = u64::try_from(asked.elapsed().as_millis()).unwrap();
                    slowest.fetch_max(took, Ordering::SeqCst);
                }
            });
        }
    });
    let started = begun.elapsed();
    let all = u64::try_from(CLIENTS * EACH).unwrap();
    let wait = Instant::now();
    while succeeded(&served) < all {
        assert!(wait.elapsed().as_secs() < 600, "{} of {all}", succeeded(&served));
        std::thread::sleep(Duration::from_millis(50));
    }
    let (took, slowest) = (begun.elapsed(), slowest.load(Ordering::SeqCst));
    let memory = super::day::memory_of(&served.child.id().to_string());
    println!(
        "{all} runs: accepted within {started:?}, the slowest answer took {slowest} ms; all over after {took:?}, \
         the server then held {memory} MiB"
    );
    assert!(slowest < 60_000, "an answer took {slowest} ms");
    assert!(memory < 500, "{memory} MiB");
    let created: Vec<String> =
        entries(&project, &["run_created"]).await.into_iter().map(|entry| entry.stream).collect();
    keeps_order(&created, &claimed(&project).await, AT_ONCE);
    assert_eq!(served.end(Signal::SIGTERM), Some(0));
    // Who ends appends the rest: runs do not wait for their rows.
    let rows = project.json(&["history", "query", "select count(*) as n from workflow_runs"]);
    assert_eq!(rows[0]["n"], json!(all), "{rows}");
}

/// Nobody is overtaken by more than a few times as many as work at once: who was taken up together may come to the
/// journal in any order.
fn keeps_order(created: &[String], claimed: &[String], at_once: usize) {
    assert_eq!(created.len(), claimed.len());
    let place: BTreeMap<&String, usize> =
        created.iter().enumerate().map(|(n, id)| (id, n)).collect();
    for (taken, run) in claimed.iter().enumerate() {
        let apart = taken.abs_diff(place[run]);
        assert!(
            apart < 4 * at_once,
            "{run} came as number {} and was taken as {taken}",
            place[run]
        );
    }
}

/// Many schedules that are due at the same moment.
struct Rush {
    library: Library,
    clock: Arc<Jumping>,
    schedules: u32,
    told: AtomicBool,
    plan: OnceLock<Plan>,
}

impl Workflows for Rush {
    fn occasions(&self) -> Option<Occasions> {
        if self.told.swap(true, Ordering::SeqCst) {
            return None;
        }
        let rushing = |number| {
            let spec = ScheduleSpec {
                overlap: Overlap::Allow,
                catch_up: CatchUp::All,
                catch_up_window: Span::from_secs(36_000),
                ..schedule(&format!("rush_{number}"), "0 * * * *")
            };
            ("free".to_owned(), spec)
        };
        let schedules = (0..self.schedules).map(rushing).collect();
        Some(Occasions { schedules, ..Occasions::default() })
    }

    fn plan(&self, _wanted: &Wanted) -> Result<Plan, Failure> {
        let place = ("nowhere", Target::default());
        let plan = || planned(&self.library, "free", place, self.clock.now()).unwrap();
        Ok(self.plan.get_or_init(plan).clone())
    }
}

/// There is no database.
struct Nowhere;

impl Endpoints for Nowhere {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        Box::pin(async { Err(Failure::permanent("test::nowhere", "there is no database")) })
    }
}

/// All schedules are due at once, two hours long; each slot has its run, and no more are open than fit.
async fn rush(schedules: u32) {
    let dir = tempfile::tempdir().unwrap();
    let start = Timestamp::parse("2026-12-01T00:30:00Z").unwrap().as_millis();
    let clock = Arc::new(Jumping::new(start, start + 2 * 3_600_000));
    let (parts, journal) = without_database(dir.path(), &clock);
    let mut library = Library::new().with_script("sops/one.rhai", SCRIPT);
    library.add_workflow(SourceText::new("free.yaml", quick("free", "")));
    let (told, plan) = (AtomicBool::new(false), OnceLock::new());
    let rush = Rush { library, clock: Arc::clone(&clock), schedules, told, plan };
    let most = Most { at_once: 4, queued: 16 };
    let begun = Instant::now();
    serve_within(parts, &rush, &*clock, (CancellationToken::new(), most)).await.unwrap();
    let runs = journal.runs(RunFilter::default()).await.unwrap();
    let all = usize::try_from(2 * schedules).unwrap();
    assert_eq!(runs.len(), all, "each slot of each schedule has its run");
    assert!(runs.iter().all(|run| run.outcome == Outcome::Succeeded));
    let (mut open, mut highest) = (0_usize, 0);
    let of_kinds = |kinds: &[&str]| EntryFilter {
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        ..EntryFilter::default()
    };
    for entry in journal.entries(of_kinds(&["run_created", "run_finished"])).await.unwrap() {
        match entry.event {
            Event::RunCreated { .. } => open += 1,
            _ => open -= 1,
        }
        highest = highest.max(open);
    }
    println!("{all} slots in {:?}; at most {highest} runs open at once", begun.elapsed());
    assert!(highest <= most.at_once + most.queued, "{highest} runs were open at once");
    assert!(highest > most.at_once, "nothing was ever in the queue");
    let created = in_order(journal.entries(of_kinds(&["run_created"])).await.unwrap());
    let claimed = in_order(journal.entries(of_kinds(&["run_claimed"])).await.unwrap());
    keeps_order(&created, &claimed, most.at_once);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_come_due_together_are_held_back_and_none_is_lost() {
    rush(60).await;
}

/// What lies between a server and its database here: nothing is asked of it.
fn without_database(dir: &Path, clock: &Arc<Jumping>) -> (Parts, Arc<SqliteJournal>) {
    let shared: Arc<dyn Clock> = Arc::<Jumping>::clone(clock);
    let journal = SqliteJournal::open(dir, Arc::clone(&shared), Redactor::default()).unwrap();
    let principal = Principal { name: "rush".to_owned(), from: "test".to_owned() };
    let parts = Parts {
        ownership: Arc::new(RunLocks::new(dir)),
        clock: shared,
        ..parts(Arc::<SqliteJournal>::clone(&journal), Arc::new(Nowhere), principal)
    };
    (parts, journal)
}

const HELD: &str = "version: 1
name: held
description: Waits for days.
steps:
  - id: pause
    wait: { for: 100h }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_waits_for_its_run_takes_no_room_from_one_that_is_due() {
    let dir = tempfile::tempdir().unwrap();
    // One server sees both schedules; the next one, half a day later, catches up on the first of them.
    for (from, until) in [("00:30:00", "00:45:00"), ("12:30:00", "14:30:30")] {
        let at = |time: &str| Timestamp::parse(&format!("2026-12-01T{time}Z")).unwrap().as_millis();
        let clock = Arc::new(Jumping::new(at(from), at(until)));
        let (parts, journal) = without_database(dir.path(), &clock);
        let mut library = Library::new().with_script("sops/one.rhai", SCRIPT);
        library.add_workflow(SourceText::new("free.yaml", quick("free", "")));
        library.add_workflow(SourceText::new("held.yaml", HELD));
        let held = ScheduleSpec {
            catch_up: CatchUp::All,
            catch_up_window: Span::from_secs(360_000),
            ..schedule("a_held", "0 * * * *")
        };
        let free = schedule("b_free", "*/10 * * * *");
        let schedules = vec![("held".to_owned(), held), ("free".to_owned(), free)];
        let shop = Shop::new(library, clock, schedules);
        // Room for one start.
        let most = Most { at_once: 1, queued: 0 };
        let serving = serve_within(parts, &shop, shop.clock(), (CancellationToken::new(), most));
        let served = tokio::time::timeout(Duration::from_mins(10), serving).await;
        served.expect("the clock stands still when the server never rests").unwrap();
        let runs = journal.runs(RunFilter::default()).await.unwrap();
        let of = |workflow: &str| runs.iter().filter(|run| run.workflow == workflow).count();
        let expected = if until == "00:45:00" { (0, 1) } else { (1, 1 + 12) };
        assert_eq!((of("held"), of("free")), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: a thousand schedules at the same moment"]
async fn a_thousand_slots_at_once_are_held_back_and_none_is_lost() {
    rush(1_000).await;
}
