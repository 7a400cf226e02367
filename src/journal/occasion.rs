//! What starts runs by itself: slots of schedules and published events. PURE.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::Timestamp;

/// More events than this do not cause one another: what goes further goes round in circles.
pub const MOST_DEPTH: u32 = 8;

/// What started a run by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Cause {
    /// A slot of a schedule.
    Slot {
        /// The schedule.
        schedule: String,
        /// The slot: the instant before jitter.
        slot: Timestamp,
    },
    /// A published event.
    Event {
        /// The trigger.
        trigger: String,
        /// The position of the event in the journal.
        position: u64,
        /// What expressions see as `event`: the payload, and its `name`.
        event: Value,
        /// How many events caused one another, this one included.
        depth: u32,
    },
}

impl Cause {
    /// How many events caused one another before what a run publishes.
    pub const fn depth(&self) -> u32 {
        match self {
            Self::Slot { .. } => 0,
            Self::Event { depth, .. } => *depth,
        }
    }

    /// What expressions see as `event`.
    pub const fn event(&self) -> Option<&Value> {
        match self {
            Self::Slot { .. } => None,
            Self::Event { event, .. } => Some(event),
        }
    }

    /// The key of the run: there is one for each slot, and one for each trigger and event.
    pub fn key(&self) -> String {
        match self {
            Self::Slot { schedule, slot } => format!("{}{slot}", slot_prefix(schedule)),
            Self::Event { trigger, position, .. } => {
                format!("{}{position}", event_prefix(trigger))
            }
        }
    }
}

/// How the keys of a schedule's runs begin.
pub fn slot_prefix(schedule: &str) -> String {
    format!("slot of {schedule} at ")
}

/// How the keys of a trigger's runs begin.
pub fn event_prefix(trigger: &str) -> String {
    format!("event for {trigger} at ")
}

/// Whether a key is of the form that slots and events give their runs: nobody else may use it.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with("slot of ") || key.starts_with("event for ")
}

/// What became of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotFate {
    /// A run was started in time.
    Fired,
    /// A run was started late.
    CaughtUp,
    /// An earlier run was not finished.
    Skipped,
    /// No server lived when it was due, and it is not caught up.
    Missed,
    /// The schedule was paused.
    Suppressed,
    /// Its compute sleeps, or nobody but us uses it: a look would wake it, or keep it awake.
    LeftAlone,
    /// The workflow could not be planned.
    Invalid,
}

impl SlotFate {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fired,
        Self::CaughtUp,
        Self::Skipped,
        Self::Missed,
        Self::Suppressed,
        Self::LeftAlone,
        Self::Invalid,
    ];

    /// The name as it is written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::CaughtUp => "caught_up",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Suppressed => "suppressed",
            Self::LeftAlone => "left_alone",
            Self::Invalid => "invalid",
        }
    }
}

/// What a trigger made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerFate {
    /// A run was started.
    Fired,
    /// Its condition did not hold.
    Unmet,
    /// An earlier run was not finished.
    Skipped,
    /// The last run began too recently.
    CoolingDown,
    /// Too many events caused one another.
    TooDeep,
    /// The condition could not be evaluated, or the workflow could not be planned.
    Invalid,
}

impl TriggerFate {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Fired, Self::Unmet, Self::Skipped, Self::CoolingDown, Self::TooDeep, Self::Invalid];

    /// The name as it is written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Unmet => "unmet",
            Self::Skipped => "skipped",
            Self::CoolingDown => "cooling_down",
            Self::TooDeep => "too_deep",
            Self::Invalid => "invalid",
        }
    }
}
