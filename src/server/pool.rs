//! The runs that the server works on, and those that it wakes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::appends::Appends;
use super::error_text;
use super::metrics::Metrics;
use crate::engine::parts::Observer;
use crate::engine::{Engine, EngineError};
use crate::journal::store::{EntryFilter, RunSummary, Stream};
use crate::journal::{Event, JournalError, Outcome};
use crate::kernel::{RunId, Timestamp};

/// A run that another process works on, or that could not be worked on, is looked at again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// A run that waits for people, for a time, or for both.
struct Asked {
    /// The sequence number after which a decision is new.
    after: u64,
    /// When it goes on by itself.
    deadline: Option<Timestamp>,
}

/// The locks of their plans that runs here have, or queue for, as their events say.
#[derive(Default)]
struct Locks(Mutex<BTreeMap<RunId, String>>);

impl Locks {
    fn known(&self) -> MutexGuard<'_, BTreeMap<RunId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes(&self, run: &RunId, lock: String) {
        self.known().insert(run.clone(), lock);
    }

    fn leaves(&self, run: &RunId) {
        self.known().remove(run);
    }

    fn is_taken(&self, lock: &str) -> bool {
        self.known().values().any(|taken| taken == lock)
    }
}

impl Observer for Locks {
    fn event(&self, run: &RunId, _at: Timestamp, event: &Event) {
        match event {
            Event::LockQueued { lock, step: None } => self.takes(run, lock.clone()),
            // Who waits for people or a time gives it back meanwhile.
            Event::LockReleased { step: None, .. } => self.leaves(run),
            _ => {}
        }
    }
}

/// Works on runs, at most so many at once.
pub(super) struct Pool {
    engine: Engine,
    metrics: Arc<Metrics>,
    most: usize,
    interrupt: CancellationToken,
    tasks: JoinSet<Result<Outcome, EngineError>>,
    working: BTreeMap<RunId, Id>,
    /// The runs that wait for their turn, with the locks of their plans.
    queue: VecDeque<(RunId, Option<String>)>,
    /// Those in the queue.
    queued: BTreeSet<RunId>,
    /// The locks of those that are worked on.
    locks: Arc<Locks>,
    /// Runs that could not be worked on are not tried before this instant.
    not_before: BTreeMap<RunId, Timestamp>,
    /// Runs that wait. A decision takes them up before their time: they may be cancelled.
    asked: BTreeMap<RunId, Asked>,
    appends: Appends,
}

