//! A session that can only read.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Column as _, Connection as _, Either, PgConnection, Statement as _, TypeInfo as _};
use tokio::sync::Mutex;

use super::read_text::{PREFIX, ReadText, read_text};
use super::{ComputeId, PgEndpoint, PgError, bind, decode, kept};
use crate::config::settings::Limits;
use crate::kernel::{Bind, BoxFuture, Failure, Query, SqlFile, Timestamp};
use crate::sql_file;

/// How long after the server's own time limit we stop waiting for its answer.
pub(super) const GRACE: Duration = Duration::from_secs(5);

pub(super) const SERVER_FACTS: SqlFile = sql_file!("engine/server_facts");
pub(super) const SERVER_FACTS_UNPRIVILEGED: SqlFile = sql_file!("engine/server_facts_unprivileged");

/// The SQL files that sessions use themselves.
pub const SESSION_SQL: [&SqlFile; 3] =
    [&SERVER_FACTS, &SERVER_FACTS_UNPRIVILEGED, &super::writer::SESSION_CHECK];

/// Which server, database and user a session works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// The version, such as `170010`.
    pub version_num: u32,
    /// The cluster's own identifier; `None` when the user may not ask. Copies of a cluster share it.
    pub system_identifier: Option<String>,
    /// The database.
    pub database: String,
    /// The database's OID.
    pub database_oid: u32,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The user whose privileges hold.
    pub user: String,
    /// When the server was started.
    pub postmaster_start: Timestamp,
    /// Of a compute of Lakebase: the uid of its branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_uid: Option<String>,
    /// Of a compute of Lakebase: the uid of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_uid: Option<String>,
}

impl ServerFacts {
    /// Place and database in one word: of a compute of Lakebase the branch, else the cluster, whose copies
    /// share it.
    pub fn identity(&self) -> String {
        format!("{} {}", self.place().unwrap_or("-"), self.database_oid)
    }

    /// The same facts of a server that was reached by `endpoint`.
    pub(super) fn at(self, endpoint: Option<&ComputeId>) -> Self {
        Self {
            branch_uid: endpoint.map(|id| id.branch.clone()),
            endpoint_uid: endpoint.map(|id| id.endpoint.clone()),
            ..self
        }
    }

    /// What tells this server from others for good: the branch, else the cluster.
    pub fn place(&self) -> Option<&str> {
        self.branch_uid.as_deref().or(self.system_identifier.as_deref())
    }

    /// Where `self` is not the place that `other` was: what differs, for a person.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.database != other.database {
            return Some(format!("it is database `{}`, not `{}`", self.database, other.database));
        }
        if self.database_oid != other.database_oid {
            return Some(format!(
                "database `{}` is another one of the same name (OID {}, not {})",
                self.database, self.database_oid, other.database_oid
            ));
        }
        if let (Some(here), Some(there)) = (&self.endpoint_uid, &other.endpoint_uid)
            && here != there
        {
            return Some(format!(
                "it is another compute ({here}, not {there}): was the branch reset?"
            ));
        }
        match (&self.system_identifier, &other.system_identifier) {
            (Some(here), Some(there)) if here != there => {
                Some(format!("it is another server (system identifier {here}, not {there})"))
            }
            _ => None,
        }
    }
}

/// What the server says about a statement that it has parsed and not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Name and type of each column, the type as PostgreSQL writes it in `pg_type`, in capitals.
    pub columns: Vec<(String, String)>,
    /// The type of each placeholder.
    pub parameters: Vec<String>,
}

/// A session that can only read. It connects on first use, holds one connection, runs every query in a
/// `READ ONLY` transaction of its own with time limits, rolls it back, and connects again after a
/// connection was lost.
pub struct PgReader {
    source: Source,
    application_name: String,
    limits: Limits,
    has_search_path: bool,
    state: Mutex<State>,
}

/// Where a session gets its endpoint from.
enum Source {
    Known(Box<PgEndpoint>),
    Nowhere(Failure),
    FoundBy(Box<FindEndpoint>),
}

/// Finds an endpoint, each time that a session connects.
type FindEndpoint = dyn Fn() -> BoxFuture<'static, Result<PgEndpoint, Failure>> + Send + Sync;

