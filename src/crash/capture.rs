//! Reads what a run left: databases, the workspace, the history, the journal, files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ground::Tools;
use super::snapshot::{Content, Row, Snapshot};
use super::{DATABASES, TABLES};
use crate::config::settings::Limits;
use crate::history::schema::{Fill, Kept, Kind, TableDef};
use crate::history::tables::{AUDIT, STEPS};
use crate::history::{self, HistoryError, Location};
use crate::journal::Entry;
use crate::journal::event::Event;
use crate::kernel::{Digest, Failure, Ident, QualifiedName, Query, Target};
use crate::lakebase::ReadApi;
use crate::lakebase::name::{BranchName, ProjectName, id_of};
use crate::postgres::{PgEndpoint, PgReader};
use crate::report::RunView;
use crate::schema;

/// How many rows of a table are compared one by one. Of larger tables, each column is.
const MOST_ROWS: usize = 20_000;

/// What a crash test's own sessions are called.
const SESSION: &str = "lakeops:crash";

#[derive(Deserialize)]
struct TableRow {
    schema: String,
    name: String,
    columns: Vec<String>,
    numbered: BTreeSet<String>,
}

#[derive(Deserialize)]
struct DatabaseRow {
    name: String,
}

/// All databases of a target's server.
pub(super) async fn databases(
    tools: &Tools,
    target: &Target,
    label: &str,
    snapshot: &mut Snapshot,
) -> Result<(), Failure> {
    let reader = PgReader::new(tools.endpoint(target).await?, &Limits::default(), SESSION);
    let rows: Result<Vec<DatabaseRow>, _> = reader.rows(&DATABASES, &[]).await;
    reader.close().await;
    for DatabaseRow { name } in rows? {
        let there = Target { database: Some(name.clone()), ..target.clone() };
        database(tools.endpoint(&there).await?, &format!("{label}{name} "), snapshot).await?;
    }
    Ok(())
}

/// A database: its structure, and the rows of its tables. `label` stands before their names.
pub(super) async fn database(
    endpoint: PgEndpoint,
    label: &str,
    snapshot: &mut Snapshot,
) -> Result<(), Failure> {
    let reader = || PgReader::new(endpoint.clone(), &Limits::default(), SESSION);
    let structure = schema::capture(reader(), &[]).await?;
    let structure = Content::Structure(Box::new(structure));
    snapshot.contents.insert(format!("{label}structure"), structure);
    let reader = reader();
    let read = tables(&reader, label, snapshot).await;
    reader.close().await;
    read
}

async fn tables(reader: &PgReader, label: &str, snapshot: &mut Snapshot) -> Result<(), Failure> {
    for table in reader.rows::<TableRow>(&TABLES, &[]).await? {
        let name = QualifiedName::new(&table.schema, &table.name);
        let place = format!("{label}table {}", name.plain());
        for column in &table.numbered {
            let why =
                "comes from a sequence, which a transaction that was rolled back has moved on";
            snapshot.left_out.insert(format!("{place}: {column}"), why.to_owned());
        }
        let columns: Vec<&String> =
            table.columns.iter().filter(|column| !table.numbered.contains(*column)).collect();
        let content = rows_of(reader, &name, &columns).await?;
        snapshot.contents.insert(place, content);
    }
    Ok(())
}

async fn rows_of(
    reader: &PgReader,
    name: &QualifiedName,
    columns: &[&String],
) -> Result<Content, Failure> {
    let list = |each: &dyn Fn(Ident) -> String| {
        let all: Vec<String> = columns.iter().map(|column| each(Ident::new(*column))).collect();
        if all.is_empty() { "true as row".to_owned() } else { all.join(", ") }
    };
    let what = format!("the rows of {}", name.plain());
    let plain = list(&|column| format!("t.{column}"));
    let text = format!("select {plain} from {name} as t limit {}", MOST_ROWS + 1);
    let found = reader.query(&what, &Query::new(text)).await?;
    if found.len() <= MOST_ROWS {
        return Ok(Content::Rows(found.into_iter().filter_map(object).collect()));
    }
    let sums = list(&|column| {
        format!(
            "sum(pg_catalog.hashtextextended(coalesce(t.{column}::text, ''), 0)::numeric)::text as {column}"
        )
    });
    let text = format!("select count(*) as \" rows\", {sums} from {name} as t");
    let found = reader.query(&what, &Query::new(text)).await?.pop();
    let mut sums = found.and_then(object).unwrap_or_default();
    let rows = sums.remove(" rows").and_then(|rows| rows.as_u64()).unwrap_or_default();
    let text = |value: Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let columns = sums.into_iter().map(|(column, sum)| (column, text(sum))).collect();
    Ok(Content::Sums { rows, columns })
}

