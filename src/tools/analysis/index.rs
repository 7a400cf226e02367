//! Indexes as they stand in the catalog, and what forbids dropping one.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::kernel::QualifiedName;

/// An index as `shared/indexes` returns it.
#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each column of the query")]
pub struct IndexRow {
    /// Its OID.
    pub oid: i64,
    /// The table's OID.
    pub table_oid: i64,
    /// The schema of both.
    pub schema_name: String,
    /// Its name in the schema.
    pub relation_name: String,
    /// `schema.name`, quoted where it must be.
    pub index_name: String,
    /// The table's name in the schema.
    pub table_relation: String,
    /// The table, quoted where it must be.
    pub table_name: String,
    /// The access method.
    pub method: String,
    /// The statement that makes it.
    pub definition: String,
    /// Whether it is unique.
    pub is_unique: bool,
    /// Whether it is the primary key's.
    pub is_primary: bool,
    /// Whether it is an exclusion constraint's.
    pub is_exclusion: bool,
    /// Whether uniqueness is checked at once, not at commit.
    pub is_immediate: bool,
    /// Whether queries may use it.
    pub is_valid: bool,
    /// Whether writes keep it.
    pub is_ready: bool,
    /// Whether logical replication finds rows by it.
    pub is_replica_identity: bool,
    /// Whether CLUSTER goes by it.
    pub is_clustered: bool,
    /// Whether it is the index of a partitioned table: it has no pages itself.
    pub is_partitioned: bool,
    /// The index that it is attached to.
    pub parent_oid: Option<i64>,
    /// Whether nulls count as equal.
    pub nulls_equal: bool,
    /// Each key: the column, or the expression.
    pub keys: Vec<String>,
    /// Each key's column number; 0 for an expression.
    pub columns: Vec<i64>,
    /// Each key's operator class.
    pub classes: Vec<i64>,
    /// Each key's collation.
    pub collations: Vec<i64>,
    /// Each key's direction and place of nulls.
    pub options: Vec<i64>,
    /// Columns that are only carried along.
    pub included: Vec<String>,
    /// Its condition.
    pub predicate: Option<String>,
    /// Whether it has a condition.
    pub is_partial: bool,
    /// The constraints that stand on it.
    pub constraints: Vec<String>,
    /// How many foreign keys need its uniqueness.
    pub references_to: i32,
    /// Whether someone has its table for himself alone.
    pub locked: bool,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its entries at the last VACUUM or ANALYZE.
    pub reltuples: f64,
    /// Its storage parameters, `name=value`.
    pub storage: Vec<String>,
    /// The table's rows at the last VACUUM or ANALYZE.
    pub table_rows: f64,
    /// How often it was used since the counters began; `None` when the server does not count it.
    pub scans: Option<i64>,
    /// How long ago it was used.
    pub scanned_seconds: Option<f64>,
    /// Whether it is being built.
    pub building: bool,
}

/// What an index is needed for besides being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// A primary key, a unique or an exclusion constraint stands on it.
    Constraint,
    /// A foreign key of another table needs it.
    Referenced,
    /// Logical replication finds rows by it.
    ReplicaIdentity,
    /// CLUSTER goes by it.
    Clustering,
    /// It belongs to the index of a partitioned table.
    Partition,
}

impl IndexRow {
    /// Its name as it enters a statement.
    pub fn qualified(&self) -> QualifiedName {
        QualifiedName::new(&self.schema_name, &self.relation_name)
    }

    /// What forbids dropping it on its own.
    pub fn duty(&self) -> Option<Duty> {
        let duties = [
            (
                self.is_primary || self.is_exclusion || !self.constraints.is_empty(),
                Duty::Constraint,
            ),
            (self.references_to > 0, Duty::Referenced),
            (self.is_replica_identity, Duty::ReplicaIdentity),
            (self.is_clustered, Duty::Clustering),
            (self.parent_oid.is_some(), Duty::Partition),
        ];
        duties.into_iter().find_map(|(holds, duty)| holds.then_some(duty))
    }

    /// Whether queries can use it now and its make-up is known.
    pub fn is_usable(&self) -> bool {
        self.is_valid && self.is_ready && !self.locked
    }

    /// One key with all that makes two keys the same.
    pub fn key(&self, at: usize) -> Option<(&str, i64, i64, i64)> {
        let number = |list: &[i64]| list.get(at).copied();
        Some((
            self.keys.get(at)?.as_str(),
            number(&self.classes)?,
            number(&self.collations)?,
            number(&self.options)?,
        ))
    }

    /// All keys.
    pub fn key_list(&self) -> Vec<(&str, i64, i64, i64)> {
        (0..self.keys.len()).filter_map(|at| self.key(at)).collect()
    }

    /// Everything that can be read from it, keys and carried columns.
    pub fn attributes(&self) -> BTreeSet<&str> {
        self.keys.iter().chain(&self.included).map(String::as_str).collect()
    }

