//! The statements that turn one database into another, in an order in which each finds what it needs.
//! PURE.
//!
//! First goes what has to go, what stands on it before it; then comes what is made or altered, what it
//! stands on before it; at last what altered objects have let go of.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alter::alter;
use super::create::create;
use super::fate::{Fate, Fates};
use super::names::{called, name, relation};
use super::object::{Body, Kind, Object, ObjectId};
use super::order::sorted;
use super::snapshot::Snapshot;
use crate::kernel::{Ident, QualifiedName};

/// One statement on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Statement {
    /// The object that it is about.
    pub object: String,
    /// Its text, without a semicolon.
    pub sql: String,
    /// What it destroys, when it destroys something that cannot be brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroys: Option<String>,
    /// Whether it has to be committed before what follows can use it (a new value of an enum).
    #[serde(default)]
    pub commits_first: bool,
}

/// The statements that turn `from` into `to`.
pub fn script(from: &Snapshot, to: &Snapshot) -> Vec<Statement> {
    let fates = Fates::new(from, to);
    let late = fates.late();
    let mut writer = Writer { fates: &fates, done: Vec::new() };
    let early = |id: &&ObjectId| fates.goes(id) && !late.contains(id) && !fates.is_swapped(id);
    writer.drops(&from.objects.keys().filter(early).collect());
    writer.makes();
    writer.swapped_out();
    writer.drops(&late);
    writer.done
}

struct Writer<'w, 'a> {
    fates: &'w Fates<'a>,
    done: Vec<Statement>,
}

impl<'a> Writer<'_, 'a> {
    fn say(&mut self, id: &ObjectId, sql: String, destroys: Option<&str>) {
        let commits_first = sql.starts_with("alter type") && sql.contains(" add value ");
        let destroys = destroys.map(str::to_owned);
        self.done.push(Statement { object: id.to_string(), sql, destroys, commits_first });
    }

    fn drops(&mut self, gone: &BTreeSet<&'a ObjectId>) {
        let from = self.fates.from;
        let swallowed = swallowed(from, gone);
        let chief = |id: &'a ObjectId| -> &'a ObjectId { swallowed.get(id).copied().unwrap_or(id) };
        let mut needs: BTreeMap<&ObjectId, Vec<&'a ObjectId>> = BTreeMap::new();
        for id in gone {
            let list = needs.entry(chief(id)).or_default();
            list.extend(from.needs(id).into_iter().map(chief));
        }
        let nodes: BTreeSet<&'a ObjectId> = gone.iter().map(|id| chief(id)).collect();
        let order = sorted(&nodes, |id| needs.get(id).cloned().unwrap_or_default());
        for id in order.into_iter().rev() {
            if let Some(object) = from.get(id) {
                let is_for_good = self.fates.fate(id) == Fate::Remove;
                let destroys = destroyed(id, object, is_for_good);
                self.say(id, drop_statement(id, object), destroys);
            }
        }
    }

    fn makes(&mut self) {
        let (fates, to) = (self.fates, self.fates.to);
        let made: BTreeSet<&'a ObjectId> = to
            .objects
            .keys()
            .filter(|id| fates.comes(id) || fates.fate(id) == Fate::Alter)
            .collect();
        let inside = inside(fates, &made);
        let chief = |id: &'a ObjectId| -> &'a ObjectId { inside.get(id).copied().unwrap_or(id) };
        let mut needs: BTreeMap<&ObjectId, Vec<&'a ObjectId>> = BTreeMap::new();
        for id in &made {
            let list = needs.entry(chief(id)).or_default();
            list.extend(to.needs(id).into_iter().map(chief));
        }
        let nodes: BTreeSet<&'a ObjectId> = made.iter().map(|id| chief(id)).collect();
        for id in sorted(&nodes, |id| needs.get(id).cloned().unwrap_or_default()) {
            let Some(after) = to.get(id) else { continue };
            if fates.comes(id) {
                self.make(id, after, &inside);
            } else if let Some(before) = fates.from.get(id) {
                self.alter(id, before, after);
            }
        }
    }

    fn make(&mut self, id: &ObjectId, object: &Object, inside: &BTreeMap<&ObjectId, &ObjectId>) {
        let to = self.fates.to;
        if self.fates.is_swapped(id) {
            let away = Ident::new(swapped_name(id));
            self.say(id, format!("alter type {} rename to {away}", name(id)), None);
        }
        let default = |column: &ObjectId| {
            let default = ObjectId { kind: Kind::Default, ..column.clone() };
            match (inside.contains_key(&default), to.get(&default).map(|object| &object.body)) {
                (true, Some(Body::Default { expression })) => Some(expression.as_str()),
                _ => None,
            }
        };
        let inline: Vec<_> = match id.kind {
            Kind::Table => to
                .columns(id)
                .into_iter()
                .filter(|(column, _)| inside.get(column) == Some(&id))
                .map(|(column, object)| (column, object, default(column)))
                .collect(),
            Kind::Column => vec![(id, object, default(id))],
            _ => Vec::new(),
        };
        for sql in create(id, object, &inline) {
            self.say(id, sql, None);
        }
    }

    fn alter(&mut self, id: &ObjectId, before: &Object, after: &Object) {
        let retype = self.fates.retyped.contains(id);
        for sql in alter(id, before, after, retype) {
            let destroys =
                sql.contains(" drop attribute ").then_some("the values of the attribute");
            self.say(id, sql, destroys);
        }
    }

    /// Types that were renamed out of the way, and that no column has any more.
    fn swapped_out(&mut self) {
        let fates = self.fates;
        let swapped: Vec<_> =
            fates.from.objects.iter().filter(|(id, _)| fates.is_swapped(id)).collect();
        for (id, _) in swapped.into_iter().rev() {
            let away = QualifiedName::new(&id.schema, swapped_name(id));
            let destroys =
                "the rows that hold a value which the new type does not have stop the change";
            self.say(id, format!("drop type {away}"), Some(destroys));
        }
    }
}

