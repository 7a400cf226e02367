//! Jobs: kept and listed. Nothing runs them: a run is pending until its state is scripted through
//! `/emulator/runs/{run_id}`.

use serde_json::{Value, json};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::page::Page;
use super::store::Tx;

/// `/api/2.1/jobs/…` and `/api/2.2/jobs/…`
pub(super) fn answer(
    service: &Service,
    call: &Call,
    parts: &[&str],
) -> Result<Option<Value>, ApiError> {
    service.store.transact(|tx| match (&*call.verb, parts) {
        ("POST", ["create"]) => create(service, tx, call).map(Some),
        ("GET", ["get"]) => need(tx, "job", id_of(call, "job_id")?).map(Some),
        ("GET", ["list"]) => list(tx, call).map(Some),
        ("POST", ["update" | "reset"]) => change(tx, call, parts == ["reset"]).map(Some),
        ("POST", ["delete"]) => {
            let id = id_of(call, "job_id")?;
            need(tx, "job", id)?;
            tx.remove(&document("job", id))?;
            Ok(Some(json!({})))
        }
        ("POST", ["run-now"]) => run_now(service, tx, call).map(Some),
        ("GET", ["runs", "get"]) => need(tx, "run", id_of(call, "run_id")?).map(Some),
        ("GET", ["runs", "list"]) => list_runs(tx, call).map(Some),
        ("POST", ["runs", "cancel"]) => {
            let id = id_of(call, "run_id")?;
            let mut run = need(tx, "run", id)?;
            run["state"] = json!({ "life_cycle_state": "TERMINATED", "result_state": "CANCELED" });
            tx.put(&document("run", id), &run)?;
            Ok(Some(json!({})))
        }
        _ => Ok(None),
    })
}

fn document(kind: &str, id: i64) -> String {
    format!("jobs/{kind}s/{id:012}")
}

/// An id from the query or the body; numbers come as text too.
fn id_of(call: &Call, field: &str) -> Result<i64, ApiError> {
    let text = call.parameter(field).map(str::to_owned);
    let value = &call.body[field];
    let text = text.or_else(|| value.as_str().map(str::to_owned));
    let number = text.and_then(|it| it.parse().ok()).or_else(|| value.as_i64());
    number.ok_or_else(|| ApiError::invalid(format!("Field '{field}' is required")))
}

fn need(tx: &Tx<'_>, kind: &str, id: i64) -> Result<Value, ApiError> {
    let mut title = kind.to_owned();
    title[..1].make_ascii_uppercase();
    let missing = || ApiError::invalid(format!("{title} {id} does not exist."));
    tx.get(&document(kind, id))?.ok_or_else(missing)
}

/// The next number, never given twice.
fn next(tx: &Tx<'_>) -> Result<i64, ApiError> {
    let last: i64 = tx.get("jobs/last")?.unwrap_or(1000);
    tx.put("jobs/last", &(last + 1))?;
    Ok(last + 1)
}

fn create(service: &Service, tx: &Tx<'_>, call: &Call) -> Result<Value, ApiError> {
    let id = next(tx)?;
    let job = json!({
        "job_id": id,
        "creator_user_name": call.principal,
        "created_time": service.clock.now().as_millis(),
        "settings": call.body,
    });
    tx.put(&document("job", id), &job)?;
    Ok(json!({ "job_id": id }))
}

fn list(tx: &Tx<'_>, call: &Call) -> Result<Value, ApiError> {
    let all: Vec<Value> = tx.list("jobs/jobs")?;
    let wanted = call.parameter("name").map(str::to_lowercase);
    let fits = |job: &Value| {
        let name = job["settings"]["name"].as_str().unwrap_or_default().to_lowercase();
        wanted.as_ref().is_none_or(|wanted| *wanted == name)
    };
    paged(call, "jobs", all.into_iter().filter(fits).collect(), "job_id")
}

fn list_runs(tx: &Tx<'_>, call: &Call) -> Result<Value, ApiError> {
    let all: Vec<Value> = tx.list("jobs/runs")?;
    let wanted = call.parameter("job_id").and_then(|id| id.parse::<i64>().ok());
    let fits = |run: &Value| wanted.is_none_or(|wanted| run["job_id"] == wanted);
    paged(call, "runs", all.into_iter().filter(fits).collect(), "run_id")
}

fn paged(call: &Call, plural: &str, all: Vec<Value>, id: &str) -> Result<Value, ApiError> {
    let page = Page::read(call.parameter("limit"), call.parameter("page_token"), 100)?;
    let named = all.into_iter().map(|it| (format!("{:012}", it[id].as_i64().unwrap_or(0)), it));
    let mut answer = page.of(plural, named.collect());
    answer["has_more"] = json!(answer.get("next_page_token").is_some());
    Ok(answer)
}

fn change(tx: &Tx<'_>, call: &Call, replaces: bool) -> Result<Value, ApiError> {
    let id = id_of(call, "job_id")?;
    let mut job = need(tx, "job", id)?;
    let given = call.body["new_settings"].as_object().cloned().unwrap_or_default();
    if replaces {
        job["settings"] = Value::Object(given);
    } else if let Some(settings) = job["settings"].as_object_mut() {
        settings.extend(given);
        for field in call.body["fields_to_remove"].as_array().into_iter().flatten() {
            settings.remove(field.as_str().unwrap_or_default());
        }
    }
    tx.put(&document("job", id), &job)?;
    Ok(json!({}))
}

fn run_now(service: &Service, tx: &Tx<'_>, call: &Call) -> Result<Value, ApiError> {
    let job_id = id_of(call, "job_id")?;
    let job = need(tx, "job", job_id)?;
    let all: Vec<Value> = tx.list("jobs/runs")?;
    let token = call.body["idempotency_token"].as_str().filter(|it| !it.is_empty());
    let same = all.iter().find(|run| token.is_some() && run["idempotency_token"].as_str() == token);
    if let Some(run) = same {
        return Ok(json!({ "run_id": run["run_id"], "number_in_job": run["number_in_job"] }));
    }
    let id = next(tx)?;
    let number = all.iter().filter(|run| run["job_id"] == job_id).count() + 1;
    let run = json!({
        "run_id": id,
        "job_id": job_id,
        "run_name": job["settings"]["name"],
        "number_in_job": number,
        "idempotency_token": token,
        "job_parameters": call.body["job_parameters"],
        "start_time": service.clock.now().as_millis(),
        "state": { "life_cycle_state": "PENDING", "state_message": "nothing runs jobs here" },
        "status": { "state": "PENDING" },
    });
    tx.put(&document("run", id), &run)?;
    Ok(json!({ "run_id": id, "number_in_job": number }))
}

/// Sets what the state of a run says; an emulator-only call.
pub(super) fn script_run(service: &Service, call: &Call, id: &str) -> Result<Value, ApiError> {
    let id = id.parse().map_err(|_| ApiError::invalid("a run's id is a number"))?;
    service.store.transact(|tx| {
        let mut run = need(tx, "run", id)?;
        for field in ["state", "status"] {
            if let Some(value) = call.body.get(field) {
                run[field] = value.clone();
            }
        }
        tx.put(&document("run", id), &run)?;
        Ok(run)
    })
}
