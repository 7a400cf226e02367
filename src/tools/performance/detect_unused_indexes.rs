//! Finds indexes that nobody has used for long enough, by our own observation over several runs and over
//! all read replicas.
//!
//! Reads: the catalog of indexes and foreign keys, the counters of indexes and how far back they go.
//! Changes: nothing.
//! Undo: nothing to undo; each piece of advice carries the statement that takes it back.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Bind, ByteSize, Failure, Query, Risk, Span, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::foreign_keys::ForeignKey;
use crate::tools::analysis::index::IndexRow;
use crate::tools::analysis::index_usage::{
    Counters, Observation, Quiet, Use, identity, observe, quiet_since, total_use,
};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Decided, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::context::ReadContext;
use crate::tools::index_state::{FOREIGN_KEYS, INDEXES, decided, has_effect, locked_tables, look};
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
        let server = cx.pg.server().await?;
        let seen = Seen {
            indexes: look(cx).await?,
            keys: cx.pg.rows(&FOREIGN_KEYS, &[]).await?,
            counters: cx.pg.row(&COUNTERS, &[]).await?,
            now: cx.clock.now(),
            server: server.identity(),
            started: server.postmaster_start,
        };
        let decided = decided(cx, &params.rejected).await?;
        let before = match cx.earlier.first().and_then(observation) {
            Some(before) => Some(before),
            None => recorded(cx, &seen).await?,
        };
        Ok(judge(&seen, (cx.earlier, &decided, before.as_ref()), &params))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

/// What the history knows of indexes since the server was started: for who has no run of his own to go on
/// from. Counters may have been lost before, so it says nothing of earlier days.
async fn recorded(cx: &ReadContext<'_>, seen: &Seen) -> Result<Option<Observation>, Failure> {
    let Some(history) = cx.history else { return Ok(None) };
    let text = "select index_definition, index_name, idx_scan, stats_reset, postmaster_start, \
         min(snapshot_timestamp) as since, max(snapshot_timestamp) as last from index_stats \
         where is_replica is not true and index_definition is not null and idx_scan is not null \
         and coalesce(project_id, '') = $1 and coalesce(branch_id, '') = $2 \
         and coalesce(database_name, '') = $3 \
         group by index_definition, index_name, idx_scan, stats_reset, postmaster_start";
    let part = |part: &Option<String>| Bind::Text(part.clone().unwrap_or_default());
    let target = cx.target;
    let binds = vec![part(&target.project), part(&target.branch), part(&target.database)];
    let rows = history.query(&Query::with_binds(text, binds)).await?;
    let rows = rows.into_iter().filter_map(|row| serde_json::from_value(row).ok()).collect();
    Ok(quiet_by_history(rows, seen))
}

/// How often an index was used, from one tick to another, as the history has it.
#[derive(Deserialize)]
struct Ticks {
    index_definition: String,
    index_name: Option<String>,
    idx_scan: i64,
    stats_reset: Option<Timestamp>,
    postmaster_start: Option<Timestamp>,
    since: Timestamp,
    last: Timestamp,
}

fn quiet_by_history(mut rows: Vec<Ticks>, seen: &Seen) -> Option<Observation> {
    rows.retain(|row| {
        row.stats_reset == seen.counters.reset_at && row.postmaster_start == Some(seen.started)
    });
    rows.sort_by_key(|row| row.last);
    let at = rows.last()?.last;
    // The newest count of each index comes last, and stays.
    let quiet = rows.into_iter().map(|row| {
        let Ticks { index_definition, index_name, idx_scan, since, .. } = row;
        let id = Identity::Drop { definition: &index_definition }.fingerprint();
        let index = index_name.unwrap_or_default();
        (id, Quiet { index, scans: idx_scan, since: since.to_string() })
    });
    Some(Observation {
        at: at.to_string(),
        server: Some(seen.server.clone()),
        reset_at: seen.counters.reset_at.map(|at| at.to_string()),
        transactions: 0,
        indexes: quiet.collect(),
    })
}

/// What was looked at.
struct Seen {
    indexes: Vec<IndexRow>,
    keys: Vec<ForeignKey>,
    counters: Counters,
    now: Timestamp,
    server: String,
    started: Timestamp,
}

/// What earlier runs left: their outputs, what was decided about advice, and how long indexes are quiet.
type Earlier<'a> = (&'a [Value], &'a Decided, Option<&'a Observation>);

