//! Compares a table with its copy row by row, and names the keys that are missing, extra or different.
//!
//! Reads: both sides, piece by piece: first sums of hashes for each bucket of the key, which do not depend
//! on the order of the rows, then the rows of those buckets alone that differ.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! A difference is reported when it was seen twice, `settle` apart: what differs only once was on its way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{Failure, Risk, Span, SqlFile};
use crate::tools::context::ReadContext;
use crate::tools::sync::{Bucket, COLUMNS, Differences, Opened, Place, differences, differing};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ValidateSyncIntegrity));

/// About so many rows are in a bucket.
const ROWS_OF_BUCKET: u64 = 1_000;
/// How many buckets are looked into; when more differ, the rest is counted and not named.
const MOST_BUCKETS: usize = 256;

struct ValidateSyncIntegrity;

/// What is compared.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table.
    source: Place,
    /// Its copy.
    target: Place,
    /// The columns that name a row; by default the source's primary key.
    #[serde(default)]
    key_columns: Option<Vec<String>>,
    /// The columns that are compared; by default all of the source that are not generated.
    #[serde(default)]
    columns: Option<Vec<String>>,
    /// Columns that are not compared.
    #[serde(default)]
    exclude_columns: Vec<String>,
    /// How long after the first look differences are looked at again.
    #[serde(default = "one_second")]
    settle: Span,
    /// At most so many keys of each kind are named.
    #[serde(default = "a_hundred")]
    most_keys: usize,
}

const fn one_second() -> Span {
    Span::from_secs(1)
}

const fn a_hundred() -> usize {
    100
}

/// How the two compare.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The table.
    source_table: String,
    /// Its copy.
    target_table: String,
    /// `verified` or `different`.
    status: Status,
    /// Whether all rows are the same.
    checksum_match: bool,
    /// The columns that name a row.
    key_columns: Vec<String>,
    /// The columns that were compared.
    columns: Vec<String>,
    /// Columns of the source that the target lacks; they were not compared.
    columns_missing: Vec<String>,
    /// Rows of the source; about, when it is written to meanwhile.
    source_count: u64,
    /// Rows of the target; about, when it is written to meanwhile.
    target_count: u64,
    /// Into how many buckets the keys were sorted.
    buckets: i64,
    /// How many of them differ.
    differing_buckets: usize,
    /// How many keys differ, of those buckets that were looked into.
    differing_keys: usize,
    /// The keys, at most so many of each kind as were asked for.
    keys: Differences,
    /// Whether more differs than is named.
    truncated: bool,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Every row is the same.
    Verified,
    /// Rows or columns differ.
    Different,
}

impl ReadTool for ValidateSyncIntegrity {
    const META: ToolMeta = ToolMeta {
        name: "validate_sync_integrity",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Compares a table with its copy by hashes, and names the keys that differ",
        sql: SQL,
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let source = Opened::at(cx, &params.source).await?;
        let target = Opened::at(cx, &params.target).await?;
        let output = compare(cx, &params, &source, &target).await;
        source.close().await;
        target.close().await;
        output
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        let row = json!({
            "source_table": output.source_table,
            "target_table": output.target_table,
            "source_count": output.source_count,
            "target_count": output.target_count,
            "count_drift": output.source_count.abs_diff(output.target_count),
            "checksum_match": output.checksum_match,
            "status": output.status,
            "details": {
                "differing_keys": output.differing_keys,
                "differing_buckets": output.differing_buckets,
                "keys": output.keys,
            },
        });
        vec![HistoryRow { table: "sync_validation_history".to_owned(), row }]
    }
}

const SQL: &[&SqlFile] = &[&COLUMNS];

async fn compare(
    cx: &ReadContext<'_>,
    params: &Params,
    source: &Opened,
    target: &Opened,
) -> Result<Output, Failure> {
    let key = params.key_columns.clone().unwrap_or_else(|| source.primary_key());
    if key.is_empty() {
        let text = format!("`{}` has no primary key", params.source);
        return Err(Failure::permanent("sync::no_key", text)
            .with_help("name the columns that make a row unique: `key_columns: [id]`"));
    }
    let (columns, columns_missing) = chosen(params, &source.names(), &target.names());
    let what = (key.as_slice(), columns.as_slice());
    let count = bucket_count(source.estimate().max(target.estimate()));
    let sums = futures::try_join!(source.buckets(what, count), target.buckets(what, count))?;
    let different = differing(&sums.0, &sums.1);
    let looked_into = &different[..different.len().min(MOST_BUCKETS)];
    let found = if looked_into.is_empty() {
        Differences::default()
    } else {
        let look = || async {
            let within = (looked_into, count);
            let rows =
                futures::try_join!(source.hashes(what, within), target.hashes(what, within))?;
            Ok::<_, Failure>(differences(rows.0, rows.1))
        };
        let first = look().await?;
        cx.clock.sleep_until(cx.clock.now().plus(params.settle.0)).await;
        first.confirmed_by(&look().await?)
    };
    let rows = |side: &std::collections::BTreeMap<i64, Bucket>| side.values().map(|b| b.rows).sum();
    let unseen = different.len() > looked_into.len();
    let checksum_match = found.is_empty() && !unseen;
    let is_same = checksum_match && columns_missing.is_empty();
    let differing_keys = found.count();
    let keys = found.cut(params.most_keys);
    Ok(Output {
        source_table: params.source.to_string(),
        target_table: params.target.to_string(),
        status: if is_same { Status::Verified } else { Status::Different },
        checksum_match,
        key_columns: key,
        columns,
        columns_missing,
        source_count: rows(&sums.0),
        target_count: rows(&sums.1),
        buckets: count,
        differing_buckets: different.len(),
        differing_keys,
        truncated: unseen || keys.count() < differing_keys,
        keys,
    })
}

/// The columns that are compared, and those that the target lacks.
fn chosen(params: &Params, source: &[&str], target: &[&str]) -> (Vec<String>, Vec<String>) {
    let wanted: Vec<String> = match &params.columns {
        Some(columns) => columns.clone(),
        None => source.iter().map(|name| (*name).to_owned()).collect(),
    };
    let wanted = wanted.into_iter().filter(|name| !params.exclude_columns.contains(name));
    wanted.partition(|name| target.contains(&name.as_str()))
}

/// A power of two, so that a bucket is a part of the hash.
fn bucket_count(rows: u64) -> i64 {
    let wanted = (rows / ROWS_OF_BUCKET).clamp(1_024, 65_536).next_power_of_two();
    i64::try_from(wanted).unwrap_or(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_stay_small() {
        assert_eq!([0, 1_000_000, 5_000_000].map(bucket_count), [1_024, 1_024, 8_192]);
        assert_eq!(bucket_count(u64::MAX), 65_536);
    }

    #[test]
    fn columns_that_the_copy_lacks_are_named() {
        let params = json!({
            "source": {"table": "public.a"}, "target": {"table": "public.b"},
            "exclude_columns": ["synced_at"],
        });
        let params: Params = serde_json::from_value(params).unwrap();
        let (columns, missing) = chosen(&params, &["id", "a", "b", "synced_at"], &["id", "b", "c"]);
        assert_eq!((columns, missing), (vec!["id".into(), "b".into()], vec!["a".to_owned()]));
    }
}
