//! One branch: its directories, its server, and what is kept of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::copying::{fresh, take_in};
use super::error::FleetError;
use super::follower::Follower;
use super::ground::Ground;
use super::history::RETENTION;
use super::online::{OnlineCopy, Snapshot};
use super::record::{BranchRecord, cluster_of};
use super::server::Server;
use super::settings::{DEFAULT_CONNECTIONS, of_branch};
use super::types::{BranchId, BranchOrigin, EndpointSettings};
use crate::postgres::ClusterPlace;

/// One branch.
pub(super) struct Branch {
    pub id: BranchId,
    pub ground: Arc<Ground>,
    pub server: Arc<Server>,
    /// The copy that cannot be written to.
    pub follower: Follower,
    /// Held while base copies are made or used.
    pub history: tokio::sync::Mutex<()>,
    /// Whether it is known to have a base copy.
    pub has_past: AtomicBool,
    record: Mutex<BranchRecord>,
    /// How far back it can be restored.
    kept_for: Mutex<Duration>,
    archive: PathBuf,
    /// What the endpoints want of the server and of its copy that only reads.
    wishes: Mutex<Wishes>,
}

#[derive(Default)]
struct Wishes {
    write: Option<EndpointSettings>,
    read: Option<EndpointSettings>,
}

impl Wishes {
    fn connections(&self) -> u32 {
        self.write.as_ref().map_or(DEFAULT_CONNECTIONS, |it| it.max_connections)
    }
}

impl Branch {
    /// The branch of a record; its directories need not be there.
    pub(super) fn of(ground: &Arc<Ground>, record: BranchRecord) -> Result<Self, FleetError> {
        let name = cluster_of(&record.id);
        let archive = ground.place(&name)?.root().join("wal");
        let settings = of_branch(&archive, DEFAULT_CONNECTIONS, &BTreeMap::new());
        let branch = Self {
            id: record.id.clone(),
            server: Server::new(ground, &name, settings)?,
            follower: Follower::new(ground, &record.id)?,
            history: tokio::sync::Mutex::default(),
            has_past: AtomicBool::new(false),
            ground: Arc::clone(ground),
            record: Mutex::new(record),
            kept_for: Mutex::new(RETENTION),
            archive,
            wishes: Mutex::default(),
        };
        branch.begin_as()?;
        Ok(branch)
    }

    /// How far back it can be restored.
    pub(super) fn kept_for(&self) -> Duration {
        *self.kept_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep_for(&self, time: Duration) {
        *self.kept_for.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Takes what an endpoint wants; says whether its server has to be started again for it.
    pub(super) fn configure(&self, settings: &EndpointSettings) -> bool {
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.read_only {
            let changed = wishes.read.as_ref().is_none_or(|before| {
                (before.max_connections, &before.pg_settings)
                    != (settings.max_connections, &settings.pg_settings)
            });
            wishes.read = Some(settings.clone());
            return changed;
        }
        wishes.write = Some(settings.clone());
        let connections = wishes.connections();
        self.server.configure(of_branch(&self.archive, connections, &settings.pg_settings))
    }

    /// What the copy that only reads is started with. It takes at least as many connections as the
    /// branch itself: PostgreSQL wants that.
    pub(super) fn follower_settings(&self) -> BTreeMap<String, String> {
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = wishes.read.as_ref().or(wishes.write.as_ref());
        let none = BTreeMap::new();
        let pg_settings = own.map_or(&none, |it| &it.pg_settings);
        let connections = own.map_or(0, |it| it.max_connections).max(wishes.connections());
        of_branch(&self.archive, connections, pg_settings)
    }

    /// Makes the record and the directories around the data directory.
    pub(super) fn prepare(ground: &Arc<Ground>, id: &BranchId) -> Result<Self, FleetError> {
        let record = BranchRecord::new(id, ground.clock.now());
        record.write(&ground.state)?;
        let branch = Self::of(ground, record)?;
        branch.place().create()?;
        ground.local.draw_password(branch.place())?;
        branch.place().beside("wal")?;
        Ok(branch)
    }

    pub(super) fn place(&self) -> &ClusterPlace {
        self.server.place()
    }

    /// The directory of the branch's archived WAL.
    pub(super) fn archive(&self) -> &PathBuf {
        &self.archive
    }

    pub(super) fn record(&self) -> BranchRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the branch is kept.
    pub(super) fn finish(&self, origin: Option<BranchOrigin>) -> Result<(), FleetError> {
        let record = BranchRecord { ready: true, origin, ..self.record() };
        record.write(&self.ground.state)?;
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }

    /// From now on the branch is kept; its data directory is made when its server first starts.
    pub(super) fn finish_empty(&self, begins_as: &BranchId) -> Result<(), FleetError> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).begins_as =
            Some(begins_as.clone());
        self.begin_as()?;
        self.finish(None)
    }

    /// Tells the server what it begins with.
    fn begin_as(&self) -> Result<(), FleetError> {
        if let Some(source) = self.record().begins_as {
            self.server.begin_as(self.ground.place(&cluster_of(&source))?);
        }
        Ok(())
    }

    /// Fills the data directory from a branch in use.
    pub(super) async fn fill_online(&self, parent: &Self) -> Result<Snapshot, FleetError> {
        let fresh = fresh(self.place())?;
        let lease = parent.server.lease().await?;
        let online = OnlineCopy {
            ground: &self.ground,
            branch: &parent.id,
            lease: &lease,
            source: parent.place(),
            archive: parent.archive(),
            to: &fresh,
            in_use: true,
            with_wal: true,
        };
        let snapshot = Box::pin(online.run()).await?;
        take_in(self.place(), &fresh)?;
        Ok(snapshot)
    }

    /// Removes all of the branch; its server is stopped.
    pub(super) async fn discard(&self) -> Result<(), FleetError> {
        self.follower.discard(&self.ground).await?;
        self.ground.local.discard(&self.ground.state, self.server.name()).await?;
        BranchRecord::remove(&self.ground.state, &self.id)
    }
}
