//! What a step returned.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// What a step returned: a JSON value that clones share.
///
/// A value of small objects takes many times the memory of its text, and of the items of a large fan-out
/// nobody reads each by itself. So it can be held as text, which is written as it is and read when asked.
#[derive(Clone)]
pub struct Output(Held);

#[derive(Clone)]
enum Held {
    Value(Arc<Value>),
    Text(Arc<RawValue>),
}

impl Output {
    /// The value.
    pub fn value(&self) -> Cow<'_, Value> {
        match &self.0 {
            Held::Value(value) => Cow::Borrowed(value),
            Held::Text(text) => Cow::Owned(parsed(text)),
        }
    }

    /// The value, for good.
    pub fn into_value(self) -> Value {
        match self.0 {
            Held::Value(value) => Arc::unwrap_or_clone(value),
            Held::Text(text) => parsed(&text),
        }
    }

    /// The same, held as text.
    #[must_use]
    pub fn packed(&self) -> Self {
        match &self.0 {
            Held::Value(value) => Self::written(value.to_string()),
            Held::Text(_) => self.clone(),
        }
    }

    /// A list of outputs, held as text.
    pub fn list<'a>(outputs: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut text = String::from("[");
        for (place, output) in outputs.into_iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            match &output.0 {
                Held::Value(value) => text.push_str(&value.to_string()),
                Held::Text(written) => text.push_str(written.get()),
            }
        }
        text.push(']');
        Self::written(text)
    }

    /// What was written as JSON, as text.
    fn written(text: String) -> Self {
        let held = match RawValue::from_string(text) {
            Ok(text) => Held::Text(text.into()),
            // What was written from values can be read.
            Err(_) => Held::Value(Arc::default()),
        };
        Self(held)
    }
}

/// What is held as text was read or written as JSON before.
fn parsed(text: &RawValue) -> Value {
    serde_json::from_str(text.get()).unwrap_or_default()
}

impl Default for Output {
    fn default() -> Self {
        Value::Null.into()
    }
}

impl From<Value> for Output {
    fn from(value: Value) -> Self {
        Self(Held::Value(Arc::new(value)))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl PartialEq for Output {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Held::Value(value) => value.serialize(serializer),
            Held::Text(text) => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::journal::event::{Event, Rows};

    fn event(output: Output) -> Event {
        let (step, history, seen) = ("each[1]".to_owned(), Rows::default(), Vec::new());
        Event::StepSucceeded { step, output, history, seen, fact: None }
    }

    #[test]
    fn how_it_is_held_shows_nowhere() {
        let value =
            json!({ "n": 1, "text": "a\"b\u{e9}\n", "much": 1e300, "list": [null, 0.1, {}] });
        let (tree, text) = (Output::from(value.clone()), Output::from(value.clone()).packed());
        assert_eq!(tree, text);
        assert_eq!((text.value().as_ref(), text.clone().into_value()), (&value, value.clone()));
        let (tree, text) = (event(tree), event(text));
        let written = serde_json::to_string(&tree).unwrap();
        assert_eq!(serde_json::to_string(&text).unwrap(), written);
        assert_eq!(serde_json::to_value(&text).unwrap(), serde_json::to_value(&tree).unwrap());
        assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), text);
        assert_eq!(format!("{text:?}"), format!("{tree:?}"));
    }

    #[test]
    fn a_list_is_that_of_its_values() {
        let values = [json!({ "n": 1 }), json!(null), json!("x")];
        let mut outputs = values.clone().map(Output::from);
        outputs[0] = outputs[0].packed();
        let list = Output::list(&outputs);
        assert_eq!(list.value().as_ref(), &json!(values));
        assert_eq!(serde_json::to_string(&list).unwrap(), json!(values).to_string());
        assert_eq!(Output::list([]).value().as_ref(), &json!([]));
    }
}
