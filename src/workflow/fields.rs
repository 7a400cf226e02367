//! Reading maps and scalars of a tree, with a report of whatever is wrong with them.

use serde_json::Value;

use super::diagnostic::{Reporter, shorten};
use super::source::{Place, Spanned};
use super::suggest;
use super::tree::{Content, Entry, Node};
use crate::kernel::Span;

/// The keys of a map.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    place: Place,
    what: &'static str,
}

impl<'n> Fields<'n> {
    /// Takes a node as a map of known keys. Keys that begin with `x_` are the author's.
    pub(super) fn open(
        node: &'n Node,
        what: &'static str,
        known: &[&str],
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let Content::Map(entries) = &node.content else {
            let message = format!("{what} is a map, not {}", node.kind());
            let help = format!("its keys are {}", suggest::join(known));
            reporter.hinted("workflow::type", node.place, message, help);
            return None;
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) && !entry.key.starts_with("x_") {
                unknown_key(entry, what, known, reporter);
            }
        }
        Some(Self { entries, place: node.place, what })
    }

    /// The entry of a key.
    pub(super) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of a key, unless nothing is written there.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let value = &self.entry(key)?.value;
        let is_null = value.scalar().is_some_and(super::tree::Scalar::is_null);
        (!is_null).then_some(value)
    }

    /// The value of a key that must be there.
    pub(super) fn require(
        &self,
        key: &str,
        help: &str,
        reporter: &mut Reporter,
    ) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let place = self.entry(key).map_or(self.place, |entry| entry.place);
            let message = format!("{} lacks `{key}`", self.what);
            reporter.hinted("workflow::missing_key", place, message, help);
        }
        found
    }

    /// Where the map is.
    pub(super) const fn place(&self) -> Place {
        self.place
    }
}

fn unknown_key(entry: &Entry, what: &str, known: &[&str], reporter: &mut Reporter) {
    let code = "workflow::unknown_key";
    let help = match entry.key.as_str() {
        "on" => "what starts a workflow stands under `schedule` and `triggers`",
        "if" => "a condition is written `when: <expression>`",
        "depends_on" => "order is written `needs: [step, …]`",
        "env" => "secrets are written `\"${{ secrets.NAME }}\"`, where a tool takes one",
        "<<" => "merge keys are not supported: write the keys out",
        _ => {
            let known = known.iter().copied();
            let message = format!("unknown key `{}` of {what}", shorten(&entry.key));
            return reporter.unknown(code, entry.place, (&message, &entry.key), known);
        }
    };
    let message = format!("unknown key `{}` of {what}", entry.key);
    reporter.hinted(code, entry.place, message, help);
}

fn wrong(node: &Node, what: &str, help: &str, reporter: &mut Reporter) {
    let number = node.scalar().filter(|scalar| scalar.to_json().is_number());
    let message = match number.filter(|_| what.contains("number")) {
        Some(scalar) => format!("`{}` is not allowed here", shorten(&scalar.text)),
        None => format!("{what} is expected here, not {}", node.kind()),
    };
    reporter.hinted("workflow::type", node.place, message, help);
}

/// A text.
pub(super) fn text(node: &Node, reporter: &mut Reporter) -> Option<Spanned<String>> {
    let found = node.scalar().filter(|scalar| !scalar.is_null());
    if let Some(scalar) = found {
        return Some(Spanned::new(scalar.text.clone(), node.place));
    }
    wrong(node, "text", "write a text here, in quotes if it has special characters", reporter);
    None
}

/// A text without expressions in it.
pub(super) fn literal(node: &Node, reporter: &mut Reporter) -> Option<Spanned<String>> {
    let found = text(node, reporter)?;
    if found.value.contains("${{") {
        let help = "write the value itself: it must be known before a run";
        reporter.hinted("workflow::type", node.place, "no expression is allowed here", help);
        return None;
    }
    Some(found)
}

/// A name in snake case.
pub(super) fn identifier(node: &Node, reporter: &mut Reporter) -> Option<Spanned<String>> {
    let found = text(node, reporter)?;
    check_identifier(&found.value, found.place, reporter).then_some(found)
}

/// Reports a name that expressions could not write.
pub(super) fn check_identifier(name: &str, place: Place, reporter: &mut Reporter) -> bool {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    if begins && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return true;
    }
    let message = format!("`{}` is not a name", shorten(name));
    let folded: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(40)
        .collect();
    let folded = folded.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let example = if folded.is_empty() { "check_indexes" } else { folded };
    let help = format!("names are snake_case and begin with a letter, for example `{example}`");
    reporter.hinted("workflow::name", place, message, help);
    false
}

