//! Compares the structure of two databases.
//!
//! Reads: the catalogues of both, read-only: tables, columns, constraints, indexes, views, routines,
//! triggers, policies, sequences, types, extensions, statistics, rules, comments, privileges. The
//! schema `lakeops` and the members of extensions are left out.
//! Changes: nothing. It writes down the SQL that gets from one to the other, and carries none of it out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Secret, Target};
use crate::lakebase::find_branch;
use crate::postgres::{PgEndpoint, PgReader};
use crate::schema::{
    Action, Diff, Difference, Impact, Kind, Snapshot, Statement, Uncovered, as_script, capture,
    compare, markdown, script,
};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CaptureSchemaDiff));

struct CaptureSchemaDiff;

/// What is compared.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Where the comparison starts from; by default the branch that the step's branch came from.
    #[serde(default)]
    from: Option<Place>,
    /// What it is compared with; by default the step's target.
    #[serde(default)]
    to: Option<Place>,
    /// Schemas that are left out of both, besides `lakeops`.
    #[serde(default)]
    exclude: Vec<String>,
}

/// A database.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Place {
    /// A branch of the step's project.
    #[serde(default)]
    branch: Option<String>,
    /// A database; by default that of the step.
    #[serde(default)]
    database: Option<String>,
    /// Any server: `postgres://user@host/database`. Without a password, since arguments are written
    /// down; it comes from `PGPASSWORD` or `~/.pgpass`.
    #[serde(default)]
    url: Option<String>,
}

/// How the two differ.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// What the comparison starts from.
    from: String,
    /// What it is compared with.
    to: String,
    /// Whether anything differs.
    has_changes: bool,
    /// Whether programs that work with the first can go on with the second.
    impact: Impact,
    /// The differences by name, for conditions.
    summary: Summary,
    /// Each object that differs.
    differences: Vec<Difference>,
    /// What gets from the first to the second, in order.
    statements: Vec<Statement>,
    /// The same as one script.
    sql: String,
    /// What of it destroys something that cannot be brought back.
    destructive: Vec<String>,
    /// All of it as Markdown.
    markdown: String,
    /// Kinds of objects that are there and were not compared.
    uncovered: Vec<Uncovered>,
}

/// The differences by name. Columns and indexes of a table that is new or gone are not listed.
#[derive(Serialize, JsonSchema)]
struct Summary {
    /// New tables.
    tables_added: Vec<String>,
    /// Tables that are gone.
    tables_removed: Vec<String>,
    /// New columns.
    columns_added: Vec<String>,
    /// Columns that are gone.
    columns_removed: Vec<String>,
    /// Columns that differ.
    columns_changed: Vec<String>,
    /// New indexes.
    indexes_added: Vec<String>,
    /// Indexes that are gone.
    indexes_removed: Vec<String>,
    /// Everything else that differs.
    others: Vec<String>,
}

impl ReadTool for CaptureSchemaDiff {
    const META: ToolMeta = ToolMeta {
        name: "capture_schema_diff",
        family: Family::Provisioning,
        risk: crate::kernel::Risk::Low,
        revision: 1,
        summary: "Compares the structure of two databases, and writes the SQL that gets from one to the other",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let from = match params.from {
            Some(place) => place,
            None => Place { branch: Some(parent(cx).await?), ..Place::default() },
        };
        let to = params.to.unwrap_or_default();
        let (from, from_name) = snapshot(cx, &from, &params.exclude).await?;
        let (to, to_name) = snapshot(cx, &to, &params.exclude).await?;
        Ok(output(&from, &to, (from_name, to_name)))
    }
}

/// The branch that the step's branch came from.
async fn parent(cx: &ReadContext<'_>) -> Result<String, Failure> {
    let nothing = |why: String| {
        Failure::permanent("capture_schema_diff::no_parent", why)
            .with_help("say with `from` what to compare with: a branch, a database, or a URL")
    };
    let (Some(_), Some(project), Some(branch)) =
        (cx.workspace, &cx.target.project, &cx.target.branch)
    else {
        return Err(nothing("only a branch of a Lakebase project has a parent".to_owned()));
    };
    let found = find_branch(cx.lakebase()?, project, branch).await?;
    let source = found.and_then(|branch| branch.status.source_branch);
    let source = source.and_then(|name| name.rsplit('/').next().map(str::to_owned));
    source.ok_or_else(|| nothing(format!("branch `{branch}` came from no other branch")))
}

