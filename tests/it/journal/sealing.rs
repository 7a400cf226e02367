//! Runs that are sealed: what goes, what stays, and that nobody can make a hole without a seal.

use std::path::Path;
use std::sync::Arc;

use lakeops::engine::parts::Unobserved;
use lakeops::engine::{Engine, EngineError};
use lakeops::journal::conformance::{TurnedClock, sample_plan};
use lakeops::journal::event::{Compensation, Decision, Fact, Found};
use lakeops::journal::retention::{held_against, next, seal_next, seal_of};
use lakeops::journal::store::{EntryFilter, MOST_EARLIER, Retention, RunFilter, Sealed, Sealing};
use lakeops::journal::{
    Durability, Event, Expect, Journal, JournalError, Outcome, SqliteJournal, verify_against,
};
use lakeops::kernel::{Digest, Redactor, RunId, Span, Timestamp};
use lakeops::postgres::PgEndpoint;
use lakeops::tools::Catalog;
use lakeops::tools::tool::HistoryRow;
use rusqlite::Connection;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::sample::{append, attempt, begin, begun, created, run, somebody};
use crate::harness::disk::{Disk, Draws, Fault};
use crate::harness::parts::parts;

const DAY: i64 = 24 * 3_600 * 1_000;
const BEGIN: i64 = 1_700_000_000_000;

/// A journal whose clock stands so many days after the begin.
fn open_at(state: &Path, day: i64) -> Arc<SqliteJournal> {
    let clock = TurnedClock::default();
    clock.turn(Timestamp::from_millis(BEGIN + day * DAY));
    SqliteJournal::open(state, Arc::new(clock), Redactor::default()).unwrap()
}

/// Runs that were over for a year, 400 days after the begin.
fn old() -> Sealing {
    old_on(400)
}

/// Runs that were over for a year, so many days after the begin.
fn old_on(day: i64) -> Sealing {
    let now = Timestamp::from_millis(BEGIN + day * DAY);
    Sealing {
        runs: Vec::new(),
        retention: Retention::of(Span::parse("365d").unwrap(), now, u64::MAX),
        by: somebody(),
        in_history: false,
        archive: None,
    }
}

/// A run that begins, or goes on, at once on disk or not.
async fn quick(journal: &dyn Journal, id: &str, expect: Expect, events: Vec<Event>) {
    let batch = append(&run(id), expect, events);
    assert_eq!(journal.append(batch, Durability::Buffered).await.unwrap(), []);
}

async fn write(journal: &dyn Journal, id: &str, events: Vec<Event>) {
    let batch = append(&run(id), Expect::Claim(2), events);
    journal.append(batch, Durability::Synced).await.unwrap();
}

fn ended() -> Event {
    let (outcome, compensation) = (Outcome::Succeeded, Compensation::None);
    Event::RunFinished { outcome, compensation, outputs: json!({ "n": 1 }) }
}

fn succeeded(step: &str, fact: Option<Found>) -> Event {
    let (step, output) = (step.to_owned(), json!({ "found": step }).into());
    Event::StepSucceeded { step, output, history: Vec::new().into(), seen: Vec::new(), fact }
}

fn found(tool: &str) -> Found {
    let name = Fact { tool: tool.into(), place: "here".into() };
    Found::new(name, Some(json!({ "carried": 1 })))
}

/// What others look for in the events of a run.
fn lasting() -> Vec<Event> {
    let override_ = Event::Override {
        what: "freeze -/-/-".into(),
        by: somebody(),
        reason: "release".into(),
        expires: None,
    };
    let published =
        Event::EventPublished { name: "healed".into(), payload: json!({ "n": 1 }), depth: 0 };
    let approved = Event::ApprovalDecided {
        step: "heal".into(),
        digest: Digest::of_bytes(b"set"),
        decision: Decision::Approved,
        by: somebody(),
        reason: "needed".into(),
    };
    let title = "it waits".to_owned();
    let told =
        Event::notification("n".into(), lakeops::kernel::Severity::Info, title, String::new());
    vec![approved, override_, published, told]
}

