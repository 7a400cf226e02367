//! The sessions that a run keeps from one step to the next while it is at work.
//!
//! Connecting costs more than a small change does. So a session that nothing is left in is kept for what the
//! run does next in the same place, reset meanwhile, and closed soon: a run that waits holds none.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Held, Notify};

use super::apply::Begun;
use super::parts::{Endpoints, Parts};
use crate::kernel::{Clock, KillPoints, RunId, Target, Timestamp};
use crate::postgres::{KeptReader, PgEndpoint, PgError, PgWriter, ServerFacts, WriterSetup};

/// How long the session of a change stays as that one left it: a change that follows at once has it reset by the
/// message in which it begins.
const LINGER: Duration = Duration::from_millis(5);

/// How long a session is kept that nobody takes.
const IDLE: Duration = Duration::from_secs(2);

/// How long after an answer a session is taken to be alive without being asked: as much could happen to it between
/// an answer and what it is used for.
const ALIVE: Duration = Duration::from_millis(100);

/// The most sessions of a kind that a run keeps at a time.
const MOST: usize = 8;

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
#[derive(Clone)]
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

/// A session while nobody has it.
struct Rest<S> {
    session: S,
    left: Option<Left>,
}

/// What the change that had a session last may have left in it.
struct Left {
    /// Passed when it is gone.
    boundary: Option<String>,
}

impl Left {
    fn gone(self, kill: &dyn KillPoints) {
        if let Some(boundary) = self.boundary {
            kill.reach(&boundary);
        }
    }
}

impl<S: Keep> Rest<S> {
    async fn reset(&mut self, name: &str, kill: &dyn KillPoints) -> bool {
        let is_good = self.session.reset(name).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a session is not kept");
            false
        });
        if let Some(left) = self.left.take() {
            left.gone(kill);
        }
        is_good
    }

    async fn close(self, kill: &dyn KillPoints) {
        if let Some(left) = self.left {
            left.gone(kill);
        }
        self.session.close().await;
    }

    /// Closes it, and tells that it is no longer used.
    async fn end(self, around: &Around, target: &Target) {
        self.close(&*around.kill).await;
        around.endpoints.used(&around.connection, target);
    }
}

/// Sessions of a kind that wait for somebody. One task looks after all of them: one for each would be woken, and
/// wake others, with every change.
struct Shelf<S: Keep>(Arc<Shelved<S>>);

struct Shelved<S: Keep> {
    state: Mutex<State<S>>,
    /// Something is to be looked after sooner than at the time that is waited for.
    sooner: Notify,
}

struct State<S: Keep> {
    all: Vec<Kept<S>>,
    /// When the task that looks after them does so next; `None`: there is none.
    looks_at: Option<Timestamp>,
}

/// One of them; empty when it was taken, was no good, or its time was over.
struct Kept<S: Keep> {
    place: S::Place,
    target: Target,
    /// When it is reset; when it was, or needs not be: closed.
    due: Timestamp,
    session: Arc<Held<Option<Rest<S>>>>,
}

