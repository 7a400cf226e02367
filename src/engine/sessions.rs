//! The sessions that a run keeps from one step to the next while it is at work.
//!
//! Connecting costs more than a small change does. So a session that nothing is left in is kept for what the
//! run does next in the same place, reset meanwhile, and closed soon: a run that waits holds none.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Held;
use tokio::task::JoinHandle;

use super::apply::Begun;
use super::parts::{Endpoints, Parts};
use crate::kernel::{Clock, KillPoints, RunId, Target};
use crate::postgres::{KeptReader, PgEndpoint, PgError, PgWriter, ServerFacts};

/// How long a session is kept that nobody takes.
const IDLE: Duration = Duration::from_secs(2);

/// How long after an answer a session is taken to be alive without being asked: as much could happen to it between
/// an answer and what it is used for.
const ALIVE: Duration = Duration::from_millis(100);

/// The most sessions of a kind that a run keeps at a time.
const MOST: usize = 4;

/// What a run keeps.
pub struct Sessions {
    around: Around,
    writers: Shelf<PgWriter>,
    readers: Shelf<KeptReader>,
    /// Those that have the name of a change whose start is being written down.
    begun: Mutex<Vec<(String, Begun)>>,
    /// The places where the table of keys was seen.
    ready: Mutex<BTreeSet<String>>,
}

/// What is around the sessions.
struct Around {
    clock: Arc<dyn Clock>,
    kill: Arc<dyn KillPoints>,
    endpoints: Arc<dyn Endpoints>,
    connection: String,
    /// What a session is called while nobody has it.
    name: String,
}

/// A session that can be kept.
trait Keep: Sized + Send + 'static {
    /// What it must be asked for, beside the target.
    type Place: Send;

    /// Makes it as good as new, called by `name`; `false`: it is of no more use.
    fn reset(&mut self, name: &str) -> impl Future<Output = Result<bool, PgError>> + Send;

    fn close(self) -> impl Future<Output = ()> + Send;
}

/// One that changes is good for the same user at the same address.
impl Keep for PgWriter {
    type Place = PgEndpoint;

    async fn reset(&mut self, name: &str) -> Result<bool, PgError> {
        Self::reset(self, name).await
    }

    async fn close(self) {
        Self::close(self).await;
    }
}

impl Keep for KeptReader {
    type Place = ();

    async fn reset(&mut self, _name: &str) -> Result<bool, PgError> {
        Ok(true)
    }

    async fn close(self) {
        Self::close(self).await;
    }
}

/// Sessions of a kind that wait for somebody.
struct Shelf<S: Keep>(Mutex<Vec<Kept<S>>>);

/// One of them; empty when it was taken, was no good, or its time was over.
struct Kept<S: Keep> {
    place: S::Place,
    target: Target,
    session: Arc<Held<Option<S>>>,
    keeper: JoinHandle<()>,
}

/// The sessions that a run keeps, as a step on a target sees them.
#[derive(Clone, Copy)]
pub struct SessionsOf<'a> {
    /// All of them.
    pub run: &'a Sessions,
    /// Where the step works.
    pub target: &'a Target,
}

impl Sessions {
    /// Those of a run; none yet.
    pub fn new(parts: &Parts, run: &RunId, connection: &str) -> Self {
        let around = Around {
            clock: Arc::clone(&parts.clock),
            kill: Arc::clone(&parts.kill),
            endpoints: Arc::clone(&parts.endpoints),
            connection: connection.to_owned(),
            name: format!("lakeops:{run}"),
        };
        Self {
            around,
            writers: Shelf(Mutex::default()),
            readers: Shelf(Mutex::default()),
            begun: Mutex::default(),
            ready: Mutex::default(),
        }
    }

    /// A session for a change, still with the name of nobody's change.
    pub(super) async fn writer(
        &self,
        endpoint: &PgEndpoint,
        expected: Option<&ServerFacts>,
    ) -> Option<PgWriter> {
        while let Some(writer) = self.writers.take(|kept| kept.place.is_same(endpoint)).await {
            // A backend stays where it is: what was true of the place when it connected is true now.
            if expected.is_none_or(|place| writer.facts().difference(place).is_none()) {
                return Some(writer);
            }
            writer.close().await;
        }
        None
    }

    /// Keeps the session of a change that has ended. `boundary` is passed when it was reset.
    pub(super) fn keep_writer(
        &self,
        (endpoint, target): (&PgEndpoint, &Target),
        writer: PgWriter,
        boundary: impl FnOnce() -> String,
    ) {
        let boundary = self.around.kill.listens().then(boundary);
        self.writers.keep(&self.around, (endpoint.clone(), target.clone()), writer, boundary);
    }

