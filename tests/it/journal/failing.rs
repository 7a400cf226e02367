//! The journal on a disk that fails at every single operation, in every way.

use std::path::Path;
use std::sync::Arc;

use lakeops::journal::{
    Append, Durability, Entry, Event, Expect, Journal, JournalError, SqliteJournal,
};
use lakeops::kernel::{Redactor, SystemClock};

use super::sample::{append, attempt, begin, open, run};
use crate::harness::disk::{Disk, Fault};

use Durability::{Buffered, Synced};

const FAULTS: [Fault; 5] =
    [Fault::PowerCut, Fault::TornWrites, Fault::InputOutput, Fault::Full, Fault::ReadOnly];

/// Which version of chance decides about torn sectors.
const SEEDS: [u64; 2] = [1, 2];

fn next(text: &str, padding: usize) -> Vec<Append> {
    append(&run("aaaa"), Expect::Claim(2), vec![attempt(text, padding)])
}

/// What a process does between two starts: mixed appends, then it closes, which moves everything from
/// the log into the file. What was acknowledged as durable is put down.
async fn work(state: &Path, start: usize, known: &mut Vec<Entry>) -> Result<(), JournalError> {
    let journal = SqliteJournal::open(state, Arc::new(SystemClock), Redactor::default())?;
    for number in 0..3_usize {
        journal.append(next("buffered", number * 700), Buffered).await?;
        let padding = (start * 3 + number) * 97 % 9000;
        let entries = journal.append(next("synced", padding), Synced).await?;
        *known = journal.read(&run("aaaa"), 0).await?;
        assert_eq!(known.last().unwrap().seq, entries.last().unwrap().seq);
    }
    Ok(())
}

/// Two starts. Ends at the first error, as a process does.
async fn life(state: &Path, known: &mut Vec<Entry>) -> Result<(), JournalError> {
    for start in 0..2 {
        work(state, start, known).await?;
    }
    Ok(())
}

/// One life on a disk with this fault; then what is left must hold what was acknowledged. Says whether
/// the fault came.
async fn survives(made: &Path, fault: Option<(u64, Fault)>, seed: u64) -> (bool, u64) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().canonicalize().unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        std::fs::copy(made.join(name), state.join(name)).ok();
    }
    let disk = Disk::mount(&state, fault);
    let mut known = Vec::new();
    let ended = life(&state, &mut known).await;
    let struck = disk.has_struck();
    // In the end power goes in any case: only what is durable counts.
    disk.cut_power();
    disk.unmount(seed);
    let case = format!("{fault:?}, chance {seed}, ended {ended:?}");
    if fault.is_none() {
        ended.unwrap();
    }
    let _healthy = Disk::mount(&state, None);
    let journal = open(&state);
    let entries = journal.read(&run("aaaa"), 0).await.unwrap();
    assert!(entries.starts_with(&known), "{case}: {} of {} left", entries.len(), known.len());
    assert_eq!(journal.verify().await.unwrap().broken, None, "{case}");
    let more = journal.append(next("afterwards", 0), Synced).await.unwrap();
    assert_eq!(more[0].seq, entries.last().unwrap().seq + 1, "{case}");
    (struck, disk.operations())
}

#[tokio::test]
async fn no_fault_of_the_disk_loses_what_was_acknowledged() {
    let made = tempfile::tempdir().unwrap();
    begin(&*open(made.path()), "aaaa").await;
    let made = made.path();
    // Who is held up between two appends makes commits, and operations, that no other life has.
    let mut operations = u64::MAX;
    for _ in 0..5 {
        operations = operations.min(survives(made, None, 0).await.1);
    }
    assert!(operations > 40, "{operations}");
    let mut struck = 0;
    for fault in FAULTS {
        let seeds = if fault == Fault::TornWrites { &SEEDS[..] } else { &SEEDS[..1] };
        for at in 1..=operations {
            for seed in seeds {
                struck += usize::from(survives(made, Some((at, fault)), *seed).await.0);
            }
        }
    }
    // Buffered events share commits by chance, so that the last operations may not come.
    let wanted = usize::try_from(operations).unwrap() * 6;
    assert!(struck * 10 > wanted * 8, "only {struck} of {wanted} faults came");
    eprintln!("{operations} operations, {struck} faults");
}

/// After an error the journal stops: it answers nothing from what it cannot know, until it is opened anew.
#[tokio::test]
async fn who_cannot_write_stops_until_it_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().canonicalize().unwrap();
    begin(&*open(&state), "aaaa").await;
    let disk = Disk::mount(&state, Some((2, Fault::InputOutput)));
    let journal = open(&state);
    let mut refused = 0;
    for _ in 0..3 {
        refused += usize::from(journal.append(next("one", 10), Synced).await.is_err());
    }
    assert!(disk.has_struck());
    assert_eq!(refused, 3, "an append after a failed one was acknowledged");
    drop(journal);
    let journal = open(&state);
    journal.append(next("two", 10), Synced).await.unwrap();
    drop(journal);
    disk.unmount(0);
    let left = open(&state).read(&run("aaaa"), 0).await.unwrap();
    assert!(
        matches!(&left.last().unwrap().event, Event::AttemptStarted { step, .. } if step == "two")
    );
}

/// Making a journal, migrations and all, can be cut off anywhere and begun again.
#[tokio::test]
async fn a_journal_that_was_half_made_is_made_whole() {
    let make = |fault, seed| {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::mount(dir.path(), fault);
        let made = SqliteJournal::open(dir.path(), Arc::new(SystemClock), Redactor::default());
        let made = made.map(drop);
        disk.cut_power();
        disk.unmount(seed);
        (dir, made, disk.operations())
    };
    let (_dir, made, operations) = make(None, 0);
    made.unwrap();
    assert!(operations > 20, "{operations}");
    for at in 1..=operations {
        for fault in FAULTS {
            let (dir, _, _) = make(Some((at, fault)), 1);
            let _healthy = Disk::mount(dir.path(), None);
            let journal = open(dir.path());
            begin(&*journal, "aaaa").await;
            assert_eq!(journal.verify().await.unwrap().broken, None, "{fault:?} at {at}");
        }
    }
}
