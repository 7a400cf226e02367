//! The parts of a run's state: steps, scopes, change sets, approvals. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::graph::ScopeId;
use crate::journal::event::{
    ApprovalRequest, Decision, Item, Outcome, Output, Principal, SkipReason, StepKey,
};
use crate::kernel::change::Origin;
use crate::kernel::{Change, ChangeSet, Direction, Failure, Settlement, Span, Target, Timestamp};

/// The index of a step instance.
pub type NodeId = usize;
/// The index of a scope instance.
pub type InstanceId = usize;

/// Where a step instance stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// It has not begun, or goes on as soon as the engine comes to it.
    Pending,
    /// A try is under way, or was when the process died.
    Running,
    /// It is tried again later.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// Nobody can tell whether one of its changes happened.
    InDoubt,
    /// Done.
    Succeeded,
    /// Failed for good.
    Failed,
    /// It does not run.
    Skipped(SkipReason),
}

impl Phase {
    /// Whether nothing more will happen.
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped(_))
    }

    /// The name as it is written in JSON and in reports.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Backoff { .. } => "backoff",
            Self::InDoubt => "in_doubt",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// Where a change stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeState {
    /// Not begun, or certainly without effect.
    New,
    /// Its start is durable, its end is not known.
    Started {
        /// What the probe saw before.
        fingerprint: Value,
        /// What finds it again elsewhere: the name of a running operation.
        note: Option<String>,
    },
    /// Nobody can tell; a person settles it.
    InDoubt {
        /// What the probe saw before.
        fingerprint: Value,
    },
    /// It ended.
    Settled(Settlement),
}

/// A change set at work.
#[derive(Clone, Debug)]
pub struct Work {
    /// The set.
    pub set: Arc<ChangeSet>,
    /// Where its changes stand.
    pub changes: Vec<ChangeState>,
    /// Why an approval is needed; empty: none is.
    pub ask: Vec<String>,
    /// Whether it has to be proposed again before its first change starts.
    pub stale: bool,
    /// The server that was looked at.
    pub server: Value,
}

impl Work {
    pub(super) fn new(set: ChangeSet, ask: Vec<String>, server: Value) -> Self {
        let changes = vec![ChangeState::New; set.changes.len()];
        Self { set: Arc::new(set), changes, ask, stale: false, server }
    }

    /// Whether one of its changes began: from here on the set is frozen.
    pub fn is_frozen(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change, ChangeState::New))
    }

    /// The first change that has not ended.
    pub fn first_open(&self) -> Option<usize> {
        self.changes.iter().position(|change| !matches!(change, ChangeState::Settled(_)))
    }

    /// Whether a change has a durable start and no end.
    pub fn unsettled_start(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, ChangeState::Started { .. }))
    }

    /// How many of its changes have not ended, those that the engine makes for itself left out.
    pub(super) fn open_own_changes(&self) -> u64 {
        let open = self.set.changes.iter().zip(&self.changes).filter(|(change, state)| {
            change.origin == Origin::Tool && !matches!(state, ChangeState::Settled(_))
        });
        u64::try_from(open.count()).unwrap_or(u64::MAX)
    }

    pub(super) fn has_doubt(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, ChangeState::InDoubt { .. }))
    }

    /// Whether one of its changes was carried out.
    pub fn has_applied(&self) -> bool {
        self.changes
            .iter()
            .any(|change| matches!(change, ChangeState::Settled(Settlement::Applied { .. })))
    }
}

/// A wait or a verification.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// When it ends.
    pub deadline: Timestamp,
    /// When it looks next.
    pub next_at: Timestamp,
    /// What it saw last.
    pub result: Value,
    /// When it began.
    pub since: Timestamp,
}

/// An approval that was asked for.
#[derive(Clone, Debug)]
pub struct Approval {
    /// The step that asked.
    pub step: StepKey,
    /// What was asked.
    pub request: ApprovalRequest,
    /// The sets that were shown, by step.
    pub sets: BTreeMap<StepKey, Arc<ChangeSet>>,
    /// What was decided.
    pub decided: Option<Decided>,
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What.
    pub decision: Decision,
    /// By whom.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// The undoing of a step's changes.
#[derive(Clone, Debug)]
pub struct Undo {
    /// What undoes them.
    pub work: Work,
    /// What cannot be undone.
    pub impossible: Vec<String>,
    /// Tries so far that failed.
    pub failures: u32,
    /// Whether all of it is done.
    pub done: bool,
}

/// A step, an item of a fan-out, or a step of an embedded workflow.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its key in the run.
    pub key: StepKey,
    /// The scope instance that it belongs to.
    pub scope: InstanceId,
    /// Its place in the scope's definition.
    pub index: usize,
    /// Its place in the list of items, when it is one of a fan-out.
    pub item: Option<usize>,
    /// The fan-out, when it is an item.
    pub fan_out: Option<NodeId>,
    /// Where it stands.
    pub phase: Phase,
    /// Whether the engine has come to it.
    pub begun: bool,
    /// Tries so far.
    pub attempts: u32,
    /// What its condition came to.
    pub condition: Option<bool>,
    /// Its arguments in the latest try.
    pub arguments: Value,
    /// What it proposed.
    pub work: Option<Box<Work>>,
    /// Its items, when it fans out and they are listed.
    pub items: Option<Box<Items>>,
    /// Its embedded workflow.
    pub inner: Option<InstanceId>,
    /// Its wait.
    pub waiting: Option<Box<Waiting>>,
    /// Its output, once it succeeded.
    pub output: Option<Output>,
    /// What went wrong last.
    pub failure: Option<Box<Failure>>,
    /// The undoing of its changes.
    pub undo: Option<Box<Undo>>,
    /// How many of its locks it has taken, or found held by what it belongs to.
    pub locks_passed: usize,
    pub(super) open_needs: usize,
}