#[derive(Default)]
struct State {
    connection: Option<PgConnection>,
    compute: Option<ComputeId>,
    facts: Option<ServerFacts>,
    /// Whether the connection was kept, and has not answered for a while: the server may be gone, and what is
    /// known of it with it.
    is_unproven: bool,
    /// When the server last answered; `None`: in this session, or never.
    answered: Option<Timestamp>,
}

/// The connection of a session that only read, kept for another one on the same place. Each of its transactions
/// was rolled back, so nothing is left in it.
pub struct KeptReader {
    connection: PgConnection,
    compute: Option<ComputeId>,
    facts: Option<ServerFacts>,
    /// When the server last answered on it; `None`: the session that had it last.
    pub answered: Option<Timestamp>,
}

impl KeptReader {
    /// Ends it.
    pub async fn close(self) {
        // There is nothing left to lose on a connection that only read.
        drop(tokio::time::timeout(GRACE, self.connection.close()).await);
    }
}

impl PgReader {
    /// A session on `endpoint`, not connected yet.
    pub fn new(endpoint: PgEndpoint, limits: &Limits, application_name: &str) -> Self {
        Self {
            source: Source::Known(Box::new(endpoint)),
            application_name: application_name.to_owned(),
            limits: limits.clone(),
            has_search_path: true,
            state: Mutex::default(),
        }
    }

    /// A session for what needs no database: whoever reads all the same is told why it cannot.
    pub fn unavailable(why: Failure) -> Self {
        Self {
            source: Source::Nowhere(why),
            application_name: String::new(),
            limits: Limits::default(),
            has_search_path: true,
            state: Mutex::default(),
        }
    }

    /// A session on what `find` finds, asked each time that it connects: who never reads never asks.
    pub fn found_by(
        find: impl Fn() -> BoxFuture<'static, Result<PgEndpoint, Failure>> + Send + Sync + 'static,
        limits: &Limits,
        application_name: &str,
    ) -> Self {
        Self {
            source: Source::FoundBy(Box::new(find)),
            application_name: application_name.to_owned(),
            limits: limits.clone(),
            has_search_path: true,
            state: Mutex::default(),
        }
    }

    /// The same session with an empty search path: the server then writes every name outside
    /// `pg_catalog` with its schema.
    #[must_use]
    pub fn with_empty_search_path(mut self) -> Self {
        self.has_search_path = false;
        self
    }

    /// The same session on a connection that another one left. When it turns out to be broken, the session
    /// connects by itself, and knows nothing of before. `is_proven`: the server has answered on it just now.
    #[must_use]
    pub fn on(mut self, kept: KeptReader, is_proven: bool) -> Self {
        let KeptReader { connection, compute, facts, answered } = kept;
        self.state = Mutex::new(State {
            connection: Some(connection),
            compute,
            facts,
            is_unproven: !is_proven,
            answered,
        });
        self
    }

    /// What is left of the session for another one; `None` when it is not connected.
    pub fn into_kept(self) -> Option<KeptReader> {
        let State { connection, compute, facts, answered, .. } = self.state.into_inner();
        connection.map(|connection| KeptReader { connection, compute, facts, answered })
    }

    /// Where it reads.
    pub async fn endpoint(&self) -> Result<PgEndpoint, PgError> {
        match &self.source {
            Source::Known(endpoint) => Ok(PgEndpoint::clone(endpoint)),
            Source::Nowhere(failure) => Err(PgError::Nowhere(failure.clone())),
            Source::FoundBy(find) => find().await.map_err(PgError::Nowhere),
        }
    }

    /// Runs a file of `sql/`, each row read as `T`.
    pub async fn rows<T: DeserializeOwned>(
        &self,
        file: &SqlFile,
        binds: &[Bind],
    ) -> Result<Vec<T>, PgError> {
        self.read(file.name, file.text, binds).await
    }

