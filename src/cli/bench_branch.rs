//! How long a branch of a busy database takes, and what its parent notices of it.
//!
//! Clients move money between two tables of the parent at a steady pace. Meanwhile branches are made of
//! it, one after the other; each is opened and checked: the two tables have to agree. At the end a table
//! is dropped, and a branch of the moment before has to show it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::emulator::fleet::{
    BranchId, BranchPoint, Fleet, FleetError, FleetOptions, LoginDecision, LoginRequest, Logins,
};
use crate::kernel::{BoxFuture, Clock, IdSource, SqlFile};
use crate::postgres::{LocalPostgres, Quiet};

/// By how much two tables differ that every transaction changes together.
const DIFFERENCE: SqlFile = SqlFile {
    name: "bench/difference",
    text: "select ((select pg_catalog.sum(a.balance) from public.account as a) \
           - (select coalesce(pg_catalog.sum(e.amount), 0) from public.entry as e))::bigint as n",
};
/// The rows of a table that is dropped later.
const ROWS: SqlFile =
    SqlFile { name: "bench/rows", text: "select pg_catalog.count(*) as n from public.doomed as d" };

const CLIENTS: u64 = 4;
/// Each client begins a transaction this often.
const PACE: Duration = Duration::from_millis(20);
/// Rows of the larger table in a megabyte.
const ROWS_IN_MEGABYTE: u64 = 7_000;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct BranchSize {
    /// How much the parent holds, in MB of 2^20 bytes.
    pub megabytes: u64,
    /// How many branches are made.
    pub trials: u32,
    /// How long the clients are watched before the first.
    pub warm_up: Duration,
}

/// What was measured. Times are in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BranchReport {
    /// What the parent's databases hold together, in bytes.
    pub parent_bytes: u64,
    /// From the request for a branch to its first answer, for each, in the order of length.
    pub ready_ms: Vec<f64>,
    /// The one in the middle.
    pub ready_median_ms: f64,
    /// The 99th percentile of the parent's transactions before the first branch.
    pub parent_p99_before_ms: f64,
    /// The same of those that began while a branch was made.
    pub parent_p99_during_ms: f64,
    /// The second by the first.
    pub parent_p99_ratio: f64,
    /// Transactions before, and during.
    pub transactions: (usize, usize),
    /// Whether the tables agreed on every branch.
    pub consistent: bool,
    /// From the request for a branch of the past to its first answer.
    pub past_ready_ms: f64,
    /// Whether it shows the table that was dropped later.
    pub past_shows_dropped_table: bool,
    /// Whether the program was built without optimisation.
    pub debug_build: bool,
}

#[derive(Deserialize)]
struct Found {
    n: i64,
}

/// Nobody connects from outside.
struct Nobody;

impl Logins for Nobody {
    fn check<'a>(&'a self, _: LoginRequest<'a>) -> BoxFuture<'a, LoginDecision> {
        Box::pin(async { LoginDecision::Refused { message: "this is a measurement".to_owned() } })
    }
}

type Latencies = Vec<(Instant, Duration)>;

/// Where and with what it is measured.
pub struct Ground {
    /// A folder of its own.
    pub folder: PathBuf,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn IdSource>,
    /// Where servers come from.
    pub local_postgres: LocalPostgres,
}

/// Measures. `step` is told what is being done.
pub async fn measure(
    ground: Ground,
    size: BranchSize,
    step: impl Fn(&str),
) -> Result<BranchReport, FleetError> {
    let clock = Arc::clone(&ground.clock);
    let fleet = Box::pin(Fleet::open(FleetOptions {
        state_dir: ground.folder,
        clock: ground.clock,
        ids: ground.ids,
        local_postgres: ground.local_postgres,
        logins: Arc::new(Nobody),
        progress: Arc::new(Quiet),
    }))
    .await?;
    let report = Box::pin(on(&fleet, &clock, size, step)).await;
    Box::pin(fleet.shutdown()).await?;
    report
}

