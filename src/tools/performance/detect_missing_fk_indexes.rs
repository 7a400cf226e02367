//! Finds foreign keys whose columns no index serves: a delete or an update of the parent then reads the
//! whole referencing table, under a lock.
//!
//! Reads: the catalog of foreign keys and indexes, and the counters of both tables.
//! Changes: nothing.
//! Undo: nothing to undo; each piece of advice carries the statement that takes it back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ByteSize, Failure, Ident, Risk};
use crate::tools::analysis::foreign_keys::ForeignKey;
use crate::tools::analysis::index::{IndexRow, free_name};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::context::ReadContext;
use crate::tools::index_state::{FOREIGN_KEYS, INDEXES, decided, has_effect, locked_tables, look};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectMissingFkIndexes));

struct DetectMissingFkIndexes;

/// What is of interest.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Foreign keys of tables with fewer rows are counted, and nothing is advised for them.
    #[serde(default = "a_thousand")]
    min_rows: u64,
    /// Fingerprints of advice that a person does not want.
    #[serde(default)]
    rejected: Vec<String>,
}

const fn a_thousand() -> u64 {
    1000
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many foreign keys were looked at.
    checked: u64,
    /// How many no index serves, small tables included.
    unserved: u64,
    /// Those of large enough tables, the costliest first.
    findings: Vec<Finding>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
    /// What is advised.
    #[serde(flatten)]
    advice: Advice,
}

/// One foreign key without an index.
#[derive(Debug, Serialize, JsonSchema)]
struct Finding {
    /// The referencing table.
    table: String,
    /// The constraint.
    constraint: String,
    /// Its columns.
    columns: Vec<String>,
    /// The table that is referred to.
    references: String,
    /// Rows of the referencing table.
    rows: f64,
    /// Its bytes.
    size_bytes: u64,
    /// Updates and deletes of the table that is referred to, since the counters began.
    parent_changes: i64,
    /// Whether changes of the parent change rows here.
    cascades: bool,
}

impl ReadTool for DetectMissingFkIndexes {
    const META: ToolMeta = ToolMeta {
        name: "detect_missing_fk_indexes",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds foreign keys that no index serves",
        sql: &[&INDEXES, &FOREIGN_KEYS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let indexes = look(cx).await?;
        let keys: Vec<ForeignKey> = cx.pg.rows(&FOREIGN_KEYS, &[]).await?;
        let decided = decided(cx, &params.rejected).await?;
        let now = cx.clock.now().to_string();
        let unserved: Vec<_> =
            keys.iter().filter(|key| key.enforced && !key.is_served(&indexes)).collect();
        let found = costly(&unserved, params.min_rows);
        let mut today: Vec<Recommendation> = Vec::new();
        for key in &found {
            let advice = advice(key, &indexes, &now);
            // Two foreign keys on the same columns want one index.
            if today.iter().all(|other| other.fingerprint != advice.fingerprint) {
                today.push(advice);
            }
        }
        let advice = continued(cx.earlier, today, &decided, |old| has_effect(&indexes, old));
        Ok(Output {
            checked: keys.len() as u64,
            unserved: unserved.len() as u64,
            findings: found.iter().map(|key| finding(key)).collect(),
            not_measured: locked_tables(&indexes),
            advice,
        })
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

/// Those of large enough tables: what changes of the parents cost comes first.
#[expect(clippy::cast_precision_loss, reason = "a size is compared with an estimate")]
fn costly<'a>(unserved: &[&'a ForeignKey], min_rows: u64) -> Vec<&'a ForeignKey> {
    let rows = |key: &ForeignKey| key.rows.unwrap_or_default();
    let mut found: Vec<_> =
        unserved.iter().copied().filter(|key| rows(key) >= min_rows as f64).collect();
    let cost = |key: &ForeignKey| {
        (key.parent_changes as f64 + 1.0) * key.size_bytes.unwrap_or_default() as f64
    };
    found.sort_by(|one, two| cost(two).total_cmp(&cost(one)));
    found
}

fn finding(key: &ForeignKey) -> Finding {
    Finding {
        table: key.table_name.clone(),
        constraint: key.constraint_name.clone(),
        columns: key.columns.clone(),
        references: key.referenced_name.clone(),
        rows: key.rows.unwrap_or_default(),
        size_bytes: key.size_bytes.unwrap_or_default(),
        parent_changes: key.parent_changes,
        cascades: key.cascades,
    }
}

fn advice(key: &ForeignKey, indexes: &[IndexRow], now: &str) -> Recommendation {
    let table = key.table();
    let taken = |name: &str| {
        let named =
            |index: &IndexRow| index.schema_name == key.schema_name && index.relation_name == name;
        indexes.iter().any(named)
    };
    let name = free_name(&key.relation_name, &key.columns, taken);
    let (columns, ident) = (key.columns.join(", "), Ident::new(&name));
    let concurrently = if key.is_partitioned { "" } else { "concurrently " };
    let changed = key.parent_changes > 0;
    Recommendation {
        fingerprint: Identity::Create {
            table: &key.table_name,
            method: "btree",
            keys: &key.columns,
            predicate: None,
        }
        .fingerprint(),
        kind: Kind::CreateFkIndex,
        schema: key.schema_name.clone(),
        table: key.relation_name.clone(),
        columns: key.columns.clone(),
        confidence: if changed { Confidence::High } else { Confidence::Low },
        why: format!(
            "no index begins with the columns of `{}`; `{}` was changed {} times",
            key.constraint_name, key.referenced_name, key.parent_changes
        ),
        impact: format!(
            "a delete or an update in `{}` reads {} less",
            key.referenced_name,
            ByteSize(key.size_bytes.unwrap_or_default())
        ),
        bytes: key.size_bytes.unwrap_or_default(),
        statement: format!("create index {concurrently}{ident} on {table} ({columns})"),
        undo: Some(format!("drop index {concurrently}{}.{ident}", Ident::new(&key.schema_name))),
        index: name,
        blocks_writers: key.is_partitioned,
        relies_on: Vec::new(),
        verified: false,
        verification: None,
        status: Status::Pending,
        first_seen: now.to_owned(),
    }
}
