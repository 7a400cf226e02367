//! What is stored is what was written, or it is told.

use std::path::Path;
use std::sync::Arc;

use lakeops::journal::conformance::sample_plan;
use lakeops::journal::event::{Compensation, Fact, Found};
use lakeops::journal::store::{Break, EntryFilter, RunFilter, RunSummary};
use lakeops::journal::{
    Durability, Entry, Event, Expect, Journal, JournalError, Outcome, SqliteJournal, verify_against,
};
use lakeops::kernel::{Redactor, SystemClock, Timestamp};
use lakeops::plan::Plan;
use lakeops::tools::tool::HistoryRow;
use rusqlite::Connection;
use serde_json::json;

use super::sample::{append, attempt, begin, open, run, write_sample};

/// All that a resume, a list or an audit reads.
type Content = (Vec<Entry>, Vec<RunSummary>, Option<Plan>);

async fn content(journal: &dyn Journal) -> Result<Content, JournalError> {
    let plan = sample_plan("sweep").unwrap().id;
    let entries = journal.entries(EntryFilter::default()).await?;
    Ok((entries, journal.runs(RunFilter::default()).await?, journal.plan(&plan).await?))
}

/// What opening and verifying a journal find, or what it holds when they find nothing.
async fn finding(state: &Path) -> Result<Content, String> {
    let clock = Arc::new(SystemClock);
    let journal = SqliteJournal::open(state, clock, Redactor::default())
        .map_err(|error| error.to_string())?;
    let found = journal.verify().await.map_err(|error| error.to_string())?;
    match found.broken {
        Some(broken) => Err(broken.what),
        None => content(&*journal).await.map_err(|error| error.to_string()),
    }
}

#[tokio::test]
async fn no_flipped_byte_goes_unseen() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path()).await;
    let original = content(&*open(dir.path())).await.unwrap();
    assert_eq!((original.0.len(), original.1.len(), original.2.is_some()), (16, 3, true));
    let file = dir.path().join("journal.db");
    let bytes = std::fs::read(&file).unwrap();
    assert!(!dir.path().join("journal.db-wal").exists(), "the journal was not closed");
    // The header whole, the rest by a stride; most zeros are unused space.
    let stride = |at: usize| if bytes[at] == 0 { 97 } else { 3 };
    let is_sampled = |at: &usize| *at < 100 || at.is_multiple_of(stride(*at));
    let (mut seen, mut harmless) = (0, 0);
    for at in (0..bytes.len()).filter(is_sampled) {
        let mut damaged = bytes.clone();
        damaged[at] ^= if at % 2 == 0 { 1 << (at / 2 % 8) } else { 0xff };
        for rest in ["journal.db-wal", "journal.db-shm"] {
            std::fs::remove_file(dir.path().join(rest)).unwrap_or_default();
        }
        std::fs::write(&file, damaged).unwrap();
        if let Ok(now) = finding(dir.path()).await {
            assert_eq!(now, original, "byte {at} was flipped and nobody saw it");
            harmless += 1;
        } else {
            seen += 1;
        }
    }
    assert!(seen > 1_000 && harmless > 100, "{seen} flips were seen, {harmless} were harmless");
}

/// Does something to a sample journal by SQL, and verifies it.
async fn after(sql: &str) -> Break {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path()).await;
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    conn.execute_batch(sql).unwrap();
    drop(conn);
    let found = open(dir.path()).verify().await.unwrap();
    assert_eq!(found.head.position, found.events);
    found.broken.unwrap_or_else(|| panic!("nothing was found after `{sql}`"))
}

