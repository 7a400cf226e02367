//! What the engine is made of: every outside thing comes in here, as a trait.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::apply::{Appliers, SecretSource};
use super::rehearsal::WorkspaceRehearsals;
use crate::config::Settings;
use crate::journal::event::{Event, Principal};
use crate::journal::store::Journal;
use crate::kernel::{
    BoxFuture, Change, Clock, Failure, IdSource, KillPoints, RunId, Severity, Span, Target,
    Timestamp, Upkeep,
};
use crate::lakebase::{Lakebase, Workspace, WorkspaceClient};
use crate::postgres::PgEndpoint;
use crate::tools::Catalog;
use crate::tools::context::{AskModel, ReadHistory};
use crate::tools::tool::HistoryRow;

/// Where the database of a target is, and the workspace that it belongs to.
pub trait Endpoints: Send + Sync {
    /// The endpoint of a target under a connection. A suspended compute is a failure unless `wake` is
    /// set: connecting would start it.
    fn endpoint<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
        wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>>;

    /// The workspace of a connection, when it has one.
    fn workspace(&self, _connection: &str) -> Option<Arc<dyn Workspace>> {
        None
    }

    /// The language model that is configured.
    fn model(&self) -> Option<&dyn AskModel> {
        None
    }

    /// Whether the database of a target may be experimented on: a branch that was made to be thrown
    /// away. Where nobody can tell, it may not.
    fn throw_away<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async { Ok(false) })
    }

    /// Why who looks at a target every `interval` leaves its compute alone; `None`: nothing speaks
    /// against a look. Asking wakes nothing.
    fn left_alone<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
        _interval: Duration,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async { Ok(None) })
    }

    /// We have worked on a target until now: what its compute did until then may have been our doing.
    fn used(&self, _connection: &str, _target: &Target) {}

    /// What makes throw-away branches of a connection's databases; `None`: it cannot branch.
    fn rehearsals(&self, connection: &str) -> Option<Arc<dyn Rehearsals>> {
        Some(Arc::new(WorkspaceRehearsals(self.workspace(connection)?)))
    }
}

/// Makes throw-away branches, where changes are tried before they touch their target.
pub trait Rehearsals: Send + Sync {
    /// What makes one of a target, called after `suffix`. It removes itself after `ttl`; the inverse
    /// of its change removes it earlier. Refused when there is no room for it. Nothing is made yet.
    fn branch<'a>(
        &'a self,
        target: &'a Target,
        suffix: &'a str,
        ttl: Span,
    ) -> BoxFuture<'a, Result<ThrowAway, Failure>>;
}

/// A throw-away branch that can be made.
#[derive(Clone, Debug)]
pub struct ThrowAway {
    /// Its id.
    pub id: String,
    /// Where it will be.
    pub target: Target,
    /// What makes it.
    pub change: Change,
}

/// One database, whatever the target: the target names at most another database on its server.
impl Endpoints for PgEndpoint {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        let endpoint = match &target.database {
            Some(database) => self.with_database(database),
            None => self.clone(),
        };
        Box::pin(async { Ok(endpoint) })
    }
}

/// The branches of a workspace: a target names a project, a branch and a database.
impl Endpoints for Lakebase {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
        wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        Box::pin(Self::endpoint(self, target, wake))
    }

    fn workspace(&self, _connection: &str) -> Option<Arc<dyn Workspace>> {
        Some(Arc::<WorkspaceClient>::clone(self.client()))
    }

    fn throw_away<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(Self::throw_away(self, target))
    }

    fn left_alone<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
        interval: Duration,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(Self::left_alone(self, target, interval))
    }

    fn used(&self, _connection: &str, target: &Target) {
        Self::used(self, target);
    }
}

/// The settings as they hold for a target.
pub trait SettingsSource: Send + Sync {
    /// The settings of a target.
    fn settings(&self, target: &Target) -> Settings;
}

impl SettingsSource for Settings {
    fn settings(&self, _target: &Target) -> Settings {
        self.clone()
    }
}

/// Sees to it that a run has one executor.
pub trait Ownership: Send + Sync {
    /// Takes a run. It is held until the guard is dropped or the process dies.
    fn acquire(&self, run: &RunId) -> Result<Guard, OwnedElsewhere>;
}

/// Holds a run.
pub type Guard = Box<dyn Any + Send>;

/// A run that another process works on, or whose holder cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnedElsewhere {
    /// It is held.
    #[error("{holder} works on it")]
    Held {
        /// Who.
        holder: String,
    },
    /// It cannot be taken.
    #[error("it cannot be locked: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Delivers messages to people, at least once.
pub trait Notifier: Send + Sync {
    /// Delivers one.
    fn notify(&self, severity: Severity, title: &str, body: &str);
}

/// Keeps the rows that belong in the history.
pub trait History: Send + Sync {
    /// Appends the rows of runs that are over, exactly once. What cannot be appended stays in the
    /// journal, and the next call appends it.
    fn append_owed(&self) -> BoxFuture<'_, Result<(), Failure>>;
    /// Does upkeep on a table; says what it did. Doing it again does no harm.
    fn upkeep<'a>(&'a self, upkeep: &'a Upkeep) -> BoxFuture<'a, Result<Value, Failure>>;
    /// Appends a batch of rows to the archive, unless it is there already. What is archived never expires.
    fn archive<'a>(
        &'a self,
        batch: &'a str,
        rows: Vec<HistoryRow>,
    ) -> BoxFuture<'a, Result<usize, Failure>>;
    /// What tools may read of it.
    fn reader(&self) -> &dyn ReadHistory;
}

/// Watches a run: progress for people. It is told after the fact and decides nothing.
pub trait Observer: Send + Sync {
    /// An event was appended.
    fn event(&self, _run: &RunId, _at: Timestamp, _event: &Event) {}
    /// A step has something to say about its progress.
    fn progress(&self, _step: &str, _text: &str) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// What the engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where everything is recorded.
    pub journal: Arc<dyn Journal>,
    /// One executor per run.
    pub ownership: Arc<dyn Ownership>,
    /// All tools.
    pub catalog: Catalog,
    /// What carries changes out.
    pub appliers: Arc<Appliers>,
    /// Where databases are.
    pub endpoints: Arc<dyn Endpoints>,
    /// Settings by target.
    pub settings: Arc<dyn SettingsSource>,
    /// Secrets by name.
    pub secrets: Arc<dyn SecretSource + Send + Sync>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and random draws.
    pub ids: Arc<dyn IdSource>,
    /// Boundaries where a test kills the process.
    pub kill: Arc<dyn KillPoints>,
    /// Where rows of runs that are over go; `None`: they stay in the journal.
    pub history: Option<Arc<dyn History>>,
    /// Messages to people.
    pub notifier: Arc<dyn Notifier>,
    /// Whose process this is.
    pub principal: Principal,
    /// The number of this process.
    pub pid: u32,
}