    /// A session that only read what the target names, and whether its server has answered just now.
    pub(super) async fn reader(&self, target: &Target) -> Option<(KeptReader, bool)> {
        let reader = self.readers.take(|kept| kept.target == *target).await?;
        let now = self.around.clock.now();
        let is_proven = reader.answered.is_some_and(|at| now.since(at) < ALIVE);
        Some((reader, is_proven))
    }

    /// Keeps a session that only read.
    pub(super) fn keep_reader(&self, target: &Target, mut reader: KeptReader) {
        reader.answered.get_or_insert_with(|| self.around.clock.now());
        self.readers.keep(&self.around, ((), target.clone()), reader, None);
    }

    /// Takes in the transaction of the change of this name, which is not to be committed before its start is on disk.
    pub(super) fn begun(&self, name: &str, begun: Begun) {
        lock(&self.begun).push((name.to_owned(), begun));
    }

    /// The transaction of the change of this name.
    pub(super) fn take_begun(&self, name: &str) -> Option<Begun> {
        let mut begun = lock(&self.begun);
        let at = begun.iter().position(|(ready, _)| ready == name)?;
        Some(begun.swap_remove(at).1)
    }

    /// Closes all that are kept.
    pub(super) async fn close(&self) {
        lock(&self.ready).clear();
        // Nobody came for these; their transactions are rolled back.
        lock(&self.begun).clear();
        self.writers.close(&self.around).await;
        self.readers.close(&self.around).await;
    }

    /// Whether the table of keys was seen in a place.
    pub(super) fn is_ready(&self, place: &ServerFacts) -> bool {
        lock(&self.ready).contains(&ready(place))
    }

    /// Remembers that it was.
    pub(super) fn saw_ready(&self, place: &ServerFacts) {
        lock(&self.ready).insert(ready(place));
    }
}

impl<S: Keep> Shelf<S> {
    async fn take(&self, is_here: impl Fn(&Kept<S>) -> bool) -> Option<S> {
        loop {
            let kept = {
                let mut all = lock(&self.0);
                let at = all.iter().rposition(&is_here)?;
                all.swap_remove(at)
            };
            let session = kept.session.lock().await.take();
            if session.is_some() {
                kept.keeper.abort();
                return session;
            }
        }
    }

    fn keep(
        &self,
        around: &Around,
        (place, target): (S::Place, Target),
        mut session: S,
        boundary: Option<String>,
    ) {
        let mut all = lock(&self.0);
        all.retain(|kept| !kept.session.try_lock().is_ok_and(|session| session.is_none()));
        let is_room = all.len() < MOST;
        let (connection, used_at) = (around.connection.clone(), target.clone());
        let (clock, endpoints) = (Arc::clone(&around.clock), Arc::clone(&around.endpoints));
        let used = move || endpoints.used(&connection, &used_at);
        let shared = Arc::<Held<Option<S>>>::default();
        // Nobody else knows it yet. Whoever takes it before it is ready, or closes all, waits for the lock.
        let Ok(mut slot) = Arc::clone(&shared).try_lock_owned() else { return };
        let (kill, name) = (Arc::clone(&around.kill), around.name.clone());
        let again = Arc::clone(&shared);
        let keeper = tokio::spawn(async move {
            if !is_room {
                session.close().await;
                return used();
            }
            let is_good = session.reset(&name).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "a session is not kept");
                false
            });
            if !is_good {
                return used();
            }
            if let Some(boundary) = boundary {
                kill.reach(&boundary);
            }
            *slot = Some(session);
            drop(slot);
            clock.sleep_until(clock.now().plus(IDLE)).await;
            let mut slot = again.lock().await;
            if let Some(session) = slot.take() {
                session.close().await;
                used();
            }
        });
        all.push(Kept { place, target, session: shared, keeper });
    }

    async fn close(&self, around: &Around) {
        let all = std::mem::take(&mut *lock(&self.0));
        for kept in all {
            // Who resets it has it until then.
            if let Some(session) = kept.session.lock().await.take() {
                kept.keeper.abort();
                session.close().await;
                around.endpoints.used(&around.connection, &kept.target);
            }
        }
    }
}

fn ready(place: &ServerFacts) -> String {
    format!("{} {}", place.identity(), place.user)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
