//! The demo: a real PostgreSQL with a real sickness on a Lakebase of this machine, healed by the shipped
//! workflows.
//!
//! Everything that it prints was measured, or read from the journal of its own runs. Its workers are
//! this very program, started with the command lines that it shows. Start with [`play`].

mod closing;
mod cloud;
pub mod error;
pub mod figures;
mod first_act;
pub mod load;
mod lock_tree;
pub mod patient;
mod project;
mod record;
mod rules;
mod screen;
mod second_act;
mod story;
mod teller;
mod third_act;
mod worker;

pub use error::DemoError;
pub use figures::Report;
pub use screen::Screen;
pub use story::{DemoOptions, play};
