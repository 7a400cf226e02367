//! Writes the instruction file that tells AI agents how to work on branches of their own, and the
//! workflow `agent_sandbox` that makes them. What agents may do is in the branch policy.
//!
//! Reads: the file that is there, and the project.
//! Changes: two files. One that somebody edited, or that is not ours, is refused unless `overwrite` is set.
//! Undo: what was there before is written back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::branching::place;
use crate::tools::context::ReadContext;
use crate::tools::pipeline::installed::{FileState, Installed, directory, written};
use crate::tools::pipeline::{AGENT_WORKFLOW, AGENTS, Values};
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(SetupAiAgentBranching));

struct SetupAiAgentBranching;

/// Where the file goes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The root of the repository.
    directory: String,
    /// The file below it; by default `docs/lakebase-agents.md`.
    #[serde(default)]
    file: Option<String>,
    /// The parent of the sandboxes.
    #[serde(default = "staging")]
    source_branch: String,
    /// The connection, as the configuration in the repository calls it.
    #[serde(default = "lakebase")]
    connection: String,
    /// Whether a file that was edited, or is not ours, is replaced; asks a person.
    #[serde(default)]
    overwrite: bool,
}

fn staging() -> String {
    "staging".to_owned()
}

fn lakebase() -> String {
    "lakebase".to_owned()
}

/// What became of it.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// What the names of sandboxes begin with.
    branch_prefix: &'static str,
    /// The workflow that makes a sandbox, and discards it.
    workflow: &'static str,
    /// The files that were written; those that were as they should be are not among them.
    files: Vec<FileState>,
}

impl WriteTool for SetupAiAgentBranching {
    const META: ToolMeta = ToolMeta {
        name: "setup_ai_agent_branching",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Tells AI agents how to work on their own branches",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let root = directory(&params.directory)?;
        let (source, connection) = (params.source_branch.as_str(), params.connection.as_str());
        let values = Values { project: &project, source, connection };
        let file = Installed::look(&root, (AGENTS, params.file.as_deref()), &values).await?;
        let workflow = Installed::look(&root, (AGENT_WORKFLOW, None), &values).await?;
        let mut changes = Vec::new();
        changes.extend(file.change(params.overwrite)?);
        changes.extend(workflow.change(params.overwrite)?);
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        Output { branch_prefix: "ai-agent-", workflow: "agent_sandbox", files: written(settled) }
    }
}
