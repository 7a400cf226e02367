//! The words that events are made of: outcomes, decisions, reasons. PURE.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Digest, Direction, Risk, RunId, Span, Target, Timestamp};
use crate::tools::tool::HistoryRow;

/// Who did something: OS user, token's principal, or `LAKEOPS_ACTOR`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The name.
    pub name: String,
    /// From where: host and terminal, or address.
    pub from: String,
}

/// The name of an output that later looks go on from: the tool, and where it looked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fact {
    /// The tool.
    pub tool: String,
    /// The connection and the target.
    pub place: String,
}

impl Fact {
    /// What a tool found on a target.
    pub fn of(tool: &str, connection: &str, target: &Target) -> Self {
        Self { tool: tool.to_owned(), place: format!("{connection} {target}") }
    }
}

/// An output that later looks go on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its name.
    #[serde(flatten)]
    pub name: Fact,
    /// Fields that the next look finds in the output, and nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<Value>,
    /// The digest of these fields, where they lie beside the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<Digest>,
}

impl Found {
    /// What a look found, with the fields that are for the next one.
    pub const fn new(name: Fact, carry: Option<Value>) -> Self {
        Self { name, carry, apart: None }
    }
}

/// The rows of a step for the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rows {
    /// In the event.
    Here(Vec<HistoryRow>),
    /// Beside it.
    Apart {
        /// The digest of their text.
        digest: Digest,
        /// How many there are.
        count: usize,
    },
}

impl Default for Rows {
    fn default() -> Self {
        Self::Here(Vec::new())
    }
}

impl From<Vec<HistoryRow>> for Rows {
    fn from(rows: Vec<HistoryRow>) -> Self {
        Self::Here(rows)
    }
}

impl Rows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Here(rows) => rows.len(),
            Self::Apart { count, .. } => *count,
        }
    }

    /// The rows; none when they lie apart and were not fetched.
    pub fn fetched(self) -> Vec<HistoryRow> {
        match self {
            Self::Here(rows) => rows,
            Self::Apart { .. } => Vec::new(),
        }
    }
}

/// A run that was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRun {
    /// The run.
    pub run: RunId,
    /// Of how many of its events only the links stay.
    pub events: u64,
}

/// The key of a step in a run: `heal`, `heal[public.orders]`, `child_flow/heal`.
pub type StepKey = String;

/// How a run ended, or why nobody works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An executor is at work, or was when it died.
    Running,
    /// It waits for a time, a condition, an event or a lock.
    Waiting,
    /// It waits for a person's decision.
    WaitingApproval,
    /// Every step was done or rightly skipped.
    Succeeded,
    /// A step failed.
    Failed,
    /// A person ended it.
    Cancelled,
    /// Nobody can tell whether a change happened; a person settles it.
    InDoubt,
    /// A person must act.
    Stuck,
}

impl Outcome {
    /// Whether the run is over.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// All outcomes.
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Waiting,
        Self::WaitingApproval,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::InDoubt,
        Self::Stuck,
    ];

    /// The outcome of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }

    /// The name as it is written in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::WaitingApproval => "waiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::InDoubt => "in_doubt",
            Self::Stuck => "stuck",
        }
    }
}

/// How far changes were undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compensation {
    /// Nothing was to be undone, or nobody asked for it.
    #[default]
    None,
    /// All of it.
    Complete,
    /// Some of it cannot be undone; it is listed.
    Partial,
}

/// A person's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes, exactly these changes.
    Approved,
    /// No.
    Rejected,
    /// Nobody decided in time: a rejection.
    Expired,
}

/// What a person says about a change in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtVerdict {
    /// It happened.
    Applied,
    /// It did not happen: do it.
    NotApplied,
    /// It did not happen, and is not to be done.
    Abandon,
}

/// Why a step did not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum SkipReason {
    /// Its condition was false.
    Condition,
    /// Everything that it needs was skipped.
    NeedsSkipped,
    /// Something that it needs failed.
    NeedFailed {
        /// Which step.
        step: StepKey,
    },
    /// The run was cancelled or had failed before it began.
    RunEnding,
    /// An approval was rejected with `on_reject: skip_dependents`.
    Rejected,
}

/// One item of a fan-out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its key, unique in the list.
    pub key: String,
    /// Its value.
    pub value: Value,
}

/// What an approval asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// SHA-256 that the decision binds to: over the digests of all that it covers.
    pub digest: Digest,
    /// The question.
    pub prompt: String,
    /// The steps whose proposed change sets it covers.
    pub covers: Vec<StepKey>,
    /// The highest risk among them.
    pub risk: Risk,
    /// Why it is asked: `risk high`, `required by the workflow`, a cap of the policy.
    pub reasons: Vec<String>,
    /// When it is rejected by itself.
    pub expires_at: Timestamp,
    /// What is shown with it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub show: Value,
    /// Demands that each set was rehearsed, not longer ago than this, before it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_within: Option<Span>,
    /// Whether the sets carry the steps' changes out, or undo them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direction: Direction,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
