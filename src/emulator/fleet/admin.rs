//! The superuser's session on a branch: roles and databases are made with it.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::FleetError;
use super::server::Lease;
use crate::kernel::{Bind, SqlFile};
use crate::postgres::PgAdmin;

const PATIENCE: Duration = Duration::from_mins(2);

/// The superuser's session on a branch. As long as it lives, the branch's server runs.
pub struct AdminSession {
    session: PgAdmin,
    lease: Lease,
}

impl AdminSession {
    pub(super) async fn open(lease: Lease, database: &str) -> Result<Self, FleetError> {
        let endpoint = lease.endpoint().with_database(database);
        let session = PgAdmin::connect(&endpoint, PATIENCE).await?;
        Ok(Self { session, lease })
    }

    /// Runs one or more statements without values. `name` stands for them in messages.
    pub async fn run(&mut self, name: &str, statements: &str) -> Result<(), FleetError> {
        Ok(self.session.run(name, statements).await?)
    }

    /// Runs a query of `sql/`, each row read as `T`.
    pub async fn rows<T: DeserializeOwned>(
        &mut self,
        file: &SqlFile,
        binds: &[Bind],
    ) -> Result<Vec<T>, FleetError> {
        Ok(self.session.rows(file, binds).await?)
    }

    /// Runs a query of `sql/` that returns exactly one row.
    pub async fn row<T: DeserializeOwned>(
        &mut self,
        file: &SqlFile,
        binds: &[Bind],
    ) -> Result<T, FleetError> {
        Ok(self.session.row(file, binds).await?)
    }

    /// Says goodbye; dropping the session ends it too, less politely.
    pub async fn close(self) {
        self.session.close().await;
        drop(self.lease);
    }
}
