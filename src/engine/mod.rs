//! Carries plans out.
//!
//! [`state`] and [`decide`] are pure: a run is its events, folded, and what to do next follows from
//! that alone. The executor is a loop around them: decide, perform, append, apply. It never reads
//! YAML, and no tool ever sees the journal. Start with [`Engine`].

pub mod apply;
mod asking;
mod carrying;
mod compensating;
mod consent;
pub mod decide;
mod environment;
mod executor;
mod facade;
mod fork;
pub mod graph;
mod groundwork;
pub mod kill;
mod locking;
mod looking;
mod node;
mod ownership;
pub mod parts;
mod perform;
pub mod precondition;
mod programs;
mod proposing;
mod recorder;
mod rehearsal;
mod replay;
pub mod retry;
mod sessions;
#[cfg(test)]
mod simulation;
mod single;
pub mod state;
mod task;
mod undoing;

pub use executor::ExecuteError;
pub use facade::{Engine, EngineError, Loaded, StartOptions, doubts};
pub use ownership::{Alone, RunLocks};
pub use parts::Parts;
pub use replay::Evaluation;
pub use sessions::{Sessions, SessionsOf};
pub use single::Single;
