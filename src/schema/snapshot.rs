//! The structure of one database at one moment. PURE.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::{Kind, Object, ObjectId};

/// A kind of objects that a comparison does not look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Uncovered {
    /// The kind, such as `aggregate`.
    pub kind: String,
    /// How many there are.
    pub count: u64,
}

/// The structure of one database at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) objects: BTreeMap<ObjectId, Object>,
    /// What is there and not looked at.
    pub uncovered: Vec<Uncovered>,
}

impl Snapshot {
    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.objects.keys().filter(|id| id.kind == kind).count()
    }

    /// The identities of all objects.
    pub fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.objects.keys()
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.get(id)
    }

    /// What an object needs, as far as it is part of this snapshot.
    pub(super) fn needs<'a>(&'a self, id: &ObjectId) -> Vec<&'a ObjectId> {
        let object = self.objects.get(id);
        object.into_iter().flat_map(|object| &object.needs).filter(|need| *need != id).collect()
    }

    /// The columns of a table, in their order.
    pub(super) fn columns(&self, table: &ObjectId) -> Vec<(&ObjectId, &Object)> {
        let first = table.part(Kind::Column, "");
        let mut columns: Vec<_> = self
            .objects
            .range(&first..)
            .take_while(|(id, _)| {
                id.kind == Kind::Column && id.schema == table.schema && id.relation == table.name
            })
            .collect();
        columns.sort_by_key(|(_, object)| object.position);
        columns
    }
}
