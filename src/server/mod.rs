//! The server: starts what is due by the clock and by events, goes on with what waits, answers on
//! loopback. Start with [`Server::serve`].
//!
//! It decides nothing by itself: what is due follows from [`crate::schedule`], what a run does from the
//! engine. One loop looks at the journal, records what becomes of slots and events together with their
//! runs, and hands runs to the `pool`. All that it knows can be read again from the journal, so a server
//! that dies loses nothing.

mod appends;
mod due;
pub mod http;
pub mod metrics;
mod pool;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::due::{Scheduled, Triggered};
use self::metrics::Metrics;
use self::pool::Pool;
use crate::engine::{Engine, EngineError, StartOptions};
use crate::journal::store::{RunFilter, RunSummary};
use crate::journal::{JournalError, Outcome, Principal};
use crate::kernel::{Failure, RunId, Target, Timestamp};
use crate::plan::{Given, Plan};
use crate::schedule::{Misplaced, StandingError};
use crate::sop::Sandbox;
use crate::workflow::elements::ScheduleSpec;
use crate::workflow::elements::trigger::Trigger;

/// How often the journal is looked at for what other processes wrote.
const TICK: Duration = Duration::from_millis(500);

/// How often files are looked at.
const RELOAD: Duration = Duration::from_secs(5);

/// So many starts are answered before the loop looks at the rest again.
const MOST_ASKS: usize = 64;

/// After a journal that cannot be used, it is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// The workflows, as their files are now.
pub trait Workflows {
    /// What starts by itself; `None`: the same as when it was asked before. Files with mistakes are told
    /// and left out.
    fn occasions(&self) -> Option<Occasions>;

    /// Makes a plan.
    fn plan(&self, wanted: &Wanted) -> Result<Plan, Failure>;
}

/// What starts by itself.
#[derive(Clone, Debug, Default)]
pub struct Occasions {
    /// The schedules, each with its workflow.
    pub schedules: Vec<(String, ScheduleSpec)>,
    /// The triggers, each with its workflow.
    pub triggers: Vec<(String, Trigger)>,
}

/// A plan that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The workflow.
    pub workflow: String,
    /// The parameters.
    pub params: BTreeMap<String, Given>,
    /// Fields of an event: those that are named like a parameter are given to it.
    pub offered: BTreeMap<String, Given>,
    /// The target, as far as it is given.
    pub target: Target,
}

/// A start that somebody asks for.
#[derive(Debug)]
pub struct Ask {
    /// What is to be run.
    pub wanted: Wanted,
    /// Makes it idempotent.
    pub key: Option<String>,
    /// Who asks.
    pub by: Principal,
    /// Where the answer goes: the run.
    pub reply: oneshot::Sender<Result<RunId, Failure>>,
}

/// How much a server takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// How many runs it works on at once; one at least.
    pub at_once: usize,
    /// How many may wait for their turn; until there is room, starts are refused, and slots and events
    /// are left for later.
    pub queued: usize,
}

impl Most {
    /// How many runs may be started beside these; those that wait for something else take no room.
    fn room(self, open: &[RunSummary]) -> usize {
        let going = open.iter().filter(|run| run.outcome == Outcome::Running).count();
        self.at_once.max(1).saturating_add(self.queued).saturating_sub(going)
    }
}

/// The code of a start that is refused because too many runs wait.
pub const OVERLOADED: &str = "server::overloaded";

/// Why a server ends that nobody stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The journal refuses or cannot.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// The journal says what cannot be.
    #[error("the journal of what starts by itself does not add up")]
    Misplaced(#[from] Misplaced),
    /// A run could not be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StandingError> for ServerError {
    fn from(error: StandingError) -> Self {
        match error {
            StandingError::Journal(error) => Self::Journal(error),
            StandingError::Misplaced(error) => Self::Misplaced(error),
        }
    }
}

impl ServerError {
    /// Whether it is worth trying again: another process was faster, or the disk is full. A journal that
    /// failed otherwise stays closed until it is opened anew, which is for the next process.
    const fn passes(&self) -> bool {
        let journal = match self {
            Self::Journal(error) | Self::Engine(EngineError::Journal(error)) => error,
            Self::Misplaced(_) | Self::Engine(_) => return false,
        };
        matches!(journal, JournalError::Conflict { .. } | JournalError::Storage { full: true, .. })
    }
}

/// The server.
pub struct Server<'a> {
    engine: Engine,
    workflows: &'a dyn Workflows,
    metrics: Arc<Metrics>,
    asks: mpsc::Receiver<Ask>,
    sandbox: Sandbox,
    schedules: BTreeMap<String, Scheduled>,
    triggers: BTreeMap<String, Triggered>,
    pool: Pool,
    most: Most,
    /// How many more runs may be started, as of the last look and with what was started since.
    room: usize,
    /// Events up to this position were looked at.
    scanned: u64,
    /// The end of the journal when it was last looked at.
    seen: Option<u64>,
    alive_since: Timestamp,
    reload_at: Timestamp,
}

impl<'a> Server<'a> {
    /// A server that takes on so much.
    pub fn new(
        engine: Engine,
        workflows: &'a dyn Workflows,
        (metrics, asks): (Arc<Metrics>, mpsc::Receiver<Ask>),
        most: Most,
    ) -> Self {
        let now = engine.parts().clock.now();
        Self {
            pool: Pool::new(engine.clone(), Arc::clone(&metrics), most.at_once),
            most,
            room: most.room(&[]),
            engine,
            workflows,
            metrics,
            asks,
            sandbox: Sandbox::new(),
            schedules: BTreeMap::new(),
            triggers: BTreeMap::new(),
            scanned: 0,
            seen: None,
            alive_since: now,
            reload_at: now,
        }
    }

