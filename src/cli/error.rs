//! Everything that a command can end with instead of a result.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::bench::BenchError;
use super::demo::DemoError;
use super::exit::Exit;
use crate::config::ConfigError;
use crate::config::lakebase::EmulatorError;
use crate::crash::CrashError;
use crate::engine::EngineError;
use crate::history::HistoryError;
use crate::journal::JournalError;
use crate::kernel::{Failure, RetryClass};
use crate::lakebase::LoginError;
use crate::plan::file::PlanFileError;
use crate::postgres::{EndpointError, PgError, PostgresError};
use crate::report::style::{Style, Tone};
use crate::schedule::StandingError;
use crate::server::ServerError;

/// Everything that a command can end with instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do instead.
        help: Option<String>,
    },
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// Files have mistakes; they were printed already.
    #[error("{0} in the files above")]
    Mistakes(String),
    /// The journal refuses or cannot.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// The history refuses or cannot.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The engine refuses or cannot.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The local PostgreSQL cannot be used.
    #[error("the local PostgreSQL cannot be used")]
    Local(#[from] PostgresError),
    /// A database cannot be reached as it is described.
    #[error("the database cannot be reached")]
    Endpoint(#[from] EndpointError),
    /// The workspace cannot be logged in to.
    #[error("the workspace cannot be used")]
    Login(#[from] LoginError),
    /// The Lakebase on this machine does not run.
    #[error("the emulator cannot be used")]
    Emulator(#[from] EmulatorError),
    /// A query failed.
    #[error("the database refused")]
    Query(#[from] PgError),
    /// A tool failed.
    #[error("{}", .0.message)]
    Tool(Failure),
    /// A plan's file cannot be written or trusted.
    #[error(transparent)]
    PlanFile(#[from] PlanFileError),
    /// A file cannot be read or written.
    #[error("{path} cannot be {verb}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The demo could not go on.
    #[error("the demo could not go on")]
    Demo(#[from] DemoError),
    /// The server ended by itself.
    #[error("the server could not go on")]
    Server(#[from] ServerError),
    /// What the journal says of a schedule does not add up.
    #[error("the schedule's standing cannot be told")]
    Standing(#[from] StandingError),
    /// Another server lives on the same state.
    #[error("{holder} serves this state directory")]
    Served {
        /// Who.
        holder: String,
    },
    /// Nothing could be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A crash test cannot be carried out.
    #[error(transparent)]
    Crash(#[from] CrashError),
    /// The emulator cannot start or go on.
    #[error("{message}")]
    EmulatorFailed {
        /// What went wrong.
        message: String,
        /// What to do next.
        help: String,
    },
    /// What was printed could not be printed.
    #[error("the output cannot be written")]
    Output(#[source] std::io::Error),
    /// This version cannot do it yet.
    #[error("{what} is not there yet in this version")]
    NotYet {
        /// What.
        what: &'static str,
        /// What to do instead.
        help: &'static str,
    },
}

impl CliError {
    /// A mistake in the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: None }
    }

    /// A mistake in the command line, and what to do instead.
    pub fn usage_with(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: Some(help.into()) }
    }

    /// A file that cannot be read.
    pub fn unreadable(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), verb: "read", source }
    }

    /// A file that cannot be written.
    pub fn unwritable(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), verb: "written", source }
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Mistakes(_) | Self::NotYet { .. } | Self::Endpoint(_) => {
                Exit::Invalid
            }
            Self::Config(ConfigError::Connection { .. })
            | Self::Login(_)
            | Self::Emulator(_)
            | Self::Local(_)
            | Self::File { .. }
            | Self::EmulatorFailed { .. }
            | Self::Served { .. }
            | Self::PlanFile(PlanFileError::Write { .. } | PlanFileError::Read { .. }) => {
                Exit::Environment
            }
            Self::Demo(error) if error.is_environment() => Exit::Environment,
            Self::Config(_) | Self::PlanFile(_) => Exit::Invalid,
            Self::Crash(error) if error.is_usage() => Exit::Invalid,
            Self::Standing(StandingError::Journal(error)) | Self::Journal(error) => {
                of_journal(error)
            }
            Self::Standing(StandingError::Misplaced(_)) => Exit::Stuck,
            Self::Engine(error) => of_engine(error),
            Self::Query(error) if error.retry_class() == RetryClass::Transient => Exit::Environment,
            Self::Demo(DemoError::Interrupted) | Self::Crash(CrashError::Interrupted) => {
                Exit::Interrupted
            }
            Self::Query(_)
            | Self::Tool(_)
            | Self::Demo(_)
            | Self::Bench(_)
            | Self::Crash(_)
            | Self::Server(_) => Exit::Failed,
            Self::History(error) => of_history(error),
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Environment,
        }
    }

    /// What to do next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Usage { help, .. } | Self::Engine(EngineError::Refused { help, .. }) => {
                help.clone()
            }
            Self::Local(error) => error.help(),
            Self::Demo(error) => error.help(),
            Self::PlanFile(error) => Some(error.help().to_owned()),
            Self::Query(error) => error.help(),
            Self::Tool(failure) => failure.help.clone(),
            Self::Crash(error) => error.help(),
            Self::History(error) => error.help().map(str::to_owned),
            Self::EmulatorFailed { help, .. } => Some(help.clone()),
            Self::NotYet { help, .. } => Some((*help).to_owned()),
            Self::Login(error) => Some(error.help()),
            Self::Emulator(_) => Some("`lakeops emulator start` starts it".to_owned()),
            Self::Journal(error) | Self::Engine(EngineError::Journal(error)) => {
                journal_help(error).map(str::to_owned)
            }
            Self::Served { .. } => {
                Some("stop it first, or take over when it ends: `lakeops serve --wait`".to_owned())
            }
            Self::Engine(EngineError::NoRehearsal { .. }) => Some(
                "`lakeops emulator start` gives a local Lakebase with real branches; `lakeops plan WORKFLOW --preview` shows the changes anywhere"
                    .to_owned(),
            ),
            Self::Engine(EngineError::Sealed { .. }) => {
                Some("`lakeops show` says what is left of it, and where the rest is".to_owned())
            }
            Self::Engine(EngineError::Owned { .. }) => {
                Some("wait for it, or look on with `lakeops watch`".to_owned())
            }
            Self::Engine(_)
            | Self::Config(_)
            | Self::Mistakes(_)
            | Self::Bench(_)
            | Self::Server(_)
            | Self::Standing(_)
            | Self::Endpoint(_)
            | Self::File { .. }
            | Self::Output(_) => None,
        }
    }

    /// Whether nothing is to be said: whoever reads our output has gone.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The error with its causes and its help, for a person.
    pub fn render(&self, style: Style) -> String {
        let mut text = format!("{} {self}\n", style.paint(Tone::Bad, "error:"));
        let mut last = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if said != last {
                let _ = writeln!(text, "  caused by: {}", said.replace('\n', "\n    "));
            }
            last = said;
            cause = error.source();
        }
        if let Some(help) = self.help() {
            let _ = writeln!(text, "  {} {help}", style.paint(Tone::Good, "help:"));
        }
        text
    }

    /// The same as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let mut causes = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        serde_json::json!({
            "error": self.to_string(),
            "caused_by": causes,
            "help": self.help(),
            "exit_code": self.exit().code(),
        })
    }
}

