//! The hash that links an event to all events before it. PURE.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::event::Event;
use super::links::{self, BareLink};
use super::store::{Break, Entry, RawEvent};
use crate::kernel::Timestamp;
use crate::kernel::digest::hex;

/// A SHA-256 hash as bytes.
pub(super) type Hash = [u8; 32];

/// The digest of a payload.
pub(super) fn digest(payload: impl AsRef<[u8]>) -> Hash {
    Sha256::digest(payload.as_ref()).into()
}

/// The hash before the first event: it binds the chain to its journal.
pub(super) fn genesis(journal: &str) -> Hash {
    Sha256::new().chain_update(b"lakeops journal 1\0").chain_update(journal).finalize().into()
}

/// What the hash of an event covers, beside the hash before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) position: u64,
    pub(super) stream: &'a str,
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) kind: &'a str,
    pub(super) payload_digest: &'a Hash,
}

impl Link<'_> {
    /// The hash of the event. Numbers have a fixed width and texts carry their length, so no two events
    /// share an encoding.
    pub(super) fn hash(&self, previous: &Hash) -> Hash {
        Sha256::new()
            .chain_update(previous)
            .chain_update(self.position.to_be_bytes())
            .chain_update(length(self.stream))
            .chain_update(self.stream)
            .chain_update(self.seq.to_be_bytes())
            .chain_update(self.at.as_millis().to_be_bytes())
            .chain_update(length(self.kind))
            .chain_update(self.kind)
            .chain_update(self.payload_digest)
            .finalize()
            .into()
    }
}

fn length(text: &str) -> [u8; 8] {
    u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes()
}

/// An event as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) link: BareLink,
    pub(super) payload: String,
    pub(super) hash: Hash,
}

impl Stored {
    /// The event as it was written, with rows that lie beside it.
    pub(super) fn raw(&self, rows: Option<String>) -> RawEvent {
        let BareLink { position, stream, seq, at, kind, .. } = self.link.clone();
        RawEvent { position, stream, seq, at, kind, payload: self.payload.clone(), rows }
    }

    /// The event, when its payload is what its digest says. The error says what is wrong.
    pub(super) fn entry(self) -> Result<Entry, String> {
        let Self { link, payload, .. } = self;
        if digest(&payload) != link.payload_digest {
            return Err("its payload is not what its digest says".into());
        }
        let event: Event = serde_json::from_str(&payload)
            .map_err(|error| format!("its payload cannot be read: {error}"))?;
        if event.kind() != link.kind {
            return Err(format!("it is stored as `{}` and holds `{}`", link.kind, event.kind()));
        }
        let BareLink { position, stream, seq, at, .. } = link;
        Ok(Entry { position, stream, seq, at, event })
    }
}

const OUT_OF_ORDER: &str = "its sequence number or its time is out of order";

/// Walks a chain from its first event and stops at the first one that is not as it was written.
#[derive(Debug)]
pub(super) struct Walk {
    hash: Hash,
    position: u64,
    at: Timestamp,
    streams: HashMap<String, u64>,
    /// The hash before the window of the next event.
    edge: Hash,
}

impl Walk {
    /// Starts before the first event of a journal.
    pub(super) fn new(journal: &str) -> Self {
        Self {
            hash: genesis(journal),
            position: 0,
            at: Timestamp::from_millis(i64::MIN),
            streams: HashMap::new(),
            edge: genesis(journal),
        }
    }

    /// The hash of the event before the window that the next event lies in.
    pub(super) const fn edge(&self) -> &Hash {
        &self.edge
    }

    /// The position of the last event that held.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// The hash of the last event that held, as digits.
    pub(super) fn hash(&self) -> String {
        hex(&self.hash)
    }

    fn next(&self, found: u64) -> Result<u64, Break> {
        let expected = self.position + 1;
        if found == expected {
            return Ok(expected);
        }
        let what = format!("event {expected} is missing, the next one is {found}");
        Err(Break { position: expected, event: None, what })
    }

    /// Whether an event is the next one of its stream, and not older than the one before.
    fn is_in_order(&mut self, stream: &str, seq: u64, at: Timestamp) -> bool {
        let last = match self.streams.get_mut(stream) {
            Some(last) => last,
            None => self.streams.entry(stream.to_owned()).or_default(),
        };
        let in_order = seq == *last + 1 && at >= self.at;
        *last += 1;
        in_order
    }

    fn advance(&mut self, hash: Hash, position: u64, at: Timestamp) {
        (self.hash, self.position, self.at) = (hash, position, at);
        if links::window(position + 1) != links::window(position) {
            self.edge = hash;
        }
    }

    /// Goes on over an event of which only the link is left. That a link was changed shows at the next
    /// event.
    pub(super) fn pass(&mut self, link: &BareLink) -> Result<(), Break> {
        let position = self.next(link.position)?;
        if !self.is_in_order(&link.stream, link.seq, link.at) {
            let what = OUT_OF_ORDER.to_owned();
            return Err(Break { position, event: Some(links::name(link)), what });
        }
        self.advance(link.hash(&self.hash), position, link.at);
        Ok(())
    }

    /// Checks the next event.
    pub(super) fn step(&mut self, stored: Stored) -> Result<Entry, Break> {
        let link = &stored.link;
        let expected = self.next(link.position)?;
        let name = links::name(link);
        let broken = |what: String| Break { position: expected, event: Some(name), what };
        let hash = stored.hash;
        let linked = link.hash(&self.hash) == hash;
        let in_order = self.is_in_order(&link.stream, link.seq, link.at);
        // The payload first: "its payload was changed" says more than "the chain is broken".
        let entry = match stored.entry() {
            Ok(entry) => entry,
            Err(what) => return Err(broken(what)),
        };
        if !linked {
            let what = "its hash does not follow from it and the event before it: one of them was \
                        changed, dropped or reordered";
            return Err(broken(what.into()));
        }
        if !in_order {
            return Err(broken(OUT_OF_ORDER.into()));
        }
        self.advance(hash, expected, entry.at);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link<'a>(stream: &'a str, kind: &'a str, payload_digest: &'a Hash) -> Link<'a> {
        Link { position: 1, stream, seq: 1, at: Timestamp::from_millis(0), kind, payload_digest }
    }

    #[test]
    fn the_encoding_is_unambiguous() {
        let (before, payload) = (genesis("j"), digest("{}"));
        let a = link("ab", "c", &payload).hash(&before);
        let b = link("a", "bc", &payload).hash(&before);
        assert_ne!(a, b);
        assert_ne!(genesis("j"), genesis("k"));
    }

    #[test]
    fn the_encoding_never_changes() {
        let hash = link("system", "pruned", &digest("{\"type\":\"pruned\"}")).hash(&genesis("j"));
        assert_eq!(hex(&hash), "cedc8c2998f62bf395f90947ed0aae790a90514a87c7509286f6eb7ba383864a");
    }
}
