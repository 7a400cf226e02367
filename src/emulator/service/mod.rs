//! The API in front of the databases: what `lakebase-api` promises, for one workspace.
//!
//! Start with [`running`], which puts the parts together. A request goes through `http` (who calls),
//! `route` (what is asked) and the file of its resource; what takes longer becomes an `operation`.
//! `store` is the catalogue, `record` one resource in it, `fields` what clients may set.

mod asleep;
mod branch_rules;
mod branches;
mod call;
mod catalogs;
mod changing;
mod checks;
mod context;
mod credentials;
mod databases;
mod endpoints;
mod error;
mod faults;
mod fields;
mod http;
mod identity;
mod jobs;
mod limits;
mod operation;
mod page;
mod permissions;
mod projects;
mod query;
mod reaper;
mod record;
mod roles;
mod route;
mod running;
mod schedule;
mod scram;
mod snapshots;
mod statements;
mod store;
mod unity;
mod usage;

pub use running::{
    ConnectionFile, DEFAULT_USER, Emulator, EmulatorError, EmulatorOptions, ListedEndpoint,
};
pub use store::StoreError;