/// Two runs that are over, between which a third one waits, written in turns: `aaaa` and `bbbb` end on the
/// first day, `cccc` waits, `dddd` ends on the 399th.
pub(super) async fn written(state: &Path) -> Arc<SqliteJournal> {
    let journal = open_at(state, 0);
    journal.put_plan(&sample_plan("sweep").unwrap()).await.unwrap();
    for id in ["aaaa", "bbbb", "cccc"] {
        begin(&*journal, id).await;
    }
    for number in 0..4 {
        for id in ["aaaa", "bbbb", "cccc"] {
            let step = format!("s{number}");
            write(&*journal, id, vec![attempt(&step, 200), succeeded(&step, None)]).await;
        }
    }
    write(&*journal, "aaaa", lasting()).await;
    write(&*journal, "bbbb", vec![ended()]).await;
    write(&*journal, "aaaa", vec![ended()]).await;
    drop(journal);
    let journal = open_at(state, 399);
    begin(&*journal, "dddd").await;
    write(&*journal, "dddd", vec![attempt("s", 10), ended()]).await;
    drop(journal);
    open_at(state, 400)
}

async fn sealed_runs(journal: &dyn Journal) -> Vec<(String, u64)> {
    let runs = journal.runs(RunFilter::default()).await.unwrap();
    let sealed = runs.into_iter().filter_map(|run| Some((run.run_id.to_string(), run.sealed?)));
    let mut sealed: Vec<_> = sealed.collect();
    sealed.sort();
    sealed
}

/// The hash of every event, as it was before anything was sealed.
async fn hashes(journal: &dyn Journal) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for position in 0..=journal.head().await.unwrap().position + 1 {
        all.push(journal.hash_at(position).await.unwrap());
    }
    all
}

#[tokio::test]
async fn what_was_over_long_ago_goes_and_the_chain_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = written(dir.path()).await;
    let before = hashes(&*journal).await;
    let (head, whole) = (journal.head().await.unwrap(), journal.verify().await.unwrap());
    assert_eq!((whole.broken, whole.sealed), (None, Sealed::default()));
    // Kept elsewhere when an event was the newest that only a link is left of now.
    let kept = lakeops::journal::store::Head {
        position: 9,
        hash: before[9].clone().unwrap(),
        journal: head.journal.clone(),
    };
    let raw = journal.raw(&RunId::new("aaaa")).await.unwrap();

    let found = next(&*journal, old().retention).await.unwrap();
    let names: Vec<_> = found.iter().map(|one| (one.run.as_str(), one.events)).collect();
    assert_eq!(names, [("aaaa", 9), ("bbbb", 9)]);
    assert!(found[0].bytes > 1_000, "{found:?}");
    let sealed = seal_next(&*journal, &old()).await.unwrap();
    assert_eq!(sealed, Sealed { runs: 2, events: 18 });
    assert_eq!(seal_next(&*journal, &old()).await.unwrap(), Sealed::default());

    assert_eq!(sealed_runs(&*journal).await, [("aaaa".into(), 9), ("bbbb".into(), 9)]);
    let left = journal.read(&run("aaaa"), 0).await.unwrap();
    let kinds: Vec<_> = left.iter().map(|entry| (entry.seq, entry.event.kind())).collect();
    let expected = [
        (1, "run_created"),
        (11, "approval_decided"),
        (12, "override"),
        (13, "event_published"),
        (14, "notification_queued"),
        (15, "run_finished"),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(journal.read(&run("cccc"), 0).await.unwrap().len(), 10);
    assert_eq!(journal.read(&run("dddd"), 0).await.unwrap().len(), 4);

    // Every hash can still be worked out, and a head from then still holds.
    let found = journal.verify().await.unwrap();
    assert_eq!((found.broken, found.sealed), (None, Sealed { runs: 2, events: 18 }));
    assert_eq!((found.events, found.head.position), (head.position + 1, head.position + 1));
    assert_eq!(hashes(&*journal).await[..before.len() - 1], before[..before.len() - 1]);
    assert_eq!(verify_against(&*journal, &head).await.unwrap().broken, None);
    assert_eq!(verify_against(&*journal, &kept).await.unwrap().broken, None);
    let other = lakeops::journal::store::Head { hash: before[8].clone().unwrap(), ..kept };
    assert_eq!(verify_against(&*journal, &other).await.unwrap().broken.unwrap().position, 9);

    // What was kept elsewhere can be held against it.
    for event in &raw {
        assert_eq!(held_against(&*journal, event).await.unwrap(), None, "{event:?}");
    }
    let mut forged = raw[3].clone();
    forged.payload = forged.payload.replace("s0", "s9");
    let broken = held_against(&*journal, &forged).await.unwrap().unwrap();
    assert_eq!((broken.position, broken.event.as_deref()), (raw[3].position, Some("aaaa#4")));
    forged.position = 10_000;
    assert!(held_against(&*journal, &forged).await.unwrap().is_some());

    // The seal says who, and opened anew it is the same.
    drop(journal);
    let journal = open_at(dir.path(), 401);
    let seal = seal_of(&*journal, &RunId::new("bbbb")).await.unwrap().unwrap();
    assert!(
        matches!(&seal.event, Event::RunsSealed { by, runs, .. } if *by == somebody() && runs.len() == 2)
    );
    assert_eq!(journal.verify().await.unwrap().broken, None);
}

