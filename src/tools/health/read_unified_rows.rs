//! Reads hot and cold rows of a table as one: each row once, wherever it is.
//!
//! Reads: the table, `lakeops.archived_batch`, the archive.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! Which cold rows are visible is decided by the same statement that reads the hot ones, in one snapshot: a
//! row that leaves the table meanwhile is seen on exactly one side. Nothing is left out in silence: more rows
//! than asked for, a batch with fewer copies than rows that left with it, an archive that is not reached,
//! each is a failure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{Bind, Failure, Query, Risk};
use crate::tools::cold::{self, BATCHES, BatchRow, COLUMNS, ColdTable, READY, REFERENCES};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ReadUnifiedRows));

/// How often it looks again when batches became visible while the archive was read.
const MOST_LOOKS: usize = 5;

struct ReadUnifiedRows;

/// Which table.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table, as `schema.name`.
    table: String,
    /// More rows than this, hot and cold together, are refused; counting them has no limit.
    #[serde(default = "ten_thousand")]
    most_rows: u64,
    /// Only counts them.
    #[serde(default)]
    count_only: bool,
}

const fn ten_thousand() -> u64 {
    10_000
}

/// The rows.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The table.
    table: String,
    /// Rows in the table.
    hot_rows: u64,
    /// Rows in the archive that are visible.
    cold_rows: u64,
    /// The rows as objects, unless they were only counted.
    rows: Vec<Value>,
}

