//! Queries of the emulator's system tables, answered by `DataFusion`.

use std::collections::HashMap;
use std::sync::Arc;

use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use deltalake::arrow::json::{ReaderBuilder, WriterBuilder, writer::JsonArray};
use deltalake::datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider,
};
use deltalake::datafusion::common::{ParamValues, ScalarValue};
use deltalake::datafusion::datasource::MemTable;
use deltalake::datafusion::execution::context::SQLOptions;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::context::Service;
use super::error::ApiError;
use super::usage;

/// A named parameter of a statement.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Parameter {
    name: String,
    value: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Rows: texts and nulls.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Names and types.
    pub columns: Vec<(String, String)>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// Answers one query.
pub(super) async fn query(
    service: &Service,
    text: &str,
    parameters: &[Parameter],
) -> Result<Answer, ApiError> {
    let tables = service.store.transact(|tx| {
        Ok::<_, ApiError>([
            ("billing", "usage", usage_schema(), usage::usage_rows(tx)?),
            ("billing", "list_prices", price_schema(), usage::price_rows()),
            ("information_schema", "catalogs", catalog_schema(), tx.list("unity/catalogs")?),
            ("information_schema", "schemata", schemata_schema(), tx.list("unity/schemas")?),
            ("information_schema", "tables", table_schema(), tx.list("unity/tables")?),
        ])
    })?;
    Box::pin(ask(tables, text, parameters)).await
}

/// A table of the catalog `system`: its schema, its name, its columns, its rows.
type Table = (&'static str, &'static str, SchemaRef, Vec<Value>);

async fn ask(
    tables: impl IntoIterator<Item = Table>,
    text: &str,
    parameters: &[Parameter],
) -> Result<Answer, ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::new(400, "BAD_REQUEST", format!("the statement failed: {error}"))
    };
    let mut config = SessionConfig::new();
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    let session = SessionContext::new_with_config(config);
    let system = Arc::new(MemoryCatalogProvider::new());
    for (schema, name, columns, rows) in tables {
        let table = table(&columns, &rows).map_err(|error| failed(&error))?;
        let within: Arc<dyn SchemaProvider> = match system.schema(schema) {
            Some(found) => found,
            None => Arc::new(MemorySchemaProvider::new()),
        };
        within.register_table(name.to_owned(), table).map_err(|error| failed(&error))?;
        system.register_schema(schema, within).map_err(|error| failed(&error))?;
    }
    session.register_catalog("system", system);
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
    let options = options.with_allow_statements(false);
    let frame = session.sql_with_options(&with_placeholders(text), options).await;
    let mut frame = frame.map_err(|error| failed(&error))?;
    if !parameters.is_empty() {
        let values = parameters.iter().map(scalar).collect::<Result<HashMap<_, _>, _>>()?;
        let named = ParamValues::Map(values.into_iter().map(|(k, v)| (k, v.into())).collect());
        frame = frame.with_param_values(named).map_err(|error| failed(&error))?;
    }
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(|error| failed(&error))?;
    written(&schema, &batches).map_err(|error| failed(&error))
}

fn table(
    schema: &SchemaRef,
    rows: &[Value],
) -> Result<Arc<MemTable>, deltalake::datafusion::error::DataFusionError> {
    let builder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows.len().max(1));
    let mut decoder = builder.build_decoder()?;
    decoder.serialize(rows)?;
    let batches: Vec<RecordBatch> = decoder.flush()?.into_iter().collect();
    Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![batches])?))
}

/// Every cell as text, or null: what the service answers.
fn written(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<Answer, deltalake::arrow::error::ArrowError> {
    let mut bytes = Vec::new();
    let mut writer =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut bytes);
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    drop(writer);
    let rows: Vec<Map<String, Value>> = if bytes.is_empty() {
        Vec::new()
    } else {
        serde_json::from_slice(&bytes)
            .map_err(|error| deltalake::arrow::error::ArrowError::JsonError(error.to_string()))?
    };
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let cell = |row: &Map<String, Value>, name: &str| match row.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    Ok(Answer {
        columns: schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), type_name(field.data_type()).to_owned()))
            .collect(),
        rows: rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()).collect(),
    })
}

fn type_name(kind: &DataType) -> &'static str {
    match kind {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "INT",
        DataType::Int64 | DataType::UInt64 | DataType::UInt32 => "LONG",
        DataType::Float32 | DataType::Float64 => "DOUBLE",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "DECIMAL",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        DataType::List(_) => "ARRAY",
        _ => "STRING",
    }
}

fn scalar(parameter: &Parameter) -> Result<(String, ScalarValue), ApiError> {
    let kind = parameter.kind.as_deref().unwrap_or("STRING").to_uppercase();
    let text = parameter.value.clone();
    let wrong = || {
        let name = &parameter.name;
        ApiError::invalid(format!("the parameter '{name}' is no {kind}"))
    };
    let value = match (&*kind, &text) {
        ("INT" | "BIGINT" | "LONG" | "SMALLINT", Some(text)) => {
            ScalarValue::Int64(Some(text.parse().map_err(|_| wrong())?))
        }
        ("DOUBLE" | "FLOAT", Some(text)) => {
            ScalarValue::Float64(Some(text.parse().map_err(|_| wrong())?))
        }
        ("BOOLEAN", Some(text)) => ScalarValue::Boolean(Some(text.parse().map_err(|_| wrong())?)),
        _ => ScalarValue::Utf8(text.clone()),
    };
    Ok((parameter.name.clone(), value))
}

