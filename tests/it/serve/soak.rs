//! A month of a server, by a clock that jumps, on a disk and a database that fail at random.
//!
//! The server lives again and again: power goes, an operation of the disk fails, the disk is full for a
//! moment, or it is told to stop. Each time it comes back on what the disk held. In the end every slot had
//! its run, every run is over, the chain is whole, and the table holds exactly what the journal says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lakeops::engine::RunLocks;
use lakeops::engine::parts::{Endpoints, Parts};
use lakeops::journal::event::Event;
use lakeops::journal::occasion::Cause;
use lakeops::journal::store::RunFilter;
use lakeops::journal::{Journal as _, JournalError, Outcome, Principal, SqliteJournal, Stream};
use lakeops::kernel::{
    BoxFuture, Clock, Direction, Failure, Redactor, Settlement, Span, Target, Timestamp,
};
use lakeops::postgres::PgEndpoint;
use lakeops::workflow::elements::{CatchUp, Overlap, ScheduleSpec};
use lakeops::workflow::{Library, SourceText};
use tokio_util::sync::CancellationToken;

use super::clock::Jumping;
use super::simulated::{Shop, schedule, serve};
use crate::harness::disk::{Disk, Draws, Fault};
use crate::harness::parts::parts;
use crate::harness::{execute, postgres, value};

const MOST_RUNS: usize = 4;

/// In milliseconds.
const MONTH: i64 = 30 * 86_400_000;

/// One after the other, with a pause that outlives servers.
const DEPOSIT: &str = r#"version: 1
name: deposit
description: Put down twice, with a pause.
steps:
  - id: first
    tool: execute_sql
    retry: { max_attempts: 20, backoff: { initial: 1s } }
    with: { statements: [{ sql: "insert into public.effect values ($1, 'first')", binds: ["${{ run.id }}"] }] }
  - id: pause
    needs: [first]
    wait: { for: 20s }
  - id: second
    needs: [pause]
    tool: execute_sql
    retry: { max_attempts: 20, backoff: { initial: 1s } }
    with: { statements: [{ sql: "insert into public.effect values ($1, 'second')", binds: ["${{ run.id }}"] }] }
"#;

const FAN: &str = r#"version: 1
name: fan
description: Put down five at once.
steps:
  - id: each
    for_each: { in: "${{ [1, 2, 3, 4, 5] }}", key: "n${{ item }}", max_parallel: 3 }
    tool: execute_sql
    retry: { max_attempts: 20, backoff: { initial: 1s } }
    with: { statements: [{ sql: "insert into public.effect values ($1, $2)", binds: ["${{ run.id }}", "n${{ item }}"] }] }
"#;

/// What it does is always undone.
const BOUNCE: &str = r#"version: 1
name: bounce
description: Put down and take back.
steps:
  - id: change
    tool: execute_sql
    retry: { max_attempts: 20, backoff: { initial: 1s } }
    with:
      statements:
        - sql: "insert into public.effect values ($1, 'bounced')"
          binds: ["${{ run.id }}"]
          undo: { sql: "delete from public.effect where run = $1", binds: ["${{ run.id }}"] }
  - id: check
    needs: [change]
    retry: { max_attempts: 20, backoff: { initial: 1s } }
    verify: { tool: monitor_connections, assert: ["false"], every: 1s, within: 2s, on_fail: compensate }
"#;

const WORKFLOWS: [(&str, &str, &str); 3] = [
    ("deposit", DEPOSIT, "0 */6 * * *"),
    ("fan", FAN, "20 3,15 * * *"),
    ("bounce", BOUNCE, "40 */8 * * *"),
];

/// A database that cannot be reached now and then.
struct Unreliable {
    endpoint: PgEndpoint,
    asked: AtomicU64,
    refused: AtomicU64,
}

impl Endpoints for Unreliable {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        let nth = self.asked.fetch_add(1, Ordering::SeqCst);
        let is_up = Draws::new(nth).below(12) > 0;
        self.refused.fetch_add(u64::from(!is_up), Ordering::SeqCst);
        let refusal = || Failure::transient("test::down", "the database is down");
        Box::pin(async move { if is_up { Ok(self.endpoint.clone()) } else { Err(refusal()) } })
    }
}

