//! Sets a branch back to its parent: deletes it and makes it again under its name.
//!
//! The platform has no call for it. The branch gets another uid, its computes other hosts, and below a
//! protected parent its roles other passwords; the report names them.
//!
//! Reads: the project, its branches, the branch's computes, the snapshots; the branch policy.
//! Changes: takes a snapshot, deletes the branch, makes it again from its parent with the time that it
//! had left, and gives its computes their settings back. A branch with children is refused.
//! Undo: the branch is made again from the snapshot. Where none can be taken it cannot be undone, and a
//! person is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{ApiCall, ChangeSet, Failure, Operation, Risk, Span, Timestamp};
use crate::lakebase::api::NOT_FOUND;
use crate::lakebase::{self, BranchName, Endpoint, ReadApi, Snapshot};
use crate::tools::branching::lifecycle::{self, BranchEvent, What, happened, resource};
use crate::tools::branching::place;
use crate::tools::branching::policy::{Act, Creator, Question, ask};
use crate::tools::branching::reset::{Keep, Reset, is_undoable};
use crate::tools::branching::survey::{Known, Survey};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ResetBranchFromParent));

struct ResetBranchFromParent;

/// The branch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its id; by default the branch of the target.
    #[serde(default)]
    branch_id: Option<String>,
    /// How long the snapshot is kept that undoing needs.
    #[serde(default = "a_week")]
    keep_snapshot: Span,
    /// Who asks.
    #[serde(default)]
    creator_type: Creator,
    /// Why, for the history.
    #[serde(default = "as_the_parent")]
    reason: String,
}

const fn a_week() -> Span {
    Span::from_secs(7 * 24 * 3600)
}

fn as_the_parent() -> String {
    "it is to be as its parent is".to_owned()
}

/// What became of it.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The project.
    project_id: String,
    /// The branch.
    branch_id: String,
    /// Its parent.
    source_branch: String,
    /// Whether it was made again.
    reset: bool,
    /// Its `br-…` before.
    old_uid: String,
    /// Its `br-…` now.
    uid: Option<String>,
    /// Its computes: they are reached elsewhere now.
    endpoints: Vec<Moved>,
    /// Whether its roles have other passwords now: the parent is protected.
    passwords_changed: bool,
    /// The snapshot of what it was, when one could be taken.
    snapshot: Option<String>,
    /// What happened, for the history.
    events: Vec<BranchEvent>,
}

/// A compute, before and now.
#[derive(Serialize, JsonSchema)]
struct Moved {
    /// Its id.
    endpoint: String,
    /// Its `ep-…` before.
    old_uid: Option<String>,
    /// Its `ep-…` now.
    uid: Option<String>,
    /// Where it was reached.
    old_host: Option<String>,
    /// Where it is reached now.
    host: Option<String>,
}

/// What the report needs of the proposal; it stands with the change that makes the branch again.
#[derive(Default, Serialize, Deserialize)]
struct Facts {
    project_id: String,
    branch_id: String,
    source_branch: String,
    old_uid: String,
    passwords_changed: bool,
    snapshot: Option<String>,
}