fn judge(seen: &Seen, (earlier, decided, before): Earlier<'_>, params: &Params) -> Output {
    let candidates: Vec<(&IndexRow, Use)> = seen
        .indexes
        .iter()
        // Checks of uniqueness do not count as uses.
        .filter(|index| index.is_usable() && index.duty().is_none() && !index.is_unique)
        .map(|index| (index, total_use(index, &seen.indexes)))
        .collect();
    let observation = observe((seen.now, &seen.server), &seen.counters, &candidates, before);
    let jury = Jury::new(seen, &observation, params);
    let mut large: Vec<_> =
        candidates.iter().filter(|(_, usage)| usage.bytes >= params.min_size.0).collect();
    large.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.bytes));
    let mut findings: Vec<(Finding, &IndexRow)> = Vec::new();
    // Of several that serve one foreign key, the last one is needed.
    let mut gone = BTreeSet::new();
    for (index, usage) in large {
        let Some(finding) = jury.finding(index, usage, &gone) else { continue };
        if finding.verdict == Verdict::Unused {
            gone.insert(index.oid);
        }
        findings.push((finding, *index));
    }
    let unused = |finding: &Finding| finding.verdict == Verdict::Unused;
    let now = seen.now.to_string();
    let today = findings.iter().filter(|(finding, _)| unused(finding));
    let today = today.map(|(finding, index)| advice(index, finding, &now)).collect();
    let advice = continued(earlier, today, decided, |old| has_effect(&seen.indexes, old));
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
    fn finding(&self, index: &IndexRow, usage: &Use, gone: &BTreeSet<i64>) -> Option<Finding> {
        let id = identity(index);
        let here = quiet_since(&id, std::iter::once(self.here))?;
        let everywhere = quiet_since(&id, std::iter::once(self.here).chain(self.replicas.iter()));
        let quiet = self.seen.now.since(everywhere.unwrap_or(here));
        let is_long = quiet >= self.params.unused_for.0;
        if !is_long && usage.scans > 0 {
            return None;
        }
        let (verdict, why) = self.verdict(index, (everywhere.is_some(), is_long), gone);
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
        (known_everywhere, is_long): (bool, bool),
        gone: &BTreeSet<i64>,
    ) -> (Verdict, Option<String>) {
        if let Some(why) = self.needed_for(index, gone) {
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
    fn needed_for(&self, index: &IndexRow, gone: &BTreeSet<i64>) -> Option<String> {
        let only_one = |key: &&ForeignKey| {
            let others: Vec<IndexRow> = self
                .seen
                .indexes
                .iter()
                .filter(|other| other.oid != index.oid && other.parent_oid != Some(index.oid))
                .filter(|other| !gone.contains(&other.oid))
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
        relies_on: Vec::new(),
        verified: false,
        verification: None,
        status: Status::Pending,
        first_seen: now.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::tools::analysis::index::tests::index;

    fn at(days: u32) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(Duration::from_hours(24) * days)
    }

    fn seen(indexes: Vec<IndexRow>, now: Timestamp) -> Seen {
        let counters = Counters {
            reset_at: None,
            transactions: 100,
            in_recovery: false,
            standbys: 0,
            counts: true,
        };
        let (server, started) = ("7 16384".to_owned(), at(0));
        Seen { indexes, keys: Vec::new(), counters, now, server, started }
    }

    fn unused(seen: &Seen, before: Option<&Observation>) -> Vec<String> {
        let params = serde_json::from_value(json!({})).unwrap();
        let output = judge(seen, (&[], &Decided::default(), before), &params);
        output.advice.recommendations.into_iter().map(|it| it.index).collect()
    }

    #[test]
    fn the_history_knows_how_long_an_index_is_quiet() {
        let now = seen(vec![index(&json!({"scans": 4}))], at(20));
        let ticks = |scans: i64, from: u32, to: u32, started: u32| Ticks {
            index_definition: now.indexes[0].definition.clone(),
            index_name: None,
            idx_scan: scans,
            stats_reset: None,
            postmaster_start: Some(at(started)),
            since: at(from),
            last: at(to),
        };
        let told = |rows: Vec<Ticks>| unused(&now, quiet_by_history(rows, &now).as_ref());
        assert_eq!(told(vec![ticks(3, 1, 2, 0), ticks(4, 3, 19, 0)]), ["t_a_idx"]);
        assert!(told(vec![ticks(3, 1, 14, 0), ticks(4, 15, 19, 0)]).is_empty(), "used since");
        assert!(told(vec![ticks(4, 3, 19, 1)]).is_empty(), "counters of another start");
        assert!(told(Vec::new()).is_empty(), "nobody looked");
    }

    #[test]
    fn of_several_that_serve_a_foreign_key_one_stays() {
        let of = |oid: i64, name: &str, keys: &[&str]| {
            let row = json!({
                "oid": oid, "relation_name": name, "index_name": format!("public.{name}"),
                "definition": format!("CREATE INDEX {name} ON public.t USING btree (x)"),
                "keys": keys, "columns": vec![1; keys.len()], "classes": vec![1978; keys.len()],
                "collations": vec![0; keys.len()], "options": vec![0; keys.len()],
            });
            index(&row)
        };
        let mut now = seen(vec![of(1, "one", &["a", "b"]), of(2, "two", &["b", "a"])], at(20));
        let quiet = |seen: &Seen| {
            let indexes = seen.indexes.iter().map(|index| {
                let since = at(1).to_string();
                let quiet = Quiet { index: index.index_name.clone(), scans: 0, since };
                (identity(index), quiet)
            });
            Observation {
                at: at(19).to_string(),
                server: Some(seen.server.clone()),
                reset_at: None,
                transactions: 0,
                indexes: indexes.collect(),
            }
        };
        assert_eq!(unused(&now, Some(&quiet(&now))).len(), 2);
        let key = json!({
            "constraint_name": "fk", "schema_name": "public", "relation_name": "t",
            "table_name": "public.t", "is_partitioned": false, "referenced_name": "public.p",
            "columns": ["a", "b"], "collations": [0, 0], "leaves": [1], "table_oid": 1,
            "rows": 1000.0, "size_bytes": 8192, "parent_changes": 0, "enforced": true,
            "cascades": false,
        });
        now.keys.push(serde_json::from_value(key).unwrap());
        assert_eq!(unused(&now, Some(&quiet(&now))).len(), 1);
    }
}
