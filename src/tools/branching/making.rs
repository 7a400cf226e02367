//! Making one branch, or adopting it: what `create_branch` and `create_branch_on_pr` propose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::capacity::{LONGEST_TTL, room_for, within_cap};
use super::change::{Expiry, NewBranch, Point};
use super::lifecycle::{BranchEvent, What, happened, is_done, resource};
use super::policy::{Act, Answer, Creator, Question, ask};
use super::survey::{Known, Survey};
use super::{name, place};
use crate::kernel::{ChangeSet, Failure, Risk, Span, Timestamp};
use crate::lakebase::BranchName;
use crate::tools::ReadContext;
use crate::tools::tool::Settled;

/// A branch that somebody asks for.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Request {
    /// What it is to be called, as somebody wrote it.
    pub(in crate::tools) wanted: String,
    /// The id of its parent; `None`: the default branch.
    pub(in crate::tools) source: Option<String>,
    /// From where on the parent it begins.
    pub(in crate::tools) point: Point,
    /// Who asks.
    pub(in crate::tools) creator: Creator,
    /// When it is to go away; `None`: as the policy says.
    pub(in crate::tools) expiry: Option<Expiry>,
    /// Why.
    pub(in crate::tools) why: String,
}

/// What became of the branch.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct Made {
    /// Its id.
    pub(in crate::tools) branch: String,
    /// What was asked for, before it became an id.
    pub(in crate::tools) requested: String,
    /// The id of its parent.
    pub(in crate::tools) source_branch: String,
    /// Whether it was made now; false: one of that name and parent was there.
    pub(in crate::tools) created: bool,
    /// Its `br-…`.
    pub(in crate::tools) uid: Option<String>,
    /// When it goes away; absent: it stays.
    pub(in crate::tools) expire_time: Option<String>,
    /// What is worth knowing.
    pub(in crate::tools) warnings: Vec<String>,
    /// What happened, for the history.
    pub(in crate::tools) events: Vec<BranchEvent>,
}

/// What the report needs of the proposal.
#[derive(Default, Serialize, Deserialize)]
struct Facts {
    branch: String,
    requested: String,
    source_branch: String,
    warnings: Vec<String>,
}

/// Proposes the branch: the policy is asked, the parent and the room for it are looked at first.
pub(in crate::tools) async fn propose(
    cx: &ReadContext<'_>,
    request: &Request,
) -> Result<ChangeSet, Failure> {
    let api = cx.lakebase()?;
    let project = place::project(cx.target)?;
    let branch = name::to_id(&request.wanted)?;
    let mut survey = Survey::of(api, &project).await?;
    if survey.branch(&branch).is_none() {
        survey.count_computes(api).await?;
    }
    judge(cx, &survey, branch, request)
}

fn judge(
    cx: &ReadContext<'_>,
    survey: &Survey,
    branch: String,
    request: &Request,
) -> Result<ChangeSet, Failure> {
    let source = source_of(survey, &branch, request)?;
    let existing = survey.branch(&branch);
    let mut warnings = Vec::new();
    let (answer, expiry) = if let Some(known) = existing {
        same_parent(known, &source)?;
        (Answer::default(), request.expiry.unwrap_or(Expiry::Never))
    } else {
        room_for(survey, 1)?;
        let answer = ask(cx, Some(survey), question(&branch, &source, request, cx)?)?;
        let expiry = match request.expiry {
            Some(Expiry::At(at)) => Expiry::At(at),
            _ => capped(answer.ttl, &mut warnings),
        };
        (answer, expiry)
    };
    warnings.extend(answer.warnings.iter().cloned());
    let new = NewBranch {
        name: BranchName::new(survey.project.as_str(), branch.as_str()),
        source: BranchName::new(survey.project.as_str(), source.as_str()),
        point: request.point.clone(),
        expiry,
    };
    let mut change = new.change(existing, answer.because(&request.why));
    change.risk = answer.risk(Risk::Low);
    let facts = Facts {
        branch: branch.clone(),
        requested: request.wanted.clone(),
        source_branch: source.clone(),
        warnings,
    };
    change.facts = json!(facts);
    let event = BranchEvent {
        event_type: What::Created,
        project_id: survey.project.clone(),
        branch_id: branch,
        source_branch: Some(source),
        ttl_seconds: expiry.ttl_seconds(),
        is_protected: Some(false),
        creator_type: request.creator,
        reason: request.why.clone(),
    };
    event.mark(&mut change);
    let told = existing.is_none().then(|| event.publication());
    Ok(ChangeSet::new(std::iter::once(change).chain(told).collect()))
}