    /// Serves until `stop` is cancelled; then what has begun is settled and every run is parked. Every run
    /// that is not over is gone on with before the first slot is looked at.
    pub async fn serve(mut self, stop: CancellationToken) -> Result<(), ServerError> {
        if let Some(occasions) = self.workflows.occasions() {
            self.reload(occasions).await?;
        }
        let open = self.open_runs().await?;
        self.wake(&open).await?;
        tracing::info!(runs = self.pool.len(), "going on with what was not over");
        while !stop.is_cancelled() {
            let next = match self.tick().await {
                Ok(next) => next,
                Err(error) if error.passes() => {
                    tracing::warn!(error = error_text(&error), "the journal is tried again");
                    self.forget();
                    Some(self.now().plus(PAUSE))
                }
                Err(error) => {
                    self.pool.drain().await;
                    return Err(error);
                }
            };
            self.rest(next, &stop).await;
        }
        tracing::info!(runs = self.pool.len(), "stopping: what has begun is settled");
        self.pool.drain().await;
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.engine.parts().clock.now()
    }

    /// Looks at everything once. Says when there is more to do by the clock.
    async fn tick(&mut self) -> Result<Option<Timestamp>, ServerError> {
        let now = self.now();
        self.metrics.ticked(now);
        if now >= self.reload_at {
            self.reload_at = now.plus(RELOAD);
            if let Some(occasions) = self.workflows.occasions() {
                self.reload(occasions).await?;
            }
        }
        let head = self.engine.parts().journal.head().await?.position;
        let is_due = self.next_due().is_some_and(|due| due <= now)
            || self.pool.next_wake().is_some_and(|wake| wake <= now);
        if self.seen != Some(head) || is_due {
            // However many starts come in, places become free.
            self.pool.settle_all();
            let mut open = self.open_runs().await?;
            self.look_at_events(head, &mut open).await?;
            self.look_at_slots(&mut open).await?;
            self.wake(&open).await?;
            self.metrics.open_runs(&open);
            self.room = self.most.room(&open);
            // What was left for want of room is looked at again.
            self.seen = (self.room > 0).then_some(head);
        }
        let due = self.next_due().filter(|_| self.room > 0);
        Ok([due, self.pool.next_wake()].into_iter().flatten().min())
    }

    /// Sleeps until something is due, a run ends, somebody asks for a run, or it is time to look again.
    async fn rest(&mut self, next: Option<Timestamp>, stop: &CancellationToken) {
        let soon = self.now().plus(TICK);
        let until = next.map_or(soon, |next| next.min(soon));
        let clock = Arc::clone(&self.engine.parts().clock);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(ask) = self.asks.recv() => self.answer_all(ask).await,
            () = self.pool.ended() => {
                // What waits for its place, or behind it, may go on now.
                self.seen = None;
            }
            () = clock.sleep_until(until) => {}
        }
    }

    /// Answers this start and those that came with it.
    async fn answer_all(&mut self, first: Ask) {
        self.answer(first).await;
        for _ in 1..MOST_ASKS {
            let Ok(next) = self.asks.try_recv() else { break };
            self.answer(next).await;
        }
        self.seen = None;
    }

    async fn answer(&mut self, Ask { wanted, key, by, reply }: Ask) {
        let started = self.start(&wanted, key, by).await;
        // Who asked may have gone; the run is there all the same.
        let _gone = reply.send(started);
    }

    /// Starts what somebody asks for.
    async fn start(
        &mut self,
        wanted: &Wanted,
        key: Option<String>,
        by: Principal,
    ) -> Result<RunId, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::transient("server::not_started", error_text(error))
        };
        if self.room == 0 {
            // What was started already is told again.
            if key.is_some() {
                let open = self.open_runs().await.map_err(|error| failed(&error))?;
                if let Some(run) = open.into_iter().find(|run| run.key == key) {
                    return Ok(run.run_id);
                }
            }
            let text = "too many runs wait for their turn";
            return Err(Failure::transient(OVERLOADED, text)
                .with_help("ask again later; `server.max_queued` is how many may wait"));
        }
        let plan = self.workflows.plan(wanted)?;
        let options = StartOptions { key, by, yes: false, forked_from: None };
        let started = self.engine.start(&plan, options).await.map_err(|error| failed(&error))?;
        self.room -= 1;
        Ok(started)
    }

    async fn wake(&mut self, open: &[RunSummary]) -> Result<(), JournalError> {
        let behind = self.behind(open);
        self.pool.wake(open, |run| behind.contains(&run.run_id)).await
    }

    /// The runs that are not over, the oldest first.
    async fn open_runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        let filter = RunFilter { unfinished: true, ..RunFilter::default() };
        let mut open = self.engine.parts().journal.runs(filter).await?;
        open.reverse();
        Ok(open)
    }

    /// What is known of the journal is read again.
    fn forget(&mut self) {
        self.seen = None;
        for schedule in self.schedules.values_mut() {
            schedule.standing = None;
        }
        for trigger in self.triggers.values_mut() {
            trigger.standing = None;
        }
    }
}

/// An error with its causes, in one line.
fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
