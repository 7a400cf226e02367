//! What the fleet does by itself: suspends, stops, and keeps the past.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::keeper::Fleet;
use crate::kernel::Clock;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// In how many rounds it looks once whether a base copy is due. For branches without any it looks in each.
const HISTORY_EVERY: u64 = 10;
/// How long a server that no endpoint needs stays for the next session.
const LINGER: Duration = Duration::from_secs(10);

/// Looks after the fleet until it is gone.
pub(super) async fn watch(fleet: Weak<Fleet>, clock: Arc<dyn Clock>, end: CancellationToken) {
    let mut round = 0_u64;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = clock.sleep_until(clock.now().plus(EVERY)) => {}
        }
        let Some(fleet) = fleet.upgrade() else { return };
        round += 1;
        if let Err(error) = Box::pin(fleet.suspend_idle()).await {
            tracing::warn!(%error, "an endpoint could not be suspended");
        }
        if let Err(error) = Box::pin(fleet.stop_unused(LINGER)).await {
            tracing::warn!(%error, "an unused server could not be stopped");
        }
        fleet.keep_histories(round.is_multiple_of(HISTORY_EVERY));
    }
}
