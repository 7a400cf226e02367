//! The expressions, templates and scripts of a plan, compiled once each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::kernel::Failure;
use crate::plan::PlanBody;
use crate::sop::{Evaluated, Expression, Reference, Sandbox, Scope, Script, ScriptError, Template};

/// The expressions, templates and scripts of a plan, compiled at first use.
pub(super) struct Programs {
    sandbox: Sandbox,
    expressions: Mutex<HashMap<String, Arc<Expression>>>,
    templates: Mutex<HashMap<String, Arc<Template>>>,
    scripts: Mutex<HashMap<String, Arc<Script>>>,
}

/// Gives the scope that an evaluation needs, from what it refers to.
pub(super) type ScopeOf<'a> = &'a dyn Fn(&[Reference]) -> Scope;

impl Programs {
    /// Nothing compiled yet.
    pub(super) fn new(sandbox: Sandbox) -> Self {
        Self {
            sandbox,
            expressions: Mutex::default(),
            templates: Mutex::default(),
            scripts: Mutex::default(),
        }
    }

    /// Evaluates an expression.
    pub(super) fn expression(&self, text: &str, scope: ScopeOf<'_>) -> Result<Evaluated, Failure> {
        let failed = |error: ScriptError| script_failure(&format!("`{text}`"), &error);
        let compiled =
            cached(&self.expressions, text, || self.sandbox.expression(text).map_err(failed))?;
        compiled.evaluate(&scope(compiled.references())).map_err(failed)
    }

    /// Evaluates a condition.
    pub(super) fn condition(
        &self,
        text: &str,
        scope: ScopeOf<'_>,
    ) -> Result<(bool, Evaluated), Failure> {
        let evaluated = self.expression(text, scope)?;
        let holds =
            evaluated.as_bool().map_err(|error| script_failure(&format!("`{text}`"), &error))?;
        Ok((holds, evaluated))
    }

    /// What an expression refers to; nothing when it does not parse.
    pub(super) fn references(&self, text: &str) -> Vec<Reference> {
        self.sandbox.expression(text).map(|known| known.references().to_vec()).unwrap_or_default()
    }

    /// Fills a template in.
    pub(super) fn template(&self, value: &Value, scope: ScopeOf<'_>) -> Result<Evaluated, Failure> {
        let key = value.to_string();
        let compiled = cached(&self.templates, &key, || {
            self.sandbox.template(value).map_err(|errors| {
                let first = errors.into_iter().next();
                first.map_or_else(
                    || Failure::permanent("expression::invalid", "a template does not parse"),
                    |error| {
                        script_failure(&format!("the argument at `{}`", error.path), &error.error)
                    },
                )
            })
        })?;
        let scope = scope(compiled.references());
        compiled.evaluate(&scope).map_err(|error| {
            script_failure(&format!("the argument at `{}`", error.path), &error.error)
        })
    }

    /// Runs a script of the plan.
    pub(super) fn script(
        &self,
        body: &PlanBody,
        path: &str,
        scope: &Scope,
    ) -> Result<Evaluated, Failure> {
        let variables: Vec<&str> = scope.keys().map(String::as_str).collect();
        let key = format!("{path} {variables:?}");
        let compiled = cached(&self.scripts, &key, || {
            let pinned = body.scripts.get(path).ok_or_else(|| {
                Failure::permanent("plan::missing_script", format!("the plan holds no `{path}`"))
            })?;
            self.sandbox
                .script(path, &pinned.text, &variables)
                .map_err(|error| script_failure(path, &error))
        })?;
        compiled.evaluate(scope).map_err(|error| script_failure(path, &error))
    }
}

fn cached<T>(
    cache: &Mutex<HashMap<String, Arc<T>>>,
    key: &str,
    compile: impl FnOnce() -> Result<T, Failure>,
) -> Result<Arc<T>, Failure> {
    if let Some(known) = cache.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Ok(Arc::clone(known));
    }
    let compiled = Arc::new(compile()?);
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    cache.insert(key.to_owned(), Arc::clone(&compiled));
    Ok(compiled)
}

/// A script's error as a failure: it says where and what.
fn script_failure(place: &str, error: &ScriptError) -> Failure {
    let text = format!("{place}, line {}, column {}: {}", error.line, error.column, error.message);
    let failure = Failure::permanent("expression::failed", text);
    match &error.help {
        Some(help) => failure.with_help(help.clone()),
        None => failure,
    }
}
