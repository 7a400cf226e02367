//! `triggers`: events that start runs.

use serde::{Deserialize, Serialize};

use super::Setting;
use super::schedule::{OVERLAPS, Overlap};
use crate::kernel::Span;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// A trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// The event's name.
    pub event: String,
    /// An expression over `event`, when not every one will do.
    pub when: Option<Spanned<String>>,
    /// What happens when an earlier run is not finished.
    pub overlap: Overlap,
    /// How long further events are ignored.
    pub cooldown: Option<Setting<Span>>,
}

/// A trigger as it is kept for the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The event's name.
    pub event: String,
    /// An expression over `event`, when not every one will do.
    pub when: Option<String>,
    /// What happens when an earlier run is not finished.
    pub overlap: Overlap,
    /// How long further events are ignored.
    pub cooldown: Span,
}

impl TriggerSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let known = ["event", "when", "overlap", "cooldown"];
        let map = Fields::open(node, "a trigger", &known, reporter)?;
        let when = map.get("when").and_then(|node| fields::expression(node, reporter));
        let overlap =
            map.get("overlap").and_then(|node| fields::choice(node, "overlap", OVERLAPS, reporter));
        let cooldown = Setting::duration(&map, "cooldown", reporter);
        let event = map.require("event", "name the event that starts a run", reporter)?;
        let event = fields::identifier(event, reporter)?;
        Some(Self {
            event: event.value,
            when,
            overlap: overlap.map_or_else(Overlap::default, |found| found.value),
            cooldown,
        })
    }

    /// The form that is kept for the server.
    pub fn to_trigger(&self, cooldown: Span) -> Trigger {
        Trigger {
            event: self.event.clone(),
            when: self.when.as_ref().map(|when| when.value.clone()),
            overlap: self.overlap,
            cooldown,
        }
    }
}
