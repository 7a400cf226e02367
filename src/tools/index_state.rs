//! What the index tools look at before they judge.

use crate::kernel::{Failure, SqlFile};
use crate::sql_file;

use super::analysis::index::IndexRow;
use super::analysis::missing::NotMeasured;
use super::analysis::recommendation::{Kind, Recommendation};
use super::context::ReadContext;

/// All indexes.
pub(super) static INDEXES: SqlFile = sql_file!("shared/indexes");
/// All foreign keys.
pub(super) static FOREIGN_KEYS: SqlFile = sql_file!("shared/foreign_keys");

/// Looks at all indexes outside the system schemas.
pub(super) async fn look(cx: &ReadContext<'_>) -> Result<Vec<IndexRow>, Failure> {
    Ok(cx.pg.rows(&INDEXES, &[]).await?)
}

/// Tables that someone had for himself alone: nothing is said about their indexes.
pub(super) fn locked_tables(indexes: &[IndexRow]) -> Vec<NotMeasured> {
    let mut tables: Vec<&str> = indexes
        .iter()
        .filter(|index| index.locked)
        .map(|index| index.table_name.as_str())
        .collect();
    tables.dedup();
    let missing =
        |table| NotMeasured::new(format!("indexes of {table}"), "someone holds it exclusively");
    tables.into_iter().map(missing).collect()
}

/// Whether what was advised about an index is so now.
pub(super) fn has_effect(indexes: &[IndexRow], advice: &Recommendation) -> bool {
    let named = |index: &&IndexRow| {
        index.schema_name == advice.schema && index.relation_name == advice.index
    };
    let there = indexes.iter().find(named);
    match advice.kind {
        Kind::DropDuplicate | Kind::DropRedundant | Kind::DropUnused | Kind::DropInvalid => {
            there.is_none()
        }
        Kind::CreateFkIndex | Kind::CreateMissing => indexes.iter().any(|index| {
            index.is_usable()
                && index.schema_name == advice.schema
                && index.table_relation == advice.table
                && index.keys.starts_with(&advice.columns)
        }),
        // It is there and no longer bloated, or the advice would stand again.
        Kind::ReindexBloated => there.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::analysis::index::tests::index;
    use super::super::analysis::recommendation::tests::advice;
    use super::*;

    #[test]
    fn effects_are_seen() {
        let here = [index(&json!({"size_bytes": 100}))];
        assert!(!has_effect(&here, &advice("f")));
        assert!(has_effect(&[], &advice("f")));
        let of = |kind, bytes| Recommendation { kind, bytes, ..advice("f") };
        assert!(has_effect(&here, &of(Kind::CreateFkIndex, 0)));
        assert!(has_effect(&here, &of(Kind::ReindexBloated, 200)));
        assert!(!has_effect(&[], &of(Kind::ReindexBloated, 200)));
    }

    #[test]
    fn a_locked_table_is_named_once() {
        let rows = [index(&json!({"locked": true})), index(&json!({"locked": true}))];
        assert_eq!(locked_tables(&rows).len(), 1);
    }
}
