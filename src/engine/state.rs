//! What is known about a run: the events of its stream, folded. PURE.
//!
//! [`RunState::apply`] is total: an event that is not possible in the present state is an
//! [`IllegalTransition`], never ignored. A resume folds stored events with the very function that the
//! executor uses while it works, so a resumed run and a live one cannot differ.
//!
//! *Invariant:* decisions ([`Event::is_decision`]) are accepted at any point, because other processes
//! append them while the executor's own events are still on their way to the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::graph::{ALWAYS, Graph, MAIN, NodeDef, ON_FAILURE, ScopeId};
pub(super) use super::node::StepLock;
pub use super::node::{
    Approval, Cancel, ChangeState, Decided, Ending, Instance, InstanceId, Items, LockState, Node,
    NodeId, Phase, Rehearsal, Undo, Waiting, Work,
};
use crate::journal::event::{
    ApprovalRequest, Compensation, DoubtVerdict, Event, Item, Outcome, Principal, StepKey,
};
use crate::journal::occasion::Cause;
use crate::journal::store::Entry;
use crate::kernel::change::Origin;
use crate::kernel::{Change, Digest, Direction, Receipt, Settlement, Severity, Target, Timestamp};
use crate::plan::document::Action;

/// All that is known about a run.
#[derive(Clone, Debug)]
pub struct RunState {
    /// The plan, resolved.
    pub graph: Arc<Graph>,
    /// Step instances.
    pub nodes: Vec<Node>,
    /// Scope instances; the first three are the run's own ([`MAIN`], [`ON_FAILURE`], [`ALWAYS`]).
    pub instances: Vec<Instance>,
    /// The last sequence number that was applied.
    pub last_seq: u64,
    /// The sequence number of the newest claim.
    pub claim: u64,
    /// Claims since a step or change was settled.
    pub barren_claims: u32,
    /// When the run was created.
    pub created_at: Timestamp,
    /// Who started it.
    pub started_by: Option<Principal>,
    /// What started it by itself.
    pub cause: Option<Box<Cause>>,
    /// Whether `--yes` was given.
    pub yes: bool,
    /// Locks.
    pub locks: BTreeMap<String, LockState>,
    /// Approvals in the order in which they were asked for.
    pub approvals: Vec<Approval>,
    /// A person's wish to cancel.
    pub cancel: Option<Cancel>,
    /// How the run is ending.
    pub ending: Option<Ending>,
    /// Why a person must act.
    pub stuck: Option<(Option<StepKey>, String)>,
    /// How the run ended.
    pub finished: Option<(Outcome, Compensation)>,
    /// The outputs of the run.
    pub outputs: Value,
    /// What the latest parking said.
    pub parked: Option<(Outcome, Option<Timestamp>, String)>,
    /// Changes carried out so far.
    pub changes_applied: u64,
    /// What they cost, by cost name.
    pub cost: BTreeMap<String, u64>,
    /// Notifications that were not delivered yet.
    pub outbox: BTreeMap<String, (Severity, String, String)>,
    /// Time spent working.
    pub worked: Duration,
    /// What is known of it as a rehearsal, when it is one.
    pub rehearsal: Option<Rehearsal>,
    /// Fingerprints taken when the run began.
    pub preconditions: Option<BTreeMap<String, String>>,
    /// Steps that have not ended and whose set is frozen. It is what [`Work::is_frozen`] says of all steps,
    /// kept so that nobody has to go through them.
    pub(super) frozen: BTreeSet<NodeId>,
    by_key: HashMap<StepKey, NodeId>,
    last_at: Timestamp,
    busy: usize,
}

/// An event that is not possible in the present state: the journal was not written by this engine, or
/// the engine has a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{event}` is illegal while {what}")]
pub struct IllegalTransition {
    /// The kind of the event.
    pub event: &'static str,
    /// The state that it met.
    pub what: String,
}

