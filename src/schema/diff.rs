//! How two snapshots differ, object by object, and whom it can break. PURE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::{Body, Column, Kind, Object, ObjectId};
use super::snapshot::{Snapshot, Uncovered};

/// What happened to an object.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is only in the second one.
    Added,
    /// It is only in the first one.
    Removed,
    /// It is in both, and differs.
    Changed,
}

/// Whether programs that work with the first can go on with the second.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// They can.
    Additive,
    /// Some of them cannot: something they use is gone, or something they do is refused.
    Breaking,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttributeChange {
    /// Which one, such as `type` or `not_null`.
    pub attribute: String,
    /// What it was.
    pub from: Value,
    /// What it is.
    pub to: Value,
}

/// An object that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What happened to it.
    pub action: Action,
    /// What kind of object it is.
    pub kind: Kind,
    /// Its name.
    pub object: String,
    /// Whom it can break.
    pub impact: Impact,
    /// Why it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The table that was added or removed together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The type of a column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column_type: Option<String>,
    /// The fields that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributeChange>,
}

/// All that differs, and what was not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// The objects that differ.
    pub differences: Vec<Difference>,
    /// What one of them has and nobody compared.
    pub uncovered: Vec<Uncovered>,
}

impl Diff {
    /// Whether anything differs.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }

    /// Whether programs that work with the first can go on with the second.
    pub fn impact(&self) -> Impact {
        let impacts = self.differences.iter().map(|difference| difference.impact);
        impacts.max().unwrap_or(Impact::Additive)
    }
}

/// Compares two snapshots. The order of columns is no difference.
pub fn compare(from: &Snapshot, to: &Snapshot) -> Diff {
    let mut differences = Vec::new();
    for (id, before) in &from.objects {
        match to.get(id) {
            None => differences.push(removed(id, before, to)),
            Some(after) => differences.extend(changed(id, before, after)),
        }
    }
    let new = to.objects.iter().filter(|(id, _)| from.get(id).is_none());
    differences.extend(new.map(|(id, after)| added(id, after, from, to)));
    differences.sort_by(|one, other| {
        (one.kind, &one.object, one.action).cmp(&(other.kind, &other.object, other.action))
    });
    let mut uncovered = from.uncovered.clone();
    uncovered.extend(to.uncovered.iter().filter(|one| !from.uncovered.contains(one)).cloned());
    Diff { differences, uncovered }
}

fn difference(action: Action, id: &ObjectId, why: Option<&str>) -> Difference {
    Difference {
        action,
        kind: id.kind,
        object: id.to_string(),
        impact: if why.is_some() { Impact::Breaking } else { Impact::Additive },
        why: why.map(str::to_owned),
        within: None,
        column_type: None,
        attributes: Vec::new(),
    }
}

fn column_type(object: &Object) -> Option<String> {
    match &object.body {
        Body::Column(column) => Some(column.of_type.clone()),
        _ => None,
    }
}

fn removed(id: &ObjectId, object: &Object, to: &Snapshot) -> Difference {
    let within = id.table().filter(|table| to.get(table).is_none());
    let why = match (id.kind, &object.body) {
        (Kind::Index, Body::Index(index)) if !index.is_unique => None,
        (Kind::Statistics | Kind::Constraint | Kind::Index, _) => None,
        (Kind::Default, _) => Some("inserts that leave the column out get NULL or are refused"),
        (Kind::Trigger | Kind::Rule, _) => Some("what it did no longer happens"),
        (Kind::Policy, _) => Some("rows become visible or invisible to others"),
        _ => Some("whoever uses it fails"),
    };
    let column_type = column_type(object);
    let within = within.map(|table| table.to_string());
    Difference { within, column_type, ..difference(Action::Removed, id, why) }
}

fn added(id: &ObjectId, object: &Object, from: &Snapshot, to: &Snapshot) -> Difference {
    let is_new = |table: &ObjectId| from.get(table).is_none() && to.get(table).is_some();
    let within = id.table().filter(is_new);
    let why = match (&within, &object.body) {
        (None, Body::Column(column)) if needs_value(id, column, to) => {
            Some("inserts that do not know the column are refused")
        }
        (None, Body::Constraint(_)) => Some("rows that were accepted can be refused"),
        (None, Body::Index(index)) if index.is_unique => {
            Some("rows that were accepted can be refused")
        }
        (None, Body::Trigger(_)) => Some("it acts on, or refuses, what was plainly written before"),
        (None, Body::Policy(policy)) if !policy.permissive => {
            Some("rows become invisible or are refused")
        }
        _ => None,
    };
    let column_type = column_type(object);
    let within = within.map(|table| table.to_string());
    Difference { within, column_type, ..difference(Action::Added, id, why) }
}

