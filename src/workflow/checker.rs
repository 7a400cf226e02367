//! Checking expressions, and values with expressions in them, against names and types.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::diagnostic::Reporter;
use super::elements::Computed;
use super::locate;
use super::names::{BadName, Names};
use super::source::{Place, Spanned};
use super::tree::{Content, Node};
use super::types;
use super::{arguments, secrets};
use crate::sop::{Expression, Reference, Sandbox, Scope, ScriptError};

/// Checks what is written in one file and remembers what it refers to.
pub(super) struct Checker<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) reporter: &'a mut Reporter,
    /// The steps that the step at hand refers to, and where it does so first.
    pub(super) steps: BTreeMap<String, Place>,
    /// The secrets that are referred to.
    pub(super) secrets: BTreeSet<String>,
}

/// A text that holds expressions: its value and where it is written.
#[derive(Clone, Copy)]
struct Text<'t> {
    value: &'t str,
    place: Place,
    /// Where the expression begins in the value, in bytes.
    offset: usize,
}

impl<'a> Checker<'a> {
    /// Starts with nothing remembered.
    pub(super) const fn new(sandbox: &'a Sandbox, reporter: &'a mut Reporter) -> Self {
        Self { sandbox, reporter, steps: BTreeMap::new(), secrets: BTreeSet::new() }
    }

    /// Checks a bare expression. The compiled form and its type, when it is sound.
    pub(super) fn expression(
        &mut self,
        text: &Spanned<String>,
        names: &Names<'_>,
    ) -> Option<(Expression, Value)> {
        let at = Text { value: &text.value, place: text.place, offset: 0 };
        match self.sandbox.expression(&text.value) {
            Ok(expression) => {
                let schema = self.references(&expression, at, names);
                Some((expression, schema))
            }
            Err(error) => {
                self.broken(at, &error);
                None
            }
        }
    }

    /// Checks a condition. False when it can be seen now that it never holds.
    pub(super) fn condition(&mut self, text: &Spanned<String>, names: &Names<'_>) -> bool {
        let Some((expression, schema)) = self.expression(text, names) else { return true };
        if !types::may_be(&schema, &json!({ "type": "boolean" })) {
            let message =
                format!("a condition is true or false, this is {}", types::describe(&schema));
            let help = "compare it, for example `… > 0` or `… != ()`";
            self.reporter.hinted("workflow::type", text.place, message, help);
        }
        if !expression.references().is_empty() {
            return true;
        }
        // What depends on nothing is the same now and in every run.
        match expression.evaluate(&Scope::new()).and_then(|evaluated| evaluated.as_bool()) {
            Ok(holds) => holds,
            Err(error) => {
                self.broken(Text { value: &text.value, place: text.place, offset: 0 }, &error);
                true
            }
        }
    }

    /// Checks a text that may hold expressions.
    pub(super) fn text(&mut self, text: &Spanned<String>, names: &Names<'_>) -> Value {
        self.string(&text.value, text.place, names)
    }

    /// Checks a value against a type; `key` is what it stands under. The type that it has, as far as
    /// an expression tells it.
    pub(super) fn value(
        &mut self,
        node: &Node,
        key: &str,
        schema: &Value,
        names: &Names<'_>,
    ) -> Value {
        match &node.content {
            Content::Scalar(scalar) if scalar.text.contains("${{") => {
                let given = self.string(&scalar.text, node.place, names);
                if !types::may_be(&given, schema) {
                    self.mistyped(&given, node.place, (key, schema));
                }
                return given;
            }
            Content::Scalar(scalar) => {
                self.conceal_secret(&scalar.text, key, node);
                arguments::check_scalar(scalar, node.place, key, schema, self.reporter);
            }
            Content::List(items) => {
                if arguments::check_kind(node, key, schema, self.reporter) {
                    let inner = arguments::item_schema(schema);
                    for item in items {
                        self.value(item, key, &inner, names);
                    }
                }
            }
            Content::Map(entries) => {
                if arguments::check_kind(node, key, schema, self.reporter) {
                    arguments::check_keys(node, key, schema, self.reporter);
                    for entry in entries {
                        let inner = arguments::field_schema(schema, &entry.key);
                        self.value(&entry.value, &entry.key, &inner, names);
                    }
                }
            }
        }
        types::anything()
    }

