//! The journal: conformance, damage, crashes, group commit.

mod damage;
mod failing;
mod pruning;
mod sample;
mod sealing;
mod writing;

use std::sync::Arc;

use lakeops::journal::conformance::run_all;
use lakeops::journal::{Journal, MemoryJournal, SqliteJournal};
use lakeops::kernel::Redactor;

#[tokio::test]
async fn the_memory_journal_conforms() {
    let make = |clock| Arc::new(MemoryJournal::new(clock, Redactor::default())) as Arc<dyn Journal>;
    run_all(make).await.unwrap();
}

#[tokio::test]
async fn the_sqlite_journal_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    let make = |clock| {
        count.set(count.get() + 1);
        let state = dir.path().join(count.get().to_string());
        SqliteJournal::open(&state, clock, Redactor::default()).unwrap() as Arc<dyn Journal>
    };
    run_all(make).await.unwrap();
}
