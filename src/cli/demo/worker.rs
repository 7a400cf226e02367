//! Runs this very program as a worker process: what the demo shows is the command line that a user has.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use super::error::DemoError;
use super::project::Project;

/// Starts worker processes in the demo's project.
#[derive(Clone, Debug)]
pub(super) struct Workers {
    /// This program.
    pub program: PathBuf,
    /// Where they work.
    pub project: Project,
    /// Variables of the user that are not meant for the demo.
    pub unset: Vec<String>,
}

/// How a worker ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it said besides its data.
    pub said: String,
}

impl Ended {
    /// The signal that killed it.
    pub(super) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Its exit code.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// It should not have ended so.
    pub(super) fn unexpected(self, call: &Call) -> DemoError {
        DemoError::Unexpected {
            command: call.args.join(" "),
            status: self.status.to_string(),
            said: self.said,
        }
    }
}

/// A command line and its environment.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    /// The arguments.
    pub args: Vec<String>,
    /// Variables.
    pub vars: Vec<(&'static str, String)>,
}

impl Call {
    /// A command line.
    pub(super) fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { args, vars: Vec::new() }
    }

    /// The same with a variable.
    pub(super) fn with_var(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.vars.push((name, value.into()));
        self
    }
}

impl Workers {
    /// Runs a worker to its end. Dropping the future kills it.
    pub(super) async fn run(&self, call: &Call) -> Result<Ended, DemoError> {
        let mut command = Command::new(&self.program);
        command
            .args(&call.args)
            .args(["--output", "json", "--config"])
            .arg(self.project.config())
            .current_dir(self.project.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(call.vars.iter().map(|(name, value)| (*name, value.as_str())));
        let output = command.output().await.map_err(|source| DemoError::Worker { source })?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Ended { status: output.status, said })
    }
}
