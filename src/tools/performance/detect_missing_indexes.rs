//! Finds indexes that the recorded workload asks for, by the plans of its statements: conditions that few
//! rows fulfil, on large tables that are read from end to end for them.
//!
//! Reads: `pg_stat_statements`, generic plans (nothing is run), the planner's statistics, the catalog of
//! indexes, counters of tables.
//! Changes: nothing.
//! Undo: nothing to undo; each piece of advice carries the statement that takes it back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ByteSize, Failure, Ident, QualifiedName, Risk};
use crate::tools::analysis::index::free_name;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::missing_index::{
    Candidate, Known, PassedOver, Statement, Table, asked, candidates,
};
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::recommendation::{
    Advice, Confidence, Identity, Kind, Recommendation, Status, continued,
};
use crate::tools::analysis::text::shorten;
use crate::tools::context::ReadContext;
use crate::tools::index_state::{INDEXES, decided, has_effect};
use crate::tools::statements_state::{EXTENSION, INFO};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};
use crate::tools::workload::{self, COLUMNS, TABLES, WORKLOAD, Workload};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectMissingIndexes));

struct DetectMissingIndexes;

/// Which tables and statements count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Tables with fewer rows are read fast enough.
    #[serde(default = "ten_thousand")]
    min_rows: u64,
    /// Statements that were carried out less often are left alone.
    #[serde(default = "ten")]
    min_calls: u32,
    /// How many statements are looked at, those that took the most time first.
    #[serde(default = "two_hundred")]
    most_statements: u32,
    /// Fingerprints of advice that a person does not want.
    #[serde(default)]
    rejected: Vec<String>,
}

const fn ten_thousand() -> u64 {
    10_000
}

const fn ten() -> u32 {
    10
}

const fn two_hundred() -> u32 {
    200
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many statements were looked at.
    checked: u64,
    /// How many of them the server could plan.
    explained: u64,
    /// The indexes that are missing, those that cost the most time first.
    findings: Vec<Finding>,
    /// Tables that are read from end to end and want no index, with the reason.
    passed_over: Vec<Passed>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
    /// What is advised.
    #[serde(flatten)]
    advice: Advice,
}

/// One missing index.
#[derive(Debug, Serialize, JsonSchema)]
struct Finding {
    /// The table.
    table: String,
    /// The keys, in order.
    columns: Vec<String>,
    /// The table's rows.
    rows: f64,
    /// The rows that a statement would read by the index, as the statistics have it.
    expected_rows: f64,
    /// The bytes that the index would have.
    size_bytes: u64,
    /// The statements that ask for it.
    statements: Vec<Asking>,
    /// Rows written since the counters began: each keeps one index more.
    writes: i64,
    /// The share of updates that touched no index; one on a changed column ends that.
    hot_ratio: Option<f64>,
}

/// A statement that asks for an index.
#[derive(Debug, Serialize, JsonSchema)]
struct Asking {
    /// Its identity in `pg_stat_statements`.
    queryid: i64,
    /// Its text without literals, the first 200 characters.
    query: String,
    /// How often it was carried out.
    calls: i64,
    /// The milliseconds of one call.
    mean_ms: f64,
    /// The milliseconds of all calls.
    total_ms: f64,
    /// The pages that one call asked for.
    pages_per_call: f64,
}

/// A table that wants no index.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
struct Passed {
    /// The table.
    table: String,
    /// Why.
    why: String,
    /// How many statements that holds for.
    statements: u64,
}

