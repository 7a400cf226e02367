//! Catalogs, which show a database in Unity Catalog, and synced tables.
//!
//! Nothing is copied into a synced table: it stays as it is provisioned until its status is scripted
//! through `/emulator/synced_tables/{id}`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::call::Call;
use super::checks;
use super::context::Service;
use super::databases;
use super::error::ApiError;
use super::fields::{self, Field};
use super::operation::{Operation, Outcome, Work};
use super::record::{Kind, Record};
use super::store::Tx;
use super::unity::{self, Securable};

const CATALOG: &[Field] = &[
    Field::new("postgres_database", checks::postgres_name).fixed(),
    Field::new("branch", checks::any_text).fixed(),
    Field::new("create_database_if_missing", checks::truth).fixed(),
];

const SYNCED_TABLE: &[Field] = &[
    Field::new("branch", checks::any_text).fixed(),
    Field::new("source_table_full_name", three_parts).fixed(),
    Field::new("primary_key_columns", checks::texts).fixed(),
    Field::new("scheduling_policy", policy).fixed(),
    Field::new("timeseries_key", checks::any_text).fixed(),
    Field::new("postgres_database", checks::postgres_name).fixed(),
    Field::new("create_database_objects_if_missing", checks::truth).fixed(),
    Field::new("existing_pipeline_id", checks::any_text).fixed().one_of("pipeline"),
    Field::new("new_pipeline_spec", checks::object).fixed().one_of("pipeline"),
    Field::new("type_overrides", checks::list).fixed(),
    Field::new("extra_columns", checks::list).fixed(),
    Field::new("accelerated_sync", checks::truth).fixed(),
];

fn policy(value: &Value) -> Result<Value, String> {
    checks::word(value, &["CONTINUOUS", "TRIGGERED", "SNAPSHOT"])
}

fn three_parts(value: &Value) -> Result<Value, String> {
    let text = value.as_str().unwrap_or_default();
    if text.split('.').count() == 3 && !text.split('.').any(str::is_empty) {
        return Ok(value.clone());
    }
    Err("must be a full name: catalog.schema.table".to_owned())
}

pub(super) fn shown(record: &Record) -> Value {
    let mut status = record.facts.clone();
    status.remove("owner");
    if record.kind == Kind::Catalog {
        for field in ["branch", "postgres_database"] {
            if let Some(value) = record.spec.get(field) {
                status.insert(field.to_owned(), value.clone());
            }
        }
        return json!({ "catalog_id": record.id(), "status": status });
    }
    json!({ "synced_table_id": record.id(), "status": status })
}

/// Where it lies: the branch that the spec names.
fn branch_of(tx: &Tx<'_>, spec: &Map<String, Value>) -> Result<Record, ApiError> {
    let name = spec.get("branch").and_then(Value::as_str).ok_or_else(|| missing("branch"))?;
    let branch = tx.need_alive(name)?;
    if branch.kind != Kind::Branch {
        return Err(ApiError::not_found("branch"));
    }
    if !branch.ready {
        return Err(ApiError::forbidden_by_state("the branch is not ready"));
    }
    Ok(branch)
}

fn missing(field: &str) -> ApiError {
    ApiError::invalid(format!(
        "Field 'spec.{field}' is required, expected non-default value (not \"\")!"
    ))
}

pub(super) async fn create_catalog(service: &Arc<Service>, call: &Call) -> Result<Value, ApiError> {
    let id = call.required("catalog_id")?;
    let spec = fields::created(CATALOG, &fields::spec_of(&call.body)?)?;
    if fields::at(&spec, "postgres_database").is_none() {
        return Err(missing("postgres_database"));
    }
    let operation = service.store.transact(|tx| {
        let name = format!("catalogs/{id}");
        if tx.record(&name)?.is_some() {
            return Err(ApiError::exists("catalog", id));
        }
        let branch = branch_of(tx, &spec)?;
        let mut record = Record::new(Kind::Catalog, name, service.uuid(), service.clock.now());
        record.facts.insert("project".to_owned(), json!(branch.project()));
        record.facts.insert("owner".to_owned(), json!(call.principal));
        record.spec = spec;
        if !record.is("create_database_if_missing") && database(tx, &record)?.is_none() {
            let name = record.text("postgres_database").unwrap_or_default();
            return Err(ApiError::new(404, "NOT_FOUND", format!("database `{name}` not found")));
        }
        let operation = service.begin(tx, &record, Work::Make { replaced: Vec::new() })?;
        tx.keep(&record)?;
        Ok(operation)
    })?;
    service.carry_out(operation).await
}

/// The database of a catalog or synced table.
fn database(tx: &Tx<'_>, record: &Record) -> Result<Option<Record>, ApiError> {
    let branch = branch_of(tx, &record.spec)?;
    let all: Vec<Record> = tx.list(&format!("{}/databases", branch.name))?;
    let wanted = record.text("postgres_database");
    Ok(all.into_iter().find(|it| it.text("postgres_database") == wanted))
}

