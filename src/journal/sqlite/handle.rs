//! The handle that callers hold.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::oneshot;

use super::check;
use super::commit::{Ledger, StoredPlan};
use super::queue::Queue;
use super::reader::Reader;
use super::rows::io_error;
use super::schema::{self, MIGRATIONS};
use super::writer::{Gauges, Request, Writer};
use crate::journal::admission::{Large, prepare};
use crate::journal::blob::Blobs;
use crate::journal::chain::genesis;
use crate::journal::event::Fact;
use crate::journal::lock::StateLock;
use crate::journal::store::{
    Append, Durability, Entry, EntryFilter, Head, Held, Journal, JournalError, RawEvent, Retention,
    RunFilter, RunSummary, Sealable, Sealed, Sealing, Space, Stream, Verification, outputs,
};
use crate::kernel::digest::hex;
use crate::kernel::{BoxFuture, Clock, Digest, Redactor, RunId, Timestamp};
use crate::plan::Plan;

/// The journal of a state directory.
///
/// Dropping it commits what is queued. An append whose future is dropped may still be carried out.
pub struct SqliteJournal {
    id: String,
    redactor: Redactor,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    gauges: Arc<Gauges>,
    reader: Reader,
    blobs: Blobs,
    _lock: StateLock,
}

impl SqliteJournal {
    /// Opens the journal of a state directory, and makes or migrates it where that is needed.
    pub fn open(
        state_dir: &Path,
        clock: Arc<dyn Clock>,
        redactor: Redactor,
    ) -> Result<Arc<Self>, JournalError> {
        let (lock, conn) = schema::open(state_dir, MIGRATIONS)?;
        let id = schema::identity(&conn)?;
        let blobs = Blobs::new(state_dir);
        let gauges = Arc::<Gauges>::default();
        let queue = Arc::<Queue>::default();
        let ledger = Ledger::new(conn, clock, &id);
        let writer = Writer::new(Arc::clone(&queue), ledger, blobs.clone(), Arc::clone(&gauges));
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .map_err(|error| io_error(state_dir, &error))?;
        Ok(Arc::new(Self {
            id,
            redactor,
            queue,
            thread: Some(thread),
            gauges,
            reader: Reader::new(schema::file(state_dir), blobs.clone()),
            blobs,
            _lock: lock,
        }))
    }

    /// Lets the file grow to so many pages of 4 KiB at most: a quota, and how tests fill the disk.
    pub async fn limit_pages(&self, pages: u32) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::LimitPages { pages, reply })?;
        answer.await.map_err(|_| gone())?
    }

    fn send(&self, request: Request) -> Result<(), JournalError> {
        if self.queue.push(request) { Ok(()) } else { Err(gone()) }
    }

    fn must_wait(&self, durability: Durability) -> bool {
        durability == Durability::Synced
            || self.gauges.owes.load(Ordering::SeqCst)
            || self.queue.is_full()
    }

    async fn append_one(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> Result<Vec<Entry>, JournalError> {
        let batch = prepare(batch, &self.redactor, Large::Apart)?;
        if !self.must_wait(durability) {
            self.send(Request::Append { batch, reply: None })?;
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append { batch, reply: Some(reply) })?;
        let entries = answer.await.map_err(|_| gone())??;
        Ok(if durability == Durability::Synced { entries } else { Vec::new() })
    }

    async fn keep(&self, plan: StoredPlan) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Keep { plan, reply })?;
        answer.await.map_err(|_| gone())?
    }

    /// A walk over everything takes its time, so it has a thread of its own.
    async fn verify_all(&self) -> Result<Verification, JournalError> {
        let conn = self.reader.connect()?;
        let blobs = self.blobs.clone();
        self.on_a_thread("journal-verify", move || check::verify(&conn, &blobs)).await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let work = move || {
            if reply.send(work()).is_err() {
                tracing::debug!("nobody waits for a thread of the journal any more");
            }
        };
        std::thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .map_err(|error| io_error(self.blobs.root(), &error))?;
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> JournalError {
    JournalError::Storage { reason: "the thread of the journal has ended".into(), full: false }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.queue.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the journal panicked");
        }
    }
}

