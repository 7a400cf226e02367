//! Carrying changes out, and undoing them: one after the other, each between a durable start and a
//! durable end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::apply::{
    Applied, Applier, ApplyContext, ChangeKey, Notes, ROUTES, Recovered, Witness, keeps_session,
};
use super::recorder::Gone;
use super::sessions::SessionsOf;
use super::state::{ChangeState, Work};
use super::task::{Task, unknown_tool};
use crate::config::alerts::LOG;
use crate::journal::event::{Event, Found, StepKey};
use crate::journal::rehearsal::HeldLock;
use crate::journal::store::Durability;
use crate::kernel::change::Origin;
use crate::kernel::{
    BoxFuture, Change, ChangeSet, Direction, Failure, Inverse, Operation, Receipt, Recovery,
    RetryClass, RunId, Settlement, Severity,
};
use crate::lakebase::Workspace;
use crate::postgres::{PgEndpoint, ServerFacts};
use crate::tools::AnyTool;
use crate::tools::tool::Settled;

/// A set at work in this process.
pub(super) struct Carry<'a> {
    task: &'a Task,
    set: Arc<ChangeSet>,
    changes: Vec<ChangeState>,
    direction: Direction,
    on_database: bool,
    endpoint: Option<PgEndpoint>,
    throw_away: bool,
    expected: Option<ServerFacts>,
    workspace: Option<Arc<dyn Workspace>>,
    /// Settlements that are not durable yet; they share a commit with the next start.
    pending: Vec<Event>,
    progress: Box<dyn Fn(String) + Send + Sync>,
    /// A rehearsal: what is no SQL is left alone, and locks are seen.
    witness: Option<Witness>,
    /// The locks that each change held, as far as they were seen.
    locks: BTreeMap<usize, Vec<HeldLock>>,
}

/// How carrying ended.
pub(super) enum Carried {
    /// Every change is settled.
    Done,
    /// It was told to stop between two changes.
    Stopped,
    /// A change certainly did not happen.
    Failed(Failure),
    /// Nobody can tell whether a change happened.
    Doubt,
}

/// What a change's end means for the set.
enum Step {
    Next,
    Again,
    End(Carried),
}

impl Task {
    /// Carries a step's changes out, from the first open one on; with `drain` only settles the one that
    /// has begun.
    pub(super) async fn apply(&self, work: Work, drain: bool) -> Result<(), Gone> {
        if let Some(stage) = &self.stage {
            return self.rehearse(stage, &work).await;
        }
        let mut carry = match Carry::new(self, &work, Direction::Do) {
            Ok(carry) => carry,
            Err(failure) => {
                return self
                    .record(vec![self.started(), self.failed(failure)], Durability::Synced)
                    .await;
            }
        };
        if !drain {
            carry.pending.push(self.started());
        }
        let carried = if self.preview { Carried::Done } else { carry.all(drain).await? };
        let mut events = std::mem::take(&mut carry.pending);
        match carried {
            Carried::Done => events.push(self.report(&carry)),
            Carried::Stopped | Carried::Doubt => {}
            Carried::Failed(failure) => events.extend(carry.failed(failure, drain)),
        }
        let durability = carry.durability_of(&events);
        self.record(events, durability).await
    }

    pub(super) fn report(&self, carry: &Carry<'_>) -> Event {
        let crate::plan::document::Action::Tool(call) = &self.step.action else {
            return self.failed(unknown_tool(&self.key));
        };
        let Some(AnyTool::Write(tool)) = self.parts.catalog.find(&call.tool) else {
            return self.failed(unknown_tool(&call.tool));
        };
        let settled: Vec<_> = carry
            .set
            .changes
            .iter()
            .zip(&carry.changes)
            .filter(|(change, _)| change.origin == Origin::Tool)
            .map(|(change, state)| Settled {
                change,
                settlement: match state {
                    ChangeState::Settled(settlement) => Some(settlement),
                    ChangeState::New
                    | ChangeState::Started { .. }
                    | ChangeState::InDoubt { .. } => None,
                },
            })
            .collect();
        match tool.report(&settled) {
            Ok(output) => Event::StepSucceeded {
                step: self.key.clone(),
                output: output.value.into(),
                history: self.located(output.history).into(),
                seen: Vec::new(),
                fact: self.fact(tool).map(|name| Found::new(name, output.carry)),
            },
            Err(failure) => self.failed(failure),
        }
    }

