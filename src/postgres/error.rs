//! What can go wrong in a session, and what may be done about it.

use sqlx::postgres::{PgDatabaseError, PgErrorPosition, PgSeverity};

use super::sqlstate;
use crate::kernel::{Failure, RetryClass};

/// What a session failed to do.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// There is no database to work on.
    #[error("{0}")]
    Nowhere(Failure),
    /// The server could not be reached, or refused the session.
    #[error("failed to connect to {server}")]
    Connect {
        /// Host, port and database.
        server: String,
        /// The SQLSTATE, when the server itself answered.
        sqlstate: Option<String>,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The server refused a statement.
    #[error(transparent)]
    Statement(Box<StatementError>),
    /// The server did not answer in time. Its own time limit should have come first.
    #[error("no answer to query `{query}` within {}", humantime::format_duration(*.after))]
    Timeout {
        /// The query's name.
        query: String,
        /// How long we waited.
        after: std::time::Duration,
    },
    /// The connection broke while a statement was on its way.
    #[error("the connection broke during query `{query}`")]
    Lost {
        /// The query's name.
        query: String,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A text that is not one statement that only reads.
    #[error("query `{query}` {why}")]
    NotARead {
        /// The query's name.
        query: String,
        /// What is wrong with it, as a predicate.
        why: String,
    },
    /// A statement that would end the transaction it runs in.
    #[error("statement `{query}` {why}")]
    NotAChange {
        /// The statement's name.
        query: String,
        /// What is wrong with it, as a predicate.
        why: String,
    },
    /// A bound value cannot be sent.
    #[error("failed to bind ${position} of query `{query}`: {why}")]
    Bind {
        /// The query's name.
        query: String,
        /// The placeholder's number.
        position: usize,
        /// Why not.
        why: String,
    },
    /// Not exactly one row.
    #[error("query `{query}` returned {found} rows instead of one")]
    RowCount {
        /// The query's name.
        query: String,
        /// How many rows it returned.
        found: usize,
    },
    /// A row does not have the form that its reader expects.
    #[error("failed to read a row of query `{query}`: {why}")]
    Decode {
        /// The query's name.
        query: String,
        /// What does not fit.
        why: String,
    },
    /// The session is not where the change belongs.
    #[error("refused to change {server}: {why}")]
    WrongPlace {
        /// Host, port and database.
        server: String,
        /// What is different.
        why: String,
    },
}

/// What the server said about a statement that it refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query `{query}` failed: {message} (SQLSTATE {sqlstate}){}", self.more())]
pub struct StatementError {
    /// The query's name.
    pub query: String,
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// Advice of the server.
    pub hint: Option<String>,
    /// Where in the text, counted in characters from 1.
    pub position: Option<usize>,
    /// Whether the server ended the session with it.
    pub is_fatal: bool,
}

impl StatementError {
    fn more(&self) -> String {
        let detail = self.detail.as_ref().map(|text| format!("; {text}"));
        let position = self.position.map(|at| format!("; at character {at}"));
        detail.into_iter().chain(position).collect()
    }

    pub(super) fn new(query: &str, error: &PgDatabaseError, shift: usize) -> Self {
        let position = match error.position() {
            Some(PgErrorPosition::Original(at)) => at.checked_sub(shift).filter(|at| *at > 0),
            Some(PgErrorPosition::Internal { .. }) | None => None,
        };
        Self {
            query: query.to_owned(),
            sqlstate: error.code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            position,
            is_fatal: matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic),
        }
    }
}

impl PgError {
    /// Sorts what the driver says about a statement; `shift` characters were put in front of its text.
    pub(super) fn of_statement(query: &str, error: sqlx::Error, shift: usize) -> Self {
        if let Some(known) = database_error(&error) {
            return Self::Statement(Box::new(StatementError::new(query, known, shift)));
        }
        match error {
            sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => {
                Self::Decode { query: query.to_owned(), why: source.to_string() }
            }
            source => Self::Lost { query: query.to_owned(), source },
        }
    }

