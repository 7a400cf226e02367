//! From a resolved workflow and its inputs to a plan. Pure: the same inputs give the same plan.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{
    self, ApprovalGate, Backoff, Embedded, ForEach, Limits, PinnedText, Plan, PlanBody,
    PlannedStep, Retry, ToolCall, Verify, Wait,
};
use super::literal::{Literals, is_settled};
use crate::config::Settings;
use crate::kernel::{Digest, Span, Target, Timestamp};
use crate::sop::Sandbox;
use crate::tools::AnyTool;
use crate::workflow::elements::{CallSpec, Quantity, RetrySpec, Setting, WaitSpec};
use crate::workflow::resolved::{Action, Step};
use crate::workflow::tree::Node;
use crate::workflow::{Diagnostic, Place, SourceText, Workflow};

/// How long an attempt may take when neither the step nor the workflow says so.
const TIMEOUT: Span = Span::from_secs(300);

/// A value that a parameter is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// As it was typed: read by the parameter's type.
    Text(String),
    /// As JSON.
    Json(Value),
}

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct PlanInputs<'a> {
    /// The parameters that are given.
    pub params: BTreeMap<String, Given>,
    /// The connection that the target is reached by.
    pub connection: String,
    /// The target, as far as the caller says more than the workflow does.
    pub target: Target,
    /// Whether every step may wake a suspended compute, whatever it says itself.
    pub wake: bool,
    /// The settings that hold.
    pub settings: &'a Settings,
    /// The script that decides before each write: its path and text.
    pub policy: Option<(String, String)>,
    /// The plan that this one replaces.
    pub replaces: Option<Digest>,
    /// The present instant.
    pub now: Timestamp,
}

/// Makes the plan of a workflow for one set of parameters and one target.
pub fn plan(workflow: &Workflow, inputs: &PlanInputs<'_>) -> Result<Plan, Vec<Diagnostic>> {
    let params = super::params::resolve(&workflow.spec, &inputs.params)?;
    let mut planner = Planner::new(workflow, inputs);
    let literals = Literals::new(&planner.sandbox).with("params", Value::Object(params.clone()));
    let target = planner.target(workflow, &literals, &inputs.target);
    let literals = literals.with("target", target_value(&target));
    let lock = workflow.spec.lock.as_ref().and_then(|lock| {
        let text = Value::String(name_target(&lock.value, &target));
        let lock = planner.settled(&literals, &text, ("lock", lock.place));
        lock.map(|value| lock_text(&value))
    });
    let steps = planner.steps(&workflow.steps, workflow, &literals);
    let on_failure = planner.steps(&workflow.on_failure, workflow, &literals);
    let always = planner.steps(&workflow.always, workflow, &literals);
    for (path, text) in &workflow.sops {
        planner.scripts.insert(path.clone(), PinnedText::new(text.clone()));
    }
    if let Some((path, text)) = &inputs.policy {
        planner.scripts.insert(path.clone(), PinnedText::new(text.clone()));
    }
    let limits = &workflow.spec.limits;
    let limits = Limits {
        timeout: planner.optional(limits.timeout.as_ref(), &literals),
        max_changes: planner.optional(limits.max_changes.as_ref(), &literals),
    };
    let triggers = workflow.spec.triggers.iter().map(|trigger| {
        trigger
            .to_trigger(planner.optional(trigger.cooldown.as_ref(), &literals).unwrap_or_default())
    });
    let triggers = list(triggers);
    if !planner.mistakes.is_empty() {
        return Err(planner.mistakes);
    }
    let body = PlanBody {
        workflow: workflow.spec.name.value.clone(),
        description: workflow.spec.description.clone(),
        workflow_digest: workflow.spec.digest.clone(),
        params,
        target,
        connection: inputs.connection.clone(),
        lock,
        limits,
        steps,
        on_failure,
        always,
        outputs: outputs(workflow),
        scripts: planner.scripts,
        sql: planner.sql,
        tools: workflow.tools.clone(),
        policy: inputs.policy.as_ref().map(|(path, _)| path.clone()),
        secrets: workflow.secrets.iter().cloned().collect(),
        preconditions: Vec::new(),
        replaces: inputs.replaces.clone(),
        schedule: list(workflow.spec.schedule.iter()),
        triggers,
    };
    Plan::seal(body, inputs.now).map_err(|error| {
        let message = format!("the plan cannot be written: {error}");
        vec![Diagnostic::error("plan::unwritable", workflow.spec.source.path(), message)]
    })
}