    /// Undoes a step's changes.
    pub(super) async fn undo(&self, work: Work, failures: u32) -> Result<(), Gone> {
        let mut carry = match Carry::new(self, &work, Direction::Undo) {
            Ok(carry) => carry,
            Err(failure) => return self.stuck(&failure, Vec::new()).await,
        };
        // A try counts also when it could not even find out what became of an earlier one.
        for failures in failures + 1.. {
            let carried = carry.all(false).await?;
            let mut events = std::mem::take(&mut carry.pending);
            match carried {
                Carried::Done => {
                    events
                        .push(Event::StepCompensated { step: self.key.clone(), left: Vec::new() });
                }
                Carried::Stopped | Carried::Doubt => {}
                Carried::Failed(failure) if failures >= self.step.retry.max_attempts => {
                    return self.stuck(&failure, events).await;
                }
                Carried::Failed(_) => {
                    self.record(events, Durability::Synced).await?;
                    let draw = self.parts.ids.draw();
                    let pause = super::retry::delay(&self.step.retry.backoff, failures, draw);
                    let until = self.parts.clock.now().plus(pause);
                    tokio::select! {
                        () = self.stop.cancelled() => return Ok(()),
                        () = self.parts.clock.sleep_until(until) => continue,
                    }
                }
            }
            return self.record(events, Durability::Synced).await;
        }
        Ok(())
    }

    async fn stuck(&self, failure: &Failure, mut events: Vec<Event>) -> Result<(), Gone> {
        let why = format!("the changes of `{}` could not be undone: {failure}", self.key);
        events.extend(stuck(&self.run, Some(&self.key), why));
        self.record(events, Durability::Synced).await
    }
}

/// The row of the outbox that a notification becomes: it commits with the settlement.
fn notice(operation: &Operation, receipt: &Receipt) -> Option<Event> {
    let Operation::Notification { channel, severity, title, body, labels, resolves, .. } =
        operation
    else {
        return None;
    };
    Some(Event::NotificationQueued {
        dedup: receipt.result["key"].as_str()?.to_owned(),
        severity: *severity,
        title: title.clone(),
        body: body.clone(),
        channel: (channel != ROUTES).then(|| channel.clone()),
        labels: labels.clone(),
        resolves: *resolves,
    })
}

/// A person must act, and is told so in the same commit.
pub(super) fn stuck(run: &RunId, step: Option<&StepKey>, why: String) -> [Event; 2] {
    let about = step.map_or("run", StepKey::as_str);
    let notice = Event::notification(
        format!("{run}/stuck/{about}"),
        Severity::Critical,
        format!("run {run} is stuck"),
        why.clone(),
    );
    [Event::RunStuck { step: step.cloned(), why }, notice]
}

/// Nobody can tell whether a change happened, and a person is told so in the same commit.
pub(super) fn doubtful(
    run: &RunId,
    set: &ChangeSet,
    (step, index, direction): (&StepKey, usize, Direction),
    why: String,
) -> [Event; 2] {
    let what = set.changes.get(index).map(|change| change.operation.to_string());
    let what = what.unwrap_or_default();
    let notice = Event::notification(
        format!("{run}/doubt/{step}/{direction}/{index}"),
        Severity::Critical,
        format!("run {run} cannot tell whether a change happened"),
        format!("step `{step}`, change {index}: {what}\n{why}"),
    );
    [Event::ChangeInDoubt { step: step.clone(), index: place(index), direction, why }, notice]
}

impl<'a> Carry<'a> {
    fn new(task: &'a Task, work: &Work, direction: Direction) -> Result<Self, Failure> {
        let on_database = work.set.changes.iter().any(|change| change.operation.is_on_database());
        let expected = match &work.server {
            Value::Null => None,
            server => Some(serde_json::from_value(server.clone()).map_err(|error| {
                Failure::permanent("journal::unreadable", format!("the server's facts: {error}"))
            })?),
        };
        let on_database = on_database && !task.preview;
        Ok(Self { on_database, expected, ..Self::of(task, work, direction) })
    }

    fn of(task: &'a Task, work: &Work, direction: Direction) -> Self {
        let (observer, step) = (Arc::clone(&task.observer), task.key.clone());
        Self {
            task,
            progress: Box::new(move |text| observer.progress(&step, &text)),
            set: Arc::clone(&work.set),
            changes: work.changes.clone(),
            direction,
            on_database: false,
            endpoint: None,
            throw_away: false,
            expected: None,
            workspace: task.workspace(),
            pending: Vec::new(),
            witness: None,
            locks: BTreeMap::new(),
        }
    }

