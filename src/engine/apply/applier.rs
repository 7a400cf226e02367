//! What the engine asks of an applier, and the choice of one by kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::api::ApiApplier;
use super::archive::ArchiveApplier;
use super::command::CommandApplier;
use super::experiment::ExperimentApplier;
use super::file::FileApplier;
use super::from_archive::FromArchiveApplier;
use super::history::HistoryApplier;
use super::http::HttpApplier;
use super::notification::NotificationApplier;
use super::publish::PublishApplier;
use super::sql::SqlApplier;
use super::witness::Witness;
use crate::config::Settings;
use crate::engine::parts::History;
use crate::engine::sessions::SessionsOf;
use crate::kernel::{
    BoxFuture, Change, Clock, Digest, Direction, Failure, KillPoints, Operation, Receipt, Recovery,
    RunId, Secret, SqlFile, Timestamp,
};
use crate::lakebase::Workspace;
use crate::postgres::{PgEndpoint, PgError, PgReader, ServerFacts};

/// The SQL files that appliers use themselves.
pub const APPLY_SQL: [&SqlFile; 10] = [
    &super::experiment::SET_LOCAL,
    &super::orphan::SESSIONS_BY_NAME,
    &super::setup::APPLIED_CHANGE_INSERT,
    &super::setup::CREATE_SCHEMA,
    &super::setup::CREATE_TABLE,
    &super::setup::READY,
    &super::sql::APPLIED_CHANGE_FIND,
    &super::sql::SESSION_PROGRESS,
    &super::sql_probe::INDEXES_AROUND,
    &super::witness::SESSION_LOCKS,
];

/// Which change this is: never the attempt, so that every attempt and every resume speaks of the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeKey {
    /// The run.
    pub run: RunId,
    /// The step, with the item of a fan-out: `heal[orders]`.
    pub step: String,
    /// The digest of the change set.
    pub set: Digest,
    /// The position in the set.
    pub index: u32,
    /// Whether it is carried out or undone.
    pub direction: Direction,
}

impl ChangeKey {
    /// The key as text.
    pub fn text(&self) -> String {
        let Self { run, step, set, index, direction } = self;
        format!("{run}/{step}/{set}/{index}/{direction}")
    }

    /// The digest of [`ChangeKey::text`]: what other systems are given to tell repetitions apart.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(self.text().as_bytes())
    }

    /// What sessions that carry it out are called, so that a later process finds them:
    /// `lakeops:<20 hexadecimal digits>`, well below PostgreSQL's 63 bytes.
    pub fn application_name(&self) -> String {
        let digest = self.digest();
        format!("lakeops:{}", digest.as_str().get(..20).unwrap_or(digest.as_str()))
    }

    /// The name of a kill boundary: `<step>/<do|undo> <index>/<phase>`.
    pub fn boundary(&self, phase: &str) -> String {
        format!("{}/{} {}/{phase}", self.step, self.direction, self.index)
    }
}

/// Where appliers get the values of `secret:NAME`.
pub trait SecretSource: Send + Sync {
    /// The value of a secret; `None` when there is none of that name.
    fn secret(&self, name: &str) -> Option<Secret<String>>;
}

/// There are no secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn secret(&self, _name: &str) -> Option<Secret<String>> {
        None
    }
}

/// Keeps what finds a change again that goes on elsewhere: the name of a long-running operation.
pub trait Notes: Send + Sync {
    /// Keeps a text; when it returns, the text is durable.
    fn note<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<(), Failure>>;

    /// The newest text of this change, also from an earlier process.
    fn last(&self) -> Option<String>;
}

/// Keeps nothing: a later process would find nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNotes;

impl Notes for NoNotes {
    fn note<'a>(&'a self, _text: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    fn last(&self) -> Option<String> {
        None
    }
}

