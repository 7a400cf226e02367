//! Roles: those of the catalogue are roles of the branch's PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::checks;
use super::context::Service;
use super::error::ApiError;
use super::fields::{self, Field};
use super::limits;
use super::operation::{Operation, Outcome, Work, refuse_busy};
use super::record::{Kind, Record};
use super::store::Tx;
use crate::emulator::fleet::{AdminSession, BranchId};
use crate::kernel::{Bind, Ident, SqlFile};
use crate::sql_file;

const CREATE_SUPERUSER: SqlFile = sql_file!("emulator/create_databricks_superuser");
const CREATE_STATEMENTS: SqlFile = sql_file!("emulator/create_pg_stat_statements");
const CREATE_STATTUPLE: SqlFile = sql_file!("emulator/create_pgstattuple");
const NAMES: SqlFile = sql_file!("emulator/names");

/// The role whose members may read, write, monitor and maintain everything.
const SUPERUSER: &str = "databricks_superuser";
const MEMBERSHIP: &str = "DATABRICKS_SUPERUSER";
const OAUTH: &str = "LAKEBASE_OAUTH_V1";
const PASSWORD: &str = "PG_PASSWORD_SCRAM_SHA_256";
const NO_LOGIN: &str = "NO_LOGIN";

const FIELDS: &[Field] = &[
    Field::new("postgres_role", checks::postgres_name).fixed(),
    Field::new("identity_type", identity_type).fixed(),
    Field::new("auth_method", auth_method),
    Field::new("membership_roles", memberships),
    Field::new("attributes.bypassrls", checks::truth),
    Field::new("attributes.createdb", checks::truth),
    Field::new("attributes.createrole", checks::truth),
];

fn identity_type(value: &Value) -> Result<Value, String> {
    checks::word(value, &["USER", "SERVICE_PRINCIPAL", "GROUP"])
}

fn auth_method(value: &Value) -> Result<Value, String> {
    checks::word(value, &[OAUTH, PASSWORD, NO_LOGIN])
}

fn memberships(value: &Value) -> Result<Value, String> {
    let list = value.as_array().ok_or("must be a list")?;
    list.iter().try_for_each(|it| checks::word(it, &[MEMBERSHIP]).map(drop))?;
    Ok(value.clone())
}

pub(super) fn shown(record: &Record) -> Value {
    let mut status = record.spec.clone();
    status.insert("role_id".to_owned(), json!(record.id()));
    status.entry("identity_type").or_insert(json!("IDENTITY_TYPE_UNSPECIFIED"));
    status.entry("membership_roles").or_insert(json!([]));
    for name in ["bypassrls", "createdb", "createrole"] {
        let path = format!("attributes.{name}");
        if fields::at(&status, &path).is_none() {
            fields::set(&mut status, &path, json!(false));
        }
    }
    json!({ "parent": record.parent(), "role_id": record.id(), "status": status })
}

/// Whether an id can be one of a role: 4 to 63 characters, as RFC 1123 has labels.
fn refuse_bad_id(id: &str) -> Result<(), ApiError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<u8>| b.is_some_and(|b| b != b'-');
    if (4..=63).contains(&id.len())
        && id.bytes().all(fits)
        && edge(id.bytes().next())
        && edge(id.bytes().last())
    {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Field 'role_id' must match pattern ^[a-z0-9]([a-z0-9-]{{2,61}}[a-z0-9])$, got '{id}'."
    )))
}

fn refuse_reserved(name: &str) -> Result<(), ApiError> {
    let reserved = ["postgres", "public", "none", SUPERUSER];
    if name.starts_with("pg_") || reserved.contains(&name.to_lowercase().as_str()) {
        return Err(ApiError::invalid(format!("Field 'spec.postgres_role' '{name}' is reserved")));
    }
    Ok(())
}

