//! What happened: an append-only, hash-linked list of events, and what is derived from it.
//!
//! The journal never calls a tool and never decides. Start with [`store::Journal`], the trait;
//! [`event::Event`] is the vocabulary.

pub mod event;
pub mod store;

pub use event::{Event, Outcome, Principal};
pub use store::{Append, Durability, Entry, Expect, Journal, JournalError, Stream};