fn object(value: Value) -> Option<Row> {
    match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// A branch of a workspace with its endpoints and roles.
pub(super) async fn branch(
    api: &dyn ReadApi,
    (project, branch): (&str, &str),
    snapshot: &mut Snapshot,
) -> Result<(), Failure> {
    let name = BranchName::new(project, branch);
    put(snapshot, api.get(&name.path()).await?);
    for collection in ["endpoints", "roles", "databases"] {
        for found in api.list(&name.collection_path(collection), collection).await? {
            put(snapshot, found);
        }
    }
    Ok(())
}

/// A project with all that is in it; the ids of its branches that have a compute. Nothing, where there is none.
pub(super) async fn project(
    api: &dyn ReadApi,
    project: &str,
    snapshot: &mut Snapshot,
) -> Result<Vec<String>, Failure> {
    let name = ProjectName::new(project);
    let Some(found) = crate::lakebase::api::find(api, &name.path()).await? else {
        return Ok(Vec::new());
    };
    if found.get("delete_time").is_some_and(|time| !time.is_null()) {
        return Ok(Vec::new());
    }
    put(snapshot, found);
    let mut ids = Vec::new();
    for found in crate::lakebase::branches(api, project).await? {
        if found.is_deleted() {
            continue;
        }
        let id = id_of(&found.name).to_owned();
        branch(api, (project, &id), snapshot).await?;
        if !crate::lakebase::endpoints(api, project, &id).await?.is_empty() {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// What of a resource depends on when it is looked at, or is given once and never again.
const PASSING: [&str; 14] = [
    "uid",
    "create_time",
    "update_time",
    "expire_time",
    "source_branch_lsn",
    "source_branch_time",
    "logical_size_bytes",
    "synthetic_storage_size_bytes",
    "current_state",
    "pending_state",
    "state_change_time",
    "last_active_time",
    "compute_last_active_time",
    "hosts",
];

fn put(snapshot: &mut Snapshot, resource: Value) {
    let name = resource.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(word) = stands_for(id_of(&name), &resource) {
        snapshot.drawn.insert(id_of(&name).to_owned(), word);
    }
    snapshot.contents.insert(format!("api {name}"), Content::Document(lasting(resource)));
}

/// What a role or a database is called in PostgreSQL, when its id is one that the service drew.
fn stands_for(id: &str, resource: &Value) -> Option<String> {
    let digits = id.strip_prefix("rol-").or_else(|| id.strip_prefix("db-"))?;
    if digits.len() < 8 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let parts = ["spec", "status"].into_iter().filter_map(|part| resource.get(part));
    let mut names =
        parts.flat_map(|part| [part.get("postgres_role"), part.get("postgres_database")]);
    names.find_map(|name| Some(name?.as_str()?.to_owned()))
}

fn lasting(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| !PASSING.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name, lasting(value))).collect())
        }
        Value::Array(all) => Value::Array(all.into_iter().map(lasting).collect()),
        other => other,
    }
}

/// The tables of a history: of what was done, rows without times and numbers; of what was measured,
/// that it is there. Nowhere a row twice.
pub(super) async fn history(
    location: &Location,
    snapshot: &mut Snapshot,
) -> Result<(), HistoryError> {
    for facts in history::facts(location).await? {
        if facts.version.is_none() {
            continue;
        }
        let table = facts.table;
        let text = format!("select * from {}", table.name);
        let rows = history::answer(location, &Query::new(text), &[], None).await?.rows()?;
        let rows: Vec<Row> = rows.into_iter().filter_map(object).collect();
        let place = format!("history {}", table.name);
        let twice = twice(table, &rows);
        snapshot.contents.insert(format!("{place}: rows in it twice"), Content::Texts(twice));
        let is_compared = table.kept != Kept::Measurement && ![AUDIT, STEPS].contains(&table.name);
        let content = if is_compared {
            Content::Rows(rows.into_iter().map(|row| steady(table, row)).collect())
        } else {
            Content::Document(json!({ "has_rows": !rows.is_empty() }))
        };
        snapshot.contents.insert(place, content);
    }
    Ok(())
}

