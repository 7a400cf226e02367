//! Evaluating, at plan time, what depends on nothing but parameters and target.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::sop::{Reference, Sandbox, Scope};

/// What is known before a run.
#[derive(Clone, Debug)]
pub(super) struct Literals {
    sandbox: Sandbox,
    scope: Scope,
    /// Parameters whose values are known only while the run works.
    open: BTreeSet<String>,
}

impl Literals {
    /// Nothing is known.
    pub(super) fn new(sandbox: &Sandbox) -> Self {
        Self { sandbox: sandbox.clone(), scope: Scope::new(), open: BTreeSet::new() }
    }

    /// This is known too.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.scope.insert(name.to_owned(), value);
        self
    }

    /// These parameters of an embedded workflow are known too, as far as they are settled.
    pub(super) fn with_params(mut self, params: &Map<String, Value>) -> Self {
        let open = params.iter().filter(|(_, value)| !is_settled(value));
        self.open = open.map(|(name, _)| name.clone()).collect();
        self.with("params", Value::Object(params.clone()))
    }

    fn knows(&self, reference: &Reference) -> bool {
        let is_open = || match reference.path.first() {
            Some(name) => self.open.contains(name),
            None => !self.open.is_empty(),
        };
        self.scope.contains_key(&reference.root) && !(reference.root == "params" && is_open())
    }

    /// A value with all its expressions evaluated, or what is wrong with them.
    pub(super) fn settle(&self, value: &Value) -> Result<Value, String> {
        let template = self.sandbox.template(value).map_err(|errors| {
            errors.first().map(|found| found.error.message.clone()).unwrap_or_default()
        })?;
        if let Some(open) = template.references().iter().find(|reference| !self.knows(reference)) {
            return Err(format!("`{open}` is known only while the run works"));
        }
        let evaluated = template.evaluate(&self.scope).map_err(|found| found.error.message)?;
        Ok(evaluated.value)
    }

    /// A value with those expressions evaluated that depend on known values only.
    ///
    /// What cannot be evaluated stays: it may stand in a step that never runs. What would bring a text
    /// with `${{` into the plan stays as well: a given value must never become an expression.
    pub(super) fn reduce(&self, value: Value) -> Value {
        match value {
            Value::String(text) if text.contains("${{") => self.reduce_text(text),
            Value::Array(items) => items.into_iter().map(|item| self.reduce(item)).collect(),
            Value::Object(fields) => {
                let reduced = fields.into_iter().map(|(key, field)| (key, self.reduce(field)));
                Value::Object(reduced.collect())
            }
            other => other,
        }
    }

    fn reduce_text(&self, text: String) -> Value {
        let text = Value::String(text);
        let Ok(template) = self.sandbox.template(&text) else { return text };
        if template.literal().is_some() || !template.references().iter().all(|one| self.knows(one))
        {
            return text;
        }
        match template.evaluate(&self.scope) {
            Ok(evaluated) if is_settled(&evaluated.value) => evaluated.value,
            _ => text,
        }
    }
}

/// Whether a value has no text that could be taken for an expression.
pub(super) fn is_settled(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("${{"),
        Value::Array(items) => items.iter().all(is_settled),
        Value::Object(fields) => fields.values().all(is_settled),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn literals() -> Literals {
        let params =
            json!({ "limit": 3, "name": "x", "trap": "${{ secrets.TOKEN }}", "none": null });
        Literals::new(&Sandbox::new()).with("params", params)
    }

    #[test]
    fn known_values_are_put_in() {
        let value = json!({
            "limit": "${{ params.limit }}",
            "text": "at ${{ params.name }}!",
            "later": ["${{ steps.a.x + params.limit }}"],
            "constant": "${{ 1 + 1 }}",
            "escaped": "$${{ literally }}",
        });
        let expected = json!({
            "limit": 3,
            "text": "at x!",
            "later": ["${{ steps.a.x + params.limit }}"],
            "constant": 2,
            "escaped": "$${{ literally }}",
        });
        assert_eq!(literals().reduce(value), expected);
    }

    #[test]
    fn a_given_value_never_becomes_an_expression() {
        for text in ["${{ params.trap }}", "-- ${{ params.trap }}", "${{ params }}"] {
            assert_eq!(literals().reduce(json!(text)), json!(text));
        }
        let settled = literals().settle(&json!("${{ params.trap }}"));
        assert_eq!(settled.unwrap(), json!("${{ secrets.TOKEN }}"));
    }

    #[test]
    fn what_fails_now_may_never_run() {
        assert_eq!(
            literals().reduce(json!("${{ params.none.len() }}")),
            json!("${{ params.none.len() }}")
        );
        assert!(literals().settle(&json!("${{ params.nowhere }}")).is_err());
    }
}
