//! Projects.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::branches;
use super::call::Call;
use super::checks;
use super::context::Service;
use super::endpoints;
use super::error::ApiError;
use super::fields::{self, Field};
use super::limits;
use super::operation::{Operation, Outcome, Work};
use super::record::{Kind, Record};
use super::store::Tx;
use super::{databases, roles};
use crate::emulator::fleet::BranchId;
use crate::lakebase::name::check_id;

/// The branch, the endpoint and the database that a project begins with.
pub(super) const FIRST_BRANCH: &str = "production";
pub(super) const FIRST_ENDPOINT: &str = "primary";
pub(super) const FIRST_DATABASE: &str = "databricks_postgres";
pub(super) const VERSION: u32 = 17;

const FIELDS: &[Field] = &[
    Field::new("display_name", checks::text),
    Field::new("pg_version", checks::integer).fixed(),
    Field::new("history_retention_duration", checks::history_retention),
    Field::new("default_endpoint_settings.autoscaling_limit_min_cu", checks::compute_units),
    Field::new("default_endpoint_settings.autoscaling_limit_max_cu", checks::compute_units),
    Field::new("default_endpoint_settings.suspend_timeout_duration", checks::suspend_timeout)
        .one_of(SUSPENSION),
    Field::new("default_endpoint_settings.no_suspension", checks::yes).one_of(SUSPENSION),
    Field::new("default_endpoint_settings.pg_settings", checks::settings),
    Field::new("default_branch", checks::any_text),
    Field::new("custom_tags", checks::tags),
    Field::new("budget_policy_id", checks::any_text),
    Field::new("enable_pg_native_login", checks::truth),
];
const SUSPENSION: &str = "project_default_settings.suspension";
/// The name under which another client knows the same group.
const SUSPENSION_TOO: &str = "spec.default_endpoint_settings.suspension";

pub(super) fn shown(service: &Service, tx: &Tx<'_>, record: &Record) -> Result<Value, ApiError> {
    let mut status = record.spec.clone();
    status.insert("project_id".to_owned(), json!(record.id()));
    status.insert("owner".to_owned(), record.facts.get("owner").cloned().unwrap_or_default());
    let limit = json!(limits::LOGICAL_SIZE);
    status.insert("branch_logical_size_limit_bytes".to_owned(), limit);
    let (size, active) = service.project_facts(tx, &record.name)?;
    status.insert("synthetic_storage_size_bytes".to_owned(), json!(size));
    if let Some(active) = active {
        status.insert("compute_last_active_time".to_owned(), json!(active));
    }
    let mut shown = json!({ "project_id": record.id(), "status": status });
    if let (Some(deleted), Some(purged)) = (record.deleted, record.purged) {
        shown["delete_time"] = json!(deleted);
        shown["purge_time"] = json!(purged);
    }
    Ok(shown)
}

pub(super) fn list(service: &Service, call: &Call) -> Result<Value, ApiError> {
    let page = call.page(100)?;
    let deleted = call.flag("show_deleted")?;
    service.store.transact(|tx| {
        let mut all: Vec<Record> = tx.list(Kind::Project.plural())?;
        all.retain(|it| deleted || it.is_alive());
        service.listed(tx, &page, Kind::Project, &all)
    })
}

pub(super) async fn create(service: &Arc<Service>, call: &Call) -> Result<Value, ApiError> {
    let id = call.required("project_id")?;
    let operation = service.store.transact(|tx| {
        let records = drafted(service, tx, call, id)?;
        let operation = service.begin(tx, &records[0], Work::Make { replaced: Vec::new() })?;
        records.iter().try_for_each(|record| tx.keep(record))?;
        Ok::<_, ApiError>(operation)
    })?;
    service.carry_out(operation).await
}

