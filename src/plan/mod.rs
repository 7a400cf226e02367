//! Plans: from a resolved workflow to an immutable, hashed document.
//!
//! Start with [`document`]. Only `file` does I/O.

pub mod document;

pub use document::{Plan, PlanBody, PlannedStep};
