//! Deletes a project that was made to be thrown away, with all that it holds.
//!
//! Reads: the project and its branches.
//! Changes: the protection of its branches is taken off, and the project is deleted for good. One that is
//! gone already is no mistake; one whose id and label do not both say that it is disposable is refused.
//! Undo: none.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{ApiCall, ApiState, ChangeSet, Failure, Inverse, Risk};
use crate::lakebase::name::THROW_AWAY;
use crate::lakebase::{BranchName, ProjectName};
use crate::tools::branching::change::{called, protect};
use crate::tools::branching::lifecycle::is_done;
use crate::tools::branching::place;
use crate::tools::branching::survey::Survey;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(DeleteDisposableProject));

struct DeleteDisposableProject;

/// The label that a project must have, with the value `true`.
const LABEL: &str = "disposable";

/// The project is that of the target.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

/// What became of it.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The project.
    project: String,
    /// Whether it was deleted now.
    deleted: bool,
}

impl WriteTool for DeleteDisposableProject {
    const META: ToolMeta = ToolMeta {
        name: "delete_disposable_project",
        family: Family::Provisioning,
        risk: Risk::Medium,
        revision: 1,
        summary: "Deletes a project whose id and label say that it may be thrown away",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, _params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        judge(&project, Survey::find(cx.lakebase()?, &project).await?.as_ref())
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let last = settled.last();
        let project = last.and_then(|last| last.change.facts["project"].as_str());
        Output {
            project: project.unwrap_or_default().to_owned(),
            deleted: last.is_some_and(is_done),
        }
    }
}

fn judge(project: &str, survey: Option<&Survey>) -> Result<ChangeSet, Failure> {
    let name = ProjectName::new(project);
    let mut changes = Vec::new();
    let mut call = ApiCall::delete(name.path()).query("purge", "true");
    if !project.starts_with(THROW_AWAY) {
        return Err(kept(project, &format!("its id does not begin with `{THROW_AWAY}`")));
    }
    if let Some(survey) = survey {
        let tags = &survey.found.status.custom_tags;
        if !tags.iter().any(|tag| tag.key == LABEL && tag.value == "true") {
            return Err(kept(project, &format!("it lacks the label `{LABEL}: true`")));
        }
        for known in survey.branches.iter().filter(|known| known.branch.status.is_protected) {
            let branch = BranchName::new(project, known.branch.id());
            let why = "a project with a protected branch cannot be deleted".to_owned();
            let mut change = protect(&branch, (&known.branch.uid, None), false, why);
            // Nothing that anybody needs is behind this protection.
            change.risk = Risk::Medium;
            changes.push(change);
        }
        let same = json!({ "uid": survey.found.uid });
        call = call.only_if(ApiState::present(name.path(), same));
    }
    let mut change = called(format!("project {project}"), "it was made to be thrown away", call);
    change.risk = Risk::Medium;
    change.inverse = Inverse::Impossible { why: "what it held is gone with it".to_owned() };
    change.facts = json!({ "project": project });
    changes.push(change);
    Ok(ChangeSet::new(changes))
}

fn kept(project: &str, why: &str) -> Failure {
    Failure::permanent("branching::not_disposable", format!("project `{project}` is kept: {why}"))
        .with_help("only projects that were made to be thrown away are deleted by this tool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Operation;
    use crate::lakebase::resource::read;
    use serde_json::Value;

    fn survey(tags: &Value) -> Survey {
        let project =
            json!({ "name": "projects/tmp-1", "uid": "p-1", "status": { "custom_tags": tags } });
        let branch = |id: &str, protected: bool| {
            let name = format!("projects/tmp-1/branches/{id}");
            read("b", json!({ "name": name, "uid": id, "status": { "is_protected": protected } }))
        };
        let branches = [branch("production", true), branch("dev", false)];
        let branches = branches.into_iter().collect::<Result<_, _>>().unwrap();
        Survey::new("tmp-1", read("p", project).unwrap(), branches)
    }

    #[test]
    fn id_and_label_both_have_to_say_so() {
        let disposable = survey(&json!([{ "key": "disposable", "value": "true" }]));
        let set = judge("tmp-1", Some(&disposable)).unwrap();
        let calls: Vec<String> = set
            .changes
            .iter()
            .map(|change| match &change.operation {
                Operation::Api(call) => format!("{} {}", call.verb.as_str(), call.path),
                other => panic!("{other:?}"),
            })
            .collect();
        let base = "/api/2.0/postgres/projects/tmp-1";
        assert_eq!(calls, [format!("PATCH {base}/branches/production"), format!("DELETE {base}")]);
        assert!(judge("shop", Some(&disposable)).is_err());
        assert!(judge("tmp-1", Some(&survey(&json!([])))).is_err());
        assert_eq!(judge("tmp-1", None).unwrap().changes.len(), 1, "gone already");
    }
}
