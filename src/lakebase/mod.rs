//! Databricks Lakebase: the workspace's REST API, and PostgreSQL behind it.
//!
//! Start with [`ReadApi`], all that tools get: it can change nothing. [`Workspace`] adds the calls that
//! the engine's applier sends. [`resource`] reads answers leniently, [`name`] makes and reads names,
//! [`find`] asks for one resource or all of a kind.
//!
//! [`login`] finds out which workspace is meant and who logs in, [`WorkspaceClient`] speaks to it. Databases
//! are reached by [`Lakebase`], which looks at a compute before anybody connects.

pub mod api;
mod client;
pub mod compare;
pub mod database;
pub mod find;
pub mod host;
mod lease;
pub mod login;
pub mod name;
mod refusal;
pub mod resource;
mod statement;
mod token;
mod transport;

pub use api::{ReadApi, Reply, Workspace};
pub use client::{DatabaseCredential, WorkspaceClient};
pub use database::Lakebase;
pub use find::{
    branches, databases, endpoints, find_branch, find_database, find_endpoint, find_project,
    find_role, operation, projects, read_write_endpoint, roles, snapshots,
};
pub use login::{Login, LoginError};
pub use name::{BranchName, EndpointName, ProjectName};
pub use resource::{Branch, Database, Endpoint, Operation, Project, Role, Snapshot};
pub use statement::on_warehouse;
pub use transport::{Outside, Patience};
