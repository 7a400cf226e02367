//! The journal as the engine sees it: an append-only list of events, per stream and in all.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{Event, Fact, Outcome, Principal, Rows};
use crate::kernel::{BoxFuture, Digest, RunId, Timestamp};
use crate::plan::Plan;
use crate::plan::document::PlanError;
use crate::tools::tool::with_carried;

/// A stream of events: one per run, schedule and trigger, and some for the installation as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// What concerns no run: freezes, published events from outside.
    System,
    /// What became of notifications.
    Alerts,
    /// The slots of a schedule.
    Schedule(Occasion),
    /// The events that a trigger looked at.
    Trigger(Occasion),
    /// The events of a run.
    Run(RunId),
}

/// The id of a schedule or a trigger, as the name of its stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Occasion(String);

const SCHEDULE: &str = "schedule/";
const TRIGGER: &str = "trigger/";

impl Stream {
    /// The stream of a schedule.
    pub fn schedule(id: &str) -> Self {
        Self::Schedule(Occasion(format!("{SCHEDULE}{id}")))
    }

    /// The stream of a trigger.
    pub fn trigger(id: &str) -> Self {
        Self::Trigger(Occasion(format!("{TRIGGER}{id}")))
    }

    /// The text that it is stored as.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::Alerts => "alerts",
            Self::Schedule(Occasion(text)) | Self::Trigger(Occasion(text)) => text,
            Self::Run(run) => run.as_str(),
        }
    }

    /// The stream that is stored under a text.
    pub fn parse(text: &str) -> Self {
        match text {
            "system" => Self::System,
            "alerts" => Self::Alerts,
            _ if text.starts_with(SCHEDULE) => Self::Schedule(Occasion(text.to_owned())),
            _ if text.starts_with(TRIGGER) => Self::Trigger(Occasion(text.to_owned())),
            run => Self::Run(RunId::new(run)),
        }
    }
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the whole journal, from 1, without gaps.
    pub position: u64,
    /// The stream, as text.
    pub stream: String,
    /// Its place in the stream, from 1, without gaps.
    pub seq: u64,
    /// Journal time: never runs backwards.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// By what right a batch is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The stream's last sequence number is exactly this one; else [`JournalError::Conflict`].
    Last(u64),
    /// The stream's newest `run_claimed` has this sequence number: the caller is the executor. Decisions
    /// of others may have come in between.
    Claim(u64),
    /// Anything goes: the system stream.
    Anything,
}

/// Events for one stream.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream.
    pub stream: Stream,
    /// By what right.
    pub expect: Expect,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// When an append returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As soon as it is queued: it rides in the next commit. Its failure is told by the next call.
    Buffered,
    /// When it, and all that was queued before it, is on disk.
    Synced,
}

/// What the journal derives of a run, for lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// Its plan.
    pub plan_id: Digest,
    /// Its workflow.
    pub workflow: String,
    /// Its target, as text.
    pub target: String,
    /// How it ended, or why nobody works on it.
    pub outcome: Outcome,
    /// When it began.
    pub created_at: Timestamp,
    /// When its newest event was stored.
    pub updated_at: Timestamp,
    /// When it can go on by itself.
    pub wake_at: Option<Timestamp>,
    /// The key that made its start idempotent.
    pub key: Option<String>,
    /// Of how many of its events only the links stay; `None`: it is not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<u64>,
}

/// Which runs may be sealed: those that are over, whose outputs no later look goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Only runs whose last event is older than this.
    pub before: Timestamp,
    /// Only runs whose last event stands at this position or before: what the history has taken in.
    pub through: u64,
}

/// No run is sealed that was over more recently than this, in milliseconds: caps count what the last day's
/// changes cost.
pub const SEALED_AFTER: u64 = 24 * 3_600 * 1_000;

/// So many of the newest outputs of a name keep their run from being sealed: no tool looks at more.
pub const MOST_EARLIER: u32 = 300;

/// A run that may be sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sealable {
    /// The run.
    pub run: RunId,
    /// How many payloads would go.
    pub events: u64,
    /// How large they are.
    pub bytes: u64,
}

/// What is sealed, and what the seal says.
#[derive(Clone, Debug)]
pub struct Sealing {
    /// The runs. One that may not be sealed is left as it is.
    pub runs: Vec<RunId>,
    /// Which runs may be sealed.
    pub retention: Retention,
    /// Who has it done.
    pub by: Principal,
    /// Whether the history has taken in what they did.
    pub in_history: bool,
    /// The file that holds the payloads, where one was written.
    pub archive: Option<String>,
}

