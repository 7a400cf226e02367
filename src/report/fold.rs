//! From entries to a [`RunView`]. PURE.
//!
//! Unlike the engine's state machine this fold takes whatever it finds: a report of a journal that the
//! engine would refuse is what a person needs then.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::rehearsal::{BranchView, RehearsalView, StepEvidence};
use super::view::{ApprovalView, ChangeView, DecisionView, Grounds, RunView, StepView};
use crate::journal::Entry;
use crate::journal::event::{
    ApprovalRequest, Compensation, Decision, DoubtVerdict, Event, Outcome, StepKey,
};
use crate::journal::rehearsal::{Evidence, Rehearsed};
use crate::kernel::{Change, ChangeSet, Direction, Settlement, Timestamp};
use crate::plan::Plan;
use crate::plan::document::{Action, PlannedStep, Wait};

impl RunView {
    /// Folds the entries of a run's stream.
    pub fn from_entries(plan: &Plan, entries: &[Entry]) -> Self {
        let mut fold = Fold::new(plan, entries);
        for entry in entries {
            fold.run_event(&entry.event, entry.at);
            fold.step_event(&entry.event, entry.at);
            fold.change_event(&entry.event, entry.at);
            fold.view.updated_at = entry.at;
        }
        fold.finish()
    }
}

struct Fold<'a> {
    view: RunView,
    steps: Vec<StepView>,
    inside: Vec<Vec<usize>>,
    roots: Vec<usize>,
    handlers: HashSet<usize>,
    by_key: HashMap<StepKey, usize>,
    /// What a step is made of, for the items that it fans out to.
    planned: HashMap<StepKey, &'a PlannedStep>,
}

impl<'a> Fold<'a> {
    fn new(plan: &'a Plan, entries: &[Entry]) -> Self {
        let first = entries.first();
        let at = first.map(|entry| entry.at).unwrap_or_default();
        let view = RunView {
            run_id: first.map(|entry| entry.stream.clone()).unwrap_or_default(),
            plan_id: plan.id.clone(),
            workflow: plan.body.workflow.clone(),
            target: plan.body.target.clone(),
            connection: plan.body.connection.clone(),
            outcome: Outcome::Waiting,
            compensation: Compensation::None,
            reason: None,
            failure: None,
            key: None,
            forked_from: None,
            started_by: None,
            created_at: at,
            updated_at: at,
            wake_at: None,
            claims: 0,
            waiting_for: Vec::new(),
            steps: Vec::new(),
            approvals: Vec::new(),
            rehearsal: None,
            not_undone: Vec::new(),
            outputs: Value::Null,
        };
        let mut fold = Self {
            view,
            steps: Vec::new(),
            inside: Vec::new(),
            roots: Vec::new(),
            handlers: HashSet::new(),
            by_key: HashMap::new(),
            planned: HashMap::new(),
        };
        fold.add_all(None, "", &plan.body.steps);
        fold.add_handlers(None, "", [&plan.body.on_failure, &plan.body.always]);
        fold
    }

