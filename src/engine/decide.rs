//! What to do next: from what is known about a run and the present time alone. PURE.
//!
//! [`decide`] names everything that could be done at once; the executor leaves out what is already
//! under way. It never says to do something twice, to do a step before what it needs, or to carry out
//! a set that its approval does not cover.

use std::collections::HashSet;
use std::time::Duration;

use super::graph::{ALWAYS, MAIN, ON_FAILURE};
use super::state::{Approval, InstanceId, NodeId, Phase, RunState, Undo, Work};
use crate::journal::event::{Compensation, Decision, Outcome, SkipReason, StepKey};
use crate::kernel::{Failure, Inverse, Timestamp};
use crate::plan::document::{Action, OnReject, OnVerifyFail, RunIf, Wait};

/// How often an approval of one step is asked for again because its proposal moved.
pub const MAX_ASKED: usize = 3;

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
    /// Undo the changes of a step.
    Undo(NodeId),
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
    /// Why a person must act.
    pub stuck: Option<String>,
}

/// What to do next.
pub fn decide(state: &RunState, situation: &Situation<'_>) -> Next {
    let mut walk = Walk { state, situation, next: Next::default() };
    walk.run();
    walk.next
}

struct Walk<'a> {
    state: &'a RunState,
    situation: &'a Situation<'a>,
    next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Going,
    Failing,
    Cancelled,
}

