//! What starts runs by itself: which slots of a schedule are due and what becomes of them, and which
//! events a trigger starts a run for. PURE.
//!
//! A schedule and a trigger have a stream of the journal each. [`slots::Standing`] and
//! [`triggers::Standing`] are folds of those; `decide` says what comes next. Whoever carries a decision
//! out appends it at the end of the stream that it was made from, in one commit with the run: a decision
//! that somebody else made first makes the append fail, so no slot and no event counts twice.

pub mod slots;
pub mod triggers;

use crate::journal::JournalError;
use crate::journal::store::{Entry, EntryFilter, Journal, Stream};

/// Why the standing of a schedule or a trigger cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandingError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It says what cannot be.
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
}

/// What the journal says of a schedule.
pub async fn standing(
    journal: &dyn Journal,
    schedule: &str,
) -> Result<slots::Standing, StandingError> {
    let entries = newest(journal, &Stream::schedule(schedule), "schedule_seen").await?;
    Ok(slots::Standing::replay(&entries)?)
}

/// What the journal says of a trigger.
pub async fn trigger_standing(
    journal: &dyn Journal,
    trigger: &str,
) -> Result<triggers::Standing, StandingError> {
    let entries = newest(journal, &Stream::trigger(trigger), "trigger_seen").await?;
    Ok(triggers::Standing::replay(&entries)?)
}

/// The entries of a stream from the newest of a kind on.
async fn newest(
    journal: &dyn Journal,
    stream: &Stream,
    kind: &str,
) -> Result<Vec<Entry>, JournalError> {
    let filter = EntryFilter {
        stream: Some(stream.as_str().to_owned()),
        kinds: vec![kind.to_owned()],
        limit: Some(1),
        newest: true,
        ..EntryFilter::default()
    };
    let from = journal.entries(filter).await?.first().map_or(0, |entry| entry.seq - 1);
    journal.read(stream, from).await
}

/// An entry that does not belong where it stands: the journal was not written by this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {position} of the journal: {what}")]
pub struct Misplaced {
    /// Its position.
    pub position: u64,
    /// What is wrong with it.
    pub what: String,
}

/// After so many decisions the standing is written down, so that it follows from few entries.
const SUMMED_UP_AFTER: u32 = 500;

/// How the runs stand that a schedule or a trigger has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may start at once.
    Start,
    /// It starts, and waits behind the one that is at work.
    Queue,
    /// It is skipped.
    Skip,
}

impl Turn {
    /// What an overlap policy says of one more run beside those that are not over.
    pub const fn of(overlap: crate::workflow::elements::Overlap, unfinished: usize) -> Self {
        use crate::workflow::elements::Overlap;
        match (overlap, unfinished) {
            (_, 0) | (Overlap::Allow, _) => Self::Start,
            (Overlap::QueueOne, 1) => Self::Queue,
            (Overlap::Skip | Overlap::QueueOne, _) => Self::Skip,
        }
    }
}
