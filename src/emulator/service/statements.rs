//! SQL statements: queries of the emulator's own system tables, and those that make and remove names in
//! Unity Catalog. Everything is done before the answer, so there is nothing to wait for or to cancel.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use sqlparser::ast::{CreateTable, HiveIOFormat, ObjectType, Statement};
use sqlparser::dialect::SparkSqlDialect;
use sqlparser::parser::{Parser, ParserError};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::query::{Answer, Parameter, query};
use super::unity::{self, Securable};

/// The largest statement, in bytes.
const LARGEST: usize = 16 << 20;
/// How many answers can still be asked for.
const KEPT: usize = 100;

/// The last answers.
#[derive(Default)]
pub(super) struct Statements {
    answered: Mutex<VecDeque<(String, Value)>>,
}

impl Statements {
    fn keep(&self, id: &str, answer: &Value) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.push_back((id.to_owned(), answer.clone()));
        while answered.len() > KEPT {
            answered.pop_front();
        }
    }

    fn find(&self, id: &str) -> Result<Value, ApiError> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = answered.iter().find(|(own, _)| own == id);
        found.map(|(_, answer)| answer.clone()).ok_or_else(|| {
            ApiError::new(404, "NOT_FOUND", format!("The statement {id} was not found."))
        })
    }
}

/// `/api/2.0/sql/statements…`
pub(super) async fn answer(
    service: &Service,
    call: &Call,
    parts: &[&str],
) -> Result<Option<Value>, ApiError> {
    Ok(Some(match (&*call.verb, parts) {
        ("POST", []) => Box::pin(execute(service, call)).await?,
        ("GET", [id]) => service.statements.find(id)?,
        ("GET", [id, "result", "chunks", "0"]) => service.statements.find(id)?["result"].take(),
        ("POST", [id, "cancel"]) => {
            service.statements.find(id)?;
            json!({})
        }
        _ => return Ok(None),
    }))
}

async fn execute(service: &Service, call: &Call) -> Result<Value, ApiError> {
    let text = call.text("statement")?;
    call.text("warehouse_id")?;
    if text.len() > LARGEST {
        return Err(ApiError::invalid("the statement has more than 16 MiB"));
    }
    let parameters = call.body["parameters"].as_array().cloned().unwrap_or_default();
    let parameters: Vec<Parameter> = parameters
        .iter()
        .map(|it| serde_json::from_value(it.clone()))
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::invalid(format!("a parameter cannot be read: {error}")))?;
    let id = service.uuid();
    let answered = match Box::pin(run(service, call, &text, &parameters)).await {
        Ok(answer) => succeeded(&id, &answer, call.body["row_limit"].as_u64()),
        Err(failed) => json!({
            "statement_id": id,
            "status": {
                "state": "FAILED",
                "error": { "error_code": failed.code, "message": failed.message },
            },
        }),
    };
    service.statements.keep(&id, &answered);
    Ok(answered)
}

fn succeeded(id: &str, answer: &Answer, limit: Option<u64>) -> Value {
    let limit = limit.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX);
    let rows: Vec<_> = answer.rows.iter().take(limit).collect();
    let columns = answer.columns.iter().enumerate().map(|(position, (name, kind))| {
        json!({ "name": name, "position": position, "type_name": kind, "type_text": kind })
    });
    let columns: Vec<Value> = columns.collect();
    let chunk = json!({ "chunk_index": 0, "row_offset": 0, "row_count": rows.len() });
    let mut result = chunk.clone();
    result["data_array"] = json!(rows);
    json!({
        "statement_id": id,
        "status": { "state": "SUCCEEDED" },
        "manifest": {
            "format": "JSON_ARRAY",
            "schema": { "column_count": columns.len(), "columns": columns },
            "chunks": [chunk],
            "total_chunk_count": 1,
            "total_row_count": rows.len(),
            "truncated": answer.rows.len() > limit,
        },
        "result": result,
    })
}

