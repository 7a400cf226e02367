//! What the index tools look at before they judge.

use serde::Deserialize as _;
use serde_json::Value;

use crate::kernel::{Bind, Failure, Query, SqlFile};
use crate::sql_file;

use super::analysis::index::IndexRow;
use super::analysis::missing::NotMeasured;
use super::analysis::missing_index::plain;
use super::analysis::recommendation::{Decided, Kind, Recommendation, Status};
use super::context::ReadContext;

/// All indexes.
pub(super) static INDEXES: SqlFile = sql_file!("shared/indexes");
/// All foreign keys.
pub(super) static FOREIGN_KEYS: SqlFile = sql_file!("shared/foreign_keys");

/// Looks at all indexes outside the system schemas.
pub(super) async fn look(cx: &ReadContext<'_>) -> Result<Vec<IndexRow>, Failure> {
    Ok(cx.pg.rows(&INDEXES, &[]).await?)
}

/// What was decided about advice: as the history knows it, and as it is said now.
pub(super) async fn decided(cx: &ReadContext<'_>, rejected: &[String]) -> Result<Decided, Failure> {
    let mut decided = Decided { rejected: rejected.to_vec(), ..Decided::default() };
    let Some(history) = cx.history else { return Ok(decided) };
    let text = "select fingerprint, status from (select fingerprint, status, row_number() over \
         (partition by fingerprint order by recorded_at desc) as nth from index_recommendations \
         where fingerprint is not null and coalesce(project_id, '') = $1 \
         and coalesce(branch_id, '') = $2 and coalesce(database_name, '') = $3) as t \
         where nth = 1 and status in ('approved', 'rejected', 'executed')";
    let part = |part: &Option<String>| Bind::Text(part.clone().unwrap_or_default());
    let target = cx.target;
    let binds = vec![part(&target.project), part(&target.branch), part(&target.database)];
    for row in history.query(&Query::with_binds(text, binds)).await? {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        let status = row.get("status").and_then(|status| Status::deserialize(status).ok());
        if let (Some(fingerprint), Some(status)) = (text("fingerprint"), status) {
            decided.recorded.insert(fingerprint.to_owned(), status);
        }
    }
    Ok(decided)
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
                && index.keys.len() >= advice.columns.len()
                && index.keys.iter().zip(&advice.columns).all(|(key, own)| plain(key) == plain(own))
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
