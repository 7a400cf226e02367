//! What the engine keeps on a target: one schema, one table of keys.

use crate::kernel::change::Origin;
use crate::kernel::{Change, Inverse, Operation, SqlFile};
use crate::postgres::{PgError, PgReader};
use crate::sql_file;

pub(super) const CREATE_SCHEMA: SqlFile = sql_file!("engine/create_lakeops_schema");
pub(super) const CREATE_TABLE: SqlFile = sql_file!("engine/create_applied_change");
pub(super) const READY: SqlFile = sql_file!("engine/applied_change_ready");
pub(super) const APPLIED_CHANGE_INSERT: SqlFile = sql_file!("engine/applied_change_insert");

/// The changes that make the table of keys: shown with the first change set that needs it.
pub fn setup_changes() -> Vec<Change> {
    let change = |object: &str, file: &SqlFile| Change {
        inverse: Inverse::Impossible {
            why: "later runs rely on the keys of earlier ones".to_owned(),
        },
        origin: Origin::Engine,
        ..Change::new(
            object,
            "a change happens exactly once because its key is kept in the same transaction",
            Operation::sql(file.body(), Vec::new()),
        )
    };
    vec![
        change("schema lakeops", &CREATE_SCHEMA),
        change("table lakeops.applied_change", &CREATE_TABLE),
    ]
}

/// Whether a target has the table of keys, and this user may use it.
pub async fn is_set_up(reader: &PgReader) -> Result<bool, PgError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        ready: bool,
    }
    reader.row::<Answer>(&READY, &[]).await.map(|answer| answer.ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_come_without_their_comments() {
        for change in setup_changes() {
            let Operation::Sql { statement, transactional: true } = change.operation else {
                panic!("not a transactional statement");
            };
            assert!(statement.text.starts_with("create "), "{}", statement.text);
        }
    }
}
