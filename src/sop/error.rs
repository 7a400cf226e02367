//! What is wrong with a text, where, and what to write instead.

use std::collections::BTreeSet;
use std::fmt;

use rhai::{EvalAltResult, ParseError, ParseErrorType, Position};
use serde::Serialize;

/// A mistake in an expression or a script, or a failure of its evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ScriptError {
    /// What is wrong.
    pub message: String,
    /// The line within the text, from 1.
    pub line: usize,
    /// The column within the line, in characters, from 1.
    pub column: usize,
    /// What to do about it.
    pub help: Option<String>,
}

/// A mistake in an expression inside a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expression at `{path}`")]
pub struct TemplateError {
    /// The JSON pointer of the string; empty for the whole value.
    pub path: String,
    /// Where the expression starts in that string, in bytes, after `${{` and blanks.
    pub offset: usize,
    /// What is wrong with it; its line and column count from `offset`.
    #[source]
    pub error: ScriptError,
}

impl ScriptError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: 1, column: 1, help: None }
    }

    pub(super) fn at(mut self, position: Position) -> Self {
        self.line = position.line().unwrap_or(1);
        self.column = position.position().unwrap_or(1).max(1);
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A text that does not parse. `known` are the variables that it may read.
    pub(super) fn from_parse(error: &ParseError, known: &[&str]) -> Self {
        let position = error.position();
        match error.err_type() {
            ParseErrorType::VariableUndefined(name) => {
                Self::new(format!("unknown variable `{name}`")).help(suggest(name, known))
            }
            ParseErrorType::UnexpectedEOF => Self::new("the text ends too early"),
            other => {
                let text = other.to_string();
                Self::new(lower_first(&text)).maybe_help(parse_help(&text))
            }
        }
        .at(position)
    }

    /// An evaluation that failed.
    pub(super) fn from_eval(error: &EvalAltResult) -> Self {
        let inner = error.unwrap_inner();
        let position = inner.position();
        let position = if position.is_none() { error.position() } else { position };
        described(inner).at(position)
    }

    /// A call of a function that does not exist.
    pub(super) fn unknown_function(name: &str, functions: &BTreeSet<String>) -> Self {
        let error = Self::new(format!("there is no function `{name}`"));
        let names: Vec<&str> = functions.iter().map(String::as_str).collect();
        match (name, nearest(name, &names)) {
            ("sleep", _) => error.help("waiting is a step of its own: `wait: { for: 10m }`"),
            ("timestamp" | "now", _) => error.help("pass the time in as an argument"),
            (_, Some(near)) => error.help(format!("did you mean `{near}`?")),
            (_, None) => error,
        }
    }

    fn maybe_help(mut self, help: Option<&str>) -> Self {
        self.help = help.map(str::to_owned);
        self
    }
}

fn parse_help(text: &str) -> Option<&'static str> {
    let hints = [
        ("eval", "a text cannot make up code"),
        ("import", "a script stands alone; functions in it may be shared by copying them"),
        ("'='", "compare with `==`; an expression cannot assign"),
        ("'let'", "one expression only; put statements into a script under `sops/`"),
    ];
    hints.iter().find(|(word, _)| text.contains(word)).map(|(_, help)| *help)
}

fn described(error: &EvalAltResult) -> ScriptError {
    match error {
        EvalAltResult::ErrorVariableNotFound(name, _) => {
            ScriptError::new(format!("`{name}` has no value here"))
                .help("a function sees its parameters only: pass the value as an argument")
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            ScriptError::new(format!("there is no field `{name}`"))
        }
        EvalAltResult::ErrorFunctionNotFound(signature, _) => no_function(signature),
        EvalAltResult::ErrorDotExpr(text, _) => {
            ScriptError::new(lower_first(text)).help("only a map has fields; `?.` passes `()` on")
        }
        EvalAltResult::ErrorMismatchDataType(wanted, got, _) if wanted == "bool" => {
            ScriptError::new(format!("this must be true or false and is {}", a_kind(got)))
                .help("compare it, for example `x > 0`")
        }
        EvalAltResult::ErrorRuntime(value, _) => thrown(value.to_string()),
        EvalAltResult::ErrorTerminated(reason, _) => ScriptError::new(reason.to_string())
            .help("a text decides in moments: look for a loop that does not end"),
        EvalAltResult::ErrorTooManyOperations(_) => ScriptError::new("it does too much work")
            .help("a text decides in moments: look for a loop that does not end"),
        EvalAltResult::ErrorStackOverflow(_) => {
            ScriptError::new("functions call each other too deeply")
                .help("look for a function that calls itself without an end")
        }
        EvalAltResult::ErrorParsing(kind, _) => ScriptError::new(lower_first(&kind.to_string())),
        other => {
            let mut other = other.to_string();
            if let Some(end) = other.rfind(" (line ") {
                other.truncate(end);
            }
            ScriptError::new(lower_first(&other))
        }
    }
}

/// An error that a script throws, or one of our functions.
fn thrown(message: String) -> ScriptError {
    let nothing = message.contains("cannot compare () ") || message.ends_with(" with ()");
    let error = ScriptError::new(message);
    if nothing {
        error.help("`()` is what was not measured, or a skipped step: ask `x != ()` first, or give a value with `x ?? 0`")
    } else {
        error
    }
}

fn no_function(signature: &str) -> ScriptError {
    let signature = kinds(signature);
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return ScriptError::new(format!("there is no `{signature}`"))
            .help("both sides must be of one kind, numbers for arithmetic");
    }
    ScriptError::new(format!("there is no function `{signature}`"))
        .help(format!("`{name}` exists, but not for arguments of these kinds"))
}

/// Rewrites Rust's type names in a signature to the names that authors know.
fn kinds(signature: &str) -> String {
    let mut text = signature.replace("&str | ImmutableString | String", "text");
    for (rust, plain) in [("i64", "int"), ("f64", "float"), ("&str", "text")] {
        text = text.replace(rust, plain);
    }
    text
}

/// The name of a type, with its article.
pub(super) fn a_kind(type_name: &str) -> String {
    let short = type_name.rsplit("::").next().unwrap_or(type_name);
    match short.split('<').next().unwrap_or(short) {
        "i64" => "an int".into(),
        "f64" => "a float".into(),
        "string" | "ImmutableString" => "a text".into(),
        "bool" => "a bool".into(),
        "()" => "()".into(),
        "array" => "a list".into(),
        "Fn" => "a closure".into(),
        "Range" | "RangeInclusive" => "a range".into(),
        "Skipped" => "a skipped step".into(),
        other => format!("a {other}"),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_lower = text.chars().nth(1).is_some_and(char::is_lowercase);
    match chars.next() {
        Some(first) if second_is_lower => {
            first.to_lowercase().chain(chars).collect::<String>().trim_end_matches('.').to_owned()
        }
        _ => text.to_owned(),
    }
}

/// "did you mean", or the list of what there is.
pub(super) fn suggest(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "nothing is known here".into(),
        None => format!("known here: {}", Listed(known)),
    }
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// Names in backticks, at most twelve.
pub(super) struct Listed<'a>(pub(super) &'a [&'a str]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().take(12).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        if self.0.len() > 12 { write!(f, " and {} more", self.0.len() - 12) } else { Ok(()) }
    }
}
