//! What a database consists of: objects with an identity, a definition, and what they need. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds of objects, in the order in which they are made when nothing else decides.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A schema.
    Schema,
    /// An extension.
    Extension,
    /// An enum, a domain or a composite type.
    Type,
    /// A table.
    Table,
    /// A column of a table.
    Column,
    /// A sequence that is no part of an identity column.
    Sequence,
    /// A function or procedure.
    Routine,
    /// The default of a column.
    Default,
    /// A constraint of a table.
    Constraint,
    /// An index that belongs to no constraint.
    Index,
    /// A view or materialized view.
    View,
    /// Extended statistics.
    Statistics,
    /// A rule.
    Rule,
    /// A trigger.
    Trigger,
    /// A policy of row level security.
    Policy,
}

impl Kind {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Extension => "extension",
            Self::Type => "type",
            Self::Table => "table",
            Self::Column => "column",
            Self::Sequence => "sequence",
            Self::Routine => "routine",
            Self::Default => "default",
            Self::Constraint => "constraint",
            Self::Index => "index",
            Self::View => "view",
            Self::Statistics => "statistics",
            Self::Rule => "rule",
            Self::Trigger => "trigger",
            Self::Policy => "policy",
        }
    }
}

/// Which object it is, the same on both sides of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its schema; its own name for a schema, empty for an extension.
    pub schema: String,
    /// The table or view that it belongs to; empty for an object of its own.
    pub relation: String,
    /// Its name; with the types of its arguments for a routine.
    pub name: String,
}

impl ObjectId {
    /// An object that stands in a schema by itself.
    pub fn new(kind: Kind, schema: &str, name: &str) -> Self {
        let (schema, name) = (schema.to_owned(), name.to_owned());
        Self { kind, schema, relation: String::new(), name }
    }

    /// An object that belongs to this table or view.
    #[must_use]
    pub fn part(&self, kind: Kind, name: &str) -> Self {
        let (schema, relation) = (self.schema.clone(), self.name.clone());
        Self { kind, schema, relation, name: name.to_owned() }
    }

    /// The table that it belongs to, for what cannot be without one.
    pub fn table(&self) -> Option<Self> {
        (!self.relation.is_empty()).then(|| Self::new(Kind::Table, &self.schema, &self.relation))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.relation.is_empty()) {
            (Kind::Schema | Kind::Extension, _) => f.write_str(&self.name),
            (_, true) => write!(f, "{}.{}", self.schema, self.name),
            (_, false) => write!(f, "{}.{}.{}", self.schema, self.relation, self.name),
        }
    }
}

/// A privilege that somebody else than the owner has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Who has it; `None` is everybody.
    pub grantee: Option<String>,
    /// The privilege, such as `SELECT`.
    pub privilege: String,
    /// Whether it may be handed on.
    pub grantable: bool,
}

/// The numbers of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbers {
    pub(super) start: i64,
    pub(super) minimum: i64,
    pub(super) maximum: i64,
    pub(super) increment: i64,
    pub(super) cache: i64,
    pub(super) cycle: bool,
}

/// An attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attribute {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) of_type: String,
    pub(super) collation: Option<String>,
}

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ViewColumn {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) of_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extension {
    pub(super) schema: String,
    pub(super) version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Domain {
    pub(super) base: String,
    pub(super) collation: Option<String>,
    pub(super) not_null: bool,
    pub(super) default: Option<String>,
    pub(super) checks: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sequence {
    #[serde(rename = "type")]
    pub(super) of_type: String,
    #[serde(flatten)]
    pub(super) numbers: Numbers,
    pub(super) unlogged: bool,
    /// Schema, table and column that it belongs to.
    pub(super) owned_by: Option<[String; 3]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Table {
    pub(super) unlogged: bool,
    pub(super) partition_key: Option<String>,
    /// Schema and name of the table that it is a partition of.
    pub(super) partition_of: Option<[String; 2]>,
    pub(super) bound: Option<String>,
    pub(super) inherits: Vec<[String; 2]>,
    pub(super) options: BTreeSet<String>,
    pub(super) row_security: bool,
    pub(super) forced_row_security: bool,
    pub(super) replica_identity: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Column {
    #[serde(rename = "type")]
    pub(super) of_type: String,
    pub(super) collation: Option<String>,
    pub(super) not_null: bool,
    /// `a` always, `d` by default, empty for none.
    pub(super) identity: String,
    pub(super) sequence: Option<Numbers>,
    /// `s` stored, `v` virtual, empty for none.
    pub(super) generated: String,
    /// What it is generated from.
    pub(super) expression: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Constraint {
    pub(super) kind: String,
    pub(super) definition: String,
    pub(super) validated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) definition: String,
    pub(super) is_unique: bool,
    pub(super) valid: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct View {
    pub(super) materialized: bool,
    pub(super) definition: String,
    pub(super) columns: Vec<ViewColumn>,
    pub(super) options: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Routine {
    /// `f` function, `p` procedure, `w` window function.
    pub(super) kind: String,
    pub(super) signature: String,
    pub(super) definition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trigger {
    pub(super) definition: String,
    pub(super) enabled: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policy {
    pub(super) permissive: bool,
    pub(super) command: String,
    pub(super) roles: Vec<String>,
    pub(super) using_expression: Option<String>,
    pub(super) check_expression: Option<String>,
}

/// What an object is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Body {
    Schema {},
    Extension(Extension),
    Enum {
        labels: Vec<String>,
    },
    Domain(Domain),
    Composite {
        attributes: Vec<Attribute>,
    },
    Table(Table),
    Column(Column),
    Sequence(Sequence),
    Routine(Routine),
    Default {
        expression: String,
    },
    Constraint(Constraint),
    Index(Index),
    View(View),
    /// A rule or statistics: the server's own text.
    Text {
        definition: String,
    },
    Trigger(Trigger),
    Policy(Policy),
}

/// One object with all that is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) body: Body,
    pub(super) comment: Option<String>,
    pub(super) grants: BTreeSet<Grant>,
    /// What must be there before it.
    pub(super) needs: BTreeSet<ObjectId>,
    /// Where it stands among its neighbours; no part of a comparison.
    pub(super) position: i64,
}

impl Object {
    /// Its definition, comment and privileges as fields, for a comparison field by field.
    pub(super) fn fields(&self) -> BTreeMap<String, serde_json::Value> {
        let mut fields: BTreeMap<String, serde_json::Value> =
            match serde_json::to_value(&self.body).unwrap_or_default() {
                serde_json::Value::Object(fields) => fields.into_iter().collect(),
                _ => BTreeMap::new(),
            };
        if let Some(comment) = &self.comment {
            fields.insert("comment".to_owned(), comment.clone().into());
        }
        if !self.grants.is_empty() {
            let grants = self.grants.iter().map(Grant::words).collect::<Vec<_>>();
            fields.insert("grants".to_owned(), grants.into());
        }
        fields
    }
}

impl Grant {
    /// `SELECT to app`, for people.
    pub(super) fn words(&self) -> String {
        let who = self.grantee.as_deref().unwrap_or("public");
        let more = if self.grantable { " with grant option" } else { "" };
        format!("{} to {who}{more}", self.privilege)
    }
}
