//! The ways to people: what each sends, and how.

pub mod email;
pub mod pagerduty;
pub mod slack;
mod smtp;
pub mod webhook;

use std::fmt::Write as _;

use super::Message;
use crate::kernel::{BoxFuture, Failure, Severity};

/// A way to people.
pub trait Channel: Send + Sync {
    /// Whether messages that come together are sent as one.
    fn gathers(&self) -> bool {
        true
    }

    /// Hands messages to the receiver; at most [`MOST_AT_ONCE`]. When it returns without a failure the
    /// receiver has taken all of them.
    fn send<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Failure>>;
}

/// At most so many messages are sent as one.
pub const MOST_AT_ONCE: usize = 20;

/// Posts a body; whatever is not a success is a failure to try again.
async fn post(request: reqwest::RequestBuilder, what: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::transient("alert::not_taken", format!("{what}: {why}"));
    // An error of the client names the URL, and that of a webhook is a secret.
    let sent = request.send().await.map_err(|error| failed(error.without_url().to_string()))?;
    let status = sent.status();
    if status.is_success() {
        return Ok(());
    }
    let text = sent.text().await.unwrap_or_default();
    let text: String = text.chars().take(200).collect();
    Err(failed(format!("answered {status} {text}").trim_end().to_owned()))
}

/// The word for a severity, for people.
const fn word(severity: Severity, resolves: bool) -> &'static str {
    match (resolves, severity) {
        (true, _) => "RESOLVED",
        (false, Severity::Info) => "INFO",
        (false, Severity::Warning) => "WARNING",
        (false, Severity::Critical) => "CRITICAL",
    }
}

/// Shortens a text to so many characters, as receivers demand.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A message as plain text.
fn plain(message: &Message) -> String {
    let mut text = format!("{}: {}\n", word(message.severity, message.resolves), message.title);
    if !message.body.is_empty() && !message.resolves {
        text.push_str(&message.body);
        text.push('\n');
    }
    for (name, value) in &message.labels {
        let _ = writeln!(text, "{name}: {value}");
    }
    if let Some(command) = message.command().filter(|_| !message.resolves) {
        let _ = writeln!(text, "next: {command}");
    }
    text
}

#[cfg(test)]
pub(super) fn example() -> Message {
    Message {
        dedup: "r1/approval/heal/0a0b".to_owned(),
        severity: Severity::Warning,
        resolves: false,
        title: "run r1 waits for an approval of `heal`".to_owned(),
        body: "Carry out 2 <changes> & more?".to_owned(),
        labels: [("run", "r1"), ("workflow", "heal_bloat")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        at: crate::kernel::Timestamp::from_millis(0),
    }
}
