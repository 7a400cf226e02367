//! PostgreSQL: a server that is just there, and sessions that can only read or only apply.

mod bind;
mod decode;
pub mod endpoint;
pub mod error;
mod read_text;
pub mod session;
pub mod sqlstate;

pub use endpoint::{EndpointError, PgEndpoint};
pub use error::{PgError, StatementError};
pub use session::{Described, PgReader, ServerFacts};
