//! Branches.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::branch_rules::{
    check_counts, check_protected, check_protection, choose_source, is_archived, is_kept, point,
    refuse_kept, settle_expiry,
};
use super::call::Call;
use super::checks;
use super::context::Service;
use super::endpoints;
use super::error::ApiError;
use super::fields::{self, Field};
use super::limits;
use super::operation::{Operation, Outcome, Work, refuse_busy};
use super::projects::refuse_bad_id;
use super::record::{Kind, Record};
use super::roles;
use super::store::Tx;
use crate::emulator::fleet::{BranchId, EndpointId};

const FIELDS: &[Field] = &[
    Field::new("source_branch", checks::any_text).fixed(),
    Field::new("source_branch_time", checks::time).fixed(),
    Field::new("source_branch_lsn", checks::lsn).fixed(),
    Field::new("source_snapshot", checks::any_text).fixed(),
    Field::new("is_protected", checks::truth),
    Field::new("ttl", checks::time_to_live).one_of(EXPIRATION),
    Field::new("expire_time", checks::time).one_of(EXPIRATION),
    Field::new("no_expiry", checks::yes).one_of(EXPIRATION),
];
const EXPIRATION: &str = "expiration";

pub(super) fn shown(tx: &Tx<'_>, record: &Record) -> Result<Value, ApiError> {
    let mut status = Map::new();
    let mut put = |name: &str, value: Value| drop(status.insert(name.to_owned(), value));
    put("branch_id", json!(record.id()));
    put("current_state", json!(state(record)));
    if !record.ready {
        put("pending_state", json!("READY"));
    }
    put("state_change_time", json!(record.updated));
    let project = tx.record(record.project())?;
    let default = project.as_ref().and_then(|it| it.text("default_branch"));
    let is_default = default == Some(&*record.name);
    put("default", json!(is_default));
    put("is_protected", json!(record.is("is_protected")));
    for name in ["expire_time", "source_branch", "source_snapshot"] {
        if let Some(text) = record.text(name) {
            put(name, json!(text));
        }
    }
    for name in ["source_branch_lsn", "source_branch_time", "logical_size_bytes"] {
        if let Some(value) = record.facts.get(name) {
            put(name, value.clone());
        }
    }
    if let (Some(deleted), Some(purged)) = (record.deleted, record.purged) {
        put("delete_time", json!(deleted));
        put("purge_time", json!(purged));
    }
    Ok(json!({ "parent": record.parent(), "branch_id": record.id(), "status": status }))
}

fn state(record: &Record) -> &'static str {
    if !record.is_alive() {
        "DELETED"
    } else if !record.ready {
        "INIT"
    } else if is_archived(record) {
        "ARCHIVED"
    } else {
        "READY"
    }
}

pub(super) fn list(service: &Service, call: &Call, project: &str) -> Result<Value, ApiError> {
    let page = call.page(1000)?;
    let deleted = call.flag("show_deleted")?;
    service.store.transact(|tx| {
        tx.need_alive(project)?;
        let mut all: Vec<Record> = tx.list(&format!("{project}/branches"))?;
        all.retain(|it| deleted || it.is_alive());
        service.listed(tx, &page, Kind::Branch, &all)
    })
}

pub(super) async fn get(service: &Service, name: &str) -> Result<Value, ApiError> {
    let record = service.store.transact(|tx| tx.need(name))?;
    // Its size is looked up only while its server runs anyway.
    let facts = Box::pin(service.fleet.facts_if_awake(&BranchId(record.uid))).await;
    service.store.transact(|tx| {
        let mut record = tx.need(name)?;
        if let Some(facts) = facts {
            let size = json!(facts.logical_size_bytes);
            record.facts.insert("logical_size_bytes".to_owned(), size);
            tx.keep(&record)?;
        }
        service.shown(tx, &record)
    })
}

