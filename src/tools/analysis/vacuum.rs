//! Which tables need VACUUM, and what would make it useless: autovacuum's own rules, read from the same
//! numbers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bloat::{Bloat, Heap, estimate};
use super::number::rounded;
use crate::kernel::QualifiedName;

/// A table as `shared/vacuum_tables` returns it.
#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each column of the query")]
pub struct TableRow {
    /// Its OID.
    pub oid: i64,
    /// Its schema.
    pub schema_name: String,
    /// Its name in the schema.
    pub relation_name: String,
    /// `schema.name`, quoted where it must be.
    pub table_name: String,
    /// Its owner.
    pub owner: String,
    /// Whether we may vacuum it.
    pub may_vacuum: bool,
    /// Whether we may read it: its column statistics are hidden otherwise.
    pub may_read: bool,
    /// Whether someone has it for himself alone; its size then is that of the last VACUUM.
    pub locked: bool,
    /// Bytes of the heap.
    pub heap_bytes: u64,
    /// Bytes with indexes and TOAST.
    pub total_bytes: u64,
    /// Bytes of a page.
    pub block_size: u32,
    /// Pages at the last VACUUM or ANALYZE.
    pub relpages: u64,
    /// Rows at the last VACUUM or ANALYZE; -1 before the first.
    pub reltuples: f64,
    /// Whether the server has counted its rows since the statistics began.
    pub counted: bool,
    /// Live rows.
    pub live_rows: i64,
    /// Dead rows.
    pub dead_rows: i64,
    /// Rows changed since ANALYZE.
    pub changed_rows: i64,
    /// Rows inserted since VACUUM.
    pub inserted_rows: i64,
    /// Storage parameters, `name=value`.
    pub options: Vec<String>,
    /// Age of its oldest transaction, TOAST included.
    pub xid_age: Option<i64>,
    /// Age of its oldest multixact, TOAST included.
    pub multixact_age: Option<i64>,
    /// How long ago it was vacuumed.
    pub vacuumed_seconds: Option<f64>,
    /// How long ago it was analyzed.
    pub analyzed_seconds: Option<f64>,
    /// Whether it is being vacuumed now.
    pub vacuum_running: bool,
    /// Its columns.
    pub columns: u32,
    /// Those of them that have statistics.
    pub columns_known: u32,
    /// The average bytes of a row's values.
    pub width: Option<f64>,
    /// Whether any value is null.
    pub has_nulls: bool,
    /// Whether a column is of the type `name`, whose statistics mislead.
    pub has_names: bool,
}

impl TableRow {
    /// Its name as it enters a statement.
    pub fn qualified(&self) -> QualifiedName {
        QualifiedName::new(&self.schema_name, &self.relation_name)
    }
}

/// The server's settings as `shared/autovacuum_settings` returns them.
#[derive(Clone, Debug, Deserialize)]
pub struct AutovacuumSettings {
    /// Whether autovacuum is on.
    pub autovacuum: bool,
    /// Whether rows are counted.
    pub track_counts: bool,
    /// Dead rows, the constant part.
    pub threshold: f64,
    /// Dead rows, as a share of the table.
    pub scale_factor: f64,
    /// Dead rows, at most (18 and later).
    pub max_threshold: Option<f64>,
    /// Inserted rows, the constant part; below 0 inserts do not count.
    pub insert_threshold: f64,
    /// Inserted rows, as a share of the table.
    pub insert_scale_factor: f64,
    /// Changed rows, the constant part.
    pub analyze_threshold: f64,
    /// Changed rows, as a share of the table.
    pub analyze_scale_factor: f64,
    /// The age at which a table is frozen by force.
    pub freeze_max_age: i64,
    /// The same for multixacts.
    pub multixact_freeze_max_age: i64,
}

/// What keeps VACUUM from removing dead rows, as `shared/horizon_holders` returns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// `session`, `prepared transaction`, `replication slot` or `standby`; with `elsewhere` behind it, it
    /// writes in another database and holds back what a snapshot here saw while it ran: perhaps.
    pub kind: String,
    /// The process of a session, the identifier of a prepared transaction, the name of a slot.
    pub name: String,
    /// The process, when there is one.
    pub pid: Option<i32>,
    /// How long its transaction is open; absent where that is not known.
    pub held_seconds: Option<f64>,
    /// How many transactions have begun since.
    pub xid_age: i64,
    /// Whether it holds up the system catalogs only.
    pub catalog_only: bool,
    /// The user.
    pub user_name: Option<String>,
    /// The application; the plugin of a slot.
    pub application: Option<String>,
    /// Its state.
    pub state: Option<String>,
}