/// The items of a fan-out.
#[derive(Clone, Debug)]
pub struct Items {
    /// What they are, in their order.
    pub list: Arc<[Item]>,
    /// The steps that they became, in the same order.
    pub nodes: Vec<NodeId>,
    /// The first one that has not ended: those before it need no look.
    pub(super) first_open: usize,
    /// How many something has happened to, as they stand in the list, with those between.
    pub(super) reached: usize,
    /// How many are embedded workflows that have not ended.
    pub(super) open_scopes: usize,
    /// Whether one failed.
    pub(super) failed: bool,
}

impl Items {
    pub(super) const fn new(list: Arc<[Item]>, nodes: Vec<NodeId>) -> Self {
        Self { list, nodes, first_open: 0, reached: 0, open_scopes: 0, failed: false }
    }

    /// Those from the first one on that has not ended.
    pub(super) fn open(&self) -> &[NodeId] {
        self.nodes.get(self.first_open..).unwrap_or_default()
    }
}

impl Node {
    /// The steps that its items became; none, when it does not fan out or they are not listed.
    pub fn item_nodes(&self) -> &[NodeId] {
        self.items.as_deref().map(|items| &*items.nodes).unwrap_or_default()
    }

    /// What carries its changes out, or undoes them.
    pub fn work_of(&self, direction: Direction) -> Option<&Work> {
        match direction {
            Direction::Do => self.work.as_deref(),
            Direction::Undo => self.undo.as_ref().map(|undo| &undo.work),
        }
    }
}

/// A scope of steps at work.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its definition.
    pub def: ScopeId,
    /// The step that embeds it; `None` for the scopes of the run itself.
    pub owner: Option<NodeId>,
    /// Its steps, by place in the definition.
    pub nodes: Vec<NodeId>,
    /// The parameters that its expressions see.
    pub params: Arc<Value>,
    /// The target of its steps.
    pub target: Target,
    /// Steps whose needs have all ended and that have not ended themselves.
    pub(super) active: BTreeSet<usize>,
    /// The scope whose ends it handles, when it is one of handlers: its expressions see that too.
    pub main: Option<InstanceId>,
    /// What runs when it failed, when it is an embedded workflow that says so.
    pub on_failure: Option<InstanceId>,
    /// What runs however it ends, when it is an embedded workflow that says so.
    pub always: Option<InstanceId>,
    pub(super) open: usize,
    pub(super) failed: bool,
}

impl Instance {
    /// Whether a step failed whose failure was not allowed.
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Places of the steps that can be worked on.
    pub fn active(&self) -> impl Iterator<Item = usize> + '_ {
        self.active.iter().copied()
    }

    /// Whether every step has ended.
    pub const fn is_done(&self) -> bool {
        self.open == 0
    }
}

/// What is known of a rehearsal.
#[derive(Clone, Debug, Default)]
pub struct Rehearsal {
    /// After how long its branches remove themselves.
    pub ttl: Span,
    /// How many processes took it. It is not gone on with: the second one tidies up.
    pub claims: u32,
    /// The branches that may be there, by id: what each is a branch of, and what made it.
    pub branches: BTreeMap<String, (Target, Change)>,
}

/// How the run is coming to its end, once it is.
#[derive(Clone, Debug)]
pub struct Ending {
    /// `failed` or `cancelled`.
    pub outcome: Outcome,
    /// Whether settled changes are undone.
    pub compensate: bool,
    /// The steps whose changes are undone; `None`: all.
    pub scope: Option<Vec<StepKey>>,
    /// What went wrong.
    pub failure: Option<Failure>,
}

/// A person's wish to cancel.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Who.
    pub by: Principal,
    /// Whether settled changes are to be undone.
    pub compensate: bool,
    /// Why.
    pub reason: String,
}

/// A lock that a step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepLock {
    /// Its own; a fan-out takes it for all its items.
    Own,
    /// That of the workflow which it embeds; it follows from the parameters, so each item takes its own.
    Embedded,
}

/// What a lock of this run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// The step that it is for; `None`: the run as a whole.
    pub owner: Option<StepKey>,
    /// Since when it is queued for.
    pub since: Timestamp,
    /// Whether it is held.
    pub held: bool,
}
