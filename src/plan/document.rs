//! The plan: the immutable, hashed document that a workflow compiles to.
//!
//! The identity of a plan is the SHA-256 of the canonical JSON of its [`PlanBody`]; `created_at` stands
//! outside, so equal plans have equal ids. Expressions that need earlier outputs stay expressions
//! (`${{ … }}` in templates, bare text in conditions).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::{Digest, Risk, Span, Target, Timestamp};

/// The format that this version writes and reads.
pub const FORMAT: u16 = 1;

/// A plan with its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this format.
    pub format: u16,
    /// SHA-256 of the body's canonical JSON.
    pub id: Digest,
    /// When it was made; not part of the identity.
    pub created_at: Timestamp,
    /// All the rest.
    pub body: PlanBody,
}

/// What the identity of a plan covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// The workflow's name.
    pub workflow: String,
    /// The workflow's description.
    pub description: String,
    /// SHA-256 of the workflow's file.
    pub workflow_digest: Digest,
    /// The resolved parameters.
    pub params: Map<String, Value>,
    /// The resolved target of the workflow.
    pub target: Target,
    /// The connection that the target is reached by.
    pub connection: String,
    /// The resolved lock.
    pub lock: Option<String>,
    /// The limits of a run.
    pub limits: Limits,
    /// The steps in topological order.
    pub steps: Vec<PlannedStep>,
    /// Steps that run, in order, when the run failed.
    pub on_failure: Vec<PlannedStep>,
    /// Steps that run, in order, at the end of every run.
    pub always: Vec<PlannedStep>,
    /// The run's outputs: expressions.
    pub outputs: BTreeMap<String, String>,
    /// Every script, by its path.
    pub scripts: BTreeMap<String, PinnedText>,
    /// Every named SQL text, by its name.
    pub sql: BTreeMap<String, PinnedText>,
    /// The tools used, and their revisions.
    pub tools: BTreeMap<String, u16>,
    /// The script (of `scripts`) that decides before each write, when there is one.
    pub policy: Option<String>,
    /// The secrets that are referred to, by name.
    pub secrets: Vec<String>,
    /// Named fingerprints that must still hold when the plan is run; only `--preview -o` writes them.
    pub preconditions: Vec<Precondition>,
    /// The plan that this one replaces.
    pub replaces: Option<Digest>,
    /// Schedules, validated; kept for the server.
    pub schedule: Value,
    /// Triggers, validated; kept for the server.
    pub triggers: Value,
}

impl PlanBody {
    /// Whether something in it may ask for what its connection leads to. Scripts, approvals, and waits for a time
    /// or an event do not.
    pub fn connects(&self) -> bool {
        !(self.tools.is_empty() && self.sql.is_empty() && self.preconditions.is_empty())
    }

    /// Whether a step of it, however deep, may wake a suspended compute.
    pub fn may_wake(&self) -> bool {
        [&self.steps, &self.on_failure, &self.always].into_iter().any(|steps| wakes(steps))
    }
}

fn wakes(steps: &[PlannedStep]) -> bool {
    steps.iter().any(|step| match &step.action {
        Action::Workflow(inner) => {
            [&inner.steps, &inner.on_failure, &inner.always].into_iter().any(|steps| wakes(steps))
        }
        Action::Tool(_)
        | Action::Script { .. }
        | Action::Sql { .. }
        | Action::Approval(_)
        | Action::Wait(_)
        | Action::Verify(_) => step.wake,
    })
}

/// A text with its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedText {
    /// SHA-256 of the text.
    pub sha256: Digest,
    /// The text.
    pub text: String,
}

impl PinnedText {
    /// Pins a text.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { sha256: Digest::of_bytes(text.as_bytes()), text }
    }
}

/// The limits of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long a run may work, the time spent waiting not counted.
    pub timeout: Option<Span>,
    /// How many changes it may carry out.
    pub max_changes: Option<u32>,
}

/// A named fingerprint of something that the plan relies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precondition {
    /// What it is, such as `server` or `relation public.accounts`.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// A step, ready to be carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// Its id, unique in its scope.
    pub id: String,
    /// The steps of the same scope that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Its condition: a Rhai expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Whether it runs although everything that it needs was skipped or failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub run_if: RunIf,
    /// Its fan-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<ForEach>,
    /// Its own target (a template of an object), when it differs from the workflow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Value>,
    /// What it does.
    pub action: Action,
    /// The approval policy of a write.
    #[serde(default, skip_serializing_if = "is_default")]
    pub approval: ApprovalMode,
    /// The risk: the tool's, or higher where the file raised it.
    pub risk: Risk,
    /// How long one attempt may take.
    pub timeout: Span,
    /// What is retried, and how.
    pub retry: Retry,
    /// Whether dependents go on when it fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_failure: bool,
    /// A lock of its own: a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Whether it may wake a suspended compute.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wake: bool,
    /// What replaces the inverses of its changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<ToolCall>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The step that is waited for.
    pub step: String,
    /// Whether the edge follows from an expression instead of standing in `needs`.
    pub inferred: bool,
}

/// When a step runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunIf {
    /// When what it needs succeeded, and not all of it was skipped.
    #[default]
    Success,
    /// As soon as what it needs has ended, however.
    Always,
}

/// The approval policy of a write step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalMode {
    /// Asks when the risk is at least `approvals.ask_from`.
    #[default]
    Auto,
    /// Always asks.
    Required,
    /// Never asks; refused for high risk.
    Never,
}

