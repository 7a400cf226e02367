//! Which call goes where: by hand, on the parts of the path, as names have several.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::record::Kind;
use super::{
    asleep, branches, catalogs, credentials, databases, endpoints, identity, jobs, permissions,
    projects, roles, schedule, snapshots, statements, unity,
};

/// Answers a call whose caller is known.
pub(super) async fn answer(service: &Arc<Service>, call: &Call) -> Result<Value, ApiError> {
    let parts: Vec<&str> = call.parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api", "2.0", "postgres", name @ ..] => Box::pin(postgres(service, call, name)).await,
        ["api", "2.0", "preview", "scim", "v2", "Me"] if call.verb == "GET" => {
            Ok(identity::me(service, call))
        }
        ["api", "2.0", "permissions", "database-projects", id]
            if matches!(&*call.verb, "GET" | "PUT" | "PATCH") =>
        {
            permissions::answer(service, call, id)
        }
        ["api", "2.0", "sql", "statements", rest @ ..] => {
            Box::pin(statements::answer(service, call, rest)).await?.ok_or_else(|| nowhere(call))
        }
        ["api", "2.1", "unity-catalog", rest @ ..] => {
            unity::answer(service, call, rest)?.ok_or_else(|| nowhere(call))
        }
        ["api", "2.1" | "2.2", "jobs", rest @ ..] => {
            jobs::answer(service, call, rest)?.ok_or_else(|| nowhere(call))
        }
        ["emulator", rest @ ..] => Box::pin(emulator(service, call, rest)).await,
        _ => Err(nowhere(call)),
    }
}

fn nowhere(call: &Call) -> ApiError {
    ApiError::no_route(&call.verb, &call.path)
}

/// What only the emulator has.
async fn emulator(service: &Arc<Service>, call: &Call, parts: &[&str]) -> Result<Value, ApiError> {
    match (&*call.verb, parts) {
        ("GET" | "POST" | "DELETE", ["faults"]) => service.faults.answer(&call.verb, &call.body),
        ("GET", ["endpoints"]) => Ok(json!({ "endpoints": service.listed_endpoints()? })),
        ("POST", ["service_principals"]) => identity::create_principal(service, call),
        ("POST", ["meter"]) => {
            service.meter_now()?;
            Ok(json!({}))
        }
        ("POST", ["drop_sessions"]) => endpoints::drop_sessions(service, &call.text("endpoint")?),
        ("POST", ["asleep"]) => Box::pin(asleep::create(service, call)).await,
        ("POST", ["archive"]) => branches::archive(service, &call.text("branch")?).await,
        ("PATCH", ["runs", id]) => jobs::script_run(service, call, id),
        ("PATCH", ["synced_tables", id]) => catalogs::script_status(service, call, id),
        _ => Err(nowhere(call)),
    }
}

async fn postgres(service: &Arc<Service>, call: &Call, parts: &[&str]) -> Result<Value, ApiError> {
    let name = parts.join("/");
    match parts {
        ["credentials"] if call.verb == "POST" => credentials::create(service, call),
        [.., "operations", _] if call.verb == "GET" => service.operation(&name),
        ["projects", ..] if parts.len() <= 2 => one_project(service, call, parts).await,
        ["projects", _, "undelete"] if call.verb == "POST" => {
            service.undelete(name.strip_suffix("/undelete").unwrap_or(&name), |_, _| Ok(())).await
        }
        ["projects", project, rest @ ..] => {
            Box::pin(in_project(service, call, &format!("projects/{project}"), rest)).await
        }
        ["catalogs"] if call.verb == "POST" => catalogs::create_catalog(service, call).await,
        ["synced_tables"] if call.verb == "POST" => catalogs::create_synced_table(service, call),
        ["catalogs" | "synced_tables", _] => match &*call.verb {
            "GET" => service.get(&name),
            "DELETE" => service.remove(&name, |_, _| Ok(())).await,
            _ => Err(nowhere(call)),
        },
        _ => Err(nowhere(call)),
    }
}

