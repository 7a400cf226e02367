//! Workflow files: from YAML to a resolved, acyclic workflow.
//!
//! Nothing here does I/O except `load`. Every mistake becomes a [`Diagnostic`]; parsing and resolving
//! return what they understood together with all mistakes, never just the first one.

mod actions;
mod arguments;
mod assemble;
mod checker;
pub mod cron;
pub mod diagnostic;
pub mod elements;
mod fields;
mod gates;
mod graph;
pub mod load;
mod locate;
mod names;
pub mod parse;
pub mod quartz;
mod recovery;
pub mod resolve;
pub mod resolved;
pub mod schema;
mod secrets;
pub mod source;
pub mod sources;
pub mod spec;
mod step_rules;
pub(crate) mod suggest;
pub mod tree;
mod types;
pub mod yaml;

pub use diagnostic::{Diagnostic, Reporter, Severity};
pub use parse::parse;
pub use resolve::{Resolution, Resolver};
pub use resolved::{Step, Workflow};
pub use source::{Place, Position, SourceText, Spanned};
pub use sources::{Library, Sources};
pub use spec::WorkflowSpec;