/// What a type is called while columns move over to its successor.
fn swapped_name(id: &ObjectId) -> String {
    let stem: String = id.name.chars().take(40).collect();
    format!("{stem}_before_change")
}

/// Parts that go with the table that is dropped, as long as nothing outside of it holds them.
fn swallowed<'a>(
    from: &'a Snapshot,
    gone: &BTreeSet<&'a ObjectId>,
) -> BTreeMap<&'a ObjectId, &'a ObjectId> {
    let mut chiefs: BTreeMap<&'a ObjectId, &'a ObjectId> = BTreeMap::new();
    let mut changed = true;
    while changed {
        changed = false;
        for id in gone.iter().copied().filter(|id| id.kind != Kind::Table) {
            if chiefs.contains_key(id) {
                continue;
            }
            let Some(object) = from.get(id) else { continue };
            let Some(table) = owner(id, object).and_then(|table| gone.get(&table).copied()) else {
                if let Some(column) = default_of(id, object, gone) {
                    chiefs.insert(id, column);
                    changed = true;
                }
                continue;
            };
            let is_own = |need: &ObjectId| {
                need == table
                    || chiefs.get(need) == Some(&table)
                    || matches!(need.kind, Kind::Schema | Kind::Extension | Kind::Type)
            };
            if object.needs.iter().all(is_own) {
                chiefs.insert(id, table);
                changed = true;
            }
        }
    }
    chiefs
}

/// A default that goes with its column.
fn default_of<'a>(
    id: &ObjectId,
    object: &Object,
    gone: &BTreeSet<&'a ObjectId>,
) -> Option<&'a ObjectId> {
    let column = ObjectId { kind: Kind::Column, ..id.clone() };
    let own = |need: &ObjectId| *need == column || Some(need) == id.table().as_ref();
    (id.kind == Kind::Default && object.needs.iter().all(own))
        .then(|| gone.get(&column).copied())
        .flatten()
}

/// The table that an object goes with; foreign keys lead elsewhere and go by themselves.
fn owner(id: &ObjectId, object: &Object) -> Option<ObjectId> {
    match &object.body {
        Body::Constraint(constraint) if constraint.kind == "f" => None,
        Body::Sequence(sequence) => sequence
            .owned_by
            .as_ref()
            .map(|[schema, table, _]| ObjectId::new(Kind::Table, schema, table)),
        _ => id.table(),
    }
}

/// New columns that stand inside the statement that makes their table, and defaults inside that of
/// their column.
fn inside<'a>(
    fates: &Fates<'a>,
    made: &BTreeSet<&'a ObjectId>,
) -> BTreeMap<&'a ObjectId, &'a ObjectId> {
    let mut chiefs: BTreeMap<&'a ObjectId, &'a ObjectId> = BTreeMap::new();
    let comes = |id: &ObjectId| made.get(id).copied().filter(|id| fates.comes(id));
    for id in made.iter().copied().filter(|id| id.kind == Kind::Column && fates.comes(id)) {
        let Some(table) = id.table().and_then(|table| comes(&table)) else { continue };
        let is_own = |need: &&ObjectId| {
            *need == table
                || need.table().as_ref() == Some(table)
                || matches!(need.kind, Kind::Schema | Kind::Extension | Kind::Type)
        };
        if fates.to.needs(id).iter().all(is_own) {
            chiefs.insert(id, table);
        }
    }
    for id in made.iter().copied().filter(|id| id.kind == Kind::Default && fates.comes(id)) {
        let column = ObjectId { kind: Kind::Column, ..id.clone() };
        let Some(column) = comes(&column) else { continue };
        let is_own = |need: &&ObjectId| {
            *need == column
                || Some(*need) == id.table().as_ref()
                || matches!(need.kind, Kind::Schema | Kind::Extension | Kind::Type)
        };
        if fates.to.needs(id).iter().all(is_own) {
            let chief = chiefs.get(column).copied().unwrap_or(column);
            chiefs.insert(id, chief);
        }
    }
    chiefs
}

fn drop_statement(id: &ObjectId, object: &Object) -> String {
    let own = Ident::new(&id.name);
    match id.kind {
        Kind::Column => format!("alter table {} drop column {own}", relation(id)),
        Kind::Default => format!("alter table {} alter column {own} drop default", relation(id)),
        Kind::Constraint => format!("alter table {} drop constraint {own}", relation(id)),
        Kind::Type if matches!(object.body, Body::Domain(_)) => format!("drop domain {}", name(id)),
        _ => format!("drop {}", called(id, object)),
    }
}

/// What is lost with an object. A generated column, an index or a view can be made again.
fn destroyed(id: &ObjectId, object: &Object, for_good: bool) -> Option<&'static str> {
    match (id.kind, &object.body) {
        (Kind::Table, _) => Some("the rows of the table"),
        (Kind::Column, Body::Column(column)) if column.generated.is_empty() => {
            Some("the values of the column")
        }
        (Kind::Sequence, _) => Some("the last value of the sequence"),
        (Kind::Schema | Kind::Extension, _) if for_good => Some("what else belongs to it"),
        _ => None,
    }
}
