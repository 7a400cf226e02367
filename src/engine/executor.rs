//! The loop: decide, perform, append, apply.
//!
//! One executor owns a run. Its loop is the only writer of the run's state; steps that wait for the
//! outside work in tasks of their own and hand their events in through a [`Recorder`]. Events of reads
//! and scripts ride in the next commit; whatever an effect depends on is on disk before the effect.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::carrying::{doubtful, stuck};
use super::decide::{Next, Situation, decide};
use super::groundwork::Groundwork;
use super::parts::{Observer, Parts};
use super::programs::Programs;
use super::recorder::{Gone, Recorder, Request};
use super::rehearsal::Stage;
use super::sessions::Sessions;
use super::state::{ChangeState, IllegalTransition, NodeId, RunState, Work};
use super::task::Task;
use crate::config::Settings;
use crate::journal::event::{Event, Outcome};
use crate::journal::store::{Append, Durability, Expect, JournalError, Stream};
use crate::kernel::{Direction, Failure, Redactor, RetryClass, RunId, Timestamp};
use crate::plan::{Plan, PlannedStep};

/// How often decisions of other processes are looked for.
const DECISIONS_EVERY: Duration = Duration::from_millis(200);

/// A run that waits for longer than this leaves its place to others, where somebody takes it up again.
const WORTH_LEAVING: Duration = Duration::from_secs(5);

/// Why a run cannot be worked on any further by this process. The run itself is as the journal says.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The journal refuses or cannot.
    #[error("the journal of run {run} could not be written or read")]
    Journal {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: JournalError,
    },
    /// The journal says what cannot be.
    #[error("the journal of run {run} does not add up")]
    Illegal {
        /// The run.
        run: RunId,
        /// What.
        #[source]
        source: IllegalTransition,
    },
}

/// Works on one run.
pub(super) struct Executor {
    pub(super) parts: Parts,
    pub(super) run: RunId,
    pub(super) plan: Arc<Plan>,
    pub(super) state: RunState,
    pub(super) programs: Arc<Programs>,
    pub(super) settings: Arc<Settings>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) preview: bool,
    /// Whether it is parked while it only waits for a time: whoever works on it takes it up again then.
    pub(super) leaves: bool,
    pub(super) stage: Option<Arc<Stage>>,
    pub(super) redactor: Redactor,
    pub(super) in_flight: HashSet<NodeId>,
    pub(super) tasks: JoinSet<NodeId>,
    pub(super) recorder: Recorder,
    pub(super) sessions: Arc<Sessions>,
    requests: UnboundedReceiver<Request>,
    pub(super) stop: CancellationToken,
    pub(super) abort: CancellationToken,
    /// The plan stays known while it is worked on.
    _groundwork: Arc<Groundwork>,
    running: HashMap<tokio::task::Id, NodeId>,
    decisions_after: u64,
    own_decisions: HashSet<u64>,
    decisions_at: Timestamp,
    last_at: Timestamp,
}

impl Executor {
    pub(super) fn new(
        (parts, settings): (Parts, Arc<Settings>),
        (run, groundwork): (RunId, Arc<Groundwork>),
        state: RunState,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (recorder, requests) = Recorder::new(Arc::clone(&parts.kill));
        let connection = &groundwork.plan.body.connection;
        let sessions = Arc::new(Sessions::new(&parts, &run, connection));
        let decisions_at = parts.clock.now().plus(DECISIONS_EVERY);
        Self {
            parts,
            run,
            plan: Arc::clone(&groundwork.plan),
            programs: Arc::clone(&groundwork.programs),
            _groundwork: groundwork,
            settings,
            observer,
            preview: false,
            leaves: false,
            stage: None,
            redactor: Redactor::default(),
            in_flight: HashSet::new(),
            tasks: JoinSet::new(),
            recorder,
            sessions,
            requests,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            running: HashMap::new(),
            decisions_after: state.last_seq,
            own_decisions: HashSet::new(),
            // What was decided before the claim was read with it.
            decisions_at,
            last_at: Timestamp::default(),
            state,
        }
    }

    /// Works until the run is over, or nothing can go on by itself, or somebody interrupts.
    pub(super) async fn work(
        mut self,
        interrupt: CancellationToken,
    ) -> Result<Outcome, ExecuteError> {
        let outcome = self.go_on(&interrupt).await;
        self.sessions.close().await;
        outcome
    }