pub(super) async fn create(
    service: &Arc<Service>,
    call: &Call,
    branch: &str,
) -> Result<Value, ApiError> {
    let id = call.parameter("role_id").map(str::to_owned);
    let id = id.unwrap_or_else(|| format!("rol-{}", service.hex()));
    refuse_bad_id(&id)?;
    let replace = call.flag("replace_existing")?;
    let mut spec = fields::created(FIELDS, &fields::spec_of(&call.body)?)?;
    let role = spec.entry("postgres_role").or_insert(json!(id));
    refuse_reserved(role.as_str().unwrap_or_default())?;
    derive_method(&mut spec)?;
    let operation = service.store.transact(|tx| {
        let branch = tx.need_alive(branch)?;
        let all: Vec<Record> = tx.list(&format!("{}/roles", branch.name))?;
        let name = format!("{}/roles/{id}", branch.name);
        let same =
            |it: &&Record| it.name == name || it.spec["postgres_role"] == spec["postgres_role"];
        if let Some(found) = all.iter().find(same) {
            if !replace
                || found.name != name
                || found.spec["postgres_role"] != spec["postgres_role"]
            {
                let text = "role with that name already exists";
                return Err(ApiError::forbidden_by_state(text));
            }
            let (before, mut record) = (Box::new(found.clone()), found.clone());
            record.spec = spec;
            record.updated = service.clock.now();
            let operation = service.begin(tx, &record, Work::Change { before })?;
            tx.keep(&record)?;
            return Ok(operation);
        }
        if all.len() >= limits::ROLES {
            return Err(ApiError::limit(format!("a branch has at most {} roles", limits::ROLES)));
        }
        let mut record = Record::new(Kind::Role, name, String::new(), service.clock.now());
        record.spec = spec;
        let operation = service.begin(tx, &record, Work::Make { replaced: Vec::new() })?;
        tx.keep(&record)?;
        Ok(operation)
    })?;
    service.carry_out(operation).await
}

/// An identity logs in by token, a plain role by password.
fn derive_method(spec: &mut Map<String, Value>) -> Result<(), ApiError> {
    let is_identity = spec.contains_key("identity_type");
    let derived = if is_identity { OAUTH } else { PASSWORD };
    let method = spec.entry("auth_method").or_insert(json!(derived));
    if *method == OAUTH && !is_identity {
        let text = "Field 'spec.auth_method' LAKEBASE_OAUTH_V1 needs 'spec.identity_type'";
        return Err(ApiError::invalid(text));
    }
    Ok(())
}

pub(super) async fn update(
    service: &Arc<Service>,
    call: &Call,
    name: &str,
) -> Result<Value, ApiError> {
    let check = |_: &Tx<'_>, it: &mut Record, _: &Record| derive_method(&mut it.spec);
    service.change((call, name), FIELDS, check).await
}

pub(super) async fn delete(
    service: &Arc<Service>,
    call: &Call,
    name: &str,
) -> Result<Value, ApiError> {
    let check = |tx: &Tx<'_>, role: &mut Record| {
        if let Some(heir) = call.parameter("reassign_owned_to") {
            let heir = heir_of(tx, role, heir)?;
            role.facts.insert("reassign_owned_to".to_owned(), json!(heir));
            tx.keep(role)?;
        }
        Ok(())
    };
    service.remove(name, check).await
}

/// The PostgreSQL name of the role that takes over; it is given by its full name or its id.
fn heir_of(tx: &Tx<'_>, role: &Record, heir: &str) -> Result<String, ApiError> {
    let roles = format!("{}/roles/", role.parent());
    let name =
        if heir.starts_with("projects/") { heir.to_owned() } else { format!("{roles}{heir}") };
    let found = tx.record(&name)?.filter(|_| name.starts_with(&roles) && name != role.name);
    let found = found.ok_or_else(|| unknown_role(heir))?;
    Ok(found.text("postgres_role").unwrap_or_default().to_owned())
}

pub(super) fn unknown_role(name: &str) -> ApiError {
    let id = crate::lakebase::name::id_of(name);
    ApiError::new(404, "NOT_FOUND", format!("role not found; role_id:\"{id}\""))
}

