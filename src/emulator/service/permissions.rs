//! Permissions of projects: kept and shown. Whoever holds a valid token may do everything here.

use serde_json::{Value, json};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;

const LEVELS: &[&str] = &["CAN_USE", "CAN_MANAGE"];
const PRINCIPALS: &[&str] = &["user_name", "group_name", "service_principal_name"];

/// `GET`, `PUT` and `PATCH` on `/api/2.0/permissions/database-projects/{id}`.
pub(super) fn answer(service: &Service, call: &Call, id: &str) -> Result<Value, ApiError> {
    let given = match call.verb.as_str() {
        "GET" => None,
        _ => Some(entries(&call.body)?),
    };
    service.store.transact(|tx| {
        let mut project = tx.need_alive(&format!("projects/{id}"))?;
        let kept = project.facts.get("access_control_list").and_then(Value::as_array);
        let mut kept = kept.cloned().unwrap_or_default();
        if let Some(given) = given {
            if call.verb == "PUT" {
                kept.clear();
            }
            kept.retain(|old| !given.iter().any(|new| who(new) == who(old)));
            kept.extend(given);
            project.facts.insert("access_control_list".to_owned(), json!(kept));
            tx.keep(&project)?;
        }
        let owner = project.facts.get("owner").cloned().unwrap_or_default();
        let own = json!({ "user_name": owner, "permission_level": "CAN_MANAGE" });
        let shown = std::iter::once(&own).chain(&kept).map(|entry| {
            let (field, principal) = who(entry).unwrap_or_default();
            json!({
                field: principal,
                "all_permissions": [{ "permission_level": entry["permission_level"], "inherited": false }],
            })
        });
        Ok(json!({
            "object_id": format!("/database-projects/{id}"),
            "object_type": "database-projects",
            "access_control_list": shown.collect::<Vec<_>>(),
        }))
    })
}

fn entries(body: &Value) -> Result<Vec<Value>, ApiError> {
    let list = body["access_control_list"].as_array().cloned().unwrap_or_default();
    for entry in &list {
        if who(entry).is_none() {
            let text = format!("an entry names one of {}", PRINCIPALS.join(", "));
            return Err(ApiError::invalid(text));
        }
        let level = entry["permission_level"].as_str().unwrap_or_default();
        if !LEVELS.contains(&level) {
            return Err(ApiError::invalid(format!(
                "permission_level must be one of {}, got '{level}'",
                LEVELS.join(", ")
            )));
        }
    }
    Ok(list)
}

fn who(entry: &Value) -> Option<(&'static str, String)> {
    PRINCIPALS.iter().find_map(|field| Some((*field, entry[*field].as_str()?.to_owned())))
}