    /// Checks the settings that follow from the parameters.
    pub(super) fn settings<'c>(
        &mut self,
        settings: impl IntoIterator<Item = &'c Computed>,
        names: &Names<'_>,
    ) {
        let names = Names { before_run: true, ..names.clone() };
        for setting in settings {
            self.value(&setting.template, setting.key, &setting.schema(), &names);
        }
    }

    fn mistyped(&mut self, given: &Value, place: Place, (key, schema): (&str, &Value)) {
        let (given, wanted) = (types::describe(given), types::describe(schema));
        let message = format!("`{key}` takes {wanted}, this expression gives {given}");
        if wanted.contains("text") {
            let help = "to make text of it, add `.to_string()` to the expression";
            self.reporter.hinted("workflow::type", place, message, help);
        } else {
            self.reporter.error("workflow::type", place, message);
        }
    }

    /// Reports a literal that looks like a secret.
    fn conceal_secret(&mut self, text: &str, key: &str, node: &Node) {
        let is_text = node.scalar().is_some_and(|scalar| scalar.to_json().is_string());
        let named = secrets::is_secret_key(key) && secrets::is_worth_hiding(text);
        if is_text && (named || secrets::is_secret(text)) {
            self.secret_in_clear(text, key, node.place);
        }
    }

    /// Reports a secret that is written in clear, and keeps it out of all reports.
    pub(super) fn secret_in_clear(&mut self, text: &str, key: &str, place: Place) {
        self.reporter.conceal(text);
        self.reporter.hinted(
            "workflow::secret_in_clear",
            place,
            format!("`{key}` seems to hold a secret in clear"),
            "keep it in the environment or in a file, and write `\"${{ secrets.NAME }}\"`",
        );
    }

    /// Checks the expressions of a string. The type of its value.
    fn string(&mut self, value: &str, place: Place, names: &Names<'_>) -> Value {
        let template = match self.sandbox.template(&Value::String(value.to_owned())) {
            Ok(template) => template,
            Err(errors) => {
                for found in errors {
                    self.broken(Text { value, place, offset: found.offset }, &found.error);
                }
                return types::anything();
            }
        };
        if let Some(expression) = template.expression() {
            let offset = value.find(expression.text()).unwrap_or(0);
            let expression = expression.clone();
            return self.references(&expression, Text { value, place, offset }, names);
        }
        for reference in template.references() {
            self.reference(reference, Text { value, place, offset: 0 }, names);
        }
        json!({ "type": "string" })
    }

    /// Checks the names of an expression. The expression's type, when it is just one name.
    fn references(&mut self, expression: &Expression, at: Text<'_>, names: &Names<'_>) -> Value {
        let mut schema = types::anything();
        for reference in expression.references() {
            let found = self.reference(reference, at, names);
            if expression.text().trim() == reference.to_string() {
                schema = found;
            }
        }
        schema
    }

    fn reference(&mut self, reference: &Reference, at: Text<'_>, names: &Names<'_>) -> Value {
        match (reference.root.as_str(), reference.path.first()) {
            ("steps", Some(step)) => {
                let place = locate_reference(self.reporter, reference, at, 0);
                self.steps.entry(step.clone()).or_insert(place);
            }
            ("secrets", Some(secret)) => {
                self.secrets.insert(secret.clone());
            }
            _ => {}
        }
        names.resolve(reference).unwrap_or_else(|bad| {
            self.bad_name(&bad, reference, at);
            types::anything()
        })
    }

    fn bad_name(&mut self, bad: &BadName, reference: &Reference, at: Text<'_>) {
        let place = locate_reference(self.reporter, reference, at, bad.depth);
        match &bad.help {
            Some(help) => self.reporter.hinted(bad.code, place, &bad.message, help),
            None => self.reporter.error(bad.code, place, &bad.message),
        }
    }

    fn broken(&mut self, at: Text<'_>, error: &ScriptError) {
        let nth = nth_char(at, error.line, error.column);
        let place = locate::in_value(self.reporter.source(), at.place, at.value, nth);
        let message = format!("this expression does not work: {}", error.message);
        match &error.help {
            Some(help) => self.reporter.hinted("workflow::expression", place, message, help),
            None => self.reporter.error("workflow::expression", place, message),
        }
    }
}

/// The character of a value that a line and a column of an expression in it stand for.
fn nth_char(at: Text<'_>, line: usize, column: usize) -> usize {
    let before = at.value.get(..at.offset).unwrap_or("").chars().count();
    let rest = at.value.get(at.offset..).unwrap_or("");
    let lines = rest.split_inclusive('\n').take(line.saturating_sub(1));
    before + lines.map(|line| line.chars().count()).sum::<usize>() + column.saturating_sub(1)
}

/// Where the first `depth` parts of a reference's path end.
fn locate_reference(
    reporter: &Reporter,
    reference: &Reference,
    at: Text<'_>,
    depth: usize,
) -> Place {
    let mut offset = at.offset;
    let names = std::iter::once(&reference.root).chain(reference.path.iter().take(depth));
    let mut length = 1;
    for (number, name) in names.enumerate() {
        // The first part that is followed by the right second one, where that can be told.
        let joined = reference.path.first().map(|next| format!("{name}.{next}"));
        let rest = at.value.get(offset..).unwrap_or("");
        let found = joined.filter(|_| number == 0).and_then(|joined| rest.find(&joined));
        offset += found.or_else(|| rest.find(name.as_str())).unwrap_or(0);
        length = name.chars().count();
        if number < depth {
            offset += name.len();
        }
    }
    let nth = at.value.get(..offset).unwrap_or("").chars().count();
    let mut place = locate::in_value(reporter.source(), at.place, at.value, nth);
    if place.start.line == place.end.line {
        let end = place.start.offset + length;
        place.end = reporter.source().position(end.min(at.place.end.offset).max(place.end.offset));
    }
    place
}
