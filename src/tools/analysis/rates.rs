//! Rates from two samples of counters that only grow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::share;
use crate::kernel::Timestamp;

/// The counters at one moment, as `health/monitor_system_health.sample…` returns them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// When it was taken.
    pub at: String,
    /// Counters of different epochs cannot be compared: they began again at zero in between.
    pub epoch: String,
    /// Transactions committed in this database.
    pub commits: u64,
    /// Transactions rolled back in this database.
    pub rollbacks: u64,
    /// Blocks found in shared buffers.
    pub block_hits: u64,
    /// Blocks asked from the operating system or the storage.
    pub block_reads: u64,
    /// Deadlocks in this database.
    pub deadlocks: u64,
    /// Temporary files of this database.
    pub temp_files: u64,
    /// Bytes written to them.
    pub temp_bytes: u64,
    /// Bytes of WAL.
    pub wal_bytes: u64,
    /// How often WAL had to be written because its buffers were full.
    pub wal_buffers_full: u64,
    /// Checkpoints by the clock.
    pub checkpoints_timed: u64,
    /// Checkpoints that someone asked for, mostly because WAL reached `max_wal_size`.
    pub checkpoints_requested: u64,
    /// Time that checkpoints wrote.
    pub checkpoint_write_ms: u64,
    /// Time that checkpoints synced.
    pub checkpoint_sync_ms: u64,
    /// Blocks that checkpoints wrote.
    pub checkpoint_buffers: u64,
    /// Blocks that clients had to write themselves.
    pub backend_writes: u64,
    /// Files that clients had to sync themselves.
    pub backend_fsyncs: u64,
}

/// What happened between two samples.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    first: &'a Sample,
    last: &'a Sample,
    /// Its length.
    pub seconds: f64,
}

impl<'a> Window<'a> {
    /// The window between two samples; `None` when they cannot be compared.
    pub fn between(first: &'a Sample, last: &'a Sample) -> Option<Self> {
        let from = Timestamp::parse(&first.at)?;
        let seconds = Timestamp::parse(&last.at)?.since(from).as_secs_f64();
        (first.epoch == last.epoch && seconds > 0.0).then_some(Self { first, last, seconds })
    }

    /// How much a counter grew. One that went back was reset.
    pub fn growth(&self, counter: impl Fn(&Sample) -> u64) -> Option<u64> {
        counter(self.last).checked_sub(counter(self.first))
    }

    /// How much a counter grew in a second.
    pub fn per_second(&self, counter: impl Fn(&Sample) -> u64) -> Option<f64> {
        self.growth(counter).map(|growth| float(growth) / self.seconds)
    }

    /// The growth of one counter as a share of the growth of both; `None` when they grew by less than
    /// `least` together.
    pub fn share(
        &self,
        part: impl Fn(&Sample) -> u64,
        rest: impl Fn(&Sample) -> u64,
        least: u64,
    ) -> Option<f64> {
        let part = self.growth(part)?;
        let whole = part.checked_add(self.growth(rest)?)?;
        (whole >= least).then(|| share(part, whole))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn sample(second: u32, extra: &Value) -> Sample {
        let mut row = json!({
            "at": format!("2025-01-01T00:00:{second:02}.500000+00:00"), "epoch": "e",
            "commits": 0, "rollbacks": 0, "block_hits": 0, "block_reads": 0, "deadlocks": 0,
            "temp_files": 0, "temp_bytes": 0, "wal_bytes": 0, "wal_buffers_full": 0,
            "checkpoints_timed": 0, "checkpoints_requested": 0, "checkpoint_write_ms": 0,
            "checkpoint_sync_ms": 0, "checkpoint_buffers": 0, "backend_writes": 0,
            "backend_fsyncs": 0,
        });
        for (key, value) in extra.as_object().unwrap() {
            row[key] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn rates_are_growth_by_time() {
        let first = sample(0, &json!({"commits": 100, "rollbacks": 5}));
        let last = sample(4, &json!({"commits": 140, "rollbacks": 15}));
        let window = Window::between(&first, &last).unwrap();
        assert_eq!(window.per_second(|sample| sample.commits), Some(10.0));
        assert_eq!(window.share(|s| s.rollbacks, |s| s.commits, 50), Some(0.2));
        assert_eq!(window.share(|s| s.rollbacks, |s| s.commits, 51), None);
    }

    #[test]
    fn a_reset_is_never_a_negative_rate() {
        let first = sample(0, &json!({"commits": 100}));
        let last = sample(4, &json!({"commits": 1}));
        let window = Window::between(&first, &last).unwrap();
        assert_eq!(window.per_second(|sample| sample.commits), None);
        let other = sample(4, &json!({"epoch": "f", "commits": 200}));
        assert!(Window::between(&first, &other).is_none());
        assert!(Window::between(&last, &first).is_none());
    }
}
