//! Whether a workspace can be used, and a database of it.

use super::{Check, Status, server};
use crate::cli::places::{lakebase, workspace_of};
use crate::cli::session::Session;
use crate::config::Connection;
use crate::kernel::{Failure, Target};
use crate::lakebase::database::SUSPENDED;
use crate::lakebase::{Lakebase, projects};

/// Looks at a workspace: who logs in, what can be seen, and the database of a target.
pub async fn checks(
    session: &Session<'_>,
    title: &str,
    connection: &Connection,
    place: (&Target, bool),
) -> Vec<Check> {
    let opened = workspace_of(connection).and_then(|found| match found {
        Some(found) => lakebase(session, &found).map(Some),
        None => Ok(None),
    });
    let lakebase = match opened {
        Ok(Some(lakebase)) => lakebase,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![Check::failed(title, &error, error.help())],
    };
    let reached = reached(title, &lakebase).await;
    if reached.status == Status::Fail {
        return vec![reached];
    }
    let seen = seen(title, &lakebase).await;
    let is_blind = seen.status == Status::Fail;
    let mut checks = vec![reached, seen, warehouse(title, &lakebase)];
    if !is_blind {
        checks.extend(database(session, title, &lakebase, place).await);
    }
    checks
}

fn failed(name: String, failure: &Failure) -> Check {
    Check::failed(name, failure, failure.help.clone())
}

async fn reached(title: &str, lakebase: &Lakebase) -> Check {
    let client = lakebase.client();
    match client.identity().await {
        Ok(who) => {
            let from = client.login_from().join(" and ");
            let text = format!("{}, as {who} by {} from {from}", client.host(), client.method());
            Check::new(title, Status::Ok, text)
        }
        Err(failure) => failed(title.to_owned(), &failure),
    }
}

async fn seen(title: &str, lakebase: &Lakebase) -> Check {
    let name = format!("{title}: projects");
    match projects(&**lakebase.client()).await {
        Ok(found) if found.is_empty() => Check::new(name, Status::Ok, "there are none yet"),
        Ok(found) => {
            let mut ids: Vec<&str> = found.iter().map(crate::lakebase::Project::id).collect();
            let more = ids.len().saturating_sub(10);
            ids.truncate(10);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Check::new(name, Status::Ok, format!("{}{more}", ids.join(", ")))
        }
        Err(failure) => failed(name, &failure),
    }
}

fn warehouse(title: &str, lakebase: &Lakebase) -> Check {
    let name = format!("{title}: SQL warehouse");
    match lakebase.client().warehouse_id() {
        Some(id) => Check::new(name, Status::Ok, format!("{id} is asked about the lakehouse")),
        None => Check::new(name, Status::Skip, "none is named: the lakehouse is not asked")
            .hint("set `warehouse_id` of the connection, or DATABRICKS_WAREHOUSE_ID"),
    }
}

async fn database(
    session: &Session<'_>,
    title: &str,
    lakebase: &Lakebase,
    (target, wake): (&Target, bool),
) -> Vec<Check> {
    let name = format!("{title}: database");
    if target.project.is_none() && !lakebase.has_project() {
        return vec![
            Check::new(name, Status::Skip, "no project is named")
                .hint("name one: `--target PROJECT/BRANCH`, or `project` of the connection"),
        ];
    }
    match lakebase.endpoint(target, wake).await {
        Ok(endpoint) => server::checks(session, &name, endpoint).await,
        Err(failure) if failure.code == SUSPENDED => {
            vec![
                Check::new(name, Status::Skip, failure.message)
                    .hint("`--wake` starts it, which costs compute time"),
            ]
        }
        Err(failure) => vec![failed(name, &failure)],
    }
}
