//! What was acknowledged is kept, by one writer among many.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lakeops::journal::conformance::TurnedClock;
use lakeops::journal::{
    Durability, Entry, Event, Expect, Fault, FaultyJournal, Journal, JournalError, MemoryJournal,
    SqliteJournal,
};
use lakeops::kernel::Redactor;
use rusqlite::Connection;

use super::sample::{append, attempt, begin, open, run, somebody};

use Durability::{Buffered, Synced};

/// Marks a directory that the child of the crash test may write to.
const MARK: &str = "crash-test";

/// The child of the test below: appends until it is killed, and says what was acknowledged.
#[tokio::test]
#[ignore = "only as the child of the crash test"]
async fn append_until_killed() {
    let state = Path::new(".");
    if !state.join(MARK).exists() {
        return;
    }
    let journal = open(state);
    let stream = begin(&*journal, "aaaa").await;
    for number in 0..100_000 {
        let buffered = append(&stream, Expect::Claim(2), vec![attempt("buffered", number % 50)]);
        journal.append(buffered, Buffered).await.unwrap();
        let synced = append(&stream, Expect::Claim(2), vec![attempt("synced", number % 50)]);
        let entries = journal.append(synced, Synced).await.unwrap();
        println!("acknowledged {}", entries[0].seq);
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    for acknowledged in [1, 7, 40] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MARK), "").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::writing::append_until_killed", "--ignored", "--nocapture"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let mut seqs = lines.filter_map(|line| {
            let line = String::from_utf8(line.unwrap()).unwrap();
            line.split_once("acknowledged ").and_then(|(_, seq)| seq.parse::<u64>().ok())
        });
        let mut last = seqs.by_ref().take(acknowledged).last().unwrap();
        child.kill().unwrap();
        last = seqs.last().unwrap_or(last);
        child.wait().unwrap();
        let journal = open(dir.path());
        let entries = journal.read(&run("aaaa"), 0).await.unwrap();
        assert!(entries.len() as u64 >= last, "{last} was acknowledged, {} left", entries.len());
        assert_eq!(journal.verify().await.unwrap().broken, None);
        // The dead process holds nothing up.
        let next = append(&run("aaaa"), Expect::Claim(2), vec![attempt("next", 0)]);
        journal.append(next, Synced).await.unwrap();
    }
}

#[tokio::test]
async fn concurrent_syncs_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut streams = Vec::new();
    for number in 0..200 {
        streams.push(begin(&*journal, &format!("{number:04}")).await);
    }
    let before = journal.commits();
    // While another process commits, all of them queue up.
    let other = Connection::open(dir.path().join("journal.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let mut appends = futures::future::join_all(streams.iter().map(|stream| {
        journal.append(append(stream, Expect::Claim(2), vec![attempt("x", 10)]), Synced)
    }));
    assert!(futures::poll!(&mut appends).is_pending());
    other.execute_batch("commit").unwrap();
    for result in appends.await {
        assert_eq!(result.unwrap().len(), 1);
    }
    let commits = journal.commits() - before;
    assert!(commits <= 2, "200 appends took {commits} commits");
}

#[tokio::test]
async fn a_conflict_is_its_callers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let stream = begin(&*journal, "aaaa").await;
    let other = Connection::open(dir.path().join("journal.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let expects = [2, 9, 3, 2, 4].map(Expect::Last);
    let mut appends = futures::future::join_all(
        expects
            .map(|expect| journal.append(append(&stream, expect, vec![attempt("x", 10)]), Synced)),
    );
    assert!(futures::poll!(&mut appends).is_pending());
    other.execute_batch("commit").unwrap();
    let kept: Vec<_> = appends.await.iter().map(Result::is_ok).collect();
    assert_eq!(kept, [true, false, true, false, true]);
    assert_eq!(journal.read(&stream, 2).await.unwrap().len(), 3);
}

#[tokio::test]
async fn two_processes_write_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (executor, console) = (open(dir.path()), open(dir.path()));
    let stream = begin(&*executor, "aaaa").await;
    assert_eq!(executor.decisions(&stream, 0).await.unwrap(), []);
    for turn in 0..10 {
        let step = append(&stream, Expect::Claim(2), vec![attempt("x", 10)]);
        let written = executor.append(step, Synced).await.unwrap();
        let reason = turn.to_string();
        let cancel = Event::CancelRequested { by: somebody(), compensate: false, reason };
        let batch = append(&stream, Expect::Last(written[0].seq), vec![cancel]);
        let decided = console.append(batch, Synced).await.unwrap();
        let seen = executor.decisions(&stream, written[0].seq).await.unwrap();
        assert_eq!(seen, decided);
        assert_eq!(executor.decisions(&stream, decided[0].seq).await.unwrap(), []);
    }
    assert_eq!(executor.verify().await.unwrap().broken, None);
    assert_eq!(executor.head().await.unwrap(), console.head().await.unwrap());
}