/// How a life ended.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// By a fault: the process died with it.
    Struck(&'static str),
    /// It was told to stop, and did.
    Stopped,
    /// Killed for no reason.
    Killed,
}

struct Soak {
    state: tempfile::TempDir,
    clock: Arc<Jumping>,
    endpoints: Arc<Unreliable>,
}

impl Soak {
    fn journal(&self) -> Arc<SqliteJournal> {
        self.try_journal().unwrap()
    }

    fn try_journal(&self) -> Result<Arc<SqliteJournal>, JournalError> {
        let clock: Arc<dyn Clock> = Arc::<Jumping>::clone(&self.clock);
        SqliteJournal::open(self.state.path(), clock, Redactor::default())
    }

    async fn serve(&self, stop: CancellationToken) -> Result<(), String> {
        let journal = self.try_journal().map_err(|error| error.to_string())?;
        let principal = Principal { name: "soak".to_owned(), from: "test".to_owned() };
        let parts = Parts {
            ownership: Arc::new(RunLocks::new(self.state.path())),
            clock: Arc::<Jumping>::clone(&self.clock),
            ..parts(journal, Arc::<Unreliable>::clone(&self.endpoints), principal)
        };
        let mut library = Library::new();
        let mut schedules = Vec::new();
        for (name, text, cron) in WORKFLOWS {
            library.add_workflow(SourceText::new(format!("{name}.yaml"), text));
            let spec = ScheduleSpec {
                overlap: Overlap::Allow,
                catch_up: CatchUp::All,
                catch_up_window: Span::from_secs(40 * 86_400),
                ..schedule(name, cron)
            };
            schedules.push((name.to_owned(), spec));
        }
        let shop = Shop::new(library, Arc::clone(&self.clock), schedules);
        let served = serve(parts, &shop, &*self.clock, (stop, MOST_RUNS)).await;
        served.map_err(|error| error.to_string())
    }