/// All that an applier is given for one change.
#[derive(Clone, Copy)]
pub struct ApplyContext<'a> {
    /// Which change it is.
    pub key: &'a ChangeKey,
    /// The change.
    pub change: &'a Change,
    /// The change's own operation, or its inverse.
    pub operation: &'a Operation,
    /// The change's own recovery, or its inverse's.
    pub recovery: Recovery,
    /// The step's target database, when there is one.
    pub endpoint: Option<&'a PgEndpoint>,
    /// Whether that database is there to be thrown away.
    pub throw_away: bool,
    /// The server that was proposed on: any other is refused.
    pub expected: Option<&'a ServerFacts>,
    /// The settings of the target.
    pub settings: &'a Settings,
    /// How long the step may take.
    pub step_timeout: Duration,
    /// Where secrets come from.
    pub secrets: &'a dyn SecretSource,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// The boundaries at which a test may kill the process.
    pub kill: &'a dyn KillPoints,
    /// The workspace of the connection, when it has one.
    pub workspace: Option<&'a dyn Workspace>,
    /// The history, when one is kept.
    pub history: Option<&'a dyn History>,
    /// What is kept for a later process.
    pub notes: &'a dyn Notes,
    /// Sessions that the run keeps for the next change; `None`: each change has its own.
    pub sessions: Option<SessionsOf<'a>>,
    /// Sees which locks it takes, in a rehearsal.
    pub witness: Option<&'a Witness>,
    /// Takes lines on how far it is, for people.
    pub progress: &'a (dyn Fn(String) + Send + Sync),
}

impl ApplyContext<'_> {
    pub(super) fn reach(&self, phase: &str) {
        self.kill.reach(&self.key.boundary(phase));
    }

    /// How long the effect may take.
    pub(super) fn time_limit(&self) -> Duration {
        self.change.statement_timeout.map_or(self.step_timeout, |span| span.0)
    }

    pub(super) fn millis_since(&self, start: Timestamp) -> Option<u64> {
        u64::try_from(self.clock.now().since(start).as_millis()).ok()
    }

    /// A guard speaks of doing; an undoing is not asked for it.
    pub(super) fn guard(&self) -> Option<&crate::kernel::Query> {
        self.change.guard.as_ref().filter(|_| self.key.direction == Direction::Do)
    }

    pub(super) fn need_workspace(&self) -> Result<&dyn Workspace, Failure> {
        self.workspace.ok_or_else(|| {
            let text = format!(
                "the change of {} needs a Lakebase workspace, and the connection is none",
                self.change.object
            );
            Failure::permanent("lakebase::no_workspace", text)
                .with_help("choose a connection of the kind `lakebase`: `--connection NAME`")
        })
    }

    /// The history; `so` says what cannot be done without one.
    pub(super) fn need_history(&self, so: &str) -> Result<&dyn History, Failure> {
        self.history.ok_or_else(|| {
            Failure::permanent("history::none", format!("no history is kept here{so}"))
                .with_help("set `[history] location` in the configuration")
        })
    }

    pub(super) fn need_endpoint(&self) -> Result<&PgEndpoint, Failure> {
        self.endpoint.ok_or_else(|| {
            Failure::permanent(
                "apply::no_database",
                format!(
                    "the change of {} needs a database, and the step has none",
                    self.change.object
                ),
            )
            .with_help("name a target, or pass --database-url")
        })
    }

    /// A session that looks; not called by the change's key, so that it is not taken for one that works
    /// on it.
    pub(super) fn reader(&self) -> Result<PgReader, Failure> {
        let endpoint = self.need_endpoint()?.clone();
        Ok(PgReader::new(endpoint, &self.settings.limits, "lakeops:look"))
    }

    /// Such a session on the server that was proposed on, and on no other.
    pub(super) async fn placed_reader(&self) -> Result<PgReader, Failure> {
        let reader = self.reader()?;
        if let Some(expected) = self.expected
            && let Some(why) = reader.server().await?.difference(expected)
        {
            let server = self.need_endpoint()?.label();
            return Err(PgError::WrongPlace { server, why }.into());
        }
        Ok(reader)
    }
}

/// How carrying out a change ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// It happened.
    Done(Receipt),
    /// Its guard no longer held; nothing was done.
    Moot,
}

/// What looking for a change with a start and no settlement found. A half-done state is removed while
/// looking, and then is `NotApplied`.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovered {
    /// It happened.
    Applied(Receipt),
    /// It did not happen, or it is harmless to do again.
    NotApplied,
    /// Nobody can tell; says why, for the person who settles it.
    Unknown(String),
}

