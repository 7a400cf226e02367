//! One step of a rehearsal: its set on a branch, with all that can be seen of it.

use serde_json::{Value, json};

use super::Stage;
use super::stage::Place;
use crate::engine::carrying::{Carried, Carry};
use crate::engine::recorder::Gone;
use crate::engine::state::{ChangeState, Work};
use crate::engine::task::Task;
use crate::journal::rehearsal::{Rehearsed, Trial, TrialEnd, own_digest};
use crate::journal::store::Durability;
use crate::kernel::change::Origin;
use crate::kernel::{Failure, Settlement};
use crate::postgres::{PgError, PgReader};
use crate::schema::{Snapshot, capture, compare};

impl Task {
    /// Tries a step's changes on a throw-away branch, and keeps what that showed. What is no change of a
    /// database is left alone, and said to be.
    pub(in crate::engine) async fn rehearse(&self, stage: &Stage, work: &Work) -> Result<(), Gone> {
        let (mut carry, rehearsed) = match self.tried(stage, work).await? {
            Ok(tried) => tried,
            Err(failure) => {
                let events = vec![self.started(), self.failed(failure)];
                return self.record(events, Durability::Synced).await;
            }
        };
        let mut events = carry.take_pending();
        let failure = rehearsed.failure.clone();
        let kept = stage.keep(&self.key, rehearsed).await;
        events.push(match (failure, kept) {
            (Some(failure), _) | (None, Err(failure)) => self.failed(failure),
            (None, Ok(())) => self.report(&carry),
        });
        self.record(events, Durability::Synced).await
    }

    async fn tried(
        &self,
        stage: &Stage,
        work: &Work,
    ) -> Result<Result<(Carry<'_>, Rehearsed), Failure>, Gone> {
        let is_own = |change: &&crate::kernel::Change| change.origin == Origin::Tool;
        let mut rehearsed = Rehearsed {
            set: own_digest(&work.set),
            branch: None,
            changes: work.set.changes.iter().filter(is_own).map(Trial::of).collect(),
            schema: Value::Null,
            schema_unknown: None,
            failure: None,
        };
        let on_database = work.set.changes.iter().any(|change| change.operation.is_on_database());
        if !on_database {
            return Ok(Ok((Carry::staged(self, work, None), rehearsed)));
        }
        let place = match stage.enter(&self.target, self.step.wake).await {
            Ok(place) => place,
            Err(failure) => return Ok(Err(failure)),
        };
        let before = self.structure(&place).await;
        let mut carry = Carry::staged(self, work, Some(place.endpoint.clone()));
        match carry.all(false).await? {
            Carried::Done => {}
            Carried::Failed(failure) => rehearsed.failure = Some(failure),
            Carried::Stopped => {
                let text = "the rehearsal was stopped before the changes were all tried";
                rehearsed.failure = Some(Failure::permanent("rehearsal::stopped", text));
            }
            Carried::Doubt => {
                let text = "nobody can tell whether a change happened on the branch";
                rehearsed.failure = Some(Failure::permanent("rehearsal::doubt", text));
            }
        }
        let after = self.structure(&place).await;
        match (before, after) {
            (Ok(before), Ok(after)) => {
                rehearsed.schema = json!(compare(&before, &after).differences);
            }
            (Err(error), _) | (_, Err(error)) => rehearsed.schema_unknown = Some(error.to_string()),
        }
        rehearsed.branch = Some(place.id);
        note_trials(&carry, &mut rehearsed);
        Ok(Ok((carry, rehearsed)))
    }

    async fn structure(&self, place: &Place<'_>) -> Result<Snapshot, PgError> {
        let endpoint = place.endpoint.clone();
        capture(PgReader::new(endpoint, &self.settings.limits, "lakeops:look"), &[]).await
    }
}

fn note_trials(carry: &Carry<'_>, rehearsed: &mut Rehearsed) {
    let own = carry.states().filter(|(_, change, _)| change.origin == Origin::Tool);
    let mut failed_before = false;
    for ((index, change, state), trial) in own.zip(&mut rehearsed.changes) {
        if !change.operation.is_on_database() {
            continue;
        }
        trial.locks = carry.locks_of(index);
        match state {
            ChangeState::Settled(Settlement::Applied { receipt }) => {
                trial.ended = TrialEnd::Applied;
                trial.receipt = Some(receipt.clone());
            }
            ChangeState::Settled(Settlement::Moot) => trial.ended = TrialEnd::Moot,
            // The first that is not settled is the one that failed.
            _ if !failed_before && rehearsed.failure.is_some() => {
                trial.ended = TrialEnd::Failed;
                failed_before = true;
            }
            _ => {}
        }
    }
}
