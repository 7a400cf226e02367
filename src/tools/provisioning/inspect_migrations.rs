//! Says which migrations a database has, which it does not have, and what a reviewer should know of
//! these.
//!
//! Reads: the files; `lakeops.schema_migration`; the sizes of the tables that they work on.
//! Changes: nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::tools::context::ReadContext;
use crate::tools::migration::change::Facts;
use crate::tools::migration::class::Class;
use crate::tools::migration::history::{LIST, READY};
use crate::tools::migration::look::{TriedOn, look, prove_tried};
use crate::tools::migration::size::TABLE_BYTES;
use crate::tools::migration::source::Source;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(InspectMigrations));

struct InspectMigrations;

/// Which migrations.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The migrations.
    migrations: Source,
    /// Where those that are pending must have been carried out already; one that was not is a failure.
    #[serde(default)]
    tried_on: Option<TriedOn>,
}

/// How files and database stand.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The files that the database does not have, oldest first.
    pending: Vec<Facts>,
    /// The files that it has.
    applied: Vec<String>,
    /// The files that were changed after they were carried out; nothing is carried out before they are
    /// as they were.
    changed: Vec<String>,
    /// The versions that it has and of which there is no file.
    unknown: Vec<String>,
    /// Pending versions that are older than one that it has.
    out_of_order: Vec<String>,
    /// Whether each pending file can be undone without loss.
    undoable: bool,
    /// The worst that a pending file does.
    class: Class,
    /// What a reviewer should know, as Markdown.
    markdown: String,
}

impl ReadTool for InspectMigrations {
    const META: ToolMeta = ToolMeta {
        name: "inspect_migrations",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Says which migrations a database has, and judges those that it does not have",
        sql: &[&LIST, &READY, &TABLE_BYTES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let found = look(cx, &params.migrations).await?;
        if let Some(tried) = &params.tried_on {
            prove_tried(cx, &found.pending, tried).await?;
        }
        let pending: Vec<Facts> = found.pending.into_iter().map(|one| one.facts).collect();
        let late = pending.iter().filter(|one| one.out_of_order.is_some());
        Ok(Output {
            out_of_order: late.map(|one| one.version.clone()).collect(),
            undoable: pending.iter().all(|one| one.undo.impossible.is_none()),
            class: pending.iter().map(|one| one.class).max().unwrap_or(Class::Safe),
            markdown: pending.iter().map(Facts::markdown).collect(),
            applied: found.applied,
            changed: found.changed,
            unknown: found.unknown,
            pending,
        })
    }
}
