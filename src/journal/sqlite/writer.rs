//! The one thread that writes: what queues up while it commits goes into its next commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::commit::{Ledger, StoredPlan};
use super::queue::{Group, Queue};
use super::rows::io_error;
use crate::journal::admission::{Admitted, Prepared, PreparedAppend};
use crate::journal::blob::{Blobs, LONGEST_ROW};
use crate::journal::owed::Owed;
use crate::journal::store::{Entry, JournalError, Sealed, Sealing};
use crate::kernel::{Redactor, Timestamp};

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// What callers ask of the writer.
#[derive(Debug)]
pub(super) enum Request {
    /// Append a batch; nobody waits for a buffered one.
    Append { batch: Vec<PreparedAppend>, reply: Option<Reply<Vec<Entry>>> },
    /// Keep a plan.
    Keep { plan: StoredPlan, reply: Reply<()> },
    /// Drop the rows that lie beside events older than a time, of runs that were over at a position.
    DropRows { through: u64, before: Timestamp, reply: Reply<u64> },
    /// Seal runs, masking what the seal says.
    Seal { sealing: Sealing, redactor: Redactor, reply: Reply<Sealed> },
    /// Let the file grow to so many pages at most.
    LimitPages { pages: u32, reply: Reply<()> },
}

impl Request {
    pub(super) fn is_awaited(&self) -> bool {
        !matches!(self, Self::Append { reply: None, .. })
    }

    /// How much there is to write, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { batch, .. } => {
                batch.iter().flat_map(|append| &append.events).map(Prepared::bytes).sum()
            }
            Self::Keep { plan, .. } => plan.bytes.len(),
            Self::DropRows { .. } | Self::Seal { .. } | Self::LimitPages { .. } => 0,
        }
    }

    fn refuse(self, error: JournalError, owed: &mut Owed) {
        match self {
            Self::Append { batch, reply: None } => owed.owe(&batch, &error),
            Self::Append { reply: Some(reply), .. } => answer(reply, Err(error)),
            Self::Keep { reply, .. } | Self::LimitPages { reply, .. } => answer(reply, Err(error)),
            Self::DropRows { reply, .. } => answer(reply, Err(error)),
            Self::Seal { reply, .. } => answer(reply, Err(error)),
        }
    }
}

/// A caller that no longer waits has given up; what it asked for stands.
fn answer<T>(reply: Reply<T>, result: Result<T, JournalError>) {
    if reply.send(result).is_err() {
        tracing::debug!("the caller of the journal is gone");
    }
}

/// What callers see of the writer without asking it.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// Commits so far.
    pub(super) commits: AtomicU64,
    /// Whether the failure of a buffered append has yet to be told.
    pub(super) owes: AtomicBool,
}

/// The writer.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) ledger: Ledger,
    pub(super) blobs: Blobs,
    pub(super) gauges: Arc<Gauges>,
    owed: Owed,
    /// Set when the disk fails: what it holds is known again only after the journal is opened anew.
    lost: Option<JournalError>,
}

/// What becomes of a request when its transaction is committed.
type Staged = (Request, Result<Made, JournalError>);

/// What a transaction made of a request.
#[derive(Debug)]
enum Made {
    /// These entries.
    Entries(Admitted),
    /// So many rows fewer.
    Dropped(u64),
    /// So many runs and payloads fewer.
    Sealed(Sealed),
    /// Nothing to tell of.
    Nothing,
}

impl Writer {
    /// A writer; [`Writer::run`] is the body of its thread.
    pub(super) fn new(
        queue: Arc<Queue>,
        ledger: Ledger,
        blobs: Blobs,
        gauges: Arc<Gauges>,
    ) -> Self {
        Self { queue, ledger, blobs, gauges, owed: Owed::default(), lost: None }
    }

    /// Works until nothing will come any more and all that came is committed.
    pub(super) fn run(mut self) {
        while let Some(Group { requests, size }) = self.queue.next() {
            self.work(requests);
            self.queue.done(size);
            self.gauges.owes.store(self.owed.anything(), Ordering::SeqCst);
        }
    }

    /// Commits a group. When there is no space for all of it, each request is tried alone.
    fn work(&mut self, group: Vec<Request>) {
        let Err((group, error)) = self.commit(group) else { return };
        let alone = group.len() > 1 && matches!(error, JournalError::Storage { full: true, .. });
        for request in group {
            if !alone {
                request.refuse(error.clone(), &mut self.owed);
            } else if let Err((rest, error)) = self.commit(vec![request]) {
                for one in rest {
                    one.refuse(error.clone(), &mut self.owed);
                }
            }
        }
    }

