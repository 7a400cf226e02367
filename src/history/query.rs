//! Answers SQL over the tables of the history, and over tables of PostgreSQL beside them.

use std::sync::Arc;

use deltalake::arrow::datatypes::DataType;
use deltalake::datafusion::common::{ScalarValue, TableReference};
use deltalake::datafusion::config::Dialect;
use deltalake::datafusion::datasource::{MemTable, TableProvider};
use deltalake::datafusion::execution::context::SQLOptions;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast;
use deltalake::datafusion::{catalog, logical_expr};
use serde_json::Value;

use super::answer::Answer;
use super::delta::{self, Moment};
use super::error::HistoryError;
use super::hot;
use super::location::Location;
use super::schema::TableDef;
use super::{batch, row, tables};
use crate::kernel::{Bind, BoxFuture, Failure, Query, Timestamp};
use crate::postgres::PgReader;

/// The catalog under which tables of PostgreSQL are named: `pg.public.orders`.
pub(super) const PG: &str = "pg";

/// The catalog under which hot and archived rows of a table are one: `unified.public.orders`.
pub(super) const UNIFIED: &str = "unified";

/// Which state of a table is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Travel {
    /// The table; `None`: every table of the query.
    pub table: Option<String>,
    /// The state.
    pub to: Moment,
}

impl Travel {
    /// Reads `VERSION`, `TIME` or `TABLE=` one of the two.
    pub fn parse(text: &str) -> Option<Self> {
        let (table, to) = match text.split_once('=') {
            Some((table, to)) => (Some(table.trim().to_owned()), to.trim()),
            None => (None, text.trim()),
        };
        let to = match to.parse::<u64>() {
            Ok(version) => Moment::Version(version),
            Err(_) => Moment::At(Timestamp::parse(to)?),
        };
        Some(Self { table, to })
    }
}

/// Reads hot and archived rows of a table, each once.
pub trait UnifiedRows: Send + Sync {
    /// The rows as objects. More than `most_rows` is a failure, and so is a cold row that is not found.
    fn rows<'a>(
        &'a self,
        table: &'a str,
        most_rows: u64,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>>;
}

/// Where the rows of PostgreSQL come from.
#[derive(Clone, Copy)]
pub struct HotTables<'a> {
    /// The database.
    pub reader: &'a PgReader,
    /// What reads hot and archived rows as one.
    pub unified: &'a dyn UnifiedRows,
    /// A table with more rows is refused.
    pub most_rows: u64,
}

/// Answers one query.
pub async fn answer(
    location: &Location,
    query: &Query,
    travels: &[Travel],
    hot: Option<HotTables<'_>>,
) -> Result<Answer, HistoryError> {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    let session = SessionContext::new_with_config(config);
    let state = session.state();
    let statement = state.sql_to_statement(&query.text, &Dialect::PostgreSQL)?;
    refuse_statement(&statement)?;
    for reference in state.resolve_table_references(&statement)? {
        register(&session, location, &reference, (travels, hot)).await?;
    }
    let plan = session.state().statement_to_plan(statement).await?;
    let only_queries = SQLOptions::new();
    let only_queries =
        only_queries.with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(&plan)?;
    let mut frame = session.execute_logical_plan(plan).await?;
    if !query.binds.is_empty() {
        frame = frame.with_param_values(scalars(&query.binds)?)?;
    }
    let schema = Arc::new(frame.schema().as_arrow().clone());
    Ok(Answer::new(schema, frame.collect().await?))
}

/// Whether a query names a table of PostgreSQL.
pub fn names_postgres(sql: &str) -> Result<bool, HistoryError> {
    let state = SessionContext::new().state();
    let statement = state.sql_to_statement(sql, &Dialect::PostgreSQL)?;
    let references = state.resolve_table_references(&statement)?;
    Ok(references.iter().filter_map(TableReference::catalog).any(is_postgres))
}

/// Whether rows of PostgreSQL are read for the tables of a catalog.
fn is_postgres(catalog: &str) -> bool {
    catalog == PG || catalog == UNIFIED
}

/// Only what asks is let through.
fn refuse_statement(statement: &Statement) -> Result<(), HistoryError> {
    let asks = |statement: &Statement| matches!(statement, Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)));
    let is_query = match statement {
        Statement::Explain(explain) => asks(&explain.statement),
        other => asks(other),
    };
    if is_query {
        return Ok(());
    }
    Err(HistoryError::refused(
        "the history takes queries only: one `select`",
        "rows come in by runs; `lakeops history optimize` and `expire` take care of the files",
    ))
}