/// The text of a lock: a text as it is, a target as `project/branch/database`.
pub fn lock_text(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    match serde_json::from_value::<Target>(value.clone()) {
        Ok(target) if value.is_object() => target.to_string(),
        _ => value.to_string(),
    }
}

/// A lock in whose text the target is written as `project/branch/database`.
pub fn name_target(lock: &str, target: &Target) -> String {
    let mut text = String::new();
    let mut rest = lock;
    while let Some((before, after)) = rest.split_once("${{") {
        let Some((expression, behind)) = after.split_once("}}") else { break };
        text.push_str(before);
        if expression.trim() == "target" {
            text.push_str(&target.to_string());
        } else {
            text.push_str("${{");
            text.push_str(expression);
            text.push_str("}}");
        }
        rest = behind;
    }
    text + rest
}

/// A target with all three keys, so that expressions can name each.
pub fn target_value(target: &Target) -> Value {
    serde_json::json!({
        "project": target.project,
        "branch": target.branch,
        "database": target.database,
    })
}

/// Pins a text of the library: it is the same wherever it is named.
fn pin(texts: &mut BTreeMap<String, PinnedText>, name: &str, text: &str) {
    if !texts.contains_key(name) {
        texts.insert(name.to_owned(), PinnedText::new(text));
    }
}

struct Planner<'a> {
    inputs: &'a PlanInputs<'a>,
    /// The file of the workflow at hand.
    source: SourceText,
    sandbox: Sandbox,
    /// How many workflows around the step at hand embed it.
    depth: usize,
    scripts: BTreeMap<String, PinnedText>,
    sql: BTreeMap<String, PinnedText>,
    mistakes: Vec<Diagnostic>,
}

impl<'a> Planner<'a> {
    fn new(workflow: &Workflow, inputs: &'a PlanInputs<'a>) -> Self {
        Self {
            inputs,
            source: workflow.spec.source.clone(),
            sandbox: Sandbox::keeping(),
            depth: 0,
            scripts: BTreeMap::new(),
            sql: BTreeMap::new(),
            mistakes: Vec::new(),
        }
    }

    /// The workflow's target; what the caller says comes first.
    fn target(&mut self, workflow: &Workflow, literals: &Literals, given: &Target) -> Target {
        let written = workflow.spec.target.as_ref().and_then(|node| {
            let place = ("target", node.place);
            let value = self.settled(literals, &node.to_json(), place)?;
            serde_json::from_value(value)
                .map_err(|error| self.refuse(place, &error.to_string()))
                .ok()
        });
        let written: Target = written.unwrap_or_default();
        Target {
            project: given.project.clone().or(written.project),
            branch: given.branch.clone().or(written.branch),
            database: given.database.clone().or(written.database),
        }
    }

    /// A value with every expression evaluated; one that cannot be is a mistake.
    fn settled(
        &mut self,
        literals: &Literals,
        value: &Value,
        place: (&str, Place),
    ) -> Option<Value> {
        literals.settle(value).map_err(|text| self.refuse(place, &text)).ok()
    }