async fn snapshot(
    cx: &ReadContext<'_>,
    place: &Place,
    exclude: &[String],
) -> Result<(Snapshot, String), Failure> {
    let (reader, name) = reader(cx, place).await?;
    Ok((capture(reader, exclude).await?, name))
}

fn label(target: &Target) -> String {
    let parts = [&target.branch, &target.database];
    let parts: Vec<_> = parts.into_iter().flatten().map(String::as_str).collect();
    if parts.is_empty() { "target".to_owned() } else { parts.join("/") }
}

async fn reader(cx: &ReadContext<'_>, place: &Place) -> Result<(PgReader, String), Failure> {
    if let Some(url) = &place.url {
        if place.database.is_some() || place.branch.is_some() {
            return Err(Failure::permanent(
                "capture_schema_diff::two_places",
                "a place is either a `url`, or a `branch` and `database`, not both",
            ));
        }
        let endpoint = elsewhere(url)?;
        let label = endpoint.label();
        return Ok((PgReader::new(endpoint, &cx.settings.limits, "lakeops:schema"), label));
    }
    let is_other_branch = place.branch.is_some() && place.branch != cx.target.branch;
    if is_other_branch && cx.workspace.is_none() && place.database.is_none() {
        return Err(Failure::permanent(
            "capture_schema_diff::no_branches",
            "without a Lakebase workspace branches are labels: both would be the same database",
        )
        .with_help("name another `database` or a `url`"));
    }
    let target = Target {
        project: cx.target.project.clone(),
        branch: place.branch.clone().or_else(|| cx.target.branch.clone()),
        database: place.database.clone().or_else(|| cx.target.database.clone()),
    };
    let label = label(&target);
    Ok((cx.reader_at(&target).await?, label))
}

fn elsewhere(url: &str) -> Result<PgEndpoint, Failure> {
    let has_password = url::Url::parse(url).is_ok_and(|url| {
        url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
    });
    if has_password {
        return Err(Failure::permanent(
            "capture_schema_diff::password_in_url",
            "the URL holds a password, and arguments are written down",
        )
        .with_help("leave it out, and set PGPASSWORD or write it into ~/.pgpass"));
    }
    PgEndpoint::from_url(&Secret::new(url.to_owned())).map_err(|error| {
        Failure::permanent(
            "capture_schema_diff::bad_url",
            format!("the URL cannot be used: {error}"),
        )
    })
}

fn output(from: &Snapshot, to: &Snapshot, (from_name, to_name): (String, String)) -> Output {
    let diff = compare(from, to);
    let statements = script(from, to);
    let destructive = statements.iter().filter_map(|statement| {
        statement.destroys.as_ref().map(|lost| format!("{}: {lost}", statement.sql))
    });
    Output {
        has_changes: !diff.is_empty(),
        impact: diff.impact(),
        summary: summary(&diff),
        sql: as_script(&statements),
        destructive: destructive.collect(),
        markdown: markdown(&diff, &statements, &from_name, &to_name),
        differences: diff.differences,
        uncovered: diff.uncovered,
        from: from_name,
        to: to_name,
        statements,
    }
}

fn summary(diff: &Diff) -> Summary {
    let names = |kind: Kind, action: Action| -> Vec<String> {
        let own = diff.differences.iter();
        own.filter(|one| one.kind == kind && one.action == action && one.within.is_none())
            .map(|one| one.object.clone())
            .collect()
    };
    let is_other = |one: &&Difference| {
        one.within.is_none()
            && match one.kind {
                Kind::Column => false,
                Kind::Table | Kind::Index => one.action == Action::Changed,
                _ => true,
            }
    };
    let others = diff.differences.iter().filter(is_other);
    Summary {
        tables_added: names(Kind::Table, Action::Added),
        tables_removed: names(Kind::Table, Action::Removed),
        columns_added: names(Kind::Column, Action::Added),
        columns_removed: names(Kind::Column, Action::Removed),
        columns_changed: names(Kind::Column, Action::Changed),
        indexes_added: names(Kind::Index, Action::Added),
        indexes_removed: names(Kind::Index, Action::Removed),
        others: others.map(|one| format!("{} {}", one.kind.as_str(), one.object)).collect(),
    }
}
