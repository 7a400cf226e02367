//! Plans: from a resolved workflow to an immutable, hashed document.
//!
//! Start with [`document`]. Only `file` does I/O.

pub mod diff;
pub mod document;
pub mod file;
mod literal;
mod params;
pub mod planner;

pub use document::{Plan, PlanBody, PlannedStep};
pub use planner::{Given, PlanInputs, plan};
