//! What happened: an append-only, hash-linked list of events, and what is derived from it.
//!
//! The journal never calls a tool and never decides. Start with [`store::Journal`], the trait;
//! [`event::Event`] is the vocabulary. [`SqliteJournal`] keeps it on disk, [`MemoryJournal`] in memory;
//! [`conformance`] holds for both.

mod admission;
mod apart;
mod blob;
mod chain;
pub mod conformance;
mod derived;
pub mod event;
pub mod export;
pub mod faulty;
mod links;
pub mod lock;
pub mod memory;
pub mod occasion;
mod output;
mod owed;
pub mod query;
pub mod rehearsal;
pub mod retention;
pub mod sqlite;
pub mod store;
pub mod tail;
mod term;

pub use event::{Event, Outcome, Principal};
pub use faulty::{Fault, FaultyJournal};
pub use lock::{Holder, RunLock, ServerLock};
pub use memory::MemoryJournal;
pub use occasion::{Cause, SlotFate, TriggerFate};
pub use query::{AuditFilter, AuditRow, audit};
pub use sqlite::SqliteJournal;
pub use store::{Append, Durability, Entry, Expect, Journal, JournalError, Stream};
pub use tail::verify_against;
