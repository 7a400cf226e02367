//! The same traps on the other versions that Lakebase offers.

use super::bench::Bench;
use super::{indexes, missing};

async fn on_version(major: u32) {
    let Some(bench) = Bench::start_version(major).await else { return };
    bench.set_traps().await;
    indexes::every_detector(&bench).await;
    missing::what_is_missing(&bench).await;
    bench.stop().await;
}

#[tokio::test]
async fn every_trap_is_told_apart_on_16() {
    on_version(16).await;
}

#[tokio::test]
async fn every_trap_is_told_apart_on_18() {
    on_version(18).await;
}
