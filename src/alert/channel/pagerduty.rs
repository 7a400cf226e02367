//! PagerDuty, by its Events API v2.
//!
//! Form: <https://developer.pagerduty.com/docs/send-alert-event>: `trigger` opens an incident or adds to
//! the one of the same `dedup_key` (at most 255 characters), `resolve` closes it; a summary has at most
//! 1024 characters. 202 is the answer to an event that was taken.

use serde_json::{Value, json};

use super::{Channel, Message, post, shorten};
use crate::kernel::{BoxFuture, Digest, Failure, Secret, Severity};

/// Where events are sent.
pub const URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// A service's integration.
pub struct Pagerduty {
    client: reqwest::Client,
    url: String,
    key: Secret<String>,
}

impl Pagerduty {
    /// Sends to the service of this routing key.
    pub fn new(client: reqwest::Client, url: Option<&str>, key: Secret<String>) -> Self {
        Self { client, url: url.unwrap_or(URL).to_owned(), key }
    }
}

impl Channel for Pagerduty {
    /// Each key is an incident of its own.
    fn gathers(&self) -> bool {
        false
    }

    fn send<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            for message in messages {
                let body = body(message, self.key.expose());
                post(self.client.post(&self.url).json(&body), "PagerDuty").await?;
            }
            Ok(())
        })
    }
}

fn body(message: &Message, routing_key: &str) -> Value {
    let dedup_key = if message.dedup.len() <= 255 {
        message.dedup.clone()
    } else {
        Digest::of_bytes(message.dedup.as_bytes()).as_str().to_owned()
    };
    if message.resolves {
        return json!({
            "routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup_key,
        });
    }
    let severity = match message.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let label = |name: &str| message.labels.get(name).cloned();
    json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "lakeops",
        "payload": {
            "summary": shorten(&message.title, 1_024),
            "source": label("target").unwrap_or_else(|| "lakeops".to_owned()),
            "severity": severity,
            "timestamp": message.at,
            "component": label("workflow"),
            "group": label("project"),
            "class": label("metric"),
            "custom_details": {
                "body": shorten(&message.body, 8_000),
                "labels": message.labels,
                "next": message.command(),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn trigger_and_resolve_have_the_same_key() {
        let mut message = example();
        let trigger = body(&message, "routing");
        message.resolves = true;
        let resolve = body(&message, "routing");
        assert_eq!(trigger["dedup_key"], resolve["dedup_key"]);
        assert_eq!(
            (&trigger["event_action"], &resolve["event_action"]),
            (&json!("trigger"), &json!("resolve"))
        );
        assert_eq!(trigger["payload"]["severity"], "warning");
        message.dedup = "k".repeat(300);
        assert!(body(&message, "routing")["dedup_key"].as_str().unwrap().len() <= 255);
    }
}
