//! Snapshots: a copy of a branch that is kept beside the branches, and outlives the one it was made of.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::branch_rules::{point, settle_expiry};
use super::call::Call;
use super::checks;
use super::context::Service;
use super::error::ApiError;
use super::fields::{self, Field};
use super::limits;
use super::operation::{Operation, Outcome, Work};
use super::projects::refuse_bad_id;
use super::record::{Kind, Record};
use crate::emulator::fleet::BranchId;

const FIELDS: &[Field] = &[
    Field::new("source_branch", checks::any_text).fixed(),
    Field::new("source_branch_time", checks::time).fixed(),
    Field::new("source_branch_lsn", checks::lsn).fixed(),
    Field::new("ttl", checks::duration).one_of(EXPIRATION),
    Field::new("expire_time", checks::time).one_of(EXPIRATION),
    Field::new("no_expiry", checks::yes).one_of(EXPIRATION),
];
const EXPIRATION: &str = "expiration";

pub(super) fn shown(record: &Record) -> Value {
    let mut status = record.spec.clone();
    status.insert("snapshot_id".to_owned(), json!(record.id()));
    for (name, value) in &record.facts {
        if name != "inherits" && name != "source_uid" {
            status.insert(name.clone(), value.clone());
        }
    }
    json!({ "snapshot_id": record.id(), "status": status })
}

pub(super) async fn create(
    service: &Arc<Service>,
    call: &Call,
    project: &str,
) -> Result<Value, ApiError> {
    let id = call.required("snapshot_id")?;
    let spec = Value::Object(fields::spec_of(&call.body)?);
    take(service, project, id, &spec).await
}

/// Takes a snapshot, by a call or by a schedule.
pub(super) async fn take(
    service: &Arc<Service>,
    project: &str,
    id: &str,
    spec: &Value,
) -> Result<Value, ApiError> {
    refuse_bad_id(Kind::Snapshot, id)?;
    let mut spec = fields::created(FIELDS, spec.as_object().unwrap_or(&Map::new()))?;
    let now = service.clock.now();
    // Snapshots may live longer than branches; the service documents no limit.
    if let Some(ttl) = spec.remove("ttl") {
        let ttl = ttl.as_str().and_then(crate::lakebase::resource::duration).unwrap_or_default();
        spec.insert("expire_time".to_owned(), json!(now.plus(ttl)));
    } else {
        settle_expiry(&mut spec, now, true)?;
    }
    let operation = service.store.transact(|tx| {
        let project = tx.need_alive(project)?;
        let name = format!("{}/snapshots/{id}", project.name);
        if tx.record(&name)?.is_some() {
            return Err(ApiError::exists("snapshot", id));
        }
        if tx.list::<Record>(&format!("{}/snapshots", project.name))?.len() >= limits::SNAPSHOTS {
            let text = format!("a project has at most {} snapshots", limits::SNAPSHOTS);
            return Err(ApiError::limit(text));
        }
        let mut record = Record::new(Kind::Snapshot, name, format!("sn-{}", service.hex()), now);
        record.spec = spec;
        let source = record.text("source_branch").map(str::to_owned);
        let source = tx.need_alive(&source.ok_or_else(|| {
            let text = "Field 'snapshot.spec.source_branch' is required, expected non-default value \
                        (not \"\")!";
            ApiError::invalid(text)
        })?)?;
        if source.kind != Kind::Branch || source.project() != project.name || !source.ready {
            return Err(ApiError::invalid("Field 'spec.source_branch' is no usable branch"));
        }
        let mut inherited: Vec<Record> = tx.list(&format!("{}/roles", source.name))?;
        inherited.extend(tx.list::<Record>(&format!("{}/databases", source.name))?);
        record.facts.insert("inherits".to_owned(), json!(inherited));
        record.facts.insert("source_uid".to_owned(), json!(source.uid));
        let operation = service.begin(tx, &record, Work::Make { replaced: Vec::new() })?;
        tx.keep(&record)?;
        Ok(operation)
    })?;
    service.carry_out(operation).await
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let mut snapshot = service.store.transact(|tx| tx.need(&operation.resource))?;
    match operation.work {
        Work::Make { .. } => {
            let id = BranchId(snapshot.uid.clone());
            let source = BranchId(snapshot.fact("source_uid").unwrap_or_default().to_owned());
            if !service.fleet.branches().contains(&id) {
                Box::pin(service.fleet.branch(&source, point(&snapshot), &id)).await?;
            }
            let facts = Box::pin(service.fleet.branch_facts(&id)).await?;
            let size = json!(facts.logical_size_bytes);
            snapshot.facts.insert("full_size_bytes".to_owned(), size);
            snapshot.ready = true;
            Ok(Outcome::keep([snapshot]))
        }
        Work::Remove { .. } => {
            service.dismantle(std::slice::from_ref(&snapshot)).await?;
            Ok(Outcome::remove(&snapshot.name))
        }
        Work::Change { .. } | Work::Restore => Ok(Outcome::default()),
    }
}
