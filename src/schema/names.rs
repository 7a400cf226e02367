//! How statements call objects. PURE.

use super::object::{Body, Kind, Object, ObjectId};
use crate::kernel::{Ident, QualifiedName};

/// A text as a SQL literal.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// `schema.name` of a table, quoted.
pub(super) fn pair([schema, name]: &[String; 2]) -> String {
    QualifiedName::new(schema, name).to_string()
}

/// The relation that an object belongs to, quoted.
pub(super) fn relation(id: &ObjectId) -> String {
    QualifiedName::new(&id.schema, &id.relation).to_string()
}

/// A routine's name with the types of its arguments: the name quoted, the types as the server writes
/// them.
fn routine(id: &ObjectId) -> String {
    let (name, arguments) = id.name.split_once('(').unwrap_or((&id.name, ")"));
    format!("{}({arguments}", QualifiedName::new(&id.schema, name))
}

/// The name of an object that stands by itself, quoted.
pub(super) fn name(id: &ObjectId) -> String {
    match id.kind {
        Kind::Schema | Kind::Extension => Ident::new(&id.name).to_string(),
        Kind::Routine => routine(id),
        _ => QualifiedName::new(&id.schema, &id.name).to_string(),
    }
}

/// What a routine is called in statements.
pub(super) fn routine_word(object: &Object) -> &'static str {
    match &object.body {
        Body::Routine(routine) if routine.kind == "p" => "procedure",
        _ => "function",
    }
}

/// How `comment on` and `drop` call an object.
pub(super) fn called(id: &ObjectId, object: &Object) -> String {
    let name = name(id);
    let own = || Ident::new(&id.name);
    let on = || relation(id);
    match (id.kind, &object.body) {
        (Kind::Type, Body::Domain(_)) => format!("domain {name}"),
        (Kind::Routine, _) => format!("{} {name}", routine_word(object)),
        (Kind::View, Body::View(view)) if view.materialized => format!("materialized view {name}"),
        (Kind::Column, _) => format!("column {}.{}", on(), own()),
        (Kind::Constraint | Kind::Trigger | Kind::Policy | Kind::Rule, _) => {
            format!("{} {} on {}", id.kind.as_str(), own(), on())
        }
        (Kind::Index, _) => format!("index {}", QualifiedName::new(&id.schema, &id.name)),
        (kind, _) => format!("{} {name}", kind.as_str()),
    }
}

/// How `grant` calls an object.
pub(super) fn grant_object(id: &ObjectId, object: &Object) -> String {
    match id.kind {
        Kind::Table | Kind::View => format!("table {}", name(id)),
        Kind::Column => format!("table {}", relation(id)),
        Kind::Routine => format!("{} {}", routine_word(object), name(id)),
        kind => format!("{} {}", kind.as_str(), name(id)),
    }
}