pub(super) async fn create(
    service: &Arc<Service>,
    call: &Call,
    project: &str,
) -> Result<Value, ApiError> {
    let id = call.required("branch_id")?;
    refuse_bad_id(Kind::Branch, id)?;
    let replace = call.flag("replace_existing")?;
    let given = fields::spec_of(&call.body)?;
    let mut spec = fields::created(FIELDS, &given)?;
    let operation = service.store.transact(|tx| {
        let project = tx.need_alive(project)?;
        let now = service.clock.now();
        settle_expiry(&mut spec, now, true)?;
        let mut branch = service.branch_record(&project, id);
        branch.spec = spec;
        let replaced = replaced(tx, &branch, replace)?;
        choose_source(tx, &project, &mut branch, now)?;
        check_counts(tx, &branch, branch.is("is_protected"))?;
        check_protection(&branch, false)?;
        let endpoint = service.first_endpoint(&project, &branch, &Map::new())?;
        service.check_active(tx, &project.name)?;
        let operation = service.begin(tx, &branch, Work::Make { replaced })?;
        tx.remove(&branch.name)?;
        tx.keep(&branch)?;
        tx.keep(&endpoint)?;
        Ok::<_, ApiError>(operation)
    })?;
    service.carry_out(operation).await
}

/// What stands under the name already, if it may be replaced.
fn replaced(tx: &Tx<'_>, branch: &Record, replace: bool) -> Result<Vec<Record>, ApiError> {
    let Some(found) = tx.record(&branch.name)? else { return Ok(Vec::new()) };
    if !replace {
        return Err(ApiError::exists("branch", branch.id()));
    }
    if found.is_alive() {
        refuse_kept(tx, &found, "replace")?;
    }
    let mut all: Vec<Record> = tx.below(&branch.name)?;
    all.push(found);
    Ok(all)
}

pub(super) fn update(service: &Service, call: &Call, name: &str) -> Result<Value, ApiError> {
    let mask = call.required("update_mask")?;
    let given = fields::spec_of(&call.body)?;
    service.store.transact(|tx| {
        let mut branch = tx.need_alive(name)?;
        let before = branch.clone();
        branch.spec = fields::updated(FIELDS, (mask, &given), &branch.spec)?;
        let now = service.clock.now();
        if branch.text("expire_time") != before.text("expire_time") || branch.text("ttl").is_some()
        {
            settle_expiry(&mut branch.spec, now, true)?;
        }
        let project = tx.need(branch.project())?;
        let stays = is_kept(tx, &project, &branch)?.is_some();
        check_protection(&branch, stays)?;
        if branch.is("is_protected") && !before.is("is_protected") {
            check_protected(tx, &branch)?;
        }
        branch.updated = now;
        tx.keep(&branch)?;
        let operation = service.done_at_once(tx, &branch, service.typed(tx, &branch)?)?;
        Ok(operation.shown())
    })
}

pub(super) async fn delete(
    service: &Arc<Service>,
    purge: bool,
    name: &str,
) -> Result<Value, ApiError> {
    let operation = service.store.transact(|tx| {
        let branch = if purge { tx.need(name)? } else { tx.need_alive(name)? };
        if branch.is_alive() {
            refuse_kept(tx, &branch, "delete")?;
        }
        service.begin(tx, &branch, Work::Remove { purge })
    })?;
    service.carry_out(operation).await
}

