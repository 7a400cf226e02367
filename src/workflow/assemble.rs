//! Putting a resolved workflow together from its parts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checker::Checker;
use super::diagnostic::{Reporter, shorten};
use super::elements::{Setting, StepSpec, WaitSpec};
use super::graph::StepGraph;
use super::names::Names;
use super::resolve::Session;
use super::resolved::{Action, Step, Workflow};
use super::source::{Place, Spanned};
use super::spec::WorkflowSpec;
use super::step_rules::{StepRules, Uses, check_target, param_schema};
use super::{actions, gates, types};
use crate::kernel::Risk;
use crate::plan::document::Need;
use crate::tools::rules;

/// How many steps a workflow may have with all that it embeds.
const MOST_STEPS: usize = 20_000;

/// Resolves a workflow. What is wrong is reported; the result is only meant to be used when nothing is.
pub(super) fn assemble(
    session: &mut Session<'_>,
    spec: WorkflowSpec,
    reporter: &mut Reporter,
) -> Option<Workflow> {
    let params = spec.params.iter().map(|param| (param.name.value.clone(), param_schema(param)));
    let params: BTreeMap<String, Value> = params.collect();
    let mut assembly = Assembly {
        session,
        spec: &spec,
        reporter,
        params,
        outputs: BTreeMap::new(),
        secrets: BTreeSet::new(),
    };
    assembly.check_ids();
    assembly.check_head();
    let main = assembly.steps();
    let on_failure = assembly.handlers(&spec.on_failure);
    let always = assembly.handlers(&spec.always);
    let outputs = assembly.workflow_outputs();
    let mut secrets = assembly.secrets;
    let steps = main?;
    let all = || steps.iter().chain(&on_failure).chain(&always);
    let mut risk = all().map(|step| step.risk).max().unwrap_or_default();
    let mut size = all().count();
    let mut tools = BTreeMap::new();
    let mut sops = BTreeMap::new();
    for step in all() {
        tools.extend(tools_of(session, step));
        if let Action::Workflow(child) = &step.action {
            tools.extend(child.tools.clone());
            sops.extend(child.sops.clone());
            secrets.extend(child.secrets.iter().cloned());
            size += child.size;
        }
    }
    sops.extend(sops_of(session, &tools));
    if size > MOST_STEPS {
        let message = format!("with all that it embeds, the workflow has {size} steps");
        let help = format!("at most {MOST_STEPS} are planned");
        reporter.hinted("workflow::too_large", spec.name.place, message, help);
    }
    risk = risk.max(check_registration(session, &spec, risk, reporter));
    check_starts(&spec, reporter);
    Some(Workflow { spec, steps, on_failure, always, risk, secrets, tools, sops, outputs, size })
}

/// The tools that a step uses itself, with their revisions.
fn tools_of(session: &Session<'_>, step: &Step) -> Vec<(String, u16)> {
    let call = match &step.action {
        Action::Wait(WaitSpec::Condition { call, .. }) => Some(call),
        Action::Verify(verify) => Some(&verify.call),
        _ => None,
    };
    let named = call.into_iter().chain(&step.spec.compensate).map(|call| call.tool.value.as_str());
    let own = match &step.action {
        Action::Tool(tool) => Some(tool.meta().name),
        _ => None,
    };
    let found = named.chain(own).filter_map(|name| session.resolver.catalog.find(name));
    found.map(|tool| (tool.meta().name.to_owned(), tool.meta().revision)).collect()
}

/// The SOPs that these tools judge by: the user's own, else as they are shipped.
fn sops_of(session: &Session<'_>, tools: &BTreeMap<String, u16>) -> BTreeMap<String, String> {
    let found = tools.keys().filter_map(|name| session.resolver.catalog.find(name));
    let sops = found.flat_map(|tool| rules::judged_by(tool.meta()));
    let text = |path: &str, shipped: &str| {
        session.resolver.sources.script(path).unwrap_or(shipped).to_owned()
    };
    sops.map(|(path, shipped)| ((*path).to_owned(), text(path, shipped))).collect()
}

struct Assembly<'s, 'r> {
    session: &'s mut Session<'r>,
    spec: &'s WorkflowSpec,
    reporter: &'s mut Reporter,
    params: BTreeMap<String, Value>,
    /// The types of the steps' outputs.
    outputs: BTreeMap<String, Value>,
    secrets: BTreeSet<String>,
}