/// Carries out one kind of change. No tool has code of its own for this.
pub trait Applier: Send + Sync {
    /// What a later [`Applier::recover`] compares with; taken, and made durable, before the effect.
    /// By default nothing is.
    fn fingerprint<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async { Ok(Value::Null) })
    }

    /// Makes ready what carrying it out needs, while its start is being written down: nothing of it may last when
    /// the process dies meanwhile, and nobody may rely on it. By default there is nothing to make ready.
    fn prepare<'a>(&'a self, _cx: &'a ApplyContext<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Carries it out. A failure of class `InDoubt` says that the effect may have happened.
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>>;

    /// Finds out whether it happened. Waits first for what a dead process left at work.
    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>>;
}

/// One applier per kind of change.
#[derive(Clone)]
pub struct Appliers {
    sql: SqlApplier,
    experiment: ExperimentApplier,
    http: Arc<HttpApplier>,
    api: ApiApplier,
    command: CommandApplier,
    file: FileApplier,
    notification: NotificationApplier,
    publish: PublishApplier,
    history: HistoryApplier,
    archive: ArchiveApplier,
    from_archive: FromArchiveApplier,
    replaced: BTreeMap<&'static str, Arc<dyn Applier>>,
}

impl Appliers {
    /// The appliers of this process, with its channels for notifications.
    pub fn new(notification: NotificationApplier) -> Self {
        Self {
            sql: SqlApplier,
            experiment: ExperimentApplier,
            http: Arc::default(),
            api: ApiApplier,
            command: CommandApplier,
            file: FileApplier,
            notification,
            publish: PublishApplier,
            history: HistoryApplier,
            archive: ArchiveApplier,
            from_archive: FromArchiveApplier,
            replaced: BTreeMap::new(),
        }
    }

    /// The same with another applier for one kind of operation: to fence a process in, and to show what an
    /// applier that breaks its promises leads to.
    #[must_use]
    pub fn replacing(mut self, kind: &'static str, applier: Arc<dyn Applier>) -> Self {
        self.replaced.insert(kind, applier);
        self
    }

    /// The applier of an operation's kind.
    pub fn of(&self, operation: &Operation) -> &dyn Applier {
        if let Some(applier) = self.replaced.get(operation.kind()) {
            return &**applier;
        }
        match operation {
            Operation::Sql { .. } | Operation::Transaction { .. } => &self.sql,
            Operation::SqlExperiment { .. } => &self.experiment,
            Operation::Http { .. } => &*self.http,
            Operation::Api(_) => &self.api,
            Operation::Command { .. } => &self.command,
            Operation::File { .. } => &self.file,
            Operation::Notification { .. } => &self.notification,
            Operation::Event { .. } => &self.publish,
            Operation::History(_) => &self.history,
            Operation::Archive(_) => &self.archive,
            Operation::FromArchive(_) => &self.from_archive,
        }
    }
}

/// An operation reached an applier of another kind: a mistake of ours, told instead of a panic.
pub(super) fn wrong_kind(operation: &Operation) -> Failure {
    Failure::permanent(
        "apply::wrong_kind",
        format!("an operation of kind `{}` reached the applier of another kind", operation.kind()),
    )
}

/// `secret:NAME` as its value; every other text as it is.
pub(super) fn substitute(text: &str, secrets: &dyn SecretSource) -> Result<String, Failure> {
    let Some(name) = text.strip_prefix("secret:") else { return Ok(text.to_owned()) };
    match secrets.secret(name) {
        Some(secret) => Ok(secret.expose().clone()),
        None => Err(Failure::permanent(
            "apply::no_such_secret",
            format!("secret `{name}` has no value in this process"),
        )
        .with_help(format!(
            "set it in the environment or the secrets file, then resume: `{name}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let key = ChangeKey {
            run: RunId::new("00ff00ff00ff00ff"),
            step: "heal[orders]".into(),
            set: Digest::of_bytes(b"set"),
            index: 3,
            direction: Direction::Undo,
        };
        assert_eq!(key.boundary("before effect"), "heal[orders]/undo 3/before effect");
        let name = key.application_name();
        assert_eq!(name.len(), "lakeops:".len() + 20);
        let other = ChangeKey { direction: Direction::Do, ..key.clone() };
        assert_ne!(other.application_name(), name);
        assert!(key.text().ends_with("/3/undo"));
    }
}
