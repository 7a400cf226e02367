//! Runs SQL statements that may write, to see what they do, and rolls them back.
//!
//! Reads: nothing.
//! Changes: nothing that stays. It runs on a branch that is there to be thrown away (its id begins with
//! `tmp-` and it expires by itself), as a role and with settings of one's choice.
//! Undo: there is nothing to undo.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Change, ChangeSet, Failure, Ident, Inverse, Operation, Risk, SqlStatement};
use crate::tools::analysis::statement::read_statement;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ExperimentSql));

struct ExperimentSql;

/// What is tried.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The statements, in order, all in one transaction that is rolled back.
    statements: Vec<String>,
    /// The role that they run as; by default the one that connects.
    #[serde(default)]
    role: Option<String>,
    /// Settings of the transaction, such as `app.tenant_id: acme`.
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// What was seen.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// What each statement did: `rows`, `returned` and `duration_ms`, or `sqlstate` and `error`. The
    /// statements after one that was refused were not tried.
    statements: Value,
    /// How long it took.
    duration_ms: Option<u64>,
}

impl WriteTool for ExperimentSql {
    const META: ToolMeta = ToolMeta {
        name: "experiment_sql",
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
        summary: "Tries SQL statements on a throw-away branch, and rolls them back",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, _: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let refused = |text: String| Failure::permanent("experiment_sql::refused", text);
        if params.statements.is_empty() {
            return Err(refused("`statements` is empty".to_owned()));
        }
        for (place, text) in (1..).zip(&params.statements) {
            read_statement(text)
                .map_err(|error| refused(format!("statement {place} is refused: {error}")))?;
        }
        let statements = params.statements.iter().map(SqlStatement::new).collect();
        let operation = Operation::SqlExperiment {
            role: params.role.map(Ident::new),
            settings: params.settings,
            statements,
        };
        let mut change = Change::new("a throw-away branch", "to see what it does", operation);
        change.inverse = Inverse::Unneeded;
        Ok(ChangeSet::new(vec![change]))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let receipt = settled.iter().find_map(Settled::receipt);
        Output {
            statements: receipt.map(|receipt| receipt.result.clone()).unwrap_or_default(),
            duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
        }
    }
}