impl Walk<'_> {
    fn push(&mut self, command: Command) {
        self.next.commands.push(command);
    }

    fn wake(&mut self, at: Timestamp) {
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
                if let Some(lock) = self.situation.lock
                    && !state.locks.get(lock).is_some_and(|known| known.held)
                {
                    self.push(Command::Lock(lock.to_owned()));
                    return;
                }
                if state.instances[MAIN].is_done() {
                    self.handlers(Outcome::Succeeded, Compensation::None);
                } else {
                    self.instance(MAIN, Mood::Going);
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
                    let todo = undoable(state, ending.scope.as_deref());
                    if let Some(&id) = todo
                        .iter()
                        .find(|&&id| !state.nodes[id].undo.as_ref().is_some_and(|u| u.done))
                    {
                        self.undo(id);
                        return;
                    }
                    self.handlers(ending.outcome, compensation(state, &todo));
                } else {
                    self.handlers(ending.outcome, Compensation::None);
                }
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
                failure: first.and_then(|id| state.nodes[id].failure.clone()),
            });
            return true;
        }
        if self.situation.timeout.is_some_and(|limit| state.worked > limit) {
            let text = format!(
                "the run worked for {}, longer than its limit allows",
                humantime::format_duration(state.worked)
            );
            self.push(Command::BeginEnding {
                outcome: Outcome::Failed,
                compensate: false,
                scope: None,
                failure: Some(Failure::permanent("engine::run_timeout", text)),
            });
            return true;
        }
        false
    }

    /// The handlers at the end of a run: one after the other, and a failed one does not keep the next
    /// from running.
    fn handlers(&mut self, outcome: Outcome, compensation: Compensation) {
        if outcome == Outcome::Failed && self.handler(ON_FAILURE) {
            return;
        }
        if self.handler(ALWAYS) {
            return;
        }
        let always_failed = self.state.instances[ALWAYS].has_failed();
        let outcome =
            if always_failed && outcome == Outcome::Succeeded { Outcome::Failed } else { outcome };
        self.push(Command::Finish { outcome, compensation });
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
        if !node.begun {
            if let Some(reason) = self.skips(id, mood, runs_always) {
                self.push(Command::Skip(id, reason));
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
        if state.def(id).step.takes_lock() && !self.holds_lock(id) {
            self.push(Command::LockStep(id));
        } else if state.def(id).step.for_each.is_some() && node.fan_out.is_none() {
            self.fan_out(id);
        } else {
            self.act(id, mood);
        }
    }

    fn holds_lock(&self, id: NodeId) -> bool {
        let node = &self.state.nodes[id];
        node.lock_passed
            || node.fan_out.is_some_and(|fan_out| self.state.nodes[fan_out].lock_passed)
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
            let mut open = false;
            for &item in items.iter().filter(|&&item| !state.nodes[item].phase.is_terminal()) {
                open = true;
                if !self.situation.in_flight.contains(&item) {
                    self.drain(item, mood);
                }
            }
            if !open {
                self.push(Command::Collect(id));
            }
        } else if let Some(inner) = node.inner {
            if state.instances[inner].is_done() {
                self.push(Command::CloseScope(id));
            } else {
                self.instance(inner, mood);
            }
        } else if node.phase == Phase::InDoubt {
            self.next.doubts.push(node.key.clone());
        } else if node.work.as_ref().is_some_and(Work::unsettled_start) {
            self.push(Command::Drain(id));
        } else {
            self.push(Command::Abandon(id));
        }
    }

    fn fan_out(&mut self, id: NodeId) {
        let state = self.state;
        let def = state.def(id);
        let Some(items) = &state.nodes[id].items else {
            self.push(Command::Items(id));
            return;
        };
        let Some(for_each) = &def.step.for_each else { return };
        let most = usize::try_from(for_each.max_parallel.max(1)).unwrap_or(1);
        let in_flight = |item: &NodeId| self.situation.in_flight.contains(item);
        let mut slots = most.saturating_sub(items.iter().filter(|item| in_flight(item)).count());
        let failed = items.iter().any(|&item| state.nodes[item].phase == Phase::Failed);
        let mut open = false;
        for &item in items {
            let node = &state.nodes[item];
            if node.phase.is_terminal() {
                continue;
            }
            open = true;
            if in_flight(&item) {
                continue;
            }
            let fresh = node.attempts == 0 && node.work.is_none() && node.inner.is_none();
            if for_each.fail_fast && failed && fresh {
                self.push(Command::Skip(item, SkipReason::RunEnding));
                continue;
            }
            let before = self.next.commands.len();
            if slots > 0 {
                self.act(item, Mood::Going);
            }
            slots -= usize::from(self.next.commands.len() > before).min(slots);
        }
        if !open {
            self.push(Command::Collect(id));
        } else if def.is_write {
            self.request_for_items(id, items);
        }
    }

    /// A fan-out asks once, for all items, as soon as every one of them has proposed.
    fn request_for_items(&mut self, id: NodeId, items: &[NodeId]) {
        let state = self.state;
        let open = || items.iter().copied().filter(|&item| !state.nodes[item].phase.is_terminal());
        let proposed =
            |item: NodeId| state.nodes[item].work.as_ref().is_some_and(|work| !work.stale);
        if !open().all(proposed) {
            return;
        }
        let covers: Vec<_> = open().filter(|&item| self.must_ask(item)).collect();
        if !covers.is_empty() {
            self.push(Command::Request { node: id, covers });
        }
    }

    fn must_ask(&self, id: NodeId) -> bool {
        let node = &self.state.nodes[id];
        let Some(work) = &node.work else { return false };
        if work.is_frozen() || work.stale {
            return false;
        }
        matches!(self.consent(id, work), Consent::Ask)
    }

    fn act(&mut self, id: NodeId, mood: Mood) {
        let state = self.state;
        let node = &state.nodes[id];
        match &node.phase {
            Phase::Backoff { until } if *until > self.situation.now => {
                self.wake(*until);
                self.next.waits.push(node.key.clone());
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
                    self.push(Command::CloseScope(id));
                }
                Some(inner) => self.instance(inner, mood),
            },
            Action::Approval(gate) => self.gate(id, gate.on_reject),
            Action::Wait(wait) => self.wait(id, matches!(wait, Wait::Timer { .. })),
            Action::Verify(_) => self.wait(id, false),
        }
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

    fn write(&mut self, id: NodeId) {
        let state = self.state;
        let node = &state.nodes[id];
        let Some(work) = &node.work else {
            self.push(Command::Propose(id));
            return;
        };
        if work.is_frozen() {
            self.push(Command::Apply(id));
            return;
        }
        // An undecided approval keeps what it shows; everything else is proposed afresh after a pause.
        let consent = self.consent(id, work);
        if work.stale && !matches!(consent, Consent::Waits(_)) {
            self.push(Command::Propose(id));
            return;
        }
        match consent {
            Consent::Given => self.push(Command::Apply(id)),
            Consent::Waits(place) => self.waits_for(place),
            Consent::Refused(failure) => self.push(Command::Fail(id, failure)),
            Consent::Ask if node.fan_out.is_some() => {}
            Consent::Ask => self.push(Command::Request { node: id, covers: vec![id] }),
        }
    }

    fn waits_for(&mut self, place: usize) {
        let approval = &self.state.approvals[place];
        let step = approval.step.clone();
        if self.next.approvals.contains(&step) {
            return;
        }
        if approval.request.expires_at <= self.situation.now {
            let expire = Command::Expire { step, approval: place };
            if !self.next.commands.contains(&expire) {
                self.push(expire);
            }
        } else {
            self.wake(approval.request.expires_at);
            self.next.approvals.push(step);
        }
    }

    fn consent(&self, id: NodeId, work: &Work) -> Consent {
        let state = self.state;
        let key = &state.nodes[id].key;
        let place = state.approvals.iter().rposition(|known| known.sets.contains_key(key));
        let Some(place) = place else {
            return if work.ask.is_empty() || work.set.is_empty() {
                Consent::Given
            } else {
                Consent::Ask
            };
        };
        let approval = &state.approvals[place];
        let Some(decided) = &approval.decided else { return Consent::Waits(place) };
        if decided.decision != Decision::Approved {
            return Consent::Refused(rejected(approval));
        }
        let covered = approval.sets.get(key).is_some_and(|shown| work.set.is_covered_by(shown));
        if covered || work.set.is_empty() {
            return Consent::Given;
        }
        let asked = state.approvals.iter().filter(|known| known.sets.contains_key(key)).count();
        if asked >= MAX_ASKED {
            let text = format!("its proposal moved {asked} times while an approval was waited for");
            return Consent::Refused(
                Failure::permanent("approval::moving_target", text)
                    .with_help("start a new run once the target is calm"),
            );
        }
        Consent::Ask
    }

    fn gate(&mut self, id: NodeId, on_reject: OnReject) {
        let state = self.state;
        let key = &state.nodes[id].key;
        if let Some(place) = state.approvals.iter().rposition(|known| known.step == *key) {
            let approval = &state.approvals[place];
            match approval.decided.as_ref().map(|decided| decided.decision) {
                None => self.waits_for(place),
                Some(Decision::Approved) => self.push(Command::Pass(id)),
                Some(Decision::Rejected | Decision::Expired) => self.push(match on_reject {
                    OnReject::Stop => Command::Fail(id, rejected(approval)),
                    OnReject::SkipDependents => Command::Skip(id, SkipReason::Rejected),
                }),
            }
            return;
        }
        let nodes = &state.instances[state.nodes[id].scope].nodes;
        let mut covers = Vec::new();
        let mut ready = true;
        for &index in &state.def(id).covers {
            ready &= self.prepare(nodes[index], &mut covers);
        }
        if ready {
            self.push(Command::Request { node: id, covers });
        }
    }

    /// Brings a step that an approval covers to the point where its proposal is known.
    fn prepare(&mut self, id: NodeId, covers: &mut Vec<NodeId>) -> bool {
        let state = self.state;
        let node = &state.nodes[id];
        let def = state.def(id);
        if node.phase.is_terminal() {
            return true;
        }
        if self.situation.in_flight.contains(&id) {
            return false;
        }
        if def.step.when.is_some() && node.condition.is_none() {
            self.push(Command::Condition(id));
            return false;
        }
        if def.step.for_each.is_some() && node.fan_out.is_none() {
            let Some(items) = &node.items else {
                self.push(Command::Items(id));
                return false;
            };
            // Every item is prepared, also behind one that is not ready.
            let mut ready = true;
            for &item in items {
                ready &= self.prepare(item, covers);
            }
            return ready;
        }
        if let Phase::Backoff { until } = node.phase
            && until > self.situation.now
        {
            self.wake(until);
            return false;
        }
        if node.work.as_ref().is_some_and(|work| !work.stale) {
            covers.push(id);
            return true;
        }
        self.push(Command::Propose(id));
        false
    }

    fn undo(&mut self, id: NodeId) {
        if self.situation.in_flight.contains(&id) {
            return;
        }
        let doubt = |undo: &Undo| {
            undo.work
                .changes
                .iter()
                .any(|change| matches!(change, super::state::ChangeState::InDoubt { .. }))
        };
        let node = &self.state.nodes[id];
        if node.undo.as_ref().is_some_and(doubt) {
            self.next.doubts.push(node.key.clone());
        } else {
            self.push(Command::Undo(id));
        }
    }
}