    /// Commits a group, each request of it wholly or not at all. Answers go out after the commit only:
    /// even a refusal can depend on what another request of the group wrote.
    fn commit(&mut self, group: Vec<Request>) -> Result<(), (Vec<Request>, JournalError)> {
        if let Some(error) = &self.lost {
            return Err((group, error.clone()));
        }
        if let Err(error) = self.ledger.begin() {
            self.ledger.roll_back();
            return Err((group, error));
        }
        let owed_before = self.owed.clone();
        match self.stage_all(group) {
            Ok(staged) => {
                if staged.iter().any(|(_, outcome)| outcome.is_ok()) {
                    self.gauges.commits.fetch_add(1, Ordering::SeqCst);
                }
                staged.into_iter().for_each(deliver);
                Ok(())
            }
            Err((group, error)) => {
                self.ledger.roll_back();
                self.owed = owed_before;
                if !matches!(error, JournalError::Storage { full: true, .. }) {
                    tracing::error!(%error, "the journal stops: open it anew");
                    self.lost = Some(error.clone());
                }
                Err((group, error))
            }
        }
    }

    fn stage_all(
        &mut self,
        group: Vec<Request>,
    ) -> Result<Vec<Staged>, (Vec<Request>, JournalError)> {
        let requests = |staged: Vec<Staged>| staged.into_iter().map(|(request, _)| request);
        let mut staged: Vec<Staged> = Vec::with_capacity(group.len());
        let mut group = group.into_iter();
        while let Some(request) = group.next() {
            match self.stage(&request) {
                Ok(outcome) => staged.push((request, outcome)),
                Err(error) => {
                    return Err((requests(staged).chain([request]).chain(group).collect(), error));
                }
            }
        }
        match self.ledger.commit() {
            Ok(()) => Ok(staged),
            Err(error) => Err((requests(staged).collect(), error)),
        }
    }

    /// Does what is asked inside the transaction. The outer error is the end of the transaction, the
    /// inner one is a refusal of this request alone.
    fn stage(&mut self, request: &Request) -> Result<Result<Made, JournalError>, JournalError> {
        let (batch, heard) = match request {
            Request::Keep { plan, .. } => {
                return self.ledger.keep(plan).map(|()| Ok(Made::Nothing));
            }
            Request::LimitPages { pages, .. } => {
                return self.ledger.limit_pages(*pages).map(|()| Ok(Made::Nothing));
            }
            Request::DropRows { through, before, .. } => {
                return self
                    .ledger
                    .drop_rows(*through, *before)
                    .map(|rows| Ok(Made::Dropped(rows)));
            }
            Request::Seal { sealing, redactor, .. } => {
                let sealed = self.ledger.seal(sealing, (&self.blobs, redactor))?;
                return Ok(sealed.map(Made::Sealed));
            }
            Request::Append { batch, reply } => (batch, reply.is_some()),
        };
        let refused = self.owed.refuse(batch, heard).or_else(|| self.write_blobs(batch).err());
        let error = match refused {
            Some(error) => error,
            None => match self.ledger.append(batch) {
                Ok(admitted) => {
                    self.owed.appended(batch);
                    return Ok(Ok(Made::Entries(admitted)));
                }
                Err(
                    error @ (JournalError::Conflict { .. } | JournalError::DuplicateKey { .. }),
                ) => error,
                Err(error) => return Err(error),
            },
        };
        if !heard {
            self.owed.owe(batch, &error);
        }
        Ok(Err(error))
    }

    fn write_blobs(&self, batch: &[PreparedAppend]) -> Result<(), JournalError> {
        let events = batch.iter().flat_map(|append| &append.events);
        for prepared in events.filter(|prepared| prepared.payload.len() > LONGEST_ROW) {
            self.blobs
                .write(&prepared.digest, &prepared.payload)
                .map_err(|error| io_error(self.blobs.root(), &error))?;
        }
        Ok(())
    }
}

/// Also when it panicked: nobody waits for what it will not do.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

fn deliver((request, outcome): Staged) {
    match request {
        // A buffered refusal is owed since it was staged.
        Request::Append { reply: None, .. } => {}
        Request::Append { batch, reply: Some(reply) } => {
            let entries = outcome.map(|made| match made {
                Made::Entries(admitted) => admitted.entries(batch),
                Made::Dropped(_) | Made::Sealed(_) | Made::Nothing => Vec::new(),
            });
            answer(reply, entries);
        }
        Request::Keep { reply, .. } | Request::LimitPages { reply, .. } => {
            answer(reply, outcome.map(drop));
        }
        Request::Seal { reply, .. } => {
            let sealed = outcome.map(|made| {
                if let Made::Sealed(sealed) = made { sealed } else { Sealed::default() }
            });
            answer(reply, sealed);
        }
        Request::DropRows { reply, .. } => {
            let dropped = outcome.map(|made| if let Made::Dropped(rows) = made { rows } else { 0 });
            answer(reply, dropped);
        }
    }
}
