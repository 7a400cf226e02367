//! A resolved workflow: everything that it names is there, and its steps form no cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::elements::{ApprovalSpec, StepSpec, VerifySpec, WaitSpec};
use super::spec::WorkflowSpec;
use super::step_rules::params_schema;
use super::tree::Node;
use crate::kernel::Risk;
use crate::plan::document::Need;
use crate::tools::AnyTool;

/// A resolved workflow. Only [`super::Resolver`] makes one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Workflow {
    /// What is written in the file.
    pub spec: WorkflowSpec,
    /// Its steps in topological order; among those that are ready, in the order of the file.
    pub steps: Vec<Step>,
    /// Steps that run, in order, when the run failed.
    pub on_failure: Vec<Step>,
    /// Steps that run, in order, at the end of every run.
    pub always: Vec<Step>,
    /// The highest risk of its steps, or the higher one that it is registered with.
    pub risk: Risk,
    /// The secrets that it and what it embeds refer to.
    pub secrets: BTreeSet<String>,
    /// The tools that it and what it embeds use, with their revisions.
    pub tools: BTreeMap<String, u16>,
    /// The SOPs that those tools judge by: path and text.
    pub sops: BTreeMap<String, String>,
    /// The type of its outputs.
    pub(super) outputs: Value,
    /// How many steps it has with all that it embeds.
    pub(super) size: usize,
}

impl Workflow {
    /// JSON Schema of what it is given.
    pub fn params_schema(&self) -> Value {
        params_schema(&self.spec.params)
    }

    /// JSON Schema of what it returns, as far as its expressions tell.
    pub const fn output_schema(&self) -> &Value {
        &self.outputs
    }
}

/// A resolved step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is written in the file.
    pub spec: StepSpec,
    /// The steps of the same scope that it waits for.
    pub needs: Vec<Need>,
    /// Its risk: the tool's, or the higher one that the file says.
    pub risk: Risk,
    /// What it does.
    pub action: Action,
}

/// What a step does, with what it names found.
#[derive(Clone)]
pub enum Action {
    /// Runs a tool.
    Tool(AnyTool),
    /// Evaluates a script.
    Script {
        /// Its path.
        path: String,
        /// Its text.
        text: String,
    },
    /// Runs a query.
    Sql {
        /// Its name.
        name: String,
        /// Its text.
        text: String,
        /// Templates of its bound values, in order.
        binds: Vec<Node>,
    },
    /// Runs a workflow in the same run.
    Workflow(Arc<Workflow>),
    /// Asks a person.
    Approval(ApprovalSpec),
    /// Waits.
    Wait(WaitSpec),
    /// Verifies.
    Verify(VerifySpec),
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tool(tool) => f.debug_tuple("Tool").field(&tool.meta().name).finish(),
            Self::Script { path, .. } => f.debug_tuple("Script").field(path).finish(),
            Self::Sql { name, .. } => f.debug_tuple("Sql").field(name).finish(),
            Self::Workflow(child) => {
                f.debug_tuple("Workflow").field(&child.spec.name.value).finish()
            }
            Self::Approval(gate) => gate.fmt(f),
            Self::Wait(wait) => wait.fmt(f),
            Self::Verify(verify) => verify.fmt(f),
        }
    }
}

impl Action {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Tool(tool) => tool.is_write(),
            Self::Workflow(child) => child.steps.iter().any(|step| step.action.is_write()),
            _ => false,
        }
    }

    /// The risk that it has by itself.
    pub fn risk(&self) -> Risk {
        match self {
            Self::Tool(tool) => tool.meta().risk,
            Self::Workflow(child) => child.risk,
            _ => Risk::Low,
        }
    }
}
