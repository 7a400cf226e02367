//! How much of a B-tree is room that its entries do not need, estimated from statistics.

use serde::Deserialize;

use super::bloat::Bloat;
use super::index::IndexRow;
use super::number::rounded;

/// The header of a page, and what a B-tree keeps at its end.
const PAGE_HEADER: f64 = 24.0 + 16.0;
/// The header of an entry and its line pointer.
const ENTRY_HEADER: f64 = 8.0;
const LINE_POINTER: f64 = 4.0;
/// Values begin at multiples of this.
const ALIGNMENT: f64 = 8.0;
/// The address of a row in an entry that stands for several.
const ROW_ADDRESS: f64 = 6.0;
/// The rows that one such entry stands for at most, by its longest form.
const MOST_MERGED: f64 = 200.0;

/// What the entries of a B-tree are like, as `performance/detect_bloated_indexes` returns it.
#[derive(Clone, Debug, Deserialize)]
pub struct Entries {
    /// The index's OID.
    pub oid: i64,
    /// Bytes of a page.
    pub block_size: u32,
    /// Columns.
    pub attributes: u32,
    /// Those of them whose width is known.
    pub known: u32,
    /// The average bytes of all values.
    pub width: Option<f64>,
    /// Whether any value is null.
    pub has_nulls: bool,
    /// The planner's count of distinct values, for one column: below 0 a share of the rows.
    pub distinct_values: Option<f64>,
    /// Whether equal entries are merged.
    pub can_deduplicate: bool,
    /// Live rows of the table, as counted.
    pub live_rows: Option<i64>,
}

/// An estimate, and whether it stands on firm ground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The bloat.
    pub bloat: Bloat,
    /// Whether equal entries are merged: how well is a guess.
    pub merged: bool,
}

/// Estimates the bloat of a B-tree; `None` when the statistics do not allow one.
pub fn estimate(index: &IndexRow, entries: &Entries) -> Option<Estimate> {
    let width = entries.width.filter(|_| entries.known == entries.attributes)?;
    if index.size_bytes == 0 || index.reltuples < 0.0 || index.table_rows < 0.0 {
        return None;
    }
    let rows = rows_now(index, entries);
    let bitmap = if entries.has_nulls { 4.0 } else { 0.0 };
    let single = LINE_POINTER + aligned(ENTRY_HEADER + bitmap) + aligned(width);
    let alike = rows_of_value(rows, entries);
    let merged = entries.can_deduplicate && alike >= 2.0;
    let entry = if merged { ROW_ADDRESS + single / alike.min(MOST_MERGED) } else { single };
    let page = f64::from(entries.block_size);
    let of_page = ((page - PAGE_HEADER) * fillfactor(index) / 100.0 / entry).max(1.0);
    let leaves = (rows / of_page).ceil();
    // Inner pages, and one page that says where the root is.
    let needed = (leaves + (leaves * single / (page - PAGE_HEADER)).ceil() + 1.0) * page;
    Some(Estimate { bloat: less(index.size_bytes, needed), merged })
}

/// Bloat by the pages themselves, as `pgstatindex` tells it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Pages {
    /// Pages that hold entries.
    pub leaf_pages: u32,
    /// Pages that lead to them.
    pub internal_pages: u32,
    /// How full the former are, in percent.
    pub leaf_density: f64,
    /// Bytes of a page.
    pub block_size: u32,
}

/// What the pages say: those of leaves, as full as they were made, and the inner ones.
pub fn measured(index: &IndexRow, pages: &Pages) -> Bloat {
    let leaves = f64::from(pages.leaf_pages) * (pages.leaf_density / fillfactor(index)).min(1.0);
    let needed = leaves.ceil() + f64::from(pages.internal_pages) + 1.0;
    less(index.size_bytes, needed * f64::from(pages.block_size))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the size"
)]
fn less(bytes: u64, needed: f64) -> Bloat {
    let size = bytes as f64;
    let free = (size - needed).clamp(0.0, size);
    Bloat { bytes: free as u64, ratio: rounded(free / size.max(1.0)) }
}

