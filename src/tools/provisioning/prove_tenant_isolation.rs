//! Tries as the tenants whether they reach each other's rows.
//!
//! Reads: the catalogue: tables, their policies and owners, roles.
//! Changes: nothing that stays. Each tenant looks at, changes, removes, adds and hands over rows of
//! another, in transactions that are always rolled back, on a branch that is there to be thrown away; the
//! owner of the table and one who names no tenant try too.
//! Undo: there is nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::context::ReadContext;
use crate::tools::isolation::proof::{Shown, Verdict, experiments, judge};
use crate::tools::isolation::request::{Shared, Tenant, wrong};
use crate::tools::isolation::survey::{ROLES, ROW_SECURITY, Survey};
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ProveTenantIsolation));

struct ProveTenantIsolation;

/// What is tried.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The tables, and how a row tells whose it is.
    shared: Shared,
    /// The tenants that try; two at least, each with rows. Where no policy holds who works here, each needs a
    /// role of its own.
    tenants: Vec<Tenant>,
}

/// What was seen.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether every check holds; one that could not be measured does not.
    isolated: bool,
    /// Whether any check is broken.
    broken: bool,
    /// Each check.
    checks: Vec<Shown>,
}

impl WriteTool for ProveTenantIsolation {
    const META: ToolMeta = ToolMeta {
        name: "prove_tenant_isolation",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Tries as two tenants, on a throw-away branch, whether they reach each other's rows",
        sql: &[&ROLES, &ROW_SECURITY],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let Params { shared, tenants } = params;
        if tenants.len() < 2 {
            return Err(wrong(
                "it takes two tenants to see whether they are kept apart".to_owned(),
            ));
        }
        let survey = Survey::look(cx.pg, &shared, &tenants).await?;
        survey.refuse_exempt_trial(&tenants)?;
        let tables = survey.tables.iter();
        let wanted = (&shared, &tenants[..]);
        let changes = tables.flat_map(|table| experiments(table, &survey, wanted)).collect();
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let checks = judge(settled);
        let is = |verdict: Verdict| move |one: &Shown| one.verdict == verdict;
        Output {
            isolated: !checks.is_empty() && checks.iter().all(is(Verdict::Holds)),
            broken: checks.iter().any(is(Verdict::Broken)),
            checks,
        }
    }
}
