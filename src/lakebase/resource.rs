//! Resources as the service answers them, read leniently: unknown fields are ignored, unknown words of
//! an enumeration are kept, what cannot be read is absent. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::name::{THROW_AWAY, id_of};
use crate::kernel::{Failure, Timestamp};

/// A project.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Project {
    /// `projects/{id}`
    pub name: String,
    /// A UUID that is never given twice.
    pub uid: String,
    /// When it was made.
    #[serde(deserialize_with = "lenient")]
    pub create_time: Option<Timestamp>,
    /// When it was deleted; it can come back until it is purged.
    #[serde(deserialize_with = "lenient")]
    pub delete_time: Option<Timestamp>,
    /// When it is gone for good.
    #[serde(deserialize_with = "lenient")]
    pub purge_time: Option<Timestamp>,
    /// How it is.
    pub status: ProjectStatus,
}

/// How a project is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ProjectStatus {
    /// Its id.
    pub project_id: String,
    /// What people call it.
    pub display_name: String,
    /// The major version of PostgreSQL.
    #[serde(deserialize_with = "number")]
    pub pg_version: Option<i64>,
    /// How far back in time a branch can begin.
    #[serde(deserialize_with = "lenient_duration")]
    pub history_retention_duration: Option<Duration>,
    /// What new endpoints are like.
    pub default_endpoint_settings: EndpointSettings,
    /// The name of the branch that is meant when none is said.
    pub default_branch: Option<String>,
    /// Who owns it.
    pub owner: Option<String>,
    /// The most that a branch may hold.
    #[serde(deserialize_with = "number")]
    pub branch_logical_size_limit_bytes: Option<i64>,
    /// What it stores.
    #[serde(deserialize_with = "number")]
    pub synthetic_storage_size_bytes: Option<i64>,
    /// Labels.
    pub custom_tags: Vec<Tag>,
}

/// A label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// How large an endpoint may become, and when it sleeps.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointSettings {
    /// The least compute units.
    pub autoscaling_limit_min_cu: Option<f64>,
    /// The most compute units.
    pub autoscaling_limit_max_cu: Option<f64>,
    /// When it sleeps; absent: never.
    #[serde(deserialize_with = "lenient_duration")]
    pub suspend_timeout_duration: Option<Duration>,
    /// Parameters of PostgreSQL.
    pub pg_settings: BTreeMap<String, String>,
}

/// A branch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Branch {
    /// `projects/{id}/branches/{id}`
    pub name: String,
    /// `br-…`, never given twice.
    pub uid: String,
    /// When it was made.
    #[serde(deserialize_with = "lenient")]
    pub create_time: Option<Timestamp>,
    /// When it changed last.
    #[serde(deserialize_with = "lenient")]
    pub update_time: Option<Timestamp>,
    /// How it is.
    pub status: BranchStatus,
}

/// How a branch is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BranchStatus {
    /// Its id.
    pub branch_id: String,
    /// Its state.
    pub current_state: BranchState,
    /// The state that it is on its way to.
    pub pending_state: Option<BranchState>,
    /// Whether it is meant when no branch is said.
    #[serde(deserialize_with = "truth")]
    pub default: bool,
    /// Whether it can be neither deleted nor reset.
    #[serde(deserialize_with = "truth")]
    pub is_protected: bool,
    /// When it is removed.
    #[serde(deserialize_with = "lenient")]
    pub expire_time: Option<Timestamp>,
    /// What it holds.
    #[serde(deserialize_with = "number")]
    pub logical_size_bytes: Option<i64>,
    /// The name of its parent; absent: a root.
    #[serde(deserialize_with = "text")]
    pub source_branch: Option<String>,
    /// Where on its parent it begins.
    #[serde(deserialize_with = "text")]
    pub source_branch_lsn: Option<String>,
    /// When on its parent it begins.
    #[serde(deserialize_with = "lenient")]
    pub source_branch_time: Option<Timestamp>,
    /// The snapshot that it was made from.
    #[serde(deserialize_with = "text")]
    pub source_snapshot: Option<String>,
    /// When it was deleted.
    #[serde(deserialize_with = "lenient")]
    pub delete_time: Option<Timestamp>,
    /// When it is gone for good.
    #[serde(deserialize_with = "lenient")]
    pub purge_time: Option<Timestamp>,
}

/// A compute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// `projects/{id}/branches/{id}/endpoints/{id}`
    pub name: String,
    /// `ep-…`, never given twice.
    pub uid: String,
    /// How it is.
    pub status: EndpointStatus,
}

