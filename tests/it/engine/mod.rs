//! The engine on a real PostgreSQL: order, conditions, fan-out, approvals, compensation, waits.

mod crashes;
mod kit;
mod runs;
