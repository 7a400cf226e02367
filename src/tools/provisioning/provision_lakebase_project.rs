//! Makes a project with the branches of a pattern, or what is missing of them.
//!
//! Reads: the project, when it is there, with its branches and computes; the branch policy.
//! Changes: the project, its labels, the protection of its root, and the branches of the pattern. What is
//! there already as it should be is adopted.
//! Undo: what was made is deleted, what was there stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{Change, ChangeSet, Failure, Risk, Target};
use crate::lakebase::{self, BranchName};
use crate::tools::branching::capacity::{MOST_PROTECTED, room_for};
use crate::tools::branching::change::{Expiry, NewBranch, Point, protect};
use crate::tools::branching::lifecycle::{
    self, BranchEvent, What, happened, is_done, publication, resource,
};
use crate::tools::branching::name;
use crate::tools::branching::pattern::{Pattern, Protection, ROOT, Wanted};
use crate::tools::branching::policy::{Act, Creator, Question, ask};
use crate::tools::branching::project::Shape;
use crate::tools::branching::survey::Survey;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ProvisionLakebaseProject));

struct ProvisionLakebaseProject;

/// The project.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its id; by default the project of the target, else `DOMAIN-ENVIRONMENT`.
    #[serde(default)]
    project_name: Option<String>,
    /// What it serves, such as `webshop`; becomes a label.
    #[serde(default)]
    domain: Option<String>,
    /// Which environment it is; becomes a label.
    #[serde(default = "production")]
    environment: String,
    /// Which branches it is made with.
    #[serde(default)]
    branching_pattern: Pattern,
    /// The developers of the pattern `per_developer`.
    #[serde(default)]
    developers: Vec<String>,
    /// What it is like.
    #[serde(default)]
    shape: Shape,
    /// Who asks.
    #[serde(default)]
    creator_type: Creator,
}

fn production() -> String {
    ROOT.to_owned()
}

/// What became of it.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The project.
    project: String,
    /// A UUID that is never given twice.
    uid: Option<String>,
    /// Whether it was made now.
    created: bool,
    /// The pattern of its branches.
    branching_pattern: Option<String>,
    /// The branches of the pattern, the root first.
    branches: Vec<Provisioned>,
    /// What happened, for the history.
    events: Vec<BranchEvent>,
}

/// A branch of the pattern.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Provisioned {
    /// Its id.
    branch: String,
    /// Its parent.
    source_branch: Option<String>,
    /// How long it lives, in seconds; absent: it stays.
    ttl_seconds: Option<u64>,
    /// How it is kept from harm: `platform`, `policy` or `none`.
    protection: String,
    /// Whether it was made now.
    #[serde(default)]
    created: bool,
}

