//! Which project and branch a tool works on: its arguments first, then the step's target. PURE.

use super::name;
use crate::kernel::{Failure, Target};

/// The project of the target.
pub(in crate::tools) fn project(target: &Target) -> Result<String, Failure> {
    match target.project.as_deref() {
        Some(project) => Ok(project.to_owned()),
        None => Err(unnamed("project").with_help("name it: `target: { project: shop }`")),
    }
}

/// The branch that an argument or the target names.
pub(in crate::tools) fn branch(argument: Option<&str>, target: &Target) -> Result<String, Failure> {
    match argument.or(target.branch.as_deref()) {
        Some(branch) => name::to_id(branch),
        None => Err(unnamed("branch").with_help("name it: `branch_id: staging`, or in the target")),
    }
}

fn unnamed(what: &str) -> Failure {
    Failure::permanent("branching::no_target", format!("the step names no {what}"))
}
