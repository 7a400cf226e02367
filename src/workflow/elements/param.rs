//! `params`: what a workflow is given, typed and checked.

use serde_json::Value;

use crate::kernel::{ByteSize, Span};
use crate::workflow::diagnostic::{Reporter, shorten};
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::suggest;
use crate::workflow::tree::{Entry, Node};

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Its name.
    pub name: Spanned<String>,
    /// Its type.
    pub kind: ParamType,
    /// What it is when nothing is given.
    pub default: Option<Value>,
    /// Whether something must be given.
    pub required: bool,
    /// The least value.
    pub min: Option<Value>,
    /// The greatest value.
    pub max: Option<Value>,
    /// The values to choose from; empty: any.
    pub choices: Vec<Value>,
    /// What it is for.
    pub description: String,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A duration with its unit, as text.
    Duration,
    /// A size with its unit, as text.
    Size,
    /// A list.
    List,
    /// A map.
    Object,
    /// One of `choices`.
    Choice,
}

const TYPES: &[(&str, ParamType)] = &[
    ("string", ParamType::String),
    ("integer", ParamType::Integer),
    ("int", ParamType::Integer),
    ("number", ParamType::Number),
    ("boolean", ParamType::Boolean),
    ("duration", ParamType::Duration),
    ("size", ParamType::Size),
    ("list", ParamType::List),
    ("object", ParamType::Object),
    ("choice", ParamType::Choice),
];

const KEYS: &[&str] = &["type", "default", "required", "min", "max", "choices", "description"];

/// A value that a parameter does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What is wrong.
    pub message: String,
    /// What to give instead.
    pub help: String,
}

impl Unfit {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl ParamType {
    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::List => "list",
            Self::Object => "object",
            Self::Choice => "choice",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::String | Self::Choice => "give a text",
            Self::Integer => "give a whole number",
            Self::Number => "give a number",
            Self::Boolean => "give `true` or `false`",
            Self::Duration => "give a number and a unit, for example `90s`, `15m` or `2d`",
            Self::Size => "give a number and a unit, for example `512kB` or `10GiB`",
            Self::List => "give a list, for example `[\"a\", \"b\"]`",
            Self::Object => "give a map, for example `{\"a\": 1}`",
        }
    }

    /// Whether values have an order, so that `min` and `max` make sense.
    const fn is_ordered(self) -> bool {
        matches!(self, Self::Integer | Self::Number | Self::Duration | Self::Size)
    }

    fn accepts(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Duration => value.as_str().is_some_and(|text| Span::parse(text).is_ok()),
            Self::Size => value.as_str().is_some_and(|text| ByteSize::parse(text).is_ok()),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
            Self::Choice => true,
        }
    }

    /// A value's place in the order of the type.
    fn rank(self, value: &Value) -> Option<f64> {
        let text = value.as_str();
        match self {
            Self::Duration => Some(Span::parse(text?).ok()?.0.as_secs_f64()),
            #[expect(clippy::cast_precision_loss, reason = "sizes are compared, not kept")]
            Self::Size => Some(ByteSize::parse(text?).ok()?.0 as f64),
            _ => value.as_f64(),
        }
    }

    /// Reads what was typed on a command line.
    fn read(self, text: &str) -> Option<Value> {
        let json = || serde_json::from_str::<Value>(text).ok();
        match self {
            Self::String | Self::Duration | Self::Size | Self::Choice => {
                Some(Value::String(text.to_owned()))
            }
            Self::Integer => text.trim().parse::<i64>().ok().map(Value::from),
            Self::Number | Self::Boolean | Self::Object => json(),
            Self::List => Some(json().filter(Value::is_array).unwrap_or_else(|| {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| Value::String(item.to_owned())).collect()
            })),
        }
    }
}

