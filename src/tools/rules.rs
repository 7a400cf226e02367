//! The SOPs that tools judge by before they propose: which, and how they are asked.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tool::{Family, ToolMeta};
use crate::kernel::Failure;
use crate::sop::{Sandbox, Scope};

/// Decides what may be done with branches.
pub const BRANCH_POLICY: &str = "sops/branch_policy.rhai";

/// The branch policy that holds where the user has none.
const SHIPPED_BRANCH_POLICY: &str = include_str!("../../sops/branch_policy.rhai");

/// Ranks the causes of what is wrong.
pub const ROOT_CAUSE: &str = "sops/root_cause.rhai";

/// The rules of root causes that hold where the user has none.
const SHIPPED_ROOT_CAUSE: &str = include_str!("../../sops/root_cause.rhai");

/// Answers by SOPs. A run asks those that its plan pins.
pub trait Rules: Send + Sync {
    /// What the SOP of this path returns for these variables.
    fn decide(&self, sop: &str, scope: &Scope) -> Result<Value, Failure>;
}

/// The SOPs that a tool judges by: path, and the text that holds where the user has none.
pub const fn judged_by(tool: &ToolMeta) -> &'static [(&'static str, &'static str)] {
    match (tool.family, tool.name.as_bytes()) {
        (Family::Provisioning, _) => &[(BRANCH_POLICY, SHIPPED_BRANCH_POLICY)],
        (Family::Health, b"diagnose_root_cause") => &[(ROOT_CAUSE, SHIPPED_ROOT_CAUSE)],
        (Family::Performance | Family::Health | Family::Core, _) => &[],
    }
}

/// SOPs as texts, for a tool that runs without a plan.
#[derive(Clone, Debug)]
pub struct RuleTexts {
    sandbox: Sandbox,
    texts: BTreeMap<String, String>,
}

impl RuleTexts {
    /// The SOPs that a tool judges by, each as the user has it, or as it is shipped.
    pub fn of(tool: &ToolMeta, own: impl Fn(&str) -> Option<String>) -> Self {
        let texts = judged_by(tool).iter().map(|(path, shipped)| {
            ((*path).to_owned(), own(path).unwrap_or_else(|| (*shipped).to_owned()))
        });
        Self { sandbox: Sandbox::new(), texts: texts.collect() }
    }
}

impl Rules for RuleTexts {
    fn decide(&self, sop: &str, scope: &Scope) -> Result<Value, Failure> {
        let Some(text) = self.texts.get(sop) else { return Err(missing(sop)) };
        let variables: Vec<&str> = scope.keys().map(String::as_str).collect();
        let failed = |error: crate::sop::ScriptError| {
            Failure::permanent("expression::failed", format!("{sop}: {error}"))
        };
        let script = self.sandbox.script(sop, text, &variables).map_err(failed)?;
        script.evaluate(scope).map(|evaluated| evaluated.value).map_err(failed)
    }
}

/// There are no SOPs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRules;

impl Rules for NoRules {
    fn decide(&self, sop: &str, _scope: &Scope) -> Result<Value, Failure> {
        Err(missing(sop))
    }
}

fn missing(sop: &str) -> Failure {
    Failure::permanent("tool::missing_sop", format!("there is no `{sop}` to judge by"))
}
