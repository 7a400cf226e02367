//! Says how well the tenants of shared tables are kept apart.
//!
//! Reads: the catalogue: tables, their policies and privileges, roles.
//! Changes: nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::tools::context::ReadContext;
use crate::tools::isolation::change::warnings;
use crate::tools::isolation::request::{Shared, Tenant};
use crate::tools::isolation::survey::{Exempt, ROLES, ROW_SECURITY, Survey};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(InspectRls));

struct InspectRls;

/// What is looked at.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The tables, and how a row tells whose it is.
    shared: Shared,
    /// The tenants as whom it is going to be tried: their roles must be there, and policies must hold them.
    #[serde(default)]
    tenants: Vec<Tenant>,
}

/// How the tables are protected.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The tables.
    tables: Vec<State>,
    /// Whether every table has the policy, row level security on, and forced on the owner.
    isolated: bool,
    /// Roles that no policy holds.
    exempt_roles: Vec<Exempt>,
}

/// How a table is protected.
#[derive(Serialize, JsonSchema)]
struct State {
    /// The table.
    table: String,
    /// Its owner.
    owner: Option<String>,
    /// Whether row level security is on.
    enabled: bool,
    /// Whether it holds the owner too.
    forced: bool,
    /// Whether our policy is there, with USING and WITH CHECK.
    policy: bool,
    /// What weakens the isolation, or makes it slow.
    warnings: Vec<String>,
}

impl ReadTool for InspectRls {
    const META: ToolMeta = ToolMeta {
        name: "inspect_rls",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Says how well the tenants of shared tables are kept apart",
        sql: &[&ROLES, &ROW_SECURITY],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let Params { shared, tenants } = params;
        let survey = Survey::look(cx.pg, &shared, &tenants).await?;
        survey.refuse_exempt_trial(&tenants)?;
        let tables: Vec<State> = survey
            .tables
            .iter()
            .map(|table| State {
                table: table.qualified().plain(),
                owner: table.owner.clone(),
                enabled: table.is_enabled(),
                forced: table.is_forced(),
                policy: table.has_policy(&shared),
                warnings: warnings(table, &survey, &shared),
            })
            .collect();
        let is_isolated = |one: &State| one.enabled && one.forced && one.policy;
        Ok(Output { isolated: tables.iter().all(is_isolated), tables, exempt_roles: survey.exempt })
    }
}
