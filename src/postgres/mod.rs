//! PostgreSQL: a server that is just there, and sessions that can only read or only apply.

pub mod session;

pub use session::PgReader;
