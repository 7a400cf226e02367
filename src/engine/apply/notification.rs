//! Notifications: messages to people, at least once, each with a key by which repetitions are told.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use tracing::{error, info, warn};

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::config::alerts::LOG;
use crate::kernel::{BoxFuture, Failure, Operation, Receipt, Severity};

/// Where the routes lead.
pub(in crate::engine) const ROUTES: &str = "routes";

/// Writes notifications down: a log event and a line of JSON in a file. For every channel but `log` the
/// settlement commits together with a row of the outbox, from which a courier delivers it.
#[derive(Clone, Debug, Default)]
pub struct NotificationApplier {
    file: Option<PathBuf>,
    channels: Vec<String>,
}

impl NotificationApplier {
    /// Appends what goes to the channel `log` to this file, too.
    pub const fn to_file(file: PathBuf) -> Self {
        Self { file: Some(file), channels: Vec::new() }
    }

    /// Knows these channels beside `log`.
    #[must_use]
    pub fn with_channels(self, channels: Vec<String>) -> Self {
        Self { channels, ..self }
    }

    async fn send(&self, cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
        let Operation::Notification { channel, severity, title, body, key: named, .. } =
            cx.operation
        else {
            return Err(wrong_kind(cx.operation));
        };
        if channel != LOG && channel != ROUTES && !self.channels.contains(channel) {
            let known: Vec<&str> = self.channels.iter().map(String::as_str).collect();
            return Err(Failure::permanent(
                "notification::unknown_channel",
                format!("there is no channel `{channel}`"),
            )
            .with_help(format!("channels: {}", [&[LOG], known.as_slice()].concat().join(", "))));
        }
        cx.reach("before effect");
        let key = named.clone().unwrap_or_else(|| format!("alert/{}", cx.key.digest()));
        let (run, step) = (&cx.key.run, &cx.key.step);
        match severity {
            Severity::Critical => error!(%run, step, title, body, %key, "notification sent"),
            Severity::Warning => warn!(%run, step, title, body, %key, "notification sent"),
            Severity::Info => info!(%run, step, title, body, %key, "notification sent"),
        }
        if let Some(file) = &self.file {
            let line = json!({
                "at": cx.clock.now(), "key": key, "run": run, "step": step,
                "severity": severity, "title": title, "body": body,
            });
            append(file, &format!("{line}\n")).await.map_err(|error| {
                Failure::transient(
                    "notification::not_written",
                    format!("failed to append to {}: {error}", file.display()),
                )
            })?;
        }
        cx.reach("after effect");
        Ok(Receipt { result: json!({ "key": key }), ..Receipt::default() })
    }
}

/// One write of one line, so that lines of several processes do not mix.
async fn append(file: &std::path::Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file).await?;
    file.write_all(line.as_bytes()).await?;
    file.flush().await?;
    file.sync_data().await
}

impl Applier for NotificationApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(looked(cx, self.send(cx)))
    }

    fn recover<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        // Better twice, with the same key, than not at all.
        Box::pin(async { Ok(Recovered::NotApplied) })
    }
}