impl Holder {
    /// Whether it holds dead rows of this database for sure, not only perhaps.
    pub fn is_certain(&self) -> bool {
        !self.kind.ends_with(" elsewhere")
    }

    /// Who it is, for people.
    pub fn label(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

/// Why a table needs VACUUM or ANALYZE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// More dead rows than autovacuum would let stand.
    DeadRows,
    /// So many new rows that pages should be marked all-visible.
    InsertedRows,
    /// So many changed rows that the planner's statistics are stale.
    StaleStatistics,
    /// Transactions so old that they must be frozen.
    TransactionAge,
    /// Multixacts so old that they must be frozen.
    MultixactAge,
}

/// Why a table needs VACUUM or ANALYZE; empty when it needs neither.
pub fn reasons(table: &TableRow, settings: &AutovacuumSettings) -> Vec<Reason> {
    let options = Options::of(table);
    let rows = table.reltuples.max(0.0);
    let limit = |threshold: (&str, f64), scale: (&str, f64)| {
        let base = options.number(threshold.0).unwrap_or(threshold.1);
        base + options.number(scale.0).unwrap_or(scale.1) * rows
    };
    let dead = limit(
        ("autovacuum_vacuum_threshold", settings.threshold),
        ("autovacuum_vacuum_scale_factor", settings.scale_factor),
    );
    let most = options.number("autovacuum_vacuum_max_threshold").or(settings.max_threshold);
    let dead = most.filter(|most| *most >= 0.0).map_or(dead, |most| dead.min(most));
    let insert_base =
        options.number("autovacuum_vacuum_insert_threshold").unwrap_or(settings.insert_threshold);
    let inserted = limit(
        ("autovacuum_vacuum_insert_threshold", settings.insert_threshold),
        ("autovacuum_vacuum_insert_scale_factor", settings.insert_scale_factor),
    );
    let changed = limit(
        ("autovacuum_analyze_threshold", settings.analyze_threshold),
        ("autovacuum_analyze_scale_factor", settings.analyze_scale_factor),
    );
    let age_limit = options.whole("autovacuum_freeze_max_age", settings.freeze_max_age);
    let multixact_limit =
        options.whole("autovacuum_multixact_freeze_max_age", settings.multixact_freeze_max_age);
    let checks = [
        (count(table.dead_rows) > dead, Reason::DeadRows),
        (insert_base >= 0.0 && count(table.inserted_rows) > inserted, Reason::InsertedRows),
        (count(table.changed_rows) > changed, Reason::StaleStatistics),
        (table.xid_age.is_some_and(|age| age > age_limit), Reason::TransactionAge),
        (table.multixact_age.is_some_and(|age| age > multixact_limit), Reason::MultixactAge),
    ];
    checks.into_iter().filter_map(|(due, reason)| due.then_some(reason)).collect()
}

/// Whether autovacuum is switched off for this one table.
pub fn is_switched_off(table: &TableRow) -> bool {
    let options = Options::of(table);
    options.0.get("autovacuum_enabled").is_some_and(|value| matches!(*value, "false" | "off" | "0"))
}

/// Those who make VACUUM of this table useless: they are older than `old_after` and were there already
/// when it was last vacuumed, so what that left is theirs.
pub fn blocked_by<'a>(table: &TableRow, holders: &'a [Holder], old_after: f64) -> Vec<&'a Holder> {
    let blocks = |holder: &&Holder| {
        let old = holder.held_seconds.is_none_or(|held| held >= old_after);
        let there = match (holder.held_seconds, table.vacuumed_seconds) {
            (Some(held), Some(vacuumed)) => held > vacuumed,
            _ => true,
        };
        holder.is_certain() && !holder.catalog_only && old && there
    };
    if table.dead_rows == 0 { Vec::new() } else { holders.iter().filter(blocks).collect() }
}

