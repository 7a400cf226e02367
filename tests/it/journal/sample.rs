//! Small journals to work on.

use std::path::Path;
use std::sync::Arc;

use lakeops::journal::conformance::{TurnedClock, sample_plan};
use lakeops::journal::event::Decision;
use lakeops::journal::{
    Append, Durability, Event, Expect, Journal, Outcome, Principal, SqliteJournal, Stream,
};
use lakeops::kernel::{Digest, Redactor, RunId, Target, Timestamp};
use serde_json::json;

pub(super) fn open(state: &Path) -> Arc<SqliteJournal> {
    let clock = TurnedClock::default();
    clock.turn(Timestamp::from_millis(1_700_000_000_000));
    SqliteJournal::open(state, Arc::new(clock), Redactor::default()).unwrap()
}

pub(super) fn somebody() -> Principal {
    Principal { name: "ada".into(), from: "here".into() }
}

pub(super) fn run(id: &str) -> Stream {
    Stream::Run(RunId::new(id))
}

pub(super) fn created() -> Event {
    Event::RunCreated {
        plan: sample_plan("sweep").unwrap().id,
        workflow: "sweep".into(),
        target: Target::default(),
        key: None,
        by: somebody(),
        yes: false,
        forked_from: None,
        cause: None,
    }
}

pub(super) fn attempt(step: &str, padding: usize) -> Event {
    let arguments = json!({ "ratio": 0.1, "text": "x".repeat(padding) });
    Event::AttemptStarted { step: step.into(), attempt: 1, arguments }
}

pub(super) fn append(stream: &Stream, expect: Expect, events: Vec<Event>) -> Vec<Append> {
    vec![Append { stream: stream.clone(), expect, events }]
}

/// The events `run_created` and `run_claimed`.
pub(super) fn begun() -> Vec<Event> {
    vec![created(), Event::RunClaimed { by: somebody(), pid: 1 }]
}

/// A run that has begun.
pub(super) async fn begin(journal: &dyn Journal, id: &str) -> Stream {
    let stream = run(id);
    let batch = append(&stream, Expect::Last(0), begun());
    journal.append(batch, Durability::Synced).await.unwrap();
    stream
}

/// A closed journal with a bit of everything: 15 events of 3 runs, a plan, locks.
pub(super) async fn write_sample(state: &Path) {
    let journal = open(state);
    journal.put_plan(&sample_plan("sweep").unwrap()).await.unwrap();
    for id in ["aaaa", "bbbb", "cccc"] {
        let stream = begin(&*journal, id).await;
        let events = vec![
            Event::LockQueued { lock: "db".into(), step: None },
            attempt("look", 20),
            Event::ApprovalDecided {
                step: "heal".into(),
                digest: Digest::of_bytes(b"set"),
                decision: Decision::Approved,
                by: somebody(),
                reason: "needed".into(),
            },
        ];
        let batch = append(&stream, Expect::Claim(2), events);
        journal.append(batch, Durability::Synced).await.unwrap();
    }
    let parked = Event::RunParked {
        outcome: Outcome::Waiting,
        wake_at: Some(Timestamp::from_millis(1_800_000_000_000)),
        reason: "a timer".into(),
    };
    let batch = append(&run("bbbb"), Expect::Claim(2), vec![parked]);
    journal.append(batch, Durability::Synced).await.unwrap();
}
