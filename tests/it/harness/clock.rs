//! Time that a test turns.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lakeops::kernel::{BoxFuture, Clock, SystemClock, Timestamp};

/// The machine's clock, and how far a test has turned it.
#[derive(Default)]
pub(crate) struct TurnedClock(AtomicI64);

impl TurnedClock {
    pub(crate) fn turn(&self, by: Duration) {
        self.turn_by(i64::try_from(by.as_millis()).unwrap());
    }

    /// Forward or back, in milliseconds.
    pub(crate) fn turn_by(&self, by: i64) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // In slices, so that sleepers notice when it is turned.
            while self.now() < at {
                let left = at.since(self.now()).min(Duration::from_millis(5));
                SystemClock.sleep_until(SystemClock.now().plus(left)).await;
            }
        })
    }
}
