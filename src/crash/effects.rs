//! Single changes that make and remove copies: carried out by the engine's own appliers.

use super::ground::Tools;
use crate::engine::Single;
use crate::engine::apply::Applied;
use crate::kernel::{Change, Direction, Failure, Operation, Recovery, RunId, SqlStatement, Target};
use crate::postgres::PgEndpoint;

impl Tools {
    /// Carries a change out, or undoes it.
    pub(super) async fn change(
        &self,
        change: &Change,
        direction: Direction,
        endpoint: Option<&PgEndpoint>,
    ) -> Result<(), Failure> {
        let single = Single {
            parts: &self.parts,
            connection: &self.connection,
            target: &Target::default(),
            run: &RunId::new(self.stem.as_str()),
            step: "copy",
        };
        match single.carry(change, direction, endpoint).await? {
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