#[tokio::test]
async fn tampering_is_located() {
    let swap = "update event set position = -1 where position = 4;
        update event set position = 4 where position = 6;
        update event set position = 6 where position = -1;";
    let cases = [
        ("update event set payload = replace(payload, 'look', 'lock') where position = 4", 4),
        ("update event set at = at + 1 where position = 7", 7),
        ("update event set kind = 'step_skipped' where position = 9", 9),
        ("update event set stream = 'aaaa', seq = 99 where position = 8", 8),
        ("update event set hash = zeroblob(32) where position = 3", 3),
        ("update event set payload = null where position = 3", 3),
        ("delete from event where position = 5", 5),
        ("delete from event where position = 1", 1),
        (swap, 4),
        ("update journal set id = 'another'", 1),
        // Not the events, but what is kept beside them.
        ("update run set outcome = 'succeeded' where run_id = 'aaaa'", 0),
        ("delete from run where run_id = 'cccc'", 0),
        ("delete from lock_queue where run_id = 'aaaa'", 0),
        ("update plan set bytes = cast(replace(cast(bytes as text), 'sweep', 'swoop') as blob)", 0),
        ("update plan set bytes = cast(bytes || ' ' as blob)", 0),
        ("drop index event_decision", 0),
    ];
    for (sql, position) in cases {
        let found = after(sql).await;
        assert_eq!(found.position, position, "{sql}: {found:?}");
    }
    let found = after("update event set at = 0 where position = 7").await;
    assert_eq!(found.event.as_deref(), Some("bbbb#2"));
}

#[tokio::test]
async fn a_rewritten_payload_with_a_fitting_digest_is_found_too() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path()).await;
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    let sql = "select payload from event where position = 4";
    let payload: String = conn.query_row(sql, (), |row| row.get(0)).unwrap();
    let payload = payload.replace("look", "lock");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&payload);
    conn.execute(
        "update event set payload = ?1, payload_digest = ?2 where position = 4",
        (&payload, digest.as_slice()),
    )
    .unwrap();
    let broken = open(dir.path()).verify().await.unwrap().broken.unwrap();
    assert_eq!(broken.position, 4);
    assert!(broken.what.contains("does not follow"), "{}", broken.what);
}

#[tokio::test]
async fn a_cut_tail_is_seen_against_a_head() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path()).await;
    let head = open(dir.path()).head().await.unwrap();
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    // A careful forger also mends what is derived.
    conn.execute_batch(
        "delete from event where position > 14;
         update run set outcome = 'running', wake_at = null;",
    )
    .unwrap();
    drop(conn);
    let journal = open(dir.path());
    assert_eq!(journal.verify().await.unwrap().broken, None);
    let broken = verify_against(&*journal, &head).await.unwrap().broken.unwrap();
    assert_eq!(broken.position, 15);
    assert!(broken.what.contains("cut"), "{}", broken.what);
    // What is appended over the cut does not hide it.
    let batch = append(&run("cccc"), Expect::Claim(2), vec![attempt("a", 1), attempt("b", 1)]);
    journal.append(batch, Durability::Synced).await.unwrap();
    let broken = verify_against(&*journal, &head).await.unwrap().broken.unwrap();
    assert_eq!(broken.position, 16);
}

#[tokio::test]
async fn a_large_payload_lies_in_a_file_and_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let stream = begin(&*journal, "aaaa").await;
    let batch = append(&stream, Expect::Claim(2), vec![attempt("big", 2 * 1024 * 1024)]);
    let written = journal.append(batch, Durability::Synced).await.unwrap();
    assert_eq!(journal.read(&stream, 2).await.unwrap(), written);
    assert_eq!(journal.verify().await.unwrap().broken, None);
    let shelf = std::fs::read_dir(dir.path().join("blobs")).unwrap().next().unwrap().unwrap();
    let files: Vec<_> = std::fs::read_dir(shelf.path()).unwrap().collect();
    let [Ok(file)] = files.as_slice() else { panic!("one file was expected: {files:?}") };
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), text.replace("big", "bug")).unwrap();
    assert!(matches!(journal.read(&stream, 2).await, Err(JournalError::Corrupt { .. })));
    assert_eq!(journal.verify().await.unwrap().broken.unwrap().position, 3);
    std::fs::remove_file(file.path()).unwrap();
    assert!(matches!(journal.read(&stream, 2).await, Err(JournalError::Corrupt { .. })));
    assert_eq!(journal.verify().await.unwrap().broken.unwrap().position, 3);
}

