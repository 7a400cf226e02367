//! Clocks that jump to the next thing that is due whenever nothing is being worked on.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use lakeops::kernel::{BoxFuture, Clock, SystemClock, Timestamp};
use lakeops::server::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// A clock that waits for the rest of a server.
pub(super) trait Follows: Clock {
    /// From now on this server is waited for, and told to stop at the end.
    fn follow(&self, metrics: Arc<Metrics>, stop: CancellationToken);
}

/// The server that a clock waits for.
#[derive(Default)]
struct Followed(Mutex<Option<(Arc<Metrics>, CancellationToken)>>);

impl Followed {
    fn set(&self, metrics: Arc<Metrics>, stop: CancellationToken) {
        *self.0.lock().unwrap() = Some((metrics, stop));
    }

    /// Whether it works on nothing.
    fn rests(&self, now: Timestamp) -> bool {
        let server = self.0.lock().unwrap();
        let text = server.as_ref().map(|(metrics, _)| metrics.render(now));
        let rests = |what| {
            text.as_ref().is_some_and(|it| it.contains(&format!("\nlakeops_runs_{what} 0\n")))
        };
        rests("working") && rests("queued")
    }

    fn stop(&self) {
        if let Some((_, stop)) = &*self.0.lock().unwrap() {
            stop.cancel();
        }
    }
}

/// A clock that stands still while the server works.
pub(super) struct Jumping {
    now: AtomicI64,
    end: i64,
    stride: i64,
    server: Followed,
}

impl Jumping {
    /// Begins here; the server is told to stop at the end.
    pub(super) fn new(start: i64, end: i64) -> Self {
        Self { now: AtomicI64::new(start), end, stride: 0, server: Followed::default() }
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
}

impl Follows for Jumping {
    fn follow(&self, metrics: Arc<Metrics>, stop: CancellationToken) {
        self.server.set(metrics, stop);
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
                if self.server.rests(self.now()) {
                    let late = match self.stride {
                        0 => at.as_millis(),
                        stride => (at.as_millis() / stride + 1) * stride,
                    };
                    self.now.fetch_max(late, Ordering::SeqCst);
                    if late >= self.end {
                        self.server.stop();
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

/// How long nothing may have changed among the sleepers before time jumps.
const CALM: Duration = Duration::from_millis(3);

/// A clock that goes as time goes from when there is a server, and jumps on when that rests and everybody
/// sleeps who lives as long as the simulation.
pub(super) struct Passing {
    begun: OnceLock<Instant>,
    start: i64,
    end: i64,
    stride: i64,
    skipped: AtomicI64,
    loops: usize,
    sleepers: AtomicUsize,
    changed: Mutex<Instant>,
    server: Followed,
}

impl Passing {
    /// From here on, in strides of so many milliseconds. Nobody jumps before `loops` tasks sleep; the server
    /// is told to stop at the end.
    pub(super) fn new((start, end): (Timestamp, Timestamp), stride: i64, loops: usize) -> Self {
        Self {
            begun: OnceLock::new(),
            start: start.as_millis(),
            end: end.as_millis(),
            stride,
            skipped: AtomicI64::new(0),
            loops,
            sleepers: AtomicUsize::new(0),
            changed: Mutex::new(Instant::now()),
            server: Followed::default(),
        }
    }

    fn jump_if_all_sleep(&self) {
        let mut changed = self.changed.lock().unwrap();
        let all_sleep = self.sleepers.load(Ordering::SeqCst) >= self.loops;
        if !all_sleep || changed.elapsed() < CALM || !self.server.rests(self.now()) {
            return;
        }
        let now = self.now().as_millis();
        let next = (now / self.stride + 1) * self.stride;
        self.skipped.fetch_add(next - now, Ordering::SeqCst);
        *changed = Instant::now();
        if next >= self.end {
            self.server.stop();
        }
    }
}

impl Follows for Passing {
    fn follow(&self, metrics: Arc<Metrics>, stop: CancellationToken) {
        self.begun.set(Instant::now()).unwrap();
        self.server.set(metrics, stop);
    }
}

/// Somebody who sleeps.
struct Sleeper<'a>(&'a Passing);

impl<'a> Sleeper<'a> {
    fn new(clock: &'a Passing) -> Self {
        clock.sleepers.fetch_add(1, Ordering::SeqCst);
        *clock.changed.lock().unwrap() = Instant::now();
        Self(clock)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.sleepers.fetch_sub(1, Ordering::SeqCst);
        *self.0.changed.lock().unwrap() = Instant::now();
    }
}

impl Clock for Passing {
    fn now(&self) -> Timestamp {
        let passed = self.begun.get().map_or(Duration::ZERO, Instant::elapsed);
        let passed = i64::try_from(passed.as_millis()).unwrap();
        Timestamp::from_millis(self.start + passed + self.skipped.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _sleeper = Sleeper::new(self);
            while self.now() < at {
                SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(1))).await;
                self.jump_if_all_sleep();
            }
        })
    }
}