/// The parent: a branch that is there and is another one.
fn source_of(survey: &Survey, branch: &str, request: &Request) -> Result<String, Failure> {
    let wanted = request.source.as_deref().map(name::to_id).transpose()?;
    let source =
        wanted.or_else(|| survey.default_branch().map(str::to_owned)).ok_or_else(|| {
            let text = format!("project `{}` has no default branch", survey.project);
            Failure::permanent("branching::no_default_branch", text)
                .with_help("name `source_branch`")
        })?;
    if source == branch {
        let text = format!("`{branch}` cannot be its own parent");
        return Err(Failure::permanent("branching::own_parent", text));
    }
    survey.need(&source)?;
    Ok(source)
}

/// What is there under the name is only taken for what was asked for when it comes from the same parent.
fn same_parent(known: &Known, source: &str) -> Result<(), Failure> {
    if known.source() == Some(source) {
        return Ok(());
    }
    let actual = known.source().map_or_else(
        || "has no parent".to_owned(),
        |actual| format!("comes from `{actual}`, not from `{source}`"),
    );
    let text = format!("branch `{}` is there already, and it {actual}", known.branch.id());
    Err(Failure::permanent("lakebase::exists_otherwise", text)
        .with_help("choose another name, or delete what is there"))
}

fn question<'a>(
    branch: &'a str,
    source: &'a str,
    request: &Request,
    cx: &ReadContext<'_>,
) -> Result<Question<'a>, Failure> {
    let ttl = match request.expiry {
        Some(Expiry::After(ttl)) => Some(ttl),
        Some(Expiry::At(at)) => Some(until(cx.clock.now(), at)?),
        Some(Expiry::Never) | None => None,
    };
    Ok(Question {
        source: Some(source),
        creator: request.creator,
        ttl,
        no_expiry: request.expiry == Some(Expiry::Never),
        ..Question::new(Act::Create, branch)
    })
}

/// How long it is until an instant that lies ahead, and not too far.
fn until(now: Timestamp, at: Timestamp) -> Result<Span, Failure> {
    let left = Span(at.since(now));
    if left.0.is_zero() || left > LONGEST_TTL {
        let text = format!("`expire_time` {at} is not within {LONGEST_TTL} from now");
        return Err(Failure::permanent("branching::bad_expiry", text));
    }
    Ok(left)
}

fn capped(ttl: Option<Span>, warnings: &mut Vec<String>) -> Expiry {
    let Some(wanted) = ttl else { return Expiry::Never };
    let (ttl, is_less) = within_cap(wanted);
    if is_less {
        warnings.push(format!("{wanted} is more than the platform gives; it lives for {ttl}"));
    }
    Expiry::After(ttl)
}

/// What became of it.
pub(in crate::tools) fn report(settled: &[Settled<'_>]) -> Made {
    let first = settled.first();
    let facts = first.and_then(|first| serde_json::from_value(first.change.facts.clone()).ok());
    let facts: Facts = facts.unwrap_or_default();
    let text = |pointer: &str| {
        let found = first.and_then(|first| resource(first).pointer(pointer));
        found.and_then(|value| value.as_str()).map(str::to_owned)
    };
    Made {
        branch: facts.branch,
        requested: facts.requested,
        source_branch: facts.source_branch,
        created: first.is_some_and(is_done),
        uid: text("/uid"),
        expire_time: text("/status/expire_time"),
        warnings: facts.warnings,
        events: happened(settled),
    }
}
