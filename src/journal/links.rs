//! Links without their payloads: what is left of the events of sealed runs. PURE.
//!
//! The hash of an event covers the digest of its payload, so the chain holds without the payload. What it
//! needs of such an event is its [`BareLink`]; they lie packed, by windows of positions. Whoever verifies
//! walks over events and bare links in order and works out every hash. That a payload is gone is right
//! only when a [`RunsSealed`](Event::RunsSealed) event further on says so, and kinds that stay
//! ([`Event::STAYS`]) are never gone: [`Seals`] checks both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chain::{Hash, Link};
use super::event::Event;
use super::store::{Break, Entry, Held};
use crate::kernel::{Digest, Timestamp};

/// So many positions lie in one window.
const WINDOW: u64 = 1024;

/// How well a window is compressed.
const LEVEL: i32 = 3;

/// The window that a position lies in.
pub(super) const fn window(position: u64) -> u64 {
    position / WINDOW
}

/// The position before the first one of a window: 0, where nothing is, for the first.
pub(super) const fn edge(window: u64) -> u64 {
    (window * WINDOW).saturating_sub(1)
}

/// What the chain needs of an event: all but its payload and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BareLink {
    pub(super) position: u64,
    pub(super) stream: String,
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) kind: String,
    pub(super) payload_digest: Hash,
}

impl BareLink {
    /// What the chain holds of its event.
    pub(super) fn held(&self) -> Held {
        let payload = Digest::of_hash(&self.payload_digest);
        let (stream, kind) = (self.stream.clone(), self.kind.clone());
        Held { stream, seq: self.seq, at: self.at, kind, payload }
    }

    /// The hash of its event.
    pub(super) fn hash(&self, previous: &Hash) -> Hash {
        let link = Link {
            position: self.position,
            stream: &self.stream,
            seq: self.seq,
            at: self.at,
            kind: &self.kind,
            payload_digest: &self.payload_digest,
        };
        link.hash(previous)
    }
}

/// The links of a window as they are stored, column by column. Positions and times are differences to the
/// link before.
#[derive(Default, Serialize, Deserialize)]
struct Columns {
    streams: Vec<String>,
    kinds: Vec<String>,
    position: Vec<u64>,
    stream: Vec<usize>,
    seq: Vec<u64>,
    at: Vec<i64>,
    kind: Vec<usize>,
}

/// The links of a window as they are stored.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// All but the digests, compressed.
    pub(super) columns: Vec<u8>,
    /// The digests of the payloads.
    pub(super) digests: Vec<u8>,
}

/// Packs links that are in order.
pub(super) fn pack(links: &[BareLink]) -> std::io::Result<Packed> {
    let mut columns = Columns::default();
    let mut digests = Vec::with_capacity(links.len() * 32);
    let (mut position, mut at) = (0, 0);
    for link in links {
        columns.position.push(link.position - position);
        columns.at.push(link.at.as_millis() - at);
        columns.seq.push(link.seq);
        columns.stream.push(index(&mut columns.streams, &link.stream));
        columns.kind.push(index(&mut columns.kinds, &link.kind));
        digests.extend_from_slice(&link.payload_digest);
        (position, at) = (link.position, link.at.as_millis());
    }
    let text = serde_json::to_vec(&columns)?;
    Ok(Packed { columns: zstd::bulk::compress(&text, LEVEL)?, digests })
}

