//! Makes a view that shows hot and cold rows of a table as one.
//!
//! Reads: the table's columns; on Lakebase the catalogue that the database is registered as and the archive's
//! table in Unity Catalog; in PostgreSQL the foreign table that shows the archive.
//! Changes: one view: in Unity Catalog by one statement on a SQL warehouse, or in PostgreSQL.
//! Undo: the view is dropped, or what it was before is made again.
//!
//! In Unity Catalog the two sides are not read in one snapshot: a row that leaves its table at that very moment
//! can be seen twice or not at all by one query. `read_unified_rows` and `lakeops history query` over
//! `unified.SCHEMA.TABLE` are exact. Without Lakebase and a foreign table there is nothing to make a view from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{
    ApiCall, ApiState, Bind, Change, ChangeSet, Failure, Inverse, Operation, QualifiedName, Query,
    Recovery, Risk, SqlFile, SqlStatement,
};
use crate::lakebase::api::find;
use crate::lakebase::name::{need_unquoted, path_of};
use crate::lakebase::{BranchName, ReadApi, on_warehouse};
use crate::sql_file;
use crate::tools::branching::change::{called, undone_by};
use crate::tools::branching::lifecycle::is_done;
use crate::tools::branching::{name, place};
use crate::tools::cold::{
    COLUMNS, ColdTable, REFERENCES, View, in_postgres, in_unity_catalog, literal,
};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(CreateUnifiedAccessView));

static AROUND: SqlFile = sql_file!("health/create_unified_access_view");

/// The code of the failure that a name cannot be that of a view.
const BAD_NAME: &str = "unified_view::name";

const TABLES: &str = "/api/2.1/unity-catalog/tables";

/// The database that every branch is made with.
const FIRST_DATABASE: &str = "databricks_postgres";

/// What a foreign table needs to show copies.
const COPIES: [&str; 4] = ["source_table", "batch_id", "row_key", "row"];

struct CreateUnifiedAccessView;

/// Which table, and where the view is made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table, as `schema.name`.
    table: String,
    /// A foreign table that shows the archive's copies: the view is then made in PostgreSQL, beside the table.
    #[serde(default)]
    foreign_table: Option<String>,
    /// The view: `catalog.schema.name` in Unity Catalog, `schema.name` in PostgreSQL; by default beside the
    /// archive or the table, as `vw_TABLE_unified`.
    #[serde(default)]
    view: Option<String>,
    /// The SQL warehouse that runs the statement, in Unity Catalog.
    #[serde(default)]
    warehouse_id: Option<String>,
    /// The catalogue that the database is registered as; by default the project's name with underscores.
    #[serde(default)]
    uc_catalog: Option<String>,
    /// The catalogue that the history is registered in.
    #[serde(default = "ops_catalog")]
    catalog: String,
    /// The schema of the history.
    #[serde(default = "ops_schema")]
    schema: String,
}

fn ops_catalog() -> String {
    "ops_catalog".to_owned()
}

fn ops_schema() -> String {
    "lakebase_ops".to_owned()
}

/// What became of the view.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Output {
    /// The view.
    view: String,
    /// Where hot rows come from.
    hot_source: String,
    /// Where cold rows come from.
    cold_source: String,
    /// Columns whose values can lose something in the view, each with how.
    approximate: Vec<String>,
    /// Whether it was made or replaced now; false: it was there as it should be.
    #[serde(default)]
    made: bool,
}

