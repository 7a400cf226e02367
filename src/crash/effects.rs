//! Single changes that make and remove copies: carried out by the engine's own appliers.

use std::time::Duration;

use super::ground::Tools;
use crate::engine::apply::{Applied, ApplyContext, ChangeKey, NoNotes};
use crate::kernel::{
    Change, ChangeSet, Direction, Failure, Inverse, Operation, Recovery, RunId, SqlStatement,
    Target,
};
use crate::postgres::PgEndpoint;

/// How long one may take.
const WITHIN: Duration = Duration::from_mins(5);

impl Tools {
    /// Carries a change out, or undoes it.
    pub(super) async fn change(
        &self,
        change: &Change,
        direction: Direction,
        endpoint: Option<&PgEndpoint>,
    ) -> Result<(), Failure> {
        let (operation, recovery) = match (direction, &change.inverse) {
            (Direction::Do, _) => (&change.operation, change.recovery),
            (Direction::Undo, Inverse::By { operation, recovery }) => (operation, *recovery),
            (Direction::Undo, Inverse::Unneeded | Inverse::Impossible { .. }) => return Ok(()),
        };
        let parts = &self.parts;
        let key = ChangeKey {
            run: RunId::new(self.stem.as_str()),
            step: "copy".to_owned(),
            set: ChangeSet::new(vec![change.clone()]).digest,
            index: 0,
            direction,
        };
        let workspace = parts.endpoints.workspace(&self.connection);
        let settings = parts.settings.settings(&Target::default());
        let cx = ApplyContext {
            key: &key,
            change,
            operation,
            recovery,
            endpoint,
            throw_away: false,
            expected: None,
            settings: &settings,
            step_timeout: WITHIN,
            secrets: &*parts.secrets,
            clock: &*parts.clock,
            kill: &*parts.kill,
            workspace: workspace.as_deref(),
            history: None,
            notes: &NoNotes,
            witness: None,
            progress: &|_| {},
        };
        match parts.appliers.of(operation).apply(&cx).await? {
            Applied::Done(_) => Ok(()),
            Applied::Moot if direction == Direction::Undo => Ok(()),
            Applied::Moot => {
                let text =
                    format!("{} could not be made: what it needs has changed", change.object);
                Err(Failure::transient("crash::moot", text))
            }
        }
    }

    /// Carries one statement out, outside of a transaction.
    pub(super) async fn statement(
        &self,
        text: impl Into<String>,
        endpoint: &PgEndpoint,
    ) -> Result<(), Failure> {
        let statement = SqlStatement::new(text);
        let operation = Operation::Sql { statement, transactional: false };
        let mut change = Change::new("a copy for a crash test", "the test needs it", operation);
        change.recovery = Recovery::Repeatable;
        self.change(&change, Direction::Do, Some(endpoint)).await
    }

    /// Carries the statements out that were given for all copies.
    pub(super) async fn set_up(&self, endpoint: &PgEndpoint) -> Result<(), Failure> {
        for statement in &self.setup {
            self.statement(statement.as_str(), endpoint).await?;
        }
        Ok(())
    }
}
