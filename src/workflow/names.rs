//! The names that an expression may use, and what is known of their values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::types::{self, Found};
use crate::sop::Reference;

/// The names in reach of one expression.
#[derive(Clone, Debug)]
pub(super) struct Names<'a> {
    /// The types of the parameters.
    pub(super) params: &'a BTreeMap<String, Value>,
    /// The types of the outputs of the steps in reach.
    pub(super) steps: &'a BTreeMap<String, Value>,
    /// The step that the expression belongs to, unless its own output is in reach.
    pub(super) own: Option<&'a str>,
    /// The type of `item`, inside a fan-out.
    pub(super) item: Option<Value>,
    /// The type of `result`, in assertions and the like.
    pub(super) result: Option<Value>,
    /// Whether only that may be used which is known when the plan is made: the parameters.
    pub(super) before_run: bool,
    /// Whether `secrets` may be used.
    pub(super) secrets: bool,
    /// Whether `steps` as a whole may be used.
    pub(super) whole_steps: bool,
    /// Names of which nothing is known, because they could not be read; `None`: any may be one.
    pub(super) lost: Option<&'a std::collections::BTreeSet<String>>,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BadName {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// How many parts of the path lead up to the mistake.
    pub(super) depth: usize,
}

impl BadName {
    fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: Some(help.into()), depth: 0 }
    }
}

/// What `steps.X` says of a step that was skipped or failed, instead of its output.
const STATES: &[&str] = &["skipped", "failed", "error"];

const BEFORE_RUN: &str = "durations and limits follow from `params` alone";
const FOR_EACH: &str = "add `for_each: { in: …, key: … }` to the step";
const SECRETS: &str =
    "a secret goes into an argument that its tool declares secret, as `\"${{ secrets.NAME }}\"`";

impl Names<'_> {
    /// The type that a reference has, as far as it is known.
    pub(super) fn resolve(&self, reference: &Reference) -> Result<Value, BadName> {
        let Reference { root, path } = reference;
        if self.before_run && root != "params" {
            let message = format!("`{root}` is not known when the plan is made");
            return Err(BadName::new("workflow::unknown_name", message, BEFORE_RUN));
        }
        match root.as_str() {
            "params" => self.field("parameter", self.params, path),
            "steps" => self.step(path),
            "target" => {
                let text = || serde_json::json!({ "type": "string" });
                let names = ["project", "branch", "database"].map(|name| (name.to_owned(), text()));
                self.field("part of the target", &names.into(), path)
            }
            "item" => match &self.item {
                Some(schema) => follow(schema, path, "item"),
                None => Err(outside("item", "in a step with `for_each`", FOR_EACH)),
            },
            "index" if self.item.is_none() => {
                Err(outside("index", "in a step with `for_each`", FOR_EACH))
            }
            "result" => match &self.result {
                Some(schema) => follow(schema, path, "result"),
                None => Err(outside(
                    "result",
                    "in `until` and `assert`",
                    "another step's output is `steps.<id>`",
                )),
            },
            "secrets" if !self.secrets => {
                Err(BadName::new("workflow::secret", "no secret may be used here", SECRETS))
            }
            "secrets" if path.is_empty() => {
                Err(BadName::new("workflow::secret", "this names no secret", SECRETS))
            }
            _ => Ok(types::anything()),
        }
    }

    fn step(&self, path: &[String]) -> Result<Value, BadName> {
        let Some((id, rest)) = path.split_first() else {
            if self.whole_steps {
                return Ok(types::anything());
            }
            return Err(BadName::new(
                "workflow::unknown_step",
                "`steps` alone does not say which step",
                "write `steps.<id>`, so that the order is known",
            ));
        };
        if self.own == Some(id) {
            return Err(BadName {
                depth: 1,
                ..BadName::new(
                    "workflow::cycle",
                    format!("step `{id}` uses its own output"),
                    "its output is known only when it has run",
                )
            });
        }
        match self.steps.get(id) {
            Some(_) if rest.first().is_some_and(|name| STATES.contains(&name.as_str())) => {
                Ok(types::anything())
            }
            Some(schema) => follow(schema, rest, &format!("steps.{id}"))
                .map_err(|bad| BadName { depth: bad.depth + 1, ..bad }),
            None => self.field("step", self.steps, path),
        }
    }

    fn field(
        &self,
        what: &str,
        known: &BTreeMap<String, Value>,
        path: &[String],
    ) -> Result<Value, BadName> {
        let Some((name, rest)) = path.split_first() else { return Ok(types::anything()) };
        if let Some(schema) = known.get(name) {
            return follow(schema, rest, name)
                .map_err(|bad| BadName { depth: bad.depth + 1, ..bad });
        }
        if self.lost.is_none_or(|lost| lost.contains(name) || lost.contains("")) {
            return Ok(types::anything());
        }
        let code = if what == "step" { "workflow::unknown_step" } else { "workflow::unknown_name" };
        Err(BadName {
            code,
            message: format!("unknown {what} `{}`", super::diagnostic::shorten(name)),
            help: super::suggest::help(name, known.keys().map(String::as_str)),
            depth: 1,
        })
    }
}

fn outside(name: &str, place: &str, help: &str) -> BadName {
    BadName::new("workflow::unknown_name", format!("`{name}` is known only {place}"), help)
}

fn follow(schema: &Value, path: &[String], of: &str) -> Result<Value, BadName> {
    match types::follow(schema, path) {
        Found::Unknown => Ok(types::anything()),
        Found::Type(schema) => Ok(schema),
        Found::Missing { depth, known } => {
            let name = path.get(depth).map_or("", String::as_str);
            let parts: Vec<&str> =
                std::iter::once(of).chain(path.iter().take(depth).map(String::as_str)).collect();
            Err(BadName {
                code: "workflow::unknown_field",
                message: format!("`{}` has no field `{name}`", parts.join(".")),
                help: super::suggest::help(name, known.iter().map(String::as_str)),
                depth: depth + 1,
            })
        }
    }
}
