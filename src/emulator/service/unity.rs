//! Unity Catalog: catalogs, schemas, tables and grants, as far as they are names that are kept.
//!
//! No data lies behind a table. Tables are made by a statement, as in the real service.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::store::Tx;

/// What can be in Unity Catalog here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Securable {
    Catalog,
    Schema,
    Table,
}

impl Securable {
    fn of_plural(word: &str) -> Option<Self> {
        [Self::Catalog, Self::Schema, Self::Table].into_iter().find(|it| it.plural() == word)
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Catalog, Self::Schema, Self::Table].into_iter().find(|it| it.word() == word)
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Catalog => "catalogs",
            Self::Schema => "schemas",
            Self::Table => "tables",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Schema => "schema",
            Self::Table => "table",
        }
    }

    /// How many parts its full name has.
    const fn parts(self) -> usize {
        match self {
            Self::Catalog => 1,
            Self::Schema => 2,
            Self::Table => 3,
        }
    }

    fn document(self, full_name: &str) -> String {
        format!("unity/{}/{full_name}", self.plural())
    }

    fn missing(self, full_name: &str) -> ApiError {
        let (word, upper) = (self.word(), self.word().to_uppercase());
        let mut text = format!("{word} '{full_name}' does not exist.");
        text[..1].make_ascii_uppercase();
        ApiError::new(404, &format!("{upper}_DOES_NOT_EXIST"), text)
    }

    fn exists(self, full_name: &str) -> ApiError {
        let (word, upper) = (self.word(), self.word().to_uppercase());
        let mut text = format!("{word} '{full_name}' already exists");
        text[..1].make_ascii_uppercase();
        ApiError::new(400, &format!("{upper}_ALREADY_EXISTS"), text)
    }
}

/// `/api/2.1/unity-catalog/…`
pub(super) fn answer(
    service: &Service,
    call: &Call,
    parts: &[&str],
) -> Result<Option<Value>, ApiError> {
    let securable = parts.first().and_then(|word| Securable::of_plural(word));
    service.store.transact(|tx| match (&*call.verb, securable, parts) {
        ("POST", Some(what @ (Securable::Catalog | Securable::Schema)), [_]) => {
            create_by_call(service, tx, call, what).map(Some)
        }
        ("GET", Some(what), [_]) => list(tx, call, what).map(Some),
        ("GET", Some(what), [_, name]) => need(tx, what, name).map(Some),
        ("PATCH", Some(what), [_, name]) => update(service, tx, call, (what, name)).map(Some),
        ("DELETE", Some(what), [_, name]) => {
            delete(tx, what, name, call.flag("force")?)?;
            Ok(Some(json!({})))
        }
        ("GET", Some(Securable::Table), [_, name, "exists"]) => {
            let found: Option<Value> = tx.get(&Securable::Table.document(name))?;
            Ok(Some(json!({ "table_exists": found.is_some() })))
        }
        ("GET" | "PATCH", None, ["permissions", kind, name]) => {
            permissions(tx, call, kind, name).map(Some)
        }
        ("GET", None, ["effective-permissions", kind, name]) => effective(tx, kind, name).map(Some),
        _ => Ok(None),
    })
}

fn create_by_call(
    service: &Service,
    tx: &Tx<'_>,
    call: &Call,
    what: Securable,
) -> Result<Value, ApiError> {
    let name = call.text("name")?;
    let full_name = match what {
        Securable::Schema => format!("{}.{name}", call.text("catalog_name")?),
        _ => name,
    };
    let mut info = Map::new();
    for field in ["comment", "properties", "storage_root"] {
        if let Some(value) = call.body.get(field) {
            info.insert(field.to_owned(), value.clone());
        }
    }
    create(service, tx, (what, &full_name), (&call.principal, info))
}

/// Makes something, in what has to be there.
pub(super) fn create(
    service: &Service,
    tx: &Tx<'_>,
    (what, full_name): (Securable, &str),
    (owner, mut info): (&str, Map<String, Value>),
) -> Result<Value, ApiError> {
    let parts: Vec<&str> = full_name.split('.').collect();
    if parts.len() != what.parts() || parts.iter().any(|part| part.is_empty() || part.contains('/'))
    {
        return Err(ApiError::invalid(format!("'{full_name}' is no name of a {}", what.word())));
    }
    if tx.get::<Value>(&what.document(full_name))?.is_some() {
        return Err(what.exists(full_name));
    }
    let now = service.clock.now().as_millis();
    let mut put = |field: &str, value: Value| drop(info.insert(field.to_owned(), value));
    put("name", json!(parts.last()));
    put("full_name", json!(full_name));
    put("owner", json!(owner));
    put("created_at", json!(now));
    put("updated_at", json!(now));
    if what != Securable::Catalog {
        need(tx, Securable::Catalog, parts[0])?;
        put("catalog_name", json!(parts[0]));
    }
    if what == Securable::Table {
        need(tx, Securable::Schema, &parts[..2].join("."))?;
        put("schema_name", json!(parts[1]));
    }
    let info = Value::Object(info);
    tx.put(&what.document(full_name), &info)?;
    if what == Securable::Catalog {
        let schema = Map::from_iter([("comment".to_owned(), json!("Default schema"))]);
        create(service, tx, (Securable::Schema, &format!("{full_name}.default")), (owner, schema))?;
    }
    Ok(info)
}

pub(super) fn need(tx: &Tx<'_>, what: Securable, full_name: &str) -> Result<Value, ApiError> {
    tx.get(&what.document(full_name))?.ok_or_else(|| what.missing(full_name))
}