/// The estimated bloat; `None` when the statistics do not allow an estimate.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub fn bloat(table: &TableRow) -> Option<Bloat> {
    let width = table.width.filter(|_| table.columns_known == table.columns)?;
    if table.reltuples < 0.0 || table.has_names {
        return None;
    }
    // As the planner does: rows per page as they were, on the pages that there are now. Deletes since
    // then are known from the row counter, which can also run ahead.
    let growth = match table.relpages {
        0 => 1.0,
        pages => table.heap_bytes as f64 / f64::from(table.block_size) / pages as f64,
    };
    let rows = table.reltuples * growth;
    let heap = Heap {
        bytes: table.heap_bytes,
        block_size: table.block_size,
        rows: if table.counted { rows.min(count(table.live_rows)) } else { rows },
        width,
        columns: table.columns,
        has_nulls: table.has_nulls,
        fillfactor: fillfactor(table),
    };
    let Bloat { bytes, ratio } = estimate(&heap);
    Some(Bloat { bytes, ratio: rounded(ratio) })
}

/// How full pages of this table are made, in percent.
pub fn fillfactor(table: &TableRow) -> f64 {
    Options::of(table).number("fillfactor").filter(|value| *value >= 10.0).unwrap_or(100.0)
}

#[expect(clippy::cast_precision_loss, reason = "compared with an estimate")]
fn count(rows: i64) -> f64 {
    rows as f64
}

/// The storage parameter of a table, when it is a number.
pub fn option(table: &TableRow, name: &str) -> Option<f64> {
    Options::of(table).number(name)
}