    fn add_handlers(
        &mut self,
        parent: Option<usize>,
        prefix: &str,
        handlers: [&'a Vec<PlannedStep>; 2],
    ) {
        let first = self.steps.len();
        for steps in handlers {
            self.add_all(parent, prefix, steps);
        }
        self.handlers.extend(first..self.steps.len());
    }

    fn add_all(&mut self, parent: Option<usize>, prefix: &str, steps: &'a [PlannedStep]) {
        for step in steps {
            let key = format!("{prefix}{}", step.id);
            let id = self.add(parent, key.clone(), action(&step.action));
            self.planned.insert(key.clone(), step);
            if step.for_each.is_none() {
                self.add_inner(id, &key, step);
            }
        }
    }

    fn add_inner(&mut self, id: usize, key: &str, step: &'a PlannedStep) {
        if let Action::Workflow(embedded) = &step.action {
            let prefix = format!("{key}/");
            self.add_all(Some(id), &prefix, &embedded.steps);
            self.add_handlers(Some(id), &prefix, [&embedded.on_failure, &embedded.always]);
        }
    }

    fn add(&mut self, parent: Option<usize>, key: StepKey, action: String) -> usize {
        let id = self.steps.len();
        self.by_key.insert(key.clone(), id);
        self.steps.push(StepView {
            key,
            action,
            depth: parent.map_or(0, |parent| self.steps[parent].depth + 1),
            state: "pending".to_owned(),
            attempts: 0,
            output: Value::Null,
            started_at: None,
            finished_at: None,
            failure: None,
            skipped: None,
            waiting: None,
            changes: Vec::new(),
            undone: Vec::new(),
            grounds: Grounds::default(),
        });
        self.inside.push(Vec::new());
        match parent {
            Some(parent) => self.inside[parent].push(id),
            None => self.roots.push(id),
        }
        id
    }

    /// The step of a key; a key that the plan does not know makes one.
    fn step(&mut self, key: &str, at: Timestamp) -> &mut StepView {
        let known = self.by_key.get(key).copied();
        let id = known.unwrap_or_else(|| self.add(None, key.to_owned(), String::new()));
        let step = &mut self.steps[id];
        step.started_at.get_or_insert(at);
        step
    }

    fn run_event(&mut self, event: &Event, at: Timestamp) {
        let view = &mut self.view;
        match event {
            Event::RunCreated { workflow, target, key, by, forked_from, .. } => {
                view.workflow.clone_from(workflow);
                view.target = target.clone();
                view.key.clone_from(key);
                view.started_by = Some(by.clone());
                view.forked_from = forked_from.as_ref().map(ToString::to_string);
                view.created_at = at;
            }
            Event::RunClaimed { .. } => {
                view.outcome = Outcome::Running;
                (view.reason, view.wake_at) = (None, None);
                view.claims += 1;
                for step in self.steps.iter_mut().filter(|step| step.state == "running") {
                    "pending".clone_into(&mut step.state);
                }
            }
            Event::RunParked { outcome, wake_at, reason } => {
                view.outcome = *outcome;
                view.wake_at = *wake_at;
                view.reason = Some(reason.clone()).filter(|reason| !reason.is_empty());
            }
            Event::CancelRequested { by, reason, .. } => {
                view.reason = Some(format!("cancelled by {}: {reason}", by.name));
            }
            Event::EndingBegan { failure, .. } => view.failure.clone_from(failure),
            Event::RunFinished { outcome, compensation, outputs } => {
                view.outcome = *outcome;
                view.compensation = *compensation;
                view.outputs = outputs.clone();
                view.wake_at = None;
            }
            Event::RunStuck { why, .. } => {
                view.outcome = Outcome::Stuck;
                view.reason = Some(why.clone());
            }
            Event::CompensationProposed { step, impossible, .. } => {
                for listed in impossible.iter().map(|why| format!("{step}: {why}")) {
                    // What is proposed again says it again.
                    if !view.not_undone.contains(&listed) {
                        view.not_undone.push(listed);
                    }
                }
            }
            _ => self.rehearsal_event(event, at),
        }
    }

    fn rehearsal_event(&mut self, event: &Event, at: Timestamp) {
        if let Event::RehearsalBegan { ttl } = event {
            let (branches, steps) = (Vec::new(), Vec::new());
            self.view.rehearsal = Some(RehearsalView { ttl: *ttl, branches, steps });
        }
        let run = self.view.run_id.clone();
        let Some(rehearsal) = &mut self.view.rehearsal else { return };
        match event {
            Event::BranchWanted { branch, .. } => {
                rehearsal.branches.push(BranchView { branch: branch.clone(), removed: false });
            }
            Event::BranchRemoved { branch } => {
                for known in rehearsal.branches.iter_mut().filter(|one| one.branch == *branch) {
                    known.removed = true;
                }
            }
            Event::SetRehearsed { step, rehearsed } => {
                let evidence = Evidence { run, at, rehearsed: Rehearsed::clone(rehearsed) };
                rehearsal.steps.retain(|known| known.step != *step);
                rehearsal.steps.push(StepEvidence { step: step.clone(), evidence });
            }
            _ => {}
        }
    }

    fn step_event(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::ConditionEvaluated { step, result, seen } => {
                self.step(step, at).grounds.condition = Some((*result, seen.clone()));
            }
            Event::StepSkipped { step, reason } => {
                let step = self.step(step, at);
                "skipped".clone_into(&mut step.state);
                step.skipped = Some(reason.clone());
                step.finished_at = Some(at);
            }
            Event::ItemsListed { step, items } => {
                self.step(step, at).grounds.items = Some(items.len());
                self.set(step, "running");
                for item in items.iter() {
                    self.add_item(step, &item.key);
                }
            }
            Event::ScopeOpened { step, .. } => {
                self.step(step, at);
                self.set(step, "running");
            }
            Event::AttemptStarted { step, attempt, arguments } => {
                let step = self.step(step, at);
                "running".clone_into(&mut step.state);
                step.attempts = *attempt;
                step.grounds.arguments = arguments.clone();
                step.waiting = None;
            }
            Event::AttemptFailed { step, attempt, failure, retry_at } => {
                let step = self.step(step, at);
                step.attempts = step.attempts.max(*attempt);
                step.failure = Some(failure.clone());
                step.grounds.failures.push((*attempt, failure.clone()));
                if let Some(retry_at) = retry_at {
                    "backoff".clone_into(&mut step.state);
                    step.waiting = Some(format!("the next try at {}", clock(*retry_at)));
                } else {
                    "failed".clone_into(&mut step.state);
                    step.finished_at = Some(at);
                    step.waiting = None;
                }
            }
            Event::StepSucceeded { step, output, seen, .. } => {
                let step = self.step(step, at);
                "succeeded".clone_into(&mut step.state);
                step.output = output.value().into_owned();
                step.finished_at = Some(at);
                (step.failure, step.waiting) = (None, None);
                if !seen.is_empty() {
                    step.grounds.seen.clone_from(seen);
                }
            }
            Event::WaitStarted { step, deadline } => {
                let step = self.step(step, at);
                "waiting".clone_into(&mut step.state);
                step.waiting = Some(format!("until {}", clock(*deadline)));
            }
            Event::WaitPolled { step, result, seen, next_at } => {
                let step = self.step(step, at);
                step.grounds.result = result.clone();
                step.grounds.seen.clone_from(seen);
                step.waiting = Some(format!("looks again at {}", clock(*next_at)));
            }
            Event::StepCompensated { step, left } => {
                let listed = left.iter().map(|why| format!("{step}: {why}"));
                self.view.not_undone.extend(listed);
                let state = if left.is_empty() { "compensated" } else { "not_compensated" };
                self.set(step, state);
            }
            Event::RunStuck { step: Some(step), .. } => self.set(step, "stuck"),
            _ => {}
        }
    }