async fn on(
    fleet: &Arc<Fleet>,
    clock: &Arc<dyn Clock>,
    size: BranchSize,
    step: impl Fn(&str),
) -> Result<BranchReport, FleetError> {
    let parent = BranchId("br-parent".to_owned());
    let rows = size.megabytes * ROWS_IN_MEGABYTE;
    step("filling the parent");
    Box::pin(fill(fleet, &parent, rows)).await?;
    let parent_bytes = Box::pin(fleet.branch_facts(&parent)).await?.logical_size_bytes;
    step("watching its clients");
    let stop = CancellationToken::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (fleet, clock) = (Arc::clone(fleet), Arc::clone(clock));
            tokio::spawn(load((fleet, clock), parent.clone(), (client, rows), stop.clone()))
        })
        .collect();
    clock.sleep_until(clock.now().plus(size.warm_up)).await;
    let (mut spans, mut ready, mut consistent) = (Vec::new(), Vec::new(), true);
    for number in 0..size.trials {
        step(&format!("making branch {} of {}", number + 1, size.trials));
        let child = BranchId(format!("br-child-{number}"));
        let began = Instant::now();
        Box::pin(fleet.branch(&parent, BranchPoint::Head, &child)).await?;
        spans.push((began, Instant::now()));
        let mut admin = Box::pin(fleet.admin(&child, "postgres")).await?;
        ready.push(began.elapsed());
        consistent &= admin.row::<Found>(&DIFFERENCE, &[]).await?.n == 0;
        admin.close().await;
        Box::pin(fleet.delete_branch(&child)).await?;
        clock.sleep_until(clock.now().plus(size.warm_up / 10)).await;
    }
    stop.cancel();
    let mut seen = Latencies::new();
    for client in clients {
        seen.extend(client.await.map_err(|_| FleetError::Lost("a client"))??);
    }
    step("going back in time");
    let (past_ready, past_shows) = Box::pin(past(fleet, clock, &parent)).await?;
    ready.sort_unstable();
    let first = spans.first().map_or_else(Instant::now, |(from, _)| *from);
    let before = p99(&seen, |at| at < first);
    let during = p99(&seen, |at| spans.iter().any(|(from, to)| *from <= at && at <= *to));
    let middle = ready.get(ready.len() / 2).copied().unwrap_or_default();
    Ok(BranchReport {
        parent_bytes,
        ready_median_ms: ms(middle),
        ready_ms: ready.into_iter().map(ms).collect(),
        parent_p99_before_ms: ms(before.0),
        parent_p99_during_ms: ms(during.0),
        parent_p99_ratio: ms(during.0) / ms(before.0).max(f64::MIN_POSITIVE),
        transactions: (before.1, during.1),
        consistent,
        past_ready_ms: ms(past_ready),
        past_shows_dropped_table: past_shows,
        debug_build: cfg!(debug_assertions),
    })
}

async fn fill(fleet: &Fleet, parent: &BranchId, rows: u64) -> Result<(), FleetError> {
    Box::pin(fleet.create_root(parent, 17)).await?;
    let mut admin = Box::pin(fleet.admin(parent, "postgres")).await?;
    let table = format!(
        "create table account as select x as id, 0::bigint as balance, repeat('x', 100) as filler \
         from generate_series(1, {rows}) as x"
    );
    for statement in [
        &*table,
        "alter table account add primary key (id)",
        "create table entry (account bigint, amount bigint)",
        "create table doomed as select generate_series(1, 1000) as x",
        "vacuum analyze account",
        "checkpoint",
    ] {
        admin.run("bench", statement).await?;
    }
    admin.close().await;
    Ok(())
}

async fn load(
    (fleet, clock): (Arc<Fleet>, Arc<dyn Clock>),
    branch: BranchId,
    (client, rows): (u64, u64),
    stop: CancellationToken,
) -> Result<Latencies, FleetError> {
    let mut admin = Box::pin(fleet.admin(&branch, "postgres")).await?;
    let (mut seen, mut number) = (Latencies::new(), client);
    while !stop.is_cancelled() {
        // Which account is a matter of arithmetic, so that every measurement does the same.
        number = (number * 48_271 + 11) % 2_147_483_647;
        let id = number % rows.max(1) + 1;
        let began = Instant::now();
        let both = format!(
            "begin; update account set balance = balance + 7 where id = {id}; \
             insert into entry (account, amount) values ({id}, 7); commit"
        );
        admin.run("load", &both).await?;
        seen.push((began, began.elapsed()));
        let next = PACE.saturating_sub(began.elapsed());
        clock.sleep_until(clock.now().plus(next)).await;
    }
    admin.close().await;
    Ok(seen)
}

/// Drops a table, and makes a branch of the moment before.
async fn past(
    fleet: &Fleet,
    clock: &Arc<dyn Clock>,
    parent: &BranchId,
) -> Result<(Duration, bool), FleetError> {
    let before = clock.now();
    clock.sleep_until(before.plus(Duration::from_millis(20))).await;
    let mut admin = Box::pin(fleet.admin(parent, "postgres")).await?;
    admin.run("bench", "drop table doomed").await?;
    admin.close().await;
    let child = BranchId("br-past".to_owned());
    let began = Instant::now();
    Box::pin(fleet.branch(parent, BranchPoint::Time(before), &child)).await?;
    let mut admin = Box::pin(fleet.admin(&child, "postgres")).await?;
    let ready = began.elapsed();
    let found = admin.row::<Found>(&ROWS, &[]).await?;
    admin.close().await;
    Ok((ready, found.n == 1000))
}

/// The 99th percentile of those that began when `within` says, and how many they are.
fn p99(seen: &[(Instant, Duration)], within: impl Fn(Instant) -> bool) -> (Duration, usize) {
    let mut took: Vec<Duration> =
        seen.iter().filter(|(at, _)| within(*at)).map(|(_, took)| *took).collect();
    took.sort_unstable();
    (took.get(took.len() * 99 / 100).copied().unwrap_or_default(), took.len())
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

/// A folder whose servers another user can enter.
pub fn folder(state: &Path) -> std::io::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut builder = tempfile::Builder::new();
    builder.prefix("bench-").permissions(std::fs::Permissions::from_mode(0o755)).tempdir_in(state)
}
