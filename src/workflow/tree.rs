//! YAML as a tree in which every node knows its place.

use serde_json::{Map, Number, Value};

use super::source::Place;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub content: Content,
    /// Where it is written.
    pub place: Place,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text, a number, true, false or nothing.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// A scalar as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, escapes resolved.
    pub text: String,
    /// How it is written.
    pub style: Style,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: numbers, true, false and nothing are what they look like.
    Plain,
    /// In quotes: always text.
    Quoted,
    /// As a block (`|` or `>`): always text.
    Block,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is written.
    pub place: Place,
    /// The value.
    pub value: Node,
}

/// A file as a tree.
#[derive(Debug)]
pub struct Tree {
    /// The outermost value; `None` when nothing could be read.
    pub root: Option<Node>,
    /// Whether parts of the file are missing from it, because they are not YAML.
    pub damaged: bool,
}

impl Node {
    /// The scalar, when it is one.
    pub const fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The value of a key, when it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            Content::Scalar(_) | Content::List(_) => None,
        }
    }

    /// The node that a JSON pointer leads to.
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |node, part| {
            let part = part.replace("~1", "/").replace("~0", "~");
            match &node.content {
                Content::List(items) => items.get(part.parse::<usize>().ok()?),
                Content::Map(_) => node.get(&part),
                Content::Scalar(_) => None,
            }
        })
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(scalar) => scalar.to_json(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar(scalar) => match scalar.to_json() {
                Value::Null => "nothing",
                Value::Bool(_) => "true or false",
                Value::Number(_) => "a number",
                _ => "text",
            },
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// How many nodes it consists of.
    pub(super) fn size(&self) -> usize {
        match &self.content {
            Content::Scalar(_) => 1,
            Content::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Content::Map(entries) => {
                1 + entries.iter().map(|entry| entry.value.size()).sum::<usize>()
            }
        }
    }

    /// How many levels lie below it.
    pub(super) fn height(&self) -> usize {
        match &self.content {
            Content::Scalar(_) => 0,
            Content::List(items) => 1 + items.iter().map(Self::height).max().unwrap_or(0),
            Content::Map(entries) => {
                1 + entries.iter().map(|entry| entry.value.height()).max().unwrap_or(0)
            }
        }
    }
}

impl Scalar {
    /// The value as YAML 1.2 (core schema) reads it.
    pub fn to_json(&self) -> Value {
        if self.style != Style::Plain {
            return Value::String(self.text.clone());
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
        }
    }

    /// Whether nothing is written.
    pub fn is_null(&self) -> bool {
        self.style == Style::Plain && self.to_json().is_null()
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = plain.parse::<i64>() {
        return Some(integer.into());
    }
    if digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-')) {
        return plain.parse::<f64>().ok().and_then(Number::from_f64);
    }
    None
}
