//! Whether a batch may be appended, and where its events come to stand. PURE.

use super::apart::{self, Body};
use super::chain::{Hash, Link, digest};
use super::event::Event;
use super::store::{Append, Entry, Expect, JournalError, Stream};
use crate::kernel::{Redactor, RunId, Timestamp};

/// An event as it will be stored: masked, written as JSON.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) event: Event,
    pub(super) payload: String,
    pub(super) digest: Hash,
    /// What lies beside it.
    pub(super) bodies: Vec<Body>,
}

impl Prepared {
    /// How many bytes of it are stored.
    pub(super) fn bytes(&self) -> usize {
        let beside = self.bodies.iter().map(|body| body.bytes.len());
        self.payload.len() + beside.sum::<usize>()
    }
}

/// A batch for one stream, as it will be stored.
#[derive(Clone, Debug)]
pub(super) struct PreparedAppend {
    pub(super) stream: Stream,
    pub(super) expect: Expect,
    pub(super) events: Vec<Prepared>,
}

/// Whether large parts of events are taken out of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Large {
    /// They stay.
    Within,
    /// They lie beside them.
    Apart,
}

/// Masks and writes the events of a batch.
pub(super) fn prepare(
    batch: Vec<Append>,
    redactor: &Redactor,
    large: Large,
) -> Result<Vec<PreparedAppend>, JournalError> {
    let one = |Append { stream, expect, events }| {
        let events = events.into_iter().map(|event| masked(event, redactor, large));
        Ok(PreparedAppend { stream, expect, events: events.collect::<Result<_, _>>()? })
    };
    batch.into_iter().map(one).collect()
}

fn masked(mut event: Event, redactor: &Redactor, large: Large) -> Result<Prepared, JournalError> {
    let kind = event.kind();
    let bodies = match large {
        Large::Within => Vec::new(),
        Large::Apart => {
            apart::take(&mut event, redactor).map_err(|error| JournalError::Storage {
                reason: format!("a part of a `{kind}` event cannot be written: {error}"),
                full: false,
            })?
        }
    };
    let unwritable = |error: serde_json::Error| JournalError::Storage {
        reason: format!("a `{kind}` event cannot be written with its secrets masked: {error}"),
        full: false,
    };
    let payload = serde_json::to_string(&event).map_err(unwritable)?;
    if redactor.is_empty() || redactor.mask(&payload) == payload {
        let digest = digest(&payload);
        return Ok(Prepared { event, payload, digest, bodies });
    }
    let mut value = serde_json::to_value(&event).map_err(unwritable)?;
    redactor.mask_json(&mut value);
    let event: Event = serde_json::from_value(value).map_err(unwritable)?;
    let payload = serde_json::to_string(&event).map_err(unwritable)?;
    let digest = digest(&payload);
    Ok(Prepared { event, payload, digest, bodies })
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamEnd {
    /// Its last sequence number; 0 when it is empty.
    pub(super) last: u64,
    /// The sequence number of its newest `run_claimed`; 0 when there is none.
    pub(super) claim: u64,
}

/// The end of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalEnd {
    pub(super) position: u64,
    pub(super) at: Timestamp,
    pub(super) hash: Hash,
}

/// What is known of the journal inside the transaction that appends to it.
pub(super) trait Known {
    /// The end of a stream.
    fn stream(&mut self, stream: &str) -> Result<StreamEnd, JournalError>;
    /// The run that was started with a key.
    fn run_with_key(&mut self, key: &str) -> Result<Option<RunId>, JournalError>;
}

/// Where an event comes to stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) hash: Hash,
}

/// A batch that may be appended.
#[derive(Debug)]
pub(super) struct Admitted {
    /// One place for each event, in order.
    pub(super) places: Vec<Place>,
    /// The end of the journal after the batch.
    pub(super) end: JournalEnd,
    /// The ends of the streams that it touches.
    pub(super) streams: Vec<(String, StreamEnd)>,
}

impl Admitted {
    /// The entries of the batch.
    pub(super) fn entries(self, batch: Vec<PreparedAppend>) -> Vec<Entry> {
        let events = batch.into_iter().flat_map(|append| {
            let stream = append.stream.as_str().to_owned();
            append.events.into_iter().map(move |prepared| (stream.clone(), prepared.event))
        });
        let places = self.places.into_iter().zip(events);
        places
            .map(|(Place { position, seq, at, .. }, (stream, event))| Entry {
                position,
                stream,
                seq,
                at,
                event,
            })
            .collect()
    }
}

/// Decides on a batch: all of it, or an error.
pub(super) fn admit(
    known: &mut dyn Known,
    end: JournalEnd,
    now: Timestamp,
    batch: &[PreparedAppend],
) -> Result<Admitted, JournalError> {
    let at = now.max(end.at);
    let mut admitted = Admitted { places: Vec::new(), end, streams: Vec::new() };
    let mut keys: Vec<(&str, RunId)> = Vec::new();
    for append in batch {
        let stream = append.stream.as_str();
        let staged = admitted.streams.iter().position(|(name, _)| name == stream);
        let mut ends = match staged {
            Some(index) => admitted.streams.swap_remove(index).1,
            None => known.stream(stream)?,
        };
        check(append, ends)?;
        for Prepared { event, digest, .. } in &append.events {
            if let Event::RunCreated { key, .. } = event {
                check_creation(known, stream, ends, key.as_deref(), &keys)?;
                keys.extend(key.as_deref().map(|key| (key, RunId::new(stream))));
            }
            ends.last += 1;
            if matches!(event, Event::RunClaimed { .. }) {
                ends.claim = ends.last;
            }
            let (position, seq) = (admitted.end.position + 1, ends.last);
            let link =
                Link { position, stream, seq, at, kind: event.kind(), payload_digest: digest };
            let hash = link.hash(&admitted.end.hash);
            admitted.places.push(Place { position, seq, at, hash });
            admitted.end = JournalEnd { position, at, hash };
        }
        admitted.streams.push((stream.to_owned(), ends));
    }
    Ok(admitted)
}

fn check(append: &PreparedAppend, ends: StreamEnd) -> Result<(), JournalError> {
    let (expected, found, what) = match append.expect {
        Expect::Last(seq) => (seq, ends.last, "last event"),
        Expect::Claim(seq) => (seq, ends.claim, "claim"),
        Expect::Anything => return Ok(()),
    };
    if expected == found {
        return Ok(());
    }
    Err(conflict(append.stream.as_str(), format!("{what} {expected}"), format!("{what} {found}")))
}

fn check_creation(
    known: &mut dyn Known,
    stream: &str,
    ends: StreamEnd,
    key: Option<&str>,
    staged: &[(&str, RunId)],
) -> Result<(), JournalError> {
    if let Some(key) = key {
        let in_batch = staged.iter().find(|(known, _)| *known == key).map(|(_, run)| run.clone());
        let duplicate = match in_batch {
            Some(run) => Some(run),
            None => known.run_with_key(key)?,
        };
        if let Some(run) = duplicate {
            return Err(JournalError::DuplicateKey { key: key.to_owned(), run });
        }
    }
    if ends.last == 0 {
        return Ok(());
    }
    Err(conflict(stream, "a stream without events".into(), format!("last event {}", ends.last)))
}

fn conflict(stream: &str, expected: String, found: String) -> JournalError {
    JournalError::Conflict { stream: stream.to_owned(), expected, found }
}
