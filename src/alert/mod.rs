//! Alerts: notifications of runs, on their way to people.
//!
//! The journal is the outbox. A notification is a row that commits with what it is about; what is routed
//! where, taken and not taken are rows of the stream of alerts. [`outbox::Outbox`] is their fold, and
//! [`courier::Courier`] carries out what follows from it: at least once, tried again until the receiver
//! takes it, never counted as sent when it was not. Start with [`outbox`].

pub mod channel;
pub mod courier;
pub mod mask;
pub mod outbox;
pub mod route;

use std::collections::BTreeMap;

use crate::kernel::{Severity, Timestamp};

/// A message as a receiver gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its key: what is told again, and what is over, has the same.
    pub dedup: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it says that what was told is over.
    pub resolves: bool,
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
    /// What it is told by: `workflow`, `target`, `run`, and what the sender says.
    pub labels: BTreeMap<String, String>,
    /// When it was raised.
    pub at: Timestamp,
}

impl Message {
    /// What a person does next, when the message is about a run.
    pub fn command(&self) -> Option<String> {
        let run = self.labels.get("run")?;
        let verb = if self.dedup.contains("/approval/") { "approvals" } else { "show" };
        Some(format!("lakeops {verb} {run}"))
    }
}
