//! What a previewed plan relies on: named fingerprints, taken again when it is run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::parts::Parts;
use super::state::RunState;
use crate::kernel::{Bind, Digest, Failure, SqlFile};
use crate::plan::Plan;
use crate::plan::document::Precondition;
use crate::postgres::PgReader;
use crate::sql_file;

/// Says what a relation is: its definition and its place on disk.
pub static RELATION: SqlFile = sql_file!("engine/precondition_relation");

/// The name of the precondition on the server.
const SERVER: &str = "server";

/// The relations that the proposals of a preview are about, as precondition names.
pub fn named(state: &RunState) -> Vec<String> {
    let mut names = BTreeSet::new();
    for work in state.nodes.iter().filter_map(|node| node.work.as_ref()) {
        names.insert(SERVER.to_owned());
        for change in &work.set.changes {
            if crate::kernel::QualifiedName::parse(&change.object).is_ok() {
                names.insert(format!("relation {}", change.object));
            }
        }
    }
    names.into_iter().collect()
}

/// Takes the fingerprints that a plan names.
pub async fn take(parts: &Parts, plan: &Plan) -> Result<BTreeMap<String, String>, Failure> {
    let names = plan.body.preconditions.iter().map(|known| known.name.clone()).collect::<Vec<_>>();
    fingerprints(parts, plan, &names).await
}

/// Takes fingerprints by name.
pub async fn fingerprints(
    parts: &Parts,
    plan: &Plan,
    names: &[String],
) -> Result<BTreeMap<String, String>, Failure> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let endpoint =
        parts.endpoints.endpoint(&plan.body.connection, &plan.body.target, false).await?;
    let settings = parts.settings.settings(&plan.body.target);
    let reader = PgReader::new(endpoint, &settings.limits, "lakeops:precondition");
    let mut found = BTreeMap::new();
    for name in names {
        let value = if let Some(relation) = name.strip_prefix("relation ") {
            let rows: Vec<Value> =
                reader.rows(&RELATION, &[Bind::Text(relation.to_owned())]).await?;
            json!(rows)
        } else {
            let facts = reader.server().await?;
            json!([facts.system_identifier, facts.database])
        };
        found.insert(name.clone(), Digest::of_value(&value).short().to_owned());
    }
    reader.close().await;
    Ok(found)
}

/// Which preconditions moved, for people; `None` when all still hold.
pub fn moved(planned: &[Precondition], found: &BTreeMap<String, String>) -> Option<String> {
    let moved: Vec<String> = planned
        .iter()
        .filter(|known| found.get(&known.name) != Some(&known.fingerprint))
        .map(|known| format!("`{}` is not as it was when the plan was made", known.name))
        .collect();
    (!moved.is_empty()).then(|| moved.join("; "))
}