    async fn go_on(&mut self, interrupt: &CancellationToken) -> Result<Outcome, ExecuteError> {
        loop {
            if self.parts.clock.now() >= self.decisions_at {
                self.absorb_decisions().await?;
            }
            self.take_requests().await?;
            if let Some((outcome, _)) = self.state.finished {
                self.deliver().await?;
                return Ok(outcome);
            }
            if interrupt.is_cancelled() {
                return self.interrupted().await;
            }
            let next = self.next();
            let mut progressed = false;
            for command in next.commands.clone() {
                progressed |= self.perform(command).await?;
            }
            if progressed {
                continue;
            }
            self.deliver().await?;
            if self.in_flight.is_empty() && next.commands.is_empty() && next.waits.is_empty() {
                if let Some(outcome) = self.rest(&next).await? {
                    return Ok(outcome);
                }
                continue;
            }
            let only_waits = self.in_flight.is_empty() && next.commands.is_empty();
            if only_waits && !next.backs_off && self.give_lock_back().await? {
                continue;
            }
            if only_waits && self.is_worth_leaving(&next) {
                if let Some(outcome) = self.rest(&next).await? {
                    return Ok(outcome);
                }
                continue;
            }
            if self.in_flight.is_empty() {
                self.sessions.close().await;
            }
            self.pause(&next, interrupt).await?;
        }
    }

    /// Who waits for a time or an event gives the run's lock back, unless changes stand that are not
    /// verified.
    async fn give_lock_back(&mut self) -> Result<bool, ExecuteError> {
        let Some(lock) = self.plan.body.lock.clone() else { return Ok(false) };
        let held =
            self.state.locks.get(&lock).is_some_and(|known| known.held && known.owner.is_none());
        if !held || self.preview || self.state.changes_applied > 0 {
            return Ok(false);
        }
        self.record(vec![Event::LockReleased { lock, step: None }], Durability::Synced).await?;
        Ok(true)
    }

    /// Whether the run is better parked than waited for here.
    fn is_worth_leaving(&self, next: &Next) -> bool {
        let wait = next.wake_at.map(|at| at.since(self.now()));
        self.leaves && !self.preview && wait.is_some_and(|wait| wait > WORTH_LEAVING)
    }

    fn next(&self) -> Next {
        let limits = &self.plan.body.limits;
        decide(
            &self.state,
            &Situation {
                now: self.now(),
                in_flight: &self.in_flight,
                lock: if self.preview { None } else { self.plan.body.lock.as_deref() },
                timeout: limits.timeout.map(|span| span.0),
                max_changes: limits.max_changes,
                max_barren: self.settings.limits.max_barren_resumes,
            },
        )
    }

