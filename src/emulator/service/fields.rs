//! What a client may set: read from bodies, changed by update masks. PURE.
//!
//! Each kind of resource has a table of [`Field`]s. A field that is not in it is ignored in a body, and
//! refused in a mask.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Checks a value and writes it as the service shows it; or says what is wrong.
pub(super) type Check = fn(&Value) -> Result<Value, String>;

/// One field of `spec`.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Below `spec`, with dots.
    pub path: &'static str,
    pub check: Check,
    /// Whether it can be changed later.
    pub mutable: bool,
    /// The name that a mask has for those of which one is set.
    pub group: Option<&'static str>,
}

impl Field {
    pub(super) const fn new(path: &'static str, check: Check) -> Self {
        Self { path, check, mutable: true, group: None }
    }

    /// Set when the resource is made, and never again.
    pub(super) const fn fixed(mut self) -> Self {
        self.mutable = false;
        self
    }

    /// One of several that exclude each other.
    pub(super) const fn one_of(mut self, group: &'static str) -> Self {
        self.group = Some(group);
        self
    }
}

/// The value at a path; null and empty text are absent.
pub(super) fn at<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = map.get(parts.next()?)?;
    let found = parts.try_fold(first, |value, part| value.get(part))?;
    let absent = found.is_null() || found.as_str().is_some_and(str::is_empty);
    (!absent).then_some(found)
}

pub(super) fn set(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(map.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let inner = map.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

pub(super) fn clear(map: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => drop(map.remove(path)),
        Some((first, rest)) => {
            if let Some(Value::Object(inner)) = map.get_mut(first) {
                clear(inner, rest);
            }
        }
    }
}

/// The spec of a body; one that is no object is refused.
pub(super) fn spec_of(body: &Value) -> Result<Map<String, Value>, ApiError> {
    match body.get("spec") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(spec)) => Ok(spec.clone()),
        Some(_) => Err(ApiError::invalid("Field 'spec' must be an object")),
    }
}

/// What a body sets when the resource is made.
pub(super) fn created(
    fields: &[Field],
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    let mut spec = Map::new();
    for field in fields {
        if let Some(value) = at(given, field.path) {
            set(&mut spec, field.path, checked(field, value)?);
        }
    }
    for field in fields {
        if let Some(group) = field.group.filter(|_| at(&spec, field.path).is_some()) {
            only_one(fields, &spec, group)?;
        }
    }
    Ok(spec)
}

/// What becomes of `before` by a mask and a body.
pub(super) fn updated(
    fields: &[Field],
    (mask, given): (&str, &Map<String, Value>),
    before: &Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    let mut after = before.clone();
    let paths: Vec<&str> = mask.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    if paths.is_empty() {
        let text = "Field 'update_mask' is required, expected non-default value (not \"\")!";
        return Err(ApiError::invalid(text));
    }
    for path in paths {
        if path == "*" {
            let mutable = fields.iter().filter(|field| field.mutable && field.group.is_none());
            for field in mutable {
                one(field, given, &mut after)?;
            }
            continue;
        }
        let unknown = || ApiError::invalid(format!("Field '{path}' in update_mask is unknown"));
        let path = path.strip_prefix("spec.").ok_or_else(unknown)?;
        change(fields, (path, given), &mut after).ok_or_else(unknown)??;
    }
    Ok(after)
}