async fn register(
    session: &SessionContext,
    location: &Location,
    reference: &TableReference,
    (travels, hot): (&[Travel], Option<HotTables<'_>>),
) -> Result<(), HistoryError> {
    match reference {
        TableReference::Full { catalog, schema, table } if is_postgres(catalog) => {
            let Some(hot) = hot else {
                let why =
                    format!("`{reference}` is a table of PostgreSQL, and none is reached here");
                return Err(HistoryError::refused(why, "name a connection: `--connection NAME`"));
            };
            let provider = if &**catalog == PG {
                hot::table(hot, (schema, table)).await?
            } else {
                hot::unified(hot, (schema, table)).await?
            };
            register_hot(session, (catalog, schema, table), provider)
        }
        TableReference::Bare { table } => {
            let known = known(table)?;
            let provider = provider(session, location, known, travels).await?;
            session.register_table(reference.clone(), provider)?;
            Ok(())
        }
        TableReference::Partial { .. } | TableReference::Full { .. } => {
            let help = "write `pg.SCHEMA.TABLE` for a table of PostgreSQL, `unified.SCHEMA.TABLE` for \
                        its hot and archived rows, and the bare name for one of the history";
            Err(HistoryError::refused(format!("no table is called `{reference}`"), help))
        }
    }
}

fn known(name: &str) -> Result<&'static TableDef, HistoryError> {
    tables::find(name).ok_or_else(|| {
        let names = tables::TABLES.iter().map(|table| table.name);
        let nearest = row::nearest(name, names);
        let help = match nearest {
            Some(near) => format!("did you mean `{near}`? `lakeops history tables` lists them"),
            None => {
                "`lakeops history tables` lists them; `pg.SCHEMA.TABLE` reads PostgreSQL".into()
            }
        };
        HistoryError::refused(format!("the history has no table `{name}`"), help)
    })
}

fn register_hot(
    session: &SessionContext,
    (catalog, schema, table): (&str, &str, &str),
    provider: Arc<dyn TableProvider>,
) -> Result<(), HistoryError> {
    use catalog::{MemoryCatalogProvider, MemorySchemaProvider};
    if session.catalog(catalog).is_none() {
        session.register_catalog(catalog, Arc::new(MemoryCatalogProvider::new()));
    }
    let Some(pg) = session.catalog(catalog) else { return Ok(()) };
    let found = if let Some(found) = pg.schema(schema) {
        found
    } else {
        let made: Arc<dyn catalog::SchemaProvider> = Arc::new(MemorySchemaProvider::new());
        pg.register_schema(schema, Arc::clone(&made))?;
        made
    };
    found.register_table(table.to_owned(), provider)?;
    Ok(())
}

/// The table as the query sees it: with every column that this version declares.
async fn provider(
    session: &SessionContext,
    location: &Location,
    table: &'static TableDef,
    travels: &[Travel],
) -> Result<Arc<dyn TableProvider>, HistoryError> {
    let mine = |travel: &&Travel| travel.table.as_deref() == Some(table.name);
    let travel = travels.iter().find(mine);
    let travel = travel.or_else(|| travels.iter().find(|travel| travel.table.is_none()));
    let moment = travel.map_or(Moment::Now, |travel| travel.to);
    let Some(stored) = delta::open(location, table.name, moment).await? else {
        let empty = MemTable::try_new(batch::schema(table), vec![Vec::new()])?;
        return Ok(Arc::new(empty));
    };
    let found = stored.table_provider().await?;
    let schema = found.schema();
    let missing: Vec<_> =
        table.columns().filter(|column| schema.field_with_name(column.name).is_err()).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let mut frame = session.read_table(found)?;
    for column in missing {
        let null = null(&batch::data_type(column.kind))?;
        frame = frame.with_column(column.name, null)?;
    }
    Ok(frame.into_view())
}

fn null(kind: &DataType) -> Result<logical_expr::Expr, HistoryError> {
    Ok(logical_expr::lit(ScalarValue::try_new_null(kind)?))
}

fn scalars(binds: &[Bind]) -> Result<Vec<ScalarValue>, HistoryError> {
    binds.iter().map(scalar).collect()
}

fn scalar(bind: &Bind) -> Result<ScalarValue, HistoryError> {
    Ok(match bind {
        Bind::Text(text) => ScalarValue::from(text.as_str()),
        Bind::Int(number) => ScalarValue::from(*number),
        Bind::Float(number) => ScalarValue::from(*number),
        Bind::Bool(flag) => ScalarValue::from(*flag),
        Bind::Timestamp(at) => {
            let micros = at.as_millis().saturating_mul(1_000);
            ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
        }
        Bind::Json(value) => ScalarValue::from(value.to_string().as_str()),
        Bind::Null => ScalarValue::Utf8(None),
        Bind::TextArray(_) | Bind::IntArray(_) | Bind::Secret(_) => {
            let why = "a list or a secret cannot be bound to a query of the history";
            return Err(HistoryError::refused(why, "bind single values"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_are_read() {
        let to = |table: Option<&str>, to| Some(Travel { table: table.map(str::to_owned), to });
        assert_eq!(Travel::parse("7"), to(None, Moment::Version(7)));
        assert_eq!(Travel::parse("audit=7"), to(Some("audit"), Moment::Version(7)));
        let at = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        assert_eq!(Travel::parse("audit=2026-11-22T10:00:00Z"), to(Some("audit"), Moment::At(at)));
        assert_eq!(Travel::parse("yesterday"), None);
    }
}
