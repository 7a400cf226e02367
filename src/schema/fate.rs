//! What becomes of each object on the way from one snapshot to another. PURE.
//!
//! What differs is altered where SQL can do that, and else replaced: dropped and made again. What
//! stands on a replaced object has to step aside and is replaced as well, until nothing changes any
//! more. Columns never step aside for their type: they are moved over to the new one.

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Attribute, Body, Kind, Object, ObjectId};
use super::snapshot::Snapshot;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Alter,
    Replace,
    Add,
    Remove,
}

/// What becomes of all objects.
pub(super) struct Fates<'a> {
    pub(super) from: &'a Snapshot,
    pub(super) to: &'a Snapshot,
    pub(super) of: BTreeMap<&'a ObjectId, Fate>,
    /// Columns whose type changes, or whose type is replaced under them.
    pub(super) retyped: BTreeSet<&'a ObjectId>,
}

impl<'a> Fates<'a> {
    pub(super) fn new(from: &'a Snapshot, to: &'a Snapshot) -> Self {
        let mut fates = Self { from, to, of: BTreeMap::new(), retyped: BTreeSet::new() };
        fates.first_look();
        while fates.spread() {}
        fates
    }

    pub(super) fn fate(&self, id: &ObjectId) -> Fate {
        self.of.get(id).copied().unwrap_or(Fate::Keep)
    }

    /// Whether the object is dropped, for good or to be made again.
    pub(super) fn goes(&self, id: &ObjectId) -> bool {
        matches!(self.fate(id), Fate::Remove | Fate::Replace)
    }

    /// Whether the object is made.
    pub(super) fn comes(&self, id: &ObjectId) -> bool {
        matches!(self.fate(id), Fate::Add | Fate::Replace)
    }

    /// Whether a type is replaced while columns that have it stay: it cannot simply be dropped first.
    pub(super) fn is_swapped(&self, id: &ObjectId) -> bool {
        id.kind == Kind::Type
            && self.fate(id) == Fate::Replace
            && self.retyped.iter().any(|column| needs(self.from, column, id))
    }

    /// Removed objects that something lets go of only when it is altered, with what they stand on:
    /// they are dropped at the end.
    pub(super) fn late(&self) -> BTreeSet<&'a ObjectId> {
        let mut late = BTreeSet::new();
        for id in self.from.objects.keys().filter(|id| self.fate(id) == Fate::Alter) {
            let removed = self.from.needs(id).into_iter();
            late.extend(removed.filter(|need| self.fate(need) == Fate::Remove));
        }
        let mut open: Vec<_> = late.iter().copied().collect();
        while let Some(id) = open.pop() {
            let needs = self.from.needs(id).into_iter();
            let parts = self.from.objects.keys().filter(|part| part.table().as_ref() == Some(id));
            for other in needs.chain(parts) {
                if self.fate(other) == Fate::Remove && late.insert(other) {
                    open.push(other);
                }
            }
        }
        late
    }

    fn first_look(&mut self) {
        for (id, before) in &self.from.objects {
            let fate = match self.to.get(id) {
                None if self.changes_parent(id) => Fate::Keep,
                None => Fate::Remove,
                Some(after) if before.body != after.body => {
                    if is_retyped(&before.body, &after.body) {
                        self.retyped.insert(id);
                    }
                    if can_alter(&before.body, &after.body) { Fate::Alter } else { Fate::Replace }
                }
                Some(after) if before.comment != after.comment || before.grants != after.grants => {
                    Fate::Alter
                }
                Some(_) => Fate::Keep,
            };
            self.of.insert(id, fate);
        }
        for id in self.to.objects.keys().filter(|id| !self.from.objects.contains_key(*id)) {
            let fate = if self.changes_parent(id) { Fate::Keep } else { Fate::Add };
            self.of.insert(id, fate);
        }
    }

    /// A table that gets a parent hands its columns over to it, and gets them back when it loses it:
    /// nothing is dropped or added.
    fn changes_parent(&self, id: &ObjectId) -> bool {
        let parents = |side: &Snapshot| {
            id.table().and_then(|table| match side.get(&table).map(|object| &object.body) {
                Some(Body::Table(table)) => {
                    Some((table.partition_of.is_some(), table.inherits.clone()))
                }
                _ => None,
            })
        };
        matches!((parents(self.from), parents(self.to)), (Some(old), Some(new)) if old != new)
    }

    /// One round; says whether anything changed.
    fn spread(&mut self) -> bool {
        let mut changed = false;
        for (id, object) in &self.from.objects {
            let fate = self.fate(id);
            if !matches!(fate, Fate::Keep | Fate::Alter) || self.to.get(id).is_none() {
                continue;
            }
            for need in self.from.needs(id) {
                match self.consequence(id, object, need) {
                    Consequence::None => {}
                    Consequence::Retype => {
                        changed |= self.retyped.insert(id);
                        self.of.insert(id, Fate::Alter);
                    }
                    Consequence::Replace => {
                        self.of.insert(id, Fate::Replace);
                        changed = true;
                        break;
                    }
                }
            }
        }
        changed
    }

    fn consequence(&self, id: &ObjectId, object: &Object, need: &ObjectId) -> Consequence {
        match self.fate(need) {
            Fate::Replace if id.kind == Kind::Column && need.kind == Kind::Type => {
                Consequence::Retype
            }
            Fate::Remove if self.fate(id) == Fate::Alter && lets_go(id.kind) => Consequence::None,
            Fate::Replace | Fate::Remove => Consequence::Replace,
            Fate::Alter if self.retyped.contains(need) && must_step_aside(id, object, need) => {
                Consequence::Replace
            }
            Fate::Alter | Fate::Keep | Fate::Add => Consequence::None,
        }
    }
}