#[tokio::test]
async fn what_others_look_for_is_the_same_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_at(dir.path(), 0);
    let keyed = |key: &str| match created() {
        Event::RunCreated { plan, workflow, target, by, .. } => Event::RunCreated {
            plan,
            workflow,
            target,
            key: Some(key.into()),
            by,
            yes: false,
            forked_from: None,
            cause: None,
        },
        other => other,
    };
    let slot = "slot of nightly at 2023-11-14T22:00:00Z";
    let claimed = Event::RunClaimed { by: somebody(), pid: 1 };
    let batch = append(&run("aaaa"), Expect::Last(0), vec![keyed(slot), claimed]);
    journal.append(batch, Durability::Synced).await.unwrap();
    write(&*journal, "aaaa", vec![attempt("look", 10), succeeded("look", Some(found("a")))]).await;
    write(&*journal, "aaaa", [lasting(), vec![ended()]].concat()).await;
    // Newer looks go on from themselves; the other tool's newest look stays where it is.
    begin(&*journal, "bbbb").await;
    write(&*journal, "bbbb", vec![succeeded("look", Some(found("b"))), ended()]).await;
    begin(&*journal, "cccc").await;
    let looks: Vec<_> = (0..300).map(|_| succeeded("look", Some(found("a")))).collect();
    write(&*journal, "cccc", looks).await;
    drop(journal);
    let journal = open_at(dir.path(), 400);
    let kinds =
        || EntryFilter { kinds: Event::STAYS.map(str::to_owned).into(), ..EntryFilter::default() };
    let rare = || EntryFilter { kinds: vec!["override".to_owned()], ..EntryFilter::default() };
    let name = |tool: &str| Fact { tool: tool.into(), place: "here".into() };
    let look = async || {
        (
            journal.entries(kinds()).await.unwrap(),
            journal.entries(rare()).await.unwrap(),
            journal.facts(&name("a"), 300).await.unwrap(),
            journal.facts(&name("b"), 300).await.unwrap(),
            journal.decisions(&run("aaaa"), 0).await.unwrap(),
        )
    };
    let before = look().await;
    assert_eq!((before.1.len(), before.2.len(), before.3.len(), before.4.len()), (1, 300, 1, 2));
    assert_eq!(seal_next(&*journal, &old()).await.unwrap().runs, 1);
    // A look that the next one goes on from keeps its run; only then is it time.
    assert_eq!(sealed_runs(&*journal).await, [("aaaa".into(), 3)]);
    assert_eq!(look().await, before);
    // The slot's run was started, and is not started again; nobody writes into the run any more.
    let again = append(&run("eeee"), Expect::Last(0), vec![keyed(slot)]);
    let again = journal.append(again, Durability::Synced).await;
    assert!(matches!(again, Err(JournalError::DuplicateKey { run, .. }) if run.as_str() == "aaaa"));
    for expect in [Expect::Claim(2), Expect::Last(0), Expect::Last(8)] {
        let late = append(&run("aaaa"), expect, vec![attempt("late", 1)]);
        let late = journal.append(late, Durability::Synced).await;
        assert!(matches!(late, Err(JournalError::Conflict { .. })), "{expect:?}: {late:?}");
    }
    // Since a time: found by halves, over the hole.
    let since = Some(Timestamp::from_millis(BEGIN + 399 * DAY));
    let late = EntryFilter { since, ..EntryFilter::default() };
    assert_eq!(journal.entries(late).await.unwrap().len(), 1, "the seal");
    let since = Some(Timestamp::from_millis(BEGIN));
    let all = EntryFilter { since, ..EntryFilter::default() };
    let every = journal.entries(EntryFilter::default()).await.unwrap();
    assert_eq!(journal.entries(all).await.unwrap(), every);
    assert_eq!(journal.verify().await.unwrap().broken, None);
}