impl ReadTool for ReadUnifiedRows {
    const META: ToolMeta = ToolMeta {
        name: "read_unified_rows",
        family: Family::Health,
        risk: Risk::Low,
        revision: 2,
        summary: "Reads hot and archived rows of a table as one, each row once",
        sql: &[&COLUMNS, &REFERENCES, &READY, &BATCHES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        if params.count_only {
            return count(cx, &table).await;
        }
        // Copies are never removed, so what becomes visible meanwhile is found by looking again.
        for _ in 0..MOST_LOOKS {
            if let Some(found) = look(cx, &table, params.most_rows).await? {
                return Ok(found);
            }
        }
        let text = format!("batches of `{}` became visible each time it was read", table.plain());
        Err(Failure::transient("archive::in_motion", text)
            .with_help("rows are being archived: ask again, or `count_only`"))
    }
}

/// Counts hot rows and those of visible batches in one snapshot, and holds the archive against it.
async fn count(cx: &ReadContext<'_>, table: &ColdTable) -> Result<Output, Failure> {
    #[derive(Deserialize)]
    struct Seen {
        hot: u64,
        batches: Vec<BatchRow>,
    }
    let name = &table.name;
    let query = if cold::is_ready(cx).await? {
        let text = format!(
            "select pg_catalog.count(*) as hot, (select coalesce(pg_catalog.jsonb_agg(\
             pg_catalog.to_jsonb(b)), '[]'::jsonb) from lakeops.archived_batch as b \
             where b.source_table = $1::text and b.restored_at is null) as batches from {name}"
        );
        Query::with_binds(text, vec![Bind::Text(table.plain())])
    } else {
        Query::new(format!("select pg_catalog.count(*) as hot, '[]'::jsonb as batches from {name}"))
    };
    let found = cx.pg.query("hot and cold rows", &query).await?;
    let seen: Seen = found
        .into_iter()
        .next()
        .map_or_else(|| Ok(Seen { hot: 0, batches: Vec::new() }), cold::readable)?;
    cold::check(cx, table, &seen.batches).await?;
    Ok(Output {
        table: table.plain(),
        hot_rows: seen.hot,
        cold_rows: seen.batches.iter().map(|batch| batch.rows).sum(),
        rows: Vec::new(),
    })
}

/// What the statement that decides says: rows, hot ones without a batch, and the batches that it saw.
#[derive(Deserialize)]
struct Line {
    row: Option<Value>,
    batch: Option<String>,
    rows: Option<u64>,
}

/// Reads the archive, then the table and what is visible. `None`: a batch became visible in between.
async fn look(
    cx: &ReadContext<'_>,
    table: &ColdTable,
    most: u64,
) -> Result<Option<Output>, Failure> {
    let batches = cold::batches(cx, table).await?;
    if batches.iter().map(|batch| batch.rows).sum::<u64>() > most {
        return Err(too_many(table, most));
    }
    let copies = if batches.is_empty() { Vec::new() } else { cold::copies(cx, &batches).await? };
    let query = if cold::is_ready(cx).await? {
        let copies: Vec<_> = copies
            .iter()
            .map(|copy| json!({ "batch_id": copy.batch_id, "row_key": copy.row_key, "row": copy.row }))
            .collect();
        Query::with_binds(
            both(table, most),
            vec![Bind::Json(json!(copies)), Bind::Text(table.plain())],
        )
    } else {
        Query::new(hot(table, most))
    };
    let found = cx.pg.query("hot and cold rows", &query).await?;
    let lines = found.into_iter().map(cold::readable).collect::<Result<Vec<Line>, _>>()?;
    Ok(match sort(lines, &batches)? {
        Some(sorted) if sorted.total() > most => return Err(too_many(table, most)),
        Some(sorted) => Some(Output {
            table: table.plain(),
            hot_rows: sorted.hot,
            cold_rows: sorted.cold,
            rows: sorted.rows,
        }),
        None => None,
    })
}

fn hot(table: &ColdTable, most: u64) -> String {
    format!(
        "select pg_catalog.to_jsonb(hot) as row, null::text as batch, null::int8 as rows \
         from (select * from {} limit {}) as hot",
        table.name,
        most.saturating_add(1)
    )
}

fn both(table: &ColdTable, most: u64) -> String {
    format!(
        "{} union all select pg_catalog.to_jsonb(back), b.batch_id, null::int8 \
         from pg_catalog.jsonb_array_elements($1::jsonb) as copy (item) \
         join lakeops.archived_batch as b on b.batch_id = copy.item ->> 'batch_id' \
         cross join lateral pg_catalog.jsonb_populate_record(\
         null::{}, (copy.item ->> 'row')::jsonb) as back \
         where b.restored_at is null and b.source_table = $2 \
         and copy.item ->> 'row_key' <> all (b.kept_hot) \
         union all select null::jsonb, b.batch_id, b.rows from lakeops.archived_batch as b \
         where b.restored_at is null and b.source_table = $2",
        hot(table, most),
        table.name
    )
}

#[derive(Default)]
struct Sorted {
    rows: Vec<Value>,
    hot: u64,
    cold: u64,
}

impl Sorted {
    const fn total(&self) -> u64 {
        self.hot.saturating_add(self.cold)
    }
}

/// Rows of both sides, when every batch that the statement saw was read before it, and has all its rows.
fn sort(lines: Vec<Line>, read: &[BatchRow]) -> Result<Option<Sorted>, Failure> {
    let (mut sorted, mut seen) = (Sorted::default(), Vec::new());
    let mut cold: BTreeMap<String, u64> = BTreeMap::new();
    for Line { row, batch, rows } in lines {
        match (row, batch, rows) {
            (None, Some(batch), Some(rows)) => seen.push((batch, rows)),
            (Some(row), Some(batch), _) => {
                *cold.entry(batch).or_default() += 1;
                sorted.cold += 1;
                sorted.rows.push(row);
            }
            (row, _, _) => {
                sorted.hot += 1;
                sorted.rows.extend(row);
            }
        }
    }
    if !seen.iter().all(|(id, _)| read.iter().any(|batch| batch.batch_id == *id)) {
        return Ok(None);
    }
    for (id, rows) in seen {
        let found = cold.get(&id).copied().unwrap_or(0);
        if found != rows {
            return Err(cold::missing(&id, found, rows));
        }
    }
    Ok(Some(sorted))
}

fn too_many(table: &ColdTable, most: u64) -> Failure {
    let text = format!("`{}` has more than {most} rows, hot and cold", table.plain());
    Failure::permanent("archive::too_many_rows", text)
        .with_help("raise `most_rows`, or query the archive: `lakeops history query`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: &str, rows: u64, kept: &[&str]) -> BatchRow {
        let kept_hot = kept.iter().map(|key| (*key).to_owned()).collect();
        BatchRow { batch_id: id.to_owned(), rows, kept_hot }
    }

    fn line(row: Option<u64>, batch: Option<&str>, rows: Option<u64>) -> Line {
        Line { row: row.map(Value::from), batch: batch.map(str::to_owned), rows }
    }

    #[test]
    fn nothing_is_left_out_in_silence() {
        let read = [batch("a", 2, &[])];
        let lines = || vec![line(Some(1), None, None), line(None, Some("a"), Some(2))];
        let mut whole = lines();
        whole.extend([line(Some(2), Some("a"), None), line(Some(3), Some("a"), None)]);
        let sorted = sort(whole, &read).unwrap().unwrap();
        assert_eq!((sorted.hot, sorted.cold, sorted.rows.len()), (1, 2, 3));
        assert_eq!(sort(lines(), &read).err().unwrap().code, "archive::copies_missing");
        let mut later = lines();
        later.push(line(None, Some("b"), Some(1)));
        assert!(sort(later, &read).unwrap().is_none(), "it became visible after it was looked for");
        // What was restored in between is hot again, and its copies are not shown.
        assert!(sort(vec![line(Some(1), None, None)], &read).unwrap().is_some());
    }
}
