//! Finds indexes that nobody has used for long enough, by our own observation over several runs and over
//! all read replicas.
//!
//! Reads: the catalog of indexes and foreign keys, the counters of indexes and how far back they go.
//! Changes: nothing.
//! Undo: nothing to undo; each piece of advice carries the statement that takes it back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{ByteSize, Failure, Risk, Span, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::foreign_keys::ForeignKey;
use crate::tools::analysis::index::IndexRow;
use crate::tools::analysis::index_usage::{
    Counters, Observation, Use, identity, observe, quiet_since, total_use,
};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::context::ReadContext;
use crate::tools::index_state::{FOREIGN_KEYS, INDEXES, has_effect, locked_tables, look};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectUnusedIndexes));

static COUNTERS: SqlFile = sql_file!("performance/detect_unused_indexes");

/// A window that holds the work of a month's end.
const WHOLE_MONTH: Span = Span::from_secs(35 * 86_400);

struct DetectUnusedIndexes;

/// What counts as unused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How long nobody may have used it.
    #[serde(default = "a_week")]
    unused_for: Span,
    /// Indexes smaller than this are left alone.
    #[serde(default = "a_megabyte")]
    min_size: ByteSize,
    /// Outputs of this tool on the read replicas: an index counts as unused only where all agree.
    #[serde(default)]
    replicas: Vec<Value>,
    /// How many read replicas there are, where the server does not see them; by default those that are
    /// connected to it.
    #[serde(default)]
    replica_count: Option<u64>,
    /// Fingerprints of advice that a person does not want.
    #[serde(default)]
    rejected: Vec<String>,
}

const fn a_week() -> Span {
    Span::from_secs(7 * 86_400)
}

const fn a_megabyte() -> ByteSize {
    ByteSize(1 << 20)
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many indexes were looked at.
    checked: u64,
    /// How many nobody has used for long enough.
    unused: u64,
    /// The bytes of those.
    reclaimable_bytes: u64,
    /// Every index of some size that may be dropped and is not in use, the largest first.
    findings: Vec<Finding>,
    /// What this run saw; the next run goes on from here, and so does the primary for a replica.
    observation: Observation,
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
    /// What is known.
    verdict: Verdict,
    /// Why it is not called unused, when it is not.
    why: Option<String>,
    /// Nobody has used it since, as far as was seen.
    quiet_since: String,
    /// The days since then.
    quiet_days: f64,
    /// Its bytes.
    size_bytes: u64,
}

/// What is known of the use of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// Nobody has used it for long enough, anywhere.
    Unused,
    /// Not used so far, and not watched for long enough.
    Watching,
    /// Not used here; a read replica may use it.
    Unknown,
    /// Not used, and yet needed.
    Needed,
}