pub(super) async fn undelete(service: &Arc<Service>, name: &str) -> Result<Value, ApiError> {
    let check = |tx: &Tx<'_>, branch: &Record| {
        if let Some(source) = branch.text("source_branch") {
            tx.need_alive(source)?;
        }
        check_counts(tx, branch, branch.is("is_protected"))
    };
    service.undelete(name, check).await
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let name = &operation.resource;
    let (mut branch, below) = service
        .store
        .transact(|tx| Ok::<_, ApiError>((tx.need(name)?, tx.below::<Record>(name)?)))?;
    let endpoints = || below.iter().filter(|it| it.kind == Kind::Endpoint);
    match &operation.work {
        Work::Make { replaced } => {
            service.dismantle(replaced).await?;
            make(service, branch, endpoints().cloned().collect()).await
        }
        Work::Change { .. } => Ok(Outcome::default()),
        Work::Remove { purge: true } => {
            service.dismantle(&below).await?;
            service.dismantle(&[branch]).await?;
            Ok(Outcome::remove(name))
        }
        Work::Remove { purge: false } => {
            for endpoint in endpoints() {
                service.close_endpoint(&endpoint.uid).await?;
            }
            let now = service.clock.now();
            branch.deleted = Some(now);
            branch.purged = Some(now.plus(limits::UNDELETE));
            branch.updated = now;
            Ok(Outcome::keep([branch]))
        }
        Work::Restore => {
            branch.deleted = None;
            branch.purged = None;
            branch.updated = service.clock.now();
            if branch.time("expire_time").is_some_and(|at| at <= service.clock.now()) {
                branch.spec.remove("expire_time");
                branch.spec.insert("no_expiry".to_owned(), json!(true));
            }
            for endpoint in endpoints() {
                service.open_asleep(endpoint).await?;
            }
            Ok(Outcome::keep([branch]))
        }
    }
}

/// Copies the data, takes over what is in it, and opens the endpoint.
async fn make(
    service: &Arc<Service>,
    mut branch: Record,
    endpoints: Vec<Record>,
) -> Result<Outcome, ApiError> {
    let id = BranchId(branch.uid.clone());
    let source = BranchId(branch.fact("source_uid").unwrap_or_default().to_owned());
    if !service.fleet.branches().contains(&id) {
        Box::pin(service.fleet.branch(&source, point(&branch), &id)).await?;
    }
    let project = service.store.transact(|tx| tx.need(branch.project()))?;
    service.keep_past(&project, &branch.uid);
    if let Some(origin) = service.fleet.origin(&id)
        && branch.text("source_branch").is_some()
    {
        branch.facts.insert("source_branch_lsn".to_owned(), json!(origin.lsn));
        branch.facts.insert("source_branch_time".to_owned(), json!(origin.time));
    }
    let mut kept = roles::inherit(service, &branch).await?;
    measure(service, &mut branch).await?;
    for mut endpoint in endpoints {
        endpoints::open(service, &endpoint).await?;
        endpoint.ready = true;
        kept.push(endpoint);
    }
    branch.ready = true;
    branch.updated = service.clock.now();
    for field in ["source_uid", "inherits", "new_passwords"] {
        branch.facts.remove(field);
    }
    kept.push(branch);
    Ok(Outcome::keep(kept))
}

/// Puts a branch away, as the real service does with those that nobody uses; an emulator-only call. A
/// login brings it back.
pub(super) async fn archive(service: &Service, name: &str) -> Result<Value, ApiError> {
    let endpoints = service.store.transact(|tx| {
        let branch = tx.need_alive(name)?;
        if branch.is("is_protected") {
            let text = "a protected branch is not archived";
            return Err(ApiError::forbidden_by_state(text));
        }
        refuse_busy(tx, name)?;
        Ok(tx.list::<Record>(&format!("{}/endpoints", branch.name))?)
    })?;
    for endpoint in endpoints {
        Box::pin(service.fleet.suspend(&EndpointId(endpoint.uid))).await?;
    }
    service.store.transact(|tx| {
        let mut branch = tx.need_alive(name)?;
        branch.facts.insert("archived".to_owned(), json!(true));
        branch.updated = service.clock.now();
        tx.keep(&branch)?;
        service.shown(tx, &branch)
    })
}

/// Notes how large the branch is.
pub(super) async fn measure(service: &Service, branch: &mut Record) -> Result<(), ApiError> {
    let facts = Box::pin(service.fleet.branch_facts(&BranchId(branch.uid.clone()))).await?;
    branch.facts.insert("logical_size_bytes".to_owned(), json!(facts.logical_size_bytes));
    Ok(())
}
