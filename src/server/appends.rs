//! Appending to the history beside the runs.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// Appends what runs owe the history. An append costs a commit of each table, however much it takes in: runs that
/// end while one is under way share the next one, and none keeps its place until its rows are there.
pub(super) struct Appends {
    engine: Engine,
    owed: Arc<Notify>,
    stop: CancellationToken,
    /// The task that appends, once something was owed. It ends with this.
    work: JoinSet<()>,
}

impl Appends {
    pub(super) fn new(engine: Engine) -> Self {
        let stop = CancellationToken::new();
        Self { engine, owed: Arc::default(), stop, work: JoinSet::new() }
    }

    /// A run is over.
    pub(super) fn owed(&mut self) {
        if self.work.is_empty() {
            let (engine, owed) = (self.engine.clone(), Arc::clone(&self.owed));
            let stop = self.stop.clone();
            self.work.spawn(async move {
                while stop.run_until_cancelled(owed.notified()).await.is_some() {
                    engine.append_history().await;
                }
            });
        }
        self.owed.notify_one();
    }

    /// Appends the rest.
    pub(super) async fn end(&mut self) {
        if self.work.is_empty() {
            return;
        }
        self.stop.cancel();
        while self.work.join_next().await.is_some() {}
        self.engine.append_history().await;
    }
}
