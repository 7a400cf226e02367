//! Branches.

use std::sync::Arc;

use serde_json::{Map, Value, json};

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
use crate::emulator::fleet::{BranchId, BranchPoint, EndpointId};
use crate::kernel::Timestamp;
use crate::lakebase::resource::duration;

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

pub(super) fn is_archived(record: &Record) -> bool {
    record.facts.get("archived").is_some_and(|it| it == true)
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

/// Finds what the branch is made from, and where in its past.
fn choose_source(
    tx: &Tx<'_>,
    project: &Record,
    branch: &mut Record,
    now: Timestamp,
) -> Result<(), ApiError> {
    let place = format!("{}/", project.name);
    if let Some(snapshot) = branch.text("source_snapshot").map(str::to_owned) {
        let others = ["source_branch", "source_branch_time", "source_branch_lsn"];
        if others.iter().any(|other| branch.text(other).is_some()) {
            let text = "'spec.source_snapshot' excludes 'spec.source_branch' and its time and LSN";
            return Err(ApiError::invalid(text));
        }
        let found = tx.need_alive(&snapshot)?;
        if found.kind != Kind::Snapshot || !snapshot.starts_with(&place) || !found.ready {
            return Err(ApiError::invalid("Field 'spec.source_snapshot' is no usable snapshot"));
        }
        branch.facts.insert("source_uid".to_owned(), json!(found.uid));
        branch.facts.insert(
            "inherits".to_owned(),
            found.facts.get("inherits").cloned().unwrap_or_default(),
        );
        return Ok(());
    }
    let default = || project.text("default_branch").unwrap_or_default().to_owned();
    let source = branch.text("source_branch").map_or_else(default, str::to_owned);
    let found = tx.need_alive(&source)?;
    if found.kind != Kind::Branch || !source.starts_with(&place) {
        return Err(ApiError::invalid("Field 'spec.source_branch' is no branch of this project"));
    }
    if found.name == branch.name {
        return Err(ApiError::invalid("Field 'spec.source_branch' is the branch itself"));
    }
    if !found.ready {
        return Err(ApiError::forbidden_by_state("the source branch is not ready"));
    }
    check_point(branch, &found, now)?;
    let inherited: Vec<Record> = ["roles", "databases"]
        .iter()
        .map(|plural| tx.list::<Record>(&format!("{source}/{plural}")))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    branch.facts.insert("source_uid".to_owned(), json!(found.uid));
    branch.facts.insert("inherits".to_owned(), json!(inherited));
    branch.facts.insert("new_passwords".to_owned(), json!(found.is("is_protected")));
    branch.spec.insert("source_branch".to_owned(), json!(source));
    Ok(())
}

fn check_point(branch: &Record, source: &Record, now: Timestamp) -> Result<(), ApiError> {
    let (time, lsn) = (branch.time("source_branch_time"), branch.text("source_branch_lsn"));
    if time.is_some() && lsn.is_some() {
        let text = "only one of 'spec.source_branch_time' and 'spec.source_branch_lsn' can be set";
        return Err(ApiError::invalid(text));
    }
    if time.is_some_and(|time| time > now) {
        return Err(ApiError::invalid("Field 'spec.source_branch_time' is in the future"));
    }
    if time.is_some_and(|time| time < source.created) {
        let text = "Field 'spec.source_branch_time' is before the source branch was created";
        return Err(ApiError::invalid(text));
    }
    Ok(())
}

/// Turns a time to live into the time that it ends at.
pub(super) fn settle_expiry(
    spec: &mut Map<String, Value>,
    now: Timestamp,
    needed: bool,
) -> Result<(), ApiError> {
    if let Some(ttl) = fields::at(spec, "ttl").and_then(Value::as_str).and_then(duration) {
        spec.remove("ttl");
        spec.insert("expire_time".to_owned(), json!(now.plus(ttl)));
    }
    let expires =
        fields::at(spec, "expire_time").and_then(Value::as_str).and_then(Timestamp::parse);
    match expires {
        Some(at) if at <= now => Err(ApiError::invalid("Field 'spec.expire_time' is in the past")),
        Some(at) if at.since(now) > limits::LONGEST_TTL => {
            Err(ApiError::invalid("Field 'spec.expire_time' is more than 30 days from now"))
        }
        None if needed && fields::at(spec, "no_expiry").is_none() => Err(ApiError::invalid(
            "exactly one of 'spec.ttl', 'spec.expire_time' and 'spec.no_expiry' must be set",
        )),
        _ => Ok(()),
    }
}

/// Refuses one branch more, or one protected branch more, than a project may have.
pub(super) fn check_counts(tx: &Tx<'_>, branch: &Record, protects: bool) -> Result<(), ApiError> {
    let all: Vec<Record> = tx.list(&format!("{}/branches", branch.project()))?;
    let others: Vec<_> = all.iter().filter(|it| it.is_alive() && it.name != branch.name).collect();
    let count = |is: &dyn Fn(&Record) -> bool| others.iter().filter(|it| is(it)).count();
    let refuse = |most: usize, what: &str| {
        Err(ApiError::limit(format!("a project has at most {most} {what}")))
    };
    if others.len() >= limits::BRANCHES {
        return refuse(limits::BRANCHES, "branches");
    }
    if count(&|it| !is_archived(it)) >= limits::UNARCHIVED {
        return refuse(limits::UNARCHIVED, "branches that are not archived");
    }
    let is_root = |it: &Record| it.text("source_branch").is_none();
    if is_root(branch) && count(&is_root) >= limits::ROOTS {
        return refuse(limits::ROOTS, "branches without a parent");
    }
    if protects && count(&|it| it.is("is_protected")) >= limits::PROTECTED {
        return refuse(limits::PROTECTED, "protected branch");
    }
    Ok(())
}

/// A protected branch does not expire, nor does a root, the default one, or one that has children.
fn check_protection(branch: &Record, stays: bool) -> Result<(), ApiError> {
    let expires = branch.text("expire_time").is_some();
    if expires && branch.is("is_protected") {
        return Err(ApiError::forbidden_by_state("a protected branch cannot expire"));
    }
    if expires && stays {
        let text = "a default or root branch, or one with children, cannot expire";
        return Err(ApiError::forbidden_by_state(text));
    }
    Ok(())
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
            let others: Vec<Record> = tx.list(&format!("{}/branches", project.name))?;
            if others.iter().filter(|it| it.is_alive() && it.is("is_protected")).count()
                >= limits::PROTECTED
            {
                let text = format!("a project has at most {} protected branch", limits::PROTECTED);
                return Err(ApiError::limit(text));
            }
        }
        branch.updated = now;
        tx.keep(&branch)?;
        let operation = service.done_at_once(tx, &branch, service.typed(tx, &branch)?)?;
        Ok(operation.shown())
    })
}