    /// What the driver says about a connection that did not come about.
    pub(super) fn of_connect(server: String, source: sqlx::Error) -> Self {
        let sqlstate = database_error(&source).map(|error| error.code().to_owned());
        Self::Connect { server, sqlstate, source }
    }

    /// Whether the connection is of no more use.
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Statement(error) => error.is_fatal,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Lost { .. } => true,
            Self::NotARead { .. }
            | Self::NotAChange { .. }
            | Self::Bind { .. }
            | Self::RowCount { .. }
            | Self::Decode { .. }
            | Self::Nowhere(_)
            | Self::WrongPlace { .. } => false,
        }
    }

    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Connect { sqlstate, .. } => sqlstate.as_deref(),
            Self::Statement(error) => Some(&error.sqlstate),
            Self::Timeout { .. }
            | Self::Lost { .. }
            | Self::NotARead { .. }
            | Self::NotAChange { .. }
            | Self::Bind { .. }
            | Self::RowCount { .. }
            | Self::Decode { .. }
            | Self::Nowhere(_)
            | Self::WrongPlace { .. } => None,
        }
    }

    /// What the server itself said, when it did.
    pub fn server_message(&self) -> Option<&str> {
        match self {
            Self::Connect { source, .. } => database_error(source).map(PgDatabaseError::message),
            Self::Statement(error) => Some(&error.message),
            _ => None,
        }
    }

    /// What may be done about it. An answer that never came is `Transient`, which is right for reads;
    /// an applier makes more of it.
    pub fn retry_class(&self) -> RetryClass {
        self.verdict().class
    }

    /// A stable code, such as `postgres::lock_timeout`.
    pub fn code(&self) -> &'static str {
        self.verdict().code
    }

    /// What to do next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Statement(error) => sqlstate::advice(error),
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. }
            | Self::NotARead { .. }
            | Self::NotAChange { .. }
            | Self::Bind { .. }
            | Self::RowCount { .. }
            | Self::Decode { .. }
            | Self::Nowhere(_)
            | Self::WrongPlace { .. } => self.verdict().help.map(str::to_owned),
        }
    }

    fn verdict(&self) -> sqlstate::Verdict {
        use sqlstate::Verdict;
        match self {
            Self::Nowhere(_) => Verdict::permanent("postgres::no_database"),
            Self::Statement(error) => sqlstate::verdict_with(&error.sqlstate, &error.message),
            Self::Connect { sqlstate: Some(sqlstate), .. } => sqlstate::verdict(sqlstate),
            Self::Connect { source: sqlx::Error::Configuration(_) | sqlx::Error::Tls(_), .. } => {
                Verdict::permanent("postgres::connect").help(
                    "check host, certificate and `sslmode` of the connection; `lakeops doctor` tries it",
                )
            }
            Self::Connect { .. } => Verdict::transient("postgres::connect")
                .help("check that the server runs and is reachable; `lakeops doctor` tries it"),
            Self::Timeout { .. } => Verdict::transient("postgres::no_answer"),
            Self::Lost { .. } => Verdict::transient("postgres::connection_lost"),
            Self::NotARead { .. } => Verdict::permanent("postgres::not_a_read")
                .help("write one SELECT, VALUES, TABLE, WITH, EXPLAIN or SHOW; changes are made by write tools"),
            Self::NotAChange { .. } => Verdict::permanent("postgres::not_a_change"),
            Self::Bind { .. } => Verdict::permanent("postgres::bind"),
            Self::RowCount { .. } => Verdict::permanent("postgres::row_count"),
            Self::Decode { .. } => Verdict::permanent("postgres::decode"),
            Self::WrongPlace { .. } => Verdict::permanent("postgres::wrong_place"),
        }
    }
}

fn database_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        if let PgError::Nowhere(failure) = error {
            return failure;
        }
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            let text = source.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = source.source();
        }
        Self {
            class: error.retry_class(),
            code: error.code().to_owned(),
            message,
            help: error.help(),
        }
    }
}
