//! Forks: a new run of a plan that takes over what another run of it had done before some step.
//!
//! What is taken over is outputs, and nothing else: the changes behind them belong to the other run, so
//! that a cancel of the fork does not undo them.

use std::collections::BTreeSet;

use super::facade::{Engine, EngineError, Loaded, StartOptions};
use super::graph::{MAIN, ScopeDef, dependents};
use super::state::{Node, Phase};
use crate::journal::event::{Event, Rows, SkipReason};
use crate::journal::store::{Append, Durability, Expect, JournalError, Stream};
use crate::kernel::RunId;

impl Engine {
    /// Starts a run of the same plan in which every step that does not follow from `from` keeps what it
    /// came to in the other run. It exists together with all that it takes over, or not at all: half a
    /// fork would do again what was done.
    pub async fn fork(
        &self,
        run: &RunId,
        from: &str,
        options: StartOptions,
    ) -> Result<RunId, EngineError> {
        let loaded = self.load(run).await?;
        let taken_over = taken_over(&loaded, (run, from))?;
        let fork = self.parts().ids.run_id();
        let body = &loaded.plan.body;
        let created = Event::RunCreated {
            plan: loaded.plan.id.clone(),
            workflow: body.workflow.clone(),
            target: body.target.clone(),
            key: options.key,
            by: options.by,
            yes: options.yes,
            forked_from: Some(run.clone()),
            cause: loaded.state.cause.clone(),
        };
        let append = Append {
            stream: Stream::Run(fork.clone()),
            expect: Expect::Last(0),
            events: std::iter::once(created).chain(taken_over).collect(),
        };
        match self.parts().journal.append(vec![append], Durability::Synced).await {
            Ok(_) => Ok(fork),
            Err(JournalError::DuplicateKey { run, .. }) => Ok(run),
            Err(error) => Err(error.into()),
        }
    }
}

/// The events of the steps that do not follow from `from`, as far as they can be taken over.
fn taken_over(loaded: &Loaded, (run, from): (&RunId, &str)) -> Result<Vec<Event>, EngineError> {
    let refuse = |why: String, help: String| EngineError::Refused {
        run: run.clone(),
        why,
        help: Some(help),
    };
    let scope = loaded.state.graph.scope(MAIN);
    let Some(first) = scope.index_of(from) else {
        let names: Vec<&str> = scope.nodes.iter().map(|node| node.step.id.as_str()).collect();
        let help = format!("steps of the workflow itself: {}", names.join(", "));
        return Err(refuse(format!("it has no step `{from}` to begin at"), help));
    };
    let again = dependents(scope, first);
    let before = ancestors(scope, first);
    let mut events = Vec::new();
    for (index, &id) in loaded.state.instances[MAIN].nodes.iter().enumerate() {
        let node = &loaded.state.nodes[id];
        if again.contains(&index) {
            continue;
        }
        match ended(node) {
            Some(event) => events.push(event),
            None if before.contains(&index) => {
                let why = format!("`{}` comes before `{from}` and did not succeed", node.key);
                return Err(refuse(why, format!("begin at it: --from {}", node.key)));
            }
            // It runs again, beside the step.
            None => {}
        }
    }
    Ok(events)
}

/// How a step ended, when that can be taken over.
fn ended(node: &Node) -> Option<Event> {
    let step = node.key.clone();
    match &node.phase {
        Phase::Succeeded => Some(Event::StepSucceeded {
            step,
            output: node.output.clone().unwrap_or_default(),
            history: Rows::default(),
            seen: Vec::new(),
            fact: None,
        }),
        Phase::Skipped(reason @ (SkipReason::Condition | SkipReason::NeedsSkipped)) => {
            Some(Event::StepSkipped { step, reason: reason.clone() })
        }
        Phase::Skipped(_)
        | Phase::Pending
        | Phase::Running
        | Phase::Backoff { .. }
        | Phase::InDoubt
        | Phase::Failed => None,
    }
}

/// All that a step depends on.
fn ancestors(scope: &ScopeDef, step: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut todo = vec![step];
    while let Some(next) = todo.pop() {
        todo.extend(scope.nodes[next].needs.iter().copied().filter(|need| found.insert(*need)));
    }
    found
}