/// Whoever folds a kind over all runs must find it in sealed ones.
#[test]
fn every_kind_that_is_looked_for_in_all_runs_stays() {
    let sources = lakeops::alert::outbox::SOURCES;
    let kinds = sources
        .into_iter()
        .chain(lakeops::schedule::triggers::EVENT_KINDS)
        .chain(lakeops::journal::rehearsal::EVIDENCE_KINDS)
        .chain(Event::DECISIONS);
    for kind in kinds {
        assert!(Event::STAYS.contains(&kind), "{kind} would go with its run");
    }
}

/// An output that a tool goes on from keeps its run.
#[test]
fn no_tool_goes_on_from_more_outputs_than_keep_their_runs() {
    for tool in Catalog::builtin().iter() {
        let earlier = tool.erased().earlier();
        assert!(earlier <= MOST_EARLIER, "{} goes on from {earlier}", tool.meta().name);
    }
}

#[tokio::test]
async fn files_rows_and_plans_of_sealed_runs_go_when_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_at(dir.path(), 0);
    let plan = sample_plan("sweep").unwrap();
    journal.put_plan(&plan).await.unwrap();
    begin(&*journal, "aaaa").await;
    begin(&*journal, "bbbb").await;
    let row = |n: u32| HistoryRow { table: "t".into(), row: json!({ "n": n }) };
    let rows = Event::StepSucceeded {
        step: "rows".into(),
        output: json!({}).into(),
        history: (0..500).map(row).collect::<Vec<_>>().into(),
        seen: Vec::new(),
        fact: None,
    };
    let big = attempt("big", 2 * 1024 * 1024);
    write(&*journal, "aaaa", vec![big.clone(), rows, ended()]).await;
    // The same payload, in a run that goes later.
    write(&*journal, "bbbb", vec![big]).await;
    let raw = journal.raw(&RunId::new("aaaa")).await.unwrap();
    assert!(raw[3].rows.as_ref().unwrap().contains("columns"), "{:?}", raw[3].rows);
    drop(journal);
    let files = || {
        let folders = std::fs::read_dir(dir.path().join("blobs")).unwrap();
        folders.map(|one| std::fs::read_dir(one.unwrap().path()).unwrap().count()).sum::<usize>()
    };
    let journal = open_at(dir.path(), 400);
    assert_eq!(seal_next(&*journal, &old()).await.unwrap().runs, 1);
    journal.seal(old()).await.unwrap();
    assert_eq!(files(), 1, "another run names it");
    assert!(journal.plan(&plan.id).await.unwrap().is_some(), "another run needs it");
    for event in &raw {
        assert_eq!(held_against(&*journal, event).await.unwrap(), None);
    }
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    let bodies: i64 = conn.query_row("select count(*) from body", (), |row| row.get(0)).unwrap();
    assert_eq!(bodies, 0);

    write(&*journal, "bbbb", vec![ended()]).await;
    drop(journal);
    let journal = open_at(dir.path(), 800);
    assert_eq!(seal_next(&*journal, &old_on(800)).await.unwrap().runs, 1);
    journal.seal(old_on(800)).await.unwrap();
    assert_eq!(files(), 0);
    assert!(journal.plan(&plan.id).await.unwrap().is_some(), "somebody may be about to need it");
    // Somebody is.
    journal.put_plan(&plan).await.unwrap();
    drop(journal);
    let journal = open_at(dir.path(), 802);
    journal.seal(old_on(802)).await.unwrap();
    assert!(journal.plan(&plan.id).await.unwrap().is_some());
    begin(&*journal, "cccc").await;
    write(&*journal, "cccc", vec![ended()]).await;
    drop(journal);
    let journal = open_at(dir.path(), 1_300);
    assert_eq!(seal_next(&*journal, &old_on(1_300)).await.unwrap().runs, 1);
    drop(journal);
    let journal = open_at(dir.path(), 1_302);
    journal.seal(old_on(1_302)).await.unwrap();
    assert!(journal.plan(&plan.id).await.unwrap().is_none());
    // Who asks for a run whose plan is gone as well is told that it is sealed.
    let nowhere = PgEndpoint::socket(dir.path(), 1, "nobody", "none");
    let engine =
        Engine::new(parts(Arc::<SqliteJournal>::clone(&journal), Arc::new(nowhere), somebody()));
    let told = engine.load(&RunId::new("cccc")).await.map(drop);
    assert!(matches!(told, Err(EngineError::Sealed { .. })), "{told:?}");
    let told =
        engine.execute(&RunId::new("cccc"), CancellationToken::new(), Arc::new(Unobserved)).await;
    assert!(matches!(told, Err(EngineError::Sealed { .. })), "{told:?}");
    assert_eq!(journal.verify().await.unwrap().broken, None);
}