impl ReadTool for DetectUnusedIndexes {
    const META: ToolMeta = ToolMeta {
        name: "detect_unused_indexes",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds indexes that nobody uses, by our own observation over time",
        sql: &[&INDEXES, &FOREIGN_KEYS, &COUNTERS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let seen = Seen {
            indexes: look(cx).await?,
            keys: cx.pg.rows(&FOREIGN_KEYS, &[]).await?,
            counters: cx.pg.row(&COUNTERS, &[]).await?,
            now: cx.clock.now(),
            server: cx.pg.server().await?.identity(),
        };
        Ok(judge(&seen, cx.earlier, &params))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

/// What was looked at.
struct Seen {
    indexes: Vec<IndexRow>,
    keys: Vec<ForeignKey>,
    counters: Counters,
    now: Timestamp,
    server: String,
}

fn judge(seen: &Seen, earlier: &[Value], params: &Params) -> Output {
    let candidates: Vec<(&IndexRow, Use)> = seen
        .indexes
        .iter()
        // Checks of uniqueness do not count as uses.
        .filter(|index| index.is_usable() && index.duty().is_none() && !index.is_unique)
        .map(|index| (index, total_use(index, &seen.indexes)))
        .collect();
    let before = earlier.first().and_then(observation);
    let observation =
        observe((seen.now, &seen.server), &seen.counters, &candidates, before.as_ref());
    let jury = Jury::new(seen, &observation, params);
    let mut findings: Vec<(Finding, &IndexRow)> = candidates
        .iter()
        .filter(|(_, usage)| usage.bytes >= params.min_size.0)
        .filter_map(|(index, usage)| Some((jury.finding(index, usage)?, *index)))
        .collect();
    findings.sort_by_key(|(finding, _)| std::cmp::Reverse(finding.size_bytes));
    let unused = |finding: &Finding| finding.verdict == Verdict::Unused;
    let now = seen.now.to_string();
    let today = findings.iter().filter(|(finding, _)| unused(finding));
    let today = today.map(|(finding, index)| advice(index, finding, &now)).collect();
    let gone = |old: &Recommendation| has_effect(&seen.indexes, old);
    let advice = continued(earlier, today, &params.rejected, gone);
    let findings: Vec<Finding> = findings.into_iter().map(|(finding, _)| finding).collect();
    Output {
        checked: seen.indexes.len() as u64,
        unused: findings.iter().filter(|finding| unused(finding)).count() as u64,
        reclaimable_bytes: advice.bytes(),
        not_measured: not_measured(seen),
        findings,
        observation,
        advice,
    }
}

fn observation(output: &Value) -> Option<Observation> {
    output.get("observation").and_then(|seen| Observation::deserialize(seen).ok())
}

fn not_measured(seen: &Seen) -> Vec<NotMeasured> {
    let mut missing = locked_tables(&seen.indexes);
    if !seen.counters.counts {
        let what = NotMeasured::new("use of indexes", "the server does not count it");
        missing.push(what.needs("alter system set track_counts = on"));
    }
    missing
}

/// Decides about one index after the other.
struct Jury<'a> {
    seen: &'a Seen,
    here: &'a Observation,
    replicas: Vec<Observation>,
    missing: u64,
    params: &'a Params,
}

impl<'a> Jury<'a> {
    fn new(seen: &'a Seen, here: &'a Observation, params: &'a Params) -> Self {
        let replicas: Vec<_> = params.replicas.iter().filter_map(observation).collect();
        let expected = params.replica_count.unwrap_or(seen.counters.standbys);
        let missing = expected.saturating_sub(replicas.len() as u64);
        Self { seen, here, replicas, missing, params }
    }

    /// What is known of an index; `None` when it is in use.
    fn finding(&self, index: &IndexRow, usage: &Use) -> Option<Finding> {
        let id = identity(index);
        let here = quiet_since(&id, std::iter::once(self.here))?;
        let everywhere = quiet_since(&id, std::iter::once(self.here).chain(self.replicas.iter()));
        let quiet = self.seen.now.since(everywhere.unwrap_or(here));
        let is_long = quiet >= self.params.unused_for.0;
        if !is_long && usage.scans > 0 {
            return None;
        }
        let (verdict, why) = self.verdict(index, everywhere.is_some(), is_long);
        Some(Finding {
            table: index.table_name.clone(),
            index: index.index_name.clone(),
            verdict,
            why,
            quiet_since: everywhere.unwrap_or(here).to_string(),
            quiet_days: (quiet.as_secs_f64() / 8_640.0).round() / 10.0,
            size_bytes: usage.bytes,
        })
    }

    fn verdict(
        &self,
        index: &IndexRow,
        known_everywhere: bool,
        is_long: bool,
    ) -> (Verdict, Option<String>) {
        if let Some(why) = self.needed_for(index) {
            return (Verdict::Needed, Some(why));
        }
        if self.seen.counters.in_recovery {
            let why = "this is a read replica: the primary decides, with this output";
            return (Verdict::Unknown, Some(why.to_owned()));
        }
        if !self.seen.counters.counts {
            return (Verdict::Unknown, Some("the server does not count".to_owned()));
        }
        if self.missing > 0 {
            let why = format!("{} read replicas were not asked", self.missing);
            return (Verdict::Unknown, Some(why));
        }
        if !known_everywhere {
            return (Verdict::Unknown, Some("a read replica does not know it".to_owned()));
        }
        if !is_long {
            let why = format!("watched for less than {}", self.params.unused_for);
            return (Verdict::Watching, Some(why));
        }
        (Verdict::Unused, None)
    }

    /// What an index that is never read is needed for.
    fn needed_for(&self, index: &IndexRow) -> Option<String> {
        let only_one = |key: &&ForeignKey| {
            let others: Vec<IndexRow> = self
                .seen
                .indexes
                .iter()
                .filter(|other| other.oid != index.oid && other.parent_oid != Some(index.oid))
                .cloned()
                .collect();
            key.is_served(&self.seen.indexes) && !key.is_served(&others)
        };
        let mut keys = self.seen.keys.iter().filter(|key| {
            key.table_oid == index.table_oid
                || key.leaves.as_ref().is_some_and(|all| all.contains(&index.table_oid))
        });
        if let Some(key) = keys.find(only_one) {
            return Some(format!("foreign key `{}` has no other index", key.constraint_name));
        }
        let has_expression = index.columns.contains(&0);
        has_expression.then(|| "the planner has statistics of its expression".to_owned())
    }
}

fn advice(index: &IndexRow, finding: &Finding, now: &str) -> Recommendation {
    let whole_month = WHOLE_MONTH.0.as_secs_f64() / 86_400.0;
    let sure = finding.quiet_days >= whole_month;
    Recommendation {
        fingerprint: Identity::Drop { definition: &index.definition }.fingerprint(),
        kind: Kind::DropUnused,
        schema: index.schema_name.clone(),
        table: index.table_relation.clone(),
        index: index.relation_name.clone(),
        columns: index.keys.clone(),
        confidence: if sure { Confidence::High } else { Confidence::Medium },
        why: format!("nobody has used it since {}", finding.quiet_since),
        impact: format!(
            "frees {}, and every write keeps one index less",
            ByteSize(finding.size_bytes)
        ),
        bytes: finding.size_bytes,
        statement: index.drop_statement(),
        undo: Some(index.create_statement()),
        blocks_writers: index.is_partitioned,
        verified: false,
        status: Status::Pending,
        first_seen: now.to_owned(),
    }
}