/// A fan-out over a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForEach {
    /// A template of the list.
    #[serde(rename = "in")]
    pub items: Value,
    /// A template of an item's key.
    pub key: String,
    /// How many items are worked on at once.
    pub max_parallel: u32,
    /// Whether the first failure keeps further items from starting.
    pub fail_fast: bool,
}

/// A tool and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool.
    pub tool: String,
    /// A template of its arguments.
    pub with: Value,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Runs a tool.
    Tool(ToolCall),
    /// Evaluates a script of `scripts`.
    Script {
        /// Its path.
        script: String,
        /// A template of the variables that it sees.
        with: Value,
    },
    /// Runs a query of `sql` read-only.
    Sql {
        /// Its name.
        sql: String,
        /// Templates of its bound values, in order (`$1`, `$2`, …).
        with: Vec<Value>,
    },
    /// Runs an embedded workflow in the same run.
    Workflow(Box<Embedded>),
    /// Asks a person.
    Approval(ApprovalGate),
    /// Waits.
    Wait(Wait),
    /// Looks until its assertions hold.
    Verify(Verify),
}

/// An embedded workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Its name.
    pub workflow: String,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// A template of its parameters, defaults filled in.
    pub params: Value,
    /// Its own target (a template over its parameters), when it names one.
    pub target: Option<Value>,
    /// A template of its lock.
    pub lock: Option<String>,
    /// Its steps in topological order.
    pub steps: Vec<PlannedStep>,
    /// Steps that run, in order, when one of its steps failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<PlannedStep>,
    /// Steps that run, in order, whenever it has begun and ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub always: Vec<PlannedStep>,
    /// Its outputs: expressions over its steps.
    pub outputs: BTreeMap<String, String>,
}

/// A step that asks a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalGate {
    /// The question: a template.
    pub prompt: String,
    /// What is shown with it: expressions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub show: Vec<String>,
    /// The steps whose change sets it approves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<String>,
    /// When it is rejected by itself.
    pub expires: Span,
    /// What a rejection does.
    pub on_reject: OnReject,
    /// Demands rehearsal evidence that is not older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_within: Option<Span>,
}

/// What a rejection does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The run fails.
    #[default]
    Stop,
    /// What needs the step is skipped.
    SkipDependents,
}

/// A durable wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "until", rename_all = "snake_case")]
pub enum Wait {
    /// For a length of time.
    Timer {
        /// How long: a template of a duration.
        duration: Value,
    },
    /// Until an expression over a read tool's `result` holds.
    Condition {
        /// The tool that looks.
        call: ToolCall,
        /// The expression.
        holds: String,
        /// How often it looks.
        every: Span,
        /// For how long at most.
        within: Span,
    },
    /// For an event.
    Event {
        /// The event's name.
        event: String,
        /// An expression over `event`, when not every one will do.
        when: Option<String>,
        /// For how long at most.
        within: Span,
    },
}

/// A verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The read tool that looks.
    pub call: ToolCall,
    /// Expressions over `result` that must all hold.
    pub assert: Vec<String>,
    /// How often it looks.
    pub every: Span,
    /// For how long at most.
    pub within: Span,
    /// What happens when they do not.
    pub on_fail: OnVerifyFail,
}

/// What a failed verification does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnVerifyFail {
    /// The run fails.
    #[default]
    Stop,
    /// The run fails, and the changes of the verification's ancestors are undone.
    Compensate,
}

/// What is retried, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// All tries, the first one included.
    pub max_attempts: u32,
    /// The delays between them.
    pub backoff: Backoff,
    /// The classes that are retried.
    pub on: Vec<crate::kernel::RetryClass>,
}

/// The delays between tries: `initial · factor^n`, at most `max`, each spread by `± jitter`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The first delay.
    pub initial: Span,
    /// What each further one is multiplied by.
    pub factor: f64,
    /// The longest one.
    pub max: Span,
    /// The part of it that is random, from 0 to 1.
    pub jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        use crate::kernel::RetryClass::{LockTimeout, Transient};
        Self { max_attempts: 3, backoff: Backoff::default(), on: vec![Transient, LockTimeout] }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Span::from_secs(1), factor: 2.0, max: Span::from_secs(30), jitter: 0.2 }
    }
}

/// A plan that cannot be trusted or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is not a plan.
    #[error("this is not a plan")]
    Unreadable(#[source] serde_json::Error),
    /// It was written by a newer version.
    #[error("the plan has format {found}, this version reads up to {FORMAT}")]
    NewerFormat {
        /// The format found.
        found: u16,
    },
    /// Its content is not what its id says.
    #[error("the plan was changed after it was made: its id says {id}, its content is {content}")]
    Tampered {
        /// The id in the file.
        id: Digest,
        /// The digest of the content.
        content: Digest,
    },
}

impl Plan {
    /// Seals a body into a plan.
    pub fn seal(body: PlanBody, created_at: Timestamp) -> Result<Self, PlanError> {
        let id = Digest::of_json(&body).map_err(PlanError::Unreadable)?;
        Ok(Self { format: FORMAT, id, created_at, body })
    }

    /// Reads a plan and refuses it unless its content is what its id says.
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Format {
            format: u16,
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
        if format > FORMAT {
            return Err(PlanError::NewerFormat { found: format });
        }
        let plan: Self = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
        let content = Digest::of_json(&plan.body).map_err(PlanError::Unreadable)?;
        if content == plan.id {
            Ok(plan)
        } else {
            Err(PlanError::Tampered { id: plan.id, content })
        }
    }

    /// The plan as canonical JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanError> {
        crate::kernel::digest::canonical_json(self).map_err(PlanError::Unreadable)
    }
}
