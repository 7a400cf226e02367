//! Notifications: messages to people, at least once, each with a key by which repetitions are told.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use tracing::{error, info, warn};

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{BoxFuture, Failure, Operation, Receipt, Severity};

/// The channels that notifications can be sent to.
const CHANNELS: [&str; 1] = ["log"];

/// Sends notifications. The channel `log` is a log event and a line of JSON in a file.
#[derive(Clone, Debug, Default)]
pub struct NotificationApplier {
    file: Option<PathBuf>,
}

impl NotificationApplier {
    /// Appends what goes to the channel `log` to this file, too.
    pub const fn to_file(file: PathBuf) -> Self {
        Self { file: Some(file) }
    }

    async fn send(&self, cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
        let Operation::Notification { channel, severity, title, body } = cx.operation else {
            return Err(wrong_kind(cx.operation));
        };
        if !CHANNELS.contains(&channel.as_str()) {
            return Err(Failure::permanent(
                "notification::unknown_channel",
                format!("there is no channel `{channel}`"),
            )
            .with_help(format!("channels: {}", CHANNELS.join(", "))));
        }
        cx.reach("before effect");
        let key = cx.key.digest();
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
