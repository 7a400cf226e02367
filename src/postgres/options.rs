//! What a caller decides about local servers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where servers come from and where they may live.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The directory with `postgres` and `initdb`, when the user names one; then no other is looked at.
    pub bin_dir: Option<PathBuf>,
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
    /// Where the system's packages put one directory per major version.
    pub system: PathBuf,
    /// Where a fetched PostgreSQL is kept for all projects of the user.
    pub cache: PathBuf,
    /// Where programs and data go that the server's user could not reach below our home.
    pub shared: PathBuf,
    /// Who runs the server when we are root.
    pub user: Option<String>,
    /// The oldest major version that will do.
    pub oldest: u32,
    /// Whether a PostgreSQL may be fetched when none is found.
    pub fetch: bool,
}

impl ServerOptions {
    /// The defaults in an environment, which the caller looks up.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let directory =
            |name: &str| variable(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let shared = PathBuf::from("/var/lib/lakeops");
        let cache = directory("LAKEOPS_CACHE")
            .or_else(|| directory("XDG_CACHE_HOME").map(|dir| dir.join("lakeops")))
            .or_else(|| directory("HOME").map(|dir| dir.join(".cache/lakeops")))
            .unwrap_or_else(|| shared.clone());
        let path = variable("PATH").unwrap_or_default();
        Self {
            bin_dir: directory("LAKEOPS_POSTGRES_BIN"),
            path: std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect(),
            system: PathBuf::from("/usr/lib/postgresql"),
            cache,
            shared,
            user: variable("LAKEOPS_POSTGRES_USER").and_then(|name| name.into_string().ok()),
            oldest: 16,
            fetch: true,
        }
    }
}

/// Whether what a cluster holds must outlive a crash of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It must.
    #[default]
    Durable,
    /// It need not: nothing is flushed to disk. A crash of the server itself loses nothing.
    Throwaway,
}

/// One cluster: a data directory and the server on it.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Its name: lower-case letters, digits and `-`, at most 32.
    pub name: String,
    /// The state directory; what we know of the cluster is written to `postgres/<name>.json` below it.
    pub state: PathBuf,
    /// Whether it must survive a crash of the machine.
    pub durability: Durability,
    /// Further settings of the server, on its command line.
    pub settings: BTreeMap<String, String>,
    /// How long the server may take to start; recovery after a crash takes its time.
    pub start_limit: Duration,
    /// How long it may take to stop before it is stopped at once.
    pub stop_limit: Duration,
}

impl ClusterOptions {
    /// A durable cluster without special settings.
    pub fn new(name: impl Into<String>, state: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            state: state.into(),
            durability: Durability::default(),
            settings: BTreeMap::new(),
            start_limit: Duration::from_mins(1),
            stop_limit: Duration::from_secs(30),
        }
    }

    /// The same cluster, not flushed to disk.
    #[must_use]
    pub fn throwaway(mut self) -> Self {
        self.durability = Durability::Throwaway;
        self
    }

    /// The same cluster with one more setting.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }
}