/// Draws a new password for a role; only the answer shows it.
pub(super) async fn new_password(service: &Service, name: &str) -> Result<Value, ApiError> {
    let (role, branch) = service.store.transact(|tx| {
        let role = tx.need_alive(name)?;
        refuse_busy(tx, name)?;
        if role.text("auth_method") != Some(PASSWORD) {
            let text = "only a role with auth_method PG_PASSWORD_SCRAM_SHA_256 has a password";
            return Err(ApiError::forbidden_by_state(text));
        }
        Ok((role.clone(), tx.need(role.parent())?))
    })?;
    let password = service.secret("npg_");
    let mut admin = service.admin(&branch, "postgres").await?;
    let set = set_password(&mut admin, &role, &password).await;
    admin.close().await;
    set?;
    Ok(json!({ "password": password }))
}

async fn set_password(
    admin: &mut AdminSession,
    role: &Record,
    password: &str,
) -> Result<(), ApiError> {
    // It is drawn from letters, digits and `_`.
    let statement = format!("alter role {} password '{password}'", ident(role));
    Ok(admin.run("set a role's password", &statement).await?)
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let (mut role, branch) = service.store.transact(|tx| {
        let role = tx.need(&operation.resource)?;
        let branch = tx.need(role.parent())?;
        Ok::<_, ApiError>((role, branch))
    })?;
    match operation.work {
        Work::Make { .. } | Work::Change { .. } => {
            write(service, &branch, &role).await?;
            role.ready = true;
            Ok(Outcome::keep([role]))
        }
        Work::Remove { .. } => {
            drop_role(service, &branch, &role).await?;
            Ok(Outcome::remove(&role.name))
        }
        Work::Restore => Ok(Outcome::default()),
    }
}

async fn drop_role(service: &Service, branch: &Record, role: &Record) -> Result<(), ApiError> {
    let mut admin = service.admin(branch, "postgres").await?;
    let known = names(&mut admin, "role").await?;
    let databases = names(&mut admin, "database").await?;
    if role.text("postgres_role").is_some_and(|name| known.contains(name)) {
        if let Some(heir) = role.fact("reassign_owned_to") {
            for database in databases {
                let mut inside = service.admin(branch, &database).await?;
                let statement = format!(
                    "reassign owned by {0} to {1}; drop owned by {0}",
                    ident(role),
                    Ident::new(heir)
                );
                let done = inside.run("reassign what a role owns", &statement).await;
                inside.close().await;
                done.map_err(refused)?;
            }
        }
        let dropped = admin.run("drop a role", &format!("drop role {}", ident(role))).await;
        dropped.map_err(refused)?;
    }
    admin.close().await;
    Ok(())
}

/// What PostgreSQL refuses is the caller's mistake, as the real service sees it.
pub(super) fn refused(error: crate::emulator::fleet::FleetError) -> ApiError {
    match error {
        crate::emulator::fleet::FleetError::Session(_) => {
            ApiError::forbidden_by_state(ApiError::from(error).message)
        }
        other => other.into(),
    }
}

/// The role of whoever makes a project.
pub(super) fn first(service: &Service, branch: &Record, owner: &str) -> Record {
    let name = format!("{}/roles/rol-{}", branch.name, service.hex());
    let mut record = Record::new(Kind::Role, name, String::new(), service.clock.now());
    let is_person = owner.contains('@');
    let spec = json!({
        "postgres_role": owner,
        "identity_type": if is_person { "USER" } else { "SERVICE_PRINCIPAL" },
        "auth_method": OAUTH,
        "membership_roles": [MEMBERSHIP],
        "attributes": { "bypassrls": true, "createdb": true, "createrole": true },
    });
    record.spec = spec.as_object().cloned().unwrap_or_default();
    record.ready = true;
    record
}

/// Makes what every database of a branch has: the role of superusers, and extensions that only superusers
/// can make here.
pub(super) async fn furnish(service: &Service, branch: &Record) -> Result<(), ApiError> {
    let mut admin = service.admin(branch, "template1").await?;
    let open = format!("grant all on schema public to {SUPERUSER}");
    for (name, statement) in [
        (CREATE_SUPERUSER.name, CREATE_SUPERUSER.body()),
        (CREATE_STATEMENTS.name, CREATE_STATEMENTS.body()),
        (CREATE_STATTUPLE.name, CREATE_STATTUPLE.body()),
        ("open the schema public", &open),
    ] {
        admin.run(name, statement).await?;
    }
    admin.close().await;
    Ok(())
}

