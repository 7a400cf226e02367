//! What waits for which receiver, and what was told already: a fold of the stream of alerts. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

use super::route::Routes;
use crate::journal::Entry;
use crate::journal::event::{Event, Outcome};
use crate::journal::store::Stream;
use crate::kernel::{Severity, Span, Timestamp};

/// The kinds of entries that an outbox looks at.
pub const SOURCES: [&str; 5] =
    ["notification_queued", "approval_decided", "doubt_settled", "unstuck", "run_finished"];

/// The first pause after a receiver did not take messages, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A message that waits for a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The position of its notification in the journal.
    pub of: u64,
    /// Its key.
    pub dedup: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it says that what was told is over.
    pub resolves: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is to be sent.
    pub not_before: Timestamp,
}

/// What was told and is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Firing {
    of: u64,
    severity: Severity,
    channels: Vec<String>,
    told_at: Timestamp,
}

/// What the stream of alerts says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// The sequence number of its newest entry.
    pub last_seq: u64,
    /// Entries of the journal up to this position were looked at; `None`: it is new.
    pub seen: Option<u64>,
    group_wait: Span,
    repeat_after: Span,
    /// What waits, by the position of its routing and its channel.
    waiting: BTreeMap<(u64, String), Waiting>,
    firing: BTreeMap<String, Firing>,
}

impl Outbox {
    /// An outbox without entries.
    pub fn new(group_wait: Span, repeat_after: Span) -> Self {
        Self { group_wait, repeat_after, ..Self::default() }
    }

    /// Takes an entry of the stream of alerts in.
    pub fn apply(&mut self, entry: &Entry) {
        self.last_seq = entry.seq;
        match &entry.event {
            Event::AlertRouted { seen, of, dedup, severity, resolves, channels, why: _ } => {
                self.seen = Some(*seen);
                let at_once = *severity == Severity::Critical || *resolves;
                let wait = if at_once { Duration::ZERO } else { self.group_wait.0 };
                for channel in channels {
                    let waiting = Waiting {
                        of: *of,
                        dedup: dedup.clone(),
                        severity: *severity,
                        resolves: *resolves,
                        attempts: 0,
                        not_before: entry.at.plus(wait),
                    };
                    self.waiting.insert((entry.position, channel.clone()), waiting);
                }
                if *resolves {
                    self.firing.remove(dedup);
                } else if !channels.is_empty() {
                    let firing = Firing {
                        of: *of,
                        severity: *severity,
                        channels: channels.clone(),
                        told_at: entry.at,
                    };
                    self.firing.insert(dedup.clone(), firing);
                }
            }
            Event::AlertsSent { routed, channel } => {
                for position in routed {
                    self.waiting.remove(&(*position, channel.clone()));
                }
            }
            Event::AlertsFailed { routed, channel, attempt, retry_at, .. } => {
                for position in routed {
                    if let Some(waiting) = self.waiting.get_mut(&(*position, channel.clone())) {
                        waiting.attempts = *attempt;
                        waiting.not_before = *retry_at;
                    }
                }
            }
            _ => {}
        }
    }

    /// What is recorded of an entry of the journal: where its message goes, or what it ends.
    pub fn route(
        &self,
        entry: &Entry,
        about: &BTreeMap<String, String>,
        routes: &Routes,
    ) -> Vec<Event> {
        match &entry.event {
            Event::NotificationQueued { dedup, severity, channel, labels, resolves, .. } => {
                let mut all = about.clone();
                all.extend(labels.clone());
                let named = channel.as_deref().filter(|name| *name != crate::config::alerts::LOG);
                let only_log = channel.is_some() && named.is_none();
                let found = if only_log { Vec::new() } else { routes.of(*severity, &all, named) };
                let (channels, why) = self.judge(entry.at, (dedup, *severity, *resolves), found);
                vec![Event::AlertRouted {
                    seen: entry.position,
                    of: entry.position,
                    dedup: dedup.clone(),
                    severity: *severity,
                    resolves: *resolves,
                    channels,
                    why,
                }]
            }
            other => self
                .ended_by(&entry.stream, other)
                .map(|(dedup, firing)| Event::AlertRouted {
                    seen: entry.position,
                    of: firing.of,
                    dedup: dedup.clone(),
                    severity: firing.severity,
                    resolves: true,
                    channels: firing.channels.clone(),
                    why: None,
                })
                .collect(),
        }
    }

