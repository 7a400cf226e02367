//! The stored vocabulary: what the journal can say. PURE.
//!
//! Events of a run are written by its one executor, except for the *decisions* (see
//! [`Event::is_decision`]): those come from other processes while an executor may be at work, and the
//! run's state machine accepts them at any point.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::occasion::{Cause, SlotFate, TriggerFate};
pub use super::output::Output;
use super::rehearsal::Rehearsed;
use super::term::is_default;
pub use super::term::{
    ApprovalRequest, Compensation, Decision, DoubtVerdict, Fact, Found, Item, Outcome, Principal,
    Rows, SealedRun, SkipReason, StepKey,
};
use crate::kernel::{
    Change, ChangeSet, Digest, Direction, Failure, RunId, Seen, Settlement, Severity, Span, Target,
    Timestamp,
};

/// What happened. Stored as JSON with a `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    // ---- the run -----------------------------------------------------------------------------
    /// A run of a plan began to exist.
    RunCreated {
        /// The plan's identity.
        plan: Digest,
        /// The workflow's name.
        workflow: String,
        /// The target.
        target: Target,
        /// The key that makes starting idempotent.
        key: Option<String>,
        /// Who started it.
        by: Principal,
        /// Whether `--yes` approves up to medium risk as the caller.
        yes: bool,
        /// The run that this one was forked from.
        forked_from: Option<RunId>,
        /// What started it by itself; `None`: a person or a program did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Box<Cause>>,
    },
    /// The run tries its changes on throw-away branches, and touches its target nowhere.
    RehearsalBegan {
        /// After how long such a branch removes itself.
        ttl: Span,
    },
    /// An executor took the run. The sequence number of this event is its fencing token.
    RunClaimed {
        /// Whose process.
        by: Principal,
        /// Which process.
        pid: u32,
    },
    /// The fingerprints of what the plan relies on, as found when the run began.
    PreconditionsTaken {
        /// Name to fingerprint.
        found: BTreeMap<String, String>,
    },
    /// The executor left: nothing can go on by itself.
    RunParked {
        /// `waiting`, `waiting_approval`, `in_doubt` or `stuck`.
        outcome: Outcome,
        /// When it can go on at the earliest by itself.
        wake_at: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// Decision: a person cancels the run.
    CancelRequested {
        /// Who.
        by: Principal,
        /// Whether settled changes are to be undone.
        compensate: bool,
        /// Why.
        reason: String,
    },
    /// The run stops starting steps and ends as `outcome` after draining.
    EndingBegan {
        /// `failed` or `cancelled`.
        outcome: Outcome,
        /// Whether settled changes are undone first.
        compensate: bool,
        /// The steps whose changes are undone; `None`: all.
        scope: Option<Vec<StepKey>>,
        /// What went wrong.
        failure: Option<Failure>,
    },
    /// The run is over.
    RunFinished {
        /// `succeeded`, `failed` or `cancelled`.
        outcome: Outcome,
        /// How far changes were undone.
        compensation: Compensation,
        /// The outputs of the workflow.
        outputs: Value,
    },

    // ---- locks -------------------------------------------------------------------------------
    /// The run queued for a lock, first in, first out.
    LockQueued {
        /// The lock.
        lock: String,
        /// The step that it is for; `None`: the run as a whole.
        step: Option<StepKey>,
    },
    /// The run got it.
    LockAcquired {
        /// The lock.
        lock: String,
        /// The step that it is for; `None`: the run as a whole.
        step: Option<StepKey>,
    },
    /// The run gave it back, or left the queue.
    LockReleased {
        /// The lock.
        lock: String,
        /// The step that it is for; `None`: the run as a whole.
        step: Option<StepKey>,
    },

    // ---- a step ------------------------------------------------------------------------------
    /// Its condition was evaluated, once.
    ConditionEvaluated {
        /// The step.
        step: StepKey,
        /// What it came to.
        result: bool,
        /// The values that it saw.
        seen: Vec<Seen>,
    },
    /// It does not run.
    StepSkipped {
        /// The step.
        step: StepKey,
        /// Why.
        reason: SkipReason,
    },
    /// The items of its fan-out, once.
    ItemsListed {
        /// The step.
        step: StepKey,
        /// The items.
        items: Arc<[Item]>,
    },
    /// An embedded workflow began.
    ScopeOpened {
        /// The step.
        step: StepKey,
        /// Its parameters.
        params: Value,
        /// Its target.
        target: Target,
    },
    /// A try began.
    AttemptStarted {
        /// The step.
        step: StepKey,
        /// Its number, from 1.
        attempt: u32,
        /// The arguments with every expression resolved; masked.
        arguments: Value,
    },
    /// A try ended without success. The step has failed when there is no `retry_at`.
    AttemptFailed {
        /// The step.
        step: StepKey,
        /// Its number.
        attempt: u32,
        /// What went wrong.
        failure: Failure,
        /// When it is tried again: backoff and jitter are journaled values.
        retry_at: Option<Timestamp>,
    },
    /// A step is done. Settles it.
    StepSucceeded {
        /// The step.
        step: StepKey,
        /// Its output; masked.
        output: Output,
        /// What of it belongs in the history.
        #[serde(default, skip_serializing_if = "Rows::is_empty")]
        history: Rows,
        /// The values that a script saw, and what it printed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<Seen>,
        /// Under which name later looks of the same tool find the output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fact: Option<Found>,
    },
    /// A wait or a verification began.
    WaitStarted {
        /// The step.
        step: StepKey,
        /// When it ends without success (for a timer: with).
        deadline: Timestamp,
    },
    /// A wait or a verification looked.
    WaitPolled {
        /// The step.
        step: StepKey,
        /// What the tool returned.
        result: Value,
        /// The values that the expressions saw.
        seen: Vec<Seen>,
        /// When it looks again.
        next_at: Timestamp,
    },

    // ---- changes -----------------------------------------------------------------------------
    /// A write tool proposed. Replaces an earlier proposal as long as none of its changes began.
    ChangesProposed {
        /// The step.
        step: StepKey,
        /// Its arguments with every expression resolved; masked.
        arguments: Value,
        /// What it would do.
        set: ChangeSet,
        /// What the change policy said of each change, with the values that it saw.
        policy: Value,
        /// Why an approval is needed; empty: none is.
        ask: Vec<String>,
        /// The server that was looked at: the changes are carried out nowhere else.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        server: Value,
    },
    /// An approval is asked for. Commits together with its notification.
    ApprovalRequested {
        /// The step that waits: the write step itself, or an `approval` step.
        step: StepKey,
        /// What is asked.
        request: ApprovalRequest,
    },
    /// Decision: a person decided (or nobody did in time).
    ApprovalDecided {
        /// The step that waited.
        step: StepKey,
        /// The digest that was decided on.
        digest: Digest,
        /// What was decided.
        decision: Decision,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// A change is about to be carried out; durable before the effect.
    ChangeStarted {
        /// The step.
        step: StepKey,
        /// The digest of its set.
        set: Digest,
        /// Its place in the set.
        index: u32,
        /// Whether it is done or undone.
        direction: Direction,
        /// What the probe saw before.
        fingerprint: Value,
    },
    /// What finds a change again that goes on elsewhere: the name of a long-running operation. Durable
    /// before anybody waits for it; the newest one counts.
    ChangeNoted {
        /// The step.
        step: StepKey,
        /// Its place in the set.
        index: u32,
        /// Whether it is done or undone.
        direction: Direction,
        /// What is noted.
        note: String,
    },
    /// It was looked at, or its clean-up ran, and it certainly did not happen; it can be started again.
    ChangeNotApplied {
        /// The step.
        step: StepKey,
        /// Its place in the set.
        index: u32,
        /// Whether it was done or undone.
        direction: Direction,
        /// What went wrong.
        failure: Failure,
    },
    /// A change ended; durable before the next effect that depends on it.
    ChangeSettled {
        /// The step.
        step: StepKey,
        /// Its place in the set.
        index: u32,
        /// Whether it was done or undone.
        direction: Direction,
        /// How it ended.
        settlement: Settlement,
    },
    /// Nobody can tell whether it happened. Commits together with its notification.
    ChangeInDoubt {
        /// The step.
        step: StepKey,
        /// Its place in the set.
        index: u32,
        /// Whether it was done or undone.
        direction: Direction,
        /// What is known.
        why: String,
    },
    /// Decision: a person settled a change in doubt.
    DoubtSettled {
        /// The step.
        step: StepKey,
        /// Its place in the set.
        index: u32,
        /// Whether it was done or undone.
        direction: Direction,
        /// What the person says.
        verdict: DoubtVerdict,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },

    // ---- compensation ------------------------------------------------------------------------
    /// The undoing of a step's changes, as proposed (`compensate:`) or from their inverses.
    CompensationProposed {
        /// The step whose changes are undone.
        step: StepKey,
        /// What undoes them, in order.
        set: ChangeSet,
        /// What cannot be undone, and why.
        impossible: Vec<String>,
        /// What the change policy said of each change of a `compensate:`, with the values that it saw.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        policy: Value,
        /// Why an approval is needed; empty: none is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ask: Vec<String>,
        /// The server that they are carried out on.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        server: Value,
    },
    /// The undoing of a step has ended: nothing more of it will be undone.
    StepCompensated {
        /// The step.
        step: StepKey,
        /// What was not undone although it could have been, and why: refused, rejected, expired.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<String>,
    },
    /// An undoing failed after its retries: a person must act. Commits with its notification.
    RunStuck {
        /// The step, when it is one.
        step: Option<StepKey>,
        /// What happened.
        why: String,
    },
    /// Decision: a person took care of what was stuck; the run goes on.
    Unstuck {
        /// Who.
        by: Principal,
        /// What was done.
        reason: String,
    },

    // ---- rehearsal ---------------------------------------------------------------------------
    /// A throw-away branch is about to be made; durable before it is. The inverse of what makes it
    /// removes it.
    BranchWanted {
        /// The id of the branch.
        branch: String,
        /// What it is a branch of.
        target: Target,
        /// What makes it.
        change: Box<Change>,
    },
    /// A throw-away branch is gone.
    BranchRemoved {
        /// The id of the branch.
        branch: String,
    },
    /// The changes that a step proposed were tried on a throw-away branch.
    SetRehearsed {
        /// The step.
        step: StepKey,
        /// What that showed.
        rehearsed: Box<Rehearsed>,
    },

    // ---- around the run ----------------------------------------------------------------------
    /// A message to people: the outbox. Delivered at least once, with a de-duplication key.
    NotificationQueued {
        /// Its de-duplication key.
        dedup: String,
        /// How bad it is.
        severity: Severity,
        /// One line.
        title: String,
        /// The rest.
        body: String,
        /// The one channel that it goes to; `None`: where the routes send it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<String>,
        /// What routes and receivers tell it by: `workflow`, `target`, `metric`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Whether it says that what was told under its key is over.
        #[serde(default, skip_serializing_if = "is_default")]
        resolves: bool,
    },
    /// It was told to whoever watches the run. What channels do with it is in the stream of alerts.
    NotificationDelivered {
        /// Its de-duplication key.
        dedup: String,
    },
    /// An event was published: a row that waits and triggers look at.
    EventPublished {
        /// Its name.
        name: String,
        /// What it carries.
        payload: Value,
        /// How many events caused one another before it.
        depth: u32,
    },
    /// Decision: a person overrode a rule (freeze, thaw, a cap).
    Override {
        /// What.
        what: String,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
        /// For how long.
        expires: Option<Span>,
    },
    // ---- what starts runs by itself ----------------------------------------------------------
    /// A schedule was seen for the first time, or with another cron text or zone: slots count from here.
    /// Written again now and then, so that its standing follows from few entries.
    ScheduleSeen {
        /// The schedule.
        schedule: String,
        /// The workflow that it starts.
        workflow: String,
        /// Five-field cron.
        cron: String,
        /// The IANA time zone.
        time_zone: String,
        /// The version of the time zone database that the slots were computed with.
        tzdb: String,
        /// Slots after this instant are its own.
        watermark: Timestamp,
        /// Who paused it, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        paused: Option<(Principal, String)>,
    },
    /// What became of a slot, or of several that follow one another. Commits together with its run.
    SlotsDecided {
        /// The schedule.
        schedule: String,
        /// The first slot.
        first: Timestamp,
        /// The last one; the watermark from now on.
        last: Timestamp,
        /// How many slots these are.
        count: u64,
        /// What became of them.
        fate: SlotFate,
        /// The run that was started.
        run: Option<RunId>,
        /// Why not, when it was not.
        why: Option<String>,
    },
    /// A person paused a schedule: its slots are suppressed from now on.
    SchedulePaused {
        /// The schedule.
        schedule: String,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// A person lets a schedule go on.
    ScheduleResumed {
        /// The schedule.
        schedule: String,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// A trigger was seen for the first time: events count from here. Written again now and then, so that
    /// its standing follows from few entries.
    TriggerSeen {
        /// The trigger.
        trigger: String,
        /// The workflow that it starts.
        workflow: String,
        /// The name of the events that it looks at.
        event: String,
        /// Events after this position of the journal are its own.
        position: u64,
        /// When it started its newest run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fired_at: Option<Timestamp>,
    },
    /// What a trigger made of an event. Commits together with its run.
    TriggerDecided {
        /// The trigger.
        trigger: String,
        /// The position of the event in the journal.
        position: u64,
        /// What it made of it.
        fate: TriggerFate,
        /// The run that was started.
        run: Option<RunId>,
        /// Why not, when it was not.
        why: Option<String>,
    },

    // ---- alerts: what channels did with notifications ----------------------------------------
    /// A notification, or what ends one, was looked at: it waits for these channels; for none: why.
    AlertRouted {
        /// The journal was looked at up to this position.
        seen: u64,
        /// The position of the notification.
        of: u64,
        /// Its de-duplication key.
        dedup: String,
        /// How bad it is.
        severity: Severity,
        /// Whether it says that what was told under its key is over.
        #[serde(default, skip_serializing_if = "is_default")]
        resolves: bool,
        /// The channels.
        channels: Vec<String>,
        /// Why it goes nowhere.
        why: Option<String>,
    },
    /// A receiver took messages.
    AlertsSent {
        /// The positions at which they were routed.
        routed: Vec<u64>,
        /// The channel.
        channel: String,
    },
    /// A receiver did not take messages; they are sent again.
    AlertsFailed {
        /// The positions at which they were routed.
        routed: Vec<u64>,
        /// The channel.
        channel: String,
        /// How often it was tried.
        attempt: u32,
        /// What went wrong.
        failure: String,
        /// When it is tried again.
        retry_at: Timestamp,
    },

    // ---- the journal itself ------------------------------------------------------------------
    /// Runs that were over were sealed, in the same commit: the payloads of their events are gone but for
    /// those of [`STAYS`](Event::STAYS), and the links of these stay.
    RunsSealed {
        /// Who had it done, or which setting.
        by: Principal,
        /// Whether the history had taken in what they did.
        in_history: bool,
        /// The file that holds the payloads, where one was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<String>,
        /// The runs.
        runs: Vec<SealedRun>,
    },
}

impl Event {
    /// The name of the variant, as it is stored in the column `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::RunCreated { .. } => "run_created",
            Self::RehearsalBegan { .. } => "rehearsal_began",
            Self::RunClaimed { .. } => "run_claimed",
            Self::PreconditionsTaken { .. } => "preconditions_taken",
            Self::RunParked { .. } => "run_parked",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::EndingBegan { .. } => "ending_began",
            Self::RunFinished { .. } => "run_finished",
            Self::LockQueued { .. } => "lock_queued",
            Self::LockAcquired { .. } => "lock_acquired",
            Self::LockReleased { .. } => "lock_released",
            Self::ConditionEvaluated { .. } => "condition_evaluated",
            Self::StepSkipped { .. } => "step_skipped",
            Self::ItemsListed { .. } => "items_listed",
            Self::ScopeOpened { .. } => "scope_opened",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::StepSucceeded { .. } => "step_succeeded",
            Self::WaitStarted { .. } => "wait_started",
            Self::WaitPolled { .. } => "wait_polled",
            Self::ChangesProposed { .. } => "changes_proposed",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::ApprovalDecided { .. } => "approval_decided",
            Self::ChangeStarted { .. } => "change_started",
            Self::ChangeNoted { .. } => "change_noted",
            Self::ChangeNotApplied { .. } => "change_not_applied",
            Self::ChangeSettled { .. } => "change_settled",
            Self::ChangeInDoubt { .. } => "change_in_doubt",
            Self::DoubtSettled { .. } => "doubt_settled",
            Self::CompensationProposed { .. } => "compensation_proposed",
            Self::StepCompensated { .. } => "step_compensated",
            Self::RunStuck { .. } => "run_stuck",
            Self::Unstuck { .. } => "unstuck",
            Self::BranchWanted { .. } => "branch_wanted",
            Self::BranchRemoved { .. } => "branch_removed",
            Self::SetRehearsed { .. } => "set_rehearsed",
            Self::NotificationQueued { .. } => "notification_queued",
            Self::NotificationDelivered { .. } => "notification_delivered",
            Self::EventPublished { .. } => "event_published",
            Self::Override { .. } => "override",
            Self::ScheduleSeen { .. } => "schedule_seen",
            Self::SlotsDecided { .. } => "slots_decided",
            Self::SchedulePaused { .. } => "schedule_paused",
            Self::ScheduleResumed { .. } => "schedule_resumed",
            Self::TriggerSeen { .. } => "trigger_seen",
            Self::TriggerDecided { .. } => "trigger_decided",
            Self::AlertRouted { .. } => "alert_routed",
            Self::AlertsSent { .. } => "alerts_sent",
            Self::AlertsFailed { .. } => "alerts_failed",
            Self::RunsSealed { .. } => "runs_sealed",
        }
    }

    /// The kinds that other processes write while an executor may be at work.
    pub const DECISIONS: [&'static str; 5] =
        ["cancel_requested", "approval_decided", "doubt_settled", "unstuck", "override"];

    /// The kinds whose payloads stay when a run is sealed: how it began and ended, who was asked and decided
    /// what, and what others look for in all runs (triggers, alerts, freezes, evidence of rehearsals). A kind
    /// that was added here would make journals of earlier versions look broken.
    pub const STAYS: [&'static str; 14] = [
        "run_created",
        "rehearsal_began",
        "run_finished",
        "cancel_requested",
        "approval_requested",
        "approval_decided",
        "change_in_doubt",
        "doubt_settled",
        "run_stuck",
        "unstuck",
        "override",
        "set_rehearsed",
        "event_published",
        "notification_queued",
    ];

    /// Whether this is a decision.
    pub fn is_decision(&self) -> bool {
        Self::DECISIONS.contains(&self.kind())
    }
}

impl Event {
    /// A notification that goes where the routes send it.
    pub fn notification(dedup: String, severity: Severity, title: String, body: String) -> Self {
        let labels = BTreeMap::new();
        let (channel, resolves) = (None, false);
        Self::NotificationQueued { dedup, severity, title, body, channel, labels, resolves }
    }

    /// Which change of its step's set it is about, and whether it is done or undone.
    pub const fn change(&self) -> Option<(Direction, u32)> {
        match self {
            Self::ChangeStarted { index, direction, .. }
            | Self::ChangeNoted { index, direction, .. }
            | Self::ChangeNotApplied { index, direction, .. }
            | Self::ChangeSettled { index, direction, .. }
            | Self::ChangeInDoubt { index, direction, .. }
            | Self::DoubtSettled { index, direction, .. } => Some((*direction, *index)),
            _ => None,
        }
    }

    /// The step that it belongs to, when it belongs to one.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::ConditionEvaluated { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::ItemsListed { step, .. }
            | Self::ScopeOpened { step, .. }
            | Self::AttemptStarted { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::StepSucceeded { step, .. }
            | Self::WaitStarted { step, .. }
            | Self::WaitPolled { step, .. }
            | Self::ChangesProposed { step, .. }
            | Self::ApprovalRequested { step, .. }
            | Self::ApprovalDecided { step, .. }
            | Self::ChangeStarted { step, .. }
            | Self::ChangeNoted { step, .. }
            | Self::ChangeNotApplied { step, .. }
            | Self::ChangeSettled { step, .. }
            | Self::ChangeInDoubt { step, .. }
            | Self::DoubtSettled { step, .. }
            | Self::CompensationProposed { step, .. }
            | Self::StepCompensated { step, .. }
            | Self::SetRehearsed { step, .. } => Some(step),
            Self::RunStuck { step, .. }
            | Self::LockQueued { step, .. }
            | Self::LockAcquired { step, .. }
            | Self::LockReleased { step, .. } => step.as_deref(),
            Self::RunCreated { .. }
            | Self::RehearsalBegan { .. }
            | Self::BranchWanted { .. }
            | Self::BranchRemoved { .. }
            | Self::RunClaimed { .. }
            | Self::PreconditionsTaken { .. }
            | Self::RunParked { .. }
            | Self::CancelRequested { .. }
            | Self::EndingBegan { .. }
            | Self::RunFinished { .. }
            | Self::Unstuck { .. }
            | Self::NotificationQueued { .. }
            | Self::NotificationDelivered { .. }
            | Self::EventPublished { .. }
            | Self::Override { .. }
            | Self::ScheduleSeen { .. }
            | Self::SlotsDecided { .. }
            | Self::SchedulePaused { .. }
            | Self::ScheduleResumed { .. }
            | Self::TriggerSeen { .. }
            | Self::TriggerDecided { .. }
            | Self::AlertRouted { .. }
            | Self::AlertsSent { .. }
            | Self::AlertsFailed { .. }
            | Self::RunsSealed { .. } => None,
        }
    }
}