/// How a compute is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointStatus {
    /// Its id.
    pub endpoint_id: String,
    /// Whether it can write.
    pub endpoint_type: EndpointType,
    /// The least compute units.
    pub autoscaling_limit_min_cu: Option<f64>,
    /// The most compute units.
    pub autoscaling_limit_max_cu: Option<f64>,
    /// When it sleeps; absent: never.
    #[serde(deserialize_with = "lenient_duration")]
    pub suspend_timeout_duration: Option<Duration>,
    /// Whether no connection can wake it.
    #[serde(deserialize_with = "truth")]
    pub disabled: bool,
    /// Its state.
    pub current_state: EndpointState,
    /// The state that it is on its way to.
    pub pending_state: Option<EndpointState>,
    /// When somebody last worked on it.
    #[serde(deserialize_with = "lenient")]
    pub last_active_time: Option<Timestamp>,
    /// Where it is reached.
    pub hosts: EndpointHosts,
    /// Parameters of PostgreSQL.
    pub settings: EndpointSettings,
}

/// Where a compute is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointHosts {
    /// The compute itself.
    #[serde(deserialize_with = "text")]
    pub host: Option<String>,
    /// Its port, where it is not 5432: on this machine alone.
    pub port: Option<u16>,
    /// Its pooler; it takes no OAuth tokens.
    #[serde(deserialize_with = "text")]
    pub read_write_pooled_host: Option<String>,
    /// Its readable secondaries.
    #[serde(deserialize_with = "text")]
    pub read_only_host: Option<String>,
}

/// A role of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Role {
    /// `projects/{id}/branches/{id}/roles/{id}`
    pub name: String,
    /// How it is.
    pub status: RoleStatus,
}

/// How a role is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RoleStatus {
    /// Its id.
    pub role_id: String,
    /// What PostgreSQL calls it.
    pub postgres_role: String,
    /// `USER`, `SERVICE_PRINCIPAL`, `GROUP`, `IDENTITY_TYPE_UNSPECIFIED`.
    #[serde(deserialize_with = "text")]
    pub identity_type: Option<String>,
    /// `LAKEBASE_OAUTH_V1`, `PG_PASSWORD_SCRAM_SHA_256`, `NO_LOGIN`.
    #[serde(deserialize_with = "text")]
    pub auth_method: Option<String>,
    /// The roles that it belongs to.
    pub membership_roles: Vec<String>,
    /// What it may do.
    pub attributes: RoleAttributes,
}

/// What a role may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleAttributes {
    /// See rows that row security hides.
    pub bypassrls: bool,
    /// Make databases.
    pub createdb: bool,
    /// Make roles.
    pub createrole: bool,
}

/// A database of a branch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `projects/{id}/branches/{id}/databases/{id}`
    pub name: String,
    /// How it is.
    pub status: DatabaseStatus,
}

/// How a database is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DatabaseStatus {
    /// Its id.
    pub database_id: String,
    /// What PostgreSQL calls it.
    pub postgres_database: String,
    /// The full name of its owner.
    #[serde(deserialize_with = "text")]
    pub role: Option<String>,
}

/// A snapshot of a branch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// `projects/{id}/snapshots/{id}`
    pub name: String,
    /// How it is.
    pub status: SnapshotStatus,
}

/// How a snapshot is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SnapshotStatus {
    /// The branch that it was taken of.
    #[serde(deserialize_with = "text")]
    pub source_branch: Option<String>,
    /// When it is removed.
    #[serde(deserialize_with = "lenient")]
    pub expire_time: Option<Timestamp>,
    /// What it holds.
    #[serde(deserialize_with = "number")]
    pub full_size_bytes: Option<i64>,
}

/// A long-running operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Operation {
    /// Opaque: what it is asked for by.
    pub name: String,
    /// Whether it ended.
    #[serde(deserialize_with = "truth")]
    pub done: bool,
    /// What it made, when it ended well.
    pub response: Option<Value>,
    /// What went wrong, when it ended otherwise.
    pub error: Option<OperationError>,
}

/// Why an operation failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OperationError {
    /// `UPPER_SNAKE`.
    pub error_code: String,
    /// For people.
    pub message: String,
}

impl Operation {
    /// The operation that a reply is; `None` when it is the resource itself.
    pub fn of(reply: &Value) -> Option<Self> {
        let is_one = reply["name"].as_str().is_some_and(|name| name.contains("/operations/"));
        if is_one { serde_json::from_value(reply.clone()).ok() } else { None }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$word_doc])* $variant,)*
            /// A word that this version does not know; empty: nothing was said.
            Unknown(String),
        }

        impl $name {
            /// The word as the service writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Unknown(word) => word,
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Unknown(String::new())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                Ok(match value.as_str().unwrap_or_default() {
                    $($word => Self::$variant,)*
                    other => Self::Unknown(other.to_owned()),
                })
            }
        }
    };
}

words! {
    /// The state of a branch.
    BranchState {
        /// Being made.
        Init = "INIT",
        /// Usable.
        Ready = "READY",
        /// Being filled.
        Importing = "IMPORTING",
        /// Being set back to its parent.
        Resetting = "RESETTING",
        /// Put away; a connection brings it back.
        Archived = "ARCHIVED",
        /// Deleted.
        Deleted = "DELETED",
    }
}