    fn change_event(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::ChangesProposed { step, arguments, set, policy, ask, .. } => {
                let step = self.step(step, at);
                "proposed".clone_into(&mut step.state);
                step.changes = views(set);
                step.grounds.arguments = arguments.clone();
                step.grounds.set = Some(set.clone());
                step.grounds.policy = policy.clone();
                step.grounds.ask.clone_from(ask);
                step.grounds.proposals += 1;
                step.attempts = step.attempts.max(1);
            }
            Event::ApprovalRequested { step, request } => self.asked(step, request, at),
            Event::ApprovalDecided { step, digest, decision, by, reason } => {
                let waiting = self.view.approvals.iter_mut().rev();
                let mut waiting =
                    waiting.filter(|one| one.step == *step && one.request.digest == *digest);
                if let Some(approval) = waiting.next() {
                    let (by, reason) = (by.clone(), reason.clone());
                    approval.decided = Some(DecisionView { decision: *decision, by, reason, at });
                }
                let asked = self.view.approvals.iter().rev().find(|one| one.step == *step);
                let undoes = asked.is_some_and(|one| one.request.direction == Direction::Undo);
                let step = self.step(step, at);
                step.waiting = None;
                let state = match decision {
                    _ if undoes => "compensating",
                    Decision::Approved => "pending",
                    Decision::Rejected | Decision::Expired => "failed",
                };
                state.clone_into(&mut step.state);
            }
            Event::ChangeStarted { step, index, direction, .. } => {
                self.set_change(step, (*index, *direction), at, |change| {
                    "started".clone_into(&mut change.state);
                });
                if *direction == Direction::Do {
                    self.set(step, "running");
                }
            }
            Event::ChangeNoted { step, index, direction, note } => {
                self.set_change(step, (*index, *direction), at, |change| {
                    change.note = Some(note.clone());
                });
            }
            Event::ChangeNotApplied { step, index, direction, failure } => {
                self.set_change(step, (*index, *direction), at, |change| {
                    "not_applied".clone_into(&mut change.state);
                    change.note = Some(failure.message.clone());
                });
            }
            Event::ChangeSettled { step, index, direction, settlement } => {
                self.set_change(step, (*index, *direction), at, |change| {
                    settle(change, settlement);
                });
            }
            Event::ChangeInDoubt { step, index, direction, why } => {
                self.set_change(step, (*index, *direction), at, |change| {
                    "in_doubt".clone_into(&mut change.state);
                    change.note = Some(why.clone());
                });
                self.set(step, "in_doubt");
            }
            Event::DoubtSettled { step, index, direction, verdict, by, reason } => {
                self.set_change(step, (*index, *direction), at, |change| {
                    let state = match verdict {
                        DoubtVerdict::Applied => "applied",
                        DoubtVerdict::NotApplied => "new",
                        DoubtVerdict::Abandon => "abandoned",
                    };
                    state.clone_into(&mut change.state);
                    change.note = Some(format!("settled by {}: {reason}", by.name));
                });
                self.set(step, "pending");
            }
            Event::CompensationProposed { step, set, .. } => {
                let view = self.step(step, at);
                view.undone = views(set);
                view.grounds.undo = Some(set.clone());
                self.set(step, "compensating");
            }
            _ => {}
        }
    }

    fn asked(&mut self, step: &str, request: &ApprovalRequest, at: Timestamp) {
        let mut sets = BTreeMap::new();
        for key in &request.covers {
            let known = self.by_key.get(key).map(|id| &self.steps[*id]);
            let proposed = known.and_then(|step| match request.direction {
                Direction::Do => step.grounds.set.clone(),
                Direction::Undo => step.grounds.undo.clone(),
            });
            if let Some(set) = proposed {
                sets.insert(key.clone(), set);
            }
        }
        let (key, request) = (step.to_owned(), request.clone());
        let until = clock(request.expires_at);
        let approval = ApprovalView {
            step: key,
            request,
            asked_at: at,
            sets,
            rehearsed: BTreeMap::new(),
            decided: None,
        };
        self.view.approvals.push(approval);
        self.set(step, "waiting_approval");
        self.step(step, at).waiting = Some(format!("an approval, until {until}"));
    }

    fn add_item(&mut self, step: &str, item: &str) {
        let Some(parent) = self.by_key.get(step).copied() else { return };
        let key = format!("{step}[{item}]");
        if self.by_key.contains_key(&key) {
            return;
        }
        let id = self.add(Some(parent), key.clone(), self.steps[parent].action.clone());
        // The keys of the plan have no items in them: `a[x]/b` was planned as `a/b`.
        if let Some(planned) = self.planned.get(without_items(step).as_str()).copied() {
            self.add_inner(id, &key, planned);
        }
    }

    fn set(&mut self, step: &str, state: &str) {
        if let Some(id) = self.by_key.get(step) {
            state.clone_into(&mut self.steps[*id].state);
        }
    }

    fn set_change(
        &mut self,
        step: &str,
        (index, direction): (u32, Direction),
        at: Timestamp,
        set: impl FnOnce(&mut ChangeView),
    ) {
        let step = self.step(step, at);
        let changes = match direction {
            Direction::Do => &mut step.changes,
            Direction::Undo => &mut step.undone,
        };
        if let Some(change) = changes.iter_mut().find(|change| change.index == index) {
            set(change);
        }
    }

    fn finish(mut self) -> RunView {
        let mut order = Vec::with_capacity(self.steps.len());
        // Handlers stand last in the plan; one that nobody called is not worth a line.
        let is_shown =
            |id: &&usize| !self.handlers.contains(id) || self.steps[**id].started_at.is_some();
        let mut stack: Vec<usize> = self.roots.iter().filter(is_shown).rev().copied().collect();
        while let Some(id) = stack.pop() {
            order.push(id);
            stack.extend(self.inside[id].iter().filter(is_shown).rev());
        }
        let mut steps: Vec<Option<StepView>> = self.steps.into_iter().map(Some).collect();
        self.view.steps = order.into_iter().filter_map(|id| steps[id].take()).collect();
        self.view.waiting_for = waiting_for(&self.view);
        self.view
    }
}

