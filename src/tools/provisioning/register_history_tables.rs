//! Registers the tables of the history in Unity Catalog, as external tables where they are.
//!
//! They stay ours: no deletion vectors, no column mapping, so that we go on writing them. What is registered
//! already is left as it is; dropping an external table drops no data.
//!
//! Reads: the tables that were written to, and those that are registered.
//! Changes: one `CREATE TABLE … USING DELTA LOCATION …` for each that is not, on a SQL warehouse.
//! Undo: what was registered now is taken out of the catalogue again; its files stay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{ApiCall, ApiState, Change, ChangeSet, Failure, Risk};
use crate::lakebase::api::find;
use crate::lakebase::name::need_unquoted;
use crate::lakebase::on_warehouse;
use crate::tools::branching::change::{called, undone_by};
use crate::tools::branching::lifecycle::is_done;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(RegisterHistoryTables));

/// The code of the failure that something cannot be written into a statement.
const REFUSED: &str = "register_history_tables::refused";

const TABLES: &str = "/api/2.1/unity-catalog/tables";

struct RegisterHistoryTables;

/// Where they are registered.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The SQL warehouse that runs the statements.
    warehouse_id: String,
    /// The catalogue, which `create_ops_catalog` makes.
    #[serde(default = "ops_catalog")]
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    catalog: String,
    /// The schema of the history.
    #[serde(default = "ops_schema")]
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    schema: String,
}

fn ops_catalog() -> String {
    "ops_catalog".to_owned()
}

fn ops_schema() -> String {
    "lakebase_ops".to_owned()
}

/// What became of them.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The tables, with catalogue and schema before each.
    tables: Vec<String>,
    /// Those that were registered now.
    registered: Vec<String>,
}

impl WriteTool for RegisterHistoryTables {
    const META: ToolMeta = ToolMeta {
        name: "register_history_tables",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Registers the history in Unity Catalog as external tables",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let api = cx.lakebase()?;
        let history = cx.history()?;
        let location = history.location();
        check(&location, [&params.catalog, &params.schema])?;
        let mut changes = Vec::new();
        for table in history.stored().await? {
            let full = format!("{}.{}.{}", params.catalog, params.schema, table.name);
            let is_there = find(api, &format!("{TABLES}/{full}")).await?.is_some();
            let place = format!("{}/{}", location.trim_end_matches('/'), table.name);
            changes.push(register(&full, &place, &params.warehouse_id, is_there));
        }
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let named = |one: &Settled<'_>| one.change.facts["table"].as_str().map(str::to_owned);
        Output {
            tables: settled.iter().filter_map(named).collect(),
            registered: settled.iter().filter(|one| is_done(one)).filter_map(named).collect(),
        }
    }
}

/// The names and the place enter the text of a statement: only what needs no quoting is let in.
fn check(location: &str, names: [&str; 2]) -> Result<(), Failure> {
    let refuse = |text: String, help: &str| Err(Failure::permanent(REFUSED, text).with_help(help));
    names.into_iter().try_for_each(|name| need_unquoted(name, REFUSED))?;
    let stores = ["s3://", "abfss://", "gs://"];
    if !stores.iter().any(|store| location.starts_with(store)) {
        let text = format!("the history is at `{location}`, which a warehouse cannot reach");
        return refuse(text, "set `[history] location` to s3://…, abfss://… or gs://…");
    }
    if location.contains(['\'', '\\', '\n']) {
        let text = format!("`{location}` cannot be written into a statement");
        return refuse(text, "use a place without quotes");
    }
    Ok(())
}

fn register(full: &str, place: &str, warehouse: &str, is_there: bool) -> Change {
    let path = format!("{TABLES}/{full}");
    let shown = json!({ "table_type": "EXTERNAL", "data_source_format": "DELTA" });
    let statement = format!("CREATE TABLE IF NOT EXISTS {full} USING DELTA LOCATION '{place}'");
    let call = on_warehouse(&statement, warehouse).proof(ApiState::present(path.clone(), shown));
    let why = if is_there { "it is there and stays" } else { "others can query the history" };
    let mut change = called(full, why, call);
    change.independent = true;
    change.facts = json!({ "table": full });
    if !is_there {
        change.inverse = undone_by(ApiCall::delete(path));
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Inverse, Operation};

    #[test]
    fn a_table_is_registered_where_it_is() {
        let place = "abfss://ops@lake.dfs.core.windows.net/history/audit";
        let change = register("ops.lakebase_ops.audit", place, "w1", false);
        let Operation::Api(call) = &change.operation else { panic!() };
        assert_eq!(
            call.body.as_ref().unwrap()["statement"],
            format!(
                "CREATE TABLE IF NOT EXISTS ops.lakebase_ops.audit USING DELTA LOCATION '{place}'"
            )
        );
        assert!(matches!(change.inverse, Inverse::By { .. }));
        let there = register("ops.lakebase_ops.audit", place, "w1", true);
        assert_eq!(there.inverse, Inverse::Unneeded);
    }

    #[test]
    fn nothing_that_needs_quotes_gets_into_a_statement() {
        assert!(check("s3://b/x", ["ops", "lakebase_ops"]).is_ok());
        for (location, name) in
            [("/srv/history", "ops"), ("s3://b/x'y", "ops"), ("s3://b/x", "a.b"), ("s3://b/x", "")]
        {
            assert!(check(location, [name, "s"]).is_err(), "{location} {name}");
        }
    }
}