/// What was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// How many runs.
    pub runs: u64,
    /// How many payloads are gone.
    pub events: u64,
}

/// An event as it was written, to be kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEvent {
    /// Its place in the whole journal.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    pub seq: u64,
    /// Journal time.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// The event as JSON, byte for byte: what the chain holds the digest of.
    pub payload: String,
    /// The rows that lay beside it, as JSON, byte for byte: what the event holds the digest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
}

/// What the chain holds of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    pub seq: u64,
    /// Journal time.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// The digest of its payload.
    pub payload: Digest,
}

impl RawEvent {
    /// What a chain would hold of it.
    pub fn held(&self) -> Held {
        let payload = Digest::of_bytes(self.payload.as_bytes());
        let (stream, kind) = (self.stream.clone(), self.kind.clone());
        Held { stream, seq: self.seq, at: self.at, kind, payload }
    }

    /// Whether its rows are those that it speaks of.
    pub fn rows_fit(&self) -> bool {
        let Some(rows) = &self.rows else { return true };
        let event = serde_json::from_str(&self.payload);
        let Ok(Event::StepSucceeded { history: Rows::Apart { digest, .. }, .. }) = event else {
            return false;
        };
        Digest::of_bytes(rows.as_bytes()) == digest
    }
}

/// How much of the journal's file is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Its size in bytes.
    pub bytes: u64,
    /// How much of it is free, and used before it grows.
    pub free: u64,
}

/// Whether a run is sealed, when these are the first entries of its stream, or the next ones after a sequence
/// number: a stream has no gaps otherwise.
pub fn is_sealed(after: u64, entries: &[Entry]) -> bool {
    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    entries.last().is_some_and(|last| last.seq != after.saturating_add(count))
}

/// Which runs are listed.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only those that are not over.
    pub unfinished: bool,
    /// Only those of this workflow.
    pub workflow: Option<String>,
    /// Only the newest so many.
    pub limit: Option<u32>,
}

/// Which entries an audit looks at.
#[derive(Clone, Debug, Default)]
pub struct EntryFilter {
    /// Only this stream.
    pub stream: Option<String>,
    /// Only these kinds; empty: all.
    pub kinds: Vec<String>,
    /// Only after this position.
    pub after: u64,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: Option<u32>,
    /// Of more than `limit`, the newest instead of the oldest. The order is that of the journal all the
    /// same.
    pub newest: bool,
}

/// The end of the chain: kept elsewhere, it shows that a journal lost its tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The journal's own id, drawn when it was made.
    pub journal: String,
    /// The position of the newest event; 0 when there is none.
    pub position: u64,
    /// Its hash.
    pub hash: String,
}

/// What a verification of the chain found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// How many events were looked at.
    pub events: u64,
    /// The end of the chain.
    pub head: Head,
    /// How many runs are sealed, and of how many of their events only the links are there.
    #[serde(default)]
    pub sealed: Sealed,
    /// The first place where it is broken.
    pub broken: Option<Break>,
}

/// Where the chain is broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// The position of the first event that is not as it was written; 0 when the events are, and
    /// something that is kept beside them is not.
    pub position: u64,
    /// Its stream and sequence number, when they can be read.
    pub event: Option<String>,
    /// What is wrong with it.
    pub what: String,
}

/// A journal that refuses, or cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another writer was faster, or took the run over.
    #[error(
        "another process wrote to stream `{stream}` first (expected {expected}, found {found})"
    )]
    Conflict {
        /// The stream.
        stream: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A run with this key exists.
    #[error("run {run} was started with the key `{key}` before")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The run.
        run: RunId,
    },
    /// No run, or more than one, has this prefix.
    #[error("{found} runs have an id that begins with `{prefix}`")]
    NoSuchRun {
        /// The prefix.
        prefix: String,
        /// How many do.
        found: usize,
    },
    /// The journal was written by a newer version.
    #[error("the journal has schema version {found}, this version knows up to {known}")]
    Newer {
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// The journal must be migrated first, and other processes have it open.
    #[error(
        "the journal `{path}` has schema version {found} and must become {known}, but other \
         processes of an older version use it; stop them and try again"
    )]
    InUse {
        /// The journal.
        path: String,
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// There is no space left, or the disk failed. Nothing that was acknowledged is lost.
    #[error("the journal cannot be written: {reason}")]
    Storage {
        /// What the storage says.
        reason: String,
        /// Whether the space is used up.
        full: bool,
    },
    /// What is stored is not what was written.
    #[error("the journal is damaged at {place}: {what}")]
    Corrupt {
        /// Where.
        place: String,
        /// What is wrong.
        what: String,
    },
}