fn needs_value(id: &ObjectId, column: &Column, to: &Snapshot) -> bool {
    let default = ObjectId { kind: Kind::Default, ..id.clone() };
    column.not_null
        && column.identity.is_empty()
        && column.generated.is_empty()
        && to.get(&default).is_none()
}

fn changed(id: &ObjectId, before: &Object, after: &Object) -> Option<Difference> {
    let (old, new) = (before.fields(), after.fields());
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let absent = Value::Null;
    let attributes: Vec<_> = names
        .into_iter()
        .map(|name| (name, old.get(name).unwrap_or(&absent), new.get(name).unwrap_or(&absent)))
        .filter(|(_, from, to)| from != to)
        .map(|(name, from, to)| AttributeChange {
            attribute: name.clone(),
            from: from.clone(),
            to: to.clone(),
        })
        .collect();
    if attributes.is_empty() {
        return None;
    }
    let why = breaks(&before.body, &after.body).or_else(|| {
        let is_revoked = before.grants.iter().any(|grant| !after.grants.contains(grant));
        is_revoked.then_some("somebody loses a privilege")
    });
    Some(Difference {
        attributes,
        column_type: column_type(after),
        ..difference(Action::Changed, id, why)
    })
}

/// Why a change of the definition can break somebody.
fn breaks(before: &Body, after: &Body) -> Option<&'static str> {
    match (before, after) {
        (same, other) if same == other => None,
        (Body::Enum { labels: old }, Body::Enum { labels: new }) => {
            let is_kept = old.iter().all(|label| new.contains(label));
            (!is_kept).then_some("a value is gone")
        }
        (Body::Column(old), Body::Column(new)) => breaks_column(old, new),
        (Body::Table(old), Body::Table(new)) => {
            let closes = !old.row_security && new.row_security
                || !old.forced_row_security && new.forced_row_security;
            let opens = old.row_security && !new.row_security
                || old.forced_row_security && !new.forced_row_security;
            if closes {
                Some("rows become invisible to whoever no policy lets in")
            } else if opens {
                Some("rows become visible to others")
            } else if (&old.partition_of, &old.bound, &old.partition_key)
                != (&new.partition_of, &new.bound, &new.partition_key)
            {
                Some("rows belong elsewhere")
            } else {
                None
            }
        }
        (Body::View(old), Body::View(new)) => {
            let is_kept = new.columns.starts_with(&old.columns);
            (!is_kept).then_some("a column of the view is gone or another one")
        }
        (Body::Routine(old), Body::Routine(new)) => {
            (old.signature != new.signature).then_some("it is called or answers differently")
        }
        (Body::Domain(old), Body::Domain(new)) => {
            let is_looser = old.base == new.base
                && (old.not_null || !new.not_null)
                && new.checks.iter().all(|(name, check)| old.checks.get(name) == Some(check));
            (!is_looser).then_some("values that were accepted can be refused")
        }
        (Body::Default { .. }, Body::Default { .. })
        | (Body::Extension(_), Body::Extension(_))
        | (Body::Text { .. }, Body::Text { .. })
        | (Body::Sequence(_), Body::Sequence(_)) => None,
        (Body::Index(old), Body::Index(new)) => {
            (!old.is_unique && new.is_unique).then_some("rows that were accepted can be refused")
        }
        (Body::Constraint(_), _) => Some("rows that were accepted can be refused"),
        (Body::Policy(_), _) => Some("rows become visible or invisible to others"),
        _ => Some("it is defined differently"),
    }
}

fn breaks_column(old: &Column, new: &Column) -> Option<&'static str> {
    if old.of_type != new.of_type && !is_wider(&old.of_type, &new.of_type) {
        return Some("its values have another type");
    }
    if !old.not_null && new.not_null {
        return Some("NULL is refused");
    }
    if (&old.generated, &old.expression) != (&new.generated, &new.expression) {
        return Some("its values come from elsewhere");
    }
    if old.identity != new.identity && (new.identity == "a" || new.identity.is_empty()) {
        return Some("inserts must name it, or must not");
    }
    None
}

/// Whether every value of one type is written the same in the other.
fn is_wider(old: &str, new: &str) -> bool {
    let length = |kind: &str| {
        let inner = kind.strip_prefix("character varying")?;
        match inner.strip_prefix('(') {
            Some(rest) => rest.strip_suffix(')')?.parse::<u32>().ok(),
            None => inner.is_empty().then_some(u32::MAX),
        }
    };
    match (length(old), length(new)) {
        (Some(old), Some(new)) => old <= new,
        (Some(_), None) => new == "text",
        (None, _) => {
            matches!((old, new), ("smallint", "integer" | "bigint") | ("integer", "bigint"))
        }
    }
}
