//! A session that changes, for appliers only.

use std::collections::HashMap;
use std::mem::Discriminant;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Either, PgConnection};

use super::read_text::{PREFIX, ReadText, read_text};
use super::session::{
    GRACE, SERVER_FACTS, SERVER_FACTS_UNPRIVILEGED, ServerFacts, answer, connect,
};
use super::{PgEndpoint, PgError, bind, decode, kept, scan};
use crate::config::settings::Limits;
use crate::kernel::{Bind, Query, Secret, SqlFile, SqlStatement};
use crate::sql_file;

/// Shows which backend serves a session.
pub const SESSION_CHECK: SqlFile = sql_file!("engine/session_check");

/// Words that a change's statement may not begin with: the transaction is the applier's.
const TRANSACTION_WORDS: [&str; 9] =
    ["abort", "begin", "commit", "end", "prepare", "release", "rollback", "savepoint", "start"];

/// The most statements of changes that the server keeps prepared, fewer than the driver can (100).
const MOST_PREPARED: usize = 50;

/// The longest of them, in bytes.
const LONGEST_PREPARED: usize = 10_000;

/// How a writing session is set up.
#[derive(Clone, Copy, Debug)]
pub struct WriterSetup<'a> {
    /// What the session is called, by which a later process finds it.
    pub application_name: &'a str,
    /// The run that it works for: the setting `lakeops.run` of the session.
    pub run: &'a str,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long it may wait for a lock.
    pub lock_timeout: Duration,
    /// Limits of connecting and of idling in a transaction.
    pub limits: &'a Limits,
    /// The server that it must be.
    pub expected: Option<&'a ServerFacts>,
}

impl WriterSetup<'_> {
    /// The server's own limits, in milliseconds.
    fn timeouts(&self) -> [(&'static str, String); 3] {
        [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_session_timeout", self.limits.statement_timeout.0),
        ]
        .map(|(name, limit)| (name, bind::timeout_millis(limit).to_string()))
    }
}

/// What a statement did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Rows touched or returned, as the server reported.
    pub rows: u64,
    /// The rows that it returned.
    pub returned: Vec<Value>,
}

/// A session that changes. Before anything else it has made sure where it is.
pub struct PgWriter {
    connection: PgConnection,
    facts: ServerFacts,
    patience: Duration,
    /// The statements of changes that are kept prepared, with the types of their values.
    prepared: HashMap<String, Vec<Discriminant<Bind>>>,
}

#[derive(Deserialize, PartialEq)]
struct SessionCheck {
    pid: i64,
    mark: Option<String>,
}

impl PgWriter {
    /// Connects, and refuses any place but the expected one: another server or database, a standby, the
    /// far side of a pooler, which would hand each transaction to some other session.
    pub async fn connect(endpoint: &PgEndpoint, setup: &WriterSetup<'_>) -> Result<Self, PgError> {
        let elsewhere = |why| PgError::WrongPlace { server: endpoint.label(), why };
        let connected = connect(&endpoint.with_startup(&startup(setup)), setup.limits).await;
        let connection = match connected {
            Err(error) if error.sqlstate() == Some("08P01") => return Err(elsewhere(pooled())),
            other => other?,
        };
        let patience = setup.statement_timeout.saturating_add(GRACE);
        let facts = ServerFacts::default();
        let mut writer = Self { connection, facts, patience, prepared: HashMap::new() };
        let before: SessionCheck = writer.row(&SESSION_CHECK).await?;
        writer.facts = match writer.row(&SERVER_FACTS).await {
            Err(error) if error.sqlstate() == Some("42501") => {
                writer.row(&SERVER_FACTS_UNPRIVILEGED).await?
            }
            other => other?,
        };
        writer.facts = std::mem::take(&mut writer.facts).at(endpoint.compute());
        if writer.facts.in_recovery {
            return Err(elsewhere("it is a standby, which can only be read".to_owned()));
        }
        if let Some(why) = setup.expected.and_then(|place| writer.facts.difference(place)) {
            return Err(elsewhere(why));
        }
        let after: SessionCheck = writer.row(&SESSION_CHECK).await?;
        if before != after || after.mark.as_deref() != Some(setup.application_name) {
            return Err(elsewhere(pooled()));
        }
        Ok(writer)
    }