    /// Runs a file of `sql/` that returns exactly one row.
    pub async fn row<T: DeserializeOwned>(
        &self,
        file: &SqlFile,
        binds: &[Bind],
    ) -> Result<T, PgError> {
        let mut rows = self.rows(file, binds).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (last, rest) => Err(PgError::RowCount {
                query: file.name.to_owned(),
                found: rest + usize::from(last.is_some()),
            }),
        }
    }

    /// Runs a text that is no file of ours: one SELECT, VALUES, TABLE, WITH, EXPLAIN or SHOW. Each row
    /// comes as an object. `name` stands for the text in messages.
    pub async fn query(&self, name: &str, query: &Query) -> Result<Vec<Value>, PgError> {
        self.read(name, &query.text, &query.binds).await
    }

    /// The plan of a statement whose values are not known (`$1`, `$2`, …), as EXPLAIN's JSON; from PostgreSQL
    /// 16 on. Nothing is run.
    ///
    /// Placeholders without values exist only in messages of the simple protocol, which takes several
    /// statements as well. So the server parses the text by itself first: there it takes one.
    pub async fn generic_plan(&self, name: &str, statement: &str) -> Result<Value, PgError> {
        let text = format!("explain (generic_plan, verbose, format json) {statement}");
        let refuse = |why| PgError::NotARead { query: name.to_owned(), why };
        let (ReadText::Plain(text) | ReadText::Wrapped(text)) = read_text(&text).map_err(refuse)?;
        self.describe(name, &text).await?;
        let mut state = self.state.lock().await;
        let mut connection = self.begin(&mut state, name).await?;
        let rows = bind::simple(&mut connection, text);
        let answer = answer(name, 0, self.patience(), rows).await;
        self.end(&mut state, connection, answer.as_ref().err()).await;
        let unread = |why: String| PgError::Decode { query: name.to_owned(), why };
        let first = decode::objects(name, &answer?)?.into_iter().next();
        let plan = first.as_ref().and_then(|row| row.get("QUERY PLAN"));
        match plan {
            Some(Value::String(text)) => {
                serde_json::from_str(text).map_err(|error| unread(error.to_string()))
            }
            Some(other) => Ok(other.clone()),
            None => Err(unread("there is no plan in the answer".to_owned())),
        }
    }

    /// Which server this is; asked once.
    pub async fn server(&self) -> Result<ServerFacts, PgError> {
        {
            let mut state = self.state.lock().await;
            if state.is_unproven {
                self.prove(&mut state).await;
            }
            if let Some(facts) = &state.facts {
                return Ok(facts.clone());
            }
        }
        let facts: ServerFacts = match self.row(&SERVER_FACTS, &[]).await {
            Err(error) if error.sqlstate() == Some("42501") => {
                self.row(&SERVER_FACTS_UNPRIVILEGED, &[]).await?
            }
            other => other?,
        };
        let mut state = self.state.lock().await;
        let facts = facts.at(state.compute.as_ref());
        state.facts = Some(facts.clone());
        Ok(facts)
    }

    /// Has the server parse a text: its columns and placeholders. Nothing is run.
    pub async fn describe(&self, name: &str, text: &str) -> Result<Described, PgError> {
        let mut state = self.state.lock().await;
        let mut connection = self.begin(&mut state, name).await?;
        let answer =
            answer(name, 0, self.patience(), bind::prepare(&mut connection, text.to_owned())).await;
        self.end(&mut state, connection, answer.as_ref().err()).await;
        let prepared = answer?;
        let columns = prepared.columns().iter();
        let parameters = match prepared.parameters() {
            Some(Either::Left(types)) => types.iter().map(|info| info.name().to_owned()).collect(),
            Some(Either::Right(_)) | None => Vec::new(),
        };
        Ok(Described {
            columns: columns
                .map(|column| (column.name().to_owned(), column.type_info().name().to_owned()))
                .collect(),
            parameters,
        })
    }

    /// Finds out whether a connection that was kept is still there. The server stays the same as long as it
    /// is.
    async fn prove(&self, state: &mut State) {
        state.is_unproven = false;
        if let Some(mut session) = state.connection.take() {
            let answered = answer("ping", 0, kept::SOON, session.ping()).await;
            state.answered = None;
            state.connection = answered.is_ok().then_some(session);
        }
        if state.connection.is_none() {
            state.facts = None;
        }
    }

    /// Says goodbye to the server. Dropping the session ends it too, less politely.
    pub async fn close(self) {
        if let Some(kept) = self.into_kept() {
            kept.close().await;
        }
    }

    async fn read<T: DeserializeOwned>(
        &self,
        name: &str,
        text: &str,
        binds: &[Bind],
    ) -> Result<Vec<T>, PgError> {
        let refuse = |why| PgError::NotARead { query: name.to_owned(), why };
        let text = read_text(text).map_err(refuse)?;
        let arguments = bind::arguments(name, binds, &|_| None)?;
        match text {
            ReadText::Wrapped(text) => {
                let shift = PREFIX.chars().count();
                let rows = self.fetch(name, text, arguments, shift).await?;
                decode::json_rows(name, &rows)
            }
            ReadText::Plain(text) => {
                let rows = self.fetch(name, text, arguments, 0).await?;
                let objects = decode::objects(name, &rows)?.into_iter();
                let read = |object| {
                    serde_json::from_value(object).map_err(|error| PgError::Decode {
                        query: name.to_owned(),
                        why: error.to_string(),
                    })
                };
                objects.map(read).collect()
            }
        }
    }

    async fn fetch(
        &self,
        name: &str,
        text: String,
        arguments: PgArguments,
        shift: usize,
    ) -> Result<Vec<PgRow>, PgError> {
        let mut state = self.state.lock().await;
        let mut connection = self.begin(&mut state, name).await?;
        let query = bind::statement(text, arguments);
        let answer = answer(name, shift, self.patience(), query.fetch_all(&mut connection)).await;
        self.end(&mut state, connection, answer.as_ref().err()).await;
        answer
    }

    fn patience(&self) -> Duration {
        self.limits.statement_timeout.0.saturating_add(GRACE)
    }

    /// A connection inside a fresh transaction. It is taken out of the state, so that a reader that is
    /// dropped half-way leaves no connection in an unknown state behind.
    async fn begin(&self, state: &mut State, name: &str) -> Result<PgConnection, PgError> {
        let statement = bind::timeout_millis(self.limits.statement_timeout.0);
        let lock = bind::timeout_millis(self.limits.lock_timeout.0);
        let path = if self.has_search_path { "" } else { "; set local search_path = ''" };
        let begin = format!(
            "begin transaction read only; set local statement_timeout = {statement}; \
             set local lock_timeout = {lock}; \
             set local idle_in_transaction_session_timeout = {statement}{path}"
        );
        if let Some(mut kept) = state.connection.take() {
            // The server may have gone away meanwhile; nothing is lost by connecting again.
            let begun =
                answer(name, 0, self.patience(), bind::simple(&mut kept, begin.clone())).await;
            if begun.is_ok() {
                state.is_unproven = false;
                return Ok(kept);
            }
        }
        if std::mem::take(&mut state.is_unproven) {
            state.facts = None;
        }
        let mut fresh = {
            let endpoint = self.endpoint().await?.with_application_name(&self.application_name);
            state.compute = endpoint.compute().cloned();
            connect(&endpoint, &self.limits).await?
        };
        answer(name, 0, self.patience(), bind::simple(&mut fresh, begin)).await?;
        Ok(fresh)
    }

    /// Ends the transaction and keeps the connection, when it is still good.
    async fn end(&self, state: &mut State, mut connection: PgConnection, error: Option<&PgError>) {
        if error.is_some_and(PgError::ends_session) {
            return;
        }
        let ended = bind::simple(&mut connection, "rollback".to_owned());
        if answer("rollback", 0, self.patience(), ended).await.is_ok() {
            state.answered = None;
            state.connection = Some(connection);
        }
    }
}

