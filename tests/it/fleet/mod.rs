//! The emulator's databases, on real PostgreSQL servers.

mod branches;
mod endpoints;
mod figures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lakeops::emulator::fleet::{
    BranchId, Fleet, FleetError, FleetOptions, LoginDecision, LoginRequest, Logins,
};
use lakeops::kernel::{BoxFuture, RandomIds, SystemClock};
use lakeops::postgres::Quiet;

use crate::harness::Place;

/// Lets everybody in whose secret is `right`, and with `read` for reading only.
struct TestLogins;

impl Logins for TestLogins {
    fn check<'a>(&'a self, login: LoginRequest<'a>) -> BoxFuture<'a, LoginDecision> {
        let decision = match login.secret {
            "right" | "also right" => LoginDecision::Allowed { read_only: false },
            "read" => LoginDecision::Allowed { read_only: true },
            _ => LoginDecision::Refused { message: "the secret is wrong".to_owned() },
        };
        Box::pin(async move { decision })
    }
}

/// A state directory with a fleet.
struct TestFleet {
    fleet: Arc<Fleet>,
    place: Place,
}

impl TestFleet {
    async fn new() -> Self {
        let place = Place::new();
        let fleet = Self::open(&place).await.unwrap();
        Self { fleet, place }
    }

    async fn open(place: &Place) -> Result<Arc<Fleet>, FleetError> {
        Box::pin(Fleet::open(FleetOptions {
            state_dir: place.state(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            local_postgres: place.local.clone(),
            logins: Arc::new(TestLogins),
            progress: Arc::new(Quiet),
        }))
        .await
    }

    /// A root with a table `t`, holding the numbers from 1 to 100.
    async fn root(&self, name: &str) -> BranchId {
        let id = BranchId(name.to_owned());
        Box::pin(self.fleet.create_root(&id, 17)).await.unwrap();
        run(&self.fleet, &id, "create table t as select generate_series(1, 100) as x").await;
        id
    }

    fn clusters(&self) -> PathBuf {
        self.place.state().join("emulator/postgres")
    }
}

async fn run(fleet: &Fleet, branch: &BranchId, statements: &str) {
    let mut admin = Box::pin(fleet.admin(branch, "postgres")).await.unwrap();
    Box::pin(admin.run("test", statements)).await.unwrap();
    admin.close().await;
}

/// How many processes have the directory in their command line.
pub(crate) fn processes_on(folder: &Path) -> usize {
    let folder = folder.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(folder))
    })
    .count()
}
