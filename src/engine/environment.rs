//! What expressions see. PURE.

use serde_json::{Map, Value, json};

use super::graph::MAIN;
use super::state::{InstanceId, NodeId, Phase, RunState};
use crate::journal::event::Outcome;
use crate::kernel::{Failure, RunId};
use crate::plan::PlanBody;
use crate::sop::{Reference, Scope};

/// Where an expression stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The scope.
    pub(super) instance: InstanceId,
    /// The step, when it belongs to one.
    pub(super) node: Option<NodeId>,
}

impl Place {
    /// The place of a step.
    pub(super) fn of(state: &RunState, node: NodeId) -> Self {
        Self { instance: state.nodes[node].scope, node: Some(node) }
    }
}

/// What can be seen from a place, restricted to what is referred to.
pub(super) fn scope_for(
    (run, body, state): (&RunId, &PlanBody, &RunState),
    place: Place,
    references: &[Reference],
    extra: &[(&str, Value)],
) -> Scope {
    let mut scope = Scope::new();
    for (name, value) in extra {
        scope.insert((*name).to_owned(), value.clone());
    }
    let instance = &state.instances[place.instance];
    for root in references.iter().map(|reference| reference.root.as_str()) {
        if scope.contains_key(root) {
            continue;
        }
        let value = match root {
            "params" => Value::clone(&instance.params),
            "target" => json!(instance.target),
            "steps" => steps(state, place.instance, references),
            "item" => item(state, place.node).map_or(Value::Null, |(_, value)| value),
            "index" => item(state, place.node).map_or(Value::Null, |(index, _)| json!(index)),
            "run" => run_facts(run, body, state, place.instance),
            "secrets" => secrets(body),
            // A run that no event started has none: like those of a skipped step, its fields read `()`.
            "event" => {
                let event = state.cause.as_ref().and_then(|cause| cause.event());
                event.cloned().unwrap_or_else(|| json!({ "skipped": true }))
            }
            _ => Value::Null,
        };
        scope.insert(root.to_owned(), value);
    }
    scope
}

/// The item that a step belongs to.
fn item(state: &RunState, node: Option<NodeId>) -> Option<(usize, Value)> {
    let node = &state.nodes[node?];
    let (index, fan_out) = (node.item?, &state.nodes[node.fan_out?]);
    let item = fan_out.items.as_ref()?.list.get(index)?;
    Some((index, item.value.clone()))
}

fn run_facts(run: &RunId, body: &PlanBody, state: &RunState, at: InstanceId) -> Value {
    let ending = state.ending.as_ref();
    let mut failure = ending.and_then(|ending| ending.failure.as_ref());
    let mut outcome = ending.map_or(Outcome::Running, |ending| ending.outcome);
    // The handlers of an embedded workflow are told how that ended, of which the run knows nothing yet.
    if let Some(main) = handled(state, at).filter(|main| *main != MAIN)
        && state.instances[main].has_failed()
    {
        outcome = Outcome::Failed;
        failure = first_failure(state, main).or(failure);
    }
    json!({
        "id": run,
        "workflow": body.workflow,
        "created_at": state.created_at,
        "started_by": state.started_by.as_ref().map(|by| by.name.clone()),
        "outcome": outcome,
        "failure": failure.map(|failure| json!({ "code": failure.code, "message": failure.message })),
    })
}

/// The scope whose end a scope handles.
fn handled(state: &RunState, instance: InstanceId) -> Option<InstanceId> {
    state.instances[instance].main
}

fn first_failure(state: &RunState, instance: InstanceId) -> Option<&Failure> {
    let nodes = &state.instances[instance].nodes;
    let mut failed = nodes
        .iter()
        .filter(|&&id| state.nodes[id].phase == Phase::Failed && !state.def(id).step.allow_failure);
    failed.find_map(|&id| state.nodes[id].failure.as_deref())
}

/// References stand for secrets; only appliers put the values in.
fn secrets(body: &PlanBody) -> Value {
    let names = body.secrets.iter();
    Value::Object(names.map(|name| (name.clone(), json!(format!("secret:{name}")))).collect())
}

fn steps(state: &RunState, instance: InstanceId, references: &[Reference]) -> Value {
    let mut named = Map::new();
    let whole = references.iter().any(|known| known.root == "steps" && known.path.is_empty());
    let add = |instance: InstanceId, id: &str, named: &mut Map<String, Value>| {
        let scope = &state.instances[instance];
        if let Some(index) = state.graph.scope(scope.def).index_of(id) {
            named.entry(id).or_insert_with(|| output(state, scope.nodes[index]));
        }
    };
    // Handlers see the steps of the workflow too.
    for instance in [Some(instance), handled(state, instance)].into_iter().flatten() {
        if whole {
            for node in &state.graph.scope(state.instances[instance].def).nodes {
                add(instance, &node.step.id, &mut named);
            }
        } else {
            let steps = references.iter().filter(|known| known.root == "steps");
            for id in steps.filter_map(|reference| reference.path.first()) {
                add(instance, id, &mut named);
            }
        }
    }
    Value::Object(named)
}

/// What `steps.X` reads: the output, or an object that says why there is none.
pub(super) fn output(state: &RunState, id: NodeId) -> Value {
    let node = &state.nodes[id];
    match &node.phase {
        Phase::Succeeded => node.output.clone().unwrap_or_default().into_value(),
        Phase::Failed => {
            let message = node.failure.as_ref().map(|failure| failure.message.clone());
            json!({ "failed": true, "skipped": true, "error": message })
        }
        Phase::Pending
        | Phase::Running
        | Phase::Backoff { .. }
        | Phase::InDoubt
        | Phase::Skipped(_) => json!({ "skipped": true }),
    }
}
