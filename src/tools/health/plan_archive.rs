//! Freezes which rows of a table are to be archived, and cuts them into batches.
//!
//! Reads: of the rows that are older than the cut-off, in the order of their keys, the last key of each batch.
//! The server goes through all of them once; no more than one key a batch leaves it.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! The cut-off is a moment that this answer fixes: what becomes cold while the batches are carried out is
//! for the next time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Bind, Failure, Ident, Query, Risk, Span, Timestamp};
use crate::tools::cold::{COLUMNS, ColdTable, REFERENCES, readable};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(PlanArchive));

struct PlanArchive;

/// Which rows.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table, as `schema.name`.
    table: String,
    /// The column that says when a row was touched last; by default the configured one, or the likeliest.
    #[serde(default)]
    column: Option<String>,
    /// Rows that were not touched for so long are cold; by default as configured.
    #[serde(default)]
    older_than: Option<Span>,
    /// How many rows one batch has: so many are held in memory at once.
    #[serde(default = "five_thousand")]
    #[schemars(range(min = 1, max = 10_000))]
    batch_rows: u32,
    /// How many rows are archived at most, the rest being for the next time; by default all.
    #[serde(default)]
    most_rows: Option<u64>,
}

const fn five_thousand() -> u32 {
    5_000
}

/// The batches.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The table.
    table: String,
    /// The column that says when.
    column: String,
    /// Rows from before are cold.
    cut_off: Timestamp,
    /// How many rows the batches have together.
    total_rows: u64,
    /// The batches, in the order of the key.
    batches: Vec<PlannedBatch>,
}

/// A batch.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct PlannedBatch {
    /// Its number, from 1 on.
    number: u64,
    /// Its name among the batches.
    name: String,
    /// Keys after this one; absent for the first.
    after: Option<Vec<String>>,
    /// Keys up to this one.
    upto: Vec<String>,
    /// About how many rows.
    rows: u64,
}

impl ReadTool for PlanArchive {
    const META: ToolMeta = ToolMeta {
        name: "plan_archive",
        family: Family::Health,
        risk: Risk::Low,
        revision: 2,
        summary: "Freezes which rows of a table are to be archived, and cuts them into batches",
        sql: &[&COLUMNS, &REFERENCES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        let policy = cx.settings.cold_data.tables.get(&params.table);
        let configured = policy.and_then(|policy| policy.column.clone());
        let likeliest = || table.moments().first().map(|name| (*name).to_owned());
        let column = params.column.or(configured).or_else(likeliest).ok_or_else(|| {
            let text = format!("no column of `{}` says when a row was touched last", table.plain());
            Failure::permanent("archive::no_moment", text).with_help("name it: `column: …`")
        })?;
        table.column(&column)?;
        let age =
            params.older_than.or_else(|| policy?.after).unwrap_or(cx.settings.cold_data.after);
        let cut_off = Timestamp::from_millis(
            cx.clock.now().as_millis().saturating_sub_unsigned(age.as_millis()),
        );
        let size = u64::from(params.batch_rows.max(1));
        let edges = edges(&table, cx, (&column, cut_off), (size, params.most_rows)).await?;
        let batches = cut(edges, size);
        let total_rows = batches.iter().map(|batch| batch.rows).sum();
        Ok(Output { table: table.plain(), column, cut_off, total_rows, batches })
    }
}

/// The last key of a batch, and how many rows there are up to it.
#[derive(Deserialize)]
struct Edge {
    key: Vec<String>,
    place: u64,
}

fn cut(edges: Vec<Edge>, size: u64) -> Vec<PlannedBatch> {
    let (mut batches, mut after) = (Vec::new(), None);
    for (number, edge) in (1..).zip(edges) {
        let rows = edge.place - (number - 1) * size;
        let name = format!("batch_{number:05}");
        let before = after.replace(edge.key.clone());
        batches.push(PlannedBatch { number, name, after: before, upto: edge.key, rows });
    }
    batches
}

async fn edges(
    table: &ColdTable,
    cx: &ReadContext<'_>,
    (column, cut_off): (&str, Timestamp),
    (size, most): (u64, Option<u64>),
) -> Result<Vec<Edge>, Failure> {
    let most = most.map(|most| format!(" limit {most}")).unwrap_or_default();
    let text = format!(
        "select {} as key, cold.place from (select keys.*, \
             pg_catalog.row_number() over (order by {keys}) as place, \
             pg_catalog.count(*) over () as total from (select {keys} from {} \
             where {} < $1::timestamptz order by {keys}{most}) as keys) as cold \
             where cold.place % {size} = 0 or cold.place = cold.total order by cold.place",
        table.key_array("cold."),
        table.name,
        Ident::new(column),
        keys = table.key_list(""),
    );
    let query = Query::with_binds(text, vec![Bind::Timestamp(cut_off)]);
    let rows = cx.pg.query("the keys of cold rows", &query).await?;
    rows.into_iter().map(readable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_each_other() {
        let edge = |key: &str, place| Edge { key: vec![key.to_owned()], place };
        let batches = cut(vec![edge("3", 3), edge("9", 6), edge("11", 7)], 3);
        let ranges: Vec<_> = batches
            .iter()
            .map(|batch| {
                (batch.after.as_ref().map(|key| key[0].as_str()), &*batch.upto[0], batch.rows)
            })
            .collect();
        assert_eq!(ranges, [(None, "3", 3), (Some("3"), "9", 3), (Some("9"), "11", 1)]);
        assert_eq!(batches[2].name, "batch_00003");
        assert!(cut(Vec::new(), 3).is_empty());
    }
}
