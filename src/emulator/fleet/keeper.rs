//! The fleet: keeps the branches of one state directory.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admin::AdminSession;
use super::branch::Branch;
use super::clients::Ending;
use super::copying::fill;
use super::endpoint::Endpoint;
use super::error::FleetError;
use super::ground::{Ground, check_id};
use super::login::Logins;
use super::record::BranchRecord;
use super::tls::Authority;
use super::types::{BranchFacts, BranchId, BranchOrigin, BranchPoint, EndpointId};
use super::watch::watch;
use crate::kernel::{Clock, IdSource, SqlFile};
use crate::postgres::{ClusterPlace, FileLock, LocalPostgres, Progress};
use crate::sql_file;

pub(super) const BRANCH_FACTS: SqlFile = sql_file!("emulator/branch_facts");

/// How long whoever uses a branch may take to end before it is deleted. A base copy leaves the processor to
/// others, so on a busy machine it takes its time.
const DELETE_PATIENCE: Duration = Duration::from_mins(2);

/// What a fleet needs.
pub struct FleetOptions {
    /// The state directory; the fleet keeps everything in `emulator` below it.
    pub state_dir: PathBuf,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn IdSource>,
    /// Where servers come from.
    pub local_postgres: LocalPostgres,
    /// Who may log in.
    pub logins: Arc<dyn Logins>,
    /// Who is told while PostgreSQL is got.
    pub progress: Arc<dyn Progress>,
}

/// Keeps the branches and endpoints of one state directory.
pub struct Fleet {
    pub(super) ground: Arc<Ground>,
    pub(super) logins: Arc<dyn Logins>,
    pub(super) authority: Authority,
    endpoints: Mutex<BTreeMap<EndpointId, Arc<Endpoint>>>,
    end: CancellationToken,
    branches: Mutex<BTreeMap<BranchId, Arc<Branch>>>,
    template: OnceCell<ClusterPlace>,
    /// What the fleet does by itself.
    watch: Mutex<Option<JoinHandle<()>>>,
    _lock: FileLock,
}

#[derive(Deserialize)]
struct Measured {
    logical_size_bytes: u64,
    lsn: String,
}

