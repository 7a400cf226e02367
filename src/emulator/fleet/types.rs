//! What the fleet is asked and what it answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::Timestamp;

/// The uid of a branch; names its directory: lower-case letters, digits and `-`, at most 60.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BranchId(pub String);

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The uid of an endpoint: lower-case letters, digits and `-`, at most 60.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub String);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which state of its parent a branch begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BranchPoint {
    /// The present one.
    Head,
    /// The last one that was committed at this time.
    Time(Timestamp),
    /// The first one that includes this position of the WAL, such as `0/1A2B3C8`.
    Lsn(String),
}

/// Where a branch came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchOrigin {
    /// The parent's WAL position.
    pub lsn: String,
    /// The time on the parent.
    pub time: Timestamp,
}

/// What is known of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchFacts {
    /// The size of all its databases.
    pub logical_size_bytes: u64,
    /// How far its WAL is written.
    pub lsn: String,
    /// The earliest time that a branch of it can begin with; `None` while its first base copy is not
    /// made yet.
    pub oldest: Option<Timestamp>,
}

/// How an endpoint shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSettings {
    /// Which one.
    pub id: EndpointId,
    /// The branch that it serves.
    pub branch: BranchId,
    /// Whether it is served by a copy that follows the branch and cannot be written to.
    pub read_only: bool,
    /// How many clients it takes.
    pub max_connections: u32,
    /// How long it stays awake without activity; `None`: for ever.
    pub suspend_after: Option<Duration>,
    /// Whether it refuses clients.
    pub disabled: bool,
    /// Settings of the server.
    pub pg_settings: BTreeMap<String, String>,
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// A loopback address of its own; `127.0.0.1` where the machine has no others.
    pub host: String,
    /// 5432 on an address of its own.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Whether an endpoint is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComputeState {
    /// Its server is starting.
    Init,
    /// Its server runs.
    Active,
    /// It sleeps.
    Idle,
}

/// What is known of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    /// Where it listens.
    pub address: Address,
    /// Whether it is awake.
    pub state: ComputeState,
    /// When a client last did something.
    pub last_active: Option<Timestamp>,
    /// When it last woke.
    pub start_time: Option<Timestamp>,
}