fn of_history(error: &HistoryError) -> Exit {
    match error {
        HistoryError::Location { .. }
        | HistoryError::NotBuiltIn { .. }
        | HistoryError::Refused { .. }
        | HistoryError::Query(_) => Exit::Invalid,
        HistoryError::File { .. }
        | HistoryError::Busy { .. }
        | HistoryError::Delta { .. }
        | HistoryError::Postgres { .. }
        | HistoryError::Unwritable { .. } => Exit::Environment,
        HistoryError::OtherType { .. } | HistoryError::Batch { .. } => Exit::Failed,
        HistoryError::Journal(error) => of_journal(error),
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        Self::Tool(failure)
    }
}

const fn of_journal(error: &JournalError) -> Exit {
    match error {
        JournalError::NoSuchRun { .. } => Exit::Invalid,
        JournalError::Newer { .. } | JournalError::InUse { .. } | JournalError::Storage { .. } => {
            Exit::Environment
        }
        JournalError::Corrupt { .. } => Exit::Stuck,
        JournalError::Conflict { .. } | JournalError::DuplicateKey { .. } => Exit::Failed,
    }
}

const fn of_engine(error: &EngineError) -> Exit {
    match error {
        EngineError::Journal(error) => of_journal(error),
        EngineError::Refused { .. }
        | EngineError::Sealed { .. }
        | EngineError::NoRehearsal { .. }
        | EngineError::BadPlan(_)
        | EngineError::Stale { .. } => Exit::Invalid,
        EngineError::Owned { .. } => Exit::Environment,
        EngineError::Illegal { .. } | EngineError::NoPlan { .. } => Exit::Stuck,
        EngineError::Execute(_) => Exit::Failed,
    }
}

const fn journal_help(error: &JournalError) -> Option<&'static str> {
    match error {
        JournalError::NoSuchRun { found: 0, .. } => Some("`lakeops runs` lists the runs"),
        JournalError::NoSuchRun { .. } => Some("write more of its id"),
        JournalError::Newer { .. } => {
            Some("use the version of lakeops that wrote it, or a newer one")
        }
        JournalError::Storage { full: true, .. } => {
            Some("make space; then `lakeops resume --all` goes on")
        }
        JournalError::Corrupt { .. } => {
            Some("`lakeops audit verify` shows how far it can be trusted")
        }
        JournalError::Storage { .. }
        | JournalError::InUse { .. }
        | JournalError::Conflict { .. }
        | JournalError::DuplicateKey { .. } => None,
    }
}
