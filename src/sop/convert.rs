//! JSON to Rhai and back.
//!
//! Whole numbers are `int`, others `float`; a whole number beyond 64 signed bits becomes the nearest
//! float. `null` is `()`. Only the parts of a value that a text refers to are converted.

use std::collections::BTreeMap;

use rhai::{Dynamic, ImmutableString, Map};
use serde_json::{Number, Value};

use super::error::{ScriptError, a_kind};

/// How deep values may be nested.
const MAX_DEPTH: usize = 96;

/// The parts of a variable that a text refers to.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    /// Whether it refers to the value as a whole.
    whole: bool,
    fields: BTreeMap<String, Shape>,
}

impl Shape {
    pub(super) fn add(&mut self, path: &[String]) {
        match path.split_first() {
            None => self.whole = true,
            Some((first, rest)) => self.fields.entry(first.clone()).or_default().add(rest),
        }
    }

    /// The fields to convert, when that is enough: all of them must be there, so that an error can
    /// list what there is.
    fn narrows(&self, object: &serde_json::Map<String, Value>) -> bool {
        !self.whole && self.fields.keys().all(|key| object.contains_key(key))
    }
}

/// The output of a skipped step: its other fields read `()`.
#[derive(Clone, Debug)]
pub(super) struct Skipped(Map);

impl Skipped {
    pub(super) fn field(&mut self, name: &str) -> Dynamic {
        self.0.get(name).cloned().unwrap_or(Dynamic::UNIT)
    }
}

/// The field by which a step's output says that the step was skipped.
const SKIPPED: &str = "skipped";

/// Whether a step's output says that the step was skipped.
pub(super) fn is_skipped(value: &Value) -> bool {
    value.get(SKIPPED) == Some(&Value::Bool(true))
}

/// Converts a variable. Returns the value and how many nodes it has.
pub(super) fn variable(
    name: &str,
    value: &Value,
    shape: &Shape,
) -> Result<(Dynamic, usize), ScriptError> {
    let mut reader = Reader { nodes: 0, steps: name == "steps" };
    let converted = reader.part(value, shape, 0).ok_or_else(|| {
        ScriptError::new(format!("`{name}` is nested more than {MAX_DEPTH} deep"))
    })?;
    Ok((converted, reader.nodes))
}

struct Reader {
    nodes: usize,
    /// Whether the value is `steps`, whose fields are outputs.
    steps: bool,
}

impl Reader {
    fn part(&mut self, value: &Value, shape: &Shape, depth: usize) -> Option<Dynamic> {
        if self.steps && depth == 1 && shape.fields.contains_key(SKIPPED) {
            match value {
                // A step that ran was not skipped, and says so only when it is asked.
                Value::Object(output) if !output.contains_key(SKIPPED) => {
                    let mut output = output.clone();
                    output.insert(SKIPPED.to_owned(), false.into());
                    return self.part(&output.into(), shape, depth);
                }
                // Outputs that have no fields at all: asking is all that can be done with a field.
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)
                    if !shape.whole =>
                {
                    return Some(Map::from([(SKIPPED.into(), false.into())]).into());
                }
                _ => {}
            }
        }
        match value {
            Value::Object(object) if shape.narrows(object) && !self.skipped(value, depth) => {
                let mut map = Map::new();
                for (key, part) in &shape.fields {
                    let converted = self.part(object.get(key)?, part, depth + 1)?;
                    map.insert(key.as_str().into(), converted);
                }
                Some(map.into())
            }
            _ => self.whole(value, depth),
        }
    }

    fn whole(&mut self, value: &Value, depth: usize) -> Option<Dynamic> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.nodes += 1;
        Some(match value {
            Value::Null => Dynamic::UNIT,
            Value::Bool(bool) => (*bool).into(),
            Value::Number(number) => self::number(number),
            Value::String(text) => text.as_str().into(),
            Value::Array(items) => {
                let items: Option<Vec<Dynamic>> =
                    items.iter().map(|item| self.whole(item, depth + 1)).collect();
                items?.into()
            }
            Value::Object(object) => {
                let mut map = Map::new();
                for (key, part) in object {
                    map.insert(key.as_str().into(), self.whole(part, depth + 1)?);
                }
                if self.skipped(value, depth) { Dynamic::from(Skipped(map)) } else { map.into() }
            }
        })
    }

    /// Outputs are the variables of a script, the fields of `steps`, and the items of a fan-out.
    fn skipped(&self, value: &Value, depth: usize) -> bool {
        let is_output = if self.steps { depth == 1 || depth == 2 } else { depth == 0 };
        is_output && is_skipped(value)
    }
}

fn number(number: &Number) -> Dynamic {
    match (number.as_i64(), number.as_f64()) {
        (Some(int), _) => int.into(),
        (None, Some(float)) => float.into(),
        (None, None) => Dynamic::UNIT,
    }
}

/// Converts what a text returned.
pub(super) fn to_json(value: Dynamic) -> Result<Value, ScriptError> {
    json(value, 0)
}

