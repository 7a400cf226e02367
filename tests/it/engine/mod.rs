//! The engine on a real PostgreSQL: order, conditions, fan-out, approvals, compensation, waits.

mod kit;
mod runs;
