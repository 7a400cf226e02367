//! The engine on a real PostgreSQL: order, conditions, fan-out, approvals, compensation, waits.

mod approvals;
mod crashes;
mod endings;
mod kit;
mod props;
mod runs;
