//! Finds B-trees that are mostly empty: estimated from statistics, less the room that their fillfactor
//! leaves, and confirmed by reading pages where the extension pgstattuple is there.
//!
//! Reads: the catalog of indexes and column statistics; with pgstattuple the pages of the worst ones.
//! Changes: nothing.
//! Undo: nothing to undo, and building an index again needs no undoing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Bind, ByteSize, Failure, Ident, Query, Risk, SqlFile};
use crate::sql_file;
use crate::tools::analysis::bloat::Bloat;
use crate::tools::analysis::index::IndexRow;
use crate::tools::analysis::index_bloat::{Entries, Estimate, Pages, estimate, measured};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::context::ReadContext;
use crate::tools::index_state::{INDEXES, decided, has_effect, locked_tables, look};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectBloatedIndexes));

static ENTRIES: SqlFile = sql_file!("performance/detect_bloated_indexes");
static EXTENSION: SqlFile = sql_file!("performance/detect_bloated_indexes.pgstattuple");

/// How many indexes are read page by page at most.
const MOST_CONFIRMED: usize = 5;

struct DetectBloatedIndexes;

/// What counts as bloated.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The share of an index from which on it is worth building again.
    #[serde(default = "four_tenths")]
    bloat_ratio: f64,
    /// The bytes from which on it is worth building again.
    #[serde(default = "some_megabytes")]
    bloat_size: ByteSize,
    /// Whether estimates are confirmed by reading pages, where the extension pgstattuple is there.
    #[serde(default = "yes")]
    confirm: bool,
    /// Larger indexes are not read for that.
    #[serde(default = "a_gigabyte")]
    confirm_up_to: ByteSize,
    /// Fingerprints of advice that a person does not want.
    #[serde(default)]
    rejected: Vec<String>,
}

const fn four_tenths() -> f64 {
    0.4
}

const fn some_megabytes() -> ByteSize {
    ByteSize(16 << 20)
}

const fn yes() -> bool {
    true
}

const fn a_gigabyte() -> ByteSize {
    ByteSize(1 << 30)
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many B-trees were looked at.
    checked: u64,
    /// How many are mostly empty.
    bloated: u64,
    /// The bytes that building them again gives back.
    reclaimable_bytes: u64,
    /// Those, the most bytes first.
    findings: Vec<Finding>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
    /// What is advised.
    #[serde(flatten)]
    advice: Advice,
}

/// One index.
#[derive(Debug, Serialize, JsonSchema)]
struct Finding {
    /// The table.
    table: String,
    /// The index.
    index: String,
    /// Its bytes.
    size_bytes: u64,
    /// The bytes that building it again gives back.
    bloat_bytes: u64,
    /// The same as a share of it.
    bloat_ratio: f64,
    /// How that is known.
    source: Source,
}

/// How bloat is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// Estimated from statistics.
    Estimate,
    /// Estimated, with a guess at how well equal entries are merged.
    Guess,
    /// Measured by `pgstatindex`.
    Pgstatindex,
}

#[derive(Deserialize)]
struct Extension {
    schema_name: String,
    may_use: bool,
}

impl ReadTool for DetectBloatedIndexes {
    const META: ToolMeta = ToolMeta {
        name: "detect_bloated_indexes",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds B-tree indexes that are mostly empty",
        sql: &[&INDEXES, &ENTRIES, &EXTENSION],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let indexes = look(cx).await?;
        let entries: Vec<Entries> = cx.pg.rows(&ENTRIES, &[]).await?;
        let mut missing = locked_tables(&indexes);
        let trees = Trees::new(&indexes, &entries);
        let suspects = trees.suspects(&params);
        let pages = if params.confirm {
            confirm(cx, &suspects, &params, &mut missing).await?
        } else {
            BTreeMap::new()
        };
        missing.extend(trees.unknown(&params));
        let found = findings(&suspects, &pages, &params);
        let decided = decided(cx, &params.rejected).await?;
        let now = cx.clock.now().to_string();
        let today = found.iter().map(|(finding, index)| advice(index, finding, &now)).collect();
        let advice = continued(cx.earlier, today, &decided, |old| has_effect(&indexes, old));
        Ok(Output {
            checked: trees.0.len() as u64,
            bloated: found.len() as u64,
            reclaimable_bytes: advice.bytes(),
            findings: found.into_iter().map(|(finding, _)| finding).collect(),
            not_measured: missing,
            advice,
        })
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

/// B-trees with their estimates.
struct Trees<'a>(Vec<(&'a IndexRow, Option<Estimate>)>);

