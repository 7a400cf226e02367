//! A database with everything wrong that the demo heals.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::error::DemoError;
use crate::config::settings::Limits;
use crate::kernel::{Bind, SqlFile};
use crate::postgres::{PgEndpoint, PgReader};
use crate::sql_file;

/// The role of the shop's own programs.
const APP: &str = "shop_app";
/// The role that lakeops works as: no superuser.
const OPERATOR: &str = "shop_operator";

/// What makes the database, and makes it sick, in this order.
static SETUP: [&SqlFile; 12] = [
    &sql_file!("demo/roles"),
    &sql_file!("demo/schema"),
    &sql_file!("demo/grants"),
    &sql_file!("demo/pgstattuple"),
    &sql_file!("demo/fill"),
    &sql_file!("demo/wear"),
    &sql_file!("demo/audit_trail"),
    &sql_file!("demo/retention"),
    // VACUUM counts what is left; changes that were counted after it would count twice.
    &FLUSH,
    &sql_file!("demo/vacuum"),
    &sql_file!("demo/analyze"),
    &FLUSH,
];
static FLUSH: SqlFile = sql_file!("demo/flush_statistics");
static TABLES: SqlFile = sql_file!("demo/tables");
static BLOCKED: SqlFile = sql_file!("demo/blocked");

/// A shop's database: six tables full of dead rows, and one that is mostly empty space.
#[derive(Debug)]
pub struct Patient {
    database: PgEndpoint,
}

/// A table as the server counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFigures {
    /// `schema.name`.
    pub name: String,
    /// Bytes with indexes and TOAST.
    pub bytes: i64,
    /// Live rows.
    pub live_rows: i64,
    /// Dead rows.
    pub dead_rows: i64,
    /// How often it was vacuumed by a command.
    pub vacuums: i64,
}

impl Patient {
    /// Fills an empty database, given as its superuser reaches it.
    pub async fn prepare(database: PgEndpoint) -> Result<Self, DemoError> {
        let patient = Self { database };
        let mut session = open(&patient.database).await?;
        for file in SETUP {
            let done = session.execute(file.body()).await;
            done.map_err(|source| DemoError::Database { what: file.name, source })?;
        }
        drop(session.close().await);
        Ok(patient)
    }

    /// How the shop's own programs reach it.
    pub fn app(&self, application: &str) -> PgEndpoint {
        self.database.with_user(APP, None).with_application_name(application)
    }

    /// How lakeops reaches it.
    pub fn operator(&self) -> PgEndpoint {
        self.database.with_user(OPERATOR, None)
    }

    /// What the server counts of its tables now.
    pub async fn tables(&self) -> Result<Vec<TableFigures>, DemoError> {
        let reader = self.reader();
        let tables = reader.rows(&TABLES, &[]).await;
        reader.close().await;
        Ok(tables?)
    }

    /// How many sessions have been waiting for a lock for so long.
    pub async fn blocked(&self, since: Duration) -> Result<u64, DemoError> {
        #[derive(Deserialize)]
        struct Row {
            blocked: u64,
        }
        let reader = self.reader();
        let row: Result<Row, _> = reader.row(&BLOCKED, &[Bind::Float(since.as_secs_f64())]).await;
        reader.close().await;
        Ok(row?.blocked)
    }

    /// A session that looks at it.
    pub(super) fn reader(&self) -> PgReader {
        PgReader::new(self.database.clone(), &Limits::default(), "lakeops demo")
    }
}

/// Opens a session.
pub(super) async fn open(endpoint: &PgEndpoint) -> Result<PgConnection, DemoError> {
    let connected = PgConnection::connect_with(endpoint.options()).await;
    connected.map_err(|source| DemoError::Database { what: "connecting", source })
}
