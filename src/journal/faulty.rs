//! A journal that fails on demand: tests use it to fail before and after every append.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::event::Fact;
use super::store::{
    Append, Durability, Entry, EntryFilter, Head, Held, Journal, JournalError, RawEvent, Retention,
    RunFilter, RunSummary, Sealable, Sealed, Sealing, Space, Stream, Verification,
};
use crate::kernel::{BoxFuture, Digest, RunId, Timestamp};
use crate::plan::Plan;

/// When the append fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Before the inner journal has it.
    Before,
    /// After the inner journal has it: the caller cannot know.
    After,
}

/// A journal whose `nth` append (from 1), and every one after it, fails.
///
/// The later ones fail too, since a caller that goes on as if nothing had happened is what a test looks
/// for; [`FaultyJournal::heal`] ends it.
pub struct FaultyJournal {
    inner: Arc<dyn Journal>,
    fault: Fault,
    nth: AtomicU64,
    appends: AtomicU64,
}

impl FaultyJournal {
    /// Wraps a journal. An `nth` of 0 never fails and only counts.
    pub fn new(inner: Arc<dyn Journal>, fault: Fault, nth: u64) -> Self {
        Self { inner, fault, nth: AtomicU64::new(nth), appends: AtomicU64::new(0) }
    }

    /// How many appends were asked for.
    pub fn appends(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }

    /// Lets every further append through.
    pub fn heal(&self) {
        self.nth.store(0, Ordering::SeqCst);
    }
}

impl InFront for FaultyJournal {
    fn behind(&self) -> &dyn Journal {
        self.inner.as_ref()
    }

    fn take(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        Box::pin(async move {
            let count = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
            let nth = self.nth.load(Ordering::SeqCst);
            let failure = || JournalError::Storage {
                reason: format!("append {count} fails on demand"),
                full: false,
            };
            if nth == 0 || count < nth {
                return self.inner.append(batch, durability).await;
            }
            if count == nth && self.fault == Fault::After {
                self.inner.append(batch, durability).await?;
            }
            Err(failure())
        })
    }
}

/// A journal in front of another one: what is appended goes through its hands, the rest straight on.
pub trait InFront: Send + Sync {
    /// The journal behind it.
    fn behind(&self) -> &dyn Journal;

    /// Appends, as [`Journal::append`] does.
    fn take(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>>;
}

impl<T: InFront> Journal for T {
    fn append(
        &self,
        batch: Vec<Append>,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.take(batch, durability)
    }

    fn read_some(
        &self,
        stream: &Stream,
        after: u64,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.behind().read_some(stream, after, most)
    }

    fn entries(&self, filter: EntryFilter) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.behind().entries(filter)
    }

    fn decisions(
        &self,
        stream: &Stream,
        after: u64,
    ) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.behind().decisions(stream, after)
    }

    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, JournalError>> {
        self.behind().runs(filter)
    }

    fn find_run(&self, prefix: &str) -> BoxFuture<'_, Result<RunSummary, JournalError>> {
        self.behind().find_run(prefix)
    }

    fn lock_holder(&self, lock: &str) -> BoxFuture<'_, Result<Option<RunId>, JournalError>> {
        self.behind().lock_holder(lock)
    }

    fn with_rows(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Entry>, JournalError>> {
        self.behind().with_rows(entries)
    }

    fn drop_rows(
        &self,
        through: u64,
        before: Timestamp,
    ) -> BoxFuture<'_, Result<u64, JournalError>> {
        self.behind().drop_rows(through, before)
    }

    fn sealable(
        &self,
        retention: Retention,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<Sealable>, JournalError>> {
        self.behind().sealable(retention, most)
    }

    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<Sealed, JournalError>> {
        self.behind().seal(sealing)
    }

    fn raw<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<RawEvent>, JournalError>> {
        self.behind().raw(run)
    }

    fn held(&self, position: u64) -> BoxFuture<'_, Result<Option<Held>, JournalError>> {
        self.behind().held(position)
    }

    fn space(&self) -> BoxFuture<'_, Result<Space, JournalError>> {
        self.behind().space()
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        self.behind().compact()
    }

    fn facts<'a>(
        &'a self,
        fact: &'a Fact,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Value>, JournalError>> {
        self.behind().facts(fact, limit)
    }

    fn put_plan(&self, plan: &Plan) -> BoxFuture<'_, Result<(), JournalError>> {
        self.behind().put_plan(plan)
    }

    fn plan(&self, id: &Digest) -> BoxFuture<'_, Result<Option<Plan>, JournalError>> {
        self.behind().plan(id)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, JournalError>> {
        self.behind().head()
    }

    fn hash_at(&self, position: u64) -> BoxFuture<'_, Result<Option<String>, JournalError>> {
        self.behind().hash_at(position)
    }

    fn verify(&self) -> BoxFuture<'_, Result<Verification, JournalError>> {
        self.behind().verify()
    }

    fn commits(&self) -> u64 {
        self.behind().commits()
    }
}
