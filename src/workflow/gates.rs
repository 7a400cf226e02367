//! Rules about risk, approvals, and steps that never run.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Reporter, shorten};
use super::elements::ApprovalSpec;
use super::graph::StepGraph;
use super::resolved::{Action, Step};
use crate::kernel::Risk;
use crate::plan::document::{ApprovalMode, RunIf};

/// Checks the risk that a step is given, and the approval policy beside it. The risk that it has.
pub(super) fn check_policy(
    step: &super::elements::StepSpec,
    action: &Action,
    reporter: &mut Reporter,
) -> Risk {
    let own = action.risk();
    let risk = step.risk.as_ref().map_or(own, |written| {
        if written.value < own {
            let message = format!("the risk is {own} and cannot be lowered to {}", written.value);
            let help = "leave `risk` out, or raise it";
            reporter.hinted("workflow::risk", written.place, message, help);
        }
        written.value.max(own)
    });
    if !matches!(action, Action::Tool(_) | Action::Workflow(_)) {
        return risk;
    }
    if let Some(policy) = &step.approval {
        if !action.is_write() {
            let message = "there is nothing to approve: this step only looks";
            let help =
                "leave `approval` out; to ask a person first, add a step `approval: { prompt }`";
            reporter.hinted("workflow::approval", policy.place, message, help);
        } else if policy.value == ApprovalMode::Never && risk == Risk::High {
            let message = "high risk cannot do without an approval";
            let help = "write `approval: required`, or leave it out";
            reporter.hinted("workflow::approval", policy.place, message, help);
        }
    }
    if let Some(compensate) = step.compensate.as_ref().filter(|_| !action.is_write()) {
        let message = "there is nothing to undo: this step only looks";
        let help = "leave `compensate` out";
        reporter.hinted("workflow::compensate", compensate.tool.place, message, help);
    }
    risk
}

/// Checks that what an approval covers can be proposed before it is given.
pub(super) fn check_covers(
    id: &str,
    gate: &ApprovalSpec,
    steps: &BTreeMap<String, Step>,
    graph: &StepGraph,
    reporter: &mut Reporter,
) {
    if let Some(within) = gate.rehearsed_within.as_ref().filter(|_| gate.covers.is_empty()) {
        let message = "`rehearsed_within` demands a rehearsal of nothing";
        let help = "name the steps whose changes are approved: `covers: [heal]`";
        let place = within.computed().map_or(gate.prompt.place, |computed| computed.template.place);
        reporter.hinted("workflow::covers", place, message, help);
    }
    let later = graph.descendants(id);
    for covered in &gate.covers {
        let name = covered.value.as_str();
        let Some(step) = steps.get(name) else {
            let known = steps.keys().map(String::as_str);
            reporter.unknown(
                "workflow::unknown_step",
                covered.place,
                (&format!("unknown step `{}`", shorten(name)), name),
                known,
            );
            continue;
        };
        let code = "workflow::covers";
        if !matches!(&step.action, Action::Tool(tool) if tool.is_write()) {
            let message = format!("`{name}` proposes no changes of its own");
            let help = "name steps whose `tool` changes something";
            reporter.hinted(code, covered.place, message, help);
        } else if !later.contains(name) {
            let message = format!("`{name}` does not wait for this approval");
            let help = format!("add `needs: [{id}]` to `{name}`");
            reporter.hinted(code, covered.place, message, help);
        } else if let Some(used) = graph.sources(name).iter().find(|used| later.contains(*used)) {
            let message = format!("`{name}` cannot be proposed before this approval");
            let help = format!("it uses the output of `{used}`, which runs after it");
            reporter.hinted(code, covered.place, message, help);
        } else if graph.sources(name).contains(id) {
            let message = format!("`{name}` cannot be proposed before this approval");
            reporter.hinted(code, covered.place, message, format!("it uses the output of `{id}`"));
        }
    }
}

/// Reports the steps that can never run, because their conditions never hold.
pub(super) fn check_reachable(
    order: &[String],
    never: &BTreeSet<String>,
    steps: &BTreeMap<String, Step>,
    reporter: &mut Reporter,
) {
    let mut dead: BTreeSet<&str> = BTreeSet::new();
    for id in order {
        let Some(step) = steps.get(id) else { continue };
        let needs_dead = !step.needs.is_empty()
            && step.spec.run_if == RunIf::Success
            && step.needs.iter().all(|need| dead.contains(need.step.as_str()));
        let place = step.spec.when.as_ref().map_or(step.spec.id.place, |when| when.place);
        if never.contains(id) {
            let message = format!("step `{id}` never runs: its condition is always false");
            let help = "mend the condition, or leave the step out";
            reporter.hinted("workflow::unreachable", place, message, help);
        } else if needs_dead {
            let message = format!("step `{id}` never runs: it needs only steps that never run");
            let help = "change its `needs`, or write `run_if: always`";
            reporter.hinted("workflow::unreachable", step.spec.id.place, message, help);
        } else {
            continue;
        }
        dead.insert(id);
    }
}
