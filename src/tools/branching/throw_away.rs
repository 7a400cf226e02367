//! A branch that is there to be thrown away: changes are tried on it before they touch its parent.

use super::capacity::{room_for, within_cap};
use super::change::{Expiry, NewBranch, Point};
use super::survey::Survey;
use crate::kernel::{Change, Failure, Span, Target};
use crate::lakebase::name::THROW_AWAY;
use crate::lakebase::{BranchName, ReadApi};

/// What makes the branch `tmp-SUFFIX` of a target's branch, with a compute of its own. It expires after
/// `ttl`, at most 30 days; the inverse deletes it earlier. Refused when the project has no room for it.
pub async fn throw_away(
    api: &dyn ReadApi,
    target: &Target,
    suffix: &str,
    ttl: Span,
) -> Result<(BranchName, Change), Failure> {
    let Some(project) = target.project.as_deref() else {
        let text = "the target names no project, so nothing can be branched";
        return Err(Failure::permanent("branching::no_project", text)
            .with_help("name it: `--target PROJECT/BRANCH`"));
    };
    let mut survey = Survey::of(api, project).await?;
    survey.count_computes(api).await?;
    room_for(&survey, 1)?;
    let source = target.branch.as_deref().or_else(|| survey.default_branch());
    let source = survey.need(source.unwrap_or("production"))?.branch.id();
    let name = BranchName::new(project, format!("{THROW_AWAY}{suffix}"));
    let branch = NewBranch {
        name: name.clone(),
        source: BranchName::new(project, source),
        point: Point::Head,
        expiry: Expiry::After(within_cap(ttl).0),
    };
    let why = format!("changes are tried here before they touch `{source}`");
    Ok((name, branch.change(None, why)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::proposals::Answers;
    use super::super::survey::tests::branch;
    use super::*;
    use crate::kernel::{Inverse, Operation};

    fn made(branches: usize) -> Result<(BranchName, Change), Failure> {
        let spare = |number| branch(&format!("b{number}"), Some("production"), &json!({}));
        let root = branch("production", None, &json!({"default": true}));
        let all = std::iter::once(root).chain((1..branches).map(spare));
        let answers = Answers::shop(all.collect());
        let target = Target { project: Some("shop".into()), ..Target::default() };
        futures::executor::block_on(throw_away(&answers, &target, "x", Span::from_secs(3600)))
    }

    #[test]
    fn it_expires_and_its_inverse_deletes_it() {
        let (name, change) = made(2).unwrap();
        assert_eq!(name.to_string(), "projects/shop/branches/tmp-x");
        let Operation::Api(call) = &change.operation else { panic!("{change:?}") };
        let spec = &call.body.as_ref().unwrap()["spec"];
        assert_eq!(spec["ttl"], "3600s");
        assert_eq!(spec["source_branch"], "projects/shop/branches/production");
        let Inverse::By { operation: Operation::Api(delete), .. } = &change.inverse else {
            panic!("{change:?}")
        };
        assert_eq!((delete.verb.as_str(), delete.path.as_str()), ("DELETE", name.path().as_str()));
    }

    #[test]
    fn a_full_project_has_no_room() {
        assert!(made(9).is_ok());
        assert_eq!(made(10).unwrap_err().code, "branching::full");
    }
}
