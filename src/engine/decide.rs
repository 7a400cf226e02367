//! What to do next: from what is known about a run and the present time alone. PURE.
//!
//! [`decide`] names everything that could be done at once; the executor leaves out what is already
//! under way. It never says to do something twice, to do a step before what it needs, or to carry out
//! a set that its approval does not cover.

use std::collections::HashSet;
use std::time::Duration;

use super::graph::{ALWAYS, MAIN, ON_FAILURE};
use super::state::{InstanceId, NodeId, Phase, RunState, Work};
use super::undoing::{collect_failures, compensation, undoable};
use crate::journal::event::{Compensation, Outcome, SkipReason, StepKey};
use crate::kernel::{Direction, Failure, Timestamp};
use crate::plan::document::{Action, RunIf, Wait};

/// The code of a run that worked longer than its limit allows.
pub const RUN_TIMEOUT: &str = "engine::run_timeout";

/// What the executor must do; performing one yields one or more events.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Take the lock of the run.
    Lock(String),
    /// Take the lock of the step.
    LockStep(NodeId),
    /// Evaluate the condition.
    Condition(NodeId),
    /// Record that the step does not run.
    Skip(NodeId, SkipReason),
    /// List the items of the fan-out.
    Items(NodeId),
    /// End the fan-out: all its items have ended.
    Collect(NodeId),
    /// Begin the embedded workflow.
    OpenScope(NodeId),
    /// End the embedded workflow: all its steps have ended.
    CloseScope(NodeId),
    /// Try a step that only looks.
    Attempt(NodeId),
    /// Ask the tool what it would do.
    Propose(NodeId),
    /// Ask a person: `node` waits, `covers` are the steps whose sets are shown.
    Request {
        /// Who waits.
        node: NodeId,
        /// Whose sets are shown.
        covers: Vec<NodeId>,
        /// Which of their sets: what they do, or what undoes it.
        direction: Direction,
    },
    /// Record that nobody decided in time.
    Expire {
        /// The step that asked.
        step: StepKey,
        /// The place of the approval in the run's list.
        approval: usize,
    },
    /// Record that the step failed without a try: rejected, or asked for too often.
    Fail(NodeId, Failure),
    /// End the approval step.
    Pass(NodeId),
    /// Carry out the changes from the first open one on.
    Apply(NodeId),
    /// The run is ending: settle the change that has begun, and start no further one.
    Drain(NodeId),
    /// The run is ending: end the step as it stands.
    Abandon(NodeId),
    /// Begin the wait or the verification.
    StartWait(NodeId),
    /// Look.
    Poll(NodeId),
    /// The timer has run out.
    EndTimer(NodeId),
    /// Stop starting steps.
    BeginEnding {
        /// `failed` or `cancelled`.
        outcome: Outcome,
        /// Whether settled changes are undone.
        compensate: bool,
        /// Whose changes are undone; `None`: all.
        scope: Option<Vec<StepKey>>,
        /// What went wrong.
        failure: Option<Failure>,
    },
    /// Work out what undoes the changes of a step.
    ProposeUndo(NodeId),
    /// Undo the changes of a step.
    Undo(NodeId),
    /// Record that the changes of a step stay, since nobody allowed what would undo them.
    LeaveUndone(NodeId, Failure),
    /// A person must act.
    Stick(String),
    /// The run is over.
    Finish {
        /// How it ended.
        outcome: Outcome,
        /// How far changes were undone.
        compensation: Compensation,
    },
}

impl Command {
    /// Whether the run's lock has to be held for it: looking whether a wait is over needs none.
    const fn needs_lock(&self) -> bool {
        !matches!(
            self,
            Self::Poll(_) | Self::EndTimer(_) | Self::Expire { .. } | Self::Finish { .. }
        )
    }
}

/// What the executor knows beside the journal.
pub struct Situation<'a> {
    /// The present time.
    pub now: Timestamp,
    /// Steps that are being worked on.
    pub in_flight: &'a HashSet<NodeId>,
    /// The lock of the run.
    pub lock: Option<&'a str>,
    /// How long the run may work.
    pub timeout: Option<Duration>,
    /// How many changes the run may carry out.
    pub max_changes: Option<u32>,
    /// Claims in a row without a newly settled step before a person must act.
    pub max_barren: u32,
}

/// What to do next, and what is waited for.
#[derive(Debug, Default, PartialEq)]
pub struct Next {
    /// What to do now.
    pub commands: Vec<Command>,
    /// When something can be done without anybody's help.
    pub wake_at: Option<Timestamp>,
    /// Steps that wait for a person's decision.
    pub approvals: Vec<StepKey>,
    /// Steps with a change that nobody can tell the end of.
    pub doubts: Vec<StepKey>,
    /// Steps that wait for a time, a condition or an event.
    pub waits: Vec<StepKey>,
    /// Whether one of these waits is the pause before another try.
    pub backs_off: bool,
    /// Why a person must act.
    pub stuck: Option<String>,
}

