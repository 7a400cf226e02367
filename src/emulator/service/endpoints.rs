//! Endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::branch_rules::is_archived;
use super::call::Call;
use super::checks;
use super::context::Service;
use super::error::ApiError;
use super::fields::{self, Field};
use super::limits;
use super::operation::{Operation, Outcome, Work};
use super::projects::{FIRST_ENDPOINT, check_spread, refuse_bad_id};
use super::record::{Kind, Record};
use super::store::Tx;
use crate::emulator::fleet::{
    BranchId, ComputeState, EndpointId, EndpointSettings, FleetError, check_pg_settings,
};
use crate::lakebase::resource::duration;

const FIELDS: &[Field] = &[
    Field::new("endpoint_type", endpoint_type).fixed(),
    Field::new("autoscaling_limit_min_cu", checks::compute_units),
    Field::new("autoscaling_limit_max_cu", checks::compute_units),
    Field::new("suspend_timeout_duration", checks::suspend_timeout).one_of(SUSPENSION),
    Field::new("no_suspension", checks::yes).one_of(SUSPENSION),
    Field::new("disabled", checks::truth),
    Field::new("group", group),
    Field::new("settings.pg_settings", checks::settings),
];
const SUSPENSION: &str = "suspension";
const READ_WRITE: &str = "ENDPOINT_TYPE_READ_WRITE";
const READ_ONLY: &str = "ENDPOINT_TYPE_READ_ONLY";
const PORT: u16 = 5432;

fn endpoint_type(value: &Value) -> Result<Value, String> {
    checks::word(value, &[READ_WRITE, READ_ONLY])
}

/// One compute: the emulator has no secondaries.
fn group(value: &Value) -> Result<Value, String> {
    let size = |name: &str| value[name].as_i64().unwrap_or(1);
    if size("min") == 1 && size("max") == 1 && value["enable_readable_secondaries"] != true {
        return checks::object(value);
    }
    Err("asks for secondaries, and the emulator has one compute for each endpoint".to_owned())
}

pub(super) fn shown(service: &Service, record: &Record) -> Value {
    let mut status = record.spec.clone();
    status.insert("endpoint_id".to_owned(), json!(record.id()));
    status.entry("disabled").or_insert(json!(false));
    status.entry("group").or_insert(json!({ "min": 1, "max": 1 }));
    if !record.ready {
        status.insert("pending_state".to_owned(), json!("ACTIVE"));
    }
    let facts = service.fleet.endpoint_facts(&EndpointId(record.uid.clone()));
    let state = match facts.as_ref().map(|facts| facts.state) {
        _ if !record.ready => "INIT",
        Some(ComputeState::Active) => "ACTIVE",
        Some(ComputeState::Init) => "INIT",
        Some(ComputeState::Idle) | None => "IDLE",
    };
    status.insert("current_state".to_owned(), json!(state));
    if let Some(facts) = facts {
        let mut hosts = json!({ "host": facts.address.host });
        if record.text("endpoint_type") == Some(READ_ONLY) {
            hosts["read_only_host"] = json!(facts.address.host);
        }
        // Where loopback addresses cannot be had; the real service has no such field.
        if facts.address.port != PORT {
            hosts["port"] = json!(facts.address.port);
        }
        status.insert("hosts".to_owned(), hosts);
        if let Some(time) = facts.last_active {
            status.insert("last_active_time".to_owned(), json!(time));
        }
    }
    json!({ "parent": record.parent(), "endpoint_id": record.id(), "status": status })
}

pub(super) async fn create(
    service: &Arc<Service>,
    call: &Call,
    branch: &str,
) -> Result<Value, ApiError> {
    let id = call.required("endpoint_id")?;
    refuse_bad_id(Kind::Endpoint, id)?;
    let replace = call.flag("replace_existing")?;
    let spec = fields::created(FIELDS, &fields::spec_of(&call.body)?)?;
    if fields::at(&spec, "endpoint_type").is_none() {
        let text = "Field 'endpoint.spec.endpoint_type' is required, expected non-default value \
                    (not \"ENDPOINT_TYPE_UNSPECIFIED\")!";
        return Err(ApiError::invalid(text));
    }
    let operation = service.store.transact(|tx| {
        let branch = tx.need_alive(branch)?;
        let project = tx.need_alive(branch.project())?;
        let mut endpoint = service.endpoint_record(&branch, id);
        endpoint.spec = with_defaults(spec, &project)?;
        let siblings: Vec<Record> = tx.list(&format!("{}/endpoints", branch.name))?;
        let existing = siblings.iter().find(|it| it.name == endpoint.name);
        if existing.is_some() && !replace {
            return Err(ApiError::exists("endpoint", id));
        }
        let writes = |it: &&Record| it.text("endpoint_type") == Some(READ_WRITE);
        let rival = siblings.iter().filter(writes).any(|it| it.name != endpoint.name);
        if endpoint.text("endpoint_type") == Some(READ_WRITE) && rival {
            let text = "read-write endpoint already exists for the branch";
            return Err(ApiError::forbidden_by_state(text));
        }
        if !endpoint.is("disabled") {
            service.check_active(tx, &project.name)?;
        }
        let replaced = existing.cloned().into_iter().collect();
        let operation = service.begin(tx, &endpoint, Work::Make { replaced })?;
        tx.keep(&endpoint)?;
        Ok(operation)
    })?;
    service.carry_out(operation).await
}