impl ParamSpec {
    pub(in crate::workflow) fn parse(entry: &Entry, reporter: &mut Reporter) -> Option<Self> {
        if !fields::check_identifier(&entry.key, entry.place, reporter) {
            return None;
        }
        let map = Fields::open(&entry.value, "a parameter", KEYS, reporter)?;
        let names = TYPES.iter().map(|(name, _)| *name).filter(|name| *name != "int");
        let help = format!("write one of {}", suggest::join(&names.collect::<Vec<_>>()));
        let kind = map.require("type", &help, reporter)?;
        let kind = fields::choice(kind, "type", TYPES, reporter)?.value;
        let description = map.get("description").and_then(|node| fields::text(node, reporter));
        let required = map.get("required").and_then(|node| fields::boolean(node, reporter));
        let mut spec = Self {
            name: Spanned::new(entry.key.clone(), entry.place),
            kind,
            default: None,
            required: required.as_ref().map_or(map.get("default").is_none(), |found| found.value),
            min: None,
            max: None,
            choices: Vec::new(),
            description: description.map(|found| found.value).unwrap_or_default(),
        };
        spec.read_choices(&map, reporter);
        spec.read_bounds(&map, reporter);
        if let Some(node) = map.get("default") {
            spec.read_default(node, required.is_some_and(|found| found.value), reporter);
        }
        Some(spec)
    }

    fn read_choices(&mut self, map: &Fields<'_>, reporter: &mut Reporter) {
        let Some(node) = map.get("choices") else {
            if self.kind == ParamType::Choice {
                let help = "add for example `choices: [small, large]`";
                map.require("choices", help, reporter);
            }
            return;
        };
        for item in fields::list(node, "the choices", reporter) {
            let value = item.to_json();
            if self.kind.accepts(&value) {
                self.choices.push(value);
            } else {
                self.mistyped(item, "this choice", reporter);
            }
        }
        if self.choices.is_empty() {
            reporter.hinted("workflow::value", node.place, "there is no choice", "add a value");
        }
    }

    fn read_bounds(&mut self, map: &Fields<'_>, reporter: &mut Reporter) {
        for key in ["min", "max"] {
            let Some(node) = map.get(key) else { continue };
            let value = node.to_json();
            if !self.kind.is_ordered() {
                let message = format!("`{key}` means nothing for type `{}`", self.kind.as_str());
                reporter.hinted("workflow::value", node.place, message, "leave it out");
            } else if !self.kind.accepts(&value) {
                self.mistyped(node, "this bound", reporter);
            } else if key == "min" {
                self.min = Some(value);
            } else {
                self.max = Some(value);
            }
        }
        let rank = |bound: &Option<Value>| bound.as_ref().and_then(|value| self.kind.rank(value));
        if let (Some(min), Some(max), Some(node)) =
            (rank(&self.min), rank(&self.max), map.get("max"))
            && min > max
        {
            let help = "swap `min` and `max`";
            reporter.hinted("workflow::value", node.place, "no value is allowed", help);
        }
    }

    fn read_default(&mut self, node: &Node, required: bool, reporter: &mut Reporter) {
        if fields::has_expression(node) {
            let help = "write the value itself: defaults are known before a run";
            let message = "no expression is allowed in a default";
            return reporter.hinted("workflow::type", node.place, message, help);
        }
        if required {
            let message = format!("`{}` is required and has a default", self.name.value);
            let help = "leave out `required`, or the default";
            reporter.hinted("workflow::value", node.place, message, help);
        }
        let value = node.to_json();
        match self.check(&value) {
            Ok(()) => self.default = Some(value),
            Err(unfit) => reporter.hinted("workflow::value", node.place, unfit.message, unfit.help),
        }
    }

    fn mistyped(&self, node: &Node, what: &str, reporter: &mut Reporter) {
        let message = format!("{what} is {}, the type is `{}`", node.kind(), self.kind.as_str());
        reporter.hinted("workflow::type", node.place, message, self.kind.example());
    }

