//! The engine on a real PostgreSQL: order, conditions, fan-out, approvals, compensation, waits.

mod approvals;
pub(crate) mod crashes;
mod doubts;
mod embedded;
mod endings;
pub(crate) mod golden;
pub(crate) mod kit;
mod locks;
mod migrations;
mod network;
mod props;
mod rehearsals;
mod runs;
mod scopes;
mod secrets;
mod sessions;
mod storage;
pub(crate) mod tenants;
mod ticks;
mod undoing;
