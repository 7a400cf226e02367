//! What `lakeops bench branch` measures, on a small database: whether branches are consistent, and
//! whether the past is there. Figures of a small database say nothing.

use std::sync::Arc;
use std::time::Duration;

use lakeops::cli::bench_branch::{BranchSize, Ground, measure};
use lakeops::kernel::{RandomIds, SystemClock};

use crate::harness::Place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_of_a_busy_parent_are_consistent_and_the_past_is_there() {
    let place = Place::new();
    let ground = Ground {
        folder: place.state(),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        local_postgres: place.local.clone(),
    };
    let size = BranchSize { megabytes: 20, trials: 3, warm_up: Duration::from_secs(4) };
    let report = Box::pin(measure(ground, size, |_| ())).await.unwrap();
    assert!(report.consistent && report.past_shows_dropped_table, "{report:?}");
    assert!(report.parent_bytes > 20 << 20 && report.transactions.0 > 50, "{report:?}");
}
