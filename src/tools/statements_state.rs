//! Where `pg_stat_statements` is, and how its files of SQL are sent there.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::analysis::counters::epoch;
use super::analysis::missing::NotMeasured;
use super::context::ReadContext;
use crate::kernel::{Bind, Failure, Ident, Query, SqlFile, Timestamp};
use crate::sql_file;

/// Where the extension is.
pub(super) static EXTENSION: SqlFile = sql_file!("shared/pg_stat_statements");
/// What it says about itself.
pub(super) static INFO: SqlFile = sql_file!("shared/pg_stat_statements_info");

/// The schema that the files name.
const WRITTEN: &str = "public.pg_stat_statements";

/// The extension in a database.
pub(super) struct Statements {
    schema: Ident,
}

#[derive(Deserialize)]
struct Found {
    schema_name: String,
    loaded: bool,
}

/// What the extension says about itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Info {
    /// The server's clock.
    pub(super) at: Timestamp,
    /// How often statements were forgotten.
    pub(super) dealloc: u64,
    /// When all counters were reset.
    pub(super) stats_reset: Option<String>,
    /// When the server was started.
    pub(super) postmaster_start: String,
    /// How many statements it knows.
    pub(super) statements: u64,
    /// How many of them are hidden from us.
    pub(super) hidden: u64,
    /// How many it may know.
    pub(super) max_statements: u64,
}

impl Statements {
    /// The extension of the target's database, or why there is nothing to read.
    pub(super) async fn find(cx: &ReadContext<'_>) -> Result<Result<Self, NotMeasured>, Failure> {
        let found: Vec<Found> = cx.pg.rows(&EXTENSION, &[]).await?;
        let missing = |why| NotMeasured::new("statements", why);
        let Some(found) = found.into_iter().next() else {
            let why = "the extension pg_stat_statements is not in this database";
            return Ok(Err(missing(why).needs("create extension pg_stat_statements")));
        };
        if !found.loaded {
            let why = "the server does not load the library pg_stat_statements";
            return Ok(Err(missing(why)
                .needs("shared_preload_libraries = 'pg_stat_statements', then a restart")));
        }
        Ok(Ok(Self { schema: Ident::new(&found.schema_name) }))
    }

    /// Runs a file there.
    pub(super) async fn rows<T: DeserializeOwned>(
        &self,
        cx: &ReadContext<'_>,
        file: &SqlFile,
        binds: Vec<Bind>,
    ) -> Result<Vec<T>, Failure> {
        let here = format!("{}.pg_stat_statements", self.schema);
        let query = Query::with_binds(file.body().replace(WRITTEN, &here), binds);
        let rows = cx.pg.query(file.name, &query).await?;
        let read = |row: Value| {
            serde_json::from_value(row).map_err(|error| {
                Failure::permanent("statements::unreadable", format!("{}: {error}", file.name))
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// What it says about itself.
    pub(super) async fn info(&self, cx: &ReadContext<'_>) -> Result<Info, Failure> {
        let rows: Vec<Info> = self.rows(cx, &INFO, Vec::new()).await?;
        rows.into_iter().next().ok_or_else(|| {
            Failure::permanent("statements::no_info", "pg_stat_statements_info has no row")
        })
    }
}

impl Info {
    /// The epoch of the counters on this server: branches are copies, and each counts for itself.
    pub(super) fn epoch(&self, place: Option<&str>) -> String {
        epoch(&[place, Some(&self.postmaster_start), self.stats_reset.as_deref()])
    }

    /// What is hidden from us, when something is.
    pub(super) fn hidden(&self) -> Option<NotMeasured> {
        (self.hidden > 0).then(|| {
            let what = format!("{} statements of other users", self.hidden);
            NotMeasured::new(what, "their identity is hidden from us")
                .needs("grant pg_read_all_stats to current_user")
        })
    }
}
