//! The operations that workflows are made of.
//!
//! A read tool looks, a write tool proposes; neither changes anything, and neither sees the journal.
//! Start with [`tool`].
//!
//! A new tool is a file in the folder of its family, named like the tool, with a `TOOL` in it, and its
//! SQL files. The test `registry` writes it into the lists. Thinking that several tools share is pure and
//! lives in [`analysis`].

pub mod analysis;
mod branching;
pub mod catalog;
mod cold;
mod collection;
mod connection_state;
pub mod context;
mod core;
mod cost;
mod health;
mod health_state;
mod index_state;
mod isolation;
mod migration;
mod performance;
mod pipeline;
mod provisioning;
pub mod rules;
pub mod sql_catalog;
mod statements_state;
mod sync;
pub mod tool;
mod vacuum_state;
mod workload;

pub use branching::throw_away::throw_away;
pub use catalog::Catalog;
pub use context::{Places, ReadContext};
pub use rules::Rules;
pub use tool::{AnyTool, ReadTool, ToolMeta, WriteTool};
