//! The server of one data directory: started when it is used, stopped when nobody uses it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::copying::fill;
use super::error::FleetError;
use super::ground::Ground;
use crate::kernel::Timestamp;
use crate::postgres::{Cluster, ClusterOptions, ClusterPlace, PgEndpoint, Quiet};

/// A start that replays much WAL takes its time.
const START_LIMIT: Duration = Duration::from_mins(10);

/// The server of one data directory.
pub(super) struct Server {
    ground: Arc<Ground>,
    name: String,
    place: ClusterPlace,
    /// Whoever uses the server holds this for reading; starting and stopping it needs all of it.
    slot: Arc<RwLock<Option<Running>>>,
    settings: Mutex<BTreeMap<String, String>>,
    last_used: AtomicI64,
    /// What its data directory is copied from when the server first starts. Nobody writes to that.
    begins_as: OnceLock<ClusterPlace>,
}

/// A server that runs.
pub(super) struct Running {
    cluster: Mutex<Cluster>,
    endpoint: PgEndpoint,
    socket: PathBuf,
    started: Timestamp,
}

/// As long as this is held, the server is not stopped.
pub(super) struct Lease {
    running: OwnedRwLockReadGuard<Option<Running>, Running>,
}

impl Lease {
    /// The superuser, in the database `postgres`.
    pub(super) fn endpoint(&self) -> &PgEndpoint {
        &self.running.endpoint
    }

    /// The private Unix socket.
    pub(super) fn socket(&self) -> &Path {
        &self.running.socket
    }

    /// When the server was started.
    pub(super) fn started(&self) -> Timestamp {
        self.running.started
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(
        ground: &Arc<Ground>,
        name: &str,
        settings: BTreeMap<String, String>,
    ) -> Result<Arc<Self>, FleetError> {
        Ok(Arc::new(Self {
            ground: Arc::clone(ground),
            name: name.to_owned(),
            place: ground.place(name)?,
            slot: Arc::default(),
            settings: Mutex::new(settings),
            last_used: AtomicI64::new(ground.clock.now().as_millis()),
            begins_as: OnceLock::new(),
        }))
    }

    /// Says what the data directory is copied from when the server first starts.
    pub(super) fn begin_as(&self, source: ClusterPlace) {
        // A branch begins once.
        let _already = self.begins_as.set(source);
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn place(&self) -> &ClusterPlace {
        &self.place
    }

    /// What further starts begin with; says whether that is something new.
    pub(super) fn configure(&self, settings: BTreeMap<String, String>) -> bool {
        let mut held = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *held != settings;
        *held = settings;
        changed
    }

    /// When somebody last began to use it.
    pub(super) fn last_used(&self) -> Timestamp {
        Timestamp::from_millis(self.last_used.load(Ordering::Relaxed))
    }

    /// Whether it runs, as far as can be told without waiting; `None` while it starts or stops.
    pub(super) fn runs(&self) -> Option<bool> {
        self.slot.try_read().ok().map(|slot| slot.is_some())
    }

    /// Uses the server; starts it when it does not run.
    pub(super) async fn lease(&self) -> Result<Lease, FleetError> {
        self.touch();
        if let Some(lease) = Self::usable(Arc::clone(&self.slot).read_owned().await) {
            return Ok(lease);
        }
        let mut slot = Arc::clone(&self.slot).write_owned().await;
        if !slot.as_ref().is_some_and(Running::is_alive) {
            // A server that died by itself is forgotten first.
            drop(slot.take());
            *slot = Some(Box::pin(self.start(BTreeMap::new())).await?);
        }
        self.touch();
        Self::usable(slot.downgrade()).ok_or(FleetError::Lost("the server"))
    }

    /// Starts the server with further settings for this one start.
    pub(super) async fn lease_with(
        &self,
        more: BTreeMap<String, String>,
    ) -> Result<Lease, FleetError> {
        let mut slot = Arc::clone(&self.slot).write_owned().await;
        halt(&mut slot).await?;
        *slot = Some(Box::pin(self.start(more)).await?);
        Self::usable(slot.downgrade()).ok_or(FleetError::Lost("the server"))
    }

    /// Uses the server only if it runs.
    pub(super) async fn lease_running(&self) -> Option<Lease> {
        Self::usable(Arc::clone(&self.slot).read_owned().await)
    }

    fn usable(slot: OwnedRwLockReadGuard<Option<Running>>) -> Option<Lease> {
        let running = OwnedRwLockReadGuard::try_map(slot, |slot| {
            slot.as_ref().filter(|running| running.is_alive())
        });
        running.ok().map(|running| Lease { running })
    }

    /// Stops the server once nobody uses it any more. `false` when it is still used after `patience`.
    pub(super) async fn stop(&self, patience: Duration) -> Result<bool, FleetError> {
        let waiting = Arc::clone(&self.slot).write_owned();
        let Ok(mut slot) = tokio::time::timeout(patience, waiting).await else { return Ok(false) };
        self.halt_and_forget(&mut slot).await?;
        Ok(true)
    }

    /// Stops the server if it has not been used since `since`, and is not used now.
    pub(super) async fn stop_unused(&self, since: Timestamp) -> Result<(), FleetError> {
        if self.last_used() > since {
            return Ok(());
        }
        match Arc::clone(&self.slot).try_write_owned() {
            Ok(mut slot) => self.halt_and_forget(&mut slot).await,
            Err(_) => Ok(()),
        }
    }

    /// Keeps everybody out until the guard is dropped; the server is stopped.
    pub(super) async fn closed(
        &self,
        patience: Duration,
    ) -> Result<Option<OwnedRwLockWriteGuard<Option<Running>>>, FleetError> {
        let waiting = Arc::clone(&self.slot).write_owned();
        let Ok(mut slot) = tokio::time::timeout(patience, waiting).await else { return Ok(None) };
        halt(&mut slot).await?;
        Ok(Some(slot))
    }

    /// Like the real service, a stop loses what `pg_stat_statements` had gathered.
    async fn halt_and_forget(&self, slot: &mut Option<Running>) -> Result<(), FleetError> {
        if slot.is_some() {
            halt(slot).await?;
            let gathered = self.place.data().join("pg_stat/pg_stat_statements.stat");
            ClusterPlace::remove(&gathered)?;
        }
        Ok(())
    }

    fn touch(&self) {
        self.last_used.store(self.ground.clock.now().as_millis(), Ordering::Relaxed);
    }

    async fn start(&self, more: BTreeMap<String, String>) -> Result<Running, FleetError> {
        if let Some(source) = self.begins_as.get().filter(|_| !self.place.data().is_dir()) {
            fill(&self.place, source).await?;
        }
        let mut options = ClusterOptions::new(&self.name, &self.ground.state).throwaway();
        options.settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        options.settings.extend(more);
        options.start_limit = START_LIMIT;
        let ground = &self.ground;
        let started = ground.local.start_guarded(&ground.installation, &options, &Quiet).await?;
        let socket = started.socket_dir().join(format!(".s.PGSQL.{}", started.port()));
        Ok(Running {
            endpoint: started.endpoint(),
            socket,
            started: ground.clock.now(),
            cluster: Mutex::new(started),
        })
    }
}

impl Running {
    fn is_alive(&self) -> bool {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).check().is_ok()
    }
}

async fn halt(slot: &mut Option<Running>) -> Result<(), FleetError> {
    if let Some(running) = slot.take() {
        let cluster = running.cluster.into_inner().unwrap_or_else(PoisonError::into_inner);
        cluster.stop().await?;
    }
    Ok(())
}