impl Assembly<'_, '_> {
    /// Reports ids that are given twice.
    fn check_ids(&mut self) {
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        let spec = self.spec;
        for step in spec.steps.iter().chain(&spec.on_failure).chain(&spec.always) {
            let Spanned { value, place } = &step.id;
            if let Some(line) = lines.get(value.as_str()) {
                let message = format!("two steps are called `{value}`: in line {line} and here");
                let help = "give one of them another id";
                self.reporter.hinted("workflow::duplicate_step", *place, message, help);
            } else {
                lines.insert(value, place.start.line);
            }
        }
    }

    /// Checks what stands above the steps.
    fn check_head(&mut self) {
        let none = BTreeMap::new();
        let spec = self.spec;
        let lost = (!spec.damaged).then_some(&spec.lost);
        let names = Names { lost, ..Self::names_of(&self.params, &none) };
        let mut checker = Checker::new(self.session.sandbox(), self.reporter);
        if let Some(target) = &spec.target {
            check_target(&mut checker, target, &names);
        }
        if let Some(lock) = &spec.lock {
            checker.text(lock, &names);
        }
        for trigger in &spec.triggers {
            if let Some(when) = &trigger.when {
                checker.condition(when, &names);
            }
            checker.settings(trigger.cooldown.iter().filter_map(Setting::computed), &names);
        }
        checker.settings(spec.limits.computed().chain(spec.defaults.computed()), &names);
    }

    fn names_of<'a>(
        params: &'a BTreeMap<String, Value>,
        steps: &'a BTreeMap<String, Value>,
    ) -> Names<'a> {
        Names {
            params,
            steps,
            own: None,
            item: None,
            result: None,
            before_run: false,
            secrets: false,
            whole_steps: false,
            lost: None,
        }
    }

    /// Resolves the steps. `None` when their order cannot be known.
    fn steps(&mut self) -> Option<Vec<Step>> {
        let spec = self.spec;
        let mut graph = StepGraph::default();
        let mut found: BTreeMap<String, Option<Action>> = BTreeMap::new();
        for step in &spec.steps {
            let (action, output) = self.resolve(step);
            let id = &step.id.value;
            if !found.contains_key(id) {
                graph.add_step(id);
                self.outputs.insert(id.clone(), output);
                found.insert(id.clone(), action);
            }
        }
        let mut never = BTreeSet::new();
        for step in &spec.steps {
            let id = &step.id.value;
            self.declared_edges(step, &mut graph);
            let action = found.get(id).and_then(Option::as_ref).cloned();
            let uses = self.check(step, action.as_ref(), false);
            for (needed, place) in uses.steps.iter().filter(|(needed, _)| *needed != id) {
                graph.add_edge(id, needed, true, *place);
            }
            if uses.never {
                never.insert(id.clone());
            }
        }
        let is_acyclic = self.report_cycles(&graph);
        let mut steps = self.finish_steps(&found, &graph);
        let is_complete = steps.len() == spec.steps.len();
        for (id, step) in &steps {
            if let Action::Approval(gate) = &step.action {
                gates::check_covers(id, gate, &steps, &graph, self.reporter);
            }
        }
        let order = graph.order();
        gates::check_reachable(&order, &never, &steps, self.reporter);
        (is_acyclic && is_complete)
            .then(|| order.iter().filter_map(|id| steps.remove(id)).collect())
    }

    fn resolve(&mut self, step: &StepSpec) -> (Option<Action>, Value) {
        let found = actions::resolve(self.session, step, self.reporter);
        let (action, output) = found.unzip();
        let output = output.unwrap_or_else(types::anything);
        let output = if step.for_each.is_some() { types::list_of(&output) } else { output };
        (action, output)
    }

    fn declared_edges(&mut self, step: &StepSpec, graph: &mut StepGraph) {
        let is_lost = |name: &String| {
            self.spec.damaged || self.spec.lost.contains(name) || self.spec.lost.contains("")
        };
        for need in &step.needs {
            if self.outputs.contains_key(&need.value) {
                graph.add_edge(&step.id.value, &need.value, false, need.place);
            } else if !is_lost(&need.value) {
                let known = self.outputs.keys().map(String::as_str);
                let message = format!("unknown step `{}`", shorten(&need.value));
                let what = (message.as_str(), need.value.as_str());
                self.reporter.unknown("workflow::unknown_step", need.place, what, known);
            }
        }
    }

    fn check(&mut self, step: &StepSpec, action: Option<&Action>, is_handler: bool) -> Uses {
        let lost = (!self.spec.damaged).then_some(&self.spec.lost);
        let own = (!is_handler).then_some(step.id.value.as_str());
        let names = Names {
            lost,
            own,
            whole_steps: is_handler,
            ..Self::names_of(&self.params, &self.outputs)
        };
        let uses = StepRules { session: self.session, step, names }.check(action, self.reporter);
        self.secrets.extend(uses.secrets.iter().cloned());
        uses
    }

    fn report_cycles(&mut self, graph: &StepGraph) -> bool {
        let cycles = graph.cycles();
        for cycle in &cycles {
            let path: Vec<String> = cycle.path.iter().map(|id| format!("`{id}`")).collect();
            let message = format!("steps wait for each other: {}", path.join(" -> "));
            let help = "each waits for the next; take one of the edges away";
            self.reporter.hinted("workflow::cycle", cycle.place, message, help);
        }
        cycles.is_empty()
    }

    fn finish_steps(
        &mut self,
        found: &BTreeMap<String, Option<Action>>,
        graph: &StepGraph,
    ) -> BTreeMap<String, Step> {
        let mut steps = BTreeMap::new();
        for spec in &self.spec.steps {
            let id = &spec.id.value;
            if let Some(Some(action)) = found.get(id).filter(|_| !steps.contains_key(id)) {
                let step = self.finish_step(spec, action.clone(), graph.needs(id));
                steps.insert(id.clone(), step);
            }
        }
        steps
    }

    fn finish_step(&mut self, spec: &StepSpec, action: Action, needs: Vec<Need>) -> Step {
        let risk = gates::check_policy(spec, &action, self.reporter);
        Step { spec: spec.clone(), needs, risk, action }
    }

    /// Resolves steps that run at the end, one after the other: each sees all steps and those before it.
    fn handlers(&mut self, specs: &[StepSpec]) -> Vec<Step> {
        let kept = self.outputs.clone();
        let mut steps = Vec::new();
        for spec in specs {
            let (action, output) = self.resolve(spec);
            self.check(spec, action.as_ref(), true);
            self.outputs.insert(spec.id.value.clone(), output);
            if let Some(action) = action {
                steps.push(self.finish_step(spec, action, Vec::new()));
            }
        }
        self.outputs = kept;
        steps
    }

    /// Checks the outputs. Their type.
    fn workflow_outputs(&mut self) -> Value {
        let lost = (!self.spec.damaged).then_some(&self.spec.lost);
        let names = Names { lost, ..Self::names_of(&self.params, &self.outputs) };
        let mut checker = Checker::new(self.session.sandbox(), self.reporter);
        let fields = self.spec.outputs.iter().map(|(name, expression)| {
            let found = checker.expression(expression, &names);
            (name.value.as_str(), found.map_or_else(types::anything, |(_, schema)| schema))
        });
        types::object(fields.collect::<Vec<_>>())
    }
}

