//! Why the demo could not go on.

use std::io;
use std::path::PathBuf;

use crate::emulator::EmulatorError;
use crate::emulator::fleet::FleetError;
use crate::journal::JournalError;
use crate::kernel::{Digest, Failure};
use crate::postgres::{PgError, PgVersion, PostgresError};

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no server to work with.
    #[error("the demo's PostgreSQL could not be had")]
    Server(#[from] PostgresError),
    /// The emulator runs no server of this version.
    #[error("the demo's emulator runs PostgreSQL {wanted}, and {bin_dir} has {found}")]
    Version {
        /// The major version that it runs.
        wanted: u32,
        /// The one that there is.
        found: PgVersion,
        /// Where its programs are.
        bin_dir: PathBuf,
    },
    /// The Lakebase that the demo plays on.
    #[error("the demo's emulator could not be used")]
    Emulator(#[from] EmulatorError),
    /// A call of the demo itself to its emulator failed.
    #[error("the demo's emulator refused to {what}: {failure}")]
    Workspace {
        /// What was being done.
        what: &'static str,
        /// Why not.
        failure: Failure,
    },
    /// The server lacks what measures bloat page by page.
    #[error("the PostgreSQL in {bin_dir} lacks the extension pgstattuple")]
    NoPgstattuple {
        /// Where its programs are.
        bin_dir: PathBuf,
    },
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
    /// A tool that only looks failed.
    #[error("`{tool}` failed: {failure}")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// Why.
        failure: Failure,
    },
    /// A file of the demo's project.
    #[error("the demo's project could not be made: failed to {what} {path}")]
    File {
        /// What was being done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program could not be started as its own worker.
    #[error("the worker process could not be started")]
    Worker {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A worker ended as it should not have.
    #[error("`lakeops {command}` ended with {status}: {said}")]
    Unexpected {
        /// Its command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
    /// The journal cannot be read.
    #[error("the demo's journal could not be read")]
    Journal(#[from] JournalError),
    /// A worker left no run in the journal.
    #[error("the journal has no run of `{workflow}`")]
    NoRun {
        /// The workflow, or the run.
        workflow: String,
    },
    /// A run asks for nothing that should.
    #[error("run {run} asks for no approval")]
    NotAsked {
        /// The run.
        run: String,
    },
    /// A run without its plan.
    #[error("the journal has no plan {plan}")]
    NoPlan {
        /// The plan.
        plan: Digest,
    },
    /// The sickness did not break out in time.
    #[error("after {seconds} s only {blocked} of {wanted} sessions were blocked")]
    NotBlocked {
        /// How long was waited.
        seconds: u64,
        /// How many are.
        blocked: u64,
        /// How many should be.
        wanted: usize,
    },
    /// A person ended it.
    #[error("the demo was interrupted; nothing of it runs any more")]
    Interrupted,
}

impl DemoError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoPgstattuple { .. } => Some(
                "install the contrib package of your PostgreSQL, or set LAKEOPS_POSTGRES_BIN to \
                 the directory of another one"
                    .to_owned(),
            ),
            Self::Version { wanted, .. } => Some(format!(
                "install PostgreSQL {wanted}, or set LAKEOPS_POSTGRES_BIN to the directory of one"
            )),
            Self::Emulator(EmulatorError::Fleet(FleetError::InUse { .. })) => Some(
                "another demo is at work on this state directory: wait for it, or name another \
                 one with `--state`"
                    .to_owned(),
            ),
            Self::Server(error)
            | Self::Emulator(EmulatorError::Fleet(FleetError::Server(error))) => error.help(),
            Self::Workspace { failure, .. } => failure.help.clone(),
            _ => None,
        }
    }

    /// Whether the surroundings lack something, so that no promise was broken.
    pub const fn is_environment(&self) -> bool {
        matches!(
            self,
            Self::Server(_)
                | Self::Version { .. }
                | Self::Emulator(_)
                | Self::NoPgstattuple { .. }
                | Self::File { .. }
                | Self::Worker { .. }
        )
    }
}
