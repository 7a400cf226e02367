//! Keeps tenants apart: row level security on the tables that they share.
//!
//! Reads: the catalogue: tables, their policies and privileges, roles.
//! Changes: one transaction for each table that lacks something: a policy with USING and WITH CHECK on a
//! setting of the application, row level security on, and forced on the owner; privileges
//! for the tenants' roles. What is there is left alone.
//! Undo: exactly what was made is taken back; `usage` on the schema stays.
//!
//! Superusers and roles with BYPASSRLS see every row; they are reported. `prove_tenant_isolation` tries it
//! as the tenants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::context::ReadContext;
use crate::tools::isolation::change::{Facts, changes};
use crate::tools::isolation::request::{Shared, Tenant};
use crate::tools::isolation::survey::{Exempt, ROLES, ROW_SECURITY, Survey};
use crate::tools::tool::{AnyTool, Ending, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ConfigureRls));

struct ConfigureRls;

/// What is to be isolated.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The tables, and how a row tells whose it is.
    shared: Shared,
    /// The tenants whose roles get privileges on the tables.
    #[serde(default)]
    tenants: Vec<Tenant>,
}

/// What was done.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The tables that lacked something.
    tables: Vec<Done>,
    /// Roles that no policy holds.
    exempt_roles: Vec<Exempt>,
}

/// What became of a table.
#[derive(Serialize, JsonSchema)]
struct Done {
    /// The table.
    table: String,
    /// How it ended.
    ended: Ending,
    /// What weakens the isolation, or makes it slow.
    warnings: Vec<String>,
}

impl WriteTool for ConfigureRls {
    const META: ToolMeta = ToolMeta {
        name: "configure_rls",
        family: Family::Provisioning,
        risk: Risk::High,
        revision: 1,
        summary: "Keeps the rows of tenants apart by row level security, for the owner too",
        sql: &[&ROLES, &ROW_SECURITY],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let Params { shared, tenants } = params;
        let survey = Survey::look(cx.pg, &shared, &tenants).await?;
        Ok(ChangeSet::new(changes(&survey, &shared, &tenants)))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let (mut tables, mut exempt_roles) = (Vec::new(), Vec::new());
        for one in settled {
            let Ok(facts) = serde_json::from_value::<Facts>(one.change.facts.clone()) else {
                continue;
            };
            exempt_roles = facts.exempt;
            let (table, warnings) = (facts.table, facts.warnings);
            tables.push(Done { table, ended: one.ending(), warnings });
        }
        Output { tables, exempt_roles }
    }
}