impl Fleet {
    /// Takes over what an earlier process left: finished branches are kept, unfinished ones and what
    /// still runs of them is removed. No server is started.
    pub async fn open(options: FleetOptions) -> Result<Arc<Self>, FleetError> {
        let state = options.state_dir.join("emulator");
        let lock = lock(&state)?;
        let installation = options.local_postgres.ensure(&*options.progress).await?;
        let ground = Arc::new(Ground {
            state,
            local: options.local_postgres,
            installation,
            clock: options.clock,
        });
        let mut branches = BTreeMap::new();
        for record in BranchRecord::all(&ground.state) {
            let branch = Branch::of(&ground, record.clone())?;
            if record.ready {
                branches.insert(record.id, Arc::new(branch));
            } else {
                branch.discard().await?;
            }
        }
        let end = CancellationToken::new();
        let clock = Arc::clone(&ground.clock);
        let fleet = Arc::new(Self {
            authority: Authority::open(&ground.state.join("tls"))?,
            ground,
            logins: options.logins,
            endpoints: Mutex::default(),
            end: end.clone(),
            branches: Mutex::new(branches),
            template: OnceCell::new(),
            watch: Mutex::default(),
            _lock: lock,
        });
        let watching = tokio::spawn(watch(Arc::downgrade(&fleet), clock, end));
        *fleet.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watching);
        Ok(fleet)
    }

    /// The branches that there are.
    pub fn branches(&self) -> Vec<BranchId> {
        self.held().keys().cloned().collect()
    }

    /// Makes a branch that comes from nowhere: an empty PostgreSQL.
    pub async fn create_root(&self, id: &BranchId, pg_version: u32) -> Result<(), FleetError> {
        self.check_free(id)?;
        let found = self.ground.installation.version;
        if found.major != pg_version {
            return Err(FleetError::Version { wanted: pg_version, found });
        }
        let template = self.template.get_or_try_init(|| self.make_template()).await?;
        let branch = Branch::prepare(&self.ground, id)?;
        self.keep_if(branch, |branch| async move {
            fill(branch.place(), template).await?;
            Box::pin(branch.take_base()).await?;
            Ok(None)
        })
        .await?;
        Ok(())
    }

    /// Makes a branch that nobody has ever worked on. Its data are those of `source`, and are copied when
    /// its server first starts; until then it takes no room. Nobody may write to `source` from now on.
    pub async fn create_untouched(
        &self,
        id: &BranchId,
        source: &BranchId,
    ) -> Result<(), FleetError> {
        self.check_free(id)?;
        let source = self.find(source)?;
        if !source.server.stop(DELETE_PATIENCE).await? {
            let branch = source.id.clone();
            return Err(FleetError::Busy { branch, what: "somebody works on it" });
        }
        let branch = Branch::prepare(&self.ground, id)?;
        branch.finish_empty(&source.id)?;
        self.held().insert(id.clone(), Arc::new(branch));
        Ok(())
    }

    /// Makes a branch of another one. Nothing is shared afterwards.
    pub async fn branch(
        &self,
        parent: &BranchId,
        point: BranchPoint,
        child: &BranchId,
    ) -> Result<BranchOrigin, FleetError> {
        self.check_free(child)?;
        let parent = self.find(parent)?;
        let branch = Branch::prepare(&self.ground, child)?;
        let origin = self
            .keep_if(branch, |branch| async move {
                if point != BranchPoint::Head {
                    let past = Box::pin(branch.fill_from_past(&parent, &point)).await;
                    return past.map(Some);
                }
                let snapshot = Box::pin(branch.fill_online(&parent)).await?;
                Ok(Some(BranchOrigin { lsn: snapshot.stop.to_string(), time: snapshot.time }))
            })
            .await?;
        origin.ok_or(FleetError::Lost("the copy"))
    }

    /// Removes a branch with all its data.
    pub async fn delete_branch(&self, id: &BranchId) -> Result<(), FleetError> {
        let branch = self.find(id)?;
        if let Some(endpoint) = self.endpoint_of(id) {
            return Err(FleetError::EndpointOpen { branch: id.clone(), endpoint });
        }
        let busy = || FleetError::Busy { branch: id.clone(), what: "somebody works on it" };
        let follower = branch.follower.server().closed(DELETE_PATIENCE).await?.ok_or_else(busy)?;
        let closed = branch.server.closed(DELETE_PATIENCE).await?.ok_or_else(busy)?;
        branch.discard().await?;
        self.held().remove(id);
        drop((closed, follower));
        Ok(())
    }

    /// What is known of a branch; wakes it.
    pub async fn branch_facts(&self, id: &BranchId) -> Result<BranchFacts, FleetError> {
        let admin = self.admin(id, "postgres").await?;
        self.measure(id, admin).await
    }

    /// The same, if its server runs; `None` if not, or if that cannot be told now.
    pub async fn facts_if_awake(&self, id: &BranchId) -> Option<BranchFacts> {
        let lease = self.find(id).ok()?.server.lease_running().await?;
        let admin = AdminSession::open(lease, "postgres").await.ok()?;
        self.measure(id, admin).await.ok()
    }

    /// Where a branch came from; `None` for a root.
    pub fn origin(&self, id: &BranchId) -> Option<BranchOrigin> {
        self.find(id).ok()?.record().origin
    }

    async fn measure(
        &self,
        id: &BranchId,
        mut admin: AdminSession,
    ) -> Result<BranchFacts, FleetError> {
        let measured: Measured = admin.row(&BRANCH_FACTS, &[]).await?;
        admin.close().await;
        Ok(BranchFacts {
            logical_size_bytes: measured.logical_size_bytes,
            lsn: measured.lsn,
            oldest: self.find(id)?.oldest(),
        })
    }

    /// A session of the superuser; wakes the branch's server, not its endpoints.
    pub async fn admin(&self, id: &BranchId, database: &str) -> Result<AdminSession, FleetError> {
        let lease = self.find(id)?.server.lease().await?;
        AdminSession::open(lease, database).await
    }

    /// Stops everything. The branches stay.
    pub async fn shutdown(&self) -> Result<(), FleetError> {
        self.end.cancel();
        let endpoints = std::mem::take(&mut *self.endpoints());
        for endpoint in endpoints.values() {
            endpoint.closing.cancel();
            endpoint.sleep(Ending::Told);
        }
        let branches: Vec<_> = self.held().values().cloned().collect();
        for branch in branches {
            branch.follower.server().stop(DELETE_PATIENCE).await?;
            branch.server.stop(DELETE_PATIENCE).await?;
        }
        // Whoever opens the fleet next finds nobody at work any more.
        let watching = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watching) = watching {
            drop(tokio::time::timeout(DELETE_PATIENCE, watching).await);
        }
        Ok(())
    }

    /// Stops everything, and deletes all that it keeps. Nothing can be done with it afterwards.
    pub async fn discard(&self) -> Result<(), FleetError> {
        Box::pin(self.shutdown()).await?;
        for branch in self.branches() {
            Box::pin(self.delete_branch(&branch)).await?;
        }
        let ground = &self.ground;
        ground.local.discard(&ground.state, &self.template_name()).await?;
        Ok(ClusterPlace::remove(&ground.state)?)
    }

    /// From now on a branch can be restored so far back, as far as that is kept already.
    pub fn keep_past(&self, id: &BranchId, time: Duration) {
        if let Ok(branch) = self.find(id) {
            branch.keep_for(time);
        }
    }

    /// Makes the base copies that are due, of all branches or of those that have none yet, without
    /// waiting for them.
    pub(super) fn keep_histories(&self, all: bool) {
        for branch in self.held().values().filter(|it| all || it.lacks_past()).cloned() {
            tokio::spawn(async move {
                if let Err(error) = branch.keep_history().await {
                    tracing::warn!(branch = %branch.id, %error, "a base copy could not be made");
                }
            });
        }
    }

    pub(super) fn endpoints(&self) -> MutexGuard<'_, BTreeMap<EndpointId, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self) -> MutexGuard<'_, BTreeMap<BranchId, Arc<Branch>>> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, id: &BranchId) -> Result<Arc<Branch>, FleetError> {
        self.held().get(id).cloned().ok_or_else(|| FleetError::NoBranch(id.clone()))
    }

    fn check_free(&self, id: &BranchId) -> Result<(), FleetError> {
        check_id(&id.0)?;
        if self.held().contains_key(id) {
            return Err(FleetError::BranchExists(id.clone()));
        }
        Ok(())
    }

    /// Fills a prepared branch and keeps it, or removes it again.
    async fn keep_if<F>(
        &self,
        branch: Branch,
        fill: impl FnOnce(Arc<Branch>) -> F,
    ) -> Result<Option<BranchOrigin>, FleetError>
    where
        F: Future<Output = Result<Option<BranchOrigin>, FleetError>>,
    {
        let branch = Arc::new(branch);
        let filled = fill(Arc::clone(&branch)).await;
        match filled.and_then(|origin| branch.finish(origin.clone()).map(|()| origin)) {
            Ok(origin) => {
                self.held().insert(branch.id.clone(), branch);
                Ok(origin)
            }
            Err(error) => {
                // The first error is the one that explains; the next start removes what is left.
                drop(branch.discard().await);
                Err(error)
            }
        }
    }

    fn template_name(&self) -> String {
        let version = self.ground.installation.version;
        format!("template-{}-{}", version.major, version.minor)
    }

    /// The data directory that all roots begin with.
    async fn make_template(&self) -> Result<ClusterPlace, FleetError> {
        let ground = &self.ground;
        let place = ground.place(&self.template_name())?;
        if !place.data().is_dir() {
            let more = ["--wal-segsize=1"];
            ground.local.initialise(&ground.installation, &place, &more).await?;
        }
        Ok(place)
    }
}

/// One process at a time keeps a fleet; the lock dies with it.
fn lock(state: &Path) -> Result<FileLock, FleetError> {
    let path = state.join("fleet.lock");
    let fail = |e| FleetError::copy("lock", &path, e);
    std::fs::create_dir_all(state).map_err(fail)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    FileLock::try_take(file).map_err(|error| match error {
        TryLockError::WouldBlock => FleetError::InUse { state: state.to_owned() },
        TryLockError::Error(e) => fail(e),
    })
}
