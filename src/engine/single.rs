//! A change that belongs to no step: it makes, or removes, a place where others are tried.

use std::time::Duration;

use super::apply::{Applied, ApplyContext, ChangeKey, NoNotes};
use super::parts::Parts;
use crate::kernel::{Change, ChangeSet, Direction, Failure, Inverse, RunId, Target};
use crate::postgres::PgEndpoint;

/// How long one may take.
const WITHIN: Duration = Duration::from_mins(5);

/// In whose name such changes are carried out, and where.
pub struct Single<'a> {
    /// What carries them out.
    pub parts: &'a Parts,
    /// The connection.
    pub connection: &'a str,
    /// The target whose settings hold.
    pub target: &'a Target,
    /// What stands for a run in their keys.
    pub run: &'a RunId,
    /// What stands for a step in their keys.
    pub step: &'a str,
}

impl Single<'_> {
    /// Carries a change out, or undoes it, as far as that needs anything. What acts on a database does so at
    /// `endpoint`, or else at that of the target.
    pub async fn carry(
        &self,
        change: &Change,
        direction: Direction,
        endpoint: Option<&PgEndpoint>,
    ) -> Result<Applied, Failure> {
        let (operation, recovery) = match (direction, &change.inverse) {
            (Direction::Do, _) => (&change.operation, change.recovery),
            (Direction::Undo, Inverse::By { operation, recovery }) => (operation, *recovery),
            (Direction::Undo, Inverse::Unneeded | Inverse::Impossible { .. }) => {
                return Ok(Applied::Moot);
            }
        };
        let key = ChangeKey {
            run: self.run.clone(),
            step: self.step.to_owned(),
            set: ChangeSet::new(vec![change.clone()]).digest,
            index: 0,
            direction,
        };
        let parts = self.parts;
        let workspace = parts.endpoints.workspace(self.connection);
        let endpoint = match endpoint {
            None if operation.is_on_database() => {
                Some(parts.endpoints.endpoint(self.connection, self.target, true).await?)
            }
            given => given.cloned(),
        };
        let settings = parts.settings.settings(self.target);
        let cx = ApplyContext {
            key: &key,
            change,
            operation,
            recovery,
            endpoint: endpoint.as_ref(),
            throw_away: false,
            expected: None,
            settings: &settings,
            step_timeout: WITHIN,
            secrets: &*parts.secrets,
            clock: &*parts.clock,
            kill: &*parts.kill,
            workspace: workspace.as_deref(),
            history: parts.history.as_deref(),
            notes: &NoNotes,
            sessions: None,
            witness: None,
            progress: &|_| {},
        };
        parts.appliers.of(operation).apply(&cx).await
    }
}
