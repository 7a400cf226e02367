//! A Lakebase on this machine: the service's API in front of real PostgreSQL servers.
//!
//! [`Emulator`] is all of it. [`fleet`] keeps the databases: branches that are copied while they are
//! written to, computes that wake when somebody connects, and the listener that checks who logs in.
//! `service` is the API: projects, branches, endpoints, roles, credentials, operations.

pub mod fleet;
mod service;

pub use service::{
    ConnectionFile, DEFAULT_USER, Emulator, EmulatorError, EmulatorOptions, ListedEndpoint,
    StoreError,
};
