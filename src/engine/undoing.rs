//! Whose changes are undone, and in which order. PURE.

use super::graph::MAIN;
use super::state::{InstanceId, NodeId, Phase, RunState, Work};
use crate::journal::event::{Compensation, StepKey};
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

pub(super) fn compensation(state: &RunState, undone: &[NodeId]) -> Compensation {
    let partial = undone.iter().any(|&id| {
        let node = &state.nodes[id];
        node.undo.as_ref().is_some_and(|undo| !undo.impossible.is_empty())
    });
    match (undone.is_empty(), partial) {
        (true, _) => Compensation::None,
        (false, true) => Compensation::Partial,
        (false, false) => Compensation::Complete,
    }
}
