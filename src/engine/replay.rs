//! What scripts were given when runs evaluated them, worked out once more from the journal.
//!
//! The journal keeps what a script returned, and not its variables: those follow from the outputs of the steps
//! before it, exactly as they did when the run worked.

use serde_json::Value;

use super::environment::{Place, scope_for};
use super::facade::{Engine, EngineError};
use super::programs::Programs;
use super::state::RunState;
use crate::journal::Entry;
use crate::journal::event::{Event, StepKey};
use crate::kernel::{Failure, RunId, Seen, Timestamp};
use crate::plan::PlanBody;
use crate::plan::document::Action;
use crate::sop::Scope;

/// One evaluation of a script.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The step.
    pub step: StepKey,
    /// When it was.
    pub at: Timestamp,
    /// The script's variables.
    pub given: Scope,
    /// What it returned, or why it failed.
    pub came_to: Result<Value, Failure>,
    /// The values and rules that were recorded with it.
    pub seen: Vec<Seen>,
}

impl Engine {
    /// The evaluations of the script of this path in a run, in order.
    pub async fn evaluations(
        &self,
        run: &RunId,
        script: &str,
    ) -> Result<Vec<Evaluation>, EngineError> {
        let (groundwork, entries) = self.stored(run).await?;
        let (body, programs) = (&groundwork.plan.body, &groundwork.programs);
        Replay { run, body, script, programs }.all(groundwork.unbegun(), &entries)
    }
}

struct Replay<'a> {
    run: &'a RunId,
    body: &'a PlanBody,
    script: &'a str,
    programs: &'a Programs,
}

impl Replay<'_> {
    fn all(&self, mut state: RunState, entries: &[Entry]) -> Result<Vec<Evaluation>, EngineError> {
        let (mut found, mut begun) = (Vec::new(), None);
        for entry in entries {
            if let Event::AttemptStarted { step, .. } = &entry.event
                && let Some(given) = self.given(&state, step)
            {
                begun = Some((step.clone(), given));
            }
            if let Some((step, seen, came_to)) = end(&entry.event)
                && let Some((_, given)) = begun.take_if(|(begun, _)| begun == step)
            {
                let (step, at) = (step.clone(), entry.at);
                found.push(Evaluation { step, at, given, came_to, seen });
            }
            state
                .apply(&entry.event, entry.at, entry.seq)
                .map_err(|source| EngineError::Illegal { run: self.run.clone(), source })?;
        }
        Ok(found)
    }

    /// The variables of a step, when it evaluates the script.
    fn given(&self, state: &RunState, step: &str) -> Option<Scope> {
        let id = state.find(step)?;
        let Action::Script { script, with } = &state.def(id).step.action else { return None };
        if script != self.script {
            return None;
        }
        let place = Place::of(state, id);
        let filled = self.programs.template(with, &|references| {
            scope_for((self.run, self.body, state), place, references, &[])
        });
        // What could not be worked out then was no evaluation either.
        match filled.ok()?.value {
            Value::Object(fields) => Some(fields.into_iter().collect()),
            _ => None,
        }
    }
}

/// How an event ends a try of a step.
fn end(event: &Event) -> Option<(&StepKey, Vec<Seen>, Result<Value, Failure>)> {
    match event {
        Event::StepSucceeded { step, output, seen, .. } => {
            Some((step, seen.clone(), Ok(output.value().into_owned())))
        }
        Event::AttemptFailed { step, failure, .. } => {
            Some((step, Vec::new(), Err(failure.clone())))
        }
        _ => None,
    }
}