    /// A set on a throw-away branch, or nowhere when none of it is SQL. Any server will do: the branch
    /// was just made, and is not the one that was looked at.
    pub(super) fn staged(task: &'a Task, work: &Work, endpoint: Option<PgEndpoint>) -> Self {
        let pending = vec![task.started()];
        let witness = Some(Witness::default());
        Self { endpoint, throw_away: true, pending, witness, ..Self::of(task, work, Direction::Do) }
    }

    /// The settlements that are not recorded yet.
    pub(super) fn take_pending(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.pending)
    }

    /// The changes and where they stand.
    pub(super) fn states(&self) -> impl Iterator<Item = (usize, &Change, &ChangeState)> {
        let all = self.set.changes.iter().zip(&self.changes).enumerate();
        all.map(|(index, (change, state))| (index, change, state))
    }

    /// The locks that a change was seen to hold.
    pub(super) fn locks_of(&self, index: usize) -> Vec<HeldLock> {
        self.locks.get(&index).cloned().unwrap_or_default()
    }

    /// How the last events of a step are recorded. Settlements that the keys on the target tell again ride in the
    /// commit of the next effect, or of the run's end: who dies before looks the keys up. Whatever a
    /// crash could put in doubt, and whatever others are told of, is on disk at once.
    fn durability_of(&self, events: &[Event]) -> Durability {
        let is_keyed = |change: &Change| change.recovery == Recovery::Transactional;
        let rides = |event: &Event| {
            matches!(event, Event::ChangeSettled { .. } | Event::StepSucceeded { .. })
        };
        if self.set.changes.iter().all(is_keyed) && events.iter().all(rides) {
            Durability::Buffered
        } else {
            Durability::Synced
        }
    }

    /// Carries out what is open, in order.
    pub(super) async fn all(&mut self, drain: bool) -> Result<Carried, Gone> {
        let mut index = 0;
        while index < self.changes.len() {
            let step = match self.changes[index].clone() {
                ChangeState::Settled(_) => Step::Next,
                ChangeState::InDoubt { .. } => Step::End(Carried::Doubt),
                ChangeState::Started { fingerprint, note } => {
                    self.recover(index, &fingerprint, note).await?
                }
                ChangeState::New if drain || self.task.stop.is_cancelled() => {
                    Step::End(Carried::Stopped)
                }
                ChangeState::New if self.is_left_alone(index) => Step::Next,
                ChangeState::New => self.carry_out(index).await?,
            };
            match step {
                Step::Next => index += 1,
                Step::Again => {}
                Step::End(carried) => return Ok(carried),
            }
        }
        Ok(Carried::Done)
    }

    /// Looks the database up, for each change again: what let the last one in may have run out since.
    async fn find_database(&mut self) -> Result<(), Failure> {
        if self.witness.is_some() {
            // A rehearsal has found it, and made sure of what it is.
            return Ok(());
        }
        if self.on_database {
            self.endpoint = Some(self.task.endpoint(self.may_wake()).await?);
        }
        let is_experiment =
            |change: &Change| matches!(change.operation, Operation::SqlExperiment { .. });
        self.throw_away =
            self.set.changes.iter().any(is_experiment) && self.task.throw_away().await?;
        Ok(())
    }

    /// Whether a suspended compute is woken: when the step says so, and for what has begun. A set that has
    /// begun is brought to its end, and what was done is undone, also when the compute fell asleep since.
    fn may_wake(&self) -> bool {
        let has_begun = self.changes.iter().any(|state| !matches!(state, ChangeState::New));
        self.task.step.wake || self.direction == Direction::Undo || has_begun
    }

    fn is_left_alone(&self, index: usize) -> bool {
        self.witness.is_some() && !self.set.changes[index].operation.is_on_database()
    }

    async fn carry_out(&mut self, index: usize) -> Result<Step, Gone> {
        if let Err(failure) = self.find_database().await {
            return Ok(Step::End(Carried::Failed(failure)));
        }
        let set = Arc::clone(&self.set);
        let change = &set.changes[index];
        let key = self.key(index);
        let appliers = Arc::clone(&self.task.parts.appliers);
        let applier = appliers.of(&change.operation);
        if !keeps_session(&change.operation, change.recovery) {
            // It may move or drop what a kept session is connected to.
            self.task.sessions.close().await;
        }
        let fingerprint = if change.recovery == Recovery::Probe {
            match applier.fingerprint(&self.context(&key, change, &self.notes(index, None))).await {
                Ok(fingerprint) => fingerprint,
                Err(failure) => return Ok(Step::End(Carried::Failed(failure))),
            }
        } else {
            Value::Null
        };
        self.pending.push(Event::ChangeStarted {
            step: self.task.key.clone(),
            set: set.digest.clone(),
            index: place(index),
            direction: self.direction,
            fingerprint: fingerprint.clone(),
        });
        let begun = ChangeState::Started { fingerprint: fingerprint.clone(), note: None };
        self.changes[index] = begun;
        let events = std::mem::take(&mut self.pending);
        let notes = self.notes(index, None);
        let cx = self.context(&key, change, &notes);
        let recorded = self.task.record(events, Durability::Synced);
        // The start goes first: the disk takes longest. Without it, what is made ready is given up at once.
        let ready = async {
            tokio::task::yield_now().await;
            applier.prepare(&cx).await;
            Ok(())
        };
        futures::future::try_join(recorded, ready).await?;
        let applied = applier.apply(&cx).await;
        // What was made ready and not used must not be taken for a session that is at work on the change.
        drop(self.task.sessions.take_begun(&key.application_name()));
        let note = notes.last();
        let locks = self.witness.as_ref().map(Witness::take);
        self.locks.extend(locks.map(|locks| (index, locks)));
        match applied {
            Ok(Applied::Done(receipt)) => self.settle(index, Settlement::Applied { receipt }),
            Ok(Applied::Moot) => self.settle(index, Settlement::Moot),
            Err(failure) if failure.class == RetryClass::InDoubt => {
                let step = self.recover(index, &fingerprint, note).await?;
                // A change that certainly did not happen failed here; whether it is tried again is for
                // the retry policy to say.
                return Ok(match step {
                    Step::Again => {
                        Step::End(Carried::Failed(failure.with_class(RetryClass::Transient)))
                    }
                    other => other,
                });
            }
            Err(failure) => {
                self.not_applied(index, failure.clone());
                return Ok(Step::End(Carried::Failed(failure)));
            }
        }
        Ok(Step::Next)
    }

    /// Finds out what became of a change that has a start and no end.
    async fn recover(
        &mut self,
        index: usize,
        fingerprint: &Value,
        note: Option<String>,
    ) -> Result<Step, Gone> {
        if let Err(failure) = self.find_database().await {
            return Ok(Step::End(Carried::Failed(failure)));
        }
        let set = Arc::clone(&self.set);
        let change = &set.changes[index];
        let key = self.key(index);
        let appliers = Arc::clone(&self.task.parts.appliers);
        let applier: &dyn Applier = appliers.of(&change.operation);
        let notes = self.notes(index, note);
        let recovered = applier.recover(&self.context(&key, change, &notes), fingerprint).await;
        match recovered {
            Ok(Recovered::Applied(receipt)) => {
                self.settle(index, Settlement::Applied { receipt });
                Ok(Step::Next)
            }
            Ok(Recovered::NotApplied) => {
                let text = "the process or the connection ended before the change happened";
                self.not_applied(index, Failure::transient("engine::interrupted", text));
                Ok(Step::Again)
            }
            Ok(Recovered::Unknown(why)) => {
                self.doubt(index, why).await?;
                Ok(Step::End(Carried::Doubt))
            }
            Err(failure) => Ok(Step::End(Carried::Failed(failure))),
        }
    }

    fn settle(&mut self, index: usize, settlement: Settlement) {
        let applied = matches!(settlement, Settlement::Applied { .. });
        if let (Operation::Event { name, payload }, true) =
            (&self.set.changes[index].operation, applied)
        {
            self.pending.push(Event::EventPublished {
                name: name.clone(),
                payload: payload.clone(),
                depth: self.task.depth + 1,
            });
        }
        if let (Operation::Notification { channel, .. }, Settlement::Applied { receipt }) =
            (&self.set.changes[index].operation, &settlement)
            && channel != LOG
        {
            self.pending.extend(notice(&self.set.changes[index].operation, receipt));
        }
        self.pending.push(Event::ChangeSettled {
            step: self.task.key.clone(),
            index: place(index),
            direction: self.direction,
            settlement: settlement.clone(),
        });
        self.changes[index] = ChangeState::Settled(settlement);
    }

    fn not_applied(&mut self, index: usize, failure: Failure) {
        self.pending.push(Event::ChangeNotApplied {
            step: self.task.key.clone(),
            index: place(index),
            direction: self.direction,
            failure,
        });
        self.changes[index] = ChangeState::New;
    }

    async fn doubt(&mut self, index: usize, why: String) -> Result<(), Gone> {
        let task = self.task;
        let (set, key) = (Arc::clone(&self.set), (&task.key, index, self.direction));
        self.pending.extend(doubtful(&task.run, &set, key, why));
        self.changes[index] = ChangeState::InDoubt { fingerprint: Value::Null };
        task.record(std::mem::take(&mut self.pending), Durability::Synced).await
    }

    /// The events of a try that failed. When no try is left and a change may have happened, a person
    /// has to look.
    fn failed(&self, failure: Failure, drain: bool) -> Vec<Event> {
        let task = self.task;
        let open = self.changes.iter().position(|c| matches!(c, ChangeState::Started { .. }));
        let event = task.failed(failure);
        let is_last = matches!(&event, Event::AttemptFailed { retry_at: None, .. });
        match (open, event) {
            (Some(index), Event::AttemptFailed { failure, .. }) if is_last || drain => {
                let why = format!("it cannot be looked up: {failure}");
                doubtful(&task.run, &self.set, (&task.key, index, self.direction), why).into()
            }
            (None, _) if drain => Vec::new(),
            (_, event) => vec![event],
        }
    }

    fn key(&self, index: usize) -> ChangeKey {
        ChangeKey {
            run: self.task.run.clone(),
            step: self.task.key.clone(),
            set: self.set.digest.clone(),
            index: place(index),
            direction: self.direction,
        }
    }

    fn notes(&self, index: usize, last: Option<String>) -> StepNotes<'a> {
        StepNotes { task: self.task, index, direction: self.direction, last: Mutex::new(last) }
    }

    fn context<'c>(
        &'c self,
        key: &'c ChangeKey,
        change: &'c Change,
        notes: &'c dyn Notes,
    ) -> ApplyContext<'c> {
        let task = self.task;
        ApplyContext {
            key,
            change,
            operation: &change.operation,
            recovery: change.recovery,
            endpoint: self.endpoint.as_ref(),
            throw_away: self.throw_away,
            expected: self.expected.as_ref(),
            settings: &task.settings,
            step_timeout: task.step.timeout.0,
            secrets: &*task.parts.secrets,
            clock: &*task.parts.clock,
            kill: &*task.parts.kill,
            workspace: self.workspace.as_deref(),
            history: task.parts.history.as_deref(),
            notes,
            sessions: Some(SessionsOf { run: &task.sessions, target: &task.target }),
            witness: self.witness.as_ref(),
            progress: &*self.progress,
        }
    }
}

