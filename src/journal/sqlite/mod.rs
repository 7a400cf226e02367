//! The journal on disk: SQLite, WAL, `synchronous=FULL`.
//!
//! One writer thread takes all that queued up while it committed into its next commit; readers have
//! connections of their own and never wait for it. Several processes may have the same file open: all
//! that an append depends on is read inside its transaction. Start with [`handle`].

mod check;
mod commit;
pub mod handle;
mod queue;
mod reader;
mod rows;
mod schema;
mod seal;
mod writer;

pub use handle::SqliteJournal;
