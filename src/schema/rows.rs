//! The rows that the catalogue queries return. PURE.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::object::{Grant, Numbers, ViewColumn};

#[derive(Deserialize)]
pub(super) struct NamespaceRow {
    pub(super) oid: i64,
    pub(super) name: String,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

#[derive(Deserialize)]
pub(super) struct ExtensionRow {
    pub(super) oid: i64,
    pub(super) name: String,
    pub(super) schema: String,
    pub(super) version: String,
}

#[derive(Deserialize)]
pub(super) struct TypeRow {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) relation: i64,
    pub(super) labels: Vec<String>,
    pub(super) base: Option<String>,
    pub(super) collation: Option<String>,
    pub(super) not_null: bool,
    pub(super) default_value: Option<String>,
    pub(super) checks: BTreeMap<String, String>,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

#[derive(Deserialize)]
pub(super) struct SequenceRow {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) of_type: String,
    #[serde(flatten)]
    pub(super) numbers: Numbers,
    pub(super) unlogged: bool,
    pub(super) owner_table: Option<i64>,
    pub(super) owner_part: Option<i64>,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

#[derive(Deserialize)]
pub(super) struct TableRow {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) unlogged: bool,
    pub(super) partition_key: Option<String>,
    pub(super) partition_of: Option<i64>,
    pub(super) bound: Option<String>,
    pub(super) inherits: Vec<i64>,
    pub(super) options: BTreeSet<String>,
    pub(super) row_security: bool,
    pub(super) forced_row_security: bool,
    pub(super) replica_identity: String,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

#[derive(Deserialize)]
pub(super) struct ColumnRow {
    pub(super) relation: i64,
    pub(super) part: i64,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) of_type: String,
    pub(super) collation: Option<String>,
    pub(super) not_null: bool,
    pub(super) identity: String,
    pub(super) sequence: Option<Numbers>,
    pub(super) generated: String,
    pub(super) expression: Option<String>,
    pub(super) default_oid: Option<i64>,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

/// A constraint, index, trigger, rule, policy or statistics: what stands on a relation.
#[derive(Deserialize)]
pub(super) struct PartRow<B> {
    pub(super) oid: i64,
    pub(super) relation: i64,
    pub(super) name: String,
    /// The schema of statistics, which can be another than the table's.
    pub(super) schema: Option<String>,
    /// The index that a constraint stands on.
    pub(super) index: Option<i64>,
    #[serde(flatten)]
    pub(super) body: B,
    pub(super) comment: Option<String>,
}

/// The server's own text of an object.
#[derive(Deserialize)]
pub(super) struct TextBody {
    pub(super) definition: String,
}

#[derive(Deserialize)]
pub(super) struct ViewRow {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) materialized: bool,
    pub(super) definition: String,
    pub(super) columns: Vec<ViewColumn>,
    pub(super) options: BTreeSet<String>,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

#[derive(Deserialize)]
pub(super) struct RoutineRow {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) arguments: String,
    #[serde(flatten)]
    pub(super) body: super::object::Routine,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
}

#[derive(Deserialize)]
pub(super) struct DependencyRow {
    pub(super) class: String,
    pub(super) object: i64,
    pub(super) part: i64,
    pub(super) needs_class: String,
    pub(super) needs: i64,
    pub(super) needs_part: i64,
}