/// A project that a call asks for, its first branch, and the endpoint of that.
pub(super) fn drafted(
    service: &Service,
    tx: &Tx<'_>,
    call: &Call,
    id: &str,
) -> Result<[Record; 3], ApiError> {
    refuse_bad_id(Kind::Project, id)?;
    let mut spec = fields::created(FIELDS, &fields::spec_of(&call.body)?)?;
    with_defaults(&mut spec, id)?;
    let name = format!("projects/{id}");
    if tx.record(&name)?.is_some() {
        return Err(ApiError::exists("project", id));
    }
    if tx.list::<Record>("projects")?.len() >= limits::PROJECTS {
        let text = format!("a workspace has at most {} projects", limits::PROJECTS);
        return Err(ApiError::limit(text));
    }
    let now = service.clock.now();
    let mut project = Record::new(Kind::Project, name.clone(), service.uuid(), now);
    project.spec = spec;
    project
        .spec
        .insert("default_branch".to_owned(), json!(format!("{name}/branches/{FIRST_BRANCH}")));
    project.facts.insert("owner".to_owned(), json!(call.principal));
    let mut branch = service.branch_record(&project, FIRST_BRANCH);
    branch.spec.insert("no_expiry".to_owned(), json!(true));
    let initial = &call.body["initial_branch_spec"]["is_protected"];
    if initial == &json!(true) {
        branch.spec.insert("is_protected".to_owned(), json!(true));
    }
    let given = call.body["initial_endpoint_spec"].as_object().cloned().unwrap_or_default();
    let endpoint = service.first_endpoint(&project, &branch, &given)?;
    Ok([project, branch, endpoint])
}

pub(super) fn update(service: &Service, call: &Call, name: &str) -> Result<Value, ApiError> {
    let mask = call.required("update_mask")?.replace(SUSPENSION_TOO, &format!("spec.{SUSPENSION}"));
    let given = fields::spec_of(&call.body)?;
    service.store.transact(|tx| {
        let mut project = tx.need_alive(name)?;
        project.spec = fields::updated(FIELDS, (&mask, &given), &project.spec)?;
        check_spread(&project.spec, "default_endpoint_settings.")?;
        fields::clear(&mut project.spec, "default_endpoint_settings.no_suspension");
        if let Some(branch) = project.text("default_branch").map(str::to_owned) {
            let found = tx.need_alive(&branch)?;
            if found.project() != project.name {
                return Err(ApiError::invalid("Field 'spec.default_branch' is in another project"));
            }
            if found.text("expire_time").is_some() {
                let text = "a branch that expires cannot be the default branch";
                return Err(ApiError::forbidden_by_state(text));
            }
        }
        project.updated = service.clock.now();
        tx.keep(&project)?;
        for branch in tx.list::<Record>(&format!("{name}/branches"))? {
            service.keep_past(&project, &branch.uid);
        }
        let operation = service.done_at_once(tx, &project, service.typed(tx, &project)?)?;
        Ok(operation.shown())
    })
}

pub(super) async fn delete(
    service: &Arc<Service>,
    call: &Call,
    name: &str,
) -> Result<Value, ApiError> {
    let purge = call.flag("purge")?;
    let operation = service.store.transact(|tx| {
        let project = if purge { tx.need(name)? } else { tx.need_alive(name)? };
        let branches: Vec<Record> = tx.list(&format!("{name}/branches"))?;
        if branches.iter().any(|it| it.is_alive() && it.is("is_protected")) {
            let text = "cannot delete project with protected branches";
            return Err(ApiError::forbidden_by_state(text));
        }
        service.begin(tx, &project, Work::Remove { purge })
    })?;
    service.carry_out(operation).await
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let name = &operation.resource;
    let (mut project, below) = service
        .store
        .transact(|tx| Ok::<_, ApiError>((tx.need(name)?, tx.below::<Record>(name)?)))?;
    match operation.work {
        Work::Make { .. } => make(service, project, below).await,
        Work::Change { .. } => Ok(Outcome::default()),
        Work::Remove { purge: true } => {
            service.dismantle(&below).await?;
            Ok(Outcome::remove(name))
        }
        Work::Remove { purge: false } => {
            for endpoint in below.iter().filter(|it| it.kind == Kind::Endpoint) {
                service.close_endpoint(&endpoint.uid).await?;
            }
            let now = service.clock.now();
            project.deleted = Some(now);
            project.purged = Some(now.plus(limits::UNDELETE));
            Ok(Outcome::keep([project]))
        }
        Work::Restore => {
            project.deleted = None;
            project.purged = None;
            let alive = |name: &str| below.iter().any(|it| it.name == name && it.is_alive());
            for endpoint in
                below.iter().filter(|it| it.kind == Kind::Endpoint && alive(it.parent()))
            {
                service.open_asleep(endpoint).await?;
            }
            Ok(Outcome::keep([project]))
        }
    }
}