/// What to do next.
pub fn decide(state: &RunState, situation: &Situation<'_>) -> Next {
    let mut walk = Walk { state, situation, next: Next::default(), granted: 0 };
    walk.run();
    walk.next
}

pub(super) struct Walk<'a> {
    pub(super) state: &'a RunState,
    pub(super) situation: &'a Situation<'a>,
    pub(super) next: Next,
    /// The changes of sets that are let begin by this very decision.
    pub(super) granted: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Going,
    Failing,
    Cancelled,
}

impl Walk<'_> {
    pub(super) fn push(&mut self, command: Command) {
        self.next.commands.push(command);
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.next.wake_at = Some(self.next.wake_at.map_or(at, |known| known.min(at)));
    }

    fn run(&mut self) {
        let state = self.state;
        if state.finished.is_some() {
            return;
        }
        if let Some((_, why)) = &state.stuck {
            self.next.stuck = Some(why.clone());
            return;
        }
        if state.barren_claims > self.situation.max_barren {
            let claims = state.barren_claims;
            self.push(Command::Stick(format!("{claims} resumes in a row settled no step")));
            return;
        }
        match &state.ending {
            None if self.begin_ending() => {}
            None => {
                if state.instances[MAIN].is_done() {
                    self.handlers(Outcome::Succeeded);
                } else {
                    self.instance(MAIN, Mood::Going);
                }
                // A run that only waits needs no lock; whatever else it does queues for it first.
                if let Some(lock) = self.situation.lock
                    && !state.locks.get(lock).is_some_and(|known| known.held)
                    && self.next.commands.iter().any(Command::needs_lock)
                {
                    self.next.commands = vec![Command::Lock(lock.to_owned())];
                }
            }
            Some(ending) => {
                let cancelled = ending.outcome == Outcome::Cancelled;
                if !state.instances[MAIN].is_done() {
                    let mood = if cancelled { Mood::Cancelled } else { Mood::Failing };
                    self.instance(MAIN, mood);
                    return;
                }
                if ending.compensate {
                    let todo = undoable(state, MAIN, ending.scope.as_deref());
                    if self.undo_next(&todo) {
                        return;
                    }
                }
                self.handlers(ending.outcome);
            }
        }
    }

    fn begin_ending(&mut self) -> bool {
        let state = self.state;
        if let Some(cancel) = &state.cancel {
            self.push(Command::BeginEnding {
                outcome: Outcome::Cancelled,
                compensate: cancel.compensate,
                scope: None,
                failure: None,
            });
            return true;
        }
        if state.instances[MAIN].has_failed() {
            let mut scope = Vec::new();
            let mut first = None;
            collect_failures(state, MAIN, &mut first, &mut scope);
            self.push(Command::BeginEnding {
                outcome: Outcome::Failed,
                compensate: !scope.is_empty(),
                scope: Some(scope),
                failure: first.and_then(|id| state.nodes[id].failure.as_deref().cloned()),
            });
            return true;
        }
        let worked = state.worked_until(self.situation.now);
        if self.situation.timeout.is_some_and(|limit| worked > limit) {
            let text = format!(
                "the run worked for {}, longer than its limit allows",
                humantime::format_duration(worked)
            );
            self.push(Command::BeginEnding {
                outcome: Outcome::Failed,
                compensate: false,
                scope: None,
                failure: Some(Failure::permanent(RUN_TIMEOUT, text)),
            });
            return true;
        }
        false
    }

    /// The handlers at the end of a run: one after the other, and a failed one does not keep the next
    /// from running.
    fn handlers(&mut self, outcome: Outcome) {
        if outcome == Outcome::Failed && self.handler(ON_FAILURE) {
            return;
        }
        if self.handler(ALWAYS) {
            return;
        }
        let always_failed = self.state.instances[ALWAYS].has_failed();
        let outcome =
            if always_failed && outcome == Outcome::Succeeded { Outcome::Failed } else { outcome };
        self.push(Command::Finish { outcome, compensation: compensation(self.state) });
    }

    fn handler(&mut self, instance: InstanceId) -> bool {
        let state = self.state;
        let open = |id: &&NodeId| !state.nodes[**id].phase.is_terminal();
        let Some(&id) = state.instances[instance].nodes.iter().find(open) else { return false };
        self.node(id, Mood::Going);
        true
    }

    fn instance(&mut self, instance: InstanceId, mood: Mood) {
        let state = self.state;
        let scope = &state.instances[instance];
        let mood = if mood == Mood::Going && scope.has_failed() { Mood::Failing } else { mood };
        for index in scope.active() {
            self.node(scope.nodes[index], mood);
        }
    }

    fn node(&mut self, id: NodeId, mood: Mood) {
        let state = self.state;
        let node = &state.nodes[id];
        if node.phase.is_terminal() || self.situation.in_flight.contains(&id) {
            return;
        }
        let runs_always = state.def(id).step.run_if == RunIf::Always && mood != Mood::Cancelled;
        if self.is_untouched(id) {
            if let Some(reason) = self.skips(id, mood, runs_always) {
                self.skip(id, &reason);
                return;
            }
        } else if mood != Mood::Going && !runs_always {
            self.drain(id, mood);
            return;
        }
        if state.def(id).step.when.is_some() && node.condition.is_none() {
            self.push(Command::Condition(id));
            return;
        }
        if node.condition == Some(false) {
            self.push(Command::Skip(id, SkipReason::Condition));
            return;
        }
        let step = &state.def(id).step;
        if step.for_each.is_none() || node.fan_out.is_some() {
            self.enter(id);
        } else if state.next_lock(id).is_some() {
            self.push(Command::LockStep(id));
        } else {
            self.fan_out(id);
        }
    }

    /// Works on a step once it holds its locks.
    fn enter(&mut self, id: NodeId) {
        if self.state.next_lock(id).is_some() {
            self.push(Command::LockStep(id));
        } else {
            self.act(id);
        }
    }

    /// Whether the step has not begun, or was only prepared for the approval that covers it.
    fn is_untouched(&self, id: NodeId) -> bool {
        let node = &self.state.nodes[id];
        let prepared = node.attempts == 0
            && node.inner.is_none()
            && node.waiting.is_none()
            && !node.work.as_deref().is_some_and(Work::is_frozen);
        let mut items = node.item_nodes().iter().copied();
        !node.begun || (prepared && items.all(|item| self.is_untouched(item)))
    }

    /// Skips a step and what was listed of it.
    fn skip(&mut self, id: NodeId, reason: &SkipReason) {
        let state = self.state;
        let open = |item: &&NodeId| !state.nodes[**item].phase.is_terminal();
        for &item in state.nodes[id].item_nodes().iter().filter(open) {
            self.push(Command::Skip(item, reason.clone()));
        }
        self.push(Command::Skip(id, reason.clone()));
    }

    fn skips(&self, id: NodeId, mood: Mood, runs_always: bool) -> Option<SkipReason> {
        let state = self.state;
        let def = state.def(id);
        let nodes = &state.instances[state.nodes[id].scope].nodes;
        if runs_always {
            return None;
        }
        let mut skipped = 0;
        for &need in &def.needs {
            let needed = &state.nodes[nodes[need]];
            match &needed.phase {
                Phase::Failed if !state.def(nodes[need]).step.allow_failure => {
                    return Some(SkipReason::NeedFailed { step: needed.key.clone() });
                }
                Phase::Skipped(SkipReason::Rejected) => return Some(SkipReason::Rejected),
                Phase::Skipped(_) => skipped += 1,
                Phase::Pending
                | Phase::Running
                | Phase::Backoff { .. }
                | Phase::InDoubt
                | Phase::Succeeded
                | Phase::Failed => {}
            }
        }
        if mood != Mood::Going {
            return Some(SkipReason::RunEnding);
        }
        (skipped > 0 && skipped == def.needs.len()).then_some(SkipReason::NeedsSkipped)
    }

    /// The run is ending: what has begun is brought to an end, nothing new begins.
    fn drain(&mut self, id: NodeId, mood: Mood) {
        let state = self.state;
        let node = &state.nodes[id];
        if let Some(items) = &node.items {
            let mut any = false;
            let open = |item: &&NodeId| !state.nodes[**item].phase.is_terminal();
            for &item in items.open().iter().filter(open) {
                any = true;
                if !self.situation.in_flight.contains(&item) {
                    self.drain(item, mood);
                }
            }
            if !any {
                self.push(Command::Collect(id));
            }
        } else if let Some(inner) = node.inner {
            if state.instances[inner].is_done() {
                self.close(id, inner, mood);
            } else {
                self.instance(inner, mood);
            }
        } else if node.phase == Phase::InDoubt {
            self.next.doubts.push(node.key.clone());
        } else if node.work.as_deref().is_some_and(Work::unsettled_start) {
            self.push(Command::Drain(id));
        } else {
            self.push(Command::Abandon(id));
        }
    }

    fn fan_out(&mut self, id: NodeId) {
        let state = self.state;
        let def = state.def(id);
        let Some(listed) = &state.nodes[id].items else {
            self.push(Command::Items(id));
            return;
        };
        let Some(for_each) = &def.step.for_each else { return };
        let most = usize::try_from(for_each.max_parallel.max(1)).unwrap_or(1);
        let in_flight = |item: &NodeId| self.situation.in_flight.contains(item);
        // An embedded workflow keeps its place until it ends, whatever its steps are doing.
        let embedded = |item: &NodeId| {
            state.nodes[*item].inner.is_some() && !state.nodes[*item].phase.is_terminal()
        };
        let is_item = |item: &&NodeId| state.nodes[**item].fan_out == Some(id);
        let looking = self.situation.in_flight.iter().filter(is_item);
        let at_work = looking.filter(|item| !embedded(item)).count() + listed.open_scopes;
        let mut slots = most.saturating_sub(at_work);
        // Items begin in their order: behind the last one that anything has happened to, one is like the other.
        let items = listed.open();
        let reached = listed.reached.saturating_sub(listed.first_open);
        let stops = for_each.fail_fast && listed.failed;
        for (place, &item) in items.iter().enumerate() {
            if slots == 0 && !stops && place >= reached {
                break;
            }
            let node = &state.nodes[item];
            if node.phase.is_terminal() || in_flight(&item) {
                continue;
            }
            if embedded(&item) {
                self.enter(item);
                continue;
            }
            let fresh = node.attempts == 0 && !node.work.as_deref().is_some_and(Work::is_frozen);
            if stops && fresh {
                self.push(Command::Skip(item, SkipReason::RunEnding));
                continue;
            }
            let before = self.next.commands.len();
            if slots > 0 {
                self.enter(item);
            }
            slots -= usize::from(self.next.commands.len() > before).min(slots);
        }
        if items.is_empty() {
            self.push(Command::Collect(id));
        } else if def.is_write {
            self.request_for_items(id, items);
        }
    }

    /// Works on a step that may go on: also one that runs although its scope is failing, and then with
    /// all that it embeds.
    fn act(&mut self, id: NodeId) {
        let state = self.state;
        let node = &state.nodes[id];
        match &node.phase {
            Phase::Backoff { until } if *until > self.situation.now => {
                self.wake(*until);
                self.next.waits.push(node.key.clone());
                self.next.backs_off = true;
                return;
            }
            Phase::InDoubt => {
                self.next.doubts.push(node.key.clone());
                return;
            }
            Phase::Pending
            | Phase::Running
            | Phase::Backoff { .. }
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Skipped(_) => {}
        }
        let def = state.def(id);
        match &def.step.action {
            Action::Tool(_) if def.is_write => self.write(id),
            Action::Tool(_) | Action::Script { .. } | Action::Sql { .. } => {
                self.push(Command::Attempt(id));
            }
            Action::Workflow(_) => match node.inner {
                None => self.push(Command::OpenScope(id)),
                Some(inner) if state.instances[inner].is_done() => {
                    self.close(id, inner, Mood::Going);
                }
                Some(inner) => self.instance(inner, Mood::Going),
            },
            Action::Approval(gate) => self.gate(id, gate.on_reject),
            Action::Wait(wait) => self.wait(id, matches!(wait, Wait::Timer { .. })),
            Action::Verify(_) => self.wait(id, false),
        }
    }

    /// Ends an embedded workflow. Its handlers run in its own scope. Where its failure is allowed nothing
    /// else will come to what its failed verifications ask to be undone, so that comes first.
    fn close(&mut self, id: NodeId, inner: InstanceId, mood: Mood) {
        let state = self.state;
        let scope = &state.instances[inner];
        if scope.has_failed() && state.def(id).step.allow_failure {
            let mut keys = Vec::new();
            collect_failures(state, inner, &mut None, &mut keys);
            let todo = undoable(state, inner, Some(&keys));
            let undo = |id: &NodeId| state.nodes[*id].undo.as_ref();
            let has_begun = todo.iter().filter_map(undo).any(|undo| undo.work.is_frozen());
            // A cancelled run begins nothing new.
            if (mood != Mood::Cancelled || has_begun) && self.undo_next(&todo) {
                return;
            }
        }
        let on_failure = scope.on_failure.filter(|_| scope.has_failed());
        for handlers in on_failure.into_iter().chain(scope.always) {
            if self.handler(handlers) {
                return;
            }
        }
        self.push(Command::CloseScope(id));
    }

    fn wait(&mut self, id: NodeId, is_timer: bool) {
        let node = &self.state.nodes[id];
        let now = self.situation.now;
        let Some(waiting) = &node.waiting else {
            self.push(Command::StartWait(id));
            return;
        };
        let due = if is_timer { waiting.deadline } else { waiting.next_at };
        if due > now {
            self.wake(due);
            self.next.waits.push(node.key.clone());
        } else if is_timer {
            self.push(Command::EndTimer(id));
        } else {
            self.push(Command::Poll(id));
        }
    }
}
