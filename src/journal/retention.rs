//! Sealing runs that were over long ago, a commit at a time.

use super::event::Event;
use super::store::{
    Break, Entry, EntryFilter, Journal, JournalError, RawEvent, Retention, SEALED_AFTER, Sealable,
    Sealed, Sealing,
};
use crate::kernel::{RunId, Span, Timestamp};

/// About so many payloads go in one commit: others wait for it.
const AT_ONCE: u64 = 2_000;

/// So many runs at most.
const RUNS_AT_ONCE: u32 = 100;

impl Retention {
    /// Runs that were over so long ago, and for a day at least, and whose last event stands at a position or
    /// before.
    pub fn of(age: Span, now: Timestamp, through: u64) -> Self {
        let age = age.as_millis().max(SEALED_AFTER);
        let before = Timestamp::from_millis(now.as_millis().saturating_sub_unsigned(age));
        Self { before, through }
    }
}

/// The runs of the next commit; none: there is nothing left to seal.
pub async fn next(
    journal: &dyn Journal,
    retention: Retention,
) -> Result<Vec<Sealable>, JournalError> {
    let mut found = journal.sealable(retention, RUNS_AT_ONCE).await?;
    let mut events = 0;
    // One run goes whole, however large it is.
    let fits = found.iter().enumerate().take_while(|(index, one)| {
        events += one.events;
        *index == 0 || events <= AT_ONCE
    });
    let fits = fits.count();
    found.truncate(fits);
    Ok(found)
}

/// Seals the runs of the next commit, as `sealing` says of the rest.
pub async fn seal_next(journal: &dyn Journal, sealing: &Sealing) -> Result<Sealed, JournalError> {
    let runs = next(journal, sealing.retention).await?;
    if runs.is_empty() {
        return Ok(Sealed::default());
    }
    let runs = runs.into_iter().map(|one| one.run).collect();
    journal.seal(Sealing { runs, ..sealing.clone() }).await
}

/// The event that says that a run was sealed.
pub async fn seal_of(journal: &dyn Journal, run: &RunId) -> Result<Option<Entry>, JournalError> {
    let kinds = vec!["runs_sealed".to_owned()];
    let seals = journal.entries(EntryFilter { kinds, ..EntryFilter::default() }).await?;
    let names = |entry: &Entry| match &entry.event {
        Event::RunsSealed { runs, .. } => runs.iter().any(|one| one.run == *run),
        _ => false,
    };
    Ok(seals.into_iter().find(names))
}

/// Whether an event that lies elsewhere is the one that the chain holds; what is wrong with it, if not. Of an
/// event the chain holds its place, its kind and the digest of its payload.
pub async fn held_against(
    journal: &dyn Journal,
    raw: &RawEvent,
) -> Result<Option<Break>, JournalError> {
    let what = match journal.held(raw.position).await? {
        None => "the journal has no such event",
        Some(held) if held != raw.held() => "it is not what the chain holds",
        Some(_) if !raw.rows_fit() => "its rows are not what its digest says",
        Some(_) => return Ok(None),
    };
    let event = Some(format!("{}#{}", raw.stream, raw.seq));
    Ok(Some(Break { position: raw.position, event, what: format!("in the archive: {what}") }))
}
