//! The history: what was measured and done, in Delta tables that outlive runs and servers.
//!
//! Rows are journaled with the step that made them and appended when their run is over, exactly once.
//! The tables stand in [`tables`], one declaration each. `DataFusion` and Delta
//! stay inside this module: nothing generic of theirs leaves it.

mod answer;
mod archive;
mod batch;
mod delta;
mod error;
mod facts;
mod hot;
mod keep;
mod location;
mod mirror;
mod owed;
mod query;
pub mod row;
pub mod schema;
pub mod tables;
mod upkeep;
mod writer;

pub use answer::{Answer, FileForm};
pub use delta::Moment;
pub use error::HistoryError;
pub use facts::{TableFacts, facts};
pub use location::Location;
pub use query::{HotTables, Travel, UnifiedRows, answer, names_postgres};
pub use row::check;
pub use writer::{Appended, HistoryWriter};