impl Journal for SqliteJournal {
    fn append(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(self.append_one(batch, durability))
    }

    fn read_some(
        &self,
        stream: &Stream,
        after: u64,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        let stream = stream.clone();
        Box::pin(async move { self.reader.read_some(stream.as_str(), after, most) })
    }

    fn entries(&self, filter: EntryFilter) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(async move { self.reader.entries(&filter) })
    }

    fn decisions(
        &self,
        stream: &Stream,
        after: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        let stream = stream.clone();
        Box::pin(async move { self.reader.decisions(stream.as_str(), after) })
    }

    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        Box::pin(async move { self.reader.runs(&filter) })
    }

    fn find_run(&self, prefix: &str) -> BoxFuture<'_, Result<RunSummary, JournalError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { self.reader.find_run(&prefix) })
    }

    fn lock_holder(&self, lock: &str) -> BoxFuture<'_, Result<Option<RunId>, JournalError>> {
        let lock = lock.to_owned();
        Box::pin(async move { self.reader.lock_holder(&lock) })
    }

    fn with_rows(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(async move { self.reader.with_rows(entries) })
    }

    fn drop_rows(
        &self,
        through: u64,
        before: Timestamp,
    ) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            if !self.reader.has_rows(through, before)? {
                return Ok(0);
            }
            let (reply, answer) = oneshot::channel();
            self.send(Request::DropRows { through, before, reply })?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn sealable(
        &self,
        retention: Retention,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Sealable>, JournalError>> {
        Box::pin(async move { self.reader.sealable(retention, most) })
    }

    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<Sealed, JournalError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let redactor = self.redactor.clone();
            self.send(Request::Seal { sealing, redactor, reply })?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn raw<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<RawEvent>, JournalError>> {
        Box::pin(async move { self.reader.raw(run.as_str()) })
    }

    fn held(&self, position: u64) -> BoxFuture<'_, Result<Option<Held>, JournalError>> {
        Box::pin(async move { self.reader.held(position) })
    }

    fn space(&self) -> BoxFuture<'_, Result<Space, JournalError>> {
        Box::pin(async move { self.reader.space() })
    }

    /// Rewriting the file takes its time, so it has a thread of its own.
    fn compact(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        let conn = self.reader.connect_to_write();
        Box::pin(async move {
            let conn = conn?;
            self.on_a_thread("journal-compact", move || {
                // The log holds the whole file after that, until it is written back.
                conn.execute_batch("vacuum; pragma wal_checkpoint(truncate)")?;
                Ok(())
            })
            .await
        })
    }

    fn facts<'a>(
        &'a self,
        fact: &'a Fact,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Value>, JournalError>> {
        Box::pin(async move { Ok(outputs(self.reader.facts(fact, limit)?)) })
    }

    fn put_plan(&self, plan: &Plan) -> BoxFuture<'_, Result<(), JournalError>> {
        let bytes = plan.to_bytes();
        let bytes = bytes.map_err(|error| JournalError::unwritable_plan(&plan.id, &error));
        let plan = bytes.map(|bytes| StoredPlan::new(plan.id.clone(), bytes));
        Box::pin(async move { self.keep(plan?).await })
    }

    fn plan(&self, id: &Digest) -> BoxFuture<'_, Result<Option<Plan>, JournalError>> {
        let id = id.clone();
        Box::pin(async move { self.reader.plan(&id) })
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, JournalError>> {
        Box::pin(async move {
            let end = self.reader.end()?;
            let (position, hash) = end.unwrap_or_else(|| (0, hex(&genesis(&self.id))));
            Ok(Head { journal: self.id.clone(), position, hash })
        })
    }

    fn hash_at(&self, position: u64) -> BoxFuture<'_, Result<Option<String>, JournalError>> {
        Box::pin(async move { self.reader.hash_at(position) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<Verification, JournalError>> {
        Box::pin(self.verify_all())
    }

    fn commits(&self) -> u64 {
        self.gauges.commits.load(Ordering::SeqCst)
    }
}