/// Waits for an answer a little longer than the server itself would work on it.
pub(super) async fn answer<R>(
    name: &str,
    shift: usize,
    after: Duration,
    question: impl Future<Output = Result<R, sqlx::Error>>,
) -> Result<R, PgError> {
    match tokio::time::timeout(after, question).await {
        Ok(answer) => answer.map_err(|error| PgError::of_statement(name, error, shift)),
        Err(_) => Err(PgError::Timeout { query: name.to_owned(), after }),
    }
}

/// Connects within the configured time.
pub(super) async fn connect(
    endpoint: &PgEndpoint,
    limits: &Limits,
) -> Result<PgConnection, PgError> {
    let after = limits.connect_timeout.0;
    let connected = tokio::time::timeout(after, PgConnection::connect_with(endpoint.options()));
    match connected.await {
        Ok(connection) => {
            connection.map_err(|source| PgError::of_connect(endpoint.label(), source))
        }
        Err(_) => Err(PgError::of_connect(
            endpoint.label(),
            sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no connection within {}", limits.connect_timeout),
            )),
        )),
    }
}

/// Connects and leaves again: whether somebody is let in.
pub async fn knock(endpoint: &PgEndpoint, limits: &Limits) -> Result<(), PgError> {
    let endpoint = endpoint.with_application_name("lakeops:login");
    let connection = connect(&endpoint, limits).await?;
    drop(tokio::time::timeout(GRACE, connection.close()).await);
    Ok(())
}
