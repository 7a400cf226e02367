//! Tells people something, once per step.
//!
//! Reads: nothing.
//! Changes: puts one message into the log and the outbox of its channels; delivered at least once, under
//! one key.
//! Undo: a sent message cannot be taken back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Change, ChangeSet, Failure, Inverse, Operation, Risk, Severity};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(SendAlert));

struct SendAlert;

/// The message.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How bad it is: `info`, `warning` or `critical`.
    severity: Severity,
    /// One line that says what is wrong.
    #[schemars(length(min = 1, max = 200))]
    title: String,
    /// What was seen, and what to do next.
    #[serde(default)]
    body: String,
    /// The channel: `log`, or one of `[channels]`. None: where the routes lead.
    #[serde(default)]
    channel: Option<String>,
    /// By what it is known again: the same under one key is told once until it is over.
    #[serde(default)]
    key: Option<String>,
    /// What routes and receivers tell it by, such as `metric`.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Says that what was told under `key` is over.
    #[serde(default)]
    resolves: bool,
}

/// What became of the message.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether it was accepted: it is in the log, and in the outbox of its channels, which deliver it at
    /// least once.
    sent: bool,
}

impl WriteTool for SendAlert {
    const META: ToolMeta = ToolMeta {
        name: "send_alert",
        family: Family::Core,
        risk: Risk::Low,
        revision: 2,
        summary: "Sends a message to people through a channel",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, _: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        judge(params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        Output { sent: settled.iter().any(|settled| settled.receipt().is_some()) }
    }
}

fn judge(params: Params) -> Result<ChangeSet, Failure> {
    let title = params.title.trim();
    if title.is_empty() || title.chars().count() > 200 || title.contains('\n') {
        let message = "`title` must be one line of 1 to 200 characters";
        return Err(Failure::permanent("send_alert::bad_title", message)
            .with_help("put the rest into `body`"));
    }
    if params.resolves && params.key.is_none() {
        let message =
            "`resolves` says that what was told under a key is over, and there is no `key`";
        return Err(Failure::permanent("send_alert::no_key", message));
    }
    let channel = params.channel.unwrap_or_else(|| "routes".to_owned());
    let operation = Operation::Notification {
        channel: channel.clone(),
        severity: params.severity,
        title: title.to_owned(),
        body: params.body,
        key: params.key,
        labels: params.labels,
        resolves: params.resolves,
    };
    let mut change = Change::new(format!("channel {channel}"), "the workflow says so", operation);
    change.inverse = Inverse::Impossible { why: "a sent message cannot be taken back".to_owned() };
    Ok(ChangeSet::new(vec![change]))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn propose(params: Value) -> Result<ChangeSet, Failure> {
        judge(serde_json::from_value(params).unwrap())
    }

    #[test]
    fn one_notification_on_the_log_channel() {
        let set = propose(json!({"severity": "critical", "title": " it is down "})).unwrap();
        let expected = "notify routes (critical): it is down";
        assert_eq!(set.changes[0].operation.to_string(), expected);
        assert_eq!(set.risk(), Risk::Low);
    }

    #[test]
    fn an_end_needs_the_key_of_its_beginning() {
        let end = |key: Value| {
            propose(json!({"severity": "info", "title": "over", "resolves": true, "key": key}))
        };
        assert!(end(Value::Null).is_err());
        assert!(end(json!("locks shop/production")).is_ok());
    }

    #[test]
    fn a_title_is_one_line() {
        for title in ["", " ", "a\nb", &"x".repeat(201)] {
            assert!(propose(json!({"severity": "info", "title": title})).is_err(), "{title:?}");
        }
    }
}
