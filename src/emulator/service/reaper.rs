//! What the service does by itself: removes what has expired, and what was deleted long enough ago.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::context::Service;
use super::error::ApiError;
use super::operation::Work;
use super::record::{Kind, Record};
use super::usage;
use crate::kernel::Timestamp;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks until the service ends.
pub(super) async fn reap(service: Weak<Service>) {
    let mut metered = None;
    loop {
        let Some(held) = service.upgrade() else { return };
        let (clock, end) = (Arc::clone(&held.clock), held.end.clone());
        if let Err(error) = held.remove_expired().await {
            tracing::warn!(%error, "what has expired cannot be removed");
        }
        if let Err(error) = held.take_due_snapshots().await {
            tracing::warn!(%error, "the schedules of snapshots cannot be read");
        }
        let now = clock.now();
        if now.since(*metered.get_or_insert(now)) >= usage::EVERY {
            if let Err(error) = held.meter(metered.unwrap_or(now)) {
                tracing::warn!(%error, "what is used cannot be noted");
            }
            metered = Some(now);
        }
        drop(held);
        tokio::select! {
            () = end.cancelled() => return,
            () = clock.sleep_until(clock.now().plus(EVERY)) => {}
        }
    }
}

impl Service {
    /// Removes what has expired by now. A branch that is protected or has children stays, and is looked at
    /// again.
    pub(super) async fn remove_expired(self: &Arc<Self>) -> Result<(), ApiError> {
        let now = self.clock.now();
        let due: Vec<Record> = self.store.transact(|tx| {
            tx.forget_tokens(now.as_millis())?;
            let projects: Vec<Record> = tx.list(Kind::Project.plural())?;
            let mut due = Vec::new();
            for project in projects {
                let below: Vec<Record> = tx.below(&project.name)?;
                if is_due(&project, now) {
                    due.push(project);
                } else if project.is_alive() {
                    due.extend(below.into_iter().filter(|it| is_due(it, now)));
                }
            }
            Ok::<_, ApiError>(due)
        })?;
        for record in due {
            if let Err(error) = self.remove_one(&record).await {
                tracing::debug!(resource = %record.name, %error, "it has expired, and stays for now");
            }
        }
        Ok(())
    }

    async fn remove_one(self: &Arc<Self>, record: &Record) -> Result<(), ApiError> {
        if record.kind == Kind::Branch {
            return super::branches::delete(self, true, &record.name).await.map(drop);
        }
        let work = Work::Remove { purge: true };
        let operation = self.store.transact(|tx| self.begin(tx, record, work))?;
        self.carry_out(operation).await.map(drop)
    }
}

fn is_due(record: &Record, now: Timestamp) -> bool {
    let expires = matches!(record.kind, Kind::Branch | Kind::Snapshot);
    record.purged.is_some_and(|at| at <= now)
        || expires && record.ready && record.time("expire_time").is_some_and(|at| at <= now)
}