fn index(names: &mut Vec<String>, name: &str) -> usize {
    // Neighbours are of the same few streams: the newest names are looked at first.
    names.iter().rposition(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// The links of a window. The error says what is wrong with it.
pub(super) fn unpack(packed: &Packed) -> Result<Vec<BareLink>, String> {
    let text = zstd::stream::decode_all(&*packed.columns)
        .map_err(|error| format!("they cannot be unpacked: {error}"))?;
    let columns: Columns =
        serde_json::from_slice(&text).map_err(|error| format!("they cannot be read: {error}"))?;
    let (digests, rest) = packed.digests.as_chunks::<32>();
    let Columns { streams, kinds, position, stream, seq, at, kind } = columns;
    let count = digests.len();
    let lengths = [position.len(), stream.len(), seq.len(), at.len(), kind.len()];
    if !rest.is_empty() || lengths.iter().any(|length| *length != count) {
        return Err("their columns are not of one length".into());
    }
    let mut links = Vec::with_capacity(count);
    let mut before = (0_u64, 0_i64);
    let rows = position.into_iter().zip(at).zip(seq).zip(stream).zip(kind).zip(digests);
    for (((((position, at), seq), stream), kind), digest) in rows {
        let (Some(stream), Some(kind)) = (streams.get(stream), kinds.get(kind)) else {
            return Err("one of them names what is not there".into());
        };
        before = (before.0.saturating_add(position), before.1.saturating_add(at));
        links.push(BareLink {
            position: before.0,
            stream: stream.clone(),
            seq,
            at: Timestamp::from_millis(before.1),
            kind: kind.clone(),
            payload_digest: *digest,
        });
    }
    Ok(links)
}

/// What a walk over the chain has seen of sealed runs.
#[derive(Debug, Default)]
pub(super) struct Seals {
    bare: BTreeMap<String, Bare>,
    /// By run: the position of the seal that names it, and how many links it says are bare.
    named: BTreeMap<String, (u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Bare {
    first: u64,
    last: u64,
    count: u64,
}

impl Seals {
    /// Takes the next bare link.
    pub(super) fn link(&mut self, link: &BareLink) -> Result<(), Break> {
        let position = link.position;
        if Event::STAYS.contains(&link.kind.as_str()) {
            let what = format!("its payload is gone, and the payload of a `{}` stays", link.kind);
            return Err(Break { position, event: Some(name(link)), what });
        }
        let bare = self.bare.entry(link.stream.clone());
        let bare = bare.or_insert(Bare { first: position, last: position, count: 0 });
        bare.last = position;
        bare.count += 1;
        Ok(())
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, entry: &Entry) {
        let Event::RunsSealed { runs, .. } = &entry.event else { return };
        for sealed in runs {
            self.named.insert(sealed.run.to_string(), (entry.position, sealed.events));
        }
    }

    /// Whether every payload that is gone is accounted for: how many runs are sealed, and how many of their
    /// events are bare links.
    pub(super) fn finish(self) -> Result<(u64, u64), Break> {
        let Self { bare, named } = self;
        let broken = |position, what| Err(Break { position, event: None, what });
        for (stream, Bare { first, last, count }) in &bare {
            match named.get(stream) {
                None => {
                    let what = format!(
                        "its payload is gone, and nothing says that run {stream} was sealed"
                    );
                    return broken(*first, what);
                }
                Some((seal, _)) if seal <= last => {
                    let what =
                        format!("its payload is gone, and run {stream} was sealed before it");
                    return broken(*last, what);
                }
                Some((seal, said)) if said != count => {
                    let what = format!(
                        "it says that {said} payloads of run {stream} are gone, and {count} are"
                    );
                    return broken(*seal, what);
                }
                Some(_) => {}
            }
        }
        let whole = named.iter().find(|(run, (_, said))| *said > 0 && !bare.contains_key(*run));
        if let Some((run, (seal, said))) = whole {
            let what = format!("it says that {said} payloads of run {run} are gone, and none is");
            return broken(*seal, what);
        }
        let runs = u64::try_from(named.len()).unwrap_or(u64::MAX);
        Ok((runs, bare.values().map(|bare| bare.count).sum()))
    }
}

/// An event for people: its stream and its place in it.
pub(super) fn name(link: &BareLink) -> String {
    format!("{}#{}", link.stream, link.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::chain::digest;
    use crate::journal::event::{Principal, SealedRun};
    use crate::kernel::RunId;

    fn link(position: u64, stream: &str, kind: &str) -> BareLink {
        BareLink {
            position,
            stream: stream.into(),
            seq: position * 3,
            at: Timestamp::from_millis(1_700_000_000_000 + i64::try_from(position).unwrap()),
            kind: kind.into(),
            payload_digest: digest(position.to_string()),
        }
    }

    #[test]
    fn a_window_comes_back_and_is_small() {
        let stream = |at: u64| {
            if (at / 20).is_multiple_of(2) { "aaaaaaaaaaaaaaaa" } else { "bbbbbbbbbbbbbbbb" }
        };
        let positions = (1024_u64..2048).filter(|at| !at.is_multiple_of(7));
        let links: Vec<_> = positions.map(|at| link(at, stream(at), "step_succeeded")).collect();
        let packed = pack(&links).unwrap();
        assert_eq!(unpack(&packed).unwrap(), links);
        let each = (packed.columns.len() + packed.digests.len()) / links.len();
        assert!(each < 36, "{each} bytes for each link, 32 of them its digest");
        assert_eq!((window(1024), edge(1), window(1023), edge(0)), (1, 1023, 0, 0));
    }

    #[test]
    fn what_is_no_window_is_an_error() {
        let packed = pack(&[link(1, "a", "k"), link(2, "a", "k")]).unwrap();
        let short = Packed { digests: packed.digests[..32].to_vec(), ..packed.clone() };
        let odd = Packed { digests: packed.digests[..40].to_vec(), ..packed.clone() };
        let noise = Packed { columns: b"noise".to_vec(), ..packed };
        for bad in [short, odd, noise] {
            unpack(&bad).unwrap_err();
        }
    }

    #[test]
    fn what_is_gone_is_accounted_for() {
        let sealed = |position: u64, events: u64| Entry {
            position,
            stream: "system".into(),
            seq: 1,
            at: Timestamp::from_millis(0),
            event: Event::RunsSealed {
                by: Principal { name: "ada".into(), from: "here".into() },
                in_history: true,
                archive: None,
                runs: vec![SealedRun { run: RunId::new("a"), events }],
            },
        };
        let account = |links: &[BareLink], seals: &[Entry]| {
            let mut all = Seals::default();
            for link in links {
                all.link(link)?;
            }
            for seal in seals {
                all.event(seal);
            }
            all.finish()
        };
        let links = [link(3, "a", "step_succeeded"), link(5, "a", "attempt_started")];
        assert_eq!(account(&links, &[sealed(9, 2)]), Ok((1, 2)));
        let places = [
            // No seal; one before the end; one that says less; one of something that is there.
            (account(&links, &[]), 3),
            (account(&links, &[sealed(4, 2)]), 5),
            (account(&links, &[sealed(9, 1)]), 9),
            (account(&[], &[sealed(9, 1)]), 9),
            // A decision stays, whatever a seal says.
            (account(&[link(3, "a", "approval_decided")], &[sealed(9, 1)]), 3),
        ];
        for (found, position) in places {
            assert_eq!(found.unwrap_err().position, position);
        }
        assert_eq!(account(&[], &[sealed(9, 0)]), Ok((1, 0)));
    }
}