pub(super) fn create_synced_table(service: &Service, call: &Call) -> Result<Value, ApiError> {
    let id = call.required("synced_table_id")?;
    three_parts(&json!(id))
        .map_err(|why| ApiError::invalid(format!("Field 'synced_table_id' {why}")))?;
    let mut spec = fields::created(SYNCED_TABLE, &fields::spec_of(&call.body)?)?;
    for field in ["source_table_full_name", "primary_key_columns", "scheduling_policy"] {
        if fields::at(&spec, field).is_none() {
            return Err(missing(field));
        }
    }
    spec.entry("create_database_objects_if_missing").or_insert(json!(true));
    service.store.transact(|tx| {
        let name = format!("synced_tables/{id}");
        if tx.record(&name)?.is_some() {
            return Err(ApiError::exists("synced table", id));
        }
        let branch = branch_of(tx, &spec)?;
        let mut record = Record::new(Kind::SyncedTable, name, service.uuid(), service.clock.now());
        record.spec = spec;
        for (field, value) in [
            ("project", branch.project()),
            ("detailed_state", "SYNCED_TABLE_PROVISIONING"),
            ("unity_catalog_provisioning_state", "PROVISIONING"),
        ] {
            record.facts.insert(field.to_owned(), json!(value));
        }
        record.facts.insert("pipeline_id".to_owned(), json!(service.uuid()));
        record.ready = true;
        tx.keep(&record)?;
        let operation = service.done_at_once(tx, &record, service.typed(tx, &record)?)?;
        Ok(operation.shown())
    })
}

/// Sets what the status of a synced table says; an emulator-only call.
pub(super) fn script_status(service: &Service, call: &Call, id: &str) -> Result<Value, ApiError> {
    service.store.transact(|tx| {
        let mut record = tx.need(&format!("synced_tables/{id}"))?;
        let given = call.body["status"].as_object().cloned().unwrap_or_default();
        record.facts.extend(given);
        record.updated = service.clock.now();
        tx.keep(&record)?;
        service.shown(tx, &record)
    })
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let mut record = service.store.transact(|tx| tx.need(&operation.resource))?;
    match operation.work {
        Work::Make { .. } => {
            let mut kept = make_database(service, &record).await?;
            record.ready = true;
            service.show_in_unity(&record)?;
            kept.push(record);
            Ok(Outcome::keep(kept))
        }
        Work::Remove { .. } => {
            service.hide_from_unity(&record)?;
            Ok(Outcome::remove(&record.name))
        }
        Work::Change { .. } | Work::Restore => Ok(Outcome::default()),
    }
}

impl Service {
    /// A catalog of the Postgres API is one of Unity Catalog too.
    fn show_in_unity(&self, record: &Record) -> Result<(), ApiError> {
        if record.kind != Kind::Catalog {
            return Ok(());
        }
        self.store.transact(|tx| {
            let owner = record.fact("owner").unwrap_or(&self.user).to_owned();
            let kind =
                Map::from_iter([("catalog_type".to_owned(), json!("MANAGED_ONLINE_CATALOG"))]);
            match unity::create(self, tx, (Securable::Catalog, record.id()), (&owner, kind)) {
                Err(error) if !error.code.ends_with("_ALREADY_EXISTS") => Err(error),
                _ => Ok(()),
            }
        })
    }

    fn hide_from_unity(&self, record: &Record) -> Result<(), ApiError> {
        if record.kind != Kind::Catalog {
            return Ok(());
        }
        self.store.transact(|tx| match unity::delete(tx, Securable::Catalog, record.id(), true) {
            Err(error) if !error.code.ends_with("_DOES_NOT_EXIST") => Err(error),
            _ => Ok(()),
        })
    }
}

/// Makes the database of a catalog, if it is missing and may be made.
async fn make_database(service: &Service, record: &Record) -> Result<Vec<Record>, ApiError> {
    let (found, branch, roles) = service.store.transact(|tx| {
        let branch = branch_of(tx, &record.spec)?;
        let roles: Vec<Record> = tx.list(&format!("{}/roles", branch.name))?;
        Ok::<_, ApiError>((database(tx, record)?, branch, roles))
    })?;
    if found.is_some() {
        return Ok(Vec::new());
    }
    let principal = record.fact("owner");
    let role =
        roles.into_iter().find(|it| it.text("postgres_role") == principal).ok_or_else(|| {
            ApiError::forbidden_by_state("the caller has no role on the branch to own the database")
        })?;
    let name = format!("{}/databases/db-{}", branch.name, service.hex());
    let mut made = Record::new(Kind::Database, name, String::new(), service.clock.now());
    let postgres = record.spec.get("postgres_database").cloned().unwrap_or_default();
    made.spec.insert("postgres_database".to_owned(), postgres);
    made.spec.insert("role".to_owned(), json!(role.name));
    made.ready = true;
    databases::write(service, &branch, &made, &role).await?;
    Ok(vec![made])
}