impl WriteTool for CreateUnifiedAccessView {
    const META: ToolMeta = ToolMeta {
        name: "create_unified_access_view",
        family: Family::Health,
        risk: Risk::Medium,
        revision: 1,
        summary: "Makes a view that shows hot and archived rows of a table as one",
        sql: &[&COLUMNS, &REFERENCES, &AROUND],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let change = match (&params.foreign_table, cx.workspace) {
            (Some(foreign), _) => {
                let table = ColdTable::look(cx, &params.table).await?;
                beside_the_table(cx, &table, foreign, &params).await?
            }
            (None, Some(api)) => {
                let table = ColdTable::look(cx, &params.table).await?;
                in_the_catalogue(cx, api, &table, &params).await?
            }
            (None, None) => return Err(nothing_to_make_it_from(&params.table)),
        };
        Ok(ChangeSet::new(vec![change]))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let facts = first.and_then(|one| serde_json::from_value(one.change.facts.clone()).ok());
        let output: Output = facts.unwrap_or_default();
        Output { made: first.is_some_and(is_done), ..output }
    }
}

fn nothing_to_make_it_from(table: &str) -> Failure {
    let text =
        "a view needs Unity Catalog, or a foreign table in PostgreSQL that shows the archive";
    Failure::permanent("unified_view::no_source", text).with_help(format!(
        "here both sides are read by `lakeops history query \"select … from unified.{table}\"`; with a \
         foreign table, name it: `foreign_table: …`"
    ))
}

async fn in_the_catalogue(
    cx: &ReadContext<'_>,
    api: &dyn ReadApi,
    table: &ColdTable,
    params: &Params,
) -> Result<Change, Failure> {
    let Some(warehouse) = &params.warehouse_id else {
        let text = "a view of Unity Catalog is made by a SQL warehouse, and none is named";
        return Err(Failure::permanent("unified_view::no_warehouse", text)
            .with_help("name it: `warehouse_id: …`"));
    };
    let project = place::project(cx.target)?;
    let branch = place::branch(None, cx.target)?;
    let registered = params.uc_catalog.clone().unwrap_or_else(|| name::in_unity_catalog(&project));
    for part in [&registered, &params.catalog, &params.schema] {
        need_unquoted(part, BAD_NAME)?;
    }
    let database = cx.target.database.as_deref().unwrap_or(FIRST_DATABASE);
    check_registered(api, &registered, (&BranchName::new(project, branch), database)).await?;
    let archive = format!("{}.{}.archived_rows", params.catalog, params.schema);
    if find(api, &format!("{TABLES}/{archive}")).await?.is_none() {
        let text = format!("Unity Catalog has no table `{archive}`");
        return Err(Failure::permanent("unified_view::no_archive", text)
            .with_help("`register_history_tables` registers it, once something was archived"));
    }
    let full = params.view.clone().unwrap_or_else(|| {
        format!("{}.{}.vw_{}_unified", params.catalog, params.schema, table.name.name.as_str())
    });
    let parts: Vec<&str> = full.split('.').collect();
    if parts.len() != 3 {
        let text = format!("`{full}` is no name of a view: catalog.schema.name");
        return Err(Failure::permanent(BAD_NAME, text));
    }
    parts.iter().try_for_each(|part| need_unquoted(part, BAD_NAME))?;
    let view = in_unity_catalog(table, &registered, &archive)?;
    let existing = find(api, &format!("{TABLES}/{full}")).await?;
    let facts = Output {
        view: full.clone(),
        hot_source: format!("{registered}.{}", table.plain()),
        cold_source: archive,
        approximate: view.approximate.clone(),
        made: false,
    };
    unity_change(&full, (&view, &facts), warehouse, existing.as_ref())
}

/// The catalogue shows the database of the branch that is meant.
async fn check_registered(
    api: &dyn ReadApi,
    catalog: &str,
    (branch, database): (&BranchName, &str),
) -> Result<(), Failure> {
    let path = path_of(format_args!("catalogs/{catalog}"));
    let Some(found) = find(api, &path).await? else {
        let text = format!("no database is registered as the catalogue `{catalog}`");
        return Err(Failure::permanent("unified_view::not_registered", text).with_help(
            "`setup_unity_catalog_integration` registers it; or name another: `uc_catalog`",
        ));
    };
    let status = &found["status"];
    let shown =
        (status["branch"].as_str().unwrap_or_default(), status["postgres_database"].as_str());
    if shown != (branch.to_string().as_str(), Some(database)) {
        let text = format!(
            "the catalogue `{catalog}` shows {} of {}, and not {database} of {branch}",
            shown.1.unwrap_or("?"),
            shown.0
        );
        return Err(Failure::permanent("unified_view::other_database", text)
            .with_help("name the one that does: `uc_catalog: …`"));
    }
    Ok(())
}

