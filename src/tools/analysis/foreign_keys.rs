//! Foreign keys that no index serves.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::index::IndexRow;
use crate::kernel::QualifiedName;

/// A foreign key as `shared/foreign_keys` returns it.
#[derive(Clone, Debug, Deserialize)]
pub struct ForeignKey {
    /// The constraint.
    pub constraint_name: String,
    /// The schema of the referencing table.
    pub schema_name: String,
    /// The referencing table in it.
    pub relation_name: String,
    /// The referencing table, quoted where it must be.
    pub table_name: String,
    /// Whether that table is partitioned.
    pub is_partitioned: bool,
    /// The table that is referred to.
    pub referenced_name: String,
    /// The columns, quoted where they must be.
    pub columns: Vec<String>,
    /// Their collations.
    pub collations: Vec<i64>,
    /// The tables that hold the rows: the partitions, or the table itself.
    pub leaves: Option<Vec<i64>>,
    /// The table's OID.
    pub table_oid: i64,
    /// Rows of the referencing table.
    pub rows: Option<f64>,
    /// Bytes of the referencing table.
    pub size_bytes: Option<u64>,
    /// Updates and deletes of the table that is referred to, since the counters began.
    pub parent_changes: i64,
    /// Whether the server enforces it.
    pub enforced: bool,
    /// Whether a delete or an update of the parent changes rows here.
    pub cascades: bool,
}

impl ForeignKey {
    /// The referencing table as it enters a statement.
    pub fn table(&self) -> QualifiedName {
        QualifiedName::new(&self.schema_name, &self.relation_name)
    }

    /// Whether an index finds the rows of one parent: one on the table, or one on every partition.
    pub fn is_served(&self, indexes: &[IndexRow]) -> bool {
        let has = |oid: i64| {
            indexes.iter().any(|index| index.table_oid == oid && self.is_served_by(index))
        };
        let leaves = self.leaves.as_deref().unwrap_or_default();
        has(self.table_oid) || (!leaves.is_empty() && leaves.iter().all(|leaf| has(*leaf)))
    }

    /// The foreign key's columns are the index's first ones, in any order, and no row is left out.
    fn is_served_by(&self, index: &IndexRow) -> bool {
        let count = self.columns.len();
        let method = index.method == "btree" || (index.method == "hash" && count == 1);
        if !index.is_usable() || !method || index.keys.len() < count {
            return false;
        }
        let key = |at: usize| {
            let is_column = index.columns.get(at).is_some_and(|number| *number != 0);
            Some((index.keys.get(at)?.as_str(), *index.collations.get(at)?)).filter(|_| is_column)
        };
        let first: Option<BTreeSet<_>> = (0..count).map(key).collect();
        let wanted: BTreeSet<_> =
            self.columns.iter().map(String::as_str).zip(self.collations.iter().copied()).collect();
        first == Some(wanted) && self.allows(index)
    }

    /// Rows without a parent need not be in the index.
    fn allows(&self, index: &IndexRow) -> bool {
        match (&index.predicate, self.columns.as_slice()) {
            (None, _) => !index.is_partial,
            (Some(predicate), [column]) => *predicate == format!("({column} IS NOT NULL)"),
            (Some(_), _) => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::super::index::tests::on;
    use super::*;

    fn key(columns: &[&str], extra: &Value) -> ForeignKey {
        let mut row = json!({
            "constraint_name": "fk", "schema_name": "public", "relation_name": "t",
            "table_name": "public.t", "is_partitioned": false, "referenced_name": "public.p",
            "columns": columns, "collations": vec![0; columns.len()], "leaves": [1],
            "table_oid": 1, "rows": 1000.0, "size_bytes": 8192, "parent_changes": 0,
            "enforced": true, "cascades": false,
        });
        for (name, value) in extra.as_object().unwrap() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    fn served(columns: &[&str], index: IndexRow) -> bool {
        key(columns, &json!({})).is_served(&[index])
    }

    #[test]
    fn the_first_keys_in_any_order() {
        let plain = |keys: &[&str]| on("i", keys, &json!({}));
        assert!(served(&["a"], plain(&["a"])));
        assert!(served(&["a", "b"], plain(&["b", "a", "c"])));
        assert!(!served(&["a", "b"], plain(&["c", "a", "b"])));
        assert!(!served(&["a", "b"], plain(&["a"])));
        assert!(!served(&["b"], plain(&["a", "b"])));
    }

    #[test]
    fn all_rows_with_a_parent_must_be_in_it() {
        let partial =
            |predicate: &str| on("i", &["a"], &json!({"is_partial": true, "predicate": predicate}));
        assert!(served(&["a"], partial("(a IS NOT NULL)")));
        assert!(!served(&["a"], partial("(a > 0)")));
        assert!(!served(&["a"], partial("(b IS NOT NULL)")));
    }

    #[test]
    fn only_what_equality_can_use() {
        let with = |extra: Value| on("i", &["a"], &extra);
        assert!(served(&["a"], with(json!({"method": "hash"}))));
        assert!(!served(&["a"], with(json!({"method": "gin"}))));
        assert!(!served(&["a"], with(json!({"is_valid": false}))));
        assert!(!served(&["a"], with(json!({"columns": [0]}))), "an expression");
        assert!(!served(&["a"], with(json!({"collations": [950]}))), "another collation");
    }

    #[test]
    fn every_partition_may_have_its_own() {
        let parts = key(&["a"], &json!({"table_oid": 9, "leaves": [1, 2]}));
        let of = |table: i64| on("i", &["a"], &json!({"table_oid": table}));
        assert!(parts.is_served(&[of(1), of(2)]));
        assert!(!parts.is_served(&[of(1)]));
        assert!(parts.is_served(&[of(9)]));
    }
}