/// What is to be done next.
enum Next<S> {
    Nothing,
    WaitUntil(Timestamp),
    LookAfter(Target, Arc<Held<Option<Rest<S>>>>),
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
            writers: Shelf::default(),
            readers: Shelf::default(),
            begun: Mutex::default(),
            ready: Mutex::default(),
        }
    }

    /// A session in which the transaction of a change is open, and nothing of another one is left.
    pub(super) async fn begin(
        &self,
        (endpoint, expected): (&PgEndpoint, Option<&ServerFacts>),
        setup: &WriterSetup<'_>,
    ) -> Option<PgWriter> {
        let Rest { session: mut writer, left } = self.writer(endpoint, expected).await?;
        let begun = match &left {
            Some(_) => writer.begin_anew(setup).await,
            None => writer.begin_as(setup).await.map(|()| true),
        };
        let is_good = begun.unwrap_or_else(|error| {
            tracing::debug!(%error, "a kept session was no good");
            false
        });
        if let Some(left) = left {
            left.gone(&*self.around.kill);
        }
        is_good.then_some(writer)
    }

    async fn writer(
        &self,
        endpoint: &PgEndpoint,
        expected: Option<&ServerFacts>,
    ) -> Option<Rest<PgWriter>> {
        while let Some(rest) = self.writers.take(|kept| kept.place.is_same(endpoint)).await {
            // A backend stays where it is: what was true of the place when it connected is true now.
            if expected.is_none_or(|place| rest.session.facts().difference(place).is_none()) {
                return Some(rest);
            }
            rest.close(&*self.around.kill).await;
        }
        None
    }

    /// Keeps the session of a change that has ended. `boundary` is passed when it was reset, or closed.
    pub(super) fn keep_writer(
        &self,
        (endpoint, target): (&PgEndpoint, &Target),
        writer: PgWriter,
        boundary: impl FnOnce() -> String,
    ) {
        let boundary = self.around.kill.listens().then(boundary);
        let rest = Rest { session: writer, left: Some(Left { boundary }) };
        self.writers.keep(&self.around, (endpoint.clone(), target.clone()), rest);
    }

    /// A session that only read what the target names, and whether its server has answered just now.
    pub(super) async fn reader(&self, target: &Target) -> Option<(KeptReader, bool)> {
        let Rest { session: reader, .. } = self.readers.take(|kept| kept.target == *target).await?;
        let now = self.around.clock.now();
        let is_proven = reader.answered.is_some_and(|at| now.since(at) < ALIVE);
        Some((reader, is_proven))
    }

    /// Keeps a session that only read.
    pub(super) fn keep_reader(&self, target: &Target, mut reader: KeptReader) {
        reader.answered.get_or_insert_with(|| self.around.clock.now());
        let rest = Rest { session: reader, left: None };
        self.readers.keep(&self.around, ((), target.clone()), rest);
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

impl<S: Keep> Default for Shelf<S> {
    fn default() -> Self {
        let state = State { all: Vec::new(), looks_at: None };
        Self(Arc::new(Shelved { state: Mutex::new(state), sooner: Notify::new() }))
    }
}

impl<S: Keep> Shelf<S> {
    async fn take(&self, is_here: impl Fn(&Kept<S>) -> bool) -> Option<Rest<S>> {
        loop {
            let kept = {
                let mut state = lock(&self.0.state);
                let at = state.all.iter().rposition(&is_here)?;
                state.all.swap_remove(at)
            };
            // Who resets it has it until then.
            let rest = kept.session.lock().await.take();
            if rest.is_some() {
                return rest;
            }
        }
    }

    fn keep(&self, around: &Around, (place, target): (S::Place, Target), rest: Rest<S>) {
        let mut state = lock(&self.0.state);
        state.all.retain(|kept| !kept.is_empty());
        if state.all.len() >= MOST {
            drop(state);
            let around = around.clone();
            tokio::spawn(async move { rest.end(&around, &target).await });
            return;
        }
        let wait = if rest.left.is_some() { LINGER } else { IDLE };
        let due = around.clock.now().plus(wait);
        let session = Arc::new(Held::new(Some(rest)));
        state.all.push(Kept { place, target, due, session });
        match state.looks_at {
            Some(at) if at <= due => {}
            Some(_) => self.0.sooner.notify_one(),
            None => {
                state.looks_at = Some(due);
                tokio::spawn(Arc::clone(&self.0).look_after(around.clone()));
            }
        }
    }

    async fn close(&self, around: &Around) {
        let all = std::mem::take(&mut lock(&self.0.state).all);
        for kept in all {
            if let Some(rest) = kept.session.lock().await.take() {
                rest.end(around, &kept.target).await;
            }
        }
        self.0.sooner.notify_one();
    }
}

impl<S: Keep> Shelved<S> {
    /// Resets those that linger, and closes those that nobody took, until there are none.
    async fn look_after(self: Arc<Self>, around: Around) {
        loop {
            match self.next(around.clock.now()) {
                Next::Nothing => return,
                Next::WaitUntil(due) => {
                    tokio::select! {
                        () = around.clock.sleep_until(due) => {}
                        () = self.sooner.notified() => {}
                    }
                }
                // Each by itself: a server that does not answer holds up none of the others.
                Next::LookAfter(target, session) => {
                    let around = around.clone();
                    tokio::spawn(async move { look_after(session, &around, &target).await });
                }
            }
        }
    }

    fn next(&self, now: Timestamp) -> Next<S> {
        let mut state = lock(&self.state);
        state.all.retain(|kept| !kept.is_empty());
        let Some(first) = state.all.iter_mut().min_by_key(|kept| kept.due) else {
            state.looks_at = None;
            return Next::Nothing;
        };
        let due = first.due;
        if due > now {
            state.looks_at = Some(due);
            return Next::WaitUntil(due);
        }
        first.due = now.plus(IDLE);
        Next::LookAfter(first.target.clone(), Arc::clone(&first.session))
    }
}

/// Resets a session, or closes it when it needs no reset.
async fn look_after<S: Keep>(
    session: Arc<Held<Option<Rest<S>>>>,
    around: &Around,
    target: &Target,
) {
    let mut slot = session.lock().await;
    if let Some(rest) = slot.as_mut().filter(|rest| rest.left.is_some()) {
        if !rest.reset(&around.name, &*around.kill).await {
            *slot = None;
            around.endpoints.used(&around.connection, target);
        }
    } else if let Some(rest) = slot.take() {
        rest.end(around, target).await;
    }
}

impl<S: Keep> Kept<S> {
    fn is_empty(&self) -> bool {
        self.session.try_lock().is_ok_and(|session| session.is_none())
    }
}

fn ready(place: &ServerFacts) -> String {
    format!("{} {}", place.identity(), place.user)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
