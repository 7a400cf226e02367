//! Carries messages to their receivers, and records what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::Message;
use super::channel::{Channel, MOST_AT_ONCE};
use super::mask::mask;
use super::outbox::{Outbox, SOURCES, pause};
use super::route::Routes;
use crate::config::alerts::AlertsConfig;
use crate::journal::event::Event;
use crate::journal::store::{
    Append, Durability, Entry, EntryFilter, Expect, Journal, JournalError, Stream,
};
use crate::kernel::{Clock, KillPoints, Redactor, RunId, Timestamp};

/// A new outbox looks back so far: what happened before anybody configured a channel is no news.
const LOOKS_BACK: Duration = Duration::from_hours(1);

/// At most so many entries are routed at once.
const BATCH: u32 = 200;

/// What a courier works with.
#[derive(Clone)]
pub struct Means {
    /// Where notifications are, and what became of them.
    pub journal: Arc<dyn Journal>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What masks secrets.
    pub redactor: Redactor,
    /// Boundaries where a test kills the process.
    pub kill: Arc<dyn KillPoints>,
    /// The channels by name.
    pub channels: Arc<BTreeMap<String, Box<dyn Channel>>>,
}

/// What one turn did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Messages by channel, and whether they were taken.
    pub sent: Vec<(String, bool, usize)>,
    /// How many messages wait.
    pub waiting: usize,
    /// When the next is to be sent.
    pub next: Option<Timestamp>,
}

/// Carries messages. One at a time: two would tell everything twice.
pub struct Courier {
    means: Means,
    routes: Routes,
    config: AlertsConfig,
    outbox: Option<Outbox>,
    head: Option<u64>,
}

impl Courier {
    /// A courier that has looked at nothing yet.
    pub const fn new(means: Means, routes: Routes, config: AlertsConfig) -> Self {
        Self { means, routes, config, outbox: None, head: None }
    }

    /// Routes what is new and sends what is due. Receivers that are down hold nobody else up.
    pub async fn turn(&mut self) -> Result<Turn, JournalError> {
        let mut outbox = match self.outbox.take() {
            Some(outbox) => outbox,
            None => self.read().await?,
        };
        // After an error the outbox is read again: it may not be what the journal says.
        let head = self.means.journal.head().await?.position;
        if self.head != Some(head) {
            self.route(&mut outbox).await?;
            self.head = Some(head);
        }
        let sent = self.send(&mut outbox).await?;
        let turn = Turn { sent, waiting: outbox.len(), next: outbox.next() };
        self.outbox = Some(outbox);
        Ok(turn)
    }

    async fn read(&mut self) -> Result<Outbox, JournalError> {
        self.head = None;
        let mut outbox = Outbox::new(self.config.group_wait, self.config.repeat_after);
        for entry in self.means.journal.read(&Stream::Alerts, 0).await? {
            outbox.apply(&entry);
        }
        Ok(outbox)
    }

    async fn route(&self, outbox: &mut Outbox) -> Result<(), JournalError> {
        let since = outbox.seen.is_none().then(|| {
            let back = i64::try_from(LOOKS_BACK.as_millis()).unwrap_or(0);
            Timestamp::from_millis(self.means.clock.now().as_millis() - back)
        });
        let mut after = outbox.seen.unwrap_or(0);
        loop {
            let filter = EntryFilter {
                kinds: SOURCES.map(str::to_owned).to_vec(),
                after,
                since,
                limit: Some(BATCH),
                ..EntryFilter::default()
            };
            let entries = self.means.journal.entries(filter).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.position;
            for entry in entries {
                let about = self.about(&entry).await?;
                let events = outbox.route(&entry, &about, &self.routes);
                if !events.is_empty() {
                    self.means.kill.reach("alerts/before routing");
                    self.record(outbox, events).await?;
                    self.means.kill.reach("alerts/after routing");
                }
            }
        }
    }

    async fn send(&self, outbox: &mut Outbox) -> Result<Vec<(String, bool, usize)>, JournalError> {
        let now = self.means.clock.now();
        let mut batches = Vec::new();
        for (name, channel) in self.means.channels.iter() {
            let due = outbox.due(name, now);
            let most = if channel.gathers() { MOST_AT_ONCE } else { 1 };
            let mut parcels = Vec::new();
            for some in due.chunks(most) {
                let mut parcel = Parcel::default();
                for (routed, waiting) in some {
                    parcel.routed.push(*routed);
                    parcel.attempt = parcel.attempt.max(waiting.attempts + 1);
                    parcel.messages.extend(self.message(waiting.of, waiting.resolves).await?);
                }
                parcels.push(parcel);
            }
            if !parcels.is_empty() {
                batches.push(self.hand_over(name, channel.as_ref(), parcels));
            }
        }
        let mut sent = Vec::new();
        for (name, results) in join_all(batches).await {
            for (parcel, failure) in results {
                self.means.kill.reach(&format!("alerts to {name}/before commit"));
                let (count, taken) = (parcel.routed.len(), failure.is_none());
                self.record(outbox, vec![self.outcome(&name, parcel, failure)]).await?;
                self.means.kill.reach(&format!("alerts to {name}/after commit"));
                sent.push((name.clone(), taken, count));
            }
        }
        Ok(sent)
    }