/// Entries at the last VACUUM or ANALYZE, and what the table has grown by since.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn rows_now(index: &IndexRow, entries: &Entries) -> f64 {
    let live = entries.live_rows.unwrap_or_default() as f64;
    let growth = if index.table_rows > 0.0 { (live / index.table_rows).max(1.0) } else { 1.0 };
    // A table that had no rows then says nothing about its share.
    if index.table_rows > 0.0 { index.reltuples * growth } else { index.reltuples.max(live) }
}

/// How many rows have the same value on average.
fn rows_of_value(rows: f64, entries: &Entries) -> f64 {
    match entries.distinct_values {
        Some(count) if count > 0.0 => rows / count,
        Some(share) if share < 0.0 => -1.0 / share,
        _ => 1.0,
    }
}

/// How full leaves are made, in percent.
fn fillfactor(index: &IndexRow) -> f64 {
    let written = index.storage_parameter("fillfactor").and_then(|value| value.parse().ok());
    written.filter(|value| *value >= 10.0).unwrap_or(90.0)
}

fn aligned(bytes: f64) -> f64 {
    (bytes / ALIGNMENT).ceil() * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::index::tests::index;
    use super::*;

    fn entries(extra: &Value) -> Entries {
        let mut row = json!({
            "oid": 100, "block_size": 8192, "attributes": 1, "known": 1, "width": 4.0,
            "has_nulls": false, "distinct_values": -1.0, "can_deduplicate": true,
            "live_rows": 100_000,
        });
        for (name, value) in extra.as_object().unwrap() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    /// 100,000 distinct int4: 276 pages, measured on a server.
    fn sized(pages: u64, extra: &Value) -> Estimate {
        let index = index(&json!({"size_bytes": pages * 8192}));
        estimate(&index, &entries(extra)).unwrap()
    }

    #[test]
    fn a_fresh_index_has_no_bloat() {
        assert!(sized(276, &json!({})).bloat.ratio < 0.05, "{:?}", sized(276, &json!({})));
        assert!(sized(828, &json!({})).bloat.ratio > 0.6);
    }

    #[test]
    fn the_fillfactor_is_no_bloat() {
        let roomy = index(&json!({"size_bytes": 497 * 8192, "storage": ["fillfactor=50"]}));
        let found = estimate(&roomy, &entries(&json!({}))).unwrap();
        assert!(found.bloat.ratio < 0.05, "{found:?}");
    }

    #[test]
    fn equal_entries_are_merged() {
        let few = json!({"distinct_values": 10.0});
        let found = sized(87, &few);
        assert!(found.merged && found.bloat.ratio < 0.1, "{found:?}");
        assert!(!sized(276, &json!({"distinct_values": 10.0, "can_deduplicate": false})).merged);
    }

    #[test]
    fn without_statistics_nothing_is_said() {
        let plain = index(&json!({}));
        assert_eq!(estimate(&plain, &entries(&json!({"known": 0}))), None);
        assert_eq!(estimate(&index(&json!({"reltuples": -1.0})), &entries(&json!({}))), None);
        assert_eq!(estimate(&index(&json!({"size_bytes": 0})), &entries(&json!({}))), None);
    }

    #[test]
    fn a_table_that_grew_since_is_not_bloated() {
        let grown = json!({"live_rows": 300_000});
        assert!(sized(828, &grown).bloat.ratio < 0.05);
    }

    #[test]
    fn pages_tell_more_than_statistics() {
        let index = index(&json!({"size_bytes": 277 * 8192}));
        let pages = |leaf_density| Pages {
            leaf_pages: 274,
            internal_pages: 2,
            leaf_density,
            block_size: 8192,
        };
        assert!(measured(&index, &pages(90.0)).ratio < 0.01);
        assert!((measured(&index, &pages(30.0)).ratio - 0.66).abs() < 0.02);
    }
}