fn list(tx: &Tx<'_>, call: &Call, what: Securable) -> Result<Value, ApiError> {
    let within = match what {
        Securable::Catalog => String::new(),
        Securable::Schema => format!("{}.", call.required("catalog_name")?),
        Securable::Table => {
            format!("{}.{}.", call.required("catalog_name")?, call.required("schema_name")?)
        }
    };
    let all: Vec<Value> = tx.list(&format!("unity/{}", what.plural()))?;
    let name = |it: &Value| it["full_name"].as_str().unwrap_or_default().to_owned();
    let named = all.into_iter().map(|it| (name(&it), it));
    let inside = named.filter(|(name, _)| name.starts_with(&within)).collect();
    let size = call.parameter("max_results");
    let page = super::page::Page::read(size, call.parameter("page_token"), 1000)?;
    Ok(page.of(what.plural(), inside))
}

fn update(
    service: &Service,
    tx: &Tx<'_>,
    call: &Call,
    (what, full_name): (Securable, &str),
) -> Result<Value, ApiError> {
    let mut info = need(tx, what, full_name)?;
    for field in ["comment", "properties", "owner"] {
        if let Some(value) = call.body.get(field) {
            info[field] = value.clone();
        }
    }
    info["updated_at"] = json!(service.clock.now().as_millis());
    tx.put(&what.document(full_name), &info)?;
    Ok(info)
}

/// Removes something, and with `force` what is in it.
pub(super) fn delete(
    tx: &Tx<'_>,
    what: Securable,
    full_name: &str,
    force: bool,
) -> Result<(), ApiError> {
    need(tx, what, full_name)?;
    for inner in [Securable::Table, Securable::Schema] {
        if inner.parts() <= what.parts() {
            continue;
        }
        let all: Vec<Value> = tx.list(&format!("unity/{}", inner.plural()))?;
        let prefix = format!("{full_name}.");
        for name in all.iter().filter_map(|it| it["full_name"].as_str()) {
            if !name.starts_with(&prefix) {
                continue;
            }
            if !force && !name.ends_with(".default") {
                let text = format!("Cannot delete {} '{full_name}': it is not empty", what.word());
                return Err(ApiError::forbidden_by_state(text));
            }
            tx.remove(&inner.document(name))?;
            tx.remove(&grants_of(inner, name))?;
        }
    }
    tx.remove(&what.document(full_name))?;
    tx.remove(&grants_of(what, full_name))?;
    Ok(())
}

fn grants_of(what: Securable, full_name: &str) -> String {
    format!("unity/grants/{}:{full_name}", what.word())
}

/// Who may do what with something itself.
fn permissions(tx: &Tx<'_>, call: &Call, kind: &str, name: &str) -> Result<Value, ApiError> {
    let what = securable(kind)?;
    need(tx, what, name)?;
    let document = grants_of(what, name);
    let mut grants: Map<String, Value> = tx.get(&document)?.unwrap_or_default();
    if call.verb == "PATCH" {
        for change in call.body["changes"].as_array().into_iter().flatten() {
            let principal = change["principal"].as_str().filter(|it| !it.is_empty());
            let principal = principal
                .ok_or_else(|| ApiError::invalid("Field 'changes.principal' is required"))?;
            change_grant(&mut grants, principal, change);
        }
        tx.put(&document, &grants)?;
    }
    Ok(assignments(&grants))
}

fn change_grant(grants: &mut Map<String, Value>, principal: &str, change: &Value) {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|it| it.as_str()).map(|it| it.replace(' ', "_").to_uppercase()).collect()
    };
    let mut held = grants.get(principal).map(texts).unwrap_or_default();
    held.retain(|it| !texts(&change["remove"]).contains(it));
    held.extend(texts(&change["add"]));
    held.sort();
    held.dedup();
    if held.is_empty() {
        grants.remove(principal);
    } else {
        grants.insert(principal.to_owned(), json!(held));
    }
}

fn assignments(grants: &Map<String, Value>) -> Value {
    let one = |(principal, privileges): (&String, &Value)| json!({ "principal": principal, "privileges": privileges });
    json!({ "privilege_assignments": grants.iter().map(one).collect::<Vec<_>>() })
}

/// Who may do what with something, also by what it is in.
fn effective(tx: &Tx<'_>, kind: &str, name: &str) -> Result<Value, ApiError> {
    let what = securable(kind)?;
    need(tx, what, name)?;
    let parts: Vec<&str> = name.split('.').collect();
    let mut found: Map<String, Value> = Map::new();
    for outer in [Securable::Catalog, Securable::Schema, Securable::Table] {
        if outer.parts() > what.parts() {
            break;
        }
        let outer_name = parts[..outer.parts().min(parts.len())].join(".");
        let grants: Map<String, Value> =
            tx.get(&grants_of(outer, &outer_name))?.unwrap_or_default();
        for (principal, privileges) in grants {
            let list = found.entry(principal).or_insert_with(|| json!([]));
            for privilege in privileges.as_array().into_iter().flatten() {
                let mut entry = json!({ "privilege": privilege });
                if outer != what {
                    entry["inherited_from_type"] = json!(outer.word().to_uppercase());
                    entry["inherited_from_name"] = json!(outer_name);
                }
                if let Value::Array(list) = list {
                    list.push(entry);
                }
            }
        }
    }
    Ok(assignments(&found))
}

fn securable(kind: &str) -> Result<Securable, ApiError> {
    Securable::of_word(&kind.to_lowercase())
        .ok_or_else(|| ApiError::not_emulated(&format!("keep permissions of a {kind}")))
}
