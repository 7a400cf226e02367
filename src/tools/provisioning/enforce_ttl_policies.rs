//! Sees to it that branches go away when their time is over.
//!
//! The platform deletes a branch at its `expire_time`. So a branch that should expire and was not told
//! when is told; only one that is overdue is deleted here, leaves first.
//!
//! Reads: the project and its branches; the branch policy.
//! Changes: `expire_time` of branches without one; deletes branches that are overdue. Those that are
//! protected, that have children that stay, or that the policy keeps are left alone.
//! Undo: an expiry is taken away again; what was deleted is gone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{Change, ChangeSet, Failure, Risk, Span, Timestamp};
use crate::lakebase::BranchName;
use crate::tools::branching::change;
use crate::tools::branching::lifecycle::{self, BranchEvent, What, happened, is_done};
use crate::tools::branching::place;
use crate::tools::branching::policy::{Act, Creator, Question, consult};
use crate::tools::branching::survey::{Known, Survey};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(EnforceTtlPolicies));

struct EnforceTtlPolicies;

/// How strict it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How long after its time a branch is left to the platform, which deletes it by itself.
    #[serde(default = "quarter_of_an_hour")]
    grace: Span,
    /// Whether branches without an expiry are given the one of the policy.
    #[serde(default = "yes")]
    fix_missing: bool,
    /// Whether overdue branches are deleted.
    #[serde(default = "yes")]
    delete_expired: bool,
}

const fn quarter_of_an_hour() -> Span {
    Span::from_secs(900)
}

const fn yes() -> bool {
    true
}

/// What was done.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The branches that were deleted now.
    branches_deleted: Vec<String>,
    /// The branches that were told now when they expire.
    expirations_set: Vec<String>,
    /// What happened, for the history.
    events: Vec<BranchEvent>,
}

impl WriteTool for EnforceTtlPolicies {
    const META: ToolMeta = ToolMeta {
        name: "enforce_ttl_policies",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Makes branches expire, and deletes the overdue",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let survey = Survey::of(cx.lakebase()?, &project).await?;
        judge(cx, survey, &params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let named = |act: &str| {
            let done = settled.iter().filter(|one| is_done(one) && one.change.facts["act"] == act);
            let branch = |one: &Settled<'_>| one.change.facts["branch"].as_str().map(str::to_owned);
            done.filter_map(branch).collect()
        };
        Output {
            branches_deleted: named("delete"),
            expirations_set: named("expire"),
            events: happened(settled),
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}

/// What is to become of a branch.
enum Fate {
    Stays,
    Goes { since: Timestamp, risk: Risk, why: String },
    Expires { at: Timestamp, why: String },
}

fn judge(cx: &ReadContext<'_>, survey: Survey, params: &Params) -> Result<ChangeSet, Failure> {
    let mut changes = Vec::new();
    let mut told = Vec::new();
    let mut left = survey;
    // A branch without children goes; then its parent may have none any more.
    loop {
        let mut gone = Vec::new();
        for known in left.branches.iter().filter(|known| !known.is_held()) {
            let Fate::Goes { since, risk, why } = fate(cx, &left, known, params)? else { continue };
            let name = BranchName::new(left.project.as_str(), known.branch.id());
            let mut change = change::delete(&name, known, why.clone());
            change.risk = risk;
            let act = json!({ "branch": name.branch, "act": "delete", "since": since });
            let event = event(&left, known, What::Deleted, why);
            told.push(event.publication());
            changes.push(marked(change, act, &event));
            gone.push(known.branch.name.clone());
        }
        if gone.is_empty() {
            break;
        }
        let rest = left.branches.into_iter().map(|known| known.branch);
        let rest = rest.filter(|branch| !gone.contains(&branch.name)).collect();
        left = Survey::new(&left.project, left.found, rest);
    }
    for known in left.branches.iter().filter(|known| !known.is_held()) {
        let Fate::Expires { at, why } = fate(cx, &left, known, params)? else { continue };
        let name = BranchName::new(left.project.as_str(), known.branch.id());
        let change = change::expire_at(&name, known, at, why.clone());
        let act = json!({ "branch": name.branch, "act": "expire", "at": at });
        changes.push(marked(change, act, &event(&left, known, What::ExpirationSet, why)));
    }
    changes.extend(told);
    Ok(ChangeSet::new(changes))
}

fn fate(
    cx: &ReadContext<'_>,
    survey: &Survey,
    known: &Known,
    params: &Params,
) -> Result<Fate, Failure> {
    let status = &known.branch.status;
    let question = Question::new(Act::Delete, known.branch.id());
    let (answer, refusal) = consult(cx, Some(survey), question)?;
    let by_policy = || known.branch.create_time.zip(answer.ttl).map(|(at, ttl)| at.plus(ttl.0));
    let Some(at) = status.expire_time.or_else(by_policy) else { return Ok(Fate::Stays) };
    let now = cx.clock.now();
    let overdue = at.plus(params.grace.0) <= now;
    if overdue {
        let spared = !refusal.is_empty() || !params.delete_expired;
        let why = answer.because(&format!("its time was over at {at}"));
        let risk = answer.risk(Risk::Low);
        return Ok(if spared { Fate::Stays } else { Fate::Goes { since: at, risk, why } });
    }
    if status.expire_time.is_some() || !params.fix_missing {
        return Ok(Fate::Stays);
    }
    // Never in the past: what is due already is left for the next look.
    if at <= now {
        return Ok(Fate::Stays);
    }
    let ttl = answer.ttl.unwrap_or_default();
    let why = format!("branches of its kind live for {ttl}, and it was not told when to expire");
    Ok(Fate::Expires { at, why })
}

fn marked(mut change: Change, facts: serde_json::Value, event: &BranchEvent) -> Change {
    change.independent = true;
    change.facts = facts;
    event.mark(&mut change);
    change
}

fn event(survey: &Survey, known: &Known, event_type: What, reason: String) -> BranchEvent {
    BranchEvent {
        event_type,
        project_id: survey.project.clone(),
        branch_id: known.branch.id().to_owned(),
        source_branch: known.source().map(str::to_owned),
        ttl_seconds: None,
        is_protected: Some(false),
        creator_type: Creator::Ci,
        reason,
    }
}
