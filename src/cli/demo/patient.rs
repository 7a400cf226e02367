//! A database with everything wrong that the demo heals.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::error::DemoError;
use crate::config::settings::Limits;
use crate::engine::parts::Endpoints;
use crate::kernel::{Bind, BoxFuture, Failure, Secret, SqlFile, Target};
use crate::postgres::{PgEndpoint, PgReader};
use crate::sql_file;

/// The role of the shop's own programs.
const APP: &str = "shop_app";
/// What the demo's own connection is called.
const CONNECTION: &str = "demo";

static PASSWORD: SqlFile = sql_file!("demo/password");
static ROLES: SqlFile = sql_file!("demo/roles");
/// What makes the database, and makes it sick, in this order.
static SETUP: [&SqlFile; 11] = [
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
pub struct Patient {
    place: Arc<dyn Endpoints>,
    target: Target,
    app: PgEndpoint,
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
    /// Fills an empty database, reached as its owner, who may make roles. The shop's own programs log in
    /// with `password`.
    pub async fn prepare(
        place: Arc<dyn Endpoints>,
        target: Target,
        password: &Secret<String>,
    ) -> Result<Self, DemoError> {
        let found = place.endpoint(CONNECTION, &target, true).await;
        let owner = found.map_err(|failure| DemoError::Workspace { what: "log in", failure })?;
        let mut session = open(&owner).await?;
        let failed = |name: &'static str| move |source| DemoError::Database { what: name, source };
        let told = sqlx::query(PASSWORD.body()).bind(password.expose()).execute(&mut session).await;
        told.map_err(failed(PASSWORD.name))?;
        for file in std::iter::once(&ROLES).chain(SETUP) {
            session.execute(file.body()).await.map_err(failed(file.name))?;
        }
        drop(session.close().await);
        let app = owner.with_user(APP, Some(password));
        Ok(Self { place, target, app })
    }

    /// How the shop's own programs reach it.
    pub fn app(&self, application: &str) -> PgEndpoint {
        self.app.with_application_name(application)
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

    /// A session of the owner that looks at it. The password is asked for anew: it may have expired while
    /// a person thought.
    pub(super) fn reader(&self) -> PgReader {
        let (place, target) = (Arc::clone(&self.place), self.target.clone());
        let find = move || -> BoxFuture<'static, Result<PgEndpoint, Failure>> {
            let (place, target) = (Arc::clone(&place), target.clone());
            Box::pin(async move { place.endpoint(CONNECTION, &target, true).await })
        };
        PgReader::found_by(find, &Limits::default(), "lakeops demo")
    }
}

/// Opens a session.
pub(super) async fn open(endpoint: &PgEndpoint) -> Result<PgConnection, DemoError> {
    let connected = PgConnection::connect_with(endpoint.options()).await;
    connected.map_err(|source| DemoError::Database { what: "connecting", source })
}