fn unity_change(
    full: &str,
    (view, facts): (&View, &Output),
    warehouse: &str,
    existing: Option<&Value>,
) -> Result<Change, Failure> {
    let path = format!("{TABLES}/{full}");
    let make = |query: &str, comment: &str| {
        let statement = format!("CREATE OR REPLACE VIEW {full} COMMENT '{comment}' AS\n{query}");
        let shown = json!({ "table_type": "VIEW", "comment": comment });
        on_warehouse(&statement, warehouse).proof(ApiState::present(path.clone(), shown))
    };
    let why = "hot and cold rows can be queried as one";
    let mut change = called(format!("view {full}"), why, make(&view.query, &view.comment));
    change.risk = Risk::Medium;
    change.facts = json!(facts);
    change.inverse = match existing {
        None => undone_by(ApiCall::delete(path.clone())),
        Some(found) if found["table_type"] == "VIEW" => {
            let text = |field: &str| found[field].as_str().unwrap_or_default();
            let comment = text("comment");
            if text("view_definition").is_empty() || comment.contains(['\'', '\\']) {
                let why = "what the view was before cannot be read".to_owned();
                Inverse::Impossible { why }
            } else {
                undone_by(make(text("view_definition"), comment))
            }
        }
        Some(_) => {
            let text = format!("`{full}` is there and is no view");
            return Err(Failure::permanent("unified_view::name_taken", text)
                .with_help("name another: `view: …`"));
        }
    };
    Ok(change)
}

/// What is there already in PostgreSQL.
#[derive(Deserialize)]
struct Around {
    foreign_kind: Option<String>,
    foreign_columns: Vec<String>,
    view_kind: Option<String>,
    view_definition: Option<String>,
    view_comment: Option<String>,
}

async fn beside_the_table(
    cx: &ReadContext<'_>,
    table: &ColdTable,
    foreign: &str,
    params: &Params,
) -> Result<Change, Failure> {
    let parse = |text: &str| {
        QualifiedName::parse(text).map_err(|error| Failure::permanent(BAD_NAME, error.to_string()))
    };
    let foreign = parse(foreign)?;
    let (schema, name) = (table.name.schema.as_str(), table.name.name.as_str());
    let view = match &params.view {
        Some(view) => parse(view)?,
        None => QualifiedName::new(schema, format!("vw_{name}_unified")),
    };
    let binds = [Bind::Text(foreign.to_string()), Bind::Text(view.to_string())];
    let around: Around = cx.pg.row(&AROUND, &binds).await?;
    postgres_change(table, (&foreign, &view), &around)
}

