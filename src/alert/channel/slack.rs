//! Slack, by an incoming webhook and Block Kit.
//!
//! Form and limits: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks> and
//! <https://docs.slack.dev/reference/block-kit/blocks>: at most 50 blocks, 3000 characters in a section,
//! 150 in a header; `&`, `<` and `>` are escaped. Nothing is approved from a chat: a message only says how.

use serde_json::{Value, json};

use super::{Channel, Message, post, shorten, word};
use crate::kernel::{BoxFuture, Failure, Secret, Severity};

/// An incoming webhook.
pub struct Slack {
    client: reqwest::Client,
    url: Secret<String>,
}

impl Slack {
    /// Posts to this URL.
    pub const fn new(client: reqwest::Client, url: Secret<String>) -> Self {
        Self { client, url }
    }
}

impl Channel for Slack {
    fn send<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Failure>> {
        let request = self.client.post(self.url.expose()).json(&body(messages));
        Box::pin(post(request, "Slack"))
    }
}

/// What is posted: a line for notifications, and blocks.
fn body(messages: &[Message]) -> Value {
    let worst = messages.iter().max_by_key(|message| (!message.resolves, message.severity));
    let first = worst.map_or_else(String::new, line);
    let rest = messages.len().saturating_sub(1);
    let text = if rest == 0 { first } else { format!("{first} (and {rest} more)") };
    json!({ "text": text, "blocks": messages.iter().flat_map(blocks).collect::<Vec<_>>() })
}

fn line(message: &Message) -> String {
    let word = word(message.severity, message.resolves);
    shorten(&format!("{} *{word}* {}", mark(message), escape(&message.title)), 300)
}

const fn mark(message: &Message) -> &'static str {
    match (message.resolves, message.severity) {
        (true, _) => ":white_check_mark:",
        (false, Severity::Info) => ":information_source:",
        (false, Severity::Warning) => ":warning:",
        (false, Severity::Critical) => ":rotating_light:",
    }
}

fn blocks(message: &Message) -> Vec<Value> {
    let mut text = line(message);
    if !message.body.is_empty() && !message.resolves {
        text = format!("{text}\n{}", escape(&message.body));
    }
    if let Some(command) = message.command().filter(|_| !message.resolves) {
        text = format!("{}\n`{}`", shorten(&text, 2_700), escape(&command));
    }
    let section = json!({
        "type": "section",
        "text": { "type": "mrkdwn", "text": shorten(&text, 3_000) },
    });
    let about: Vec<String> = message.labels.iter().map(|(n, v)| format!("{n} {v}")).collect();
    if about.is_empty() {
        return vec![section];
    }
    let about = shorten(&escape(&about.join(" · ")), 2_000);
    let context = json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": about }] });
    vec![section, context]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::{MOST_AT_ONCE, example};
    use super::*;

    #[test]
    fn a_message_is_a_section_and_a_context() {
        let body = body(&[example()]);
        let section = body["blocks"][0]["text"]["text"].as_str().unwrap();
        assert!(section.contains("*WARNING* run r1 waits"), "{section}");
        assert!(section.contains("2 &lt;changes&gt; &amp; more?"), "{section}");
        assert!(section.contains("`lakeops approvals r1`"), "{section}");
        assert_eq!(body["blocks"][1]["elements"][0]["text"], "run r1 · workflow heal_bloat");
    }

    #[test]
    fn the_limits_of_blocks_are_kept() {
        let mut long = example();
        long.body = "x<".repeat(5_000);
        let body = body(&vec![long; MOST_AT_ONCE]);
        let blocks = body["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        for block in blocks {
            let text = block["text"]["text"].as_str().unwrap_or_default();
            assert!(text.chars().count() <= 3_000);
        }
        assert!(body["text"].as_str().unwrap().ends_with("(and 19 more)"));
    }
}
