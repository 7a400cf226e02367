//! Tells people something, once per step.
//!
//! Reads: nothing.
//! Changes: sends one message through a channel; after a crash at least once, under one key.
//! Undo: a sent message cannot be taken back.

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
    /// Where it goes.
    #[serde(default)]
    channel: Channel,
}

/// A way to people.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Channel {
    /// The program's log.
    #[default]
    Log,
}

impl Channel {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
        }
    }
}

/// What became of the message.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether it was handed to its channel.
    sent: bool,
}

impl WriteTool for SendAlert {
    const META: ToolMeta = ToolMeta {
        name: "send_alert",
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
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
    let channel = params.channel.as_str();
    let operation = Operation::Notification {
        channel: channel.to_owned(),
        severity: params.severity,
        title: title.to_owned(),
        body: params.body,
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
        let expected = "notify log (critical): it is down";
        assert_eq!(set.changes[0].operation.to_string(), expected);
        assert_eq!(set.risk(), Risk::Low);
    }

    #[test]
    fn a_title_is_one_line() {
        for title in ["", " ", "a\nb", &"x".repeat(201)] {
            assert!(propose(json!({"severity": "info", "title": title})).is_err(), "{title:?}");
        }
    }
}