/// Does something by SQL to a journal with sealed runs, and verifies it.
async fn after(sql: &str) -> (u64, String) {
    let dir = tempfile::tempdir().unwrap();
    let journal = written(dir.path()).await;
    seal_next(&*journal, &old()).await.unwrap();
    drop(journal);
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    conn.execute_batch(sql).unwrap();
    drop(conn);
    let found = open_at(dir.path(), 401).verify().await.unwrap().broken;
    let found = found.unwrap_or_else(|| panic!("nothing was found after `{sql}`"));
    (found.position, found.what)
}

#[tokio::test]
async fn tampering_with_what_is_left_is_located() {
    // Positions 1 to 6 begin the runs; 7 and 8 are of `aaaa`, 9 and 10 of `bbbb`, 11 and 12 of `cccc`.
    let digest = "update links set digests = cast(x'ff' || substr(digests, 2) as blob)";
    let cases = [
        // The first bare link is the claim of `aaaa`, at 2; the next event after it is at 3.
        (digest, 3, "does not follow"),
        ("delete from links", 2, "is missing"),
        ("update links set edge = zeroblob(32)", 2, "before its window"),
        ("update links set columns = zeroblob(9)", 1, "unpacked"),
        ("update links set window = 1", 1, "wrong window"),
        ("delete from event where position = 5", 5, "is missing"),
        (
            "delete from event where kind = 'runs_sealed'",
            2,
            "nothing says that run aaaa was sealed",
        ),
        ("delete from event where kind = 'approval_decided'", 31, "is missing"),
        ("update run set sealed = null where run_id = 'aaaa'", 0, "the table `run`"),
        ("update run set sealed = 8 where run_id = 'bbbb'", 0, "the table `run`"),
    ];
    for (sql, position, what) in cases {
        let found = after(sql).await;
        assert_eq!(found.0, position, "{sql}: {found:?}");
        assert!(found.1.contains(what), "{sql}: {found:?}");
    }
}

#[tokio::test]
async fn a_hole_without_a_seal_is_found_though_every_hash_fits() {
    let dir = tempfile::tempdir().unwrap();
    let journal = written(dir.path()).await;
    drop(journal);
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("journal.db"), copy.path().join("journal.db")).unwrap();
    let journal = open_at(dir.path(), 400);
    seal_next(&*journal, &old()).await.unwrap();
    drop(journal);
    // A forger who knows the program: the links of a real sealing, the same rows deleted, all derived tables
    // as they would be, only without the event that says so.
    let conn = Connection::open(copy.path().join("journal.db")).unwrap();
    let real = dir.path().join("journal.db");
    conn.execute("attach ?1 as sealed", [real.to_str().unwrap()]).unwrap();
    conn.execute_batch(
        "insert into links select * from sealed.links;
         delete from event where position not in (select position from sealed.event);",
    )
    .unwrap();
    drop(conn);
    let broken = open_at(copy.path(), 401).verify().await.unwrap().broken.unwrap();
    assert_eq!(broken.position, 2);
    assert!(broken.what.contains("nothing says that run"), "{}", broken.what);
}