    /// Where the session is.
    pub const fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// Takes the name and the time limits of another change of the same run, and opens its transaction: in one
    /// message, so that the name is there before anything of the change is. Who was reset has all else from its
    /// start. A session that does not answer soon is taken for broken.
    pub async fn begin_as(&mut self, setup: &WriterSetup<'_>) -> Result<(), PgError> {
        self.patience = setup.statement_timeout.saturating_add(GRACE);
        let begun = bind::simple(&mut self.connection, begin(setup));
        answer("begin", 0, kept::SOON, begun).await.map(drop)
    }

    /// The same for who was not reset, and is by that message; `false`: it is of no more use.
    pub async fn begin_anew(&mut self, setup: &WriterSetup<'_>) -> Result<bool, PgError> {
        self.patience = setup.statement_timeout.saturating_add(GRACE);
        kept::reset(&mut self.connection, &begin(setup)).await
    }

    /// Makes the session as good as new, called by `name`; `false`: it is of no more use. No transaction may
    /// be open.
    pub async fn reset(&mut self, name: &str) -> Result<bool, PgError> {
        let name = [("application_name", name.to_owned())];
        kept::reset(&mut self.connection, &set(name.into_iter())).await
    }

    /// Opens a transaction.
    pub async fn begin(&mut self) -> Result<(), PgError> {
        self.simple("begin").await
    }

    /// Commits it. When this fails with the connection, nobody can tell whether it was committed.
    pub async fn commit(&mut self) -> Result<(), PgError> {
        self.simple("commit").await
    }

    /// Rolls it back.
    pub async fn rollback(&mut self) -> Result<(), PgError> {
        self.simple("rollback").await
    }

    /// Opens a transaction that can only read.
    pub async fn begin_read_only(&mut self) -> Result<(), PgError> {
        self.simple("begin transaction read only").await
    }

    /// Forgets what this transaction has seen of other sessions and of statistics, so that a second
    /// look sees the present.
    pub async fn forget_statistics(&mut self) -> Result<(), PgError> {
        self.simple("select pg_catalog.pg_stat_clear_snapshot()").await
    }

    /// Carries out one statement, in the open transaction or, without one, on its own.
    pub async fn execute(
        &mut self,
        name: &str,
        statement: &SqlStatement,
        secret: &(dyn Fn(&str) -> Option<Secret<String>> + Send + Sync),
    ) -> Result<Outcome, PgError> {
        let tokens = scan::tokens(&statement.text);
        if let Some(first) = tokens.first()
            && TRANSACTION_WORDS.iter().any(|word| first.is(word))
        {
            let why = format!("begins with `{}`, and the transaction is not its own", first.text);
            return Err(PgError::NotAChange { query: name.to_owned(), why });
        }
        let arguments = bind::arguments(name, &statement.binds, secret)?;
        let stays = self.stays_prepared(statement, &tokens).await?;
        let query = bind::statement(statement.text.clone(), arguments).persistent(stays);
        self.carry_out(name, query).await
    }