/// An append-only journal. One conformance suite (`journal::conformance`) holds for every
/// implementation.
pub trait Journal: Send + Sync {
    /// Appends a batch across streams: all of it, or nothing. `RunCreated` with a known key is refused
    /// as [`JournalError::DuplicateKey`]. Returns the entries for `Synced`, an empty list for
    /// `Buffered`. An empty batch that is `Synced` waits for all that was queued before.
    ///
    /// When a buffered batch fails, all that follows it with the same claim fails too, so that the
    /// stream has no hole: the run must be claimed again.
    fn append(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>>;

    /// The entries of a stream after a sequence number, buffered ones excluded.
    fn read(&self, stream: &Stream, after: u64) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.read_some(stream, after, u32::MAX)
    }

    /// The first so many of these entries: a long stream is read piece by piece.
    fn read_some(
        &self,
        stream: &Stream,
        after: u64,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>>;

    /// Entries across streams, in journal order.
    fn entries(&self, filter: EntryFilter) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>>;

    /// The decisions of a stream after a sequence number. Cheap when nothing changed.
    fn decisions(
        &self,
        stream: &Stream,
        after: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>>;

    /// Runs, newest first.
    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>>;

    /// The one run whose id begins with `prefix`.
    fn find_run(&self, prefix: &str) -> BoxFuture<'_, Result<RunSummary, JournalError>>;

    /// The run at the front of a lock's queue.
    fn lock_holder(&self, lock: &str) -> BoxFuture<'_, Result<Option<RunId>, JournalError>>;

    /// The entries with the rows that lie beside them. Rows that were dropped stay away.
    fn with_rows(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>>;

    /// Drops the rows that lie beside events older than a time, of runs that were over at a position. Returns
    /// of how many events.
    fn drop_rows(
        &self,
        through: u64,
        before: Timestamp,
    ) -> BoxFuture<'_, Result<u64, JournalError>>;

    /// Runs that may be sealed, those that were over first first; at most so many.
    fn sealable(
        &self,
        retention: Retention,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Sealable>, JournalError>>;

    /// Seals runs in one commit: the payloads of their events go, but for [`Event::STAYS`], and an event
    /// says so. A payload that is not what was written is an error, and nothing goes.
    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<Sealed, JournalError>>;

    /// The events of a run as they were written, with the rows that lie beside them.
    fn raw<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<RawEvent>, JournalError>>;

    /// What the chain holds of the event at a position.
    fn held(&self, position: u64) -> BoxFuture<'_, Result<Option<Held>, JournalError>>;

    /// How much of the file is used.
    fn space(&self) -> BoxFuture<'_, Result<Space, JournalError>>;

    /// Gives free space back to the file system. Nobody can write meanwhile.
    fn compact(&self) -> BoxFuture<'_, Result<(), JournalError>>;

    /// The newest outputs of this name with what they carry, newest first; buffered ones excluded.
    fn facts<'a>(
        &'a self,
        fact: &'a Fact,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Value>, JournalError>>;

    /// Keeps a plan's bytes. Durable when it returns.
    fn put_plan(&self, plan: &Plan) -> BoxFuture<'_, Result<(), JournalError>>;

    /// A plan, checked against its id.
    fn plan(&self, id: &Digest) -> BoxFuture<'_, Result<Option<Plan>, JournalError>>;

    /// The end of the chain.
    fn head(&self) -> BoxFuture<'_, Result<Head, JournalError>>;

    /// The hash of the event at a position, as it is stored.
    fn hash_at(&self, position: u64) -> BoxFuture<'_, Result<Option<String>, JournalError>>;

    /// Walks the whole chain.
    fn verify(&self) -> BoxFuture<'_, Result<Verification, JournalError>>;

    /// Commits made so far by this handle: what benchmarks divide by.
    fn commits(&self) -> u64;
}

/// The outputs that these entries hold, with what they carry.
pub(super) fn outputs(entries: Vec<Entry>) -> Vec<Value> {
    let output = |entry: Entry| match entry.event {
        Event::StepSucceeded { output, fact, .. } => {
            Some(with_carried(output.into_value(), fact.and_then(|found| found.carry)))
        }
        _ => None,
    };
    entries.into_iter().filter_map(output).collect()
}

impl JournalError {
    pub(super) fn unwritable_plan(id: &Digest, error: &PlanError) -> Self {
        Self::Storage { reason: format!("plan {}: {error}", id.short()), full: false }
    }

    pub(super) fn damaged_plan(id: &str, error: &PlanError) -> Self {
        Self::Corrupt { place: format!("plan {id}"), what: error.to_string() }
    }
}
