//! Whole projects at once, as an old workspace has them: branches that nobody has worked on for long. An
//! emulator-only call, `POST /emulator/asleep`.
//!
//! Every branch of such a project is what a new project's first branch is: the same role, the same empty
//! database. So their data need not be there before somebody connects: they are copied then, from a
//! branch that is kept for this alone, and nothing is lost by the delay. Five hundred of them take some
//! megabytes. The past that such a branch can be restored to begins with its first use.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;
use super::checks;
use super::context::Service;
use super::error::ApiError;
use super::limits;
use super::projects::{VERSION, drafted, furnish, refuse_bad_id};
use super::record::{Kind, Record};
use super::store::Tx;
use super::{databases, roles};
use crate::emulator::fleet::BranchId;

/// The collection of the branches that others begin as.
const ORIGINALS: &str = "originals";

/// A branch that others begin as: nothing names it but this.
#[derive(Serialize, Deserialize)]
struct Original {
    uid: String,
    /// Whose role is in it.
    owner: String,
    size: Value,
}

/// The uids of the branches that others begin as.
pub(super) fn originals(tx: &Tx<'_>) -> Result<Vec<String>, ApiError> {
    let all: Vec<Original> = tx.list(ORIGINALS)?;
    Ok(all.into_iter().map(|it| it.uid).collect())
}

/// Makes a project whose computes all sleep: its first branch, and `branches` of that.
pub(super) async fn create(service: &Service, call: &Call) -> Result<Value, ApiError> {
    let id = call.text("project")?;
    let names = branch_names(&call.body)?;
    let original = original(service, &call.principal).await?;
    let (project, records) = service.store.transact(|tx| {
        let [mut project, root, endpoint] = drafted(service, tx, call, &id)?;
        let mut records = furnished(service, [root.clone(), endpoint], &original);
        for name in &names {
            let mut branch = service.branch_record(&project, name);
            branch.spec.insert("no_expiry".to_owned(), json!(true));
            branch.spec.insert("source_branch".to_owned(), json!(root.name));
            let endpoint = service.first_endpoint(&project, &branch, &serde_json::Map::new())?;
            records.extend(furnished(service, [branch, endpoint], &original));
        }
        for record in records.iter_mut().chain([&mut project]) {
            record.ready = true;
        }
        Ok::<_, ApiError>((project, records))
    })?;
    let source = BranchId(original.uid);
    for branch in records.iter().filter(|it| it.kind == Kind::Branch) {
        service.fleet.create_untouched(&BranchId(branch.uid.clone()), &source).await?;
    }
    // What is on disk by now and not in the catalogue is removed by the next start.
    let shown = service.store.transact(|tx| {
        if tx.record(&project.name)?.is_some() {
            return Err(ApiError::exists("project", &id));
        }
        records.iter().chain([&project]).try_for_each(|record| tx.keep(record))?;
        for branch in records.iter().filter(|it| it.kind == Kind::Branch) {
            service.keep_past(&project, &branch.uid);
        }
        service.shown(tx, &project)
    })?;
    for endpoint in records.iter().filter(|it| it.kind == Kind::Endpoint) {
        service.open_asleep(endpoint).await?;
    }
    Ok(shown)
}

fn branch_names(body: &Value) -> Result<Vec<String>, ApiError> {
    let given = body["branches"].as_array().cloned().unwrap_or_default();
    if given.len() >= limits::UNARCHIVED {
        let most = limits::UNARCHIVED;
        let text = format!("a project has at most {most} branches that are not archived");
        return Err(ApiError::limit(text));
    }
    let mut names = Vec::new();
    for name in &given {
        let name = checks::text(name).map_err(ApiError::invalid)?;
        let name = name.as_str().unwrap_or_default().to_owned();
        refuse_bad_id(Kind::Branch, &name)?;
        if names.contains(&name) || name == super::projects::FIRST_BRANCH {
            return Err(ApiError::exists("branch", &name));
        }
        names.push(name);
    }
    Ok(names)
}

/// A branch and its endpoint, with the role and the database that are in its data.
fn furnished(service: &Service, branch: [Record; 2], original: &Original) -> Vec<Record> {
    let [mut branch, endpoint] = branch;
    branch.facts.insert("logical_size_bytes".to_owned(), original.size.clone());
    let role = roles::first(service, &branch, &original.owner);
    let database = databases::first(service, &branch, &role);
    vec![branch, endpoint, role, database]
}

/// The branch that others of this owner begin as; made when it is first needed.
async fn original(service: &Service, owner: &str) -> Result<Original, ApiError> {
    let known: Vec<Original> =
        service.store.transact(|tx| Ok::<_, ApiError>(tx.list(ORIGINALS)?))?;
    if let Some(found) = known.into_iter().find(|it| it.owner == owner) {
        return Ok(found);
    }
    let uid = format!("br-{}", service.hex());
    let id = BranchId(uid.clone());
    Box::pin(service.fleet.create_root(&id, VERSION)).await?;
    let name = format!("{ORIGINALS}/{uid}");
    let mut branch = Record::new(Kind::Branch, name.clone(), uid.clone(), service.clock.now());
    furnish(service, &mut branch, owner).await?;
    let size = branch.facts.get("logical_size_bytes").cloned().unwrap_or_default();
    let original = Original { uid, owner: owner.to_owned(), size };
    service.store.transact(|tx| Ok::<_, ApiError>(tx.put(&name, &original)?))?;
    Ok(original)
}