    /// Hands parcels to one receiver, in order. One that does not take the first gets no more this time.
    async fn hand_over(
        &self,
        name: &str,
        channel: &dyn Channel,
        parcels: Vec<Parcel>,
    ) -> (String, Vec<(Parcel, Option<String>)>) {
        let mut results: Vec<(Parcel, Option<String>)> = Vec::new();
        for parcel in parcels {
            if let Some((_, Some(failure))) = results.last() {
                let failure = failure.clone();
                results.push((parcel, Some(failure)));
                continue;
            }
            self.means.kill.reach(&format!("alerts to {name}/before send"));
            let deadline = self.means.clock.now().plus(self.config.timeout.0);
            let late = || format!("it took longer than {}", self.config.timeout);
            let failure = tokio::select! {
                biased;
                sent = channel.send(&parcel.messages) => sent.err().map(|failure| {
                    // Whoever hangs up at the deadline or later was too slow above all.
                    if self.means.clock.now() >= deadline { late() } else { failure.message }
                }),
                () = self.means.clock.sleep_until(deadline) => Some(late()),
            };
            results.push((parcel, failure));
        }
        (name.to_owned(), results)
    }

    fn outcome(&self, name: &str, parcel: Parcel, failure: Option<String>) -> Event {
        let (routed, channel) = (parcel.routed, name.to_owned());
        let Some(failure) = failure else { return Event::AlertsSent { routed, channel } };
        let failure = self.means.redactor.mask(&failure);
        let retry_at = self.means.clock.now().plus(pause(parcel.attempt));
        tracing::warn!(channel, failure, %retry_at, "alerts wait for their receiver");
        Event::AlertsFailed { routed, channel, attempt: parcel.attempt, failure, retry_at }
    }

    async fn record(&self, outbox: &mut Outbox, events: Vec<Event>) -> Result<(), JournalError> {
        let append =
            Append { stream: Stream::Alerts, expect: Expect::Last(outbox.last_seq), events };
        for entry in self.means.journal.append(vec![append], Durability::Synced).await? {
            outbox.apply(&entry);
        }
        Ok(())
    }

    /// What is known of the run of an entry.
    async fn about(&self, entry: &Entry) -> Result<BTreeMap<String, String>, JournalError> {
        let Stream::Run(run) = Stream::parse(&entry.stream) else { return Ok(BTreeMap::new()) };
        let mut labels = BTreeMap::from([("run".to_owned(), run.to_string())]);
        if let Some(Event::RunCreated { workflow, target, .. }) = self.first(&run).await? {
            labels.insert("workflow".to_owned(), workflow);
            labels.insert("target".to_owned(), target.to_string());
            labels.extend(target.project.map(|project| ("project".to_owned(), project)));
            labels.extend(target.branch.map(|branch| ("branch".to_owned(), branch)));
        }
        Ok(labels)
    }

    async fn first(&self, run: &RunId) -> Result<Option<Event>, JournalError> {
        let stream = Some(run.as_str().to_owned());
        let filter = EntryFilter { stream, limit: Some(1), ..EntryFilter::default() };
        Ok(self.means.journal.entries(filter).await?.pop().map(|entry| entry.event))
    }

    /// The message of a notification, with secrets and values masked; none when it is gone.
    async fn message(&self, of: u64, resolves: bool) -> Result<Option<Message>, JournalError> {
        let filter = EntryFilter { after: of - 1, limit: Some(1), ..EntryFilter::default() };
        let Some(entry) = self.means.journal.entries(filter).await?.pop() else { return Ok(None) };
        if entry.position != of {
            return Ok(None);
        }
        let mut about = self.about(&entry).await?;
        let Event::NotificationQueued { dedup, severity, title, body, labels, .. } = entry.event
        else {
            return Ok(None);
        };
        about.extend(labels);
        let masked = |text: &str| mask(&self.means.redactor.mask(text));
        let labels = about.into_iter().map(|(name, value)| (name, masked(&value))).collect();
        let (title, body) = (masked(&title), masked(&body));
        Ok(Some(Message { dedup, severity, resolves, title, body, labels, at: entry.at }))
    }
}

/// Messages that are sent as one.
#[derive(Default)]
struct Parcel {
    routed: Vec<u64>,
    attempt: u32,
    messages: Vec<Message>,
}