async fn run(
    service: &Service,
    call: &Call,
    text: &str,
    parameters: &[Parameter],
) -> Result<Answer, ApiError> {
    if let Some((name, only_if_missing)) = create_catalog(text) {
        make(service, call, (Securable::Catalog, &name), (only_if_missing, Map::new()))?;
        return Ok(Answer::default());
    }
    if let Some(view) = create_view(text) {
        make_view(service, call, &view?)?;
        return Ok(Answer::default());
    }
    let mut parsed = parse(text).map_err(|error| syntax(&error))?;
    let (Some(statement), true) = (parsed.pop(), parsed.is_empty()) else {
        return Err(syntax("exactly one statement is expected"));
    };
    match statement {
        Statement::Query(_) => Box::pin(query(service, text, parameters)).await,
        Statement::CreateSchema { schema_name, if_not_exists, .. } => {
            let name = plain(&schema_name.to_string());
            make(service, call, (Securable::Schema, &name), (if_not_exists, Map::new()))?;
            Ok(Answer::default())
        }
        Statement::CreateTable(table) => {
            let name = plain(&table.name.to_string());
            let how = (table.if_not_exists, table_info(&table));
            make(service, call, (Securable::Table, &name), how)?;
            Ok(Answer::default())
        }
        Statement::Drop { object_type, if_exists, names, cascade, .. } => {
            let what = match object_type {
                ObjectType::Table | ObjectType::View => Securable::Table,
                ObjectType::Schema | ObjectType::Database => Securable::Schema,
                _ => return Err(refused(text)),
            };
            for name in names {
                drop_one(service, (what, &plain(&name.to_string())), (if_exists, cascade))?;
            }
            Ok(Answer::default())
        }
        _ => Err(refused(text)),
    }
}

fn syntax(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(400, "BAD_REQUEST", format!("[PARSE_SYNTAX_ERROR] {error}"))
}

/// The dialect of Databricks does not know `using delta`; that of Spark does.
fn parse(text: &str) -> Result<Vec<Statement>, ParserError> {
    Parser::parse_sql(&SparkSqlDialect {}, text)
}

/// What Unity Catalog shows of a table that a statement makes.
fn table_info(table: &CreateTable) -> Map<String, Value> {
    let columns = table.columns.iter().enumerate().map(|(position, column)| {
        json!({
            "name": column.name.value,
            "type_text": column.data_type.to_string().to_lowercase(),
            "type_name": column.data_type.to_string().to_uppercase(),
            "position": position,
            "nullable": true,
        })
    });
    let formats = table.hive_formats.as_ref();
    let location = formats.and_then(|it| it.location.clone()).or_else(|| table.location.clone());
    let format = match formats.and_then(|it| it.storage.as_ref()) {
        Some(HiveIOFormat::Using { format }) => format.value.to_uppercase(),
        _ => "DELTA".to_owned(),
    };
    let kind = if location.is_some() { "EXTERNAL" } else { "MANAGED" };
    let mut info = Map::new();
    info.insert("columns".to_owned(), columns.collect());
    info.insert("data_source_format".to_owned(), json!(format));
    info.insert("table_type".to_owned(), json!(kind));
    if let Some(location) = location {
        info.insert("storage_location".to_owned(), json!(location));
    }
    info
}

fn refused(text: &str) -> ApiError {
    let begin: String = text.trim().chars().take(40).collect();
    ApiError::not_emulated(&format!("run `{begin}…`: it takes queries, CREATE and DROP"))
}

fn make(
    service: &Service,
    call: &Call,
    (what, name): (Securable, &str),
    (only_if_missing, info): (bool, Map<String, Value>),
) -> Result<(), ApiError> {
    let made = service
        .store
        .transact(|tx| unity::create(service, tx, (what, name), (&call.principal, info)));
    match made {
        Err(error) if only_if_missing && error.code.ends_with("_ALREADY_EXISTS") => Ok(()),
        made => made.map(drop),
    }
}

fn drop_one(
    service: &Service,
    (what, name): (Securable, &str),
    (if_exists, cascade): (bool, bool),
) -> Result<(), ApiError> {
    match service.store.transact(|tx| unity::delete(tx, what, name, cascade)) {
        Err(error) if if_exists && error.code.ends_with("_DOES_NOT_EXIST") => Ok(()),
        done => done,
    }
}

/// A view that a statement makes.
#[derive(Debug, PartialEq, Eq)]
struct NewView {
    name: String,
    replaces: bool,
    only_if_missing: bool,
    comment: Option<String>,
    query: String,
}

/// Makes a view, or puts another in its place. Its query is kept and not looked at: nothing lies behind.
fn make_view(service: &Service, call: &Call, view: &NewView) -> Result<(), ApiError> {
    let mut info = Map::new();
    info.insert("table_type".to_owned(), json!("VIEW"));
    info.insert("view_definition".to_owned(), json!(view.query));
    if let Some(comment) = &view.comment {
        info.insert("comment".to_owned(), json!(comment));
    }
    if view.replaces {
        drop_one(service, (Securable::Table, &view.name), (true, false))?;
    }
    make(service, call, (Securable::Table, &view.name), (view.only_if_missing, info))
}

