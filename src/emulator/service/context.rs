//! What all calls share.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::call::Call;
use super::error::ApiError;
use super::faults::Faults;
use super::page::Page;
use super::record::{Kind, Record};
use super::statements::Statements;
use super::store::{Store, Tx};
use super::{branches, catalogs, databases, endpoints, projects, roles, snapshots};
use crate::emulator::fleet::{BranchId, EndpointId, Fleet, FleetError};
use crate::kernel::{Clock, IdSource};

/// The service: its catalogue, its databases, and what calls need beside.
pub(super) struct Service {
    pub store: Store,
    pub fleet: Arc<Fleet>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub faults: Faults,
    pub statements: Statements,
    /// `http://127.0.0.1:PORT`
    pub host: String,
    /// The identity of whoever holds the service's own token.
    pub user: String,
    /// SHA-256 of the service's own token.
    pub token_digest: String,
    /// Ended when the service stops.
    pub end: CancellationToken,
    pub tasks: TaskTracker,
}

impl Service {
    /// 16 random hexadecimal digits.
    pub(super) fn hex(&self) -> String {
        self.ids.run_id().as_str().to_owned()
    }

    /// A UUID of version 4.
    pub(super) fn uuid(&self) -> String {
        let digits = format!("{}{}", self.hex(), self.hex());
        let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
        let [first, second, third] = [part(0, 8), part(8, 12), part(13, 16)];
        format!("{first}-{second}-4{third}-a{}-{}", part(17, 20), part(20, 32))
    }

    /// A secret of 256 random bits.
    pub(super) fn secret(&self, prefix: &str) -> String {
        let random: String = (0..4).map(|_| self.hex()).collect();
        format!("{prefix}{random}")
    }

    /// A resource as the service shows it.
    pub(super) fn shown(&self, tx: &Tx<'_>, record: &Record) -> Result<Value, ApiError> {
        let mut shown = match record.kind {
            Kind::Project => projects::shown(self, tx, record)?,
            Kind::Branch => branches::shown(tx, record)?,
            Kind::Endpoint => endpoints::shown(self, record),
            Kind::Role => roles::shown(record),
            Kind::Database => databases::shown(record),
            Kind::Snapshot => snapshots::shown(record),
            Kind::Catalog | Kind::SyncedTable => catalogs::shown(record),
        };
        shown["name"] = json!(record.name);
        if !matches!(record.kind, Kind::Role | Kind::Database) {
            shown["uid"] = json!(record.uid);
        }
        shown["create_time"] = json!(record.created);
        shown["update_time"] = json!(record.updated);
        Ok(shown)
    }

    /// The same, with the name of its type: what an operation answers.
    pub(super) fn typed(&self, tx: &Tx<'_>, record: &Record) -> Result<Value, ApiError> {
        let mut shown = self.shown(tx, record)?;
        let kind = record.kind.type_name();
        shown["@type"] = json!(format!("type.googleapis.com/databricks.postgres.v1.{kind}"));
        Ok(shown)
    }

    /// One page of resources.
    pub(super) fn listed(
        &self,
        tx: &Tx<'_>,
        page: &Page,
        kind: Kind,
        records: &[Record],
    ) -> Result<Value, ApiError> {
        let shown = records.iter().map(|it| Ok((it.name.clone(), self.shown(tx, it)?)));
        Ok(page.of(kind.plural(), shown.collect::<Result<_, ApiError>>()?))
    }

    /// One page of all that a parent has of a kind.
    pub(super) fn list(&self, call: &Call, parent: &str, kind: Kind) -> Result<Value, ApiError> {
        let page = call.page(1000)?;
        self.store.transact(|tx| {
            tx.need_alive(parent)?;
            let all: Vec<Record> = tx.list(&format!("{parent}/{}", kind.plural()))?;
            self.listed(tx, &page, kind, &all)
        })
    }

    /// One resource.
    pub(super) fn get(&self, name: &str) -> Result<Value, ApiError> {
        self.store.transact(|tx| self.shown(tx, &tx.need(name)?))
    }

    /// Removes what is real of resources: listeners first, then data.
    pub(super) async fn dismantle(&self, records: &[Record]) -> Result<(), ApiError> {
        for endpoint in records.iter().filter(|it| it.kind == Kind::Endpoint) {
            self.close_endpoint(&endpoint.uid).await?;
        }
        let holds_data = |it: &&Record| matches!(it.kind, Kind::Branch | Kind::Snapshot);
        for record in records.iter().filter(holds_data) {
            match Box::pin(self.fleet.delete_branch(&BranchId(record.uid.clone()))).await {
                Ok(()) | Err(FleetError::NoBranch(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Stops listening for an endpoint, if anybody does.
    pub(super) async fn close_endpoint(&self, uid: &str) -> Result<(), ApiError> {
        match Box::pin(self.fleet.close_endpoint(&EndpointId(uid.to_owned()))).await {
            Ok(()) | Err(FleetError::NoEndpoint(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
