//! A Lakebase on this machine: the service's API in front of real PostgreSQL servers.
//!
//! [`fleet`] keeps the databases: branches that are copied while they are written to, computes that
//! wake when somebody connects, and the listener that checks who logs in.

pub mod fleet;
