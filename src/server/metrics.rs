//! What the server counts, as Prometheus reads it.
//!
//! The text format (version 0.0.4) is a few lines per metric, and everything here is a counter or a gauge:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::Outcome;
use crate::journal::occasion::{SlotFate, TriggerFate};
use crate::journal::store::RunSummary;
use crate::kernel::Timestamp;

/// What the server counts since it began.
#[derive(Debug)]
pub struct Metrics {
    began: Timestamp,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    slots: BTreeMap<SlotFate, u64>,
    events: BTreeMap<TriggerFate, u64>,
    ended: BTreeMap<&'static str, u64>,
    open: BTreeMap<&'static str, u64>,
    alerts: BTreeMap<(String, bool), u64>,
    alerts_waiting: u64,
    working: usize,
    queued: usize,
    schedules: usize,
    triggers: usize,
    ticked: Timestamp,
}

impl Metrics {
    /// Counts of a server that begins now.
    pub fn new(began: Timestamp) -> Self {
        Self { began, counts: Mutex::new(Counts { ticked: began, ..Counts::default() }) }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ticked(&self, at: Timestamp) {
        self.counts().ticked = at;
    }

    pub(super) fn slots(&self, fate: SlotFate, count: u64) {
        *self.counts().slots.entry(fate).or_default() += count;
    }

    pub(super) fn event(&self, fate: TriggerFate) {
        *self.counts().events.entry(fate).or_default() += 1;
    }

    pub(super) fn run_ended(&self, outcome: Outcome) {
        *self.counts().ended.entry(outcome.as_str()).or_default() += 1;
    }

    pub(super) fn open_runs(&self, runs: &[RunSummary]) {
        let mut open = BTreeMap::new();
        for run in runs {
            *open.entry(run.outcome.as_str()).or_default() += 1;
        }
        self.counts().open = open;
    }

    pub(super) fn working(&self, working: usize, queued: usize) {
        let mut counts = self.counts();
        (counts.working, counts.queued) = (working, queued);
    }

    pub(super) fn occasions(&self, schedules: usize, triggers: usize) {
        let mut counts = self.counts();
        (counts.schedules, counts.triggers) = (schedules, triggers);
    }

    /// Messages that a receiver took, or did not take.
    pub fn alerts(&self, channel: &str, taken: bool, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        *self.counts().alerts.entry((channel.to_owned(), taken)).or_default() += count;
    }

    /// How many messages wait for a receiver.
    pub fn alerts_waiting(&self, waiting: usize) {
        self.counts().alerts_waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
    }

    /// When the server began, and when its loop last looked.
    pub fn life(&self) -> (Timestamp, Timestamp) {
        (self.began, self.counts().ticked)
    }

    /// All of it as text for Prometheus.
    pub fn render(&self, now: Timestamp) -> String {
        let counts = self.counts();
        let mut page = Page(String::new());
        let seconds = |at: Timestamp| now.since(at).as_secs_f64().to_string();
        page.gauge("uptime_seconds", "Since when the server lives.", &[("", seconds(self.began))]);
        let tick = [("", seconds(counts.ticked))];
        page.gauge("tick_age_seconds", "How long ago the loop last looked.", &tick);
        let slots = SlotFate::ALL.map(|fate| {
            let count = counts.slots.get(&fate).copied().unwrap_or_default();
            (format!("fate=\"{}\"", fate.as_str()), count.to_string())
        });
        page.counter("slots_total", "Slots of schedules, by what became of them.", &slots);
        let events = TriggerFate::ALL.map(|fate| {
            let count = counts.events.get(&fate).copied().unwrap_or_default();
            (format!("fate=\"{}\"", fate.as_str()), count.to_string())
        });
        page.counter("trigger_events_total", "Events, by what triggers made of them.", &events);
        let by_outcome = |counts: &BTreeMap<&'static str, u64>| {
            let outcomes = Outcome::ALL.into_iter().map(|outcome| {
                let count = counts.get(outcome.as_str()).copied().unwrap_or_default();
                (format!("outcome=\"{}\"", outcome.as_str()), count.to_string())
            });
            outcomes.collect::<Vec<_>>()
        };
        let ended = by_outcome(&counts.ended);
        page.counter("runs_left_total", "Runs that ended or were parked here.", &ended);
        page.gauge("runs_open", "Runs that are not over.", &by_outcome(&counts.open));
        let working = [("", counts.working.to_string())];
        page.gauge("runs_working", "Runs that are worked on here.", &working);
        page.gauge(
            "runs_queued",
            "Runs that wait for their turn.",
            &[("", counts.queued.to_string())],
        );
        page.gauge("schedules", "Schedules.", &[("", counts.schedules.to_string())]);
        page.gauge("triggers", "Triggers.", &[("", counts.triggers.to_string())]);
        let alerts: Vec<_> = counts
            .alerts
            .iter()
            .map(|((channel, taken), count)| {
                (format!("channel=\"{}\",taken=\"{taken}\"", escaped(channel)), count.to_string())
            })
            .collect();
        page.counter("alerts_total", "Messages, by channel and whether they were taken.", &alerts);
        let waiting = [("", counts.alerts_waiting.to_string())];
        page.gauge("alerts_waiting", "Messages that wait for their receiver.", &waiting);
        page.0
    }
}

/// The value of a label, between its quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page(String);

impl Page {
    fn gauge<L: AsRef<str>>(&mut self, name: &str, help: &str, values: &[(L, String)]) {
        self.metric((name, "gauge"), help, values);
    }

    fn counter<L: AsRef<str>>(&mut self, name: &str, help: &str, values: &[(L, String)]) {
        self.metric((name, "counter"), help, values);
    }

    fn metric<L: AsRef<str>>(
        &mut self,
        (name, kind): (&str, &str),
        help: &str,
        values: &[(L, String)],
    ) {
        let _ = writeln!(self.0, "# HELP lakeops_{name} {help}\n# TYPE lakeops_{name} {kind}");
        for (labels, value) in values {
            let _ = match labels.as_ref() {
                "" => writeln!(self.0, "lakeops_{name} {value}"),
                labels => writeln!(self.0, "lakeops_{name}{{{labels}}} {value}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_that_prometheus_reads() {
        let metrics = Metrics::new(Timestamp::from_millis(0));
        metrics.slots(SlotFate::Missed, 288);
        metrics.alerts("a\"b", true, 2);
        let text = metrics.render(Timestamp::from_millis(1_500));
        assert!(text.contains("\nlakeops_slots_total{fate=\"missed\"} 288\n"), "{text}");
        assert!(text.contains("lakeops_alerts_total{channel=\"a\\\"b\",taken=\"true\"} 2\n"));
        assert!(text.contains("\nlakeops_uptime_seconds 1.5\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("lakeops_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