enum Consent {
    Given,
    Ask,
    Waits(usize),
    Refused(Failure),
}

fn rejected(approval: &Approval) -> Failure {
    let decided = approval.decided.as_ref();
    let expired = decided.is_some_and(|decided| decided.decision == Decision::Expired);
    if expired {
        let text = "nobody approved the changes before the request expired";
        return Failure::permanent("approval::expired", text).with_help(
            "start the workflow again; `approvals.expires` sets how long a request is kept",
        );
    }
    let by = decided.map(|decided| decided.by.name.clone()).unwrap_or_default();
    let reason = decided.map(|decided| decided.reason.clone()).unwrap_or_default();
    Failure::permanent("approval::rejected", format!("rejected by {by}: {reason}"))
}

/// The first failed step of a scope, and the steps whose changes its failed verifications undo.
fn collect_failures(
    state: &RunState,
    instance: InstanceId,
    first: &mut Option<NodeId>,
    scope: &mut Vec<StepKey>,
) {
    let nodes = &state.instances[instance].nodes;
    for &id in nodes.iter().filter(|&&id| state.nodes[id].phase == Phase::Failed) {
        first.get_or_insert(id);
        if let Some(inner) = state.nodes[id].inner {
            collect_failures(state, inner, first, scope);
        }
        if let Action::Verify(verify) = &state.def(id).step.action
            && verify.on_fail == OnVerifyFail::Compensate
        {
            ancestors(state, id, scope);
        }
    }
}

