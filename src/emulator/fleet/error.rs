//! What can go wrong with the fleet.

use std::io;
use std::path::PathBuf;

use super::types::{BranchId, EndpointId};
use crate::postgres::{FileError, PgError, PgVersion, PostgresError};

/// The fleet cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Another process keeps this fleet.
    #[error(
        "another process keeps the emulator's databases in `{}`; stop it, or use another state \
         directory", state.display()
    )]
    InUse {
        /// The directory.
        state: PathBuf,
    },
    /// A name that cannot name a directory.
    #[error("`{id}` cannot name a branch or endpoint: use lower-case letters, digits and `-`")]
    Id {
        /// The name.
        id: String,
    },
    /// The branch is there already.
    #[error("the branch `{0}` exists already")]
    BranchExists(BranchId),
    /// There is no such branch.
    #[error("there is no branch `{0}`")]
    NoBranch(BranchId),
    /// There is no such endpoint.
    #[error("there is no open endpoint `{0}`")]
    NoEndpoint(EndpointId),
    /// The branch still has open endpoints.
    #[error("the branch `{branch}` still has the open endpoint `{endpoint}`; close it first")]
    EndpointOpen {
        /// The branch.
        branch: BranchId,
        /// One of its endpoints.
        endpoint: EndpointId,
    },
    /// The endpoint is open already.
    #[error("the endpoint `{0}` is open already; change it instead")]
    EndpointExists(EndpointId),
    /// The endpoint is switched off.
    #[error("the endpoint `{0}` is disabled")]
    Disabled(EndpointId),
    /// Somebody works with the branch for too long.
    #[error("the branch `{branch}` is in use ({what}); try again later")]
    Busy {
        /// The branch.
        branch: BranchId,
        /// By what.
        what: &'static str,
    },
    /// Another major version is asked for.
    #[error("PostgreSQL {wanted} is asked for, and the emulator runs {found}")]
    Version {
        /// The major version that is asked for.
        wanted: u32,
        /// The one that is installed.
        found: PgVersion,
    },
    /// The branch cannot begin at this point.
    #[error("the branch `{parent}` cannot be branched at {point}: {why}")]
    Point {
        /// The parent.
        parent: BranchId,
        /// The time or position.
        point: String,
        /// Why not.
        why: String,
    },
    /// A setting that the emulator decides itself, or cannot take.
    #[error("the setting `{name}` cannot be set on an endpoint: {why}")]
    Setting {
        /// The setting.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A copy failed.
    #[error("cannot {action} `{}`", path.display())]
    Copy {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server's answer does not make sense.
    #[error("the server of branch `{branch}` answered {what} with `{answer}`")]
    Answer {
        /// The branch.
        branch: BranchId,
        /// What was asked.
        what: &'static str,
        /// What it said.
        answer: String,
    },
    /// A task of ours ended early.
    #[error("{0} ended before it was done")]
    Lost(&'static str),
    /// A certificate cannot be made.
    #[error("a certificate of the emulator cannot be made or read")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up for an endpoint")]
    Tls(#[from] rustls::Error),
    /// A server cannot be started or stopped.
    #[error(transparent)]
    Server(#[from] PostgresError),
    /// A session failed.
    #[error(transparent)]
    Session(#[from] PgError),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl FleetError {
    pub(super) fn copy(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Copy { action, path: path.to_owned(), source }
    }
}