impl ReadTool for DetectMissingIndexes {
    const META: ToolMeta = ToolMeta {
        name: "detect_missing_indexes",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds indexes that the recorded workload asks for, by its plans",
        sql: &[&INDEXES, &TABLES, &COLUMNS, &EXTENSION, &INFO, &WORKLOAD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let known = workload::known(cx, params.min_rows).await?;
        let workload = workload::look(cx, params.most_statements, params.min_calls).await?;
        let now = cx.clock.now().to_string();
        let decided = decided(cx, &params.rejected).await?;
        let (found, passed_over) = judge(&workload, &known);
        let mut taken = Vec::new();
        let today = found
            .iter()
            .filter_map(|candidate| {
                advice(candidate, &workload.statements, &known, &now, &mut taken)
            })
            .collect();
        let advice = continued(cx.earlier, today, &decided, |old| has_effect(&known.indexes, old));
        Ok(Output {
            checked: workload.statements.len() as u64,
            explained: workload.plans.iter().flatten().count() as u64,
            findings: found.iter().filter_map(|it| finding(it, &workload, &known)).collect(),
            passed_over,
            not_measured: workload.not_measured,
            advice,
        })
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.advice.history_rows()
    }
}

/// The candidates, those whose statements took the most time first, and what was passed over.
fn judge(workload: &Workload, known: &Known) -> (Vec<Candidate>, Vec<Passed>) {
    let mut wants = Vec::new();
    let mut passed: BTreeMap<(String, PassedOver), u64> = BTreeMap::new();
    let planned = workload.statements.iter().zip(&workload.plans).enumerate();
    for (place, (statement, plan)) in planned {
        let Some(plan) = plan else { continue };
        let asked = asked(plan, (place, statement), known);
        wants.extend(asked.wants);
        for (oid, why) in asked.passed_over {
            if let Some(table) = known.tables.iter().find(|table| table.oid == oid) {
                *passed.entry((table.table_name.clone(), why)).or_default() += 1;
            }
        }
    }
    let mut found = candidates(&wants, known);
    let time = |candidate: &Candidate| -> f64 {
        statements(candidate, &workload.statements).map(|statement| statement.total_ms).sum()
    };
    found.sort_by(|one, two| time(two).total_cmp(&time(one)).then_with(|| one.keys.cmp(&two.keys)));
    let passed = passed.into_iter().map(|((table, why), statements)| Passed {
        table,
        why: why.text().to_owned(),
        statements,
    });
    (found, passed.collect())
}

fn statements<'a>(
    candidate: &'a Candidate,
    all: &'a [Statement],
) -> impl Iterator<Item = &'a Statement> {
    candidate.statements.iter().filter_map(|place| all.get(*place))
}

fn finding(candidate: &Candidate, workload: &Workload, known: &Known) -> Option<Finding> {
    let table = known.tables.iter().find(|table| table.oid == candidate.table)?;
    let asking = |statement: &Statement| Asking {
        queryid: statement.queryid,
        query: shorten(&statement.query),
        calls: statement.calls,
        mean_ms: rounded(statement.mean_ms()),
        total_ms: rounded(statement.total_ms),
        pages_per_call: rounded(statement.blocks_per_call()),
    };
    Some(Finding {
        table: table.table_name.clone(),
        columns: candidate.keys.clone(),
        rows: table.rows,
        expected_rows: rounded(candidate.expected_rows),
        size_bytes: candidate.bytes,
        statements: statements(candidate, &workload.statements).map(asking).collect(),
        writes: table.inserted + table.updated + table.deleted,
        hot_ratio: hot_ratio(table),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn hot_ratio(table: &Table) -> Option<f64> {
    (table.updated > 0).then(|| rounded(table.hot_updated as f64 / table.updated as f64))
}

fn advice(
    candidate: &Candidate,
    all: &[Statement],
    known: &Known,
    now: &str,
    taken: &mut Vec<String>,
) -> Option<Recommendation> {
    let table = known.tables.iter().find(|table| table.oid == candidate.table)?;
    let name = free_name(&table.relation_name, &candidate.keys, |name| {
        taken.iter().any(|other| other == name)
            || known
                .indexes
                .iter()
                .any(|index| index.schema_name == table.schema_name && index.relation_name == name)
    });
    taken.push(name.clone());
    let (calls, total_ms) = statements(candidate, all)
        .fold((0, 0.0), |(calls, ms), it| (calls + it.calls, ms + it.total_ms));
    let qualified = QualifiedName::new(&table.schema_name, &table.relation_name);
    let (columns, ident) = (candidate.keys.join(", "), Ident::new(&name));
    let writes = table.inserted + table.updated + table.deleted;
    Some(Recommendation {
        fingerprint: Identity::Create {
            table: &table.table_name,
            method: "btree",
            keys: &candidate.keys,
            predicate: None,
        }
        .fingerprint(),
        kind: Kind::CreateMissing,
        schema: table.schema_name.clone(),
        table: table.relation_name.clone(),
        columns: candidate.keys.clone(),
        confidence: if candidate.is_top { Confidence::Low } else { Confidence::Medium },
        why: format!(
            "{} statements read all {:.0} rows {calls} times, {:.0} ms in all, for about {:.0} rows each",
            candidate.statements.len(),
            table.rows,
            total_ms,
            candidate.expected_rows
        ),
        impact: format!(
            "reads about {:.0} rows instead of {:.0}; about {} large, and {writes} writes so far would \
             have kept it",
            candidate.expected_rows,
            table.rows,
            ByteSize(candidate.bytes)
        ),
        bytes: candidate.bytes,
        statement: format!("create index concurrently {ident} on {qualified} ({columns})"),
        undo: Some(format!(
            "drop index concurrently {}",
            QualifiedName::new(&table.schema_name, &name)
        )),
        index: name,
        blocks_writers: false,
        relies_on: Vec::new(),
        verified: false,
        verification: None,
        status: Status::Pending,
        first_seen: now.to_owned(),
    })
}