async fn one_project(
    service: &Arc<Service>,
    call: &Call,
    parts: &[&str],
) -> Result<Value, ApiError> {
    let name = parts.join("/");
    match (&*call.verb, parts) {
        ("GET", [_]) => projects::list(service, call),
        ("POST", [_]) => projects::create(service, call).await,
        ("GET", [_, _]) => service.get(&name),
        ("PATCH", [_, _]) => projects::update(service, call, &name),
        ("DELETE", [_, _]) => projects::delete(service, call, &name).await,
        _ => Err(nowhere(call)),
    }
}

async fn in_project(
    service: &Arc<Service>,
    call: &Call,
    project: &str,
    parts: &[&str],
) -> Result<Value, ApiError> {
    let name = format!("{project}/{}", parts.join("/"));
    match (&*call.verb, parts) {
        ("GET", ["branches"]) => branches::list(service, call, project),
        ("POST", ["branches"]) => branches::create(service, call, project).await,
        ("GET", ["branches", _]) => branches::get(service, &name).await,
        ("PATCH", ["branches", _]) => branches::update(service, call, &name),
        ("DELETE", ["branches", _]) => branches::delete(service, call.flag("purge")?, &name).await,
        ("POST", ["branches", _, "undelete"]) => {
            branches::undelete(service, name.strip_suffix("/undelete").unwrap_or(&name)).await
        }
        ("GET" | "PATCH", ["branches", branch, "snapshot-schedule"]) => {
            schedule::answer(service, call, &format!("{project}/branches/{branch}"))
        }
        (_, ["branches", branch, rest @ ..]) => {
            Box::pin(in_branch(service, call, &format!("{project}/branches/{branch}"), rest)).await
        }
        ("GET", ["snapshots"]) => service.list(call, project, Kind::Snapshot),
        ("POST", ["snapshots"]) => snapshots::create(service, call, project).await,
        ("GET", ["snapshots", _]) => service.get(&name),
        ("DELETE", ["snapshots", _]) => service.remove(&name, |_, _| Ok(())).await,
        _ => Err(nowhere(call)),
    }
}

async fn in_branch(
    service: &Arc<Service>,
    call: &Call,
    branch: &str,
    parts: &[&str],
) -> Result<Value, ApiError> {
    let name = format!("{branch}/{}", parts.join("/"));
    match (&*call.verb, parts) {
        ("GET", ["endpoints"]) => service.list(call, branch, Kind::Endpoint),
        ("POST", ["endpoints"]) => endpoints::create(service, call, branch).await,
        ("PATCH", ["endpoints", _]) => endpoints::update(service, call, &name).await,
        ("DELETE", ["endpoints", _]) => endpoints::delete(service, &name).await,
        ("GET", ["roles"]) => service.list(call, branch, Kind::Role),
        ("POST", ["roles"]) => roles::create(service, call, branch).await,
        ("PATCH", ["roles", _]) => roles::update(service, call, &name).await,
        ("DELETE", ["roles", _]) => roles::delete(service, call, &name).await,
        ("POST", ["roles", _, "password"]) => {
            roles::new_password(service, name.strip_suffix("/password").unwrap_or(&name)).await
        }
        ("GET", ["databases"]) => service.list(call, branch, Kind::Database),
        ("POST", ["databases"]) => databases::create(service, call, branch).await,
        ("PATCH", ["databases", _]) => databases::update(service, call, &name).await,
        ("DELETE", ["databases", _]) => service.remove(&name, |_, _| Ok(())).await,
        ("GET", ["endpoints" | "roles" | "databases", _]) => service.get(&name),
        (_, ["databases", _, "data-api" | "cdf-configs" | "cdf-statuses", ..]) => {
            Err(ApiError::not_emulated("serve the data API or a change data feed"))
        }
        _ => Err(nowhere(call)),
    }
}
