//! Makes the catalogue and the schemas that the history is exported to.
//!
//! Its tables come with the first export. What is there already is left as it is, never dropped.
//!
//! Reads: the catalogue and its schemas in Unity Catalog.
//! Changes: one catalogue, two schemas, where they are missing.
//! Undo: what was made is deleted while it is empty; what was there stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{ApiCall, ApiState, Change, ChangeSet, Failure, Risk};
use crate::lakebase::api::find;
use crate::lakebase::name::need_unquoted;
use crate::tools::branching::change::{called, undone_by};
use crate::tools::branching::lifecycle::is_done;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(CreateOpsCatalog));

const UNITY: &str = "/api/2.1/unity-catalog";
const COMMENT: &str = "operations history, written by lakeops";

struct CreateOpsCatalog;

/// What they are called.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The catalogue.
    #[serde(default = "ops_catalog")]
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    catalog: String,
    /// The schema of the history.
    #[serde(default = "ops_schema")]
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    schema: String,
    /// The schema of what is archived.
    #[serde(default = "archive_schema")]
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    archive_schema: String,
}

fn ops_catalog() -> String {
    "ops_catalog".to_owned()
}

fn ops_schema() -> String {
    "lakebase_ops".to_owned()
}

fn archive_schema() -> String {
    "lakebase_archive".to_owned()
}

/// What became of them.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The catalogue.
    catalog: String,
    /// The schemas, with the catalogue's name before each.
    schemas: Vec<String>,
    /// What was made now.
    created: Vec<String>,
}

impl WriteTool for CreateOpsCatalog {
    const META: ToolMeta = ToolMeta {
        name: "create_ops_catalog",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Makes the catalogue and schemas of the history",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let api = cx.lakebase()?;
        let Params { catalog, schema, archive_schema } = params;
        for name in [&catalog, &schema, &archive_schema] {
            need_unquoted(name, "create_ops_catalog::bad_name")?;
        }
        let mut changes = Vec::new();
        let path = format!("{UNITY}/catalogs/{catalog}");
        let is_there = find(api, &path).await?.is_some();
        let body = json!({ "name": catalog, "comment": COMMENT });
        changes.push(change((UNITY, "catalogs"), &catalog, body, is_there));
        for schema in [schema, archive_schema] {
            let full = format!("{catalog}.{schema}");
            let path = format!("{UNITY}/schemas/{full}");
            let is_there = is_there && find(api, &path).await?.is_some();
            let body = json!({ "name": schema, "catalog_name": catalog, "comment": COMMENT });
            changes.push(change((UNITY, "schemas"), &full, body, is_there));
        }
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let named = |one: &Settled<'_>| one.change.facts["name"].as_str().map(str::to_owned);
        let mut names: Vec<String> = settled.iter().filter_map(named).collect();
        let schemas = names.split_off(names.len().min(1));
        let created = settled.iter().filter(|one| is_done(one)).filter_map(named).collect();
        Output { catalog: names.pop().unwrap_or_default(), schemas, created }
    }
}

fn change(
    (base, plural): (&str, &str),
    name: &str,
    body: serde_json::Value,
    is_there: bool,
) -> Change {
    let path = format!("{base}/{plural}/{name}");
    let shown = json!({ "name": body["name"] });
    let call = ApiCall::post(format!("{base}/{plural}"))
        .body(body)
        .proof(ApiState::present(path.clone(), shown));
    let why = if is_there { "it is there and is taken" } else { "the history is exported to it" };
    let mut change = called(format!("{} {name}", plural.trim_end_matches('s')), why, call);
    change.facts = json!({ "name": name });
    if !is_there {
        change.inverse = undone_by(ApiCall::delete(path));
    }
    change
}
