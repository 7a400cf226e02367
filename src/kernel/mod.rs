//! Words without I/O: the vocabulary that every other module speaks.
//!
//! Nothing here opens a file, a socket or a database, and nothing here depends on another module of
//! ours. Start with [`change`], the data that every effect of the engine is described by.

pub mod api_call;
pub mod archive;
pub mod change;
pub mod digest;
pub mod failure;
pub mod id;
pub mod kill;
pub mod quantity;
pub mod risk;
pub mod secret;
pub mod seen;
pub mod sql_text;
pub mod target;
pub mod time;
pub mod upkeep;

pub use api_call::{ApiCall, ApiState, ApiVerb};
pub use archive::{ArchiveBatch, ArchivedRows, Feed};
pub use change::{
    Bind, Change, ChangeSet, Direction, Inverse, Operation, Query, Receipt, Recovery, Settlement,
    SqlStatement,
};
pub use digest::Digest;
pub use failure::{Failure, RetryClass};
pub use id::{IdSource, RandomIds, RunId};
pub use kill::KillPoints;
pub use quantity::{ByteSize, Span};
pub use risk::{Risk, Severity};
pub use secret::{Redactor, Secret};
pub use seen::Seen;
pub use sql_text::{Ident, QualifiedName, SqlFile};
pub use target::Target;
pub use time::{Clock, SystemClock, Timestamp};
pub use upkeep::Upkeep;

/// A boxed, sendable future: what object-safe traits return.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