impl Pool {
    pub(super) fn new(engine: Engine, metrics: Arc<Metrics>, most: usize) -> Self {
        Self {
            appends: Appends::new(engine.clone()),
            engine: engine.for_many(),
            metrics,
            most: most.max(1),
            interrupt: CancellationToken::new(),
            tasks: JoinSet::new(),
            working: BTreeMap::new(),
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            locks: Arc::default(),
            not_before: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// How many runs are worked on, or wait for their turn.
    pub(super) fn len(&self) -> usize {
        self.working.len() + self.queue.len()
    }

    /// When the next run can go on by itself.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let deadlines = self.asked.values().filter_map(|asked| asked.deadline);
        self.not_before.values().copied().chain(deadlines).min()
    }

    /// Takes up every run that can go on; `must_wait` keeps one behind another.
    pub(super) async fn wake(
        &mut self,
        open: &[RunSummary],
        must_wait: impl Fn(&RunSummary) -> bool,
    ) -> Result<(), JournalError> {
        let now = self.engine.parts().clock.now();
        let known: BTreeSet<&RunId> = open.iter().map(|run| &run.run_id).collect();
        self.not_before.retain(|run, at| known.contains(run) && *at > now);
        self.asked.retain(|run, _| known.contains(run));
        for run in open {
            let is_taken =
                self.working.contains_key(&run.run_id) || self.queued.contains(&run.run_id);
            if is_taken || self.not_before.contains_key(&run.run_id) || must_wait(run) {
                continue;
            }
            if self.is_ready(run, now).await? {
                self.asked.remove(&run.run_id);
                // A plan that cannot be read is told by who works on its run.
                let plan = self.engine.parts().journal.plan(&run.plan_id).await.ok().flatten();
                self.queued.insert(run.run_id.clone());
                self.queue.push_back((run.run_id.clone(), plan.and_then(|plan| plan.body.lock)));
            }
        }
        self.fill();
        Ok(())
    }

    async fn is_ready(&mut self, run: &RunSummary, now: Timestamp) -> Result<bool, JournalError> {
        let is_due = run.wake_at.is_some_and(|at| at <= now);
        match run.outcome {
            Outcome::Running => Ok(true),
            Outcome::Waiting if run.wake_at.is_none() => Ok(true),
            _ if is_due => Ok(true),
            // Until then only a person moves it.
            _ => self.is_decided(run).await,
        }
    }

    /// Whether somebody has decided something since the run was parked.
    async fn is_decided(&mut self, run: &RunSummary) -> Result<bool, JournalError> {
        let journal = &self.engine.parts().journal;
        let stream = Stream::Run(run.run_id.clone());
        let after = if let Some(asked) = self.asked.get(&run.run_id) {
            asked.after
        } else {
            // What was decided while it was worked on may not have been seen any more before it was parked.
            let claimed = EntryFilter {
                stream: Some(stream.as_str().to_owned()),
                kinds: vec!["run_claimed".to_owned()],
                limit: Some(1),
                newest: true,
                ..EntryFilter::default()
            };
            let claimed = journal.entries(claimed).await?;
            let after = claimed.first().map_or(0, |entry| entry.seq);
            let asked = Asked { after, deadline: run.wake_at };
            self.asked.insert(run.run_id.clone(), asked);
            after
        };
        Ok(!journal.decisions(&stream, after).await?.is_empty())
    }

    /// Takes runs up in the order of the queue. One whose lock another one here has is passed over: it would take
    /// a place from others and do nothing there.
    fn fill(&mut self) {
        let mut place = 0;
        while self.working.len() < self.most
            && let Some((_, lock)) = self.queue.get(place)
        {
            if lock.as_ref().is_some_and(|lock| self.locks.is_taken(lock)) {
                place += 1;
                continue;
            }
            let Some((run, lock)) = self.queue.remove(place) else { break };
            self.queued.remove(&run);
            if let Some(lock) = lock {
                self.locks.takes(&run, lock);
            }
            // Counted before it begins: who asks meanwhile must not hear that nothing is worked on.
            self.metrics.working(self.working.len() + 1, self.queue.len());
            let (engine, interrupt) = (self.engine.clone(), self.interrupt.clone());
            let (id, locks) = (run.clone(), Arc::clone(&self.locks));
            let handle = self
                .tasks
                .spawn(async move { Box::pin(engine.execute(&id, interrupt, locks)).await });
            self.working.insert(run, handle.id());
        }
        self.metrics.working(self.working.len(), self.queue.len());
    }

    /// Resolves when a run has ended or was parked; never when none is worked on.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(ended) => self.settle_ended(ended),
        }
    }

    /// Takes in which runs have ended or were parked by now.
    pub(super) fn settle_all(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.settle_ended(ended);
        }
    }

    fn settle_ended(
        &mut self,
        ended: Result<(Id, Result<Outcome, EngineError>), tokio::task::JoinError>,
    ) {
        match ended {
            Ok((id, result)) => self.settle(id, result.map_err(|error| error_text(&error))),
            Err(error) => self.settle(error.id(), Err(error.to_string())),
        }
        self.metrics.working(self.working.len(), self.queue.len());
    }

    fn settle(&mut self, id: Id, result: Result<Outcome, String>) {
        let found = self.working.iter().find(|(_, task)| **task == id);
        let Some(run) = found.map(|(run, _)| run.clone()) else { return };
        self.working.remove(&run);
        self.locks.leaves(&run);
        match result {
            Ok(outcome) => {
                if outcome.is_final() {
                    self.appends.owed();
                }
                self.metrics.run_ended(outcome);
                tracing::info!(%run, outcome = outcome.as_str(), "run ended or waits");
            }
            Err(why) => {
                tracing::warn!(%run, why, "the run is looked at again soon");
                let again = self.engine.parts().clock.now().plus(AGAIN);
                self.not_before.insert(run, again);
            }
        }
    }

    /// Starts nothing more; what has begun is settled, and every run is parked.
    pub(super) async fn drain(&mut self) {
        self.interrupt.cancel();
        self.queue.clear();
        self.queued.clear();
        while !self.tasks.is_empty() {
            if let Some(ended) = self.tasks.join_next_with_id().await {
                self.settle_ended(ended);
            }
        }
        self.appends.end().await;
    }
}
