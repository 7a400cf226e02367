//! Databricks Lakebase: the workspace's REST API, and PostgreSQL behind it.
//!
//! Start with [`ReadApi`], all that tools get: it can change nothing. [`Workspace`] adds the calls that
//! the engine's applier sends. [`resource`] reads answers leniently, [`name`] makes and reads names,
//! [`find`] asks for one resource or all of a kind.

pub mod api;
pub mod compare;
pub mod find;
pub mod name;
pub mod resource;

pub use api::{ReadApi, Reply, Workspace};
pub use find::{
    branches, databases, endpoints, find_branch, find_database, find_endpoint, find_project,
    find_role, operation, projects, read_write_endpoint, roles, snapshots,
};
pub use name::{BranchName, EndpointName, ProjectName};
pub use resource::{Branch, Database, Endpoint, Operation, Project, Role, Snapshot};