/// `create [or replace] view [if not exists] name [comment 'text'] as query`: the parser does not know the
/// comment. `None`: it is another statement.
fn create_view(text: &str) -> Option<Result<NewView, ApiError>> {
    let mut rest = word(text, "create")?;
    let replaces = word(rest, "or").and_then(|rest| word(rest, "replace"));
    rest = replaces.unwrap_or(rest);
    rest = word(rest, "view")?;
    let if_missing = word(rest, "if").and_then(|rest| word(word(rest, "not")?, "exists"));
    rest = if_missing.unwrap_or(rest).trim_start();
    let end = rest.find(char::is_whitespace)?;
    let (name, mut rest) = rest.split_at(end);
    let mut comment = None;
    if let Some(after) = word(rest, "comment").and_then(|rest| rest.strip_prefix('\'')) {
        let Some((text, after)) = after.split_once('\'') else {
            return Some(Err(syntax("the comment does not end")));
        };
        comment = Some(text.to_owned());
        rest = after;
    }
    let Some(query) = word(rest, "as") else {
        return Some(Err(syntax("a view has a query: AS SELECT …")));
    };
    let query = query.trim().trim_end_matches(';');
    let parsed = parse(query);
    Some(match parsed.as_deref() {
        Ok([Statement::Query(_)]) => Ok(NewView {
            name: plain(name),
            replaces: replaces.is_some(),
            only_if_missing: if_missing.is_some(),
            comment,
            query: query.to_owned(),
        }),
        Ok(_) => Err(syntax("a view has one query")),
        Err(error) => Err(syntax(error)),
    })
}

/// What follows a word, whatever its case; `None`: the text begins with another.
fn word<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let begin = text.get(..wanted.len())?;
    let rest = text.get(wanted.len()..)?;
    let ends = rest.starts_with(char::is_whitespace);
    (begin.eq_ignore_ascii_case(wanted) && ends).then(|| rest.trim_start())
}

/// A name without its quotes.
fn plain(name: &str) -> String {
    name.replace(['`', '"'], "")
}

/// `create catalog [if not exists] name`, which the parser does not know.
fn create_catalog(text: &str) -> Option<(String, bool)> {
    let words: Vec<String> =
        text.trim().trim_end_matches(';').split_whitespace().map(str::to_owned).collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        ["create", "catalog", "if", "not", "exists", _, ..] => Some((plain(&words[5]), true)),
        ["create", "catalog", _, ..] => Some((plain(&words[2]), false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_made_by_a_statement_of_its_own() {
        assert_eq!(create_catalog("CREATE CATALOG `main`;"), Some(("main".to_owned(), false)));
        let if_missing = create_catalog("create catalog if not exists ops comment 'x'");
        assert_eq!(if_missing, Some(("ops".to_owned(), true)));
        assert_eq!(create_catalog("create table a.b.c (x int)"), None);
    }

    #[test]
    fn a_view_keeps_its_query_and_its_comment() {
        let view =
            create_view("CREATE OR REPLACE VIEW ops.`s`.v COMMENT 'a; b' AS\nSELECT 1 AS x;");
        let view = view.unwrap().unwrap();
        assert_eq!((&*view.name, &*view.query), ("ops.s.v", "SELECT 1 AS x"));
        assert_eq!((view.replaces, view.comment.as_deref()), (true, Some("a; b")));
        let plain = create_view("create view if not exists a.b.c as select 1").unwrap().unwrap();
        assert_eq!((plain.only_if_missing, plain.replaces, plain.comment), (true, false, None));
        for wrong in ["create view a.b.c as drop table t", "create view a.b.c select 1"] {
            assert!(create_view(wrong).unwrap().is_err(), "{wrong}");
        }
        assert_eq!(create_view("create table a.b.c (x int)"), None);
    }

    #[test]
    fn a_table_shows_its_columns_and_where_it_lies() {
        let text = "create table if not exists ops.`history`.metrics (id bigint, name string) \
                    using delta location 's3://b/x'";
        let Some(Statement::CreateTable(table)) = parse(text).unwrap().pop() else { panic!() };
        assert_eq!(plain(&table.name.to_string()), "ops.history.metrics");
        let info = Value::Object(table_info(&table));
        assert_eq!(info["storage_location"], "s3://b/x");
        assert_eq!(
            (&info["table_type"], &info["data_source_format"]),
            (&json!("EXTERNAL"), &json!("DELTA"))
        );
        assert_eq!(info["columns"][0]["type_text"], "bigint");
        for text in ["create schema if not exists ops.history", "drop table if exists a.b.c"] {
            assert_eq!(parse(text).unwrap().len(), 1, "{text}");
        }
    }
}