    /// Where a message goes that would go to these channels; for nowhere: why.
    fn judge(
        &self,
        at: Timestamp,
        (dedup, severity, resolves): (&str, Severity, bool),
        channels: Vec<String>,
    ) -> (Vec<String>, Option<String>) {
        let nowhere = |why: &str| (Vec::new(), Some(why.to_owned()));
        match self.firing.get(dedup) {
            None if resolves => nowhere("nothing was told under this key"),
            Some(firing) if resolves => (firing.channels.clone(), None),
            Some(firing)
                if severity <= firing.severity && at < firing.told_at.plus(self.repeat_after.0) =>
            {
                nowhere("it was told already")
            }
            _ if channels.is_empty() => nowhere("no route leads anywhere"),
            _ => (channels, None),
        }
    }

    /// What was told of a run and is over with this event.
    fn ended_by<'a>(
        &'a self,
        stream: &'a str,
        event: &'a Event,
    ) -> impl Iterator<Item = (&'a String, &'a Firing)> {
        let about = match (Stream::parse(stream), event) {
            (Stream::Run(run), Event::ApprovalDecided { step, .. }) => {
                vec![format!("{run}/approval/{step}/")]
            }
            (Stream::Run(run), Event::DoubtSettled { step, index, direction, .. }) => {
                vec![format!("{run}/doubt/{step}/{direction}/{index}")]
            }
            (Stream::Run(run), Event::Unstuck { .. }) => vec![format!("{run}/stuck/")],
            (Stream::Run(run), Event::RunFinished { outcome, .. })
                if *outcome != Outcome::Running =>
            {
                vec![format!("{run}/approval/"), format!("{run}/doubt/"), format!("{run}/stuck/")]
            }
            _ => Vec::new(),
        };
        self.firing
            .iter()
            .filter(move |(dedup, _)| about.iter().any(|prefix| dedup.starts_with(prefix.as_str())))
    }

    /// What is to be sent through a channel now, with the positions of the routings.
    pub fn due(&self, channel: &str, now: Timestamp) -> Vec<(u64, &Waiting)> {
        let own = self.waiting.iter().filter(|((_, to), _)| to == channel);
        let due = own.filter(|(_, waiting)| waiting.not_before <= now);
        due.map(|((position, _), waiting)| (*position, waiting)).collect()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next message is to be sent.
    pub fn next(&self) -> Option<Timestamp> {
        self.waiting.values().map(|waiting| waiting.not_before).min()
    }
}

