//! Finds indexes that another index makes superfluous: exact duplicates, and those whose keys begin
//! another one.
//!
//! Reads: the catalog of indexes and their counters.
//! Changes: nothing.
//! Undo: nothing to undo; each piece of advice carries the statement that takes it back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ByteSize, Failure, Risk};
use crate::tools::analysis::duplicate_indexes::{Cover, Superfluous, mirrored, superfluous};
use crate::tools::analysis::index::IndexRow;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::context::ReadContext;
use crate::tools::index_state::{INDEXES, decided, has_effect, locked_tables, look};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectDuplicateIndexes));

struct DetectDuplicateIndexes;

/// What is of interest.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Indexes smaller than this are left alone.
    #[serde(default)]
    min_size: ByteSize,
    /// Fingerprints of advice that a person does not want.
    #[serde(default)]
    rejected: Vec<String>,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many indexes were looked at.
    checked: u64,
    /// How many can do nothing that another one cannot.
    duplicates: u64,
    /// How many are the beginning of another one.
    redundant: u64,
    /// The bytes of both.
    reclaimable_bytes: u64,
    /// What can go, the largest first.
    findings: Vec<Finding>,
    /// Pairs that differ in direction only: one of them may do.
    mirrored: Vec<Mirrored>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
    /// What is advised.
    #[serde(flatten)]
    advice: Advice,
}

/// One superfluous index.
#[derive(Debug, Serialize, JsonSchema)]
struct Finding {
    /// The table.
    table: String,
    /// What can go.
    index: String,
    /// What stays and does its work.
    kept: String,
    /// Whether it is an exact duplicate, not only the beginning of the other.
    exact: bool,
    /// Its bytes.
    size_bytes: u64,
    /// How often it was used since the counters began.
    scans: Option<i64>,
}

/// Two indexes on one column, in both directions.
#[derive(Debug, Serialize, JsonSchema)]
struct Mirrored {
    /// The table.
    table: String,
    /// The one that runs forwards.
    index: String,
    /// The one that runs backwards.
    mirror: String,
}

impl ReadTool for DetectDuplicateIndexes {
    const META: ToolMeta = ToolMeta {
        name: "detect_duplicate_indexes",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds indexes that another index makes superfluous",
        sql: &[&INDEXES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let indexes = look(cx).await?;
        let decided = decided(cx, &params.rejected).await?;
        let now = cx.clock.now().to_string();
        let mut found = superfluous(&indexes);
        found.retain(|it| it.index.is_partitioned || it.index.size_bytes >= params.min_size.0);
        found.sort_by_key(|it| std::cmp::Reverse(it.index.size_bytes));
        let today = found.iter().map(|it| advice(it, &now)).collect();
        let advice = continued(cx.earlier, today, &decided, |old| has_effect(&indexes, old));
        Ok(output(&indexes, &found, advice))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

fn output(indexes: &[IndexRow], found: &[Superfluous<'_>], advice: Advice) -> Output {
    let count = |cover| found.iter().filter(|it| it.cover == cover).count() as u64;
    let pair = |(one, two): (&IndexRow, &IndexRow)| Mirrored {
        table: one.table_name.clone(),
        index: one.index_name.clone(),
        mirror: two.index_name.clone(),
    };
    Output {
        checked: indexes.len() as u64,
        duplicates: count(Cover::Exact),
        redundant: count(Cover::Prefix),
        reclaimable_bytes: advice.bytes(),
        findings: found.iter().map(finding).collect(),
        mirrored: mirrored(indexes).into_iter().map(pair).collect(),
        not_measured: locked_tables(indexes),
        advice,
    }
}

fn finding(it: &Superfluous<'_>) -> Finding {
    Finding {
        table: it.index.table_name.clone(),
        index: it.index.index_name.clone(),
        kept: it.kept.index_name.clone(),
        exact: it.cover == Cover::Exact,
        size_bytes: it.index.size_bytes,
        scans: it.index.scans,
    }
}

fn advice(it: &Superfluous<'_>, now: &str) -> Recommendation {
    let (index, kept) = (it.index, &it.kept.index_name);
    let (kind, confidence, why) = match it.cover {
        Cover::Exact => {
            (Kind::DropDuplicate, Confidence::High, format!("`{kept}` can do all that it can"))
        }
        Cover::Prefix => (
            Kind::DropRedundant,
            Confidence::Medium,
            format!(
                "`{kept}` begins with the same keys; it is wider, so reads get a little slower"
            ),
        ),
    };
    Recommendation {
        fingerprint: Identity::Drop { definition: &index.definition }.fingerprint(),
        kind,
        schema: index.schema_name.clone(),
        table: index.table_relation.clone(),
        index: index.relation_name.clone(),
        columns: index.keys.clone(),
        confidence,
        why,
        impact: format!(
            "frees {}, and every write keeps one index less",
            ByteSize(index.size_bytes)
        ),
        bytes: index.size_bytes,
        statement: index.drop_statement(),
        undo: Some(index.create_statement()),
        blocks_writers: index.is_partitioned,
        relies_on: vec![it.kept.relation_name.clone()],
        verified: false,
        verification: None,
        status: Status::Pending,
        first_seen: now.to_owned(),
    }
}
