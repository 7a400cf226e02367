//! `wait: { … }`: for a time, for a condition, for an event.

use super::{CallSpec, Computed, Setting};
use crate::kernel::Span;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// A durable wait.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitSpec {
    /// `for`
    Timer {
        /// How long: a duration, or a template of one.
        duration: Node,
    },
    /// `tool` and `until`
    Condition {
        /// The read tool that looks.
        call: CallSpec,
        /// The expression over `result` that must hold.
        until: Spanned<String>,
        /// How often it looks.
        every: Setting<Span>,
        /// For how long at most.
        within: Setting<Span>,
    },
    /// `event`
    Event {
        /// The event's name.
        event: Spanned<String>,
        /// An expression over `event`, when not every one will do.
        when: Option<Spanned<String>>,
        /// For how long at most.
        within: Setting<Span>,
    },
}

/// How often a wait or a verification looks when it does not say so.
pub(in crate::workflow) const EVERY: Setting<Span> = Setting::Written(Span::from_secs(30));

const FORMS: &str =
    "write `for: 10m`, or `tool` with `until` and `within`, or `event` with `within`";

impl WaitSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        const KEYS: &[&str] = &["for", "tool", "with", "until", "every", "event", "when", "within"];
        let known = if node.get("for").is_some() {
            &["for"]
        } else if node.get("tool").is_some() {
            &["tool", "with", "until", "every", "within"][..]
        } else if node.get("event").is_some() {
            &["event", "when", "within"]
        } else {
            KEYS
        };
        let map = Fields::open(node, "this `wait`", known, reporter)?;
        if let Some(duration) = map.get("for") {
            if !fields::has_expression(duration) {
                fields::duration(duration, reporter)?;
            }
            return Some(Self::Timer { duration: duration.clone() });
        }
        if map.entry("tool").is_some() {
            return Self::condition(&map, reporter);
        }
        if map.entry("event").is_some() {
            return Self::event(&map, reporter);
        }
        reporter.hinted("workflow::wait", map.place(), "this waits for nothing", FORMS);
        None
    }

    fn condition(map: &Fields<'_>, reporter: &mut Reporter) -> Option<Self> {
        let every = Setting::positive_duration(map, "every", reporter);
        let within = within(map, reporter);
        let until = map.require("until", "write what ends it: `until: \"result.x < 3\"`", reporter);
        let until = until.and_then(|node| fields::expression(node, reporter));
        let call = CallSpec::read(map, reporter);
        Some(Self::Condition {
            call: call?,
            until: until?,
            every: every.unwrap_or(EVERY),
            within: within?,
        })
    }

    /// The settings that follow from the parameters.
    pub(super) fn computed(&self) -> impl Iterator<Item = &Computed> {
        let (every, within) = match self {
            Self::Timer { .. } => (None, None),
            Self::Condition { every, within, .. } => (Some(every), Some(within)),
            Self::Event { within, .. } => (None, Some(within)),
        };
        every.into_iter().chain(within).filter_map(Setting::computed)
    }

    fn event(map: &Fields<'_>, reporter: &mut Reporter) -> Option<Self> {
        let when = map.get("when").and_then(|node| fields::expression(node, reporter));
        let within = within(map, reporter);
        let event = map.require("event", "name the event", reporter)?;
        let event = fields::identifier(event, reporter)?;
        Some(Self::Event { event, when, within: within? })
    }
}

/// The deadline, which nothing that waits may lack.
pub(in crate::workflow) fn within(
    map: &Fields<'_>,
    reporter: &mut Reporter,
) -> Option<Setting<Span>> {
    let help = "nothing waits without a deadline: add for example `within: 30m`";
    map.require("within", help, reporter)?;
    Setting::positive_duration(map, "within", reporter)
}