/// Why a branch has to stay, beside protection.
fn is_kept(
    tx: &Tx<'_>,
    project: &Record,
    branch: &Record,
) -> Result<Option<&'static str>, ApiError> {
    if project.text("default_branch") == Some(&*branch.name) {
        return Ok(Some("default branch"));
    }
    if branch.text("source_branch").is_none() && branch.text("source_snapshot").is_none() {
        return Ok(Some("root branch"));
    }
    let all: Vec<Record> = tx.list(&format!("{}/branches", project.name))?;
    let is_child = |it: &&Record| it.is_alive() && it.text("source_branch") == Some(&*branch.name);
    Ok(all.iter().find(is_child).map(|_| "branch with children"))
}

fn refuse_kept(tx: &Tx<'_>, branch: &Record, verb: &str) -> Result<(), ApiError> {
    if branch.is("is_protected") {
        return Err(ApiError::forbidden_by_state(format!("cannot {verb} protected branch")));
    }
    let project = tx.need(branch.project())?;
    match is_kept(tx, &project, branch)? {
        Some("branch with children") => {
            Err(ApiError::forbidden_by_state(format!("cannot {verb} branch with children")))
        }
        Some(what) => Err(ApiError::managed_by_parent(format!(
            "cannot {verb} the {what}: it goes together with its project"
        ))),
        None => Ok(()),
    }
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
    let operation = service.store.transact(|tx| {
        let branch = tx.need(name)?;
        if branch.is_alive() {
            return Err(ApiError::forbidden_by_state("branch is not deleted"));
        }
        if let Some(source) = branch.text("source_branch") {
            tx.need_alive(source)?;
        }
        check_counts(tx, &branch, branch.is("is_protected"))?;
        service.begin(tx, &branch, Work::Restore)
    })?;
    service.carry_out(operation).await
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

/// Where in the past of its source a branch or snapshot begins.
pub(super) fn point(record: &Record) -> BranchPoint {
    match (record.time("source_branch_time"), record.text("source_branch_lsn")) {
        (Some(time), _) => BranchPoint::Time(time),
        (None, Some(lsn)) => BranchPoint::Lsn(lsn.to_owned()),
        (None, None) => BranchPoint::Head,
    }
}

/// Notes how large the branch is.
pub(super) async fn measure(service: &Service, branch: &mut Record) -> Result<(), ApiError> {
    let facts = Box::pin(service.fleet.branch_facts(&BranchId(branch.uid.clone()))).await?;
    branch.facts.insert("logical_size_bytes".to_owned(), json!(facts.logical_size_bytes));
    Ok(())
}
