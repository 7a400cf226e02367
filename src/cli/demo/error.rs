//! Why the demo could not go on.

use crate::postgres::PgError;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The demo's own use of its database failed.
    #[error("the demo's database failed at `{what}`")]
    Database {
        /// What was being done.
        what: &'static str,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The demo's own look at its database failed.
    #[error("the demo's database could not be looked at")]
    Look(#[from] PgError),
}