/// The notes of one change, kept in the run's journal.
struct StepNotes<'a> {
    task: &'a Task,
    index: usize,
    direction: Direction,
    last: Mutex<Option<String>>,
}

impl Notes for StepNotes<'_> {
    fn note<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let event = Event::ChangeNoted {
                step: self.task.key.clone(),
                index: place(self.index),
                direction: self.direction,
                note: text.to_owned(),
            };
            // What it finds again goes on; only this process has come to its end.
            let gone = |Gone| {
                Failure::transient("engine::gone", "the run's executor ended")
                    .with_class(RetryClass::InDoubt)
            };
            self.task.record(vec![event], Durability::Synced).await.map_err(gone)?;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
            Ok(())
        })
    }

    fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The set that undoes the settled changes of another one, newest first, and what cannot be undone.
pub(super) fn inverses(work: &Work) -> (ChangeSet, Vec<String>) {
    let (mut changes, mut impossible) = (Vec::new(), Vec::new());
    for (change, state) in work.set.changes.iter().zip(&work.changes).rev() {
        let ChangeState::Settled(Settlement::Applied { .. }) = state else { continue };
        // What the engine made for its own needs stays: it serves every run on the target.
        if change.origin == Origin::Engine {
            continue;
        }
        match &change.inverse {
            Inverse::By { operation, recovery } => {
                let why = format!("undoes: {}", change.operation);
                let mut inverse = Change::new(&change.object, why, operation.clone());
                inverse.risk = change.risk;
                inverse.recovery = *recovery;
                changes.push(inverse);
            }
            Inverse::Unneeded => {}
            Inverse::Impossible { why } => {
                impossible.push(format!("{} ({}): {why}", change.object, change.operation));
            }
        }
    }
    (ChangeSet::new(changes), impossible)
}