impl WriteTool for ProvisionLakebaseProject {
    const META: ToolMeta = ToolMeta {
        name: "provision_lakebase_project",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Makes a project with the branches of a pattern",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let api = cx.lakebase()?;
        let project = project_of(&params, cx.target)?;
        let found = lakebase::find_project(api, &project).await?;
        if let Some(at) = found.as_ref().and_then(|found| found.delete_time) {
            let text = format!("project `{project}` was deleted at {at} and can still come back");
            return Err(Failure::permanent("branching::deleted_project", text)
                .with_help("undelete it, purge it, or choose another id"));
        }
        let mut survey = Survey::find(api, &project).await?;
        if let Some(survey) = &mut survey {
            survey.count_computes(api).await?;
        }
        judge(cx, survey.as_ref(), &project, &params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let branches = settled.iter().filter_map(|one| {
            let facts = one.change.facts.get("provisioned")?.clone();
            let branch: Provisioned = serde_json::from_value(facts).ok()?;
            let made = branch.source_branch.is_some() || first.is_some_and(is_done);
            Some(Provisioned { created: made && is_done(one), ..branch })
        });
        let fact = |name: &str| {
            first.and_then(|first| first.change.facts[name].as_str()).map(str::to_owned)
        };
        Output {
            project: fact("project").unwrap_or_default(),
            uid: first.and_then(|first| resource(first)["uid"].as_str()).map(str::to_owned),
            created: first.is_some_and(is_done),
            branching_pattern: fact("pattern"),
            branches: branches.collect(),
            events: happened(settled),
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}

fn project_of(params: &Params, target: &Target) -> Result<String, Failure> {
    if let Some(project) = params.project_name.as_ref().or(target.project.as_ref()) {
        return name::to_id(project);
    }
    let Some(domain) = &params.domain else {
        let text = "neither `project_name`, nor the target's project, nor `domain` is given";
        return Err(Failure::permanent("branching::no_target", text));
    };
    name::of_project(domain, &params.environment)
}

fn judge(
    cx: &ReadContext<'_>,
    survey: Option<&Survey>,
    project: &str,
    params: &Params,
) -> Result<ChangeSet, Failure> {
    let wanted = params.branching_pattern.branches(&params.developers)?;
    let is_there = |id: &str| survey.is_some_and(|survey| survey.branch(id).is_some());
    if let Some(survey) = survey {
        let missing = wanted.iter().filter(|one| !is_there(&one.branch)).count();
        room_for(survey, missing)?;
        survey.need(ROOT).map_err(|failure| {
            failure.with_help(format!(
                "the patterns begin at `{ROOT}`, and this project was made otherwise"
            ))
        })?;
    }
    let shape = labelled(params);
    let mut made = shape.project(project, survey);
    made.facts = json!({ "project": project, "pattern": params.branching_pattern });
    let mut changes = vec![made];
    changes.extend(survey.and_then(|survey| shape.labels(survey)));
    let mut told = Vec::new();
    let work = Work { cx, survey, project, creator: params.creator_type };
    for branch in &wanted {
        let (change, event) = work.branch(branch)?;
        if !is_there(&branch.branch) || event.event_type == What::Protected {
            told.push(event.publication());
        }
        changes.push(change);
    }
    changes.extend(told);
    let branches: Vec<&str> = wanted.iter().map(|one| one.branch.as_str()).collect();
    let payload = json!({
        "project": project,
        "branch": ROOT,
        "project_id": project,
        "branches": branches,
    });
    changes.push(publication("provisioning_complete", None, &payload));
    Ok(ChangeSet::new(changes))
}

/// The shape with the labels that every project of ours has; the user's own win.
fn labelled(params: &Params) -> Shape {
    let mut shape = params.shape.clone();
    let mut label = |key: &str, value: &str| {
        shape.tags.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    };
    if let Some(domain) = &params.domain {
        label("domain", domain);
    }
    label("environment", &params.environment);
    label("managed_by", "lakeops");
    shape
}

struct Work<'a> {
    cx: &'a ReadContext<'a>,
    survey: Option<&'a Survey>,
    project: &'a str,
    creator: Creator,
}

impl Work<'_> {
    /// The change for a branch of the pattern, and what it is told as.
    fn branch(&self, wanted: &Wanted) -> Result<(Change, BranchEvent), Failure> {
        let (mut change, event_type) = match wanted.source {
            None => (self.root(wanted)?, What::Protected),
            Some(source) => (self.child(wanted, source)?, What::Created),
        };
        let event = BranchEvent {
            event_type,
            project_id: self.project.to_owned(),
            branch_id: wanted.branch.clone(),
            source_branch: wanted.source.map(str::to_owned),
            ttl_seconds: wanted.ttl.map(|ttl| ttl.0.as_secs()),
            is_protected: Some(wanted.protection == Protection::Platform),
            creator_type: self.creator,
            reason: "project setup".to_owned(),
        };
        change.facts = json!({ "provisioned": provisioned(wanted) });
        event.mark(&mut change);
        Ok((change, event))
    }

    /// The root is made with the project. It is protected first, so that the passwords of its roles are
    /// not those of its children.
    fn root(&self, wanted: &Wanted) -> Result<Change, Failure> {
        let name = BranchName::new(self.project, wanted.branch.as_str());
        let known = self.survey.and_then(|survey| survey.branch(&wanted.branch));
        let others = self.survey.map(Survey::protected).unwrap_or_default();
        let others: Vec<_> = others.into_iter().filter(|id| *id != wanted.branch).collect();
        if others.len() >= MOST_PROTECTED {
            let text = format!(
                "`{}` is to be protected, and the platform protects `{}` already",
                wanted.branch,
                others.join("`, `")
            );
            return Err(Failure::permanent("branching::full", text)
                .with_help("end its protection first: `protect_branch` with `protected: false`"));
        }
        let question =
            Question { creator: self.creator, ..Question::new(Act::Protect, &wanted.branch) };
        let answer = ask(self.cx, self.survey, question)?;
        let facts = known.map_or(("", None), |known| {
            (known.branch.uid.as_str(), known.branch.status.expire_time)
        });
        let why = answer.because("others rely on it");
        let mut change = protect(&name, facts, true, why);
        // Nothing worked on a project that is yet to be made.
        change.risk = answer.risk(if known.is_some() { Risk::Medium } else { Risk::Low });
        if known.is_some_and(|known| known.branch.status.is_protected) {
            change.inverse = crate::kernel::Inverse::Unneeded;
            change.risk = Risk::Low;
        }
        Ok(change)
    }

    fn child(&self, wanted: &Wanted, source: &str) -> Result<Change, Failure> {
        let existing = self.survey.and_then(|survey| survey.branch(&wanted.branch));
        let question = Question {
            source: Some(source),
            creator: self.creator,
            ttl: wanted.ttl,
            no_expiry: wanted.ttl.is_none(),
            ..Question::new(Act::Create, &wanted.branch)
        };
        let answer = ask(self.cx, self.survey, question)?;
        let new = NewBranch {
            name: BranchName::new(self.project, wanted.branch.as_str()),
            source: BranchName::new(self.project, source),
            point: Point::Head,
            expiry: Expiry::of(wanted.ttl),
        };
        let mut change = new.change(existing, answer.because("the pattern wants it"));
        change.risk = answer.risk(Risk::Low);
        Ok(change)
    }
}

fn provisioned(wanted: &Wanted) -> Value {
    json!({
        "branch": wanted.branch,
        "source_branch": wanted.source,
        "ttl_seconds": wanted.ttl.map(|ttl| ttl.0.as_secs()),
        "protection": wanted.protection,
    })
}
