//! Collects the statements of the recorded workload that touch the tables of some advice, with the plans that
//! they have now, and says whether the advice can be tried on a branch.
//!
//! Reads: `pg_stat_statements`, generic plans (nothing is run).
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::Recommendation;
use crate::tools::analysis::trial::{Recorded, names};
use crate::tools::context::ReadContext;
use crate::tools::statements_state::{EXTENSION, INFO};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};
use crate::tools::workload::{self, PLANS, WORKLOAD};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CollectTableWorkload));

struct CollectTableWorkload;

/// Which statements.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The advice, as the detectors and `run_full_index_analysis` give it: its tables count.
    recommendations: Vec<Recommendation>,
    /// How many statements are looked at, those that took the most time first.
    #[serde(default = "two_hundred")]
    most_statements: u32,
    /// Statements that were carried out less often are left alone.
    #[serde(default = "two")]
    min_calls: u32,
}

const fn two_hundred() -> u32 {
    200
}

const fn two() -> u32 {
    2
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many statements were looked at.
    checked: u64,
    /// Those that touch one of the tables, those that took the most time first.
    statements: Vec<Recorded>,
    /// The epoch of the counters: counts of another one cannot be compared.
    epoch: Option<String>,
    /// Whether a branch can be made to try advice on.
    can_branch: bool,
    /// Why not.
    why_not: Option<String>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
}

impl ReadTool for CollectTableWorkload {
    const META: ToolMeta = ToolMeta {
        name: "collect_table_workload",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Collects the recorded statements that touch the tables of advice, with their plans",
        sql: &[&EXTENSION, &INFO, &WORKLOAD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let mut workload = workload::look(cx, params.most_statements, params.min_calls).await?;
        // What has no plan and may touch a table is among the statements.
        workload.not_measured.retain(|missing| missing.what != PLANS);
        if workload.statements.is_empty() && workload.not_measured.is_empty() {
            let why = format!("no statement was recorded {} times", params.min_calls);
            workload.not_measured.push(NotMeasured::new("the workload", why));
        }
        let epoch = match &workload.info {
            Some(info) => Some(info.epoch(cx.pg.server().await?.place())),
            None => None,
        };
        let wanted: BTreeSet<String> =
            params.recommendations.iter().map(Recommendation::table_name).collect();
        let recorded = workload.statements.iter().zip(&workload.plans).map(|(statement, plan)| {
            plan.as_ref().map_or_else(
                || {
                    let named = params.recommendations.iter();
                    let named = named.filter(|it| names(&statement.query, &it.table));
                    let tables = named.map(Recommendation::table_name).collect();
                    Recorded::without_plan(statement, tables)
                },
                |plan| Recorded::new(statement, plan),
            )
        });
        let why_not = why_not(cx);
        Ok(Output {
            checked: workload.statements.len() as u64,
            statements: recorded.filter(|it| !it.tables.is_disjoint(&wanted)).collect(),
            epoch,
            can_branch: why_not.is_none(),
            why_not,
            not_measured: workload.not_measured,
        })
    }
}

fn why_not(cx: &ReadContext<'_>) -> Option<String> {
    if cx.workspace.is_none() {
        return Some(
            "the connection is no Lakebase workspace, so no branch can be made".to_owned(),
        );
    }
    let unnamed = cx.target.project.is_none() || cx.target.branch.is_none();
    unnamed.then(|| "the target names no project and branch to branch from".to_owned())
}
