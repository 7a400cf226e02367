//! The structure of a database: what it is, how two of them differ, and the SQL that gets from one to
//! the other.
//!
//! [`capture`] reads a [`Snapshot`] with a handful of catalogue queries. Everything after that is pure:
//! [`compare`] says what differs and whom it can break, [`script`] writes the statements in the order
//! in which they can be carried out, [`markdown`] writes it down for people.
//! Start with [`object`].

mod alter;
mod capture;
mod create;
mod diff;
mod fate;
mod markdown;
mod names;
pub mod object;
mod order;
mod rows;
mod script;
mod snapshot;

pub use capture::{SCHEMA_SQL, capture};
pub use diff::{Action, AttributeChange, Diff, Difference, Impact, compare};
pub use markdown::{as_script, markdown};
pub use object::{Kind, ObjectId};
pub use script::{Statement, script};
pub use snapshot::{Snapshot, Uncovered};