#[tokio::test]
async fn what_was_changed_is_not_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = written(dir.path()).await;
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    let change = "update event set payload = replace(payload, 's0', 's9') where position = 7";
    conn.execute_batch(change).unwrap();
    let refused = seal_next(&*journal, &old()).await;
    let Err(JournalError::Corrupt { place, what }) = refused else { panic!("{refused:?}") };
    assert!(place == "event 7" && what.contains("digest"), "{place}: {what}");
    assert_eq!(sealed_runs(&*journal).await, []);
    assert_eq!(journal.verify().await.unwrap().broken.unwrap().position, 7);
    // The journal goes on, and once the event is as it was, so does the sealing.
    conn.execute_batch(&change.replace("'s0', 's9'", "'s9', 's0'")).unwrap();
    write(&*journal, "cccc", vec![attempt("more", 1)]).await;
    assert_eq!(seal_next(&*journal, &old()).await.unwrap().runs, 2);
    assert_eq!(journal.verify().await.unwrap().broken, None);
}

#[tokio::test]
async fn whatever_is_sealed_in_which_order_the_chain_is_the_same() {
    for seed in 0..1 {
        let mut draws = Draws::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let journal = open_at(dir.path(), 0);
        let mut open: Vec<String> = Vec::new();
        let mut over = Vec::new();
        // More than three windows of links, and runs that reach from one to the next.
        for number in 0..120 {
            let id = format!("{number:04}");
            quick(&*journal, &id, Expect::Last(0), begun()).await;
            open.push(id);
            for _ in 0..6 {
                let at = usize::try_from(draws.below(open.len() as u64)).unwrap();
                let count = usize::try_from(draws.below(8)).unwrap();
                let events = (0..=count).map(|n| attempt(&format!("s{n}"), n * 9)).collect();
                quick(&*journal, &open[at], Expect::Claim(2), events).await;
                if draws.below(8) == 0 {
                    quick(&*journal, &open[at], Expect::Claim(2), vec![ended()]).await;
                    over.push(open.swap_remove(at));
                    if open.is_empty() {
                        break;
                    }
                }
            }
        }
        journal.append(Vec::new(), Durability::Synced).await.unwrap();
        let before = hashes(&*journal).await;
        assert!(before.len() > 3_000 && over.len() > 50, "{} {}", before.len(), over.len());
        drop(journal);
        let journal = open_at(dir.path(), 400);
        let mut count = 0;
        while !over.is_empty() {
            let mut sealing = old();
            for _ in 0..=draws.below(9) {
                if !over.is_empty() {
                    let at = usize::try_from(draws.below(over.len() as u64)).unwrap();
                    sealing.runs.push(RunId::new(over.swap_remove(at)));
                }
            }
            // One that waits is left as it is.
            sealing.runs.extend(open.first().map(RunId::new));
            let wanted = sealing.runs.len() as u64 - u64::from(!open.is_empty());
            let sealed = journal.seal(sealing).await.unwrap();
            assert_eq!(sealed.runs, wanted);
            count += sealed.events;
            if draws.below(8) == 0 {
                assert_eq!(journal.verify().await.unwrap().broken, None);
            }
        }
        let found = journal.verify().await.unwrap();
        assert_eq!((found.broken, found.sealed.events), (None, count));
        let now = hashes(&*journal).await;
        assert_eq!(now[..before.len() - 1], before[..before.len() - 1], "seed {seed}");
    }
}

const FAULTS: [Fault; 3] = [Fault::PowerCut, Fault::TornWrites, Fault::Full];

