//! The history as the engine and the tools see it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::query;
use super::writer::HistoryWriter;
use crate::engine::parts::History;
use crate::kernel::{BoxFuture, Failure, Query, Timestamp, Upkeep};
use crate::tools::context::{ReadHistory, StoredTable};
use crate::tools::tool::HistoryRow;

/// How long the end of a run waits for its rows to be appended.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long nobody tries again after a failure.
const PAUSE: Duration = Duration::from_secs(30);

/// What went wrong last, and when.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<(Timestamp, Failure)>>);

impl Outage {
    /// The failure, while it is fresh.
    fn now(&self, now: Timestamp) -> Option<Failure> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.as_ref().filter(|(at, _)| now < at.plus(PAUSE));
        fresh.map(|(_, failure)| failure.clone())
    }

    fn note(&self, now: Timestamp, failure: Option<&Failure>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = failure.map(|failure| (now, failure.clone()));
    }
}

impl History for HistoryWriter {
    fn append_owed(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            // Runs that end while the store is away do not wait for it one after the other.
            if let Some(failure) = self.outage.now(self.now()) {
                return Err(failure);
            }
            let deadline = self.now().plus(PATIENCE);
            let appended = tokio::select! {
                biased;
                appended = Self::append_owed(self) => {
                    appended.map_err(|error| error.to_failure())
                }
                () = self.sleep_until(deadline) => {
                    let text = format!("the history did not answer in {} s", PATIENCE.as_secs());
                    Err(Failure::transient("history::timeout", text))
                }
            };
            self.outage.note(self.now(), appended.as_ref().err());
            self.seal(appended?.through).await;
            Ok(())
        })
    }

    fn upkeep<'a>(&'a self, upkeep: &'a Upkeep) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let done = self.look_after(upkeep).await.map_err(|error| error.to_failure())?;
            Ok(json!(done))
        })
    }

    fn archive<'a>(
        &'a self,
        batch: &'a str,
        rows: Vec<HistoryRow>,
    ) -> BoxFuture<'a, Result<usize, Failure>> {
        Box::pin(async move {
            let done = self.archive_batch(batch, &rows).await;
            done.map_err(|error| error.to_failure())
        })
    }

    fn reader(&self) -> &dyn ReadHistory {
        self
    }
}

impl ReadHistory for HistoryWriter {
    fn query<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(async move {
            let answer = query::answer(self.location(), query, &[], None).await;
            answer.and_then(|answer| answer.rows()).map_err(|error| error.to_failure())
        })
    }

    fn location(&self) -> String {
        Self::location(self).to_string()
    }

    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredTable>, Failure>> {
        Box::pin(async move { Self::stored(self).await.map_err(|error| error.to_failure()) })
    }
}
