//! The client of a workspace: against a stand-in that answers as a test says, and against databases of
//! the emulator.

mod advice;
mod client;
mod cost;
mod cycle;
mod databases;
mod governance;
mod killing;
mod limits;
mod promotion;
mod provisioning;
mod shop;
mod stand_in;
mod whole;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::config::{FixedEnvironment, LakebaseConnection};
use lakeops::kernel::{
    BoxFuture, Clock, IdSource, RandomIds, Redactor, RunId, SystemClock, Timestamp,
};
use lakeops::lakebase::{Login, Outside, Patience, WorkspaceClient};

/// A clock that stands still, and whose sleepers do not wait: it is set forward for them, and remembers by
/// how much. How busy the machine is changes nothing of that.
struct JumpClock {
    now: AtomicI64,
    waits: Mutex<Vec<Duration>>,
}

impl JumpClock {
    fn new() -> Self {
        let now = AtomicI64::new(SystemClock.now().as_millis());
        Self { now, waits: Mutex::default() }
    }

    fn turn(&self, by: Duration) {
        self.now.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The whole seconds that somebody waited, one by one.
    fn waited(&self) -> Vec<u64> {
        let round = |wait: &Duration| wait.saturating_add(Duration::from_millis(500)).as_secs();
        self.waits.lock().unwrap().iter().map(round).collect()
    }
}

impl Clock for JumpClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let wait = at.since(self.now());
        self.waits.lock().unwrap().push(wait);
        self.turn(wait);
        Box::pin(tokio::task::yield_now())
    }
}

/// Identifiers without chance.
struct NoJitter;

impl IdSource for NoJitter {
    fn run_id(&self) -> RunId {
        RandomIds.run_id()
    }

    fn draw(&self) -> f64 {
        0.0
    }
}

/// A client that was given these variables, and what it works with.
struct World {
    client: Arc<WorkspaceClient>,
    clock: Arc<JumpClock>,
    redactor: Redactor,
}

const TOKEN: &str = "dapi-0123456789";

impl World {
    /// By a token.
    fn new(host: &str) -> Self {
        Self::with(host, &[("DATABRICKS_TOKEN", TOKEN), ("DATABRICKS_WAREHOUSE_ID", "w1")])
    }

    fn with(host: &str, variables: &[(&str, &str)]) -> Self {
        // Other tests keep the machine busy.
        let patience = Patience { request: Duration::from_mins(2), ..Patience::default() };
        Self::patient(host, variables, patience)
    }

    fn patient(host: &str, variables: &[(&str, &str)], patience: Patience) -> Self {
        let mut environment = FixedEnvironment::default();
        let host = ("DATABRICKS_HOST", host);
        for (name, value) in variables.iter().chain([&host]) {
            environment.vars.insert((*name).to_owned(), (*value).to_owned());
        }
        let (clock, redactor) = (Arc::new(JumpClock::new()), Redactor::default());
        let connection = LakebaseConnection::default();
        let login = Login::resolve(&connection, &environment, &redactor).unwrap();
        let outside = Outside {
            clock: Arc::<JumpClock>::clone(&clock),
            ids: Arc::new(NoJitter),
            redactor: redactor.clone(),
            patience,
        };
        Self { client: WorkspaceClient::new(login, outside).unwrap(), clock, redactor }
    }
}
