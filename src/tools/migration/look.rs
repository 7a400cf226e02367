//! Looks at files and database: what the tools share.

use schemars::JsonSchema;
use serde::Deserialize;

use super::change::Pending;
use super::history::{Recordings, compare};
use super::reading::{Reading, read};
use super::size::table_bytes;
use super::source::{Migration, Source};
use crate::kernel::{Failure, Target};
use crate::tools::branching::policy::{Act, Answer, Creator, Question, ask};
use crate::tools::branching::survey::Survey;
use crate::tools::context::ReadContext;

/// Files and database, compared.
pub(in crate::tools) struct Look {
    /// Whether the database has the table of migrations.
    pub(in crate::tools) is_set_up: bool,
    /// The migrations that it does not have, oldest first.
    pub(in crate::tools) pending: Vec<Pending>,
    /// The files of those that it has.
    pub(in crate::tools) applied: Vec<String>,
    /// The files that were changed after they were carried out.
    pub(in crate::tools) changed: Vec<String>,
    /// The versions that it has and of which there is no file.
    pub(in crate::tools) unknown: Vec<String>,
}

/// Reads the files and what the database has of them.
pub(in crate::tools) async fn look(cx: &ReadContext<'_>, source: &Source) -> Result<Look, Failure> {
    let has = Recordings::read(cx.pg).await?;
    let standing = compare(source.read().await?, &has);
    let mut read = Vec::new();
    for migration in standing.pending {
        read.push(both(migration).await?);
    }
    let tables = read.iter().flat_map(|(_, reading, _)| &reading.statements);
    let tables = tables.filter_map(|one| one.table.clone()).collect();
    let sizes = table_bytes(cx.pg, tables).await?;
    let newest = has.newest();
    Ok(Look {
        is_set_up: has.is_set_up,
        pending: read.into_iter().map(|one| Pending::new(one, &sizes, newest.as_ref())).collect(),
        applied: standing.applied,
        changed: standing.changed,
        unknown: standing.unknown,
    })
}

/// Reads a migration and what undoes it.
async fn both(migration: Migration) -> Result<(Migration, Reading, Option<Reading>), Failure> {
    let up = read(&migration.label, &migration.sql).await?;
    let Some(text) = &migration.down else { return Ok((migration, up, None)) };
    let label = format!("the undo of {}", migration.label);
    let down = read(&label, text).await?;
    let fits = if up.in_transaction {
        down.in_transaction
    } else {
        !down.in_transaction && down.statements.len() == up.statements.len()
    };
    if !fits {
        let text = format!("{label} does not go step by step with what it undoes");
        return Err(Failure::permanent("migration::unlike_undo", text).with_help(
            "what runs in one transaction is undone in one; what runs CONCURRENTLY is undone by as \
             many statements that run so",
        ));
    }
    Ok((migration, up, Some(down)))
}

/// Where a promotion was tried before: another branch or database of the same connection that has the
/// very same migrations.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct TriedOn {
    /// A branch of the step's project.
    #[serde(default)]
    branch: Option<String>,
    /// A database; by default that of the step.
    #[serde(default)]
    database: Option<String>,
}

/// Makes sure that each pending migration, by its checksum, was carried out there.
pub(in crate::tools) async fn prove_tried(
    cx: &ReadContext<'_>,
    pending: &[Pending],
    tried: &TriedOn,
) -> Result<(), Failure> {
    let place = Target {
        project: cx.target.project.clone(),
        branch: tried.branch.clone().or_else(|| cx.target.branch.clone()),
        database: tried.database.clone().or_else(|| cx.target.database.clone()),
    };
    if place == *cx.target {
        return Err(Failure::permanent(
            "migration::untried",
            "`tried_on` is the place that is to be migrated",
        ));
    }
    let reader = cx.reader_at(&place).await?;
    let has = Recordings::read(&reader).await;
    reader.close().await;
    let has = has?;
    let missing = pending.iter().filter(|one| !has.has(&one.migration));
    let missing: Vec<_> = missing.map(|one| one.migration.label.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("{place} does not have {}, or has another text of it", missing.join(", "));
    Err(Failure::permanent("migration::untried", text)
        .with_help("carry the same files out there first: only what was tried is promoted"))
}

/// What a branch allows.
#[derive(Default)]
pub(in crate::tools) struct Permit {
    /// What the branch policy says.
    pub(in crate::tools) answer: Answer,
    /// Whether it is there to be thrown away: nobody waits for its tables, and nothing on it is lost.
    pub(in crate::tools) is_throw_away: bool,
}

/// Asks the branch policy whether the branch may be migrated; without a branch there is nothing to ask.
pub(in crate::tools) async fn permitted(
    cx: &ReadContext<'_>,
    (creator, promotion): (Creator, bool),
) -> Result<Permit, Failure> {
    let Some(branch) = cx.target.branch.as_deref() else { return Ok(Permit::default()) };
    let survey = match (cx.workspace, cx.target.project.as_deref()) {
        (Some(api), Some(project)) => Some(Survey::of(api, project).await?),
        _ => None,
    };
    let question = Question { creator, promotion, ..Question::new(Act::Migrate, branch) };
    let known = survey.as_ref().and_then(|survey| survey.branch(branch));
    Ok(Permit {
        answer: ask(cx, survey.as_ref(), question)?,
        is_throw_away: known.is_some_and(|known| known.branch.is_throw_away()),
    })
}
