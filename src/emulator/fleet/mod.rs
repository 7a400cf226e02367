//! The databases of the emulator.
//!
//! A *branch* is a data directory with a PostgreSQL of its own, copied from its parent while that is
//! written to, or recovered from a base copy and archived WAL to a point in time. An *endpoint* is an
//! address on which the fleet itself listens: it ends TLS, asks [`Logins`] who may come in, wakes the
//! branch's server, and passes bytes on to its private Unix socket. A server that nobody uses is
//! stopped. Nothing of a branch is shared with another one.
//!
//! Servers run without `fsync`: what the emulator holds survives every crash of processes, not a crash
//! of the machine.

mod address;
mod admin;
mod branch;
mod clients;
mod copying;
mod door;
mod endpoint;
mod endpoints;
mod error;
mod follower;
mod ground;
mod history;
mod keeper;
mod login;
mod lsn;
mod online;
mod record;
mod server;
mod settings;
mod tls;
mod types;
mod watch;
mod wire;

pub use admin::AdminSession;
pub use error::FleetError;
pub use keeper::{Fleet, FleetOptions};
pub use login::{LoginDecision, LoginRequest, Logins};
pub use settings::check as check_pg_settings;
pub use types::{
    Address, BranchFacts, BranchId, BranchOrigin, BranchPoint, ComputeState, EndpointFacts,
    EndpointId, EndpointSettings,
};
