//! Carries out migrations: files of SQL, once each, in the order of their versions.
//!
//! Reads: the files; which of them the database has (`lakeops.schema_migration`); the sizes of the tables
//! that they work on; the branch policy; for a promotion, what the place has where they were tried.
//! Changes: one transaction for each file, in which the file is recorded first, so that a rival waits and
//! then leaves it. What PostgreSQL refuses in a transaction (`CONCURRENTLY`) runs outside, statement by
//! statement, and is recorded when all of it is done. Whoever waits for a lock longer than `lock_timeout`
//! gives up and lets those behind it pass; the step's `retry` tries again.
//! The event `schema_migrated` tells others.
//! Undo: by `VERSION_NAME.down.sql`, when it is there and the file destroys nothing; else it cannot be
//! undone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ChangeSet, Failure, Risk, Span};
use crate::tools::branching::policy::Creator;
use crate::tools::context::ReadContext;
use crate::tools::migration::change::{Facts, LOCK_TIMEOUT, Limits, publication, set_up};
use crate::tools::migration::history::{CREATE, DELETE, INSERT, LIST, PENDING, READY};
use crate::tools::migration::look::{Look, TriedOn, look, permitted, prove_tried};
use crate::tools::migration::size::TABLE_BYTES;
use crate::tools::migration::source::Source;
use crate::tools::tool::{AnyTool, Ending, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ApplySchemaMigration));

struct ApplySchemaMigration;

/// Which migrations, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The migrations.
    migrations: Source,
    /// How long a statement waits for a lock before it gives up (`2s`); everybody who comes later waits
    /// behind it.
    #[serde(default)]
    lock_timeout: Option<Span>,
    /// How long one statement may take; by default the step's `timeout`.
    #[serde(default)]
    statement_timeout: Option<Span>,
    /// Where the same files were carried out before. A protected branch takes no others.
    #[serde(default)]
    tried_on: Option<TriedOn>,
    /// Who asks; the branch policy judges by it.
    #[serde(default)]
    creator: Creator,
}

/// What became of the migrations that the database did not have.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Each of them, in order.
    migrations: Vec<Done>,
    /// How many were carried out.
    applied: usize,
}

/// What became of one migration.
#[derive(Serialize, JsonSchema)]
struct Done {
    /// How it ended.
    ended: Ending,
    /// How long its transaction took.
    duration_ms: Option<u64>,
    /// What is known about it.
    #[serde(flatten)]
    facts: Facts,
}

impl WriteTool for ApplySchemaMigration {
    const META: ToolMeta = ToolMeta {
        name: "apply_schema_migration",
        family: Family::Provisioning,
        risk: Risk::Medium,
        revision: 1,
        summary: "Carries out migrations that the database does not have, one transaction for each",
        sql: &[&CREATE, &DELETE, &INSERT, &LIST, &PENDING, &READY, &TABLE_BYTES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let found = look(cx, &params.migrations).await?;
        refuse_changed(&found)?;
        if found.pending.is_empty() {
            return Ok(ChangeSet::new(Vec::new()));
        }
        if let Some(tried) = &params.tried_on {
            prove_tried(cx, &found.pending, tried).await?;
        }
        let permit = permitted(cx, (params.creator, params.tried_on.is_some())).await?;
        let limits = Limits {
            lock_timeout: params.lock_timeout.unwrap_or(LOCK_TIMEOUT),
            statement_timeout: params.statement_timeout,
            at_least: permit.answer.risk(Risk::Medium),
            is_throw_away: permit.is_throw_away,
        };
        let mut changes = Vec::new();
        if !found.is_set_up {
            changes.push(set_up());
        }
        for pending in &found.pending {
            changes.extend(pending.changes(&limits)?.into_iter().map(|mut change| {
                change.why = permit.answer.because(&change.why);
                change
            }));
        }
        changes.push(publication(&found.pending, cx.target));
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let migrations: Vec<Done> = settled.iter().filter_map(done).collect();
        let applied = migrations.iter().filter(|one| one.ended == Ending::Applied).count();
        Output { migrations, applied }
    }
}

fn refuse_changed(found: &Look) -> Result<(), Failure> {
    if found.changed.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} was changed after it was carried out here: the checksum differs",
        found.changed.join(", ")
    );
    Err(Failure::permanent("migration::changed", text)
        .with_help("restore the file, and write what is to change into a new one"))
}

/// The last change of a migration knows all about it.
fn done(settled: &Settled<'_>) -> Option<Done> {
    let facts = serde_json::from_value(settled.change.facts.clone()).ok()?;
    let duration_ms = settled.receipt().and_then(|receipt| receipt.duration_ms);
    Some(Done { ended: settled.ending(), duration_ms, facts })
}
