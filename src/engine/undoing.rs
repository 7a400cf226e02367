//! Whose changes are undone, and in which order. PURE.

use super::consent::Consent;
use super::decide::{Command, Walk};
use super::state::{InstanceId, NodeId, Phase, RunState, Work};
use crate::journal::event::{Compensation, StepKey};
use crate::kernel::Direction;
use crate::plan::document::{Action, OnVerifyFail};

/// The first failed step of a scope, and the steps whose changes its failed verifications undo.
pub(super) fn collect_failures(
    state: &RunState,
    instance: InstanceId,
    first: &mut Option<NodeId>,
    scope: &mut Vec<StepKey>,
) {
    let nodes = &state.instances[instance].nodes;
    let failed =
        |id: &NodeId| state.nodes[*id].phase == Phase::Failed && !state.def(*id).step.allow_failure;
    for &id in nodes.iter().filter(|id| failed(id)) {
        first.get_or_insert(id);
        let items = state.nodes[id].item_nodes().iter().copied();
        for inner in items.chain([id]).filter_map(|id| state.nodes[id].inner) {
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

/// The steps of a scope with changes to undo, in reverse dependency order; `None`: of all its steps.
pub(super) fn undoable(
    state: &RunState,
    instance: InstanceId,
    scope: Option<&[StepKey]>,
) -> Vec<NodeId> {
    let mut found = Vec::new();
    undoable_in(state, instance, scope, &mut found);
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
        if state.nodes[id].work.as_deref().is_some_and(Work::has_applied) {
            found.push(id);
        }
    };
    for &id in state.instances[instance].nodes.iter().rev() {
        // Once a step is in scope, so is all that it embeds; otherwise only what is named inside it.
        let named = scope.is_none_or(|keys| keys.contains(&state.nodes[id].key));
        let inside = if named { None } else { scope };
        for &item in state.nodes[id].item_nodes().iter().rev() {
            if named || state.nodes[item].inner.is_some() {
                take(item, inside, found);
            }
        }
        if named || state.nodes[id].inner.is_some() {
            take(id, inside, found);
        }
    }
}

/// How far what was to be undone has been undone.
pub(super) fn compensation(state: &RunState) -> Compensation {
    let mut undone = state.nodes.iter().filter_map(|node| node.undo.as_ref()).peekable();
    if undone.peek().is_none() {
        return Compensation::None;
    }
    if undone.all(|undo| undo.done && undo.impossible.is_empty()) {
        Compensation::Complete
    } else {
        Compensation::Partial
    }
}

impl Walk<'_> {
    /// Goes on undoing the first of these steps that is not undone; says whether there is one.
    pub(super) fn undo_next(&mut self, todo: &[NodeId]) -> bool {
        let state = self.state;
        let is_open = |id: NodeId| !state.nodes[id].undo.as_ref().is_some_and(|undo| undo.done);
        let mut open = todo.iter().copied().filter(|&id| is_open(id));
        let Some(id) = open.next() else { return false };
        // A fan-out asks once, for all its items.
        let mut together = vec![id];
        if let Some(fan_out) = state.nodes[id].fan_out {
            together.extend(open.filter(|&other| state.nodes[other].fan_out == Some(fan_out)));
        }
        if !together.iter().any(|id| self.situation.in_flight.contains(id)) {
            self.undo(id, &together);
        }
        true
    }

    fn undo(&mut self, id: NodeId, together: &[NodeId]) {
        let state = self.state;
        let mut asking = Vec::new();
        for &member in together {
            let Some(undo) = &state.nodes[member].undo else {
                self.push(Command::ProposeUndo(member));
                return;
            };
            let consent = self.consent(member, &undo.work, Direction::Undo);
            if undo.work.stale && !matches!(consent, Consent::Waits(_) | Consent::Refused(_)) {
                self.push(Command::ProposeUndo(member));
                return;
            }
            if matches!(consent, Consent::Ask) {
                asking.push(member);
            }
        }
        let node = &state.nodes[id];
        if !asking.is_empty() {
            let (node, direction) = (node.fan_out.unwrap_or(id), Direction::Undo);
            self.push(Command::Request { node, covers: asking, direction });
            return;
        }
        let Some(undo) = &node.undo else { return };
        if undo.work.has_doubt() {
            self.next.doubts.push(node.key.clone());
            return;
        }
        match self.consent(id, &undo.work, Direction::Undo) {
            Consent::Given => self.push(Command::Undo(id)),
            Consent::Waits(place) => self.waits_for(place),
            Consent::Refused(failure) => self.push(Command::LeaveUndone(id, failure)),
            Consent::Ask => {}
        }
    }
}