impl WriteTool for ResetBranchFromParent {
    const META: ToolMeta = ToolMeta {
        name: "reset_branch_from_parent",
        family: Family::Provisioning,
        risk: Risk::Medium,
        revision: 1,
        summary: "Sets a branch back to its parent",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let api = cx.lakebase()?;
        let project = place::project(cx.target)?;
        let branch = place::branch(params.branch_id.as_deref(), cx.target)?;
        let survey = Survey::of(api, &project).await?;
        let known = survey.need(&branch)?;
        let endpoints = lakebase::endpoints(api, &project, &branch).await?;
        let snapshots = snapshots(api, &project).await?;
        judge(cx, &survey, (known, &endpoints, snapshots.as_deref()), &params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let made = settled.iter().find(|one| one.change.facts.get("source_branch").is_some());
        let facts = made.and_then(|made| serde_json::from_value(made.change.facts.clone()).ok());
        let facts: Facts = facts.unwrap_or_default();
        let uid = made.and_then(|made| text(&resource(made)["uid"]));
        let reset = uid.as_ref().is_some_and(|uid| *uid != facts.old_uid);
        let moved = settled.iter().filter(|one| one.change.facts.get("endpoint").is_some());
        Output {
            project_id: facts.project_id,
            branch_id: facts.branch_id,
            source_branch: facts.source_branch,
            reset,
            old_uid: facts.old_uid,
            uid,
            endpoints: moved.map(moved_endpoint).collect(),
            passwords_changed: reset && facts.passwords_changed,
            snapshot: facts.snapshot,
            events: happened(settled),
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn moved_endpoint(settled: &Settled<'_>) -> Moved {
    let (facts, now) = (&settled.change.facts, resource(settled));
    Moved {
        endpoint: text(&facts["endpoint"]).unwrap_or_default(),
        old_uid: text(&facts["old_uid"]),
        uid: text(&now["uid"]),
        old_host: text(&facts["old_host"]),
        host: text(&now["status"]["hosts"]["host"]),
    }
}

/// The snapshots of a project; `None` where the workspace has none.
async fn snapshots(api: &dyn ReadApi, project: &str) -> Result<Option<Vec<Snapshot>>, Failure> {
    match lakebase::snapshots(api, project).await {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.code == NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn judge(
    cx: &ReadContext<'_>,
    survey: &Survey,
    (known, endpoints, snapshots): (&Known, &[Endpoint], Option<&[Snapshot]>),
    params: &Params,
) -> Result<ChangeSet, Failure> {
    let branch = known.branch.id();
    let question = Question { creator: params.creator_type, ..Question::new(Act::Reset, branch) };
    let answer = ask(cx, Some(survey), question)?;
    possible(known, cx.clock.now())?;
    let source = survey.need(known.source().unwrap_or_default())?;
    let full = |id: &str| BranchName::new(survey.project.as_str(), id);
    let keep = Keep::of(known, snapshots);
    let snapshot = match &keep {
        Keep::Snapshot(id) => Some(id.clone()),
        Keep::Nothing(_) => None,
    };
    let reset = Reset {
        name: full(branch),
        source: full(source.branch.id()),
        known,
        endpoints,
        keep,
        kept_for: params.keep_snapshot,
    };
    let mut changes = reset.changes(&answer.because(&params.reason));
    let own = if is_undoable(&changes) { Risk::Medium } else { Risk::High };
    let risk = answer.risk(own);
    let event = BranchEvent {
        event_type: What::Reset,
        project_id: survey.project.clone(),
        branch_id: branch.to_owned(),
        source_branch: Some(source.branch.id().to_owned()),
        ttl_seconds: None,
        is_protected: Some(false),
        creator_type: params.creator_type,
        reason: params.reason.clone(),
    };
    let facts = Facts {
        project_id: survey.project.clone(),
        branch_id: branch.to_owned(),
        source_branch: source.branch.id().to_owned(),
        old_uid: known.branch.uid.clone(),
        passwords_changed: source.branch.status.is_protected,
        snapshot,
    };
    for change in &mut changes {
        if is(change, |call| call.path == full(branch).path() && call.only_if.is_some()) {
            change.risk = risk;
        }
        if is(change, |call| call.query.contains_key("branch_id")) {
            change.facts = json!(facts);
            event.mark(change);
        }
    }
    changes.push(event.publication());
    Ok(ChangeSet::new(changes))
}

fn is(change: &crate::kernel::Change, wanted: impl Fn(&ApiCall) -> bool) -> bool {
    matches!(&change.operation, Operation::Api(call) if wanted(call))
}

/// What no policy can allow: the platform refuses it, half-way through.
fn possible(known: &Known, now: Timestamp) -> Result<(), Failure> {
    let refused = |text: String| Err(Failure::permanent("branching::not_resettable", text));
    let id = known.branch.id();
    if !known.children.is_empty() {
        return refused(format!("`{id}` has children: {}", known.children.join(", ")));
    }
    if known.branch.status.is_protected || known.branch.status.default || known.branch.is_root() {
        return refused(format!("`{id}` is protected, the default branch or has no parent"));
    }
    match known.branch.status.expire_time {
        Some(at) if at <= now => refused(format!("`{id}` has expired at {at}")),
        _ => Ok(()),
    }
}
