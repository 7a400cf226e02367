//! A compiled text and its evaluation: what expressions and scripts have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{AST, Dynamic, EvalAltResult, Scope as Variables};
use serde::Serialize;
use serde_json::Value;

use super::Scope;
use super::convert::{self, Shape};
use super::error::{Listed, ScriptError, a_kind, suggest};
use super::reference::{self, Found, Reference};
use super::sandbox::Engines;
use super::trace::{RuleTrace, Trace, record};
use crate::kernel::Seen;

/// Operations that any text may take, and further ones for each value that it looks at.
const BUDGET: u64 = 50_000;
const BUDGET_PER_VALUE: u64 = 100;

/// How deep a syntax tree may be.
const MAX_TREE: usize = 200;

/// Long texts are parsed, and texts with loops or functions evaluated, on a stack of their own. A short one cannot
/// be nested deeply; statements take more of the stack than expressions do.
const SMALL: usize = 1_000;
const SMALL_SCRIPT: usize = 200;
const STACK: usize = 128 << 20;

/// What came out of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluated {
    /// The result.
    pub value: Value,
    /// The variables and fields that the text refers to, with the values that it found there.
    /// Long values are described, secrets are left out.
    pub seen: Vec<Seen>,
    /// What it printed.
    pub printed: Vec<String>,
    /// The rules that it checked, in order.
    pub rules: Vec<RuleTrace>,
}

impl Evaluated {
    /// The result of a condition.
    pub fn as_bool(&self) -> Result<bool, ScriptError> {
        self.value.as_bool().ok_or_else(|| {
            let kind = match &self.value {
                Value::Null => "()",
                Value::Number(_) => "a number",
                Value::String(_) => "a text",
                Value::Array(_) => "a list",
                Value::Object(_) | Value::Bool(_) => "a map",
            };
            ScriptError::new(format!("a condition is true or false, and this one is {kind}"))
                .help("compare it, for example `x > 0` or `x != ()`")
        })
    }
}

/// What a text may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One expression.
    Expression,
    /// Statements and functions.
    Script,
}

impl Kind {
    const fn max_bytes(self) -> usize {
        match self {
            Self::Expression => 8 << 10,
            Self::Script => 64 << 10,
        }
    }

    /// Longer texts may be nested too deeply for any stack.
    const fn small(self) -> usize {
        match self {
            Self::Expression => SMALL,
            Self::Script => SMALL_SCRIPT,
        }
    }
}

/// A compiled text.
pub(super) struct Program {
    engines: Arc<Engines>,
    kind: Kind,
    text: String,
    known: Vec<String>,
    ast: AST,
    found: Vec<Found>,
    references: Vec<Reference>,
    shapes: BTreeMap<String, Shape>,
    own_stack: bool,
}