/// Makes the role in PostgreSQL, or makes it as its record says.
pub(super) async fn write(
    service: &Service,
    branch: &Record,
    role: &Record,
) -> Result<(), ApiError> {
    let mut admin = service.admin(branch, "postgres").await?;
    let known = names(&mut admin, "role").await?;
    let is_there = role.text("postgres_role").is_some_and(|name| known.contains(name));
    let is = |path: &str| fields::at(&role.spec, path) == Some(&json!(true));
    let word = |on: bool, word: &str| if on { word.to_owned() } else { format!("no{word}") };
    let statement = format!(
        "{} role {} with {} {} {} {} nosuperuser noreplication",
        if is_there { "alter" } else { "create" },
        ident(role),
        word(role.text("auth_method") != Some(NO_LOGIN), "login"),
        word(is("attributes.createdb"), "createdb"),
        word(is("attributes.createrole"), "createrole"),
        word(is("attributes.bypassrls"), "bypassrls"),
    );
    let is_member = fields::at(&role.spec, "membership_roles")
        .and_then(Value::as_array)
        .is_some_and(|list| list.contains(&json!(MEMBERSHIP)));
    let membership = if is_member {
        format!("grant {SUPERUSER} to {}", ident(role))
    } else {
        // That it had none is nothing to be warned of.
        format!("set client_min_messages = error; revoke {SUPERUSER} from {}", ident(role))
    };
    let written = admin.run("write a role", &format!("{statement}; {membership}")).await;
    admin.close().await;
    written.map_err(refused)
}

/// The names of all roles, or of all databases, that are really there.
pub(super) async fn names(
    admin: &mut AdminSession,
    kind: &'static str,
) -> Result<BTreeSet<String>, ApiError> {
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let found: Vec<Name> = admin.rows(&NAMES, &[Bind::Text(kind.to_owned())]).await?;
    Ok(found.into_iter().map(|it| it.name).collect())
}

/// The records of roles and databases that a branch has from its source, as far as they are in its data.
pub(super) async fn inherit(service: &Service, branch: &Record) -> Result<Vec<Record>, ApiError> {
    let records: Vec<Record> = branch
        .facts
        .get("inherits")
        .and_then(|it| serde_json::from_value(it.clone()).ok())
        .unwrap_or_default();
    let mut admin = service.admin(branch, "postgres").await?;
    let roles = names(&mut admin, "role").await?;
    let databases = names(&mut admin, "database").await?;
    let new_passwords = branch.facts.get("new_passwords") == Some(&json!(true));
    let mut kept = Vec::new();
    for mut record in records {
        let (real, field) = match record.kind {
            Kind::Role => (&roles, "postgres_role"),
            _ => (&databases, "postgres_database"),
        };
        if !record.text(field).is_some_and(|name| real.contains(name)) {
            continue;
        }
        if new_passwords && record.text("auth_method") == Some(PASSWORD) {
            set_password(&mut admin, &record, &service.secret("npg_")).await?;
        }
        record.name = format!("{}/{}/{}", branch.name, record.kind.plural(), record.id());
        if let Some(owner) = record.text("role") {
            let owner = crate::lakebase::name::id_of(owner).to_owned();
            let owner = format!("{}/roles/{owner}", branch.name);
            record.spec.insert("role".to_owned(), json!(owner));
        }
        kept.push(record);
    }
    admin.close().await;
    Ok(kept)
}

fn ident(role: &Record) -> Ident {
    Ident::new(role.text("postgres_role").unwrap_or_default())
}

impl Service {
    /// The superuser's session on a branch.
    pub(super) async fn admin(
        &self,
        branch: &Record,
        database: &str,
    ) -> Result<AdminSession, ApiError> {
        Ok(Box::pin(self.fleet.admin(&BranchId(branch.uid.clone()), database)).await?)
    }
}