    /// The value of a storage parameter.
    pub fn storage_parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.storage.iter().filter_map(|option| option.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The statement that drops it. The index of a partitioned table cannot go concurrently.
    pub fn drop_statement(&self) -> String {
        let concurrently = if self.is_partitioned { "" } else { "concurrently " };
        format!("drop index {concurrently}{}", self.qualified())
    }

    /// The statement that makes it again without blocking writers.
    pub fn create_statement(&self) -> String {
        let create = self.definition.replacen("CREATE UNIQUE INDEX ", "create unique index ", 1);
        let create = create.replacen("CREATE INDEX ", "create index ", 1);
        if self.is_partitioned {
            // `ON ONLY` would leave the partitions without.
            return create.replacen(" ON ONLY ", " ON ", 1);
        }
        create.replacen(" index ", " index concurrently ", 1)
    }
}

/// A name for a new index: of at most 63 bytes, and none of the names that are taken.
pub fn free_name<'a>(table: &str, keys: &[String], taken: impl Fn(&str) -> bool + 'a) -> String {
    let plain = |text: &str| -> String {
        let keep = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '_' };
        text.trim_matches('"').chars().map(keep).collect()
    };
    let parts: Vec<String> = keys.iter().map(|key| plain(key)).collect();
    let stem = format!("{}_{}", plain(table), parts.join("_"));
    let cut = |room: usize| {
        let mut end = stem.len().min(room);
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        stem.get(..end).unwrap_or_default().to_owned()
    };
    let first = format!("{}_idx", cut(59));
    let numbered = (1..1000).map(|number| format!("{}_idx{number}", cut(55)));
    let mut names = std::iter::once(first.clone()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or(first)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A plain index `t_a_idx` on `public.t (a)`, changed as `extra` says.
    pub(crate) fn index(extra: &Value) -> IndexRow {
        let mut row = json!({
            "oid": 100, "table_oid": 1, "schema_name": "public", "relation_name": "t_a_idx",
            "index_name": "public.t_a_idx", "table_relation": "t", "table_name": "public.t",
            "method": "btree",
            "definition": "CREATE INDEX t_a_idx ON public.t USING btree (a)",
            "is_unique": false, "is_primary": false, "is_exclusion": false, "is_immediate": true,
            "is_valid": true, "is_ready": true, "is_replica_identity": false,
            "is_clustered": false, "is_partitioned": false, "parent_oid": null,
            "nulls_equal": false, "keys": ["a"], "columns": [1], "classes": [1978],
            "collations": [0], "options": [0], "included": [], "predicate": null,
            "is_partial": false, "constraints": [], "references_to": 0, "locked": false,
            "size_bytes": 10_000_000, "reltuples": 100_000.0, "storage": [],
            "table_rows": 100_000.0, "scans": 0, "scanned_seconds": null, "building": false,
        });
        for (name, value) in extra.as_object().unwrap() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    /// An index of a name on some plain columns.
    pub(crate) fn on(name: &str, keys: &[&str], extra: &Value) -> IndexRow {
        let mut row = extra.clone();
        let count = keys.len();
        let digits: i64 = name.bytes().map(i64::from).sum();
        for (field, value) in [
            ("oid", json!(digits)),
            ("relation_name", json!(name)),
            ("index_name", json!(format!("public.{name}"))),
            ("keys", json!(keys)),
            ("columns", json!(vec![1; count])),
            ("classes", json!(vec![1978; count])),
            ("collations", json!(vec![0; count])),
            ("options", json!(vec![0; count])),
        ] {
            if row.get(field).is_none() {
                row[field] = value;
            }
        }
        index(&row)
    }

    #[test]
    fn statements_never_block_writers_where_that_is_possible() {
        let plain = index(&json!({}));
        assert_eq!(plain.drop_statement(), "drop index concurrently \"public\".\"t_a_idx\"");
        assert_eq!(
            plain.create_statement(),
            "create index concurrently t_a_idx ON public.t USING btree (a)"
        );
        let of_parts = index(&json!({
            "is_partitioned": true,
            "definition": "CREATE UNIQUE INDEX i ON ONLY public.t USING btree (a)",
        }));
        assert_eq!(of_parts.drop_statement(), "drop index \"public\".\"t_a_idx\"");
        assert_eq!(
            of_parts.create_statement(),
            "create unique index i ON public.t USING btree (a)"
        );
    }

    #[test]
    fn every_duty_is_seen() {
        for (extra, duty) in [
            (json!({"is_primary": true}), Duty::Constraint),
            (json!({"constraints": ["u"]}), Duty::Constraint),
            (json!({"references_to": 1}), Duty::Referenced),
            (json!({"is_replica_identity": true}), Duty::ReplicaIdentity),
            (json!({"is_clustered": true}), Duty::Clustering),
            (json!({"parent_oid": 7}), Duty::Partition),
        ] {
            assert_eq!(index(&extra).duty(), Some(duty));
        }
        assert_eq!(index(&json!({})).duty(), None);
    }

    #[test]
    fn names_fit_and_are_free() {
        let keys = ["\"A b\"".to_owned(), "c".to_owned()];
        assert_eq!(free_name("t", &keys, |_| false), "t_A_b_c_idx");
        assert_eq!(free_name("t", &keys, |name| name == "t_A_b_c_idx"), "t_A_b_c_idx1");
        let long = "ä".repeat(60);
        assert!(free_name(&long, &keys, |_| false).len() <= 63);
    }
}