    /// Whether a value is one that the parameter takes.
    pub fn check(&self, value: &Value) -> Result<(), Unfit> {
        let shown = shorten(&plain(value));
        let name = &self.name.value;
        if !self.kind.accepts(value) {
            let message = format!("`{shown}` is no {} for parameter `{name}`", self.kind.as_str());
            return Err(Unfit::new(message, self.kind.example()));
        }
        if !self.choices.is_empty() && !self.choices.contains(value) {
            let choices: Vec<String> = self.choices.iter().map(plain).collect();
            let names: Vec<&str> = choices.iter().map(String::as_str).collect();
            let help = suggest::help(&shown, names.iter().copied());
            let message = format!("`{shown}` is no choice for parameter `{name}`");
            return Err(Unfit::new(message, help.unwrap_or_default()));
        }
        let rank = |value: &Value| self.kind.rank(value).filter(|_| self.kind.is_ordered());
        let Some(at) = rank(value) else { return Ok(()) };
        for (bound, word) in [(&self.min, "at least"), (&self.max, "at most")] {
            let Some(bound) = bound else { continue };
            let beyond = |limit: f64| if word == "at least" { at < limit } else { at > limit };
            if rank(bound).is_some_and(beyond) {
                let message = format!("`{shown}` is out of range for parameter `{name}`");
                return Err(Unfit::new(message, format!("give {word} `{}`", plain(bound))));
            }
        }
        Ok(())
    }

    /// Reads and checks what was typed on a command line.
    pub fn read(&self, text: &str) -> Result<Value, Unfit> {
        let of_choices = self.choices.iter().find(|choice| plain(choice) == text).cloned();
        let value = of_choices.or_else(|| self.kind.read(text)).ok_or_else(|| {
            let (kind, name) = (self.kind.as_str(), &self.name.value);
            let message = format!("`{}` is no {kind} for parameter `{name}`", shorten(text));
            Unfit::new(message, self.kind.example())
        })?;
        self.check(&value).map(|()| value)
    }
}

/// A value as people type it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workflow::source::SourceText;
    use crate::workflow::{tree, yaml};

    fn param(text: &str) -> (Option<ParamSpec>, Vec<String>) {
        let mut reporter = Reporter::new(SourceText::new("w.yaml", format!("p: {text}")));
        let root = yaml::parse(&mut reporter).root.unwrap();
        let tree::Content::Map(entries) = &root.content else { panic!("no map") };
        let spec = ParamSpec::parse(&entries[0], &mut reporter);
        (spec, reporter.finish().into_iter().map(|found| found.message).collect())
    }

    #[test]
    fn values_are_typed_and_bounded() {
        let spec = param("{ type: duration, min: 1m, max: 2h }").0.unwrap();
        assert!(spec.required);
        assert_eq!(spec.read("90s").unwrap(), json!("90s"));
        assert_eq!(spec.read("30s").unwrap_err().help, "give at least `1m`");
        assert_eq!(spec.read("1d").unwrap_err().help, "give at most `2h`");
        assert!(spec.read("30").unwrap_err().message.contains("no duration"));
        let spec = param("{ type: choice, choices: [small, large, 3] }").0.unwrap();
        assert_eq!(spec.read("3").unwrap(), json!(3));
        assert_eq!(spec.read("smal").unwrap_err().help, "did you mean `small`?");
        let spec = param("{ type: list, default: [] }").0.unwrap();
        assert_eq!(spec.read("a, b").unwrap(), json!(["a", "b"]));
        assert_eq!(spec.read("[1]").unwrap(), json!([1]));
        let spec = param("{ type: boolean, required: false }").0.unwrap();
        assert!(!spec.required && spec.read("yes").is_err() && spec.read("true").is_ok());
    }

    #[test]
    fn bad_declarations_are_reported() {
        for (text, expected) in [
            ("{ type: strin }", "`strin` is no value of `type`"),
            ("{ type: string, min: 3 }", "`min` means nothing for type `string`"),
            ("{ type: integer, default: x }", "`x` is no integer for parameter `p`"),
            ("{ type: integer, min: 3, max: 2 }", "no value is allowed"),
            ("{ type: choice }", "a parameter lacks `choices`"),
            ("{ type: string, default: a, required: true }", "`p` is required and has a default"),
            ("{ type: duration, default: 90 }", "`90` is no duration for parameter `p`"),
        ] {
            assert_eq!(param(text).1, [expected], "{text}");
        }
    }
}