fn settle(change: &mut ChangeView, settlement: &Settlement) {
    change.note = None;
    match settlement {
        Settlement::Applied { receipt } => {
            "applied".clone_into(&mut change.state);
            change.before = receipt.before.clone();
            change.after = receipt.after.clone();
            change.rows = receipt.rows;
            change.duration_ms = receipt.duration_ms;
            change.recovered = receipt.recovered;
        }
        Settlement::Moot => "moot".clone_into(&mut change.state),
        Settlement::Abandoned => "abandoned".clone_into(&mut change.state),
    }
}

fn waiting_for(view: &RunView) -> Vec<String> {
    if view.outcome.is_final() {
        return Vec::new();
    }
    let approvals = view.open_approvals().map(|approval| {
        let until = clock(approval.request.expires_at);
        format!("approval of `{}` ({} risk), until {until}", approval.step, approval.request.risk)
    });
    let doubts = view.doubts().map(|(step, change)| {
        format!("somebody to settle change {} of `{}`", change.index, step.key)
    });
    let waits =
        view.steps.iter().filter(|step| matches!(step.state.as_str(), "waiting" | "backoff"));
    let waits =
        waits.filter_map(|step| Some(format!("`{}`: {}", step.key, step.waiting.as_ref()?)));
    approvals.chain(doubts).chain(waits).collect()
}