fn postgres_change(
    table: &ColdTable,
    (foreign, view): (&QualifiedName, &QualifiedName),
    around: &Around,
) -> Result<Change, Failure> {
    if around.foreign_kind.as_deref() != Some("f") {
        let text = format!("`{}` is no foreign table", foreign.plain());
        return Err(Failure::permanent("unified_view::no_foreign_table", text)
            .with_help("a view in PostgreSQL reads copies through a foreign table"));
    }
    if let Some(lacks) =
        COPIES.iter().find(|name| !around.foreign_columns.iter().any(|one| one == *name))
    {
        let text = format!("the foreign table `{}` has no column `{lacks}`", foreign.plain());
        return Err(Failure::permanent("unified_view::no_foreign_table", text)
            .with_help(format!("it shows `archived_rows`, at least {}", COPIES.join(", "))));
    }
    if around.view_kind.as_deref().is_some_and(|kind| kind != "v") {
        let text = format!("`{}` is there and is no view", view.plain());
        return Err(Failure::permanent("unified_view::name_taken", text)
            .with_help("name another: `view: …`"));
    }
    let text = in_postgres(table, foreign);
    let statements = |query: &str, comment: Option<&str>| {
        let comment = comment.map_or_else(|| "null".to_owned(), literal);
        vec![
            SqlStatement::new(format!("create or replace view {view} as\n{query}")),
            SqlStatement::new(format!("comment on view {view} is {comment}")),
        ]
    };
    let why = "hot and cold rows can be queried as one";
    let operation =
        Operation::Transaction { statements: statements(&text.query, Some(&text.comment)) };
    let mut change = Change::new(format!("view {}", view.plain()), why, operation);
    change.risk = Risk::Medium;
    change.recovery = Recovery::Transactional;
    change.guard = Some(Query::with_binds(
        "select pg_catalog.obj_description(pg_catalog.to_regclass($1::text), 'pg_class') \
         is distinct from $2::text as holds",
        vec![Bind::Text(view.to_string()), Bind::Text(text.comment)],
    ));
    let undo = match &around.view_definition {
        Some(before) => Operation::Transaction {
            statements: statements(before.trim_end_matches(';'), around.view_comment.as_deref()),
        },
        None => Operation::sql(format!("drop view if exists {view}"), Vec::new()),
    };
    change.inverse = Inverse::By { operation: undo, recovery: Recovery::Transactional };
    change.facts = json!(Output {
        view: view.plain(),
        hot_source: table.plain(),
        cold_source: foreign.plain(),
        approximate: Vec::new(),
        made: false,
    });
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::cold::orders;

    fn facts() -> Output {
        Output { view: "ops.s.vw".to_owned(), ..Output::default() }
    }

    #[test]
    fn a_view_is_undone_by_what_was_there_before() {
        let view = in_unity_catalog(&orders(), "shop", "ops.s.archived_rows").unwrap();
        let made = |existing: Option<Value>| {
            unity_change("ops.s.vw", (&view, &facts()), "w", existing.as_ref())
        };
        let new = made(None).unwrap();
        let Inverse::By { operation: Operation::Api(undo), .. } = &new.inverse else { panic!() };
        assert_eq!(undo.verb.as_str(), "DELETE");
        let before = json!({"table_type": "VIEW", "view_definition": "SELECT 1", "comment": "c"});
        let Inverse::By { operation: Operation::Api(undo), .. } =
            made(Some(before)).unwrap().inverse
        else {
            panic!()
        };
        let text = undo.body.unwrap()["statement"].as_str().unwrap().to_owned();
        assert_eq!(text, "CREATE OR REPLACE VIEW ops.s.vw COMMENT 'c' AS\nSELECT 1");
        let table = json!({"table_type": "MANAGED"});
        assert_eq!(made(Some(table)).unwrap_err().code, "unified_view::name_taken");
    }

    #[test]
    fn in_postgres_only_a_foreign_table_will_do() {
        let around = |kind: Option<&str>, columns: &[&str]| Around {
            foreign_kind: kind.map(str::to_owned),
            foreign_columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            view_kind: None,
            view_definition: None,
            view_comment: None,
        };
        let (foreign, view) =
            (QualifiedName::new("lake", "archived_rows"), QualifiedName::new("public", "vw"));
        let proposed = |around: Around| postgres_change(&orders(), (&foreign, &view), &around);
        for (kind, columns) in
            [(None, &COPIES[..]), (Some("r"), &COPIES), (Some("f"), &COPIES[1..])]
        {
            let failure = proposed(around(kind, columns)).unwrap_err();
            assert_eq!(failure.code, "unified_view::no_foreign_table");
        }
        let change = proposed(around(Some("f"), &COPIES)).unwrap();
        assert_eq!(change.operation.statements().len(), 2);
        assert!(change.operation.to_string().contains("lakeops "), "{}", change.operation);
    }
}