/// A duration with its unit.
pub(super) fn duration(node: &Node, reporter: &mut Reporter) -> Option<Spanned<Span>> {
    let found = literal(node, reporter)?;
    match Span::parse(&found.value) {
        Ok(value) => Some(Spanned::new(value, found.place)),
        Err(error) => {
            let text = error.to_string();
            let (message, help) = text.split_once("; ").unwrap_or((&text, "write a unit"));
            reporter.hinted("workflow::value", node.place, shorten_words(message), help);
            None
        }
    }
}

/// A duration that is longer than nothing.
pub(super) fn positive_duration(node: &Node, reporter: &mut Reporter) -> Option<Spanned<Span>> {
    let found = duration(node, reporter)?;
    if found.value.0.is_zero() {
        let help = "write a duration such as `30s`";
        reporter.hinted("workflow::value", node.place, "this duration is zero", help);
        return None;
    }
    Some(found)
}

fn shorten_words(message: &str) -> String {
    if message.chars().count() > 120 { shorten(message) } else { message.to_owned() }
}

/// A whole number of at least `least`.
pub(super) fn count(node: &Node, least: u32, reporter: &mut Reporter) -> Option<Spanned<u32>> {
    let value = node.scalar().map(super::tree::Scalar::to_json);
    let number = value.as_ref().and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    if let Some(number) = number.filter(|number| *number >= least) {
        return Some(Spanned::new(number, node.place));
    }
    let help = format!("write a whole number from {least} to {}", u32::MAX);
    wrong(node, "a whole number", &help, reporter);
    None
}

/// A number between two others.
pub(super) fn number(
    node: &Node,
    (least, most): (f64, f64),
    reporter: &mut Reporter,
) -> Option<Spanned<f64>> {
    let value = node.scalar().and_then(|scalar| scalar.to_json().as_f64());
    if let Some(value) = value.filter(|value| (least..=most).contains(value)) {
        return Some(Spanned::new(value, node.place));
    }
    let help = format!("write a number from {least} to {most}");
    wrong(node, "a number", &help, reporter);
    None
}

/// True or false.
pub(super) fn boolean(node: &Node, reporter: &mut Reporter) -> Option<Spanned<bool>> {
    if let Some(Value::Bool(value)) = node.scalar().map(super::tree::Scalar::to_json) {
        return Some(Spanned::new(value, node.place));
    }
    wrong(node, "`true` or `false`", "write `true` or `false`", reporter);
    None
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    choices: &[(&str, T)],
    reporter: &mut Reporter,
) -> Option<Spanned<T>> {
    let found = text(node, reporter)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == found.value) {
        return Some(Spanned::new(*value, node.place));
    }
    let known = choices.iter().map(|(name, _)| *name);
    let message = format!("`{}` is no value of `{what}`", shorten(&found.value));
    reporter.unknown("workflow::value", node.place, (&message, &found.value), known);
    None
}

/// The items of a list.
pub(super) fn list<'n>(node: &'n Node, what: &str, reporter: &mut Reporter) -> &'n [Node] {
    if let Content::List(items) = &node.content {
        return items;
    }
    wrong(
        node,
        "a list",
        &format!("write {what} as a list: `[a, b]`, or one line `- a` each"),
        reporter,
    );
    &[]
}

/// The entries of a map with free keys.
pub(super) fn map<'n>(node: &'n Node, what: &str, reporter: &mut Reporter) -> &'n [Entry] {
    if let Content::Map(entries) = &node.content {
        return entries;
    }
    wrong(node, "a map", &format!("write {what} as `name: value`"), reporter);
    &[]
}

/// A bare Rhai expression.
pub(super) fn expression(node: &Node, reporter: &mut Reporter) -> Option<Spanned<String>> {
    let Some(scalar) = node.scalar().filter(|scalar| !scalar.is_null()) else {
        wrong(node, "an expression", "write one such as `steps.decide.act`", reporter);
        return None;
    };
    let found = Spanned::new(scalar.text.clone(), node.place);
    let bare = found.value.trim();
    if let Some(inner) = bare.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")) {
        let help = format!("write `{}`", shorten(inner.trim()));
        let message = "the expression stands here without `${{ }}`";
        reporter.hinted("workflow::expression", node.place, message, help);
        return None;
    }
    if bare.is_empty() {
        reporter.error("workflow::expression", node.place, "the expression is empty");
        return None;
    }
    Some(found)
}

/// Whether a scalar can hold an expression.
pub(super) fn has_expression(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.text.contains("${{"))
}

/// A text that may hold expressions; numbers and the like are taken as they are written.
pub(super) fn template_text(node: &Node, reporter: &mut Reporter) -> Option<Spanned<String>> {
    let found = text(node, reporter)?;
    if found.value.trim().is_empty() {
        reporter.error("workflow::value", node.place, "this text is empty");
        return None;
    }
    Some(found)
}