#[tokio::test]
async fn buffered_events_are_committed_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let stream = begin(&*journal, "aaaa").await;
    for _ in 0..1_000 {
        let batch = append(&stream, Expect::Claim(2), vec![attempt("x", 10)]);
        journal.append(batch, Buffered).await.unwrap();
    }
    // Dropping the handle commits what is queued.
    drop(journal);
    assert_eq!(open(dir.path()).read(&stream, 2).await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let (a, b) = (begin(&*journal, "aaaa").await, begin(&*journal, "bbbb").await);
    journal.limit_pages(40).await.unwrap();
    let mut acknowledged: Vec<Entry> = Vec::new();
    let error = loop {
        let batch = append(&a, Expect::Claim(2), vec![attempt("x", 3_000)]);
        match journal.append(batch, Synced).await {
            Ok(entries) => acknowledged.extend(entries),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Storage { full: true, .. }), "{error}");
    assert!(!acknowledged.is_empty());
    // A buffered append fails too; the next call of its stream is told.
    let batch = append(&b, Expect::Claim(2), vec![attempt("lost", 30_000)]);
    journal.append(batch, Buffered).await.unwrap();
    let told = journal.append(append(&b, Expect::Claim(2), vec![]), Synced).await;
    assert!(matches!(told, Err(JournalError::Storage { full: true, .. })), "{told:?}");
    assert_eq!(journal.read(&a, 2).await.unwrap(), acknowledged);
    journal.limit_pages(100_000).await.unwrap();
    let batch = append(&a, Expect::Claim(2), vec![attempt("x", 3_000)]);
    acknowledged.extend(journal.append(batch, Synced).await.unwrap());
    // Over the lost event nobody goes on by the old claim.
    let batch = append(&b, Expect::Claim(2), vec![attempt("x", 10)]);
    journal.append(batch, Synced).await.unwrap_err();
    let claim = vec![Event::RunClaimed { by: somebody(), pid: 2 }];
    journal.append(append(&b, Expect::Last(2), claim), Synced).await.unwrap();
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.read(&a, 2).await.unwrap(), acknowledged);
    assert_eq!(journal.verify().await.unwrap().broken, None);
}

#[tokio::test]
async fn no_room_for_one_is_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let (a, b) = (begin(&*journal, "aaaa").await, begin(&*journal, "bbbb").await);
    journal.limit_pages(60).await.unwrap();
    let other = Connection::open(dir.path().join("journal.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let mut both = futures::future::join_all([
        journal.append(append(&a, Expect::Claim(2), vec![attempt("x", 900_000)]), Synced),
        journal.append(append(&b, Expect::Claim(2), vec![attempt("x", 10)]), Synced),
    ]);
    assert!(futures::poll!(&mut both).is_pending());
    other.execute_batch("commit").unwrap();
    let results = both.await;
    assert!(matches!(results[0], Err(JournalError::Storage { full: true, .. })));
    assert_eq!(results[1].as_ref().unwrap().len(), 1);
}

#[tokio::test]
async fn secrets_are_masked_before_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let redactor = Redactor::default();
    redactor.register("TOKEN", "topsecret\"value").unwrap();
    let clock = Arc::new(TurnedClock::default());
    let journal = SqliteJournal::open(dir.path(), clock, redactor).unwrap();
    let stream = begin(&*journal, "aaaa").await;
    let batch = append(&stream, Expect::Claim(2), vec![attempt("a topsecret\"value b", 1)]);
    let written = journal.append(batch, Synced).await.unwrap();
    let Event::AttemptStarted { step, .. } = &written[0].event else { panic!("{written:?}") };
    assert_eq!(step, "a [redacted] b");
    assert_eq!(journal.read(&stream, 2).await.unwrap(), written);
    assert_eq!(journal.verify().await.unwrap().broken, None);
    drop(journal);
    let bytes = std::fs::read(dir.path().join("journal.db")).unwrap();
    assert!(!bytes.windows(9).any(|window| window == b"topsecret"));
}

#[tokio::test]
async fn faults_come_before_and_after() {
    for (fault, expected) in [(Fault::Before, 2), (Fault::After, 3)] {
        let clock = Arc::new(TurnedClock::default());
        let inner = Arc::new(MemoryJournal::new(clock, Redactor::default()));
        let journal = FaultyJournal::new(Arc::<MemoryJournal>::clone(&inner), fault, 2);
        let stream = begin(&journal, "aaaa").await;
        for _ in 0..2 {
            let batch = append(&stream, Expect::Claim(2), vec![attempt("x", 1)]);
            journal.append(batch, Synced).await.unwrap_err();
        }
        assert_eq!(inner.read(&stream, 0).await.unwrap().len(), expected);
        assert_eq!(journal.appends(), 3);
    }
}

#[tokio::test]
async fn a_crash_of_the_memory_journal_loses_what_was_buffered() {
    let clock = Arc::new(TurnedClock::default());
    let journal = MemoryJournal::new(clock, Redactor::default());
    let stream = begin(&journal, "aaaa").await;
    let batch = || append(&stream, Expect::Claim(2), vec![attempt("x", 1)]);
    journal.append(batch(), Buffered).await.unwrap();
    assert_eq!(journal.after_crash().read(&stream, 0).await.unwrap().len(), 2);
    journal.append(batch(), Synced).await.unwrap();
    let left = journal.after_crash();
    assert_eq!(left.read(&stream, 0).await, journal.read(&stream, 0).await);
    assert_eq!(left.head().await, journal.head().await);
    assert_eq!(left.verify().await.unwrap().broken, None);
}

#[test]
fn many_processes_open_a_new_journal_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| futures::executor::block_on(open(dir.path()).head()).unwrap()))
            .collect();
        opened.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|head| *head == ids[0]), "{ids:?}");
}

#[test]
fn a_place_that_holds_no_journal_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let clock = || Arc::new(TurnedClock::default());
    let error = SqliteJournal::open(&file, clock(), Redactor::default()).err().unwrap();
    assert!(matches!(error, JournalError::Storage { full: false, .. }), "{error}");
    std::fs::write(dir.path().join("journal.db"), "not a database, but long enough").unwrap();
    let error = SqliteJournal::open(dir.path(), clock(), Redactor::default()).err().unwrap();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error}");
}