    /// Whether the server keeps a statement prepared for the next one with its text: where it changes rows and
    /// returns none, so that no result can have changed its type. It is prepared for values of certain types, which the
    /// driver does not compare: when others come, all are forgotten.
    async fn stays_prepared(
        &mut self,
        statement: &SqlStatement,
        tokens: &[scan::Token<'_>],
    ) -> Result<bool, PgError> {
        let types: Vec<_> = statement.binds.iter().map(std::mem::discriminant).collect();
        match self.prepared.get(&statement.text) {
            Some(known) if *known == types => return Ok(true),
            Some(_) => {
                self.prepared.clear();
                let forgotten = self.connection.clear_cached_statements();
                answer("deallocate", 0, self.patience, forgotten).await?;
            }
            None => {}
        }
        let stays = self.prepared.len() < MOST_PREPARED
            && statement.text.len() <= LONGEST_PREPARED
            && scan::changes_rows(tokens)
            && !tokens.iter().any(|token| token.is("returning"));
        if stays {
            self.prepared.insert(statement.text.clone(), types);
        }
        Ok(stays)
    }

    async fn carry_out(
        &mut self,
        name: &str,
        query: sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<Outcome, PgError> {
        let work = collect(sqlx::Executor::fetch_many(&mut self.connection, query));
        let (rows, returned) = answer(name, 0, self.patience, work).await?;
        Ok(Outcome { rows, returned: decode::objects(name, &returned)? })
    }

    /// Carries out one of our own files that this session will carry out again: the server keeps it prepared.
    pub async fn execute_often(
        &mut self,
        file: &SqlFile,
        binds: &[Bind],
    ) -> Result<Outcome, PgError> {
        let arguments = bind::arguments(file.name, binds, &|_| None)?;
        let query = bind::statement(file.text.to_owned(), arguments).persistent(true);
        self.carry_out(file.name, query).await
    }

    /// Carries out one of our own files and returns its rows.
    pub async fn execute_file(
        &mut self,
        file: &SqlFile,
        binds: Vec<Bind>,
    ) -> Result<Outcome, PgError> {
        self.execute(file.name, &SqlStatement::with_binds(file.text, binds), &|_| None).await
    }

    /// Looks, in the open transaction.
    pub async fn query(&mut self, name: &str, query: &Query) -> Result<Vec<Value>, PgError> {
        let refuse = |why| PgError::NotARead { query: name.to_owned(), why };
        let arguments = bind::arguments(name, &query.binds, &|_| None)?;
        let (text, shift) = match read_text(&query.text).map_err(refuse)? {
            ReadText::Wrapped(text) => (text, PREFIX.chars().count()),
            ReadText::Plain(_) => return Err(refuse("must be a SELECT".to_owned())),
        };
        let rows = bind::statement(text, arguments).fetch_all(&mut self.connection);
        let rows = answer(name, shift, self.patience, rows).await?;
        decode::json_rows(name, &rows)
    }

    /// Ends the session.
    pub async fn close(self) {
        // All that matters was committed or rolled back before.
        drop(tokio::time::timeout(GRACE, self.connection.close()).await);
    }

    async fn row<T: DeserializeOwned>(&mut self, file: &SqlFile) -> Result<T, PgError> {
        let mut rows = self.query(file.name, &Query::new(file.text)).await?;
        let (Some(row), true) = (rows.pop(), rows.is_empty()) else {
            return Err(PgError::RowCount { query: file.name.to_owned(), found: rows.len() });
        };
        serde_json::from_value(row).map_err(|error| PgError::Decode {
            query: file.name.to_owned(),
            why: error.to_string(),
        })
    }

    async fn simple(&mut self, text: &'static str) -> Result<(), PgError> {
        let work = bind::simple(&mut self.connection, text.to_owned());
        answer(text, 0, self.patience, work).await.map(drop)
    }
}

/// The message that begins a change in a session that is there.
fn begin(setup: &WriterSetup<'_>) -> String {
    let name = ("application_name", setup.application_name.to_owned());
    format!("{}; begin", set([name].into_iter().chain(setup.timeouts())))
}

/// What sets a session's settings: a query, since `set` with another value is another statement for
/// `pg_stat_statements` (until PostgreSQL 18), which would remember each change's.
fn set(settings: impl Iterator<Item = (&'static str, String)>) -> String {
    let set = |(name, value): (&str, String)| {
        format!("pg_catalog.set_config('{name}', {}, false)", bind::literal(&value))
    };
    format!("select {}", settings.map(set).collect::<Vec<_>>().join(", "))
}

/// Settings of the session go into its start-up message: a pooler in the way drops or refuses them,
/// and shows itself by that.
fn startup(setup: &WriterSetup<'_>) -> super::endpoint::Startup {
    super::endpoint::Startup {
        application_name: setup.application_name.to_owned(),
        settings: [
            ("lakeops.session", setup.application_name.to_owned()),
            ("lakeops.run", setup.run.to_owned()),
        ]
        .into_iter()
        .chain(setup.timeouts())
        .collect(),
    }
}

fn pooled() -> String {
    "it is behind a connection pooler; name the server's own address instead".to_owned()
}

async fn collect(
    mut answers: impl futures::Stream<
        Item = Result<Either<sqlx::postgres::PgQueryResult, PgRow>, sqlx::Error>,
    > + Unpin,
) -> Result<(u64, Vec<PgRow>), sqlx::Error> {
    use futures::TryStreamExt as _;
    let (mut count, mut rows) = (0, Vec::new());
    while let Some(answer) = answers.try_next().await? {
        match answer {
            Either::Left(result) => count += result.rows_affected(),
            Either::Right(row) => rows.push(row),
        }
    }
    Ok((count, rows))
}
