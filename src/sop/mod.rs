//! Expressions, templates and SOPs: small Rhai texts that decide, in a sandbox that cannot act.
//!
//! A text sees JSON and returns JSON. It reaches no file, network, clock or chance, and limits hold
//! its work and its memory. Start with [`Sandbox`]; [`Evaluated`] is what comes out, with the values
//! that were seen on the way. Nothing here does I/O or knows of workflows, tools or journals.

mod backtest;
mod builtin;
mod cases;
mod check;
mod compare;
mod convert;
mod error;
mod expression;
mod program;
mod reference;
mod sandbox;
mod script;
mod template;
mod trace;

pub use backtest::{Backtest, Change, FieldCount, Past, Replayed, RuleChange, Version, backtest};
pub use builtin::{Builtin, builtins};
pub use cases::{CaseReport, CaseResult, CasesError, Difference, declared_variables, run_cases};
pub use check::{Problem, ProblemFile, check};
pub use error::{ScriptError, TemplateError};
pub use expression::Expression;
pub use program::Evaluated;
pub use reference::Reference;
pub use sandbox::{ROOTS, Sandbox};
pub use script::Script;
pub use template::Template;
pub use trace::RuleTrace;

/// The variables that a text can read, by name.
pub type Scope = std::collections::BTreeMap<String, serde_json::Value>;
