//! How long a branch of a busy parent takes, and what the parent notices of it.
//!
//! `cargo test --release --test it fleet::figures -- --ignored --nocapture` prints the figures of a
//! gigabyte; a small one runs with the other tests and checks only that the branches are consistent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lakeops::emulator::fleet::{BranchId, BranchPoint, Fleet};
use lakeops::kernel::{Clock as _, SqlFile, SystemClock};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{TestFleet, run};

const CLIENTS: u64 = 4;
/// Each client begins a transaction this often.
const PACE: Duration = Duration::from_millis(20);
const TRIALS: usize = 5;

const DIFFERENCE: SqlFile = SqlFile {
    name: "test/difference",
    text: "select (select sum(balance) from account) - (select sum(amount) from entry) as n",
};

#[derive(Deserialize)]
struct Found {
    n: i64,
}

/// When each transaction began, and how long it took.
type Latencies = Vec<(Instant, Duration)>;

async fn load(
    fleet: Arc<Fleet>,
    branch: BranchId,
    (client, rows): (u64, u64),
    stop: CancellationToken,
) -> Latencies {
    let mut admin = Box::pin(fleet.admin(&branch, "postgres")).await.unwrap();
    let (mut seen, mut number) = (Latencies::new(), client);
    while !stop.is_cancelled() {
        number = (number * 48_271 + 11) % 2_147_483_647;
        let id = number % rows + 1;
        let began = Instant::now();
        let both = format!(
            "begin; update account set balance = balance + 7 where id = {id}; \
             insert into entry (account, amount) values ({id}, 7); commit"
        );
        admin.run("load", &both).await.unwrap();
        seen.push((began, began.elapsed()));
        let next = PACE.saturating_sub(began.elapsed());
        SystemClock.sleep_until(SystemClock.now().plus(next)).await;
    }
    admin.close().await;
    seen
}

fn p99(seen: &[(Instant, Duration)], within: impl Fn(Instant) -> bool) -> Duration {
    let mut took: Vec<Duration> =
        seen.iter().filter(|(at, _)| within(*at)).map(|(_, took)| *took).collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

async fn measure(megabytes: u64) {
    let test = TestFleet::new().await;
    let parent = test.root("br-parent").await;
    let rows = megabytes * 7_000;
    let table = format!(
        "create table account as select x as id, 0::bigint as balance, repeat('x', 100) as filler \
         from generate_series(1, {rows}) as x; alter table account add primary key (id); \
         create table entry (account bigint, amount bigint); vacuum analyze account; checkpoint"
    );
    for statement in table.split(';') {
        run(&test.fleet, &parent, statement).await;
    }
    let size = Box::pin(test.fleet.branch_facts(&parent)).await.unwrap().logical_size_bytes;
    let stop = CancellationToken::new();
    let start = |client| {
        tokio::spawn(load(Arc::clone(&test.fleet), parent.clone(), (client, rows), stop.clone()))
    };
    let clients: Vec<_> = (0..CLIENTS).map(start).collect();
    let pause = |secs| SystemClock.sleep_until(SystemClock.now().plus(Duration::from_secs(secs)));
    pause(if megabytes > 100 { 10 } else { 1 }).await;
    let (mut spans, mut ready) = (Vec::new(), Vec::new());
    for number in 0..TRIALS {
        let child = BranchId(format!("br-child-{number}"));
        let began = Instant::now();
        Box::pin(test.fleet.branch(&parent, BranchPoint::Head, &child)).await.unwrap();
        spans.push((began, Instant::now()));
        let mut admin = Box::pin(test.fleet.admin(&child, "postgres")).await.unwrap();
        ready.push(began.elapsed());
        let found: Found = admin.row(&DIFFERENCE, &[]).await.unwrap();
        assert_eq!(found.n, 0, "the branch is consistent");
        admin.close().await;
        Box::pin(test.fleet.delete_branch(&child)).await.unwrap();
        pause(u64::from(megabytes > 100)).await;
    }
    stop.cancel();
    let mut seen = Latencies::new();
    for client in clients {
        seen.extend(client.await.unwrap());
    }
    ready.sort_unstable();
    let first = spans[0].0;
    let during = |at| spans.iter().any(|(from, to)| *from <= at && at <= *to);
    eprintln!(
        "{} MB: ready after {:?} (median of {TRIALS}: {ready:?}); parent's p99 {:?} before, {:?} \
         during the copies, of {} transactions",
        size >> 20,
        ready[TRIALS / 2],
        p99(&seen, |at| at < first),
        p99(&seen, during),
        seen.len(),
    );
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_branch_of_a_busy_parent() {
    measure(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures of a gigabyte take a minute, and a machine with nothing else to do"]
async fn a_gigabyte_of_a_busy_parent() {
    measure(1_000).await;
}