enum Consequence {
    None,
    Retype,
    Replace,
}

fn needs(side: &Snapshot, id: &ObjectId, need: &ObjectId) -> bool {
    side.get(id).is_some_and(|object| object.needs.contains(need))
}

/// Kinds whose alteration rewrites what they need.
const fn lets_go(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Column
            | Kind::Default
            | Kind::View
            | Kind::Routine
            | Kind::Policy
            | Kind::Sequence
            | Kind::Table
    )
}

/// Whether the server refuses to change a column's type while this stands on it. It rebuilds indexes
/// and constraints by itself; a foreign key has another column on its far side.
fn must_step_aside(id: &ObjectId, object: &Object, column: &ObjectId) -> bool {
    match (&object.body, id.kind) {
        (Body::Constraint(constraint), _) => constraint.kind == "f",
        (
            _,
            Kind::View | Kind::Rule | Kind::Policy | Kind::Trigger | Kind::Routine | Kind::Column,
        ) => true,
        (_, Kind::Default) => id.name == column.name,
        _ => false,
    }
}

fn is_retyped(before: &Body, after: &Body) -> bool {
    match (before, after) {
        (Body::Column(before), Body::Column(after)) => {
            (&before.of_type, &before.collation) != (&after.of_type, &after.collation)
        }
        _ => false,
    }
}

fn can_alter(before: &Body, after: &Body) -> bool {
    match (before, after) {
        (Body::Enum { labels: before }, Body::Enum { labels: after }) => {
            let mut rest = after.iter();
            before.iter().all(|label| rest.any(|other| other == label))
        }
        (Body::Domain(before), Body::Domain(after)) => {
            (&before.base, &before.collation) == (&after.base, &after.collation)
        }
        (Body::Composite { attributes: before }, Body::Composite { attributes: after }) => {
            only_adds_and_drops(before, after)
        }
        (Body::Table(before), Body::Table(after)) => before.partition_key == after.partition_key,
        (Body::Column(before), Body::Column(after)) => {
            let same =
                (&before.generated, &before.expression) == (&after.generated, &after.expression);
            same || before.generated == "s" && after.generated.is_empty()
        }
        (Body::Constraint(before), Body::Constraint(after)) => {
            let plain = before.definition.strip_suffix(" NOT VALID");
            !before.validated && after.validated && plain == Some(after.definition.as_str())
        }
        (Body::View(before), Body::View(after)) => {
            !before.materialized
                && !after.materialized
                && after.columns.starts_with(&before.columns)
        }
        (Body::Routine(before), Body::Routine(after)) => {
            (&before.kind, &before.signature) == (&after.kind, &after.signature)
        }
        (Body::Trigger(before), Body::Trigger(after)) => before.definition == after.definition,
        (Body::Policy(before), Body::Policy(after)) => {
            let same = (before.permissive, &before.command) == (after.permissive, &after.command);
            let kept = |before: &Option<String>, after: &Option<String>| {
                before.is_none() || after.is_some()
            };
            same && kept(&before.using_expression, &after.using_expression)
                && kept(&before.check_expression, &after.check_expression)
        }
        (Body::Extension(_), Body::Extension(_))
        | (Body::Sequence(_), Body::Sequence(_))
        | (Body::Default { .. }, Body::Default { .. }) => true,
        _ => false,
    }
}

/// Whether attributes were only dropped anywhere and added at the end.
fn only_adds_and_drops(before: &[Attribute], after: &[Attribute]) -> bool {
    let kept: Vec<_> = before.iter().filter(|old| after.contains(old)).collect();
    let names: BTreeSet<_> = before.iter().map(|old| &old.name).collect();
    let (first, added) = after.split_at(kept.len().min(after.len()));
    first.iter().eq(kept) && added.iter().all(|new| !names.contains(&new.name))
}
