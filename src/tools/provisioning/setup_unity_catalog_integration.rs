//! Registers a branch's database as a catalogue of Unity Catalog, so that it can be governed and
//! queried there.
//!
//! Reads: the project, the database, the catalogue of that name, and who may use it.
//! Changes: one catalogue.
//! Undo: a catalogue that was registered is taken away; the database stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{ApiCall, ApiState, ChangeSet, Failure, Risk};
use crate::lakebase::api::find;
use crate::lakebase::name::path_of;
use crate::lakebase::{self, BranchName};
use crate::tools::branching::change::{called, undone_by};
use crate::tools::branching::lifecycle::is_done;
use crate::tools::branching::survey::Survey;
use crate::tools::branching::{name, place};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(SetupUnityCatalogIntegration));

/// The database that every branch is made with.
const FIRST_DATABASE: &str = "databricks_postgres";

struct SetupUnityCatalogIntegration;

/// The catalogue.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its name; by default the project's, with underscores.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    uc_catalog: Option<String>,
    /// What the project serves, for the mapping.
    #[serde(default)]
    domain: Option<String>,
    /// The branch; by default that of the target, else the project's default branch.
    #[serde(default)]
    branch_id: Option<String>,
}

/// What became of it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Output {
    /// The project.
    lakebase_project: String,
    /// The branch whose database it is.
    branch_id: String,
    /// The database.
    database: String,
    /// The catalogue.
    uc_catalog: String,
    /// What the project serves, as Unity Catalog writes it.
    uc_domain: Option<String>,
    /// Whether it was registered now.
    #[serde(default)]
    registered: bool,
    /// Who may use it, as far as that can be seen; absent when it was registered now.
    grants: Option<Value>,
    /// Where its use is recorded.
    audit_via: String,
}

impl WriteTool for SetupUnityCatalogIntegration {
    const META: ToolMeta = ToolMeta {
        name: "setup_unity_catalog_integration",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Registers a database as a catalogue",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let api = cx.lakebase()?;
        let project = place::project(cx.target)?;
        let survey = Survey::of(api, &project).await?;
        let named = params.branch_id.as_deref().or(cx.target.branch.as_deref());
        let branch = match named.or(survey.default_branch()) {
            Some(branch) => name::to_id(branch)?,
            None => place::branch(None, cx.target)?,
        };
        survey.need(&branch)?;
        let database = cx.target.database.clone().unwrap_or_else(|| FIRST_DATABASE.to_owned());
        let known = lakebase::databases(api, &project, &branch).await?;
        if !known.iter().any(|one| one.status.postgres_database == database) {
            let names: Vec<_> = known.iter().map(|one| &*one.status.postgres_database).collect();
            let text = format!("branch `{branch}` has no database `{database}`");
            return Err(Failure::permanent("unity_catalog::no_database", text)
                .with_help(format!("there are: {}", names.join(", "))));
        }
        let catalog = params.uc_catalog.unwrap_or_else(|| name::in_unity_catalog(&project));
        let path = path_of(format_args!("catalogs/{catalog}"));
        let existing = find(api, &path).await?;
        let grants = format!("/api/2.1/unity-catalog/permissions/catalog/{catalog}");
        let grants = match existing {
            Some(_) => find(api, &grants).await?,
            None => None,
        };
        let output = Output {
            uc_domain: params.domain.as_deref().map(name::in_unity_catalog),
            lakebase_project: project,
            branch_id: branch,
            database,
            uc_catalog: catalog,
            registered: false,
            grants: grants.map(|grants| grants["privilege_assignments"].clone()),
            audit_via: "system.access.audit".to_owned(),
        };
        Ok(register(&output, existing.is_some()))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let facts = first.and_then(|first| serde_json::from_value(first.change.facts.clone()).ok());
        let output: Output = facts.unwrap_or_default();
        Output { registered: first.is_some_and(is_done), ..output }
    }
}

fn register(output: &Output, is_there: bool) -> ChangeSet {
    let Output { lakebase_project, branch_id, database, uc_catalog, .. } = output;
    let branch = BranchName::new(lakebase_project.as_str(), branch_id.as_str()).to_string();
    let path = path_of(format_args!("catalogs/{uc_catalog}"));
    let shown = json!({ "status": { "branch": branch, "postgres_database": database } });
    let call = ApiCall::post(path_of("catalogs"))
        .query("catalog_id", uc_catalog)
        .body(json!({ "spec": { "branch": branch, "postgres_database": database } }))
        .proof(ApiState::present(path.clone(), shown));
    let why = "the database can be governed and queried in Unity Catalog";
    let mut change = called(format!("catalog {uc_catalog}"), why, call);
    if !is_there {
        change.inverse = undone_by(ApiCall::delete(path));
    }
    change.facts = json!(output);
    ChangeSet::new(vec![change])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Inverse, Operation};

    #[test]
    fn a_catalogue_that_was_there_stays() {
        let output = Output {
            lakebase_project: "web-shop".into(),
            branch_id: "production".into(),
            database: "app".into(),
            uc_catalog: "web_shop".into(),
            ..Output::default()
        };
        let fresh = register(&output, false);
        let Operation::Api(call) = &fresh.changes[0].operation else { panic!() };
        let spec = &call.body.as_ref().unwrap()["spec"];
        assert_eq!(spec["branch"], "projects/web-shop/branches/production");
        assert!(call.creates());
        assert!(matches!(fresh.changes[0].inverse, Inverse::By { .. }));
        assert_eq!(register(&output, true).changes[0].inverse, Inverse::Unneeded);
    }
}
