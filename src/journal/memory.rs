//! A journal in memory: complete, and gone with the process. Tests and rehearsals use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::admission::{JournalEnd, Known, Large, PreparedAppend, StreamEnd, admit, prepare};
use super::chain::{Hash, Stored, Walk, genesis};
use super::derived::Tables;
use super::event::Fact;
use super::links::BareLink;
use super::owed::Owed;
use super::store::{
    Append, Durability, Entry, EntryFilter, Head, Held, Journal, JournalError, RawEvent, Retention,
    RunFilter, RunSummary, Sealable, Sealed, Sealing, Space, Stream, Verification, outputs,
};
use crate::kernel::digest::hex;
use crate::kernel::{BoxFuture, Clock, Digest, IdSource, RandomIds, Redactor, RunId, Timestamp};
use crate::plan::Plan;

/// A journal in memory.
pub struct MemoryJournal {
    id: String,
    clock: Arc<dyn Clock>,
    redactor: Redactor,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    chain: Vec<Stored>,
    streams: HashMap<String, StreamEnd>,
    tables: Tables,
    plans: HashMap<Digest, Vec<u8>>,
    owed: Owed,
    /// How many events a crash leaves.
    durable: usize,
    commits: u64,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new(clock: Arc<dyn Clock>, redactor: Redactor) -> Self {
        let id = RandomIds.run_id().as_str().to_owned();
        Self { id, clock, redactor, state: Mutex::default() }
    }

    /// What a crash at this moment leaves: all that was synced, and nothing that was only buffered.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let state = self.state();
        let mut left =
            State { plans: state.plans.clone(), durable: state.durable, ..State::default() };
        for (entry, stored) in state.entries.iter().zip(&state.chain).take(state.durable) {
            left.push(entry.clone(), stored.clone());
        }
        Self {
            id: self.id.clone(),
            clock: Arc::clone(&self.clock),
            redactor: self.redactor.clone(),
            state: Mutex::new(left),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> Result<Vec<Entry>, JournalError> {
        let batch = prepare(batch, &self.redactor, Large::Within)?;
        let mut state = self.state();
        if let Some(error) = state.owed.refuse(&batch, true) {
            return Err(error);
        }
        let added = state.append(&self.id, self.clock.now(), &batch);
        match (added, durability) {
            (Ok(entries), Durability::Synced) => {
                state.owed.appended(&batch);
                state.durable = state.entries.len();
                state.commits += 1;
                Ok(entries)
            }
            (Ok(_), Durability::Buffered) => Ok(Vec::new()),
            (Err(error), Durability::Synced) => Err(error),
            (Err(error), Durability::Buffered) => {
                state.owed.owe(&batch, &error);
                Ok(Vec::new())
            }
        }
    }

    fn stream_after(&self, stream: &Stream, after: u64, wanted: fn(&Entry) -> bool) -> Vec<Entry> {
        let stream = stream.as_str();
        let state = self.state();
        let of_stream =
            state.entries.iter().filter(|entry| entry.stream == stream && entry.seq > after);
        of_stream.filter(|entry| wanted(entry)).cloned().collect()
    }
}

impl State {
    fn end(&self, id: &str) -> JournalEnd {
        match self.chain.last() {
            Some(Stored { link, hash, .. }) => {
                JournalEnd { position: link.position, at: link.at, hash: *hash }
            }
            None => {
                JournalEnd { position: 0, at: Timestamp::from_millis(i64::MIN), hash: genesis(id) }
            }
        }
    }

    fn hash_at(&self, position: u64) -> Option<&Hash> {
        let index = usize::try_from(position.checked_sub(1)?).ok()?;
        self.chain.get(index).map(|stored| &stored.hash)
    }

    fn append(
        &mut self,
        id: &str,
        now: Timestamp,
        batch: &[PreparedAppend],
    ) -> Result<Vec<Entry>, JournalError> {
        let end = self.end(id);
        let admitted = admit(self, end, now, batch)?;
        let prepared = batch.iter().flat_map(|append| &append.events);
        let hashes: Vec<_> = admitted.places.iter().map(|place| place.hash).collect();
        let stored: Vec<_> = prepared.zip(hashes).collect();
        let entries = admitted.entries(batch.to_vec());
        for (entry, (prepared, hash)) in entries.iter().zip(stored) {
            let link = BareLink {
                position: entry.position,
                stream: entry.stream.clone(),
                seq: entry.seq,
                at: entry.at,
                kind: entry.event.kind().to_owned(),
                payload_digest: prepared.digest,
            };
            self.push(entry.clone(), Stored { link, payload: prepared.payload.clone(), hash });
        }
        Ok(entries)
    }

    fn push(&mut self, entry: Entry, stored: Stored) {
        let ends = self.streams.entry(entry.stream.clone()).or_default();
        ends.last = entry.seq;
        if entry.event.kind() == "run_claimed" {
            ends.claim = entry.seq;
        }
        self.tables.apply(&entry);
        self.entries.push(entry);
        self.chain.push(stored);
    }
}

impl Known for State {
    fn stream(&mut self, stream: &str) -> Result<StreamEnd, JournalError> {
        Ok(self.streams.get(stream).copied().unwrap_or_default())
    }

    fn run_with_key(&mut self, key: &str) -> Result<Option<RunId>, JournalError> {
        Ok(self.tables.run_with_key(key))
    }
}

impl EntryFilter {
    fn lets_through(&self, entry: &Entry) -> bool {
        let kind = entry.event.kind();
        entry.position > self.after
            && self.stream.as_ref().is_none_or(|stream| *stream == entry.stream)
            && (self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind))
            && self.since.is_none_or(|since| entry.at >= since)
    }
}

