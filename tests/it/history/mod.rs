//! The history: appended exactly once, read back by SQL and by others.

mod append;
mod kit;
mod program;
mod query;
mod readers;
mod upkeep;
