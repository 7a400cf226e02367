//! The history: appended exactly once, read back by SQL and by others.

mod append;
pub(crate) mod kit;
mod program;
mod query;
mod readers;
mod upkeep;
