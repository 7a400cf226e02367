//! The operations that workflows are made of.
//!
//! A read tool looks, a write tool proposes; neither changes anything, and neither sees the journal.
//! Start with [`tool`].

pub mod analysis;
pub mod catalog;
pub mod context;
mod core;
mod health;
mod performance;
pub mod sql_catalog;
pub mod tool;
mod vacuum_state;

pub use catalog::Catalog;
pub use context::ReadContext;
pub use tool::{AnyTool, ReadTool, ToolMeta, WriteTool};
