//! Sessions.

/// A session that can only read.
pub struct PgReader;