/// A step with many rows, and with something that its next look goes on from.
fn collected(number: u32) -> Event {
    let row = |n: u32| HistoryRow {
        table: "pg_stat_history".into(),
        row: json!({ "queryid": n, "calls": number, "epoch_id": "the same in all", "rows": n * 3 }),
    };
    let name = Fact { tool: "t".into(), place: "p".into() };
    Event::StepSucceeded {
        step: format!("look{number}"),
        output: json!({}).into(),
        history: (0..500).map(row).collect::<Vec<_>>().into(),
        seen: Vec::new(),
        fact: Some(Found::new(name, Some(json!({ "baseline": [number, "x".repeat(1000)] })))),
    }
}

#[tokio::test]
async fn what_lies_beside_events_is_checked_and_goes_when_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let stream = begin(&*journal, "aaaa").await;
    let waiting = begin(&*journal, "bbbb").await;
    for number in 0..5 {
        let batch = append(&stream, Expect::Claim(2), vec![collected(number)]);
        journal.append(batch, Durability::Synced).await.unwrap();
    }
    let batch = append(&waiting, Expect::Claim(2), vec![collected(9)]);
    journal.append(batch, Durability::Synced).await.unwrap();
    let ended = Event::RunFinished {
        outcome: Outcome::Succeeded,
        compensation: Compensation::None,
        outputs: json!({}),
    };
    journal
        .append(append(&stream, Expect::Claim(2), vec![ended]), Durability::Synced)
        .await
        .unwrap();
    assert_eq!(journal.verify().await.unwrap().broken, None);
    let conn = Connection::open(dir.path().join("journal.db")).unwrap();
    let count = |part: &str| -> i64 {
        let sql = "select count(*) from body where part = ?1";
        conn.query_row(sql, [part], |row| row.get(0)).unwrap()
    };
    // Only the two newest looks are gone on from.
    assert_eq!((count("rows"), count("carry")), (6, 2));
    let widest = "select max(length(payload)) from event";
    let widest: i64 = conn.query_row(widest, (), |row| row.get(0)).unwrap();
    assert!(widest < 600, "{widest}");

    // Damage is seen by whoever reads it, and by verification.
    let kept: Vec<u8> = conn
        .query_row("select bytes from body where position = 6 and part = 'rows'", (), |row| {
            row.get(0)
        })
        .unwrap();
    let broken = "update body set bytes = zeroblob(90) where position = 6 and part = 'rows'";
    for sql in [broken, "delete from body where position = 6 and part = 'rows'"] {
        conn.execute_batch(sql).unwrap();
        assert_eq!(journal.verify().await.unwrap().broken.unwrap().position, 6, "{sql}");
        let entries = journal.read(&stream, 0).await.unwrap();
        let read = journal.with_rows(entries).await;
        assert!(matches!(read, Err(JournalError::Corrupt { .. })), "{sql}");
        let mend =
            "insert or replace into body (position, part, at, bytes) values (6, 'rows', 0, ?1)";
        conn.execute(mend, [&kept]).unwrap();
    }
    let name = Fact { tool: "t".into(), place: "p".into() };
    assert_eq!(journal.facts(&name, 1).await.unwrap()[0]["baseline"][0], 9);

    // Rows of the run that still waits stay, however old they are.
    let head = journal.head().await.unwrap().position;
    let late = Timestamp::from_millis(i64::MAX);
    assert_eq!(journal.drop_rows(head, Timestamp::from_millis(0)).await.unwrap(), 0, "not old");
    assert_eq!(journal.drop_rows(head, late).await.unwrap(), 5);
    assert_eq!((count("rows"), count("carry")), (1, 2));
    assert_eq!(journal.verify().await.unwrap().broken, None);
    let entries = journal.with_rows(journal.read(&stream, 0).await.unwrap()).await.unwrap();
    let left = entries.into_iter().filter_map(|entry| match entry.event {
        Event::StepSucceeded { history, .. } => Some((history.count(), history.fetched().len())),
        _ => None,
    });
    assert_eq!(left.collect::<Vec<_>>(), [(500, 0); 5]);
    let entries = journal.with_rows(journal.read(&waiting, 0).await.unwrap()).await.unwrap();
    let Event::StepSucceeded { history, .. } = entries[2].event.clone() else { panic!() };
    assert_eq!(history.fetched().len(), 500);
}