/// The keys of all steps of the same scope that a step depends on, itself excluded.
fn ancestors(state: &RunState, id: NodeId, found: &mut Vec<StepKey>) {
    let nodes = &state.instances[state.nodes[id].scope].nodes;
    let mut todo = state.def(id).needs.clone();
    while let Some(index) = todo.pop() {
        let key = &state.nodes[nodes[index]].key;
        if !found.contains(key) {
            found.push(key.clone());
            todo.extend(&state.def(nodes[index]).needs);
        }
    }
}

/// The steps with changes to undo, in reverse dependency order.
pub(super) fn undoable(state: &RunState, scope: Option<&[StepKey]>) -> Vec<NodeId> {
    let mut found = Vec::new();
    undoable_in(state, MAIN, scope, &mut found);
    found
}

fn undoable_in(
    state: &RunState,
    instance: InstanceId,
    scope: Option<&[StepKey]>,
    found: &mut Vec<NodeId>,
) {
    let take = |id: NodeId, inside: Option<&[StepKey]>, found: &mut Vec<NodeId>| {
        if let Some(inner) = state.nodes[id].inner {
            undoable_in(state, inner, inside, found);
        }
        if state.nodes[id].work.as_ref().is_some_and(Work::has_applied) {
            found.push(id);
        }
    };
    for &id in state.instances[instance].nodes.iter().rev() {
        // Once a step is in scope, so is all that it embeds; otherwise only what is named inside it.
        let named = scope.is_none_or(|keys| keys.contains(&state.nodes[id].key));
        let inside = if named { None } else { scope };
        let items = state.nodes[id].items.as_deref().unwrap_or_default();
        for &item in items.iter().rev() {
            if named || state.nodes[item].inner.is_some() {
                take(item, inside, found);
            }
        }
        if named || state.nodes[id].inner.is_some() {
            take(id, inside, found);
        }
    }
}

fn compensation(state: &RunState, undone: &[NodeId]) -> Compensation {
    let partial = undone.iter().any(|&id| {
        let node = &state.nodes[id];
        let listed = node.undo.as_ref().is_some_and(|undo| !undo.impossible.is_empty());
        let replaced = state.def(id).step.compensate.is_some();
        let lost = node.work.as_ref().is_some_and(|work| {
            work.set.changes.iter().any(|c| matches!(c.inverse, Inverse::Impossible { .. }))
        });
        listed || (lost && !replaced)
    });
    match (undone.is_empty(), partial) {
        (true, _) => Compensation::None,
        (false, true) => Compensation::Partial,
        (false, false) => Compensation::Complete,
    }
}
