//! Resources of the Postgres API as the catalogue keeps them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::store::{StoreError, Tx};
use crate::kernel::Timestamp;
use crate::lakebase::name::id_of;

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Project,
    Branch,
    Endpoint,
    Role,
    Database,
    Snapshot,
    Catalog,
    SyncedTable,
}

impl Kind {
    /// The word for messages, and what the parameter of its id begins with.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Branch => "branch",
            Self::Endpoint => "endpoint",
            Self::Role => "role",
            Self::Database => "database",
            Self::Snapshot => "snapshot",
            Self::Catalog => "catalog",
            Self::SyncedTable => "synced_table",
        }
    }

    /// The last part of a collection's name, and the field that holds its elements.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Project => "projects",
            Self::Branch => "branches",
            Self::Endpoint => "endpoints",
            Self::Role => "roles",
            Self::Database => "databases",
            Self::Snapshot => "snapshots",
            Self::Catalog => "catalogs",
            Self::SyncedTable => "synced_tables",
        }
    }

    /// The name of its type.
    pub(super) const fn type_name(self) -> &'static str {
        match self {
            Self::Project => "Project",
            Self::Branch => "Branch",
            Self::Endpoint => "Endpoint",
            Self::Role => "Role",
            Self::Database => "Database",
            Self::Snapshot => "Snapshot",
            Self::Catalog => "Catalog",
            Self::SyncedTable => "SyncedTable",
        }
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub kind: Kind,
    /// The full name.
    pub name: String,
    pub uid: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// When it was deleted; it can come back until `purged`.
    pub deleted: Option<Timestamp>,
    pub purged: Option<Timestamp>,
    /// Whether it is usable: made, and not being made.
    pub ready: bool,
    /// How it shall be: the effective values of what a client may set.
    pub spec: Map<String, Value>,
    /// What the service knows beside.
    pub facts: Map<String, Value>,
}

impl Record {
    pub(super) fn new(kind: Kind, name: String, uid: String, now: Timestamp) -> Self {
        Self {
            kind,
            name,
            uid,
            created: now,
            updated: now,
            deleted: None,
            purged: None,
            ready: false,
            spec: Map::new(),
            facts: Map::new(),
        }
    }

    pub(super) fn id(&self) -> &str {
        id_of(&self.name)
    }

    /// The name of what it belongs to: the project of a branch, the branch of an endpoint.
    pub(super) fn parent(&self) -> &str {
        let collection = self.name.rsplit_once('/').map_or("", |(left, _)| left);
        collection.rsplit_once('/').map_or("", |(left, _)| left)
    }

    /// The name of the project that it belongs to.
    pub(super) fn project(&self) -> &str {
        project_of(&self.name)
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        text_of(&self.spec, field)
    }

    pub(super) fn fact(&self, field: &str) -> Option<&str> {
        text_of(&self.facts, field)
    }

    pub(super) fn is(&self, field: &str) -> bool {
        self.spec.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.deleted.is_none()
    }

    pub(super) fn time(&self, field: &str) -> Option<Timestamp> {
        Timestamp::parse(self.text(field)?)
    }
}

fn text_of<'a>(map: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    map.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// `projects/a` of any name below it.
pub(super) fn project_of(name: &str) -> &str {
    let end = name.match_indices('/').nth(1).map_or(name.len(), |(at, _)| at);
    &name[..end]
}

/// The kind of the resource of a name, by its last collection.
pub(super) fn kind_of(name: &str) -> Option<Kind> {
    let collection = name.rsplit('/').nth(1)?;
    [
        Kind::Project,
        Kind::Branch,
        Kind::Endpoint,
        Kind::Role,
        Kind::Database,
        Kind::Snapshot,
        Kind::Catalog,
        Kind::SyncedTable,
    ]
    .into_iter()
    .find(|kind| kind.plural() == collection)
}

impl Tx<'_> {
    pub(super) fn record(&self, name: &str) -> Result<Option<Record>, StoreError> {
        self.get(name)
    }

    pub(super) fn keep(&self, record: &Record) -> Result<(), StoreError> {
        self.put(&record.name, record)
    }

    /// The resource of a uid.
    pub(super) fn by_uid(&self, kind: Kind, uid: &str) -> Result<Option<Record>, StoreError> {
        let all: Vec<Record> = self.below(Kind::Project.plural())?;
        Ok(all.into_iter().find(|it| it.kind == kind && it.uid == uid))
    }

    /// The resource of a name, checked from the root: an unknown project before an unknown branch.
    /// Below something that is deleted there is nothing.
    pub(super) fn need(&self, name: &str) -> Result<Record, ApiError> {
        let mut ends: Vec<usize> =
            name.match_indices('/').skip(1).step_by(2).map(|it| it.0).collect();
        ends.push(name.len());
        let (last, above) = (ends.len() - 1, &ends[..ends.len() - 1]);
        for end in above {
            let above = self.need_one(&name[..*end])?;
            if !above.is_alive() {
                return Err(ApiError::not_found(above.kind.word()));
            }
        }
        self.need_one(&name[..ends[last]])
    }

    /// The same; what is deleted is not there.
    pub(super) fn need_alive(&self, name: &str) -> Result<Record, ApiError> {
        let record = self.need(name)?;
        if record.is_alive() { Ok(record) } else { Err(ApiError::not_found(record.kind.word())) }
    }

    fn need_one(&self, name: &str) -> Result<Record, ApiError> {
        let word = kind_of(name).map_or("resource", Kind::word);
        self.record(name)?.ok_or_else(|| ApiError::not_found(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_name() {
        let name = "projects/a/branches/b/endpoints/c";
        assert_eq!(project_of(name), "projects/a");
        assert_eq!(project_of("projects/a"), "projects/a");
        assert_eq!(kind_of(name), Some(Kind::Endpoint));
        assert_eq!(kind_of("synced_tables/a.b.c"), Some(Kind::SyncedTable));
        assert_eq!(kind_of("projects/a/operations/b"), None);
        let record =
            Record::new(Kind::Endpoint, name.to_owned(), String::new(), Timestamp::default());
        assert_eq!((record.parent(), record.id()), ("projects/a/branches/b", "c"));
    }
}