pub(super) async fn update(
    service: &Arc<Service>,
    call: &Call,
    name: &str,
) -> Result<Value, ApiError> {
    let checked = |tx: &Tx<'_>, endpoint: &mut Record, before: &Record| {
        endpoint.spec.remove("no_suspension");
        check(&endpoint.spec)?;
        if !endpoint.is("disabled") && before.is("disabled") {
            service.check_active(tx, endpoint.project())?;
        }
        Ok(())
    };
    service.change((call, name), FIELDS, checked).await
}

pub(super) async fn delete(service: &Arc<Service>, name: &str) -> Result<Value, ApiError> {
    let check = |tx: &Tx<'_>, endpoint: &mut Record| {
        if tx.need(endpoint.parent())?.is("is_protected") {
            let text = "cannot delete endpoint of protected branch";
            return Err(ApiError::forbidden_by_state(text));
        }
        if endpoint.text("endpoint_type") == Some(READ_WRITE) {
            let text = "cannot delete the read-write endpoint: it goes together with its branch";
            return Err(ApiError::managed_by_parent(text));
        }
        Ok(())
    };
    service.remove(name, check).await
}

pub(super) async fn perform(
    service: &Arc<Service>,
    operation: &Operation,
) -> Result<Outcome, ApiError> {
    let mut endpoint = service.store.transact(|tx| tx.need(&operation.resource))?;
    match &operation.work {
        Work::Make { replaced } => {
            service.dismantle(replaced).await?;
            open(service, &endpoint).await?;
            endpoint.ready = true;
            Ok(Outcome::keep([endpoint]))
        }
        Work::Change { .. } => {
            let settings = service.settings(&endpoint)?;
            match Box::pin(service.fleet.change_endpoint(settings)).await {
                Err(FleetError::NoEndpoint(_)) => open(service, &endpoint).await?,
                changed => drop(changed?),
            }
            Ok(Outcome::default())
        }
        Work::Remove { .. } => {
            service.close_endpoint(&endpoint.uid).await?;
            Ok(Outcome::remove(&endpoint.name))
        }
        Work::Restore => Ok(Outcome::default()),
    }
}

/// Breaks the connections of an endpoint's clients; an emulator-only call.
pub(super) fn drop_sessions(service: &Service, name: &str) -> Result<Value, ApiError> {
    let endpoint = service.store.transact(|tx| tx.need_alive(name))?;
    service.fleet.drop_connections(&EndpointId(endpoint.uid));
    Ok(json!({}))
}