/// Seals on a disk with this fault; afterwards each run is whole or sealed, and sealing goes on. Says whether
/// the fault came.
async fn half_sealed(made: &Path, fault: Option<(u64, Fault)>) -> (bool, u64) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().canonicalize().unwrap();
    std::fs::copy(made.join("journal.db"), state.join("journal.db")).unwrap();
    let disk = Disk::mount(&state, fault);
    let life = async {
        let clock = TurnedClock::default();
        clock.turn(Timestamp::from_millis(BEGIN + 400 * DAY));
        let journal = SqliteJournal::open(&state, Arc::new(clock), Redactor::default())?;
        for run in ["bbbb", "aaaa"] {
            let runs = vec![RunId::new(run)];
            journal.seal(Sealing { runs, ..old() }).await?;
        }
        Ok::<_, JournalError>(())
    };
    let ended = life.await;
    let struck = disk.has_struck();
    disk.cut_power();
    disk.unmount(1);
    let case = format!("{fault:?}, ended {ended:?}");
    let _healthy = Disk::mount(&state, None);
    let journal = open_at(&state, 400);
    let found = journal.verify().await.unwrap();
    assert_eq!(found.broken, None, "{case}");
    let sealed = sealed_runs(&*journal).await;
    assert_eq!(found.sealed.runs, sealed.len() as u64, "{case}");
    if ended.is_ok() {
        assert_eq!(sealed.len(), 2, "{case}: what was acknowledged is sealed");
    }
    for (id, whole) in [("aaaa", 15), ("bbbb", 11)] {
        let left = journal.read(&run(id), 0).await.unwrap().len();
        let is_sealed = sealed.iter().any(|(run, _)| run == id);
        assert_eq!(left, if is_sealed { whole - 9 } else { whole }, "{case}: {id}");
    }
    while seal_next(&*journal, &old()).await.unwrap().runs > 0 {}
    let found = journal.verify().await.unwrap();
    assert_eq!((found.broken, found.sealed), (None, Sealed { runs: 2, events: 18 }), "{case}");
    (struck, disk.operations())
}

#[tokio::test]
async fn no_fault_of_the_disk_leaves_a_run_half_sealed() {
    let made = tempfile::tempdir().unwrap();
    drop(written(made.path()).await);
    let (_, operations) = half_sealed(made.path(), None).await;
    assert!(operations > 15, "{operations}");
    let mut struck = 0;
    for fault in FAULTS {
        for at in 1..=operations {
            struck += usize::from(half_sealed(made.path(), Some((at, fault))).await.0);
        }
    }
    let wanted = usize::try_from(operations).unwrap() * FAULTS.len();
    assert!(struck * 10 > wanted * 8, "only {struck} of {wanted} faults came");
}

#[tokio::test]
async fn a_journal_of_many_runs_becomes_a_fraction() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open_at(dir.path(), 0);
    let text = "found 12 sessions that hold the database up, 3 of them idle in transaction";
    for number in 0..400 {
        let id = format!("{number:016x}");
        let mut events = Vec::new();
        for step in 0..10 {
            let step = format!("step_{step}");
            let output = json!({ "blockers": [number, 7], "text": text, "ratio": 0.125 }).into();
            let (history, seen) = (Vec::new().into(), Vec::new());
            events.push(attempt(&step, 60));
            events.push(Event::StepSucceeded { step, output, history, seen, fact: None });
        }
        events.push(ended());
        let events = [begun(), events].concat();
        quick(&*journal, &id, Expect::Last(0), events).await;
    }
    drop(journal);
    let journal = open_at(dir.path(), 400);
    journal.compact().await.unwrap();
    let before = journal.space().await.unwrap();
    assert_eq!(before.free, 0);
    let mut sealed = 0;
    loop {
        let now = seal_next(&*journal, &old()).await.unwrap();
        // Bounded commits: others wait for one.
        assert!(now.events <= 2_000 && now.runs <= 100, "{now:?}");
        sealed += now.runs;
        if now.runs == 0 {
            break;
        }
    }
    assert_eq!(sealed, 400);
    let between = journal.space().await.unwrap();
    assert!(between.free > before.bytes / 2, "{between:?} of {before:?}");
    journal.compact().await.unwrap();
    let after = journal.space().await.unwrap();
    let file = std::fs::metadata(dir.path().join("journal.db")).unwrap().len();
    assert_eq!((file, after.free), (after.bytes, 0), "on disk, too");
    eprintln!("400 runs of 23 events: {} bytes, sealed {} bytes", before.bytes, after.bytes);
    assert!(after.bytes * 4 < before.bytes, "{after:?} of {before:?}");
    assert_eq!(journal.verify().await.unwrap().broken, None);
}