/// Makes the first role and database of a root branch, and notes how large it then is.
pub(super) async fn furnish(
    service: &Service,
    branch: &mut Record,
    owner: &str,
) -> Result<[Record; 2], ApiError> {
    let role = roles::first(service, branch, owner);
    let database = databases::first(service, branch, &role);
    roles::furnish(service, branch).await?;
    roles::write(service, branch, &role).await?;
    databases::write(service, branch, &database, &role).await?;
    branches::measure(service, branch).await?;
    Ok([role, database])
}

/// Makes the first branch with its databases, roles and endpoint.
async fn make(
    service: &Arc<Service>,
    mut project: Record,
    below: Vec<Record>,
) -> Result<Outcome, ApiError> {
    let of = |kind| below.iter().find(|it| it.kind == kind).cloned();
    let (Some(mut branch), Some(mut endpoint)) = (of(Kind::Branch), of(Kind::Endpoint)) else {
        return Err(ApiError::internal("the first branch is missing in the catalogue"));
    };
    let id = BranchId(branch.uid.clone());
    if !service.fleet.branches().contains(&id) {
        Box::pin(service.fleet.create_root(&id, VERSION)).await?;
    }
    service.keep_past(&project, &branch.uid);
    let owner = project.fact("owner").unwrap_or(&service.user).to_owned();
    let [role, database] = furnish(service, &mut branch, &owner).await?;
    endpoints::open(service, &endpoint).await?;
    for record in [&mut project, &mut branch, &mut endpoint] {
        record.ready = true;
    }
    Ok(Outcome::keep([project, branch, endpoint, role, database]))
}

fn with_defaults(spec: &mut Map<String, Value>, id: &str) -> Result<(), ApiError> {
    let version = spec.entry("pg_version").or_insert(json!(VERSION));
    if version != &json!(VERSION) {
        return Err(ApiError::invalid(format!(
            "Field 'spec.pg_version' must be {VERSION}: the emulator runs no other version"
        )));
    }
    spec.remove("default_branch");
    spec.entry("display_name").or_insert(json!(id));
    spec.entry("history_retention_duration").or_insert(json!("604800s"));
    spec.entry("enable_pg_native_login").or_insert(json!(false));
    let mut usual = |path: &str, value: Value| {
        if fields::at(spec, path).is_none() {
            fields::set(spec, path, value);
        }
    };
    usual("default_endpoint_settings.autoscaling_limit_min_cu", json!(1.0));
    usual("default_endpoint_settings.autoscaling_limit_max_cu", json!(1.0));
    if fields::at(spec, "default_endpoint_settings.no_suspension").is_some() {
        fields::clear(spec, "default_endpoint_settings.no_suspension");
    } else {
        usual_timeout(spec);
    }
    check_spread(spec, "default_endpoint_settings.")
}

fn usual_timeout(spec: &mut Map<String, Value>) {
    let path = "default_endpoint_settings.suspend_timeout_duration";
    if fields::at(spec, path).is_none() {
        fields::set(spec, path, json!("86400s"));
    }
}

/// The limits of a compute lie in order, and not too far apart.
pub(super) fn check_spread(spec: &Map<String, Value>, below: &str) -> Result<(), ApiError> {
    let number = |name: &str| fields::at(spec, &format!("{below}{name}")).and_then(Value::as_f64);
    let least = number("autoscaling_limit_min_cu");
    let (Some(least), Some(most)) = (least, number("autoscaling_limit_max_cu")) else {
        return Ok(());
    };
    if least > most {
        let text = "autoscaling_limit_min_cu must not exceed autoscaling_limit_max_cu";
        return Err(ApiError::invalid(text));
    }
    if most - least > limits::SPREAD {
        return Err(ApiError::invalid(format!(
            "autoscaling_limit_max_cu may exceed autoscaling_limit_min_cu by {} at most",
            limits::SPREAD
        )));
    }
    Ok(())
}

/// Refuses an id that the kind cannot have.
pub(super) fn refuse_bad_id(kind: Kind, id: &str) -> Result<(), ApiError> {
    check_id(id).map_err(|_| {
        let field = kind.word();
        ApiError::invalid(format!(
            "Field '{field}_id' must match pattern ^[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?$, got '{id}'."
        ))
    })
}

impl Service {
    /// A branch that is to be made.
    pub(super) fn branch_record(&self, project: &Record, id: &str) -> Record {
        let name = format!("{}/branches/{id}", project.name);
        let uid = format!("br-{}", self.hex());
        Record::new(Kind::Branch, name, uid, self.clock.now())
    }
}
