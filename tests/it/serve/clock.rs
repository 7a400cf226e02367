//! A clock that jumps to the next thing that is due whenever nothing is being worked on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::kernel::{BoxFuture, Clock, Timestamp};
use lakeops::server::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// The clock, and the server whose rest it waits for.
pub(super) struct Jumping {
    now: AtomicI64,
    end: i64,
    stride: i64,
    server: Mutex<Option<(Arc<Metrics>, CancellationToken)>>,
}

impl Jumping {
    /// Begins here; the server is told to stop at the end.
    pub(super) fn new(start: i64, end: i64) -> Self {
        Self { now: AtomicI64::new(start), end, stride: 0, server: Mutex::default() }
    }

    /// Whoever sleeps while nothing is worked on wakes at the next multiple of this many milliseconds, not
    /// earlier; while something is, each short sleep takes a millisecond.
    pub(super) fn in_strides_of(mut self, stride: i64) -> Self {
        self.stride = stride;
        self
    }

    /// Whether the end was reached.
    pub(super) fn is_over(&self) -> bool {
        self.now().as_millis() >= self.end
    }

    /// From now on this server is waited for.
    pub(super) fn follow(&self, metrics: Arc<Metrics>, stop: CancellationToken) {
        *self.server.lock().unwrap() = Some((metrics, stop));
    }

    fn is_idle(&self) -> bool {
        let server = self.server.lock().unwrap();
        let text = server.as_ref().map(|(metrics, _)| metrics.render(self.now()));
        let rests = |what| {
            text.as_ref().is_some_and(|it| it.contains(&format!("\nlakeops_runs_{what} 0\n")))
        };
        rests("working") && rests("queued")
    }
}

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while self.now() < at {
                let is_short = at.since(self.now()) <= Duration::from_secs(2);
                if self.is_idle() {
                    let late = match self.stride {
                        0 => at.as_millis(),
                        stride => (at.as_millis() / stride + 1) * stride,
                    };
                    self.now.fetch_max(late, Ordering::SeqCst);
                    if late >= self.end
                        && let Some((_, stop)) = &*self.server.lock().unwrap()
                    {
                        stop.cancel();
                    }
                    return;
                }
                let pause = Duration::from_millis(if self.stride > 0 { 1 } else { 2 });
                tokio::task::spawn_blocking(move || std::thread::sleep(pause)).await.unwrap();
                if self.stride > 0 && is_short {
                    self.now.fetch_max(at.as_millis(), Ordering::SeqCst);
                }
            }
        })
    }
}