/// Rows that are there more than once, by their ids, or by all that they say.
fn twice(table: &TableDef, rows: &[Row]) -> BTreeMap<String, u64> {
    let id = table.columns().find(|column| column.fill == Fill::RowId).map(|column| column.name);
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows {
        let text = match id.and_then(|id| row.get(id)) {
            Some(id) => id.to_string(),
            None => Value::Object(row.clone()).to_string(),
        };
        *counted.entry(text).or_default() += 1;
    }
    counted.retain(|_, times| *times > 1);
    counted
}

/// What of a row is the same whenever the same is done: texts and flags, but no ids and no documents.
fn steady(table: &TableDef, row: Row) -> Row {
    let is_steady = |name: &str| {
        table.column(name).is_some_and(|column| {
            matches!(column.kind, Kind::Text | Kind::Bool)
                && !matches!(column.fill, Fill::RowId | Fill::Run)
        })
    };
    row.into_iter().filter(|(name, _)| is_steady(name)).collect()
}

/// What the journal says of a run: how it ended, what it told and published.
pub(super) fn run(view: &RunView, entries: &[Entry], snapshot: &mut Snapshot) {
    let states = view.steps.iter().map(|step| (step.key.clone(), json!(step.state)));
    let run = json!({
        "outcome": view.outcome,
        "compensation": view.compensation,
        "steps": states.collect::<Map<_, _>>(),
        "not_undone": view.not_undone,
    });
    snapshot.contents.insert("run".to_owned(), Content::Document(run));
    let mut messages: BTreeMap<String, u64> = BTreeMap::new();
    let (mut names, mut payloads) = (messages.clone(), messages.clone());
    let mut keys = BTreeSet::new();
    for entry in entries {
        match &entry.event {
            Event::NotificationQueued { dedup, severity, title, .. } if keys.insert(dedup) => {
                *messages.entry(format!("{severity}: {title}")).or_default() += 1;
            }
            Event::EventPublished { name, payload, .. } => {
                *names.entry(name.clone()).or_default() += 1;
                *payloads.entry(format!("{name} {payload}")).or_default() += 1;
            }
            _ => {}
        }
    }
    let contents = &mut snapshot.contents;
    contents.insert("outbox".to_owned(), Content::Texts(messages));
    contents.insert("events".to_owned(), Content::Texts(names));
    contents.insert("events: what they carry".to_owned(), Content::Texts(payloads));
}

/// What was written into the log of notifications: at least once each, told apart by its key.
pub(super) fn notifications(log: &str, snapshot: &mut Snapshot) {
    let mut keys = BTreeSet::new();
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        if keys.insert(line["key"].to_string()) {
            *told.entry(format!("{}: {}", line["severity"], line["title"])).or_default() += 1;
        }
    }
    snapshot.contents.insert("log of notifications".to_owned(), Content::Texts(told));
}

/// The files below a folder, by the digests of what they hold.
pub(super) fn files(folder: &Path, snapshot: &mut Snapshot) -> std::io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Map::new();
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                let digest = Digest::of_bytes(&std::fs::read(&path)?);
                found.insert(name, json!(digest.to_string()));
            }
        }
    }
    snapshot.contents.insert("files".to_owned(), Content::Document(Value::Object(found)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_ids_are_told_from_chosen_ones() {
        let role = json!({ "status": { "postgres_role": "app" } });
        assert_eq!(stands_for("rol-20a4f7db8e84f544", &role), Some("app".to_owned()));
        let database = json!({ "spec": { "postgres_database": "shop" } });
        assert_eq!(stands_for("db-20a4f7db8e84f544", &database), Some("shop".to_owned()));
        for chosen in ["app", "rol-app", "rol-20a4", "ep-20a4f7db8e84f544"] {
            assert_eq!(stands_for(chosen, &role), None, "{chosen}");
        }
        assert_eq!(stands_for("rol-20a4f7db8e84f544", &json!({})), None);
    }
}