/// Storage parameters by name.
struct Options<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn of(table: &'a TableRow) -> Self {
        Self(table.options.iter().filter_map(|option| option.split_once('=')).collect())
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(|value| value.parse().ok())
    }

    /// A table may come earlier than the server's setting says, never later.
    fn whole(&self, name: &str, setting: i64) -> i64 {
        let own = self.0.get(name).and_then(|value| value.parse().ok());
        own.map_or(setting, |own: i64| own.min(setting))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn table(extra: &Value) -> TableRow {
        let mut row = json!({
            "oid": 1, "schema_name": "public", "relation_name": "t", "table_name": "public.t",
            "owner": "app", "may_vacuum": true,
            "may_read": true, "locked": false, "heap_bytes": 7_069_696, "total_bytes": 8_241_152,
            "block_size": 8192, "relpages": 863, "reltuples": 50_000.0, "counted": true,
            "live_rows": 50_000, "dead_rows": 0, "changed_rows": 0, "inserted_rows": 0,
            "options": [], "xid_age": 10, "multixact_age": 0, "vacuumed_seconds": 3600.0,
            "analyzed_seconds": 3600.0, "vacuum_running": false, "columns": 3, "columns_known": 3,
            "width": 105.0, "has_nulls": true, "has_names": false,
        });
        for (key, value) in extra.as_object().unwrap() {
            row[key] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    pub(crate) fn settings() -> AutovacuumSettings {
        serde_json::from_value(json!({
            "autovacuum": true, "track_counts": true, "threshold": 50.0, "scale_factor": 0.2,
            "max_threshold": null, "insert_threshold": 1000.0, "insert_scale_factor": 0.2,
            "analyze_threshold": 50.0, "analyze_scale_factor": 0.1,
            "freeze_max_age": 200_000_000, "multixact_freeze_max_age": 400_000_000,
        }))
        .unwrap()
    }

    pub(crate) fn holder(held_seconds: Option<f64>) -> Holder {
        Holder {
            kind: "session".into(),
            name: "42".into(),
            pid: Some(42),
            held_seconds,
            xid_age: 100,
            catalog_only: false,
            user_name: Some("app".into()),
            application: Some("web".into()),
            state: Some("idle in transaction".into()),
        }
    }

    #[test]
    fn the_formula_is_autovacuums() {
        let due = |extra: Value| reasons(&table(&extra), &settings());
        assert_eq!(due(json!({"dead_rows": 10_050})), []);
        assert_eq!(due(json!({"dead_rows": 10_051})), [Reason::DeadRows]);
        assert_eq!(due(json!({"inserted_rows": 11_000})), []);
        assert_eq!(due(json!({"inserted_rows": 11_001})), [Reason::InsertedRows]);
        assert_eq!(due(json!({"changed_rows": 5_050})), []);
        assert_eq!(due(json!({"changed_rows": 5_051})), [Reason::StaleStatistics]);
        assert_eq!(due(json!({"xid_age": 200_000_001})), [Reason::TransactionAge]);
        assert_eq!(due(json!({"multixact_age": 400_000_001})), [Reason::MultixactAge]);
        assert_eq!(due(json!({"reltuples": -1.0, "dead_rows": 51})), [Reason::DeadRows]);
    }

    #[test]
    fn storage_parameters_override_the_settings() {
        let due = |options: Value, rows: Value| {
            let mut extra = rows;
            extra["options"] = options;
            reasons(&table(&extra), &settings())
        };
        let eager = json!(["autovacuum_vacuum_scale_factor=0.01", "autovacuum_vacuum_threshold=0"]);
        assert_eq!(due(eager.clone(), json!({"dead_rows": 500})), []);
        assert_eq!(due(eager, json!({"dead_rows": 501})), [Reason::DeadRows]);
        let no_inserts = json!(["autovacuum_vacuum_insert_threshold=-1"]);
        assert_eq!(due(no_inserts, json!({"inserted_rows": 1_000_000})), []);
        let early = json!(["autovacuum_freeze_max_age=100000"]);
        assert_eq!(due(early, json!({"xid_age": 100_001})), [Reason::TransactionAge]);
        let late = json!(["autovacuum_freeze_max_age=2000000000"]);
        assert_eq!(due(late, json!({"xid_age": 200_000_001})), [Reason::TransactionAge]);
    }

    #[test]
    fn from_18_on_there_is_a_most() {
        let capped = AutovacuumSettings { max_threshold: Some(100.0), ..settings() };
        assert_eq!(reasons(&table(&json!({"dead_rows": 101})), &capped), [Reason::DeadRows]);
        let off = AutovacuumSettings { max_threshold: Some(-1.0), ..settings() };
        assert_eq!(reasons(&table(&json!({"dead_rows": 101})), &off), []);
    }

    #[test]
    fn a_holder_blocks_what_it_outlived() {
        let dead = |vacuumed: Value| table(&json!({"dead_rows": 9, "vacuumed_seconds": vacuumed}));
        let holders = [holder(Some(600.0))];
        assert_eq!(blocked_by(&dead(json!(60.0)), &holders, 60.0).len(), 1);
        assert_eq!(blocked_by(&dead(json!(700.0)), &holders, 60.0).len(), 0);
        assert_eq!(blocked_by(&dead(json!(null)), &holders, 60.0).len(), 1);
        assert_eq!(blocked_by(&dead(json!(60.0)), &holders, 601.0).len(), 0);
        assert_eq!(blocked_by(&dead(json!(60.0)), &[holder(None)], 60.0).len(), 1);
        assert_eq!(blocked_by(&table(&json!({})), &holders, 60.0).len(), 0);
        let elsewhere = [Holder { kind: "session elsewhere".into(), ..holder(Some(600.0)) }];
        assert_eq!(blocked_by(&dead(json!(60.0)), &elsewhere, 60.0).len(), 0);
        let catalogs = [Holder { catalog_only: true, ..holder(None) }];
        assert_eq!(blocked_by(&dead(json!(60.0)), &catalogs, 60.0).len(), 0);
    }

    #[test]
    fn bloat_needs_statistics() {
        let ratio = |extra: Value| bloat(&table(&extra)).map(|bloat| bloat.ratio);
        assert!(ratio(json!({})).unwrap() < 0.03);
        assert!(ratio(json!({"live_rows": 16_666})).unwrap() > 0.6);
        assert!(ratio(json!({"live_rows": 99_999})).unwrap() < 0.03, "the counter ran ahead");
        assert!(ratio(json!({"live_rows": 0, "counted": false})).unwrap() < 0.03);
        assert_eq!(ratio(json!({"width": null, "columns_known": 0})), None);
        assert_eq!(ratio(json!({"columns_known": 2})), None);
        assert_eq!(ratio(json!({"has_names": true})), None);
        assert_eq!(ratio(json!({"reltuples": -1.0})), None);
    }

    #[test]
    fn autovacuum_can_be_off_for_one_table() {
        assert!(is_switched_off(&table(&json!({"options": ["autovacuum_enabled=false"]}))));
        assert!(!is_switched_off(&table(&json!({"options": ["autovacuum_enabled=true"]}))));
    }
}