    /// The present time, never before the time of the newest event.
    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now().max(self.last_at)
    }

    /// Sleeps until a task has something, a deadline is near, or it is time to look for decisions.
    async fn pause(
        &mut self,
        next: &Next,
        interrupt: &CancellationToken,
    ) -> Result<(), ExecuteError> {
        let tick = self.parts.clock.now().plus(DECISIONS_EVERY);
        let until = next.wake_at.map_or(tick, |at| at.min(tick));
        let clock = Arc::clone(&self.parts.clock);
        tokio::select! {
            biased;
            Some(request) = self.requests.recv() => self.take(vec![request]).await?,
            Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                self.task_ended(ended).await?;
            }
            () = interrupt.cancelled() => {}
            () = clock.sleep_until(until) => {}
        }
        Ok(())
    }

    async fn task_ended(
        &mut self,
        ended: Result<(tokio::task::Id, NodeId), tokio::task::JoinError>,
    ) -> Result<(), ExecuteError> {
        // What the task handed in before it ended counts before its place is free again.
        self.take_requests().await?;
        match ended {
            Ok((id, node)) => {
                self.running.remove(&id);
                self.in_flight.remove(&node);
            }
            Err(error) => {
                let Some(node) = self.running.remove(&error.id()) else { return Ok(()) };
                self.in_flight.remove(&node);
                if error.is_panic() {
                    self.record(self.panicked(node), Durability::Synced).await?;
                }
            }
        }
        Ok(())
    }

    /// What is recorded of a step whose task panicked. A change that may have happened is for a person
    /// to settle, an undoing for a person to look at; nothing of it is tried again by itself.
    fn panicked(&self, id: NodeId) -> Vec<Event> {
        let node = &self.state.nodes[id];
        let why = format!("step `{}` panicked; this is a fault of lakeops", node.key);
        let begun = |work: &Work| {
            work.changes.iter().position(|change| matches!(change, ChangeState::Started { .. }))
        };
        if let Some(undo) = node.undo.as_ref().filter(|undo| !undo.done) {
            return match begun(&undo.work) {
                Some(index) => {
                    let key = (&node.key, index, Direction::Undo);
                    doubtful(&self.run, &undo.work.set, key, why).into()
                }
                None => stuck(&self.run, Some(&node.key), why).into(),
            };
        }
        if node.phase.is_terminal() {
            return stuck(&self.run, Some(&node.key), why).into();
        }
        if let Some(work) = &node.work
            && let Some(index) = begun(work)
        {
            return doubtful(&self.run, &work.set, (&node.key, index, Direction::Do), why).into();
        }
        let failure = Failure {
            class: RetryClass::Permanent,
            code: "engine::panic".to_owned(),
            message: why,
            help: None,
        };
        let (step, attempt) = (node.key.clone(), node.attempts.max(1));
        vec![Event::AttemptFailed { step, attempt, failure, retry_at: None }]
    }

    /// Takes in all that tasks have handed in: one append, one commit.
    async fn take_requests(&mut self) -> Result<(), ExecuteError> {
        let mut requests = Vec::new();
        while let Ok(request) = self.requests.try_recv() {
            requests.push(request);
        }
        if requests.is_empty() { Ok(()) } else { self.take(requests).await }
    }

    async fn take(&mut self, mut requests: Vec<Request>) -> Result<(), ExecuteError> {
        while let Ok(request) = self.requests.try_recv() {
            requests.push(request);
        }
        let synced = requests.iter().any(|request| request.durability == Durability::Synced);
        let durability = if synced { Durability::Synced } else { Durability::Buffered };
        let events = requests.iter_mut().flat_map(|r| std::mem::take(&mut r.events)).collect();
        self.record(events, durability).await?;
        for request in requests {
            // A task that has gone needs no answer.
            let _gone = request.reply.send(());
        }
        Ok(())
    }

    /// Appends events and takes them in.
    pub(super) async fn record(
        &mut self,
        events: Vec<Event>,
        durability: Durability,
    ) -> Result<(), ExecuteError> {
        self.record_as(Expect::Claim(self.state.claim), events, durability).await
    }

    /// Records a decision that others may be making at this moment: only when the journal shows that
    /// none of them came first. Says whether the state moved.
    pub(super) async fn record_decision(
        &mut self,
        event: Event,
        is_open: impl Fn(&RunState) -> bool,
    ) -> Result<(), ExecuteError> {
        loop {
            // What is queued must be on disk before the end of the stream can be told.
            self.record(Vec::new(), Durability::Synced).await?;
            let stream = Stream::Run(self.run.clone());
            let newer = self.parts.journal.read(&stream, self.decisions_after).await;
            let newer = newer.map_err(|source| self.journal_error(source))?;
            let last = newer.last().map_or(self.decisions_after, |entry| entry.seq);
            let taken_over = newer.iter().any(|entry| {
                matches!(entry.event, Event::RunClaimed { .. }) && entry.seq > self.state.claim
            });
            self.absorb_decisions().await?;
            if !is_open(&self.state) {
                return Ok(());
            }
            let expect =
                if taken_over { Expect::Claim(self.state.claim) } else { Expect::Last(last) };
            match self.record_as(expect, vec![event.clone()], Durability::Synced).await {
                Err(ExecuteError::Journal { source: JournalError::Conflict { .. }, .. })
                    if !taken_over => {}
                other => return other,
            }
        }
    }

    async fn record_as(
        &mut self,
        expect: Expect,
        events: Vec<Event>,
        durability: Durability,
    ) -> Result<(), ExecuteError> {
        let events = self.with_released_locks(self.masked(events)?);
        let now = self.now();
        let append =
            Append { stream: Stream::Run(self.run.clone()), expect, events: events.clone() };
        let appended = self.parts.journal.append(vec![append], durability).await;
        let entries = appended.map_err(|source| self.journal_error(source))?;
        for entry in entries.iter().filter(|entry| entry.event.is_decision()) {
            self.own_decisions.insert(entry.seq);
        }
        for event in &events {
            self.take_in(event, now, 0)?;
        }
        Ok(())
    }

    /// Secrets are masked before anything enters the state of the run.
    fn masked(&self, events: Vec<Event>) -> Result<Vec<Event>, ExecuteError> {
        if self.redactor.is_empty() {
            return Ok(events);
        }
        let mask = |event: Event| {
            let mut value = serde_json::to_value(&event)?;
            self.redactor.mask_json(&mut value);
            serde_json::from_value(value)
        };
        let masked: Result<Vec<Event>, serde_json::Error> = events.into_iter().map(mask).collect();
        masked.map_err(|error| {
            let reason = format!("an event could not be masked: {error}");
            self.journal_error(JournalError::Storage { reason, full: false })
        })
    }

    fn take_in(&mut self, event: &Event, at: Timestamp, seq: u64) -> Result<(), ExecuteError> {
        let applied = self.state.apply(event, at, seq);
        applied.map_err(|source| ExecuteError::Illegal { run: self.run.clone(), source })?;
        self.last_at = self.last_at.max(at);
        self.observer.event(&self.run, at, event);
        Ok(())
    }

    /// A step that ends gives its lock back in the same commit.
    fn with_released_locks(&self, events: Vec<Event>) -> Vec<Event> {
        if self.state.locks.is_empty() {
            return events;
        }
        let mut with_locks = Vec::with_capacity(events.len());
        for event in events {
            let ended = match &event {
                Event::StepSucceeded { step, .. }
                | Event::StepSkipped { step, .. }
                | Event::AttemptFailed { step, retry_at: None, .. } => Some(step.clone()),
                _ => None,
            };
            with_locks.push(event);
            let Some(step) = ended else { continue };
            for (lock, _) in
                self.state.locks.iter().filter(|(_, state)| state.owner.as_ref() == Some(&step))
            {
                let step = Some(step.clone());
                with_locks.push(Event::LockReleased { lock: lock.clone(), step });
            }
        }
        with_locks
    }

    /// Takes in what other processes decided.
    async fn absorb_decisions(&mut self) -> Result<(), ExecuteError> {
        self.decisions_at = self.parts.clock.now().plus(DECISIONS_EVERY);
        let stream = Stream::Run(self.run.clone());
        let decisions = self.parts.journal.decisions(&stream, self.decisions_after).await;
        for entry in decisions.map_err(|source| self.journal_error(source))? {
            self.decisions_after = self.decisions_after.max(entry.seq);
            if !self.own_decisions.remove(&entry.seq) {
                self.take_in(&entry.event, entry.at, entry.seq)?;
            }
        }
        Ok(())
    }

    /// Delivers what is in the outbox.
    async fn deliver(&mut self) -> Result<(), ExecuteError> {
        if self.preview || self.state.outbox.is_empty() {
            return Ok(());
        }
        let mut delivered = Vec::new();
        for (dedup, (severity, title, body)) in &self.state.outbox {
            self.parts.notifier.notify(*severity, title, body);
            delivered.push(Event::NotificationDelivered { dedup: dedup.clone() });
        }
        self.record(delivered, Durability::Buffered).await
    }

    /// Nothing goes on by itself, or not for a while: parks the run, unless a decision came in meanwhile.
    async fn rest(&mut self, next: &Next) -> Result<Option<Outcome>, ExecuteError> {
        let before = self.state.last_seq;
        // Who sees that the run rests may count on it that it holds no session.
        self.sessions.close().await;
        self.absorb_decisions().await?;
        if self.state.last_seq != before {
            return Ok(None);
        }
        let (outcome, reason) = if let Some(why) = &next.stuck {
            (Outcome::Stuck, why.clone())
        } else if !next.doubts.is_empty() {
            let why =
                format!("nobody can tell whether a change of {} happened", next.doubts.join(", "));
            (Outcome::InDoubt, why)
        } else if !next.approvals.is_empty() {
            (Outcome::WaitingApproval, format!("approval of {}", next.approvals.join(", ")))
        } else if !next.waits.is_empty() {
            (Outcome::Waiting, format!("{} until its time has come", next.waits.join(", ")))
        } else {
            // Recorded as such; the next round parks the run.
            let why = "no step can go on; this is a fault of lakeops".to_owned();
            self.record(stuck(&self.run, None, why).into(), Durability::Synced).await?;
            return Ok(None);
        };
        self.park(outcome, next, reason).await?;
        Ok(Some(outcome))
    }

    async fn park(
        &mut self,
        outcome: Outcome,
        next: &Next,
        reason: String,
    ) -> Result<(), ExecuteError> {
        let mut events = Vec::new();
        // Who waits for people gives the run's lock back, unless changes stand that are not verified.
        if self.state.changes_applied == 0 {
            for (lock, state) in &self.state.locks {
                let step = state.owner.clone();
                events.push(Event::LockReleased { lock: lock.clone(), step });
            }
        }
        events.push(Event::RunParked { outcome, wake_at: next.wake_at, reason });
        self.record(events, Durability::Synced).await?;
        self.deliver().await
    }

    /// Somebody pressed Ctrl-C: what has begun is settled, reads are dropped, the run is parked.
    async fn interrupted(&mut self) -> Result<Outcome, ExecuteError> {
        self.stop.cancel();
        self.abort.cancel();
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                Some(request) = self.requests.recv() => self.take(vec![request]).await?,
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended).await?,
            }
        }
        self.sessions.close().await;
        self.take_requests().await?;
        if let Some((outcome, _)) = self.state.finished {
            return Ok(outcome);
        }
        let mut next = self.next();
        if !next.commands.is_empty() {
            // Something can go on at once, whatever else waits for a time.
            next.wake_at = None;
        }
        self.park(Outcome::Waiting, &next, "interrupted; `lakeops resume` goes on".to_owned())
            .await?;
        Ok(Outcome::Waiting)
    }

    pub(super) fn journal_error(&self, source: JournalError) -> ExecuteError {
        ExecuteError::Journal { run: self.run.clone(), source }
    }

    /// The definition of a step, shared with its tasks.
    pub(super) fn step(&self, node: NodeId) -> Arc<PlannedStep> {
        Arc::clone(&self.state.def(node).step)
    }

    /// Lets a step work in a task of its own.
    pub(super) fn spawn<F>(&mut self, node: NodeId, work: F)
    where
        F: Future<Output = Result<(), Gone>> + Send + 'static,
    {
        self.in_flight.insert(node);
        let span = tracing::info_span!("step", step = self.state.nodes[node].key);
        let work = async move {
            // A task that lost its executor has nobody to tell.
            let _told = work.await;
            node
        };
        let handle = self.tasks.spawn(work.instrument(span));
        self.running.insert(handle.id(), node);
    }

    /// The settings as they hold for a target: mostly that of the plan.
    fn settings_of(&self, target: &crate::kernel::Target) -> Arc<Settings> {
        if *target == self.plan.body.target {
            return Arc::clone(&self.settings);
        }
        Arc::new(self.parts.settings.settings(target))
    }

    /// What a task of a step is given.
    pub(super) fn task(
        &self,
        node: NodeId,
        (target, arguments): (crate::kernel::Target, serde_json::Value),
    ) -> Task {
        let step = self.step(node);
        Task {
            parts: self.parts.clone(),
            run: self.run.clone(),
            plan: Arc::clone(&self.plan),
            key: self.state.nodes[node].key.clone(),
            step,
            settings: self.settings_of(&target),
            target,
            depth: self.state.cause.as_ref().map_or(0, |cause| cause.depth()),
            attempts: self.state.nodes[node].attempts,
            arguments,
            recorder: self.recorder.clone(),
            sessions: Arc::clone(&self.sessions),
            stop: self.stop.clone(),
            abort: self.abort.clone(),
            observer: Arc::clone(&self.observer),
            programs: Arc::clone(&self.programs),
            preview: self.preview,
            stage: self.stage.clone(),
        }
    }
}
