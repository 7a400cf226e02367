//! Databases: those of the catalogue are databases of the branch's PostgreSQL.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::Call;
use super::checks;
use super::context::Service;
use super::error::ApiError;
use super::fields::{self, Field};
use super::limits;
use super::operation::{Operation, Outcome, Work};
use super::projects::{FIRST_DATABASE, refuse_bad_id};
use super::record::{Kind, Record};
use super::roles::{names, refused, unknown_role};
use super::store::Tx;
use crate::kernel::Ident;

const FIELDS: &[Field] = &[
    Field::new("postgres_database", checks::postgres_name).fixed(),
    Field::new("role", checks::any_text),
];

pub(super) fn shown(record: &Record) -> Value {
    let mut status = record.spec.clone();
    status.insert("database_id".to_owned(), json!(record.id()));
    json!({ "parent": record.parent(), "database_id": record.id(), "status": status })
}

pub(super) async fn create(
    service: &Arc<Service>,
    call: &Call,
    branch: &str,
) -> Result<Value, ApiError> {
    let id = call.parameter("database_id").map(str::to_owned);
    let id = id.unwrap_or_else(|| format!("db-{}", service.hex()));
    refuse_bad_id(Kind::Database, &id)?;
    let mut spec = fields::created(FIELDS, &fields::spec_of(&call.body)?)?;
    if fields::at(&spec, "role").is_none() {
        let text = "Field 'database.spec.role' is required, expected non-default value (not \"\")!";
        return Err(ApiError::invalid(text));
    }
    spec.entry("postgres_database").or_insert(json!(id));
    let operation = service.store.transact(|tx| {
        let branch = tx.need_alive(branch)?;
        let all: Vec<Record> = tx.list(&format!("{}/databases", branch.name))?;
        let name = format!("{}/databases/{id}", branch.name);
        let taken = ["postgres", "template0", "template1"];
        let postgres = spec["postgres_database"].as_str().unwrap_or_default();
        if taken.contains(&postgres)
            || all
                .iter()
                .any(|it| it.name == name || it.text("postgres_database") == Some(postgres))
        {
            let text = "database with that name already exists";
            return Err(ApiError::forbidden_by_state(text));
        }
        if all.len() >= limits::DATABASES {
            let text = format!("a branch has at most {} databases", limits::DATABASES);
            return Err(ApiError::limit(text));
        }
        let mut record = Record::new(Kind::Database, name, String::new(), service.clock.now());
        record.spec = spec;
        owner(tx, &record)?;
        let operation = service.begin(tx, &record, Work::Make { replaced: Vec::new() })?;
        tx.keep(&record)?;
        Ok(operation)
    })?;
    service.carry_out(operation).await
}

/// The role that owns a database.
fn owner(tx: &Tx<'_>, database: &Record) -> Result<Record, ApiError> {
    let name = database.text("role").unwrap_or_default();
    let found = tx.record(name)?.filter(|it| it.kind == Kind::Role);
    found.filter(|it| it.parent() == database.parent()).ok_or_else(|| unknown_role(name))
}

pub(super) async fn update(
    service: &Arc<Service>,
    call: &Call,
    name: &str,
) -> Result<Value, ApiError> {
    let check = |tx: &Tx<'_>, it: &mut Record, _: &Record| owner(tx, it).map(drop);
    service.change((call, name), FIELDS, check).await
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let (mut database, branch) = service.store.transact(|tx| {
        let database = tx.need(&operation.resource)?;
        let branch = tx.need(database.parent())?;
        Ok::<_, ApiError>((database, branch))
    })?;
    match operation.work {
        Work::Make { .. } | Work::Change { .. } => {
            let owner = service.store.transact(|tx| owner(tx, &database))?;
            write(service, &branch, &database, &owner).await?;
            database.ready = true;
            Ok(Outcome::keep([database]))
        }
        Work::Remove { .. } => {
            let mut admin = service.admin(&branch, "postgres").await?;
            let statement = format!("drop database if exists {} with (force)", ident(&database));
            let dropped = admin.run("drop a database", &statement).await;
            admin.close().await;
            dropped.map_err(refused)?;
            Ok(Outcome::remove(&database.name))
        }
        Work::Restore => Ok(Outcome::default()),
    }
}

/// The database that a project begins with.
pub(super) fn first(service: &Service, branch: &Record, role: &Record) -> Record {
    let name = format!("{}/databases/{}", branch.name, FIRST_DATABASE.replace('_', "-"));
    let mut record = Record::new(Kind::Database, name, String::new(), service.clock.now());
    record.spec.insert("postgres_database".to_owned(), json!(FIRST_DATABASE));
    record.spec.insert("role".to_owned(), json!(role.name));
    record.ready = true;
    record
}

/// Makes the database in PostgreSQL, or gives it to its owner.
pub(super) async fn write(
    service: &Service,
    branch: &Record,
    database: &Record,
    owner: &Record,
) -> Result<(), ApiError> {
    let name = ident(database);
    let owner = Ident::new(owner.text("postgres_role").unwrap_or_default());
    let mut admin = service.admin(branch, "postgres").await?;
    let known = names(&mut admin, "database").await?;
    let is_there = database.text("postgres_database").is_some_and(|name| known.contains(name));
    let statement = if is_there {
        format!("alter database {name} owner to {owner}")
    } else {
        format!("create database {name} owner {owner}")
    };
    let written = admin.run("write a database", &statement).await;
    let open = format!("grant all on database {name} to databricks_superuser");
    let opened = match written {
        Ok(()) => admin.run("open a database", &open).await,
        Err(error) => Err(error),
    };
    admin.close().await;
    opened.map_err(refused)
}

fn ident(database: &Record) -> Ident {
    Ident::new(database.text("postgres_database").unwrap_or_default())
}
