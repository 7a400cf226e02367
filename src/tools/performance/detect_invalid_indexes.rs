//! Finds indexes that a failed `CONCURRENTLY` left: writes keep them and no query uses them.
//!
//! Reads: the catalog of indexes, builds in progress and the locks under which they run.
//! Changes: nothing.
//! Undo: nothing to undo; an index that nobody can use needs no bringing back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ByteSize, Failure, Risk};
use crate::tools::analysis::index::IndexRow;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::context::ReadContext;
use crate::tools::index_state::{INDEXES, decided, has_effect, look};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectInvalidIndexes));

struct DetectInvalidIndexes;

/// What is of interest.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Fingerprints of advice that a person does not want.
    #[serde(default)]
    rejected: Vec<String>,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many indexes were looked at.
    checked: u64,
    /// How many are left over.
    invalid: u64,
    /// Those, the largest first.
    findings: Vec<Finding>,
    /// Indexes of partitioned tables that some partition still lacks.
    incomplete: Vec<String>,
    /// Indexes that are perhaps being built now: nothing is said about them.
    building: Vec<String>,
    /// What is advised.
    #[serde(flatten)]
    advice: Advice,
}

/// One index that nobody can use.
#[derive(Debug, Serialize, JsonSchema)]
struct Finding {
    /// The table.
    table: String,
    /// The index.
    index: String,
    /// Whether writes keep it all the same.
    costs_writes: bool,
    /// Its bytes.
    size_bytes: u64,
}

impl ReadTool for DetectInvalidIndexes {
    const META: ToolMeta = ToolMeta {
        name: "detect_invalid_indexes",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds indexes that a failed build left behind",
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
        let names = |wanted: &dyn Fn(&IndexRow) -> bool| {
            let wanted = indexes.iter().filter(|index| !index.is_valid && wanted(index));
            wanted.map(|index| index.index_name.clone()).collect()
        };
        let mut found: Vec<_> = indexes.iter().filter(|index| is_left_over(index)).collect();
        found.sort_by_key(|index| std::cmp::Reverse(index.size_bytes));
        let today = found.iter().map(|index| advice(index, &now)).collect();
        Ok(Output {
            checked: indexes.len() as u64,
            invalid: found.len() as u64,
            findings: found.iter().map(|index| finding(index)).collect(),
            incomplete: names(&|index| index.is_partitioned),
            building: names(&|index| index.building && !index.is_partitioned),
            advice: continued(cx.earlier, today, &decided, |old| has_effect(&indexes, old)),
        })
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

fn is_left_over(index: &IndexRow) -> bool {
    !index.is_valid && !index.building && !index.is_partitioned && !index.locked
}

fn finding(index: &IndexRow) -> Finding {
    Finding {
        table: index.table_name.clone(),
        index: index.index_name.clone(),
        costs_writes: index.is_ready,
        size_bytes: index.size_bytes,
    }
}

fn advice(index: &IndexRow, now: &str) -> Recommendation {
    Recommendation {
        fingerprint: Identity::Drop { definition: &index.definition }.fingerprint(),
        kind: Kind::DropInvalid,
        schema: index.schema_name.clone(),
        table: index.table_relation.clone(),
        index: index.relation_name.clone(),
        columns: index.keys.clone(),
        confidence: Confidence::High,
        why: "a build of it failed, and nobody builds it now".to_owned(),
        impact: format!("frees {}", ByteSize(index.size_bytes)),
        bytes: index.size_bytes,
        statement: index.drop_statement(),
        undo: None,
        blocks_writers: false,
        relies_on: Vec::new(),
        verified: false,
        verification: None,
        status: Status::Pending,
        first_seen: now.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::analysis::index::tests::index;

    #[test]
    fn a_build_in_progress_is_left_alone() {
        assert!(is_left_over(&index(&json!({"is_valid": false}))));
        assert!(!is_left_over(&index(&json!({"is_valid": false, "building": true}))));
        assert!(!is_left_over(&index(&json!({"is_valid": false, "is_partitioned": true}))));
        assert!(!is_left_over(&index(&json!({}))));
    }
}