fn views(set: &ChangeSet) -> Vec<ChangeView> {
    let indexed = set.changes.iter().zip(0u32..);
    indexed.map(|(change, index)| change_view(change, index)).collect()
}

fn change_view(change: &Change, index: u32) -> ChangeView {
    ChangeView {
        index,
        object: change.object.clone(),
        kind: change.operation.kind().to_owned(),
        operation: change.operation.to_string(),
        risk: change.risk,
        state: "new".to_owned(),
        before: Value::Null,
        after: Value::Null,
        rows: None,
        duration_ms: None,
        recovered: false,
        note: None,
    }
}

fn without_items(key: &str) -> String {
    let mut depth = 0usize;
    let kept = key.chars().filter(|c| {
        let before = depth;
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        before == 0 && depth == 0
    });
    kept.collect()
}

/// What a step does, in a few words.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Tool(call) => format!("tool {}", call.tool),
        Action::Script { script, .. } => format!("script {script}"),
        Action::Sql { sql, .. } => format!("sql {sql}"),
        Action::Workflow(embedded) => format!("workflow {}", embedded.workflow),
        Action::Approval(_) => "approval".to_owned(),
        Action::Wait(Wait::Timer { .. }) => "wait for a time".to_owned(),
        Action::Wait(Wait::Condition { call, .. }) => format!("wait on {}", call.tool),
        Action::Wait(Wait::Event { event, .. }) => format!("wait for event {event}"),
        Action::Verify(verify) => format!("verify with {}", verify.call.tool),
    }
}

/// Date and time to the second, UTC.
pub(super) fn clock(at: Timestamp) -> String {
    at.to_datetime().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_cut_out_of_keys() {
        assert_eq!(without_items("a[x/y]/b[z[1]]"), "a/b");
        assert_eq!(without_items("plain"), "plain");
        assert_eq!(without_items("odd]"), "odd]");
    }
}
