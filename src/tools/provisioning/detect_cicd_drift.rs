//! Shows how the pipeline files in a repository differ from what we would write.
//!
//! Reads: the files that are there.
//! Changes: nothing.
//! Undo: nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::tools::branching::place;
use crate::tools::context::ReadContext;
use crate::tools::pipeline::installed::{FileState, Installed, directory};
use crate::tools::pipeline::{Drift, PR_WORKFLOW, Provider, Values};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DetectCicdDrift));

struct DetectCicdDrift;

/// Which files, and where: as for `setup_cicd_pipeline`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The root of the repository.
    directory: String,
    /// Who runs the pipelines; by default all of whom there is a file.
    #[serde(default)]
    providers: Option<Vec<Provider>>,
    /// The parent of the branches of pull requests.
    #[serde(default = "staging")]
    source_branch: String,
    /// The connection, as the configuration in the repository calls it.
    #[serde(default = "lakebase")]
    connection: String,
}

fn staging() -> String {
    "staging".to_owned()
}

fn lakebase() -> String {
    "lakebase".to_owned()
}

/// How the files are.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The files.
    files: Vec<FileState>,
    /// Whether any is otherwise than we would write it.
    drifted: bool,
}

impl ReadTool for DetectCicdDrift {
    const META: ToolMeta = ToolMeta {
        name: "detect_cicd_drift",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Shows how installed pipeline files differ",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let project = place::project(cx.target)?;
        let root = directory(&params.directory)?;
        let (source, connection) = (params.source_branch.as_str(), params.connection.as_str());
        let values = Values { project: &project, source, connection };
        let mut files = Vec::new();
        for provider in params.providers.clone().unwrap_or_else(|| Provider::ALL.to_vec()) {
            let file = Installed::look(&root, (provider.template(), None), &values).await?;
            if params.providers.is_some() || file.drift() != Drift::Missing {
                files.push(file.state());
            }
        }
        let workflow = Installed::look(&root, (PR_WORKFLOW, None), &values).await?;
        if !files.is_empty() {
            files.push(workflow.state());
        }
        let drifted = files.iter().any(|file| file.state != Drift::Current);
        Ok(Output { files, drifted })
    }
}
