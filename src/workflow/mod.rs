//! Workflow files: from YAML to a resolved, acyclic workflow.
//!
//! Nothing here does I/O except `load`. Every mistake becomes a [`Diagnostic`]; parsing and resolving
//! return what they understood together with all mistakes, never just the first one.

pub mod cron;
pub mod diagnostic;
pub mod elements;
mod fields;
mod locate;
pub mod parse;
mod recovery;
pub mod source;
pub mod spec;
mod suggest;
pub mod tree;

pub use diagnostic::{Diagnostic, Reporter, Severity};
pub use parse::parse;
pub use source::{Place, Position, SourceText, Spanned};
pub use spec::WorkflowSpec;
