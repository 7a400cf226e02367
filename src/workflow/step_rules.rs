//! Checking the expressions and arguments of one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::checker::Checker;
use super::diagnostic::Reporter;
use super::elements::{CallSpec, ParamSpec, ParamType, StepKind, StepSpec, WaitSpec};
use super::names::Names;
use super::resolve::{Session, ToolTypes};
use super::resolved::Action;
use super::source::Place;
use super::tree::{Content, Node};
use super::{actions, fields, types};
use crate::tools::AnyTool;

/// What a step's expressions say about it.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// The steps that it refers to, and where it does so first.
    pub(super) steps: BTreeMap<String, Place>,
    /// The secrets that it refers to.
    pub(super) secrets: BTreeSet<String>,
    /// Whether it can be seen now that its condition never holds.
    pub(super) never: bool,
}

/// A step that is checked, with what is known around it.
pub(super) struct StepRules<'s, 'r> {
    pub(super) session: &'s mut Session<'r>,
    pub(super) step: &'s StepSpec,
    pub(super) names: Names<'s>,
}

impl StepRules<'_, '_> {
    /// Checks all expressions of the step.
    pub(super) fn check(mut self, action: Option<&Action>, reporter: &mut Reporter) -> Uses {
        let sandbox = self.session.sandbox();
        let mut checker = Checker::new(sandbox, reporter);
        let mut uses = Uses::default();
        if let Some(when) = &self.step.when {
            uses.never = !checker.condition(when, &self.names);
        }
        self.fan_out(&mut checker);
        if let Some(target) = &self.step.target {
            check_target(&mut checker, target, &self.names);
        }
        if let Some(lock) = &self.step.lock {
            checker.text(lock, &self.names);
        }
        match action {
            Some(action) => self.arguments(action, &mut checker),
            None => self.unchecked_arguments(&mut checker),
        }
        self.by_kind(&mut checker);
        checker.settings(self.step.computed(), &self.names);
        let compensate = self.step.compensate.as_ref();
        if let Some(compensate) = compensate.filter(|_| action.is_some_and(Action::is_write)) {
            self.compensation(compensate, &mut checker);
        }
        uses.steps = checker.steps;
        uses.secrets = checker.secrets;
        uses
    }

    /// Checks `for_each`; from here on `item` is known.
    fn fan_out(&mut self, checker: &mut Checker<'_>) {
        let Some(for_each) = &self.step.for_each else { return };
        let list = json!({ "type": "array" });
        let given = checker.value(&for_each.items, "in", &list, &self.names);
        self.names.item = Some(super::arguments::item_schema(&given));
        checker.text(&for_each.key, &self.names);
    }

    fn arguments(&mut self, action: &Action, checker: &mut Checker<'_>) {
        let with = self.step.with.as_ref();
        match (action, &self.step.kind) {
            (Action::Tool(tool), StepKind::Tool(name)) => {
                check_call(self.session, *tool, (with, name.place), checker, &self.names);
            }
            (Action::Workflow(child), StepKind::Tool(name) | StepKind::Workflow(name)) => {
                let params = &child.spec.params;
                check_params(params, &name.value, (with, name.place), checker, &self.names);
            }
            (Action::Script { .. }, _) => self.script_arguments(checker),
            (Action::Sql { binds, .. }, _) => {
                for bind in binds {
                    checker.value(bind, "with", &types::anything(), &self.names);
                }
            }
            _ => {}
        }
    }

    fn script_arguments(&self, checker: &mut Checker<'_>) {
        let Some(with) = &self.step.with else { return };
        for entry in fields::map(with, "what the script sees", checker.reporter) {
            fields::check_identifier(&entry.key, entry.place, checker.reporter);
            checker.value(&entry.value, &entry.key, &types::anything(), &self.names);
        }
    }

    /// Checks the expressions of arguments whose tool is not known.
    fn unchecked_arguments(&self, checker: &mut Checker<'_>) {
        let names = Names { secrets: true, ..self.names.clone() };
        if let Some(with) = &self.step.with {
            checker.value(with, "with", &types::anything(), &names);
        }
    }

