//! Undoing a step: working out what undoes it, carrying that out, or leaving things as they are.
//!
//! The inverses of changes were shown and approved together with them. What the author puts in their
//! place (`compensate:`) is proposed, judged and approved like any other set.

use serde_json::{Value, json};

use super::carrying::{inverses, stuck};
use super::environment::Place;
use super::executor::{ExecuteError, Executor};
use super::proposing::{Rules, SoFar, Verdict};
use super::recorder::Gone;
use super::retry::retry_at;
use super::state::{NodeId, Work};
use super::task::{Task, unknown_tool};
use crate::journal::event::Event;
use crate::journal::store::Durability::{self, Synced};
use crate::kernel::{ChangeSet, Failure};
use crate::plan::document::{ApprovalMode, ToolCall};

impl Executor {
    pub(super) async fn propose_undo(&mut self, id: NodeId) -> Result<bool, ExecuteError> {
        let node = &self.state.nodes[id];
        let Some(work) = node.work.as_deref().cloned() else { return Ok(false) };
        let target = self.target(id).unwrap_or_default();
        let mut arguments = Value::Null;
        if let Some(call) = &self.state.def(id).step.compensate {
            match self.fill(Place::of(&self.state, id), &call.with, &[]) {
                Ok(filled) => arguments = filled,
                Err(failure) => {
                    let why =
                        format!("the undoing of `{}` cannot be worked out: {failure}", node.key);
                    let stuck = stuck(&self.run, Some(&node.key), why).into();
                    self.record(stuck, Synced).await?;
                    return Ok(true);
                }
            }
        }
        // Undoing is not what `max_changes` bounds.
        let so_far = self.so_far(None);
        let task = self.task(id, (target, arguments));
        self.spawn(id, async move { task.propose_undo(work, &so_far).await });
        Ok(false)
    }

    pub(super) fn undo(&mut self, id: NodeId) -> bool {
        let Some(undo) = self.state.nodes[id].undo.clone() else { return false };
        let target = self.target(id).unwrap_or_default();
        let task = self.task(id, (target, Value::Null));
        self.spawn(id, async move { task.undo(undo.work, undo.failures).await });
        false
    }

    /// The changes of a step stay: who could have allowed their undoing did not.
    pub(super) fn leave_undone(&self, id: NodeId, failure: &Failure) -> Vec<Event> {
        let node = &self.state.nodes[id];
        let set = node.undo.as_ref().map(|undo| &undo.work.set);
        let left = set.map(|set| listed(set, &failure.message)).unwrap_or_default();
        vec![Event::StepCompensated { step: node.key.clone(), left }]
    }
}

/// Changes that are not carried out, each with the reason.
fn listed(set: &ChangeSet, why: &str) -> Vec<String> {
    let line =
        |change: &crate::kernel::Change| format!("{} ({}): {why}", change.object, change.operation);
    set.changes.iter().map(line).collect()
}

impl Task {
    /// Works out what undoes the step's changes: its `compensate`, or their own inverses.
    pub(super) async fn propose_undo(&self, work: Work, so_far: &SoFar) -> Result<(), Gone> {
        let step = self.key.clone();
        let Some(call) = &self.step.compensate else {
            let (set, impossible) = inverses(&work);
            let (policy, ask, server) = (Value::Null, Vec::new(), work.server);
            let proposed =
                Event::CompensationProposed { step, set, impossible, policy, ask, server };
            return self.record(vec![proposed], Durability::Buffered).await;
        };
        let events = match self.propose_replacement(call, so_far).await {
            None => return Ok(()),
            Some(Ok((set, server, verdict))) => {
                let policy = json!(verdict.trace);
                let refused = format!("refused: {}", verdict.refuse.join("; "));
                let (set, impossible, ask) = if verdict.refuse.is_empty() {
                    (set, Vec::new(), verdict.ask)
                } else {
                    // Listed like what cannot be undone at all; the rest goes on.
                    (ChangeSet::new(Vec::new()), listed(&set, &refused), Vec::new())
                };
                vec![Event::CompensationProposed { step, set, impossible, policy, ask, server }]
            }
            Some(Err(failure)) => {
                let why = format!("the undoing of `{step}` cannot be proposed: {failure}");
                stuck(&self.run, Some(&step), why).into()
            }
        };
        self.record(events, Synced).await
    }

    /// Asks the tool that undoes, again while its failures are of a kind that is retried; `None` when it
    /// was told to stop.
    async fn propose_replacement(
        &self,
        call: &ToolCall,
        so_far: &SoFar,
    ) -> Option<Result<(ChangeSet, Value, Verdict), Failure>> {
        let mut tries = 1;
        loop {
            let proposed = self.replacement(call, so_far).await;
            let Err(failure) = proposed else { return Some(proposed) };
            let now = (self.parts.clock.now(), self.parts.ids.draw());
            let Some(again) = retry_at(&self.step.retry, tries, &failure, now) else {
                return Some(Err(failure));
            };
            tries += 1;
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = self.parts.clock.sleep_until(again) => {}
            }
        }
    }

    async fn replacement(
        &self,
        call: &ToolCall,
        so_far: &SoFar,
    ) -> Result<(ChangeSet, Value, Verdict), Failure> {
        let found = self.parts.catalog.find(&call.tool).ok_or_else(|| unknown_tool(&call.tool))?;
        // `required` asks for whatever the step does; `never` was said of its own changes alone.
        let approval = match self.step.approval {
            ApprovalMode::Required => ApprovalMode::Required,
            ApprovalMode::Auto | ApprovalMode::Never => ApprovalMode::Auto,
        };
        let rules = Rules { tool: &call.tool, risk: found.meta().risk, approval };
        let reader = self.proposer().await;
        let proposed = async {
            let (set, server) = self.proposal(&reader, &call.tool, self.arguments.clone()).await?;
            let verdict = self.judge(&set, so_far, &rules).await?;
            Ok((set, server, verdict))
        };
        let proposed = proposed.await;
        self.keep(reader);
        proposed
    }
}
