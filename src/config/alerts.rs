//! `[channels.NAME]` and `[alerts]`: how people are told, and who is told what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Severity, Span};

/// The channel that is always there: the program's log, and `notifications.log` in the state directory.
pub const LOG: &str = "log";

/// The kinds of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// A Slack incoming webhook; the secret is its URL.
    Slack,
    /// PagerDuty Events v2; the secret is the routing key.
    Pagerduty,
    /// Mail by SMTP; the secret is the password of `user`.
    Email,
    /// A POST of JSON to `url`, signed with the secret (HMAC-SHA256).
    Webhook,
}

/// A channel as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelEntry {
    /// What it is: `slack`, `pagerduty`, `email` or `webhook`.
    pub kind: ChannelKind,
    /// The secret (of `[secrets]`) that it needs.
    #[serde(default)]
    pub secret: Option<String>,
    /// Where a webhook posts to; of PagerDuty: another address of the service.
    #[serde(default)]
    pub url: Option<String>,
    /// The mail server.
    #[serde(default)]
    pub host: Option<String>,
    /// Its port; 587 unless it says otherwise.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether mail goes without encryption: only to a server on this machine.
    #[serde(default)]
    pub plain: bool,
    /// A file with the certificate that the mail server is trusted by, beside those of the system.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The user of the mail server.
    #[serde(default)]
    pub user: Option<String>,
    /// The sender of mails.
    #[serde(default)]
    pub from: Option<String>,
    /// The receivers of mails.
    #[serde(default)]
    pub to: Vec<String>,
}

impl ChannelEntry {
    /// What is missing, or makes no sense.
    pub fn mistake(&self) -> Option<&'static str> {
        let needs = |given: bool, what| (!given).then_some(what);
        match self.kind {
            ChannelKind::Slack => needs(self.secret.is_some(), "`secret` names the webhook's URL"),
            ChannelKind::Pagerduty => {
                needs(self.secret.is_some(), "`secret` names the routing key")
            }
            ChannelKind::Webhook => needs(self.url.is_some(), "`url` says where it posts to")
                .or_else(|| needs(self.secret.is_some(), "`secret` names the key that signs")),
            ChannelKind::Email => needs(self.host.is_some(), "`host` names the mail server")
                .or_else(|| needs(self.from.is_some(), "`from` names the sender"))
                .or_else(|| needs(!self.to.is_empty(), "`to` names the receivers"))
                .or_else(|| {
                    let local =
                        matches!(self.host.as_deref(), Some("localhost" | "127.0.0.1" | "::1"));
                    needs(!self.plain || local, "`plain` is for a server on this machine only")
                }),
        }
    }
}

/// Who is told what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// The routes; a message takes every one that fits. None: warnings go to Slack and webhooks, what is
    /// critical also to PagerDuty and by mail.
    pub routes: Vec<Route>,
    /// How long messages are gathered, so that those that come together are one. Critical ones do not
    /// wait.
    pub group_wait: Span,
    /// After how long the same message under the same key is told again.
    pub repeat_after: Span,
    /// How long a receiver may take.
    pub timeout: Span,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            group_wait: Span::from_secs(5),
            repeat_after: Span::from_secs(4 * 3600),
            timeout: Span::from_secs(10),
        }
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The least severity that takes it.
    #[serde(default = "warning")]
    pub severity: Severity,
    /// Labels that a message must have: `workflow`, `target`, and what the sender says.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where it leads.
    pub channels: Vec<String>,
}

const fn warning() -> Severity {
    Severity::Warning
}