    fn by_kind(&mut self, checker: &mut Checker<'_>) {
        match &self.step.kind {
            StepKind::Approval(gate) => {
                checker.text(&gate.prompt, &self.names);
                for shown in &gate.show {
                    checker.expression(shown, &self.names);
                }
            }
            StepKind::Wait(WaitSpec::Timer { duration }) => {
                let span = json!({ "type": "string", "format": "duration" });
                checker.value(duration, "for", &span, &self.names);
            }
            StepKind::Wait(WaitSpec::Event { when, .. }) => {
                if let Some(when) = when {
                    checker.condition(when, &self.names);
                }
            }
            StepKind::Wait(WaitSpec::Condition { call, until, .. }) => {
                let names = self.look(call, checker);
                checker.condition(until, &names);
            }
            StepKind::Verify(verify) => {
                let names = self.look(&verify.call, checker);
                for assertion in &verify.assert {
                    checker.condition(assertion, &names);
                }
            }
            StepKind::Tool(_) | StepKind::Script(_) | StepKind::Sql(_) | StepKind::Workflow(_) => {}
        }
    }

    /// Checks the call of a wait or a verification. The names that its expressions may use.
    fn look(&mut self, call: &CallSpec, checker: &mut Checker<'_>) -> Names<'_> {
        let mut result = types::anything();
        // An unknown or unfit tool is reported where the action is found.
        let tool = self.session.resolver.catalog.find(&call.tool.value);
        if let Some(tool) = tool.filter(|tool| !tool.is_write()) {
            let with = (call.with.as_ref(), call.tool.place);
            result = check_call(self.session, tool, with, checker, &self.names).output.clone();
        }
        Names { result: Some(result), ..self.names.clone() }
    }

    fn compensation(&mut self, call: &CallSpec, checker: &mut Checker<'_>) {
        let Some(tool) = actions::find_tool(self.session, &call.tool, checker.reporter) else {
            return;
        };
        if !tool.is_write() {
            let message = format!("`{}` only looks, and undoes nothing", call.tool.value);
            let help = "name a tool that changes something";
            checker.reporter.hinted("workflow::read_tool", call.tool.place, message, help);
            return;
        }
        let names = Names { own: None, ..self.names.clone() };
        check_call(self.session, tool, (call.with.as_ref(), call.tool.place), checker, &names);
        checker.steps.remove(&self.step.id.value);
    }
}

/// Checks a target: a map of three texts, or one expression.
pub(super) fn check_target(checker: &mut Checker<'_>, target: &Node, names: &Names<'_>) {
    let text = || json!({ "type": ["string", "null"] });
    let mut schema = types::object(["project", "branch", "database"].map(|name| (name, text())));
    schema["additionalProperties"] = Value::Bool(false);
    if target.scalar().is_some() && !fields::has_expression(target) {
        let help = "write `{ project: …, branch: …, database: … }`";
        checker.reporter.hinted("workflow::type", target.place, "a target is a map", help);
        return;
    }
    checker.value(target, "target", &schema, names);
}

/// Checks the arguments of a tool.
fn check_call(
    session: &mut Session<'_>,
    tool: AnyTool,
    (with, place): (Option<&Node>, Place),
    checker: &mut Checker<'_>,
    names: &Names<'_>,
) -> Arc<ToolTypes> {
    let types = session.types_of(tool);
    let meta = tool.meta();
    let before = checker.reporter.count();
    let empty = Node { content: Content::Map(Vec::new()), place };
    let with = with.unwrap_or(&empty);
    let Content::Map(entries) = &with.content else {
        checker.value(with, "with", &json!({ "type": "object" }), names);
        return types;
    };
    super::arguments::check_keys(with, meta.name, &types.params, checker.reporter);
    for entry in entries {
        let takes_secrets = meta.secrets.contains(&entry.key.as_str());
        let names = Names { secrets: takes_secrets, ..names.clone() };
        if takes_secrets {
            refuse_clear_secret(&entry.value, &entry.key, checker);
        }
        let schema = super::arguments::field_schema(&types.params, &entry.key);
        checker.value(&entry.value, &entry.key, &schema, &names);
    }
    let is_literal = !has_expressions(with);
    if is_literal && checker.reporter.count() == before {
        // What the schema cannot say, the tool itself does.
        if let Err(failure) = tool.erased().check_params(&with.to_json()) {
            let help = failure.help.unwrap_or_default();
            checker.reporter.hinted("workflow::argument", with.place, failure.message, help);
        }
    }
    types
}

/// In an argument that is made for secrets, a single word is one.
fn refuse_clear_secret(node: &Node, key: &str, checker: &mut Checker<'_>) {
    let Some(scalar) = node.scalar() else { return };
    let is_word = scalar.text.len() >= crate::kernel::secret::SHORTEST_SECRET
        && !scalar.text.contains(char::is_whitespace)
        && !scalar.text.contains("${{");
    if is_word && scalar.to_json().is_string() {
        checker.secret_in_clear(&scalar.text, key, node.place);
    }
}

fn has_expressions(node: &Node) -> bool {
    match &node.content {
        Content::Scalar(scalar) => scalar.text.contains("${{"),
        Content::List(items) => items.iter().any(has_expressions),
        Content::Map(entries) => entries.iter().any(|entry| has_expressions(&entry.value)),
    }
}

/// Checks what an embedded workflow is given.
fn check_params(
    params: &[ParamSpec],
    child: &str,
    (with, place): (Option<&Node>, Place),
    checker: &mut Checker<'_>,
    names: &Names<'_>,
) {
    let empty = Node { content: Content::Map(Vec::new()), place };
    let with = with.unwrap_or(&empty);
    let schema = params_schema(params);
    super::arguments::check_keys(with, child, &schema, checker.reporter);
    for entry in fields::map(with, "the parameters", checker.reporter) {
        let before = checker.reporter.count();
        let known = super::arguments::field_schema(&schema, &entry.key);
        checker.value(&entry.value, &entry.key, &known, names);
        let param = params.iter().find(|param| param.name.value == entry.key);
        let Some(param) = param.filter(|_| checker.reporter.count() == before) else { continue };
        if !has_expressions(&entry.value)
            && let Err(unfit) = param.check(&entry.value.to_json())
        {
            checker.reporter.hinted(
                "workflow::argument",
                entry.value.place,
                unfit.message,
                unfit.help,
            );
        }
    }
}

/// The type of a parameter.
pub(super) fn param_schema(param: &ParamSpec) -> Value {
    let mut schema = match param.kind {
        ParamType::String => json!({ "type": "string" }),
        ParamType::Integer => json!({ "type": "integer" }),
        ParamType::Number => json!({ "type": "number" }),
        ParamType::Boolean => json!({ "type": "boolean" }),
        ParamType::Duration => json!({ "type": "string", "format": "duration" }),
        ParamType::Size => json!({ "type": "string", "format": "size" }),
        ParamType::List => json!({ "type": "array" }),
        ParamType::Object => json!({ "type": "object" }),
        ParamType::Choice => json!({}),
    };
    if !param.choices.is_empty() {
        schema["enum"] = param.choices.clone().into();
    }
    if let Some(default) = &param.default {
        schema["default"] = default.clone();
    }
    if !param.description.is_empty() {
        schema["description"] = param.description.clone().into();
    }
    schema
}

/// The type of what a workflow is given.
pub(super) fn params_schema(params: &[ParamSpec]) -> Value {
    let fields = params.iter().map(|param| (param.name.value.as_str(), param_schema(param)));
    let mut schema = types::object(fields);
    let required = params.iter().filter(|param| param.required && param.default.is_none());
    schema["required"] = required.map(|param| param.name.value.clone()).collect();
    schema["additionalProperties"] = Value::Bool(false);
    schema
}
