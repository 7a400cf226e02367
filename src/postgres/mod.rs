//! PostgreSQL: a server that is just there, and sessions that can only read or only apply.

pub mod endpoint;
pub mod session;

pub use endpoint::{EndpointError, PgEndpoint};
pub use session::PgReader;
