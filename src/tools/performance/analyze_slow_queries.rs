//! Says of the statements that cost the most what is wrong with them and why, by rules over their plans,
//! texts and counters. No statement is run, and no model is asked.
//!
//! Reads: `pg_stat_statements`, generic plans, the planner's statistics, the catalog of indexes.
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::missing_index::Statement;
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::plan_tree::Node;
use crate::tools::analysis::slow_query::{Finding, judge};
use crate::tools::context::ReadContext;
use crate::tools::index_state::INDEXES;
use crate::tools::statements_state::{EXTENSION, INFO};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};
use crate::tools::workload::{self, COLUMNS, TABLES, WORKLOAD};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(AnalyzeSlowQueries));

struct AnalyzeSlowQueries;

/// Which statements.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many, those that took the most time in all first: a quick one that is carried out all day counts.
    #[serde(default = "twenty")]
    most: u32,
    /// Statements that were carried out less often are left alone.
    #[serde(default = "two")]
    min_calls: u32,
    /// Statements whose calls are quicker on average are left out; by default none are.
    #[serde(default)]
    min_mean_exec_ms: f64,
    /// Tables with fewer rows are read fast enough.
    #[serde(default = "ten_thousand")]
    min_rows: u64,
}

const fn twenty() -> u32 {
    20
}

const fn two() -> u32 {
    2
}

const fn ten_thousand() -> u64 {
    10_000
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many statements were analyzed.
    slow_queries_analyzed: u64,
    /// Each of them, the one that took the most time first.
    analyses: Vec<Analysis>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
}

/// One statement.
#[derive(Debug, Serialize, JsonSchema)]
struct Analysis {
    /// Its identity in `pg_stat_statements`.
    queryid: i64,
    /// Its text, without literals.
    query: String,
    /// How often it was carried out.
    total_calls: i64,
    /// The milliseconds of one call.
    mean_exec_time_ms: f64,
    /// The milliseconds of all calls.
    total_exec_time_ms: f64,
    /// The share of the time of all statements that were looked at.
    time_share: f64,
    /// The rows of one call.
    rows_per_call: f64,
    /// The pages that one call asked for.
    pages_per_call: f64,
    /// What is wrong with it, the worst first; empty when no rule says anything.
    findings: Vec<Finding>,
    /// Node types, tables and indexes of its plan: two equal ones work alike.
    plan: Option<String>,
    /// What the planner thinks it costs.
    cost: Option<f64>,
}

impl ReadTool for AnalyzeSlowQueries {
    const META: ToolMeta = ToolMeta {
        name: "analyze_slow_queries",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Says what is wrong with the statements that cost the most, by rules",
        sql: &[&INDEXES, &TABLES, &COLUMNS, &EXTENSION, &INFO, &WORKLOAD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let known = workload::known(cx, params.min_rows).await?;
        let workload = workload::look(cx, params.most, params.min_calls).await?;
        let total: f64 = workload.statements.iter().map(|it| it.total_ms).sum();
        let planned = workload.statements.iter().zip(&workload.plans);
        let slow = planned.filter(|(it, _)| it.mean_ms() >= params.min_mean_exec_ms);
        let analyses: Vec<Analysis> = slow
            .map(|(it, plan)| {
                let findings = judge(it, plan.as_ref(), &known);
                analysis(it, plan.as_ref(), findings, total)
            })
            .collect();
        Ok(Output {
            slow_queries_analyzed: analyses.len() as u64,
            analyses,
            not_measured: workload.not_measured,
        })
    }
}

fn analysis(
    statement: &Statement,
    plan: Option<&Node>,
    findings: Vec<Finding>,
    total_ms: f64,
) -> Analysis {
    Analysis {
        queryid: statement.queryid,
        query: statement.query.clone(),
        total_calls: statement.calls,
        mean_exec_time_ms: rounded(statement.mean_ms()),
        total_exec_time_ms: rounded(statement.total_ms),
        time_share: rounded(statement.total_ms / total_ms.max(f64::MIN_POSITIVE)),
        rows_per_call: rounded(statement.rows_per_call()),
        pages_per_call: rounded(statement.blocks_per_call()),
        findings,
        plan: plan.map(Node::fingerprint),
        cost: plan.map(|plan| rounded(plan.cost)),
    }
}