/// Changes what one path of a mask names; `None` when it names nothing.
fn change(
    fields: &[Field],
    (path, given): (&str, &Map<String, Value>),
    after: &mut Map<String, Value>,
) -> Option<Result<(), ApiError>> {
    if let Some(field) = fields.iter().find(|field| field.path == path) {
        return Some(match field.group {
            Some(group) => regroup(fields, (group, Some(path)), given, after),
            None => one(field, given, after),
        });
    }
    if fields.iter().any(|field| field.group == Some(path)) {
        return Some(regroup(fields, (path, None), given, after));
    }
    // One entry of a map.
    let entry = fields
        .iter()
        .find(|field| path.strip_prefix(field.path).is_some_and(|rest| rest.starts_with('.')));
    if let Some(field) = entry {
        return Some(one_entry(field, path, given, after));
    }
    let below: Vec<&Field> = fields
        .iter()
        .filter(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
        .collect();
    if below.is_empty() {
        return None;
    }
    Some(replace(&below, (path, given), after))
}

fn one(
    field: &Field,
    given: &Map<String, Value>,
    after: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    refuse_fixed(field)?;
    let value = at(given, field.path).ok_or_else(|| unset(field.path))?;
    set(after, field.path, checked(field, value)?);
    Ok(())
}

fn one_entry(
    field: &Field,
    path: &str,
    given: &Map<String, Value>,
    after: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    refuse_fixed(field)?;
    let key = path[field.path.len() + 1..].to_owned();
    let value = at(given, field.path).and_then(|map| map.get(&key)).ok_or_else(|| unset(path))?;
    let mut map = match at(after, field.path) {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    };
    map.insert(key, value.clone());
    set(after, field.path, checked(field, &Value::Object(map))?);
    Ok(())
}

/// Replaces an object as a whole: what the body does not set is not set.
fn replace(
    below: &[&Field],
    (path, given): (&str, &Map<String, Value>),
    after: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    if !at(given, path).is_some_and(Value::is_object) {
        return Err(unset(path));
    }
    for field in below {
        clear(after, field.path);
        if let Some(value) = at(given, field.path) {
            refuse_fixed(field)?;
            set(after, field.path, checked(field, value)?);
        }
    }
    Ok(())
}

/// Sets the one field of a group that the body has, or that the mask names.
fn regroup(
    fields: &[Field],
    (group, named): (&str, Option<&str>),
    given: &Map<String, Value>,
    after: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    only_one(fields, given, group)?;
    let members = || fields.iter().filter(|field| field.group == Some(group));
    let chosen = members()
        .find(|field| {
            named.is_none_or(|named| named == field.path) && at(given, field.path).is_some()
        })
        .ok_or_else(|| unset(named.unwrap_or(group)))?;
    refuse_fixed(chosen)?;
    let value = at(given, chosen.path).ok_or_else(|| unset(chosen.path))?;
    let value = checked(chosen, value)?;
    members().for_each(|field| clear(after, field.path));
    set(after, chosen.path, value);
    Ok(())
}

/// Refuses two fields that exclude each other.
pub(super) fn only_one(
    fields: &[Field],
    spec: &Map<String, Value>,
    group: &str,
) -> Result<(), ApiError> {
    let members = fields.iter().filter(|field| field.group == Some(group));
    let given: Vec<_> =
        members.filter(|it| at(spec, it.path).is_some()).map(|it| it.path).collect();
    if given.len() > 1 {
        let names = given.join("', 'spec.");
        return Err(ApiError::invalid(format!("only one of 'spec.{names}' can be set")));
    }
    Ok(())
}

fn checked(field: &Field, value: &Value) -> Result<Value, ApiError> {
    let wrong = |why| ApiError::invalid(format!("Field 'spec.{}' {why}", field.path));
    (field.check)(value).map_err(wrong)
}

fn refuse_fixed(field: &Field) -> Result<(), ApiError> {
    if field.mutable {
        return Ok(());
    }
    Err(ApiError::invalid(format!("Field 'spec.{}' cannot be updated", field.path)))
}

fn unset(path: &str) -> ApiError {
    ApiError::invalid(format!(
        "Field 'spec.{path}' is in update_mask, but the body does not set it"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;
    use serde_json::json;

    const FIELDS: &[Field] = &[
        Field::new("name", checks::text),
        Field::new("made_of", checks::text).fixed(),
        Field::new("ttl", checks::duration).one_of("expiration"),
        Field::new("never", checks::truth).one_of("expiration"),
        Field::new("size.min", checks::number),
        Field::new("size.max", checks::number),
        Field::new("size.settings", checks::settings),
    ];

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!() };
        map
    }

    fn update(mask: &str, body: Value, before: Value) -> Result<Value, String> {
        let after = updated(FIELDS, (mask, &object(body)), &object(before));
        after.map(Value::Object).map_err(|error| error.message)
    }

    #[test]
    fn a_mask_changes_what_it_names_and_nothing_else() {
        let before = json!({"name": "a", "size": {"min": 1.0, "max": 2.0}, "ttl": "9s"});
        let all = json!({"name": "b", "size": {"max": 4.0}, "never": true});
        let after = |mask| update(mask, all.clone(), before.clone()).unwrap();
        assert_eq!(after("spec.name")["name"], "b");
        assert_eq!(after("spec.size.max")["size"], json!({"min": 1.0, "max": 4.0}));
        assert_eq!(after("spec.size")["size"], json!({"max": 4.0}), "an object is replaced");
        for mask in ["spec.expiration", "spec.never"] {
            assert_eq!(after(mask)["never"], true);
            assert_eq!(after(mask).get("ttl"), None, "{mask}: one excludes the other");
        }
        let one = json!({"size": {"settings": {"work_mem": "8MB"}}});
        let two = json!({"size": {"settings": {"a.b": "1"}}});
        let both = update("spec.size.settings.work_mem", one, two).unwrap();
        assert_eq!(both["size"]["settings"], json!({"a.b": "1", "work_mem": "8MB"}));
    }

    #[test]
    fn masks_that_are_refused() {
        let body = json!({"name": "b", "made_of": "c", "size": 3});
        for (mask, why) in [
            ("", "required"),
            ("spec.colour", "unknown"),
            ("name", "unknown"),
            ("spec.made_of", "cannot be updated"),
            ("spec.expiration", "does not set"),
            ("spec.size.min", "does not set"),
            ("spec.size", "does not set"),
            ("*", "does not set"),
        ] {
            let message = update(mask, body.clone(), json!({})).unwrap_err();
            assert!(message.contains(why), "{mask}: {message}");
        }
        let both = json!({"ttl": "9s", "never": true});
        assert!(update("spec.expiration", both, json!({})).unwrap_err().contains("only one"));
    }
}