impl<'a> Trees<'a> {
    fn new(indexes: &'a [IndexRow], entries: &[Entries]) -> Self {
        let by_oid: BTreeMap<i64, &Entries> = entries.iter().map(|it| (it.oid, it)).collect();
        let usable = indexes.iter().filter(|index| index.is_usable() && !index.is_partitioned);
        let tree = |index: &'a IndexRow| {
            let entries = by_oid.get(&index.oid)?;
            Some((index, estimate(index, entries)))
        };
        Self(usable.filter_map(tree).collect())
    }

    /// Those whose estimate is beyond the limits, the most bytes first.
    fn suspects(&self, params: &Params) -> Vec<(&'a IndexRow, Estimate)> {
        let mut suspects: Vec<_> = self
            .0
            .iter()
            .filter_map(|(index, estimate)| Some((*index, (*estimate)?)))
            .filter(|(_, estimate)| is_worth_it(estimate.bloat, params))
            .collect();
        suspects.sort_by_key(|(_, estimate)| std::cmp::Reverse(estimate.bloat.bytes));
        suspects
    }

    /// Large ones about which the statistics say nothing.
    fn unknown(&self, params: &Params) -> Option<NotMeasured> {
        let blind = |(index, estimate): &&(&IndexRow, Option<Estimate>)| {
            estimate.is_none() && index.size_bytes >= params.bloat_size.0
        };
        let count = self.0.iter().filter(blind).count();
        (count > 0).then(|| {
            let why = format!("{count} large indexes have no statistics that we may see");
            let help = "analyze, or grant pg_read_all_data to current_user";
            NotMeasured::new("bloat", why).needs(help)
        })
    }
}

fn is_worth_it(bloat: Bloat, params: &Params) -> bool {
    bloat.ratio >= params.bloat_ratio && bloat.bytes >= params.bloat_size.0
}

async fn confirm(
    cx: &ReadContext<'_>,
    suspects: &[(&IndexRow, Estimate)],
    params: &Params,
    missing: &mut Vec<NotMeasured>,
) -> Result<BTreeMap<i64, Pages>, Failure> {
    let mut pages = BTreeMap::new();
    if suspects.is_empty() {
        return Ok(pages);
    }
    let extensions: Vec<Extension> = cx.pg.rows(&EXTENSION, &[]).await?;
    let Some(extension) = extensions.first() else { return Ok(pages) };
    if !extension.may_use {
        let hidden = NotMeasured::new("bloat by pgstatindex", "we may not use the extension");
        missing.push(hidden.needs("grant pg_stat_scan_tables to current_user"));
        return Ok(pages);
    }
    let text = format!(
        "select leaf_pages, internal_pages, avg_leaf_density as leaf_density, \
         pg_catalog.current_setting('block_size')::int4 as block_size \
         from {}.pgstatindex($1::text::pg_catalog.regclass)",
        Ident::new(&extension.schema_name)
    );
    let readable = suspects.iter().filter(|(index, _)| index.size_bytes <= params.confirm_up_to.0);
    for (index, _) in readable.take(MOST_CONFIRMED) {
        let name = &index.index_name;
        let query = Query::with_binds(text.clone(), vec![Bind::Text(name.clone())]);
        // An index that is too large to be read in time keeps its estimate.
        match cx.pg.query("pgstatindex", &query).await {
            Ok(rows) => {
                let first = rows.into_iter().next();
                let read = first.and_then(|row| serde_json::from_value(row).ok());
                pages.extend(read.map(|read: Pages| (index.oid, read)));
            }
            Err(error) => {
                let what = format!("bloat of {name} by pgstatindex");
                missing.push(NotMeasured::new(what, error.to_string()));
            }
        }
    }
    Ok(pages)
}

fn findings<'a>(
    suspects: &[(&'a IndexRow, Estimate)],
    pages: &BTreeMap<i64, Pages>,
    params: &Params,
) -> Vec<(Finding, &'a IndexRow)> {
    let finding = |(index, estimate): &(&'a IndexRow, Estimate)| {
        let (bloat, source) = match pages.get(&index.oid) {
            Some(pages) => (measured(index, pages), Source::Pgstatindex),
            None if estimate.merged => (estimate.bloat, Source::Guess),
            None => (estimate.bloat, Source::Estimate),
        };
        let finding = Finding {
            table: index.table_name.clone(),
            index: index.index_name.clone(),
            size_bytes: index.size_bytes,
            bloat_bytes: bloat.bytes,
            bloat_ratio: bloat.ratio,
            source,
        };
        is_worth_it(bloat, params).then_some((finding, *index))
    };
    let mut found: Vec<_> = suspects.iter().filter_map(finding).collect();
    found.sort_by_key(|(finding, _)| std::cmp::Reverse(finding.bloat_bytes));
    found
}

fn advice(index: &IndexRow, finding: &Finding, now: &str) -> Recommendation {
    let how = match finding.source {
        Source::Pgstatindex => "its pages say",
        Source::Estimate => "statistics say",
        Source::Guess => "statistics suggest",
    };
    Recommendation {
        fingerprint: Identity::Reindex { index: &index.index_name }.fingerprint(),
        kind: Kind::ReindexBloated,
        schema: index.schema_name.clone(),
        table: index.table_relation.clone(),
        index: index.relation_name.clone(),
        columns: index.keys.clone(),
        confidence: match finding.source {
            Source::Pgstatindex => Confidence::High,
            Source::Estimate => Confidence::Medium,
            Source::Guess => Confidence::Low,
        },
        why: format!("{how} that {:.0} % of it are empty", finding.bloat_ratio * 100.0),
        impact: format!("frees {}", ByteSize(finding.bloat_bytes)),
        bytes: finding.bloat_bytes,
        statement: format!("reindex index concurrently {}", index.qualified()),
        undo: None,
        blocks_writers: false,
        relies_on: Vec::new(),
        verified: false,
        verification: None,
        status: Status::Pending,
        first_seen: now.to_owned(),
    }
}