fn json(value: Dynamic, depth: usize) -> Result<Value, ScriptError> {
    if depth > MAX_DEPTH {
        return Err(ScriptError::new(format!("the result is nested more than {MAX_DEPTH} deep")));
    }
    let value = value.flatten();
    if value.is_unit() {
        Ok(Value::Null)
    } else if let Ok(bool) = value.as_bool() {
        Ok(bool.into())
    } else if let Ok(int) = value.as_int() {
        Ok(int.into())
    } else if let Ok(float) = value.as_float() {
        Number::from_f64(float).map(Value::Number).ok_or_else(|| {
            ScriptError::new(format!("the result holds {float}, which is not a number"))
                .help("look for a division by zero")
        })
    } else if let Ok(char) = value.as_char() {
        Ok(char.to_string().into())
    } else if value.is_string() {
        Ok(value.cast::<ImmutableString>().as_str().into())
    } else if value.is_array() {
        let items = value.cast::<rhai::Array>();
        items.into_iter().map(|item| json(item, depth + 1)).collect()
    } else if value.is_map() {
        object(value.cast::<Map>(), depth)
    } else if value.is::<Skipped>() {
        object(value.cast::<Skipped>().0, depth)
    } else {
        Err(ScriptError::new(format!("the result holds {}", a_kind(value.type_name())))
            .help("return numbers, texts, bools, lists and maps"))
    }
}

fn object(map: Map, depth: usize) -> Result<Value, ScriptError> {
    let fields: Result<serde_json::Map<String, Value>, ScriptError> =
        map.into_iter().map(|(key, part)| Ok((key.to_string(), json(part, depth + 1)?))).collect();
    Ok(Value::Object(fields?))
}

/// Follows a path into a value; a skipped output's unknown fields are `null`.
pub(super) fn look_up(value: &Value, path: &[String]) -> Option<Value> {
    let mut at = value;
    for name in path {
        at = match at {
            Value::Object(object) => match object.get(name) {
                Some(field) => field,
                None if is_skipped(at) => return Some(Value::Null),
                None => return None,
            },
            Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
    }
    Some(brief(at))
}

/// Follows a path into a Rhai value.
pub(super) fn look_up_dynamic(value: &Dynamic, path: &[String]) -> Option<Value> {
    let Some((name, rest)) = path.split_first() else {
        return dynamic_brief(value);
    };
    if let Ok(map) = value.as_map_ref() {
        return look_up_dynamic(map.get(name.as_str())?, rest);
    }
    if let Ok(items) = value.as_array_ref() {
        return look_up_dynamic(items.get(name.parse::<usize>().ok()?)?, rest);
    }
    let mut skipped = value.read_lock::<Skipped>()?.clone();
    look_up_dynamic(&skipped.field(name), rest)
}

/// Longer values are described instead of shown.
const BRIEF: usize = 160;

fn dynamic_brief(value: &Dynamic) -> Option<Value> {
    if let Ok(items) = value.as_array_ref()
        && items.len() > 16
    {
        return Some(format!("[{} items]", items.len()).into());
    }
    json(value.clone(), 0).ok().map(|value| brief(&value))
}

fn brief(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.char_indices().nth(BRIEF) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
            None => value.clone(),
        },
        Value::Array(items) if !is_short(value, &mut BRIEF.clone()) => {
            format!("[{} items]", items.len()).into()
        }
        Value::Object(object) if !is_short(value, &mut BRIEF.clone()) => {
            format!("{{{} fields}}", object.len()).into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.clone()
        }
    }
}

/// Whether a value fits into `room`, roughly, without walking all of a large one.
fn is_short(value: &Value, room: &mut usize) -> bool {
    let own = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 6,
        Value::String(text) => text.len() + 3,
        Value::Array(_) | Value::Object(_) => 2,
    };
    let Some(left) = room.checked_sub(own) else { return false };
    *room = left;
    match value {
        Value::Array(items) => items.iter().all(|item| is_short(item, room)),
        Value::Object(object) => object.iter().all(|(key, part)| {
            *room = room.saturating_sub(key.len());
            is_short(part, room)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sop::{Sandbox, Scope};

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e12..1e12_f64).prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn values_survive_the_way_in_and_out(value in any_json()) {
            let scope = Scope::from([("params".to_owned(), value.clone())]);
            let expression = Sandbox::new().expression("params").unwrap();
            prop_assert_eq!(expression.evaluate(&scope).unwrap().value, value);
        }

        #[test]
        fn parts_are_what_they_are_in_the_whole(value in any_json(), path in "[a-c](\\.[a-c]){0,2}") {
            let scope = Scope::from([("params".to_owned(), json!({ "x": value }))]);
            let evaluate = |text: &str| {
                let expression = Sandbox::new().expression(text).unwrap();
                expression.evaluate(&scope).map(|evaluated| evaluated.value).ok()
            };
            // Computed access converts the whole value, and written access only the part.
            let computed = evaluate(&format!("params[\"\" + \"x\"].{path}"));
            prop_assert_eq!(evaluate(&format!("params.x.{path}")), computed);
        }
    }

    #[test]
    fn what_is_not_json_does_not_come_out() {
        let failure = |text: &str| {
            let expression = Sandbox::new().expression(text).unwrap();
            expression.evaluate(&Scope::new()).unwrap_err().message
        };
        assert_eq!(failure("|x| x"), "the result holds a closure");
        assert_eq!(failure("0..5"), "the result holds a range");
        assert_eq!(failure("[0.0 / 0.0]"), "the result holds NaN, which is not a number");
    }

    #[test]
    fn long_values_are_described() {
        assert_eq!(brief(&json!([1, 2, 3])), json!([1, 2, 3]));
        assert_eq!(brief(&json!(vec![1; 200])), json!("[200 items]"));
        assert_eq!(brief(&json!({ "a": "x".repeat(200) })), json!("{1 fields}"));
        assert!(brief(&json!("x".repeat(200))).as_str().unwrap().ends_with('…'));
    }
}