    /// One life of the server, in a runtime of its own that dies with it.
    fn live(&self, number: u64, healthy: bool) -> End {
        let mut draws = Draws::new(number);
        let at = 20 + draws.below(300);
        let kinds = [
            ("power went", Some(Fault::PowerCut)),
            ("power went, writes were torn", Some(Fault::TornWrites)),
            ("an operation failed", Some(Fault::InputOutput)),
            ("the disk was full", Some(Fault::Full)),
            ("killed", None),
        ];
        let (name, fault) = kinds[usize::try_from(draws.below(5)).unwrap()];
        let fault = if healthy { None } else { fault };
        let disk = Disk::mount(self.state.path(), fault.map(|fault| (at, fault)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let end = runtime.block_on(async {
            let fate = async {
                loop {
                    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(3)))
                        .await
                        .unwrap();
                    if disk.has_struck() {
                        // Some of what goes on goes on for a moment.
                        let more = Duration::from_millis(at % 20);
                        tokio::task::spawn_blocking(move || std::thread::sleep(more))
                            .await
                            .unwrap();
                        return End::Struck(name);
                    }
                    if !healthy && fault.is_none() && disk.operations() > at {
                        return End::Killed;
                    }
                }
            };
            tokio::select! {
                end = fate => end,
                served = self.serve(stop.clone()) => match served {
                    Ok(()) => End::Stopped,
                    Err(_) if disk.has_struck() => End::Struck(name),
                    Err(error) => panic!("life {number}: {error}"),
                },
            }
        });
        disk.cut_power();
        drop(runtime);
        disk.unmount(number);
        end
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and more"]
async fn a_month_of_faults_loses_nothing_and_repeats_nothing() {
    let endpoint = postgres().await.fresh_database("soak").await;
    let keys = include_str!("../../../sql/engine/create_applied_change.sql");
    let tables =
        ["create schema lakeops", keys, "create table public.effect (run text, what text)"];
    execute(&endpoint, &tables).await;
    let start = Timestamp::parse("2026-12-01T00:01:00Z").unwrap().as_millis();
    let soak = Soak {
        state: tempfile::tempdir().unwrap(),
        clock: Arc::new(Jumping::new(start, start + MONTH).in_strides_of(10 * 60_000)),
        endpoints: Arc::new(Unreliable {
            endpoint: endpoint.clone(),
            asked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }),
    };
    let soak = Arc::new(soak);
    let living = Arc::clone(&soak);
    let ends = tokio::task::spawn_blocking(move || {
        let mut ends: BTreeMap<End, u32> = BTreeMap::new();
        let mut number = 0;
        while !living.clock.is_over() {
            number += 1;
            *ends.entry(living.live(number, false)).or_default() += 1;
        }
        // What was under way at the end of the month may end.
        let end = living.live(number + 1, true);
        assert_eq!(end, End::Stopped);
        ends
    })
    .await
    .unwrap();
    let journal = soak.journal();
    assert_eq!(journal.verify().await.unwrap().broken, None);
    let runs = journal.runs(RunFilter::default()).await.unwrap();
    let mut expected = BTreeSet::new();
    let mut slots: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    let mut outcomes: BTreeMap<(String, &str), u32> = BTreeMap::new();
    for run in &runs {
        *outcomes.entry((run.workflow.clone(), run.outcome.as_str())).or_default() += 1;
        let asleep = run.outcome == Outcome::Waiting && run.wake_at.is_some();
        assert!(run.outcome.is_final() || asleep, "{run:?} neither ended nor will it wake");
        for entry in journal.read(&Stream::Run(run.run_id.clone()), 0).await.unwrap() {
            if let Event::RunCreated { cause, .. } = &entry.event {
                let Some(Cause::Slot { slot, .. }) = cause.as_deref() else { panic!("{cause:?}") };
                slots.entry(&run.workflow).or_default().push(slot.as_millis());
            }
            let Event::ChangeSettled { step, direction, settlement, .. } = &entry.event else {
                continue;
            };
            let what = match step.as_str() {
                "change" => "bounced".to_owned(),
                other => other.trim_start_matches("each[").trim_end_matches(']').to_owned(),
            };
            let effect = (run.run_id.as_str().to_owned(), what);
            assert!(matches!(settlement, Settlement::Applied { .. }), "{settlement:?}");
            match direction {
                Direction::Do => assert!(expected.insert(effect), "{step} twice"),
                Direction::Undo => assert!(expected.remove(&effect), "{step}"),
            }
        }
    }
    let rows = "select coalesce(string_agg(run || ' ' || what, ',' order by run, what), '') from public.effect";
    let rows: String = value(&endpoint, rows).await;
    let texts: Vec<String> = expected.iter().map(|(run, what)| format!("{run} {what}")).collect();
    let mut rows: Vec<&str> = rows.split(',').collect();
    rows.sort_unstable();
    assert_eq!(rows, texts);
    let refused = soak.endpoints.refused.load(Ordering::SeqCst);
    println!("lives {ends:?}; {} effects; {refused} times no database; {outcomes:?}", texts.len());
    // While runs work the clock goes on, so that the month can end some slots late.
    let end = start + MONTH;
    for (name, minute, hours, most) in [
        ("deposit", 0, &[0, 6, 12, 18][..], 30 * 4),
        ("fan", 20, &[3, 15], 30 * 2),
        ("bounce", 40, &[0, 8, 16], 30 * 3),
    ] {
        let mut had = slots.remove(name).unwrap();
        had.sort_unstable();
        assert!(had.is_sorted_by(|one, next| one < next), "{name}: a slot ran twice: {had:?}");
        had.retain(|slot| *slot < end);
        let fires = |at: &i64| {
            let minutes = at / 60_000;
            minutes % 60 == minute && hours.contains(&(minutes / 60 % 24))
        };
        let due: Vec<i64> =
            (start / 60_000 + 1..end / 60_000).map(|it| it * 60_000).filter(fires).collect();
        assert_eq!(had, due, "{name}");
        assert_eq!(had.len(), most, "{name}");
    }
    assert!(ends.len() >= 5, "{ends:?}");
}
