//! Locks of runs and steps: queued first in, first out.

use serde_json::{Value, json};

use super::environment::Place;
use super::executor::{ExecuteError, Executor};
use super::state::{NodeId, StepLock};
use crate::journal::event::{Event, Outcome};
use crate::journal::store::Durability::{Buffered, Synced};
use crate::kernel::Failure;
use crate::plan::document::Action;
use crate::plan::planner::name_target;

impl Executor {
    pub(super) async fn lock_step(&mut self, id: NodeId) -> Result<bool, ExecuteError> {
        match self.step_lock(id) {
            Ok(Value::String(lock)) if !lock.is_empty() => self.lock(&lock, Some(id)).await,
            Ok(_) => {
                let failure = Failure::permanent("engine::invalid_lock", "`lock` is not a text");
                self.record(vec![self.failed(id, failure)], Buffered).await?;
                Ok(true)
            }
            Err(failure) => {
                self.record(vec![self.failed(id, failure)], Buffered).await?;
                Ok(true)
            }
        }
    }

    /// The text of the lock that a step takes next. A target in it is written as a run's own lock has it,
    /// so that both mean the same.
    fn step_lock(&self, id: NodeId) -> Result<Value, Failure> {
        let step = &self.state.def(id).step;
        let place = Place::of(&self.state, id);
        match (self.state.next_lock(id), &step.action) {
            (Some(StepLock::Own), _) => {
                let target = &self.state.instances[place.instance].target;
                let template = step.lock.as_deref().unwrap_or_default();
                self.fill(place, &json!(name_target(template, target)), &[])
            }
            (Some(StepLock::Embedded), Action::Workflow(embedded)) => {
                let (params, target) = self.child_scope(id)?;
                let template = embedded.lock.as_deref().unwrap_or_default();
                let template = json!(name_target(template, &target));
                self.fill(place, &template, &[("params", params), ("target", json!(target))])
            }
            (Some(StepLock::Embedded) | None, _) => Ok(Value::Null),
        }
    }

    /// Queues for a lock, or takes it when the run is at the front of the queue. What the run itself or
    /// an embedding step holds is held.
    pub(super) async fn lock(
        &mut self,
        lock: &str,
        owner: Option<NodeId>,
    ) -> Result<bool, ExecuteError> {
        let step = owner.map(|id| self.state.nodes[id].key.clone());
        let acquired = || Event::LockAcquired { lock: lock.to_owned(), step: step.clone() };
        let Some(known) = self.state.locks.get(lock).cloned() else {
            let queued = Event::LockQueued { lock: lock.to_owned(), step: step.clone() };
            if self.preview {
                self.record(vec![queued, acquired()], Buffered).await?;
            } else {
                self.record(vec![queued], Synced).await?;
            }
            return Ok(true);
        };
        if known.held {
            let reentrant = match (&known.owner, &step) {
                (None, _) => true,
                (Some(holder), Some(step)) => step
                    .strip_prefix(holder.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '['])),
                (Some(_), None) => false,
            };
            if reentrant {
                self.record(vec![acquired()], Buffered).await?;
            }
            return Ok(reentrant);
        }
        if known.owner != step {
            return Ok(false);
        }
        let holder = self.parts.journal.lock_holder(lock).await;
        if holder.map_err(|source| self.journal_error(source))?.as_ref() == Some(&self.run) {
            self.record(vec![acquired()], Synced).await?;
            return Ok(true);
        }
        let wait = self.settings.limits.lock_wait;
        if self.now() < known.since.plus(wait.0) {
            return Ok(false);
        }
        let text = format!("lock `{lock}` was not free within {wait}");
        let failure = Failure::transient("engine::lock_wait", text)
            .with_help("`lakeops runs` shows who works; `limits.lock_wait` sets how long to queue");
        let release = Event::LockReleased { lock: lock.to_owned(), step: step.clone() };
        let end = match owner {
            Some(id) => self.failed(id, failure),
            None => Event::EndingBegan {
                outcome: Outcome::Failed,
                compensate: false,
                scope: None,
                failure: Some(failure),
            },
        };
        self.record(vec![release, end], Synced).await?;
        Ok(true)
    }
}