words! {
    /// The state of a compute.
    EndpointState {
        /// Starting.
        Init = "INIT",
        /// Takes connections.
        Active = "ACTIVE",
        /// Suspended: a connection wakes it.
        Idle = "IDLE",
        /// Works, but not well.
        Degraded = "DEGRADED",
    }
}

words! {
    /// Whether a compute can write.
    EndpointType {
        /// It can; one per branch.
        ReadWrite = "ENDPOINT_TYPE_READ_WRITE",
        /// It cannot.
        ReadOnly = "ENDPOINT_TYPE_READ_ONLY",
    }
}

impl Project {
    /// Its id.
    pub fn id(&self) -> &str {
        id_of(&self.name)
    }
}

impl Branch {
    /// Its id.
    pub fn id(&self) -> &str {
        id_of(&self.name)
    }

    /// Whether it has no parent.
    pub fn is_root(&self) -> bool {
        self.status.source_branch.is_none()
    }

    /// Whether it was deleted, also when it can still come back.
    pub fn is_deleted(&self) -> bool {
        self.status.delete_time.is_some() || self.status.current_state == BranchState::Deleted
    }

    /// Whether it was made to be thrown away: its id says so ([`THROW_AWAY`]), it expires by itself, and
    /// nothing depends on it.
    pub fn is_throw_away(&self) -> bool {
        let status = &self.status;
        let is_spare = !status.default && !status.is_protected && !self.is_root();
        self.id().starts_with(THROW_AWAY) && status.expire_time.is_some() && is_spare
    }
}

impl Endpoint {
    /// Its id.
    pub fn id(&self) -> &str {
        id_of(&self.name)
    }
}

/// Whether an answer is a resource that is deleted and can still come back.
pub fn is_deleted(resource: &Value) -> bool {
    let said = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    said(&resource["delete_time"])
        || said(&resource["status"]["delete_time"])
        || resource["status"]["current_state"] == "DELETED"
}

/// Reads an answer.
pub fn read<T: DeserializeOwned>(what: &str, answer: Value) -> Result<T, Failure> {
    serde_json::from_value(without_nulls(answer)).map_err(|error| {
        let text = format!("the answer at {what} has an unexpected form: {error}");
        Failure::permanent("lakebase::unreadable", text)
    })
}

/// A field that is `null` is absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            said.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// A duration as the service writes it: `300s`, `0.5s`.
pub fn duration(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().and_then(Timestamp::parse))
}

fn lenient_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().and_then(duration))
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    })
}

fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_bool().unwrap_or_default())
}

/// An empty text is an absent field.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_read_leniently() {
        let branch: Branch = read(
            "there",
            json!({
                "name": "projects/shop/branches/dev", "uid": "br-1", "colour": "blue",
                "update_time": null,
                "status": {"current_state": "DREAMING", "default": null, "is_protected": true,
                           "logical_size_bytes": "123", "source_branch": "",
                           "expire_time": "2026-11-22T19:07:55.552056Z"},
            }),
        )
        .unwrap();
        assert_eq!(branch.id(), "dev");
        assert_eq!(branch.status.current_state, BranchState::Unknown("DREAMING".into()));
        assert_eq!(branch.status.logical_size_bytes, Some(123));
        assert!(branch.status.is_protected && branch.is_root() && !branch.is_deleted());
        assert!(branch.status.expire_time.is_some());
    }

    #[test]
    fn only_what_expires_and_says_so_is_thrown_away() {
        let throw_away = |id: &str, change: fn(&mut Value)| {
            let mut answer = json!({"name": format!("projects/shop/branches/{id}"), "status": {
                "source_branch": "projects/shop/branches/production",
                "expire_time": "2026-11-22T19:07:55Z"}});
            change(&mut answer["status"]);
            read::<Branch>("there", answer).unwrap().is_throw_away()
        };
        assert!(throw_away("tmp-1", |_| ()));
        assert!(!throw_away("dev", |_| ()) && !throw_away("x-tmp-1", |_| ()));
        assert!(!throw_away("tmp-1", |status| status["expire_time"] = json!("")));
        assert!(!throw_away("tmp-1", |status| status["default"] = json!(true)));
        assert!(!throw_away("tmp-1", |status| status["is_protected"] = json!(true)));
        assert!(!throw_away("tmp-1", |status| status["source_branch"] = Value::Null));
    }

    #[test]
    fn operations_are_told_from_resources() {
        let reply = json!({"name": "projects/p/operations/x", "done": false});
        assert!(!Operation::of(&reply).unwrap().done);
        assert_eq!(Operation::of(&json!({"name": "projects/p"})), None);
    }

    #[test]
    fn durations() {
        assert_eq!(duration("300s"), Some(Duration::from_mins(5)));
        assert_eq!(duration("0.5s"), Some(Duration::from_millis(500)));
        for wrong in ["300", "s", "-1s", "xs", "1e400s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
