//! The demo: a real PostgreSQL with a real sickness, healed by the shipped workflows.
//!
//! Everything that it prints was measured, or read from the journal of its own runs.

pub mod error;
pub mod load;
pub mod patient;
