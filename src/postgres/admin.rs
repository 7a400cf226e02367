//! The superuser's session on a server of our own.

use std::time::Duration;

use serde::de::DeserializeOwned;
use sqlx::{Connection as _, PgConnection};

use super::read_text::with_json_rows;
use super::session::{GRACE, answer, connect};
use super::{PgEndpoint, PgError, bind, decode};
use crate::config::settings::Limits;
use crate::kernel::{Bind, SqlFile};

/// The superuser's session on a server of our own: no wall is between it and the data.
pub(crate) struct PgAdmin {
    connection: PgConnection,
    patience: Duration,
}

impl PgAdmin {
    /// Connects. The patience is for that, and then for each statement.
    pub(crate) async fn connect(
        endpoint: &PgEndpoint,
        patience: Duration,
    ) -> Result<Self, PgError> {
        let endpoint = endpoint.with_application_name("lakeops:emulator");
        let mut limits = Limits::default();
        limits.connect_timeout.0 = limits.connect_timeout.0.max(patience);
        let connection = connect(&endpoint, &limits).await?;
        Ok(Self { connection, patience: patience.saturating_add(GRACE) })
    }

    /// Runs one or more statements without values.
    pub(crate) async fn run(&mut self, name: &str, text: &str) -> Result<(), PgError> {
        let run = bind::simple(&mut self.connection, text.to_owned());
        answer(name, 0, self.patience, run).await.map(drop)
    }

    /// Runs a query, each row read as `T`.
    pub(crate) async fn rows<T: DeserializeOwned>(
        &mut self,
        file: &SqlFile,
        binds: &[Bind],
    ) -> Result<Vec<T>, PgError> {
        let (name, text) = (file.name, with_json_rows(file.text));
        let arguments = bind::arguments(name, binds, &|_| None)?;
        let query = bind::statement(text, arguments).fetch_all(&mut self.connection);
        let rows = answer(name, 0, self.patience, query).await?;
        decode::json_rows(name, &rows)
    }

    /// Runs a query that returns exactly one row.
    pub(crate) async fn row<T: DeserializeOwned>(
        &mut self,
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

    /// Says goodbye.
    pub(crate) async fn close(self) {
        // The server ends the session also when it hears nothing.
        drop(tokio::time::timeout(GRACE, self.connection.close()).await);
    }
}