    fn refuse(&mut self, (what, place): (&str, Place), why: &str) {
        let message = format!("`{what}` cannot be resolved: {why}");
        let mistake = Diagnostic::error("plan::unresolved", self.source.path(), message);
        let mistake = mistake.at(&self.source, place);
        // What stands under `defaults` is resolved for each step, and told once.
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// A duration or a number. What it follows from is known now, or it is a mistake.
    fn setting<T: Quantity>(&mut self, setting: &Setting<T>, literals: &Literals) -> T {
        let computed = match setting {
            Setting::Written(value) => return *value,
            Setting::Computed(computed) => computed,
        };
        let value = literals.settle(&computed.template.to_json());
        value.and_then(|value| computed.take(&value)).unwrap_or_else(|why| {
            self.refuse((computed.key, computed.template.place), &why);
            T::default()
        })
    }

    fn optional<T: Quantity>(
        &mut self,
        setting: Option<&Setting<T>>,
        literals: &Literals,
    ) -> Option<T> {
        setting.map(|setting| self.setting(setting, literals))
    }

    /// What is written of a retry policy, over what is inherited.
    fn retry(&mut self, spec: Option<&RetrySpec>, inherited: Retry, literals: &Literals) -> Retry {
        let Some(spec) = spec else { return inherited };
        let mut span = |setting: &Option<_>| self.optional(setting.as_ref(), literals);
        let (initial, max) = (span(&spec.initial), span(&spec.max));
        let mut number = |setting: &Option<_>| self.optional(setting.as_ref(), literals);
        let (factor, jitter) = (number(&spec.factor), number(&spec.jitter));
        let backoff = Backoff {
            initial: initial.unwrap_or(inherited.backoff.initial),
            factor: factor.unwrap_or(inherited.backoff.factor),
            max: max.unwrap_or(inherited.backoff.max),
            jitter: jitter.unwrap_or(inherited.backoff.jitter),
        };
        let attempts = self.optional(spec.max_attempts.as_ref(), literals);
        Retry {
            max_attempts: attempts.unwrap_or(inherited.max_attempts),
            backoff,
            on: spec.on.clone().unwrap_or(inherited.on),
        }
    }

    fn steps(
        &mut self,
        steps: &[Step],
        workflow: &Workflow,
        literals: &Literals,
    ) -> Vec<PlannedStep> {
        steps.iter().map(|step| self.step(step, workflow, literals)).collect()
    }

    fn step(&mut self, step: &Step, workflow: &Workflow, literals: &Literals) -> PlannedStep {
        let spec = &step.spec;
        let defaults = &workflow.spec.defaults;
        let inherited = self.retry(defaults.retry.as_ref(), Retry::default(), literals);
        let timeout = spec.timeout.as_ref().or(defaults.timeout.as_ref());
        PlannedStep {
            id: spec.id.value.clone(),
            needs: step.needs.clone(),
            when: spec.when.as_ref().map(|when| when.value.clone()),
            run_if: spec.run_if,
            for_each: spec.for_each.as_ref().map(|for_each| ForEach {
                items: literals.reduce(for_each.items.to_json()),
                key: for_each.key.value.clone(),
                max_parallel: self.optional(for_each.max_parallel.as_ref(), literals).unwrap_or(1),
                fail_fast: for_each.fail_fast,
            }),
            target: spec.target.as_ref().map(|target| literals.reduce(target.to_json())),
            action: self.action(step, literals),
            approval: spec.approval.as_ref().map(|policy| policy.value).unwrap_or_default(),
            risk: step.risk,
            timeout: timeout.map_or(TIMEOUT, |timeout| self.setting(timeout, literals)),
            retry: self.retry(spec.retry.as_ref(), inherited, literals),
            allow_failure: spec.allow_failure,
            lock: spec.lock.as_ref().map(|lock| text(literals, &lock.value)),
            wake: spec.wake || self.inputs.wake,
            compensate: spec.compensate.as_ref().map(|call| call_of(call, literals)),
        }
    }

    fn action(&mut self, step: &Step, literals: &Literals) -> document::Action {
        let with = step.spec.with.as_ref();
        match &step.action {
            Action::Tool(tool) => {
                let call = arguments(literals, with);
                let is_certain = step.spec.when.is_none() && step.spec.for_each.is_none();
                if self.depth == 0 && is_certain && is_settled(&call) {
                    self.check_arguments(*tool, &call, step);
                }
                document::Action::Tool(ToolCall { tool: tool.meta().name.to_owned(), with: call })
            }
            Action::Script { path, text } => {
                pin(&mut self.scripts, path, text);
                let with = arguments(literals, with);
                document::Action::Script { script: path.clone(), with }
            }
            Action::Sql { name, text, binds } => {
                pin(&mut self.sql, name, text);
                let with = binds.iter().map(|bind| literals.reduce(bind.to_json())).collect();
                document::Action::Sql { sql: name.clone(), with }
            }
            Action::Workflow(child) => {
                document::Action::Workflow(Box::new(self.embedded(child, with, literals)))
            }
            Action::Approval(gate) => document::Action::Approval(ApprovalGate {
                prompt: text(literals, &gate.prompt.value),
                show: gate.show.iter().map(|shown| shown.value.clone()).collect(),
                covers: gate.covers.iter().map(|step| step.value.clone()).collect(),
                expires: self
                    .optional(gate.expires.as_ref(), literals)
                    .unwrap_or(self.inputs.settings.approvals.expires),
                on_reject: gate.on_reject,
                rehearsed_within: self.optional(gate.rehearsed_within.as_ref(), literals),
            }),
            Action::Wait(wait) => document::Action::Wait(self.wait(wait, literals)),
            Action::Verify(verify) => document::Action::Verify(Verify {
                call: call_of(&verify.call, literals),
                assert: verify.assert.iter().map(|text| text.value.clone()).collect(),
                every: self.setting(&verify.every, literals),
                within: self.setting(&verify.within, literals),
                on_fail: verify.on_fail,
            }),
        }
    }

    fn wait(&mut self, wait: &WaitSpec, literals: &Literals) -> Wait {
        match wait {
            WaitSpec::Timer { duration } => {
                Wait::Timer { duration: literals.reduce(duration.to_json()) }
            }
            WaitSpec::Condition { call, until, every, within } => Wait::Condition {
                call: call_of(call, literals),
                holds: until.value.clone(),
                every: self.setting(every, literals),
                within: self.setting(within, literals),
            },
            WaitSpec::Event { event, when, within } => Wait::Event {
                event: event.value.clone(),
                when: when.as_ref().map(|when| when.value.clone()),
                within: self.setting(within, literals),
            },
        }
    }

    /// Arguments that are all known now are refused now, unless a condition may keep the step from
    /// running.
    fn check_arguments(&mut self, tool: AnyTool, arguments: &Value, step: &Step) {
        let Err(failure) = tool.erased().check_params(arguments) else { return };
        let spec = &step.spec;
        let place = spec.with.as_ref().map_or(spec.id.place, |with| with.place);
        let mistake =
            Diagnostic::error("plan::argument", self.source.path(), failure.message.clone());
        let mistake = mistake.at(&self.source, place);
        self.mistakes.push(match failure.help {
            Some(help) => mistake.with_help(help),
            None => mistake,
        });
    }

    fn embedded(&mut self, child: &Workflow, with: Option<&Node>, literals: &Literals) -> Embedded {
        let given = arguments(literals, with);
        let mut params = Map::new();
        for param in &child.spec.params {
            let name = &param.name.value;
            let value = given.get(name).or(param.default.as_ref()).cloned();
            params.insert(name.clone(), value.unwrap_or_default());
        }
        let inner = Literals::new(&self.sandbox).with_params(&params);
        let params = Value::Object(params);
        let target = child.spec.target.as_ref();
        self.depth += 1;
        let outer = std::mem::replace(&mut self.source, child.spec.source.clone());
        let steps = self.steps(&child.steps, child, &inner);
        let on_failure = self.steps(&child.on_failure, child, &inner);
        let always = self.steps(&child.always, child, &inner);
        self.depth -= 1;
        self.source = outer;
        Embedded {
            workflow: child.spec.name.value.clone(),
            digest: child.spec.digest.clone(),
            params,
            target: target.map(|target| inner.reduce(target.to_json())),
            lock: child.spec.lock.as_ref().map(|lock| text(&inner, &lock.value)),
            steps,
            on_failure,
            always,
            outputs: outputs(child),
        }
    }
}

/// A template of arguments; none are an empty map.
fn arguments(literals: &Literals, with: Option<&Node>) -> Value {
    literals.reduce(with.map_or_else(|| Value::Object(Map::new()), Node::to_json))
}

fn call_of(call: &CallSpec, literals: &Literals) -> ToolCall {
    ToolCall { tool: call.tool.value.clone(), with: arguments(literals, call.with.as_ref()) }
}

/// A template of a text.
fn text(literals: &Literals, text: &str) -> String {
    lock_text(&literals.reduce(Value::String(text.to_owned())))
}

fn outputs(workflow: &Workflow) -> BTreeMap<String, String> {
    let pairs = workflow.spec.outputs.iter();
    pairs.map(|(name, expression)| (name.value.clone(), expression.value.clone())).collect()
}

fn list<T: serde::Serialize>(items: impl Iterator<Item = T>) -> Value {
    // These types hold nothing that JSON cannot.
    items.map(|item| serde_json::to_value(item).unwrap_or_default()).collect()
}