impl Journal for MemoryJournal {
    fn append(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(async move { self.append_now(batch, durability) })
    }

    fn read_some(
        &self,
        stream: &Stream,
        after: u64,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        let mut found = self.stream_after(stream, after, |_| true);
        found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Box::pin(async { Ok(found) })
    }

    fn entries(&self, filter: EntryFilter) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        let limit = filter.limit.and_then(|limit| usize::try_from(limit).ok());
        Box::pin(async move {
            let state = self.state();
            let found = state.entries.iter().filter(|entry| filter.lets_through(entry));
            let limit = limit.unwrap_or(usize::MAX);
            if !filter.newest {
                return Ok(found.take(limit).cloned().collect());
            }
            let mut newest: Vec<Entry> = found.rev().take(limit).cloned().collect();
            newest.reverse();
            Ok(newest)
        })
    }

    fn decisions(
        &self,
        stream: &Stream,
        after: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        let found = self.stream_after(stream, after, |entry| entry.event.is_decision());
        Box::pin(async { Ok(found) })
    }

    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(async move { Ok(self.state().tables.list(&filter)) })
    }

    fn find_run(&self, prefix: &str) -> BoxFuture<'_, Result<RunSummary, JournalError>> {
        let mut found = self.state().tables.with_prefix(prefix);
        let result = match (found.pop(), found.len()) {
            (Some(run), 0) => Ok(run),
            (last, others) => Err(JournalError::NoSuchRun {
                prefix: prefix.to_owned(),
                found: others + usize::from(last.is_some()),
            }),
        };
        Box::pin(async { result })
    }

    fn lock_holder(&self, lock: &str) -> BoxFuture<'_, Result<Option<RunId>, JournalError>> {
        let state = self.state();
        let holder = state.tables.locks.get(lock).and_then(|queue| queue.first());
        let holder = holder.map(|(_, run)| run.clone());
        Box::pin(async { Ok(holder) })
    }

    /// All rows are within.
    fn with_rows(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(async { Ok(entries) })
    }

    fn drop_rows(&self, _: u64, _: Timestamp) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async { Ok(0) })
    }

    /// What is gone with the process needs no sealing.
    fn sealable(&self, _: Retention, _: u32) -> BoxFuture<'_, Result<Vec<Sealable>, JournalError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn seal(&self, _: Sealing) -> BoxFuture<'_, Result<Sealed, JournalError>> {
        Box::pin(async { Ok(Sealed::default()) })
    }

    fn raw<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<RawEvent>, JournalError>> {
        let state = self.state();
        let of_run = state.chain.iter().filter(|stored| stored.link.stream == run.as_str());
        let raw = of_run.map(|stored| stored.raw(None)).collect();
        Box::pin(async { Ok(raw) })
    }

    fn held(&self, position: u64) -> BoxFuture<'_, Result<Option<Held>, JournalError>> {
        let state = self.state();
        let mut links = state.chain.iter().map(|stored| &stored.link);
        let held = links.find(|link| link.position == position).map(BareLink::held);
        Box::pin(async { Ok(held) })
    }

    fn space(&self) -> BoxFuture<'_, Result<Space, JournalError>> {
        Box::pin(async { Ok(Space::default()) })
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async { Ok(()) })
    }

    fn facts<'a>(
        &'a self,
        fact: &'a Fact,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Value>, JournalError>> {
        let state = self.state();
        let positions = state.tables.facts.get(fact).into_iter().flatten().rev();
        let index = |position: &u64| usize::try_from(position.checked_sub(1)?).ok();
        let found = positions.take(usize::try_from(limit).unwrap_or(usize::MAX));
        let found = found.filter_map(|at| state.entries.get(index(at)?).cloned()).collect();
        Box::pin(async { Ok(outputs(found)) })
    }

    fn put_plan(&self, plan: &Plan) -> BoxFuture<'_, Result<(), JournalError>> {
        let stored = plan.to_bytes().map(|bytes| {
            let mut state = self.state();
            state.plans.entry(plan.id.clone()).or_insert(bytes);
            state.durable = state.entries.len();
            state.commits += 1;
        });
        let result = stored.map_err(|error| JournalError::unwritable_plan(&plan.id, &error));
        Box::pin(async { result })
    }

    fn plan(&self, id: &Digest) -> BoxFuture<'_, Result<Option<Plan>, JournalError>> {
        let bytes = self.state().plans.get(id).cloned();
        let plan = bytes.map(|bytes| Plan::parse(&bytes)).transpose();
        let result = plan.map_err(|error| JournalError::damaged_plan(id.as_str(), &error));
        Box::pin(async { result })
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, JournalError>> {
        let JournalEnd { position, hash, .. } = self.state().end(&self.id);
        Box::pin(async move { Ok(Head { journal: self.id.clone(), position, hash: hex(&hash) }) })
    }

    fn hash_at(&self, position: u64) -> BoxFuture<'_, Result<Option<String>, JournalError>> {
        let hash = self.state().hash_at(position).map(|hash| hex(hash));
        Box::pin(async { Ok(hash) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<Verification, JournalError>> {
        let chain = self.state().chain.clone();
        let mut walk = Walk::new(&self.id);
        let broken = chain.into_iter().find_map(|stored| walk.step(stored).err());
        let head = Head { journal: self.id.clone(), position: walk.position(), hash: walk.hash() };
        let (events, sealed) = (head.position, Sealed::default());
        Box::pin(async move { Ok(Verification { events, head, sealed, broken }) })
    }

    fn commits(&self) -> u64 {
        self.state().commits
    }
}
