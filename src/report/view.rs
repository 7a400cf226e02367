//! What is shown of a run. Its JSON is what `run`, `resume` and `show` print. PURE.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::rehearsal::RehearsalView;
use crate::journal::event::{
    ApprovalRequest, Compensation, Decision, Outcome, Principal, SkipReason, StepKey,
};
use crate::journal::rehearsal::{Evidence, own_digest};
use crate::kernel::{ChangeSet, Digest, Failure, Risk, Seen, Target, Timestamp};

/// A run as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct RunView {
    /// The run.
    pub run_id: String,
    /// Its plan.
    pub plan_id: Digest,
    /// Its workflow.
    pub workflow: String,
    /// Its target.
    pub target: Target,
    /// The connection that the target is reached by.
    pub connection: String,
    /// How it ended, or why nobody works on it.
    pub outcome: Outcome,
    /// How far changes were undone.
    pub compensation: Compensation,
    /// Why it stands where it stands, when there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What went wrong, when something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The key that made its start idempotent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The run that it was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// Who started it.
    pub started_by: Option<Principal>,
    /// When it began.
    pub created_at: Timestamp,
    /// When its newest event was stored.
    pub updated_at: Timestamp,
    /// When it can go on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// How often a process took it: one more than it was resumed.
    pub claims: u32,
    /// What it waits for.
    pub waiting_for: Vec<String>,
    /// Its steps, each followed by what it consists of.
    pub steps: Vec<StepView>,
    /// What was asked, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalView>,
    /// What it showed, when it was a rehearsal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalView>,
    /// What cannot be undone, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_undone: Vec<String>,
    /// The outputs of the workflow.
    pub outputs: Value,
}

/// A step, an item of a fan-out, or a step of an embedded workflow.
#[derive(Clone, Debug, Serialize)]
pub struct StepView {
    /// Its key in the run.
    #[serde(rename = "id")]
    pub key: StepKey,
    /// What it does: `tool monitor_connections`, `script sops/x.rhai`.
    pub action: String,
    /// How deep it lies: 0 for the steps of the workflow itself.
    #[serde(skip)]
    pub depth: usize,
    /// Where it stands.
    pub state: String,
    /// Tries so far.
    pub attempts: u32,
    /// Its output.
    pub output: Value,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkipReason>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Its changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeView>,
    /// The undoing of its changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<ChangeView>,
    /// What its decisions saw; for `explain`.
    #[serde(skip)]
    pub grounds: Grounds,
}

/// What the decisions about a step saw.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// Its condition, as it was evaluated.
    pub condition: Option<(bool, Vec<Seen>)>,
    /// Its arguments in the latest try.
    pub arguments: Value,
    /// The values that a script or a verification saw last.
    pub seen: Vec<Seen>,
    /// What a wait or a verification saw last.
    pub result: Value,
    /// Every failure, with its attempt.
    pub failures: Vec<(u32, Failure)>,
    /// What it proposed last.
    pub set: Option<ChangeSet>,
    /// What was proposed last to undo it.
    pub undo: Option<ChangeSet>,
    /// What the change policy said.
    pub policy: Value,
    /// Why an approval is needed.
    pub ask: Vec<String>,
    /// How many items it fans out to.
    pub items: Option<usize>,
    /// How often it proposed.
    pub proposals: u32,
}

/// A change and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeView {
    /// Its place in the set.
    pub index: u32,
    /// What it works on.
    pub object: String,
    /// The kind of the operation.
    pub kind: String,
    /// The operation as a text: the whole statement, or the request.
    pub operation: String,
    /// How dangerous it is.
    pub risk: Risk,
    /// `new`, `started`, `not_applied`, `applied`, `moot`, `abandoned` or `in_doubt`.
    pub state: String,
    /// What the measure query saw before.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// What the measure query saw after.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// Rows touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Whether a recovery found it done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// Why nobody can tell, or why it was not applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An approval that was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct ApprovalView {
    /// The step that waits.
    pub step: StepKey,
    /// What is asked.
    pub request: ApprovalRequest,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// The change sets that are shown, by step.
    pub sets: BTreeMap<StepKey, ChangeSet>,
    /// The newest rehearsal of each set, by step; see [`RunView::with_evidence`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rehearsed: BTreeMap<StepKey, Evidence>,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<DecisionView>,
}

/// A decision.
#[derive(Clone, Debug, Serialize)]
pub struct DecisionView {
    /// What.
    pub decision: Decision,
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl RunView {
    /// The same view, whose approvals know the newest rehearsals of what they cover.
    #[must_use]
    pub fn with_evidence(mut self, evidence: &BTreeMap<Digest, Evidence>) -> Self {
        for approval in &mut self.approvals {
            let found = approval.sets.iter().filter_map(|(step, set)| {
                Some((step.clone(), evidence.get(&own_digest(set))?.clone()))
            });
            approval.rehearsed = found.collect();
        }
        self
    }

    /// The step of a key.
    pub fn step(&self, key: &str) -> Option<&StepView> {
        self.steps.iter().find(|step| step.key == key)
    }

    /// The approvals that nobody has decided, while the run can still use them.
    pub fn open_approvals(&self) -> impl Iterator<Item = &ApprovalView> {
        let is_over = self.outcome.is_final();
        self.approvals.iter().filter(move |approval| approval.decided.is_none() && !is_over)
    }

    /// The changes that nobody can tell the end of, with their steps.
    pub fn doubts(&self) -> impl Iterator<Item = (&StepView, &ChangeView)> {
        self.steps.iter().flat_map(|step| {
            let all = step.changes.iter().chain(&step.undone);
            all.filter(|change| change.state == "in_doubt").map(move |change| (step, change))
        })
    }
}