/// `:name`, as the service marks parameters, as `$name`; not in quotes, comments, and casts.
fn with_placeholders(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\'' | '"' | '`' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            ':' if rest[1..].starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                written.push('$');
                rest = &rest[1..];
                continue;
            }
            other => other.len_utf8(),
        };
        written.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    written
}

fn field(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn texts(names: &[&str]) -> Vec<Field> {
    names.iter().map(|name| field(name, DataType::Utf8)).collect()
}

fn object(fields: Vec<Field>) -> DataType {
    DataType::Struct(Fields::from(fields))
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Nine digits: so that a product of two fits, which has the digits of both.
fn amount() -> DataType {
    DataType::Decimal128(38, 9)
}

fn map_of_texts() -> DataType {
    let key = Field::new("keys", DataType::Utf8, false);
    let entries = Field::new("entries", object(vec![key, field("values", DataType::Utf8)]), false);
    DataType::Map(Arc::new(entries), false)
}

fn usage_schema() -> SchemaRef {
    let who = ["project_id", "branch_id", "endpoint_id", "database_instance_id", "dlt_pipeline_id"];
    let lakebase = object(texts(&["compute_type", "storage_type"]));
    let mut fields = texts(&["record_id", "account_id", "workspace_id", "sku_name", "cloud"]);
    fields.extend([
        field("usage_start_time", time()),
        field("usage_end_time", time()),
        field("usage_date", DataType::Date32),
        field("custom_tags", map_of_texts()),
        field("usage_unit", DataType::Utf8),
        field("usage_quantity", amount()),
        field("usage_metadata", object(texts(&who))),
        field("identity_metadata", object(texts(&["run_as", "owned_by", "created_by"]))),
        field("record_type", DataType::Utf8),
        field("ingestion_date", DataType::Date32),
        field("billing_origin_product", DataType::Utf8),
        field("product_features", object(vec![field("lakebase", lakebase)])),
        field("usage_type", DataType::Utf8),
    ]);
    Arc::new(Schema::new(fields))
}

fn price_schema() -> SchemaRef {
    let price = || field("default", amount());
    let mut fields = vec![field("price_start_time", time()), field("price_end_time", time())];
    fields.extend(texts(&["account_id", "sku_name", "cloud", "currency_code", "usage_unit"]));
    let pricing = object(vec![price(), field("effective_list", object(vec![price()]))]);
    fields.push(field("pricing", pricing));
    Arc::new(Schema::new(fields))
}

fn catalog_schema() -> SchemaRef {
    Arc::new(Schema::new(texts(&["name", "full_name", "owner", "comment"])))
}

fn schemata_schema() -> SchemaRef {
    Arc::new(Schema::new(texts(&["catalog_name", "name", "full_name", "owner", "comment"])))
}

fn table_schema() -> SchemaRef {
    let names = ["catalog_name", "schema_name", "name", "full_name", "owner", "table_type"];
    Arc::new(Schema::new(texts(&names)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_found_where_they_are() {
        let text = "select ':a', x::int, -- :b\n \"y:z\", :day_1 from t where a = :b";
        let written = "select ':a', x::int, -- :b\n \"y:z\", $day_1 from t where a = $b";
        assert_eq!(with_placeholders(text), written);
        assert_eq!(with_placeholders("'open :a"), "'open :a");
    }

    async fn asked(text: &str, parameters: Value) -> Result<Value, String> {
        let usage = json!({
            "sku_name": usage::COMPUTE, "usage_quantity": "0.000000278", "custom_tags": {"team": "a"},
            "usage_metadata": {"project_id": "p"}, "billing_origin_product": "LAKEBASE",
            "usage_start_time": "2026-11-27T14:00:00", "usage_date": "2026-11-27",
        });
        let tables = [
            ("billing", "usage", usage_schema(), vec![usage]),
            ("billing", "list_prices", price_schema(), usage::price_rows()),
            ("information_schema", "tables", table_schema(), Vec::new()),
        ];
        let parameters: Vec<Parameter> = serde_json::from_value(parameters).unwrap();
        let answer = Box::pin(ask(tables, text, &parameters)).await;
        answer.map(|it| json!(it.rows)).map_err(|error| error.message)
    }

    #[tokio::test]
    async fn usage_is_asked_for_as_on_the_real_service() {
        let text = "select usage_metadata.project_id, custom_tags['team'] as team, \
                    sum(usage_quantity) > 0 as used, min(usage_start_time) from system.billing.usage \
                    where billing_origin_product in ('LAKEBASE', 'DATABASE') and sku_name like :sku \
                    and usage_date >= '2026-11-01' group by 1, 2";
        let sku = json!([{"name": "sku", "value": "%DATABASE_SERVERLESS_COMPUTE%"}]);
        let found = asked(text, sku).await.unwrap();
        assert_eq!(found, json!([["p", "a", "true", "2026-11-27T14:00:00"]]));
        let priced = "select sum(u.usage_quantity * p.pricing.default) > 0 \
                      from system.billing.usage as u join system.billing.list_prices as p \
                      on u.sku_name = p.sku_name and p.price_end_time is null";
        assert_eq!(asked(priced, json!([])).await.unwrap(), json!([["true"]]));
        let none = "select count(*) from system.information_schema.tables";
        assert_eq!(asked(none, json!([])).await.unwrap(), json!([["0"]]));
        for refused in ["select * from system.billing.nothing", "create table x as select 1"] {
            asked(refused, json!([])).await.unwrap_err();
        }
    }
}