impl RunState {
    /// A run that has not begun.
    pub fn new(graph: Arc<Graph>, params: &Arc<Value>, target: &Target) -> Self {
        let mut state = Self {
            graph,
            nodes: Vec::new(),
            instances: Vec::new(),
            last_seq: 0,
            claim: 0,
            barren_claims: 0,
            created_at: Timestamp::default(),
            started_by: None,
            cause: None,
            yes: false,
            locks: BTreeMap::new(),
            approvals: Vec::new(),
            cancel: None,
            ending: None,
            stuck: None,
            finished: None,
            outputs: Value::Null,
            parked: None,
            changes_applied: 0,
            cost: BTreeMap::new(),
            outbox: BTreeMap::new(),
            worked: Duration::ZERO,
            rehearsal: None,
            preconditions: None,
            frozen: BTreeSet::new(),
            by_key: HashMap::new(),
            last_at: Timestamp::default(),
            busy: 0,
        };
        for def in [MAIN, ON_FAILURE, ALWAYS] {
            state.open_instance(def, None, (Arc::clone(params), target.clone()));
        }
        for handlers in [ON_FAILURE, ALWAYS] {
            state.instances[handlers].main = Some(MAIN);
        }
        state
    }

    /// Folds the entries of a run's stream.
    pub fn replay(mut self, entries: &[Entry]) -> Result<Self, IllegalTransition> {
        for entry in entries {
            self.apply(&entry.event, entry.at, entry.seq)?;
        }
        Ok(self)
    }

    /// The step instance of a key.
    pub fn find(&self, key: &str) -> Option<NodeId> {
        self.by_key.get(key).copied()
    }

    /// The definition of a step instance.
    pub fn def(&self, id: NodeId) -> &NodeDef {
        let node = &self.nodes[id];
        &self.graph.scope(self.instances[node.scope].def).nodes[node.index]
    }

    /// The approvals that a decision still has an effect on: what was cancelled, or has ended without
    /// one, waits no more. Handlers at the end of a run and what undoes ask on their own behalf.
    pub fn open_approvals(&self) -> impl Iterator<Item = &Approval> {
        let waits = |approval: &&Approval| {
            let Some(id) = self.find(&approval.step) else { return false };
            if approval.decided.is_some() {
                return false;
            }
            if approval.request.direction == Direction::Undo {
                return approval.sets.keys().any(|key| self.is_to_be_undone(key));
            }
            let cancelled = self.cancel.is_some() && self.is_in_main(id);
            !(cancelled || self.nodes[id].phase.is_terminal())
        };
        self.approvals.iter().filter(waits)
    }

    fn is_to_be_undone(&self, key: &str) -> bool {
        let undo = self.find(key).and_then(|id| self.nodes[id].undo.as_ref());
        undo.is_some_and(|undo| !undo.done)
    }

    fn is_in_main(&self, id: NodeId) -> bool {
        let mut scope = self.nodes[id].scope;
        while self.instances[scope].main.is_none() {
            let Some(owner) = self.instances[scope].owner else { return true };
            scope = self.nodes[owner].scope;
        }
        false
    }

    /// The lock that a step takes next, when it has not got all of them.
    pub(super) fn next_lock(&self, id: NodeId) -> Option<StepLock> {
        let (node, step) = (&self.nodes[id], &self.def(id).step);
        let is_item = node.fan_out.is_some();
        let fans_out = step.for_each.is_some() && !is_item;
        let embeds = matches!(&step.action, Action::Workflow(embedded) if embedded.lock.is_some());
        let own = (step.lock.is_some() && !is_item).then_some(StepLock::Own);
        let embedded = (embeds && !fans_out).then_some(StepLock::Embedded);
        own.into_iter().chain(embedded).nth(node.locks_passed)
    }

    /// The newest approval that a step asked for.
    pub fn approval_of(&self, key: &str) -> Option<&Approval> {
        self.approvals.iter().rev().find(|approval| approval.step == key)
    }

    /// Time spent working, up to now: waiting for people, times and events does not count.
    pub fn worked_until(&self, now: Timestamp) -> Duration {
        if self.busy > 0 { self.worked + now.since(self.last_at) } else { self.worked }
    }

