//! PostgreSQL: a server that is just there, and sessions that can only read or only apply.
//!
//! [`LocalPostgres`] finds a PostgreSQL or fetches one, and starts a [`Cluster`] with it. A server is
//! signalled only when its own command line proves that we started it, for this very cluster.
//! [`PgEndpoint`] says where a database is, whoever runs it.

mod admin;
mod bind;
mod cluster;
mod deadline;
mod decode;
mod directory;
pub mod endpoint;
pub mod error;
mod fetch;
mod find;
mod installation;
mod kept;
mod options;
mod place;
mod postmaster;
mod progress;
mod read_text;
mod record;
pub mod scan;
mod server;
mod server_error;
pub mod session;
mod spawn;
pub mod sqlstate;
mod unpack;
mod user;
pub mod writer;

pub(crate) use admin::PgAdmin;
pub use cluster::Cluster;
pub(crate) use deadline::FileLock;
pub use directory::FileError;
pub use endpoint::{ComputeId, EndpointError, PgEndpoint, Remote};
pub use error::{PgError, StatementError};
pub use fetch::FetchError;
pub use find::{Rejected, Search};
pub use installation::{Installation, PgVersion, Source, Unfit};
pub use options::{ClusterOptions, Durability, ServerOptions};
pub(crate) use place::ClusterPlace;
pub use progress::{Progress, Quiet, Stage};
pub use record::ServerRecord;
pub use server::LocalPostgres;
pub use server_error::PostgresError;
pub use session::{Described, KeptReader, PgReader, ServerFacts, knock};
pub use unpack::UnpackError;
pub use user::{ServerUser, UserError};
pub use writer::{Outcome, PgWriter, WriterSetup};