/// The pause after so many attempts: doubled each time, never for good.
pub fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::alerts::{AlertsConfig, ChannelEntry};
    use crate::journal::event::{Compensation, Decision, Principal};
    use crate::kernel::Digest;

    struct World {
        outbox: Outbox,
        routes: Routes,
        position: u64,
    }

    impl World {
        fn new() -> Self {
            let pager: ChannelEntry = serde_json::from_value(json!({ "kind": "slack" })).unwrap();
            let channels = BTreeMap::from([("chat".to_owned(), pager)]);
            let config = AlertsConfig::default();
            let routes = Routes::new(&config, &channels);
            let outbox = Outbox::new(config.group_wait, config.repeat_after);
            Self { outbox, routes, position: 0 }
        }

        fn entry(&mut self, stream: &str, seconds: i64, event: Event) -> Entry {
            self.position += 1;
            let at = Timestamp::from_millis(seconds * 1_000);
            let position = self.position;
            Entry { position, stream: stream.to_owned(), seq: position, at, event }
        }

        /// Something happened in run `r1`; where its messages go, and why not.
        fn happens(&mut self, seconds: i64, event: Event) -> Vec<(usize, Option<String>)> {
            let entry = self.entry("r1", seconds, event);
            let rows = self.outbox.route(&entry, &BTreeMap::new(), &self.routes);
            let mut found = Vec::new();
            for row in rows {
                let Event::AlertRouted { channels, why, .. } = &row else { panic!() };
                found.push((channels.len(), why.clone()));
                let entry = self.entry("alerts", seconds, row);
                self.outbox.apply(&entry);
            }
            found
        }

        fn record(&mut self, seconds: i64, event: Event) {
            let entry = self.entry("alerts", seconds, event);
            self.outbox.apply(&entry);
        }
    }

    fn notice(dedup: &str, severity: Severity) -> Event {
        Event::notification(dedup.into(), severity, "title".into(), "body".into())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn the_same_is_told_once_until_it_is_worse_or_long_ago() {
        let mut world = World::new();
        assert_eq!(world.happens(0, notice("k", Severity::Warning))[0].0, 1);
        assert_eq!(world.happens(60, notice("k", Severity::Warning))[0].0, 0);
        assert_eq!(world.happens(61, notice("other", Severity::Warning))[0].0, 1);
        assert_eq!(world.happens(62, notice("k", Severity::Critical))[0].0, 1);
        assert_eq!(world.happens(63, notice("k", Severity::Critical))[0].0, 0);
        assert_eq!(world.happens(5 * 3600, notice("k", Severity::Critical))[0].0, 1);
        let quiet = world.happens(6 * 3600, notice("i", Severity::Info));
        assert!(quiet[0].1.as_deref().unwrap().contains("no route"));
    }

    #[test]
    fn a_decision_ends_what_was_told() {
        let mut world = World::new();
        world.happens(0, notice("r1/approval/heal/0a0b", Severity::Warning));
        world.happens(0, notice("r1/stuck/run", Severity::Critical));
        let decided = Event::ApprovalDecided {
            step: "heal".into(),
            digest: Digest::of_bytes(b""),
            decision: Decision::Approved,
            by: Principal { name: "ada".into(), from: "here".into() },
            reason: "fine".into(),
        };
        assert_eq!(world.happens(9, decided.clone()), [(1, None)]);
        assert_eq!(world.happens(10, decided), [], "it is over already");
        let end = Event::RunFinished {
            outcome: Outcome::Failed,
            compensation: Compensation::None,
            outputs: serde_json::Value::Null,
        };
        assert_eq!(world.happens(11, end), [(1, None)]);
    }

    #[test]
    fn a_message_waits_until_its_receiver_takes_it() {
        let mut world = World::new();
        world.happens(0, notice("a", Severity::Warning));
        world.happens(1, notice("b", Severity::Warning));
        assert_eq!(world.outbox.due("chat", at(0)).len(), 0, "they are gathered");
        let due: Vec<u64> = world.outbox.due("chat", at(6)).iter().map(|(at, _)| *at).collect();
        assert_eq!(due.len(), 2);
        world.record(
            7,
            Event::AlertsFailed {
                routed: due.clone(),
                channel: "chat".into(),
                attempt: 1,
                failure: "500".into(),
                retry_at: at(9),
            },
        );
        assert_eq!((world.outbox.due("chat", at(8)).len(), world.outbox.len()), (0, 2));
        assert_eq!(world.outbox.due("chat", at(9)).len(), 2);
        world.record(10, Event::AlertsSent { routed: due, channel: "chat".into() });
        assert!(world.outbox.is_empty());
        assert_eq!(pause(1), Duration::from_secs(2));
        assert_eq!(pause(40), Duration::from_mins(5));
    }
}