    /// Takes one event in.
    pub fn apply(
        &mut self,
        event: &Event,
        at: Timestamp,
        seq: u64,
    ) -> Result<(), IllegalTransition> {
        if self.busy > 0 && !matches!(event, Event::RunClaimed { .. }) {
            self.worked += at.since(self.last_at);
        }
        self.last_at = at.max(self.last_at);
        self.last_seq = self.last_seq.max(seq);
        if self.finished.is_some()
            && !event.is_decision()
            && !matches!(event, Event::NotificationDelivered { .. })
        {
            return Err(illegal(event, "the run is over"));
        }
        self.transition(event, at, seq)?;
        self.reach_item(event);
        Ok(())
    }

    fn reach_item(&mut self, event: &Event) {
        let Some(id) = event.step().and_then(|step| self.find(step)) else { return };
        let node = &self.nodes[id];
        if let (Some(fan_out), Some(place)) = (node.fan_out, node.item)
            && let Some(items) = &mut self.nodes[fan_out].items
        {
            items.reached = items.reached.max(place + 1);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per event keeps the vocabulary total")]
    fn transition(
        &mut self,
        event: &Event,
        at: Timestamp,
        seq: u64,
    ) -> Result<(), IllegalTransition> {
        match event {
            Event::RunCreated { by, yes, cause, .. } => {
                self.cause.clone_from(cause);
                self.created_at = at;
                self.started_by = Some(by.clone());
                self.yes = *yes;
            }
            Event::RehearsalBegan { ttl } => {
                self.rehearsal = Some(Rehearsal { ttl: *ttl, ..Rehearsal::default() });
            }
            Event::RunClaimed { .. } => self.claimed(seq),
            Event::PreconditionsTaken { found } => self.preconditions = Some(found.clone()),
            Event::RunParked { outcome, wake_at, reason } => {
                self.parked = Some((*outcome, *wake_at, reason.clone()));
                self.barren_claims = 0;
            }
            Event::CancelRequested { by, compensate, reason } => {
                let cancel =
                    Cancel { by: by.clone(), compensate: *compensate, reason: reason.clone() };
                self.cancel = Some(cancel);
                // Who cancels takes care: what the run was stuck at ends, or sticks again.
                self.stuck = None;
                self.barren_claims = 0;
            }
            Event::EndingBegan { outcome, compensate, scope, failure } => {
                self.ending = Some(Ending {
                    outcome: *outcome,
                    compensate: *compensate,
                    scope: scope.clone(),
                    failure: failure.clone(),
                });
            }
            Event::RunFinished { outcome, compensation, outputs } => {
                self.finished = Some((*outcome, *compensation));
                self.outputs = outputs.clone();
                self.locks.clear();
            }
            Event::LockQueued { lock, step } => {
                let state = LockState { owner: step.clone(), since: at, held: false };
                self.locks.insert(lock.clone(), state);
            }
            Event::LockAcquired { lock, step } => {
                if let Some(step) = step {
                    let node = self.working(event, step)?;
                    node.begun = true;
                    node.locks_passed += 1;
                }
                let Some(state) = self.locks.get_mut(lock) else {
                    return Err(illegal(event, &format!("`{lock}` was not queued for")));
                };
                state.held = true;
            }
            Event::LockReleased { lock, step } => {
                self.locks.remove(lock);
                if step.is_none() {
                    // Without the lock things move: what was proposed is proposed again.
                    self.go_stale();
                }
                if let Some(id) = step.as_ref().and_then(|step| self.find(step)) {
                    self.nodes[id].locks_passed = 0;
                }
            }
            Event::ConditionEvaluated { step, result, .. } => {
                let node = self.working(event, step)?;
                node.begun = true;
                node.condition = Some(*result);
            }
            Event::StepSkipped { step, reason } => {
                let id = self.id(event, step)?;
                self.end(event, id, Phase::Skipped(reason.clone()))?;
            }
            Event::ItemsListed { step, items } => self.list_items(event, step, items)?,
            Event::ScopeOpened { step, params, target } => {
                let id = self.id(event, step)?;
                let Some(def) = self.def(id).inner else {
                    return Err(illegal(event, &format!("`{step}` embeds no workflow")));
                };
                let node = self.working(event, step)?;
                if node.inner.is_some() {
                    return Err(illegal(event, &format!("the workflow of `{step}` is open")));
                }
                node.begun = true;
                let scope = (Arc::new(params.clone()), target.clone());
                self.open_embedded(def, id, &scope);
            }
            Event::AttemptStarted { step, attempt, arguments } => {
                let node = self.working(event, step)?;
                if node.phase == Phase::Running || *attempt != node.attempts + 1 {
                    let what = format!("`{step}` has {} attempts", node.attempts);
                    return Err(illegal(event, &what));
                }
                node.begun = true;
                node.attempts = *attempt;
                node.arguments = arguments.clone();
                node.phase = Phase::Running;
                self.busy += 1;
            }
            Event::AttemptFailed { step, attempt, failure, retry_at } => {
                let id = self.id(event, step)?;
                let node = self.working(event, step)?;
                node.begun = true;
                node.attempts = node.attempts.max(*attempt);
                node.failure = Some(Box::new(failure.clone()));
                match retry_at {
                    Some(until) => self.move_to(id, Phase::Backoff { until: *until }),
                    None => self.end(event, id, Phase::Failed)?,
                }
            }
            Event::StepSucceeded { step, output, .. } => {
                let id = self.id(event, step)?;
                // Nobody looks at the items of a fan-out one by one once it has ended.
                let is_item = self.nodes[id].fan_out.is_some();
                let output = if is_item { output.packed() } else { output.clone() };
                self.nodes[id].output = Some(output);
                self.end(event, id, Phase::Succeeded)?;
            }
            Event::WaitStarted { step, deadline } => {
                let node = self.working(event, step)?;
                node.begun = true;
                node.waiting = Some(Box::new(Waiting {
                    deadline: *deadline,
                    next_at: at,
                    result: Value::Null,
                    since: at,
                }));
            }
            Event::WaitPolled { step, result, next_at, .. } => {
                let node = self.working(event, step)?;
                let Some(waiting) = node.waiting.as_mut() else {
                    return Err(illegal(event, &format!("`{step}` does not wait")));
                };
                waiting.result = result.clone();
                waiting.next_at = *next_at;
            }
            Event::ChangesProposed { step, set, ask, arguments, server, .. } => {
                let node = self.working(event, step)?;
                if node.work.as_deref().is_some_and(Work::is_frozen) {
                    return Err(illegal(event, &format!("the set of `{step}` is frozen")));
                }
                node.begun = true;
                node.arguments = arguments.clone();
                let work = Work::new(set.clone(), ask.clone(), server.clone());
                node.work = Some(Box::new(work));
            }
            Event::ApprovalRequested { step, request } => self.request(event, step, request)?,
            Event::ApprovalDecided { step, digest, decision, by, reason } => {
                let decided =
                    Decided { decision: *decision, by: by.clone(), reason: reason.clone(), at };
                self.decided(event, (step, digest), decided)?;
            }
            Event::ChangeStarted { step, index, direction, fingerprint, .. } => {
                let change = self.change(event, (step, *index, *direction))?;
                if *change != ChangeState::New {
                    return Err(illegal(event, &format!("change {index} of `{step}` had begun")));
                }
                let fingerprint = fingerprint.clone();
                *change = ChangeState::Started { fingerprint, note: None };
                self.freeze_or_thaw(step);
            }
            Event::ChangeNoted { step, index, direction, note } => {
                let change = self.change(event, (step, *index, *direction))?;
                let ChangeState::Started { note: known, .. } = change else {
                    return Err(illegal(
                        event,
                        &format!("change {index} of `{step}` was not begun"),
                    ));
                };
                *known = Some(note.clone());
            }
            Event::ChangeNotApplied { step, index, direction, .. } => {
                let change = self.change(event, (step, *index, *direction))?;
                if !matches!(change, ChangeState::Started { .. }) {
                    return Err(illegal(
                        event,
                        &format!("change {index} of `{step}` was not begun"),
                    ));
                }
                *change = ChangeState::New;
                self.freeze_or_thaw(step);
                if let (Direction::Undo, Some(id)) = (direction, self.find(step))
                    && let Some(undo) = self.nodes[id].undo.as_mut()
                {
                    undo.failures += 1;
                }
            }
            Event::ChangeSettled { step, index, direction, settlement } => {
                let change = self.change(event, (step, *index, *direction))?;
                if matches!(change, ChangeState::Settled(_)) {
                    return Err(illegal(event, &format!("change {index} of `{step}` was settled")));
                }
                *change = ChangeState::Settled(settlement.clone());
                self.freeze_or_thaw(step);
                self.count(step, *index, *direction, settlement);
                self.barren_claims = 0;
            }
            Event::ChangeInDoubt { step, index, direction, .. } => {
                let change = self.change(event, (step, *index, *direction))?;
                let ChangeState::Started { fingerprint, .. } = change else {
                    return Err(illegal(
                        event,
                        &format!("change {index} of `{step}` was not begun"),
                    ));
                };
                *change = ChangeState::InDoubt { fingerprint: std::mem::take(fingerprint) };
                if let (Direction::Do, Some(id)) = (direction, self.find(step)) {
                    self.move_to(id, Phase::InDoubt);
                }
            }
            Event::DoubtSettled { step, index, direction, verdict, .. } => {
                self.settle_doubt(event, (step, *index, *direction), *verdict)?;
            }
            Event::CompensationProposed { step, set, impossible, ask, server, .. } => {
                let id = self.id(event, step)?;
                let known = self.nodes[id].undo.as_ref();
                if known.is_some_and(|undo| undo.done || undo.work.is_frozen()) {
                    return Err(illegal(event, &format!("the undoing of `{step}` is frozen")));
                }
                self.nodes[id].undo = Some(Box::new(Undo {
                    failures: known.map_or(0, |undo| undo.failures),
                    work: Work::new(set.clone(), ask.clone(), server.clone()),
                    impossible: impossible.clone(),
                    done: false,
                }));
            }
            Event::StepCompensated { step, left } => {
                let id = self.id(event, step)?;
                let Some(undo) = self.nodes[id].undo.as_mut() else {
                    return Err(illegal(event, &format!("`{step}` is not being undone")));
                };
                undo.done = true;
                undo.impossible.extend(left.iter().cloned());
                self.barren_claims = 0;
            }
            Event::RunStuck { step, why } => self.stuck = Some((step.clone(), why.clone())),
            Event::Unstuck { .. } => {
                self.stuck = None;
                self.barren_claims = 0;
                for node in &mut self.nodes {
                    if let Some(undo) = node.undo.as_mut() {
                        undo.failures = 0;
                    }
                }
            }
            Event::NotificationQueued { dedup, severity, title, body, .. } => {
                self.outbox.insert(dedup.clone(), (*severity, title.clone(), body.clone()));
            }
            Event::NotificationDelivered { dedup } => {
                self.outbox.remove(dedup);
            }
            Event::BranchWanted { branch, target, change } => {
                let branches = &mut self.rehearsing(event)?.branches;
                branches.insert(branch.clone(), (target.clone(), Change::clone(change)));
            }
            Event::BranchRemoved { branch } => {
                self.rehearsing(event)?.branches.remove(branch);
            }
            Event::SetRehearsed { .. } => drop(self.rehearsing(event)?),
            Event::EventPublished { .. } | Event::Override { .. } => {}
            Event::ScheduleSeen { .. }
            | Event::SlotsDecided { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::TriggerSeen { .. }
            | Event::TriggerDecided { .. }
            | Event::AlertRouted { .. }
            | Event::AlertsSent { .. }
            | Event::AlertsFailed { .. }
            | Event::RunsSealed { .. } => {
                return Err(illegal(event, "it belongs to no run"));
            }
        }
        Ok(())
    }

    fn claimed(&mut self, seq: u64) {
        self.claim = seq;
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.claims += 1;
        }
        self.barren_claims += 1;
        self.busy = 0;
        for node in &mut self.nodes {
            if node.phase == Phase::Running {
                // A try that died with its process counts as not tried: it runs again under its number.
                node.phase = Phase::Pending;
                node.attempts = node.attempts.saturating_sub(1);
            }
        }
        self.go_stale();
    }

    /// What was proposed and has not begun is proposed again. Inverses follow from what was done and
    /// stay as they are; what the author put in their place looks again.
    fn go_stale(&mut self) {
        for id in 0..self.nodes.len() {
            let replaced = self.def(id).step.compensate.is_some();
            let node = &mut self.nodes[id];
            if let Some(work) = node.work.as_mut() {
                work.stale = !work.is_frozen();
            }
            if let Some(undo) = node.undo.as_mut().filter(|undo| replaced && !undo.done) {
                undo.work.stale = !undo.work.is_frozen();
            }
        }
    }

    fn request(
        &mut self,
        event: &Event,
        step: &str,
        request: &ApprovalRequest,
    ) -> Result<(), IllegalTransition> {
        let mut sets = BTreeMap::new();
        for key in &request.covers {
            let node = &self.nodes[self.id(event, key)?];
            let Some(work) = node.work_of(request.direction) else {
                return Err(illegal(event, &format!("`{key}` has proposed nothing")));
            };
            sets.insert(key.clone(), Arc::clone(&work.set));
        }
        match request.direction {
            Direction::Do => self.working(event, step)?.begun = true,
            // A step that is undone has ended.
            Direction::Undo => drop(self.id(event, step)?),
        }
        let approval =
            Approval { step: step.to_owned(), request: request.clone(), sets, decided: None };
        self.approvals.push(approval);
        Ok(())
    }

    fn decided(
        &mut self,
        event: &Event,
        (step, digest): (&str, &Digest),
        decided: Decided,
    ) -> Result<(), IllegalTransition> {
        let waiting = self
            .approvals
            .iter_mut()
            .rev()
            .find(|approval| approval.step == step && approval.request.digest == *digest);
        match waiting {
            Some(approval) if approval.decided.is_none() => {
                approval.decided = Some(decided);
                Ok(())
            }
            Some(_) => Err(illegal(event, &format!("the approval of `{step}` was decided"))),
            None => Err(illegal(event, &format!("`{step}` asked for no such approval"))),
        }
    }

    fn settle_doubt(
        &mut self,
        event: &Event,
        (step, index, direction): (&str, u32, Direction),
        verdict: DoubtVerdict,
    ) -> Result<(), IllegalTransition> {
        let change = self.change(event, (step, index, direction))?;
        if !matches!(change, ChangeState::InDoubt { .. }) {
            return Err(illegal(event, &format!("change {index} of `{step}` is not in doubt")));
        }
        let receipt = Receipt { recovered: true, ..Receipt::default() };
        *change = match verdict {
            DoubtVerdict::Applied => ChangeState::Settled(Settlement::Applied { receipt }),
            DoubtVerdict::NotApplied => ChangeState::New,
            DoubtVerdict::Abandon => ChangeState::Settled(Settlement::Abandoned),
        };
        if let ChangeState::Settled(settlement) = change.clone() {
            self.count(step, index, direction, &settlement);
        }
        self.barren_claims = 0;
        self.freeze_or_thaw(step);
        let id = self.id(event, step)?;
        let doubt = self.nodes[id].work.as_deref().is_some_and(Work::has_doubt);
        if self.nodes[id].phase == Phase::InDoubt && !doubt {
            // The interrupted try goes on; it is not a further one.
            self.nodes[id].attempts = self.nodes[id].attempts.saturating_sub(1);
            self.move_to(id, Phase::Pending);
        }
        Ok(())
    }

    /// Notes whether the set of a step is frozen, after one of its changes moved.
    fn freeze_or_thaw(&mut self, step: &str) {
        let Some(id) = self.find(step) else { return };
        let node = &self.nodes[id];
        if !node.phase.is_terminal() && node.work.as_deref().is_some_and(Work::is_frozen) {
            self.frozen.insert(id);
        } else {
            self.frozen.remove(&id);
        }
    }

    fn count(&mut self, step: &str, index: u32, direction: Direction, settlement: &Settlement) {
        let (Direction::Do, Settlement::Applied { .. }) = (direction, settlement) else { return };
        let Some(work) = self.find(step).and_then(|id| self.nodes[id].work.as_ref()) else {
            return;
        };
        let set = Arc::clone(&work.set);
        let Some(change) = usize::try_from(index).ok().and_then(|at| set.changes.get(at)) else {
            return;
        };
        // What the engine makes for its own needs is no change of the run.
        if change.origin == Origin::Engine {
            return;
        }
        self.changes_applied += 1;
        for (name, amount) in &change.cost {
            *self.cost.entry(name.clone()).or_default() += amount;
        }
    }

    fn change(
        &mut self,
        event: &Event,
        (step, index, direction): (&str, u32, Direction),
    ) -> Result<&mut ChangeState, IllegalTransition> {
        let id = self.id(event, step)?;
        let node = &mut self.nodes[id];
        let work = match direction {
            Direction::Do => node.work.as_deref_mut(),
            Direction::Undo => node.undo.as_mut().map(|undo| &mut undo.work),
        };
        usize::try_from(index)
            .ok()
            .and_then(|index| work?.changes.get_mut(index))
            .ok_or_else(|| illegal(event, &format!("`{step}` has no change {direction} {index}")))
    }

    fn list_items(
        &mut self,
        event: &Event,
        step: &str,
        items: &Arc<[Item]>,
    ) -> Result<(), IllegalTransition> {
        let fan_out = self.id(event, step)?;
        if self.working(event, step)?.items.is_some() {
            return Err(illegal(event, &format!("the items of `{step}` are listed")));
        }
        let (scope, index) = (self.nodes[fan_out].scope, self.nodes[fan_out].index);
        self.nodes.reserve_exact(items.len());
        self.by_key.reserve(items.len());
        let mut ids = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            let key = format!("{step}[{}]", item.key);
            let id = self.add_node(key, (scope, index));
            self.nodes[id].item = Some(place);
            self.nodes[id].fan_out = Some(fan_out);
            self.nodes[id].begun = true;
            ids.push(id);
        }
        self.nodes[fan_out].begun = true;
        self.nodes[fan_out].items = Some(Box::new(Items::new(Arc::clone(items), ids)));
        Ok(())
    }

    fn add_node(&mut self, key: StepKey, (scope, index): (InstanceId, usize)) -> NodeId {
        let id = self.nodes.len();
        self.by_key.insert(key.clone(), id);
        self.nodes.push(Node {
            key,
            scope,
            index,
            item: None,
            fan_out: None,
            phase: Phase::Pending,
            begun: false,
            attempts: 0,
            condition: None,
            arguments: Value::Null,
            work: None,
            items: None,
            inner: None,
            waiting: None,
            output: None,
            failure: None,
            undo: None,
            locks_passed: 0,
            open_needs: 0,
        });
        id
    }

    fn open_instance(
        &mut self,
        def: ScopeId,
        owner: Option<NodeId>,
        (params, target): (Arc<Value>, Target),
    ) -> InstanceId {
        let instance = self.instances.len();
        let graph = Arc::clone(&self.graph);
        let definition = graph.scope(def);
        let prefix = owner.map(|id| format!("{}/", self.nodes[id].key)).unwrap_or_default();
        let mut nodes = Vec::with_capacity(definition.nodes.len());
        let mut active = BTreeSet::new();
        for (index, node) in definition.nodes.iter().enumerate() {
            let id = self.add_node(format!("{prefix}{}", node.step.id), (instance, index));
            self.nodes[id].open_needs = node.needs.len();
            if node.needs.is_empty() {
                active.insert(index);
            }
            nodes.push(id);
        }
        let open = nodes.len();
        let failed = false;
        self.instances.push(Instance {
            def,
            owner,
            nodes,
            params,
            target,
            active,
            main: None,
            on_failure: None,
            always: None,
            open,
            failed,
        });
        instance
    }

    /// Opens the scope of an embedded workflow and those of its handlers.
    fn open_embedded(&mut self, def: ScopeId, owner: NodeId, scope: &(Arc<Value>, Target)) {
        let graph = Arc::clone(&self.graph);
        let definition = graph.scope(def);
        let main = self.open_instance(def, Some(owner), scope.clone());
        let mut handlers = |handlers: Option<ScopeId>| {
            let instance = self.open_instance(handlers?, Some(owner), scope.clone());
            self.instances[instance].main = Some(main);
            Some(instance)
        };
        let (on_failure, always) = (handlers(definition.on_failure), handlers(definition.always));
        self.instances[main].on_failure = on_failure;
        self.instances[main].always = always;
        self.nodes[owner].inner = Some(main);
        if let Some(fan_out) = self.nodes[owner].fan_out
            && let Some(items) = &mut self.nodes[fan_out].items
        {
            items.open_scopes += 1;
        }
    }

    /// Moves a step that has not ended.
    fn move_to(&mut self, id: NodeId, phase: Phase) {
        if self.nodes[id].phase == Phase::Running {
            self.busy = self.busy.saturating_sub(1);
        }
        self.nodes[id].phase = phase;
    }

    fn end(&mut self, event: &Event, id: NodeId, phase: Phase) -> Result<(), IllegalTransition> {
        let node = &self.nodes[id];
        if node.phase.is_terminal() {
            return Err(illegal(event, &format!("`{}` has {}", node.key, node.phase.as_str())));
        }
        let (scope, index, fan_out) = (node.scope, node.index, node.fan_out);
        self.move_to(id, phase);
        // Nobody tries it again.
        self.nodes[id].arguments = Value::Null;
        self.frozen.remove(&id);
        self.barren_claims = 0;
        if let Some(fan_out) = fan_out {
            self.item_ended(fan_out, id);
            return Ok(());
        }
        let graph = Arc::clone(&self.graph);
        let failed = self.nodes[id].phase == Phase::Failed && !self.def(id).step.allow_failure;
        let instance = &mut self.instances[scope];
        instance.failed |= failed;
        instance.open -= 1;
        instance.active.remove(&index);
        for &dependent in &graph.scope(instance.def).nodes[index].dependents {
            let node = &mut self.nodes[instance.nodes[dependent]];
            node.open_needs -= 1;
            if node.open_needs == 0 && !node.phase.is_terminal() {
                instance.active.insert(dependent);
            }
        }
        Ok(())
    }

    fn item_ended(&mut self, fan_out: NodeId, item: NodeId) {
        let has_ended = |id: &&NodeId| self.nodes[**id].phase.is_terminal();
        let Some(items) = &self.nodes[fan_out].items else { return };
        let further = items.open().iter().take_while(has_ended).count();
        let failed = self.nodes[item].phase == Phase::Failed;
        let embeds = self.nodes[item].inner.is_some();
        let Some(items) = &mut self.nodes[fan_out].items else { return };
        items.first_open += further;
        items.failed |= failed;
        items.open_scopes -= usize::from(embeds);
    }

    fn rehearsing(&mut self, event: &Event) -> Result<&mut Rehearsal, IllegalTransition> {
        self.rehearsal.as_mut().ok_or_else(|| illegal(event, "the run is no rehearsal"))
    }

    fn id(&self, event: &Event, step: &str) -> Result<NodeId, IllegalTransition> {
        self.find(step).ok_or_else(|| illegal(event, &format!("the run has no step `{step}`")))
    }

    fn working(&mut self, event: &Event, step: &str) -> Result<&mut Node, IllegalTransition> {
        let id = self.id(event, step)?;
        let node = &mut self.nodes[id];
        if node.phase.is_terminal() {
            return Err(illegal(event, &format!("`{step}` has {}", node.phase.as_str())));
        }
        Ok(node)
    }
}

fn illegal(event: &Event, what: &str) -> IllegalTransition {
    IllegalTransition { event: event.kind(), what: what.to_owned() }
}
