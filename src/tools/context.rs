//! What a tool is given to look with.

use chrono::NaiveDate;
use serde_json::Value;

use super::rules::{NoRules, Rules};
use crate::config::Settings;
use crate::kernel::{BoxFuture, Clock, Failure, Query, Span, Target};
use crate::lakebase::ReadApi;
use crate::postgres::PgReader;

/// Opens read-only sessions on other places of the same connection.
pub trait Places: Send + Sync {
    /// A session on a target; connects on first use.
    fn reader_at(&self, target: &Target) -> PgReader;

    /// Why who looks regularly leaves a target's compute alone: it sleeps, or nobody but us has used it
    /// for a while and it is about to. `None`: nothing speaks against a look.
    fn left_alone<'a>(
        &'a self,
        _target: &'a Target,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async { Ok(None) })
    }
}

/// A language model. What it answers is a claim.
pub trait AskModel: Send + Sync {
    /// Which one.
    fn name(&self) -> String;
    /// Asks one question; it remembers nothing.
    fn ask<'a>(&'a self, question: &'a str) -> BoxFuture<'a, Result<String, Failure>>;
}

/// The read-only context of both kinds of tools. Nothing in it can change anything.
pub struct ReadContext<'a> {
    /// The target's database; connects on first use, `READ ONLY` transactions only.
    pub pg: &'a PgReader,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// Thresholds and limits for this target.
    pub settings: &'a Settings,
    /// Where the step works.
    pub target: &'a Target,
    /// Earlier outputs of the same tool on the same target, newest first: journaled facts.
    pub earlier: &'a [Value],
    /// The SOPs that tools judge by.
    pub rules: &'a dyn Rules,
    /// The Lakebase workspace of the connection, when it has one; see [`ReadContext::lakebase`].
    pub workspace: Option<&'a dyn ReadApi>,
    /// Other places of the connection; `None`: only the databases of the same server can be reached.
    pub places: Option<&'a dyn Places>,
    /// What was measured and done before; `None`: no history is kept here.
    pub history: Option<&'a dyn ReadHistory>,
    /// A language model; `None`: none is configured.
    pub model: Option<&'a dyn AskModel>,
}

impl<'a> ReadContext<'a> {
    /// A context without SOPs, workspace, other places, history and earlier outputs.
    pub fn new(
        pg: &'a PgReader,
        clock: &'a dyn Clock,
        settings: &'a Settings,
        target: &'a Target,
    ) -> Self {
        Self {
            pg,
            clock,
            settings,
            target,
            earlier: &[],
            rules: &NoRules,
            workspace: None,
            places: None,
            history: None,
            model: None,
        }
    }

    /// The Lakebase workspace of the connection.
    pub fn lakebase(&self) -> Result<&'a dyn ReadApi, Failure> {
        self.workspace.ok_or_else(|| {
            let text = "the connection is not a Lakebase workspace";
            Failure::permanent("lakebase::no_workspace", text)
                .with_help("choose a connection of the kind `lakebase`: `--connection NAME`")
        })
    }

    /// A read-only session on another branch or database of the same connection. Under `local` and
    /// `postgres` only the database differs. Close it when done.
    pub fn reader_at<'b>(&'b self, target: &'b Target) -> BoxFuture<'b, Result<PgReader, Failure>> {
        Box::pin(async move {
            if let Some(places) = self.places {
                return Ok(places.reader_at(target));
            }
            let endpoint = self.pg.endpoint().await?;
            let endpoint = match &target.database {
                Some(database) => endpoint.with_database(database),
                None => endpoint,
            };
            Ok(PgReader::new(endpoint, &self.settings.limits, "lakeops:elsewhere"))
        })
    }

    /// The history, or a failure that says that there is none.
    pub fn history(&self) -> Result<&dyn ReadHistory, Failure> {
        self.history.ok_or_else(|| {
            Failure::permanent("history::none", "no history is kept here")
                .with_help("set `[history] location` in the configuration")
        })
    }
}

/// How long rows are kept that are the only copies there are.
pub const FOREVER: Span = Span(std::time::Duration::MAX);

/// What is stored of a table of the history, and what there is to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTable {
    /// The table.
    pub name: String,
    /// How long its rows are kept.
    pub keep: Span,
    /// Rows of the newest version.
    pub rows: u64,
    /// Files of the newest version.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest day that it has rows of.
    pub oldest_day: Option<NaiveDate>,
    /// Small files of days that have more than one of them.
    pub mergeable_files: u64,
    /// Files that only versions too old for time travel consist of.
    pub stale_files: u64,
    /// Log entries that only such versions need.
    pub stale_log_entries: u64,
    /// Versions since its newest checkpoint: each of them is read whenever the table is opened.
    pub versions_since_checkpoint: u64,
}

/// Reads the history, and can do nothing else.
pub trait ReadHistory: Send + Sync {
    /// The rows that a query returns (one `select`, `DataFusion`'s SQL, `$1`, `$2`, … bound), as objects.
    /// A table that nothing was ever written to has no rows.
    fn query<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Value>, Failure>>;

    /// Where its tables are: a folder, or the URL of a store.
    fn location(&self) -> String;

    /// The tables that something was written to.
    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredTable>, Failure>>;
}