/// Listens for an endpoint and wakes it, unless that is done already.
pub(super) async fn open(service: &Service, endpoint: &Record) -> Result<(), ApiError> {
    let settings = service.settings(endpoint)?;
    match Box::pin(service.fleet.open_endpoint(settings)).await {
        Ok(_) | Err(FleetError::EndpointExists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn with_defaults(
    mut spec: Map<String, Value>,
    project: &Record,
) -> Result<Map<String, Value>, ApiError> {
    let usual = |name: &str| {
        fields::at(&project.spec, &format!("default_endpoint_settings.{name}")).cloned()
    };
    for name in ["autoscaling_limit_min_cu", "autoscaling_limit_max_cu"] {
        if let Some(value) = usual(name).filter(|_| !spec.contains_key(name)) {
            spec.insert(name.to_owned(), value);
        }
    }
    let says = spec.remove("no_suspension").is_some();
    let says = says || spec.contains_key("suspend_timeout_duration");
    if let Some(value) = usual("suspend_timeout_duration").filter(|_| !says) {
        spec.insert("suspend_timeout_duration".to_owned(), value);
    }
    if let Some(Value::Object(mut all)) = usual("pg_settings") {
        if let Some(Value::Object(own)) = fields::at(&spec, "settings.pg_settings") {
            all.extend(own.clone());
        }
        fields::set(&mut spec, "settings.pg_settings", Value::Object(all));
    }
    check(&spec)?;
    Ok(spec)
}

fn check(spec: &Map<String, Value>) -> Result<(), ApiError> {
    check_spread(spec, "")?;
    Ok(check_pg_settings(&pg_settings(spec))?)
}

fn pg_settings(spec: &Map<String, Value>) -> BTreeMap<String, String> {
    let found = fields::at(spec, "settings.pg_settings").and_then(Value::as_object);
    let texts = found.into_iter().flatten();
    texts.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

impl Service {
    pub(super) fn endpoint_record(&self, branch: &Record, id: &str) -> Record {
        let name = format!("{}/endpoints/{id}", branch.name);
        Record::new(Kind::Endpoint, name, format!("ep-{}", self.hex()), self.clock.now())
    }

    /// The endpoint that a new branch begins with.
    pub(super) fn first_endpoint(
        &self,
        project: &Record,
        branch: &Record,
        given: &Map<String, Value>,
    ) -> Result<Record, ApiError> {
        let mut endpoint = self.endpoint_record(branch, FIRST_ENDPOINT);
        let mut spec = fields::created(FIELDS, given)?;
        spec.insert("endpoint_type".to_owned(), json!(READ_WRITE));
        endpoint.spec = with_defaults(spec, project)?;
        Ok(endpoint)
    }

    /// What the fleet is told of an endpoint.
    pub(super) fn settings(&self, endpoint: &Record) -> Result<EndpointSettings, ApiError> {
        let found = self.store.transact(|tx| Ok::<_, ApiError>(tx.record(endpoint.parent())?))?;
        let branch = found.ok_or_else(|| ApiError::not_found("branch"))?;
        let max_cu = endpoint.spec.get("autoscaling_limit_max_cu").and_then(Value::as_f64);
        Ok(EndpointSettings {
            id: EndpointId(endpoint.uid.clone()),
            branch: BranchId(branch.uid),
            read_only: endpoint.text("endpoint_type") == Some(READ_ONLY),
            max_connections: limits::max_connections(max_cu.unwrap_or(1.0)),
            suspend_after: endpoint.text("suspend_timeout_duration").and_then(duration),
            disabled: endpoint.is("disabled"),
            pg_settings: pg_settings(&endpoint.spec),
        })
    }

    /// How far back a project's branches can be restored.
    pub(super) fn keep_past(&self, project: &Record, branch_uid: &str) {
        let time = project.text("history_retention_duration").and_then(duration);
        if let Some(time) = time {
            self.fleet.keep_past(&BranchId(branch_uid.to_owned()), time);
        }
    }

    /// Listens for an endpoint without waking it.
    pub(super) async fn open_asleep(&self, endpoint: &Record) -> Result<(), ApiError> {
        let settings = self.settings(endpoint)?;
        match Box::pin(self.fleet.open_endpoint_asleep(settings)).await {
            Ok(_) | Err(FleetError::EndpointExists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses one compute more than may be awake in a project.
    pub(super) fn check_active(&self, tx: &Tx<'_>, project: &str) -> Result<(), ApiError> {
        let below: Vec<Record> = tx.below(project)?;
        let awake =
            below.iter().filter(|it| it.kind == Kind::Endpoint && self.is_awake(it)).count();
        if awake < limits::ACTIVE {
            return Ok(());
        }
        let most = limits::ACTIVE;
        Err(ApiError::limit(format!("a project has at most {most} active computes at a time")))
    }

    /// Whether an endpoint is awake, or just being made.
    pub(super) fn is_awake(&self, endpoint: &Record) -> bool {
        let facts = self.fleet.endpoint_facts(&EndpointId(endpoint.uid.clone()));
        facts.is_some_and(|facts| facts.state != ComputeState::Idle)
            || !endpoint.ready && !endpoint.is("disabled")
    }

    /// What a project's branches hold, and when somebody last worked on one.
    pub(super) fn project_facts(
        &self,
        tx: &Tx<'_>,
        project: &str,
    ) -> Result<(u64, Option<crate::kernel::Timestamp>), ApiError> {
        let below: Vec<Record> = tx.below(project)?;
        let sizes = below.iter().filter(|it| it.kind == Kind::Branch && !is_archived(it));
        let size = sizes.filter_map(|it| it.facts.get("logical_size_bytes")?.as_u64()).sum();
        let endpoints = below.iter().filter(|it| it.kind == Kind::Endpoint);
        let facts =
            endpoints.filter_map(|it| self.fleet.endpoint_facts(&EndpointId(it.uid.clone())));
        Ok((size, facts.filter_map(|it| it.last_active).max()))
    }
}