impl Program {
    pub(super) fn compile(
        engines: &Arc<Engines>,
        kind: Kind,
        text: &str,
        known: &[&str],
    ) -> Result<Self, ScriptError> {
        let limit = kind.max_bytes();
        if text.len() > limit {
            return Err(ScriptError::new(format!(
                "the text has {} bytes, and at most {limit} are allowed",
                text.len()
            )));
        }
        let ast = on_stack(text.len() > kind.small(), || parse(engines, kind, text, known))??;
        let found = reference::find(&ast, known);
        let mut references: Vec<Reference> = Vec::new();
        let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
        for Found { reference, .. } in &found {
            shapes.entry(reference.root.clone()).or_default().add(&reference.path);
            if !references.contains(reference) {
                references.push(reference.clone());
            }
        }
        Ok(Self {
            engines: Arc::clone(engines),
            kind,
            text: text.to_owned(),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
            own_stack: reference::is_heavy(&ast),
            ast,
            found,
            references,
            shapes,
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it was compiled as this kind of text, for these variables.
    pub(super) fn is_of(&self, kind: Kind, known: &[&str]) -> bool {
        self.kind == kind && self.known == known
    }

    pub(super) fn references(&self) -> &[Reference] {
        &self.references
    }

    pub(super) fn evaluate(&self, scope: &Scope) -> Result<Evaluated, ScriptError> {
        on_stack(self.own_stack, || self.evaluate_here(scope))?
    }

    fn evaluate_here(&self, scope: &Scope) -> Result<Evaluated, ScriptError> {
        let (mut variables, budget) = self.variables(scope)?;
        let run = || self.engines.engine.eval_ast_with_scope::<Dynamic>(&mut variables, &self.ast);
        let (result, trace) = record(budget, run);
        let value = result.map_err(|error| self.explain(&error, scope))?;
        let value = convert::to_json(value)?;
        let Trace { printed, rules, .. } = trace;
        Ok(Evaluated { value, seen: self.seen(scope), printed, rules })
    }

    /// The variables that the text refers to, and the operations that their size allows for.
    fn variables(&self, scope: &Scope) -> Result<(Variables<'static>, u64), ScriptError> {
        let mut variables = Variables::new();
        let mut nodes = 0;
        for (name, shape) in &self.shapes {
            if let Some(value) = scope.get(name) {
                let (value, size) = convert::variable(name, value, shape)?;
                variables.push_dynamic(name.as_str(), value);
                nodes += size;
            }
        }
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        Ok((variables, BUDGET.saturating_add(nodes.saturating_mul(BUDGET_PER_VALUE))))
    }

    fn seen(&self, scope: &Scope) -> Vec<Seen> {
        self.references
            .iter()
            .filter(|reference| reference.root != "secrets")
            .filter_map(|reference| {
                let value = convert::look_up(scope.get(&reference.root)?, &reference.path)?;
                Some(Seen { name: reference.to_string(), value })
            })
            .collect()
    }

    fn explain(&self, error: &EvalAltResult, scope: &Scope) -> ScriptError {
        let described = ScriptError::from_eval(error);
        match error.unwrap_inner() {
            EvalAltResult::ErrorPropertyNotFound(name, _) => self
                .explain_written(&described, name, scope)
                .or_else(|| self.explain_computed(&described, name, scope))
                .unwrap_or(described),
            EvalAltResult::ErrorVariableNotFound(name, _) if self.kind == Kind::Expression => {
                ScriptError { help: absent(name).map(str::to_owned), ..described }
            }
            _ => described,
        }
    }

    /// Explains a missing field whose whole path is written out.
    fn explain_written(
        &self,
        error: &ScriptError,
        name: &str,
        scope: &Scope,
    ) -> Option<ScriptError> {
        let place = (Some(error.line), Some(error.column));
        let (found, at) = self.found.iter().find_map(|found| {
            let at = found
                .positions
                .iter()
                .zip(&found.reference.path)
                .position(|(at, field)| (at.line(), at.position()) == place && field == name)?;
            Some((found, at))
        })?;
        let path = found.reference.path.get(..at)?.to_vec();
        let mut value = scope.get(&found.reference.root)?;
        for name in &path {
            value = match value {
                Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
                other => other.get(name)?,
            };
        }
        let keys: Vec<&str> = value.as_object()?.keys().map(String::as_str).collect();
        let owner = Reference { root: found.reference.root.clone(), path };
        let message = format!("`{owner}` has no field `{name}`");
        Some(with_keys(error, message, name, &keys))
    }

    /// Explains any other missing field: evaluates again, and notes what is missing on the way.
    fn explain_computed(
        &self,
        error: &ScriptError,
        name: &str,
        scope: &Scope,
    ) -> Option<ScriptError> {
        let (mut variables, budget) = self.variables(scope).ok()?;
        let engine = self.engines.explaining();
        let run = || engine.eval_ast_with_scope::<Dynamic>(&mut variables, &self.ast);
        let (_, Trace { missing, .. }) = record(budget, run);
        let (_, keys) = missing.into_iter().find(|(missing, _)| missing == name)?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        Some(with_keys(error, format!("there is no field `{name}`"), name, &keys))
    }

    /// The names that the text may use.
    pub(super) fn known(&self) -> &[String] {
        &self.known
    }
}

fn with_keys(error: &ScriptError, message: String, name: &str, keys: &[&str]) -> ScriptError {
    let there =
        if keys.is_empty() { "it is empty".to_owned() } else { format!("it has {}", Listed(keys)) };
    let help = match suggest(name, keys) {
        guess if guess.starts_with("did you mean") => format!("{guess} ({there})"),
        _ => there,
    };
    ScriptError { message, help: Some(help), ..error.clone() }
}

/// Why a known variable may have no value.
fn absent(name: &str) -> Option<&'static str> {
    Some(match name {
        "item" | "index" => "`item` and `index` exist in steps with `for_each` only",
        "event" => "`event` exists in runs that an event started, and where events are waited for",
        "result" => "`result` exists in `assert` and `until` only",
        "secrets" => "`secrets` may be named in arguments that a tool declares secret only",
        _ => return None,
    })
}

fn parse(engines: &Engines, kind: Kind, text: &str, known: &[&str]) -> Result<AST, ScriptError> {
    // Plain variables: constants would be folded into the tree.
    let mut variables = Variables::new();
    for name in known {
        variables.push(*name, ());
    }
    let ast = match kind {
        Kind::Expression => engines.engine.compile_expression_with_scope(&variables, text),
        Kind::Script => engines.engine.compile_with_scope(&variables, text),
    };
    let ast = ast.map_err(|error| ScriptError::from_parse(&error, known))?;
    if reference::depth(&ast) > MAX_TREE {
        return Err(ScriptError::new(format!("the text is nested more than {MAX_TREE} deep"))
            .help("split it up with `let`"));
    }
    if let Some((name, position)) = reference::unknown_function(&ast, &engines.functions) {
        return Err(ScriptError::unknown_function(&name, &engines.functions).at(position));
    }
    Ok(ast)
}

/// Runs work whose recursion follows the data on a stack that is large enough for it.
fn on_stack<T: Send>(own: bool, work: impl FnOnce() -> T + Send) -> Result<T, ScriptError> {
    if !own {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| {
            ScriptError::new(format!("there is no thread to evaluate it: {error}"))
        })?;
        thread.join().map_err(|_| {
            ScriptError::new(format!("the evaluation failed with {}", a_kind("panic")))
                .help("this is a defect of the language's library; please report the text")
        })
    })
}
