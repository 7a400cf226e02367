//! Carries plans out.
//!
//! [`state`] and [`decide`] are pure: a run is its events, folded, and what to do next follows from
//! that alone. The executor is a loop around them: decide, perform, append, apply.

pub mod apply;
pub mod decide;
pub mod graph;
pub mod state;