/// Checks that a workflow can be offered as a tool. The risk that it is offered with.
fn check_registration(
    session: &Session<'_>,
    spec: &WorkflowSpec,
    risk: Risk,
    reporter: &mut Reporter,
) -> Risk {
    let Some(registration) = &spec.registration else { return Risk::Low };
    let place: Place = spec.name.place;
    if session.resolver.catalog.find(&spec.name.value).is_some() {
        let message = format!("there is a built-in tool `{}` already", spec.name.value);
        let help = "rename the workflow, or leave `tool` out";
        reporter.hinted("workflow::registration", place, message, help);
    }
    if spec.outputs.is_empty() && !spec.damaged {
        let message = "a workflow that is offered as a tool has outputs";
        let help = "add `outputs: { name: expression }`";
        reporter.hinted("workflow::registration", place, message, help);
    }
    let Some(written) = &registration.risk else { return risk };
    if written.value < risk {
        let message = format!("its steps have risk {risk}, which cannot be lowered");
        let help = format!("write `risk: {risk}`, or leave it out");
        reporter.hinted("workflow::risk", written.place, message, help);
    }
    written.value
}

/// A run that nobody starts by hand has nobody to give parameters.
fn check_starts(spec: &WorkflowSpec, reporter: &mut Reporter) {
    if spec.schedule.is_empty() && spec.triggers.is_empty() {
        return;
    }
    for param in spec.params.iter().filter(|param| param.required && param.default.is_none()) {
        let name = &param.name;
        let message = format!("nobody gives `{}` to a run that starts by itself", name.value);
        let help = "add a `default`, or leave `schedule` and `triggers` out";
        reporter.hinted("workflow::required_param", name.place, message, help);
    }
}
