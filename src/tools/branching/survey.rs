//! What is there: a project, its branches, and who comes from whom, read once.

use std::collections::BTreeMap;

use crate::kernel::Failure;
use crate::lakebase::resource::{BranchState, EndpointState};
use crate::lakebase::{self, Branch, Project, ReadApi};

/// A project as it is.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Survey {
    /// Its id.
    pub(in crate::tools) project: String,
    /// The project itself.
    pub(in crate::tools) found: Project,
    /// Its branches, by id.
    pub(in crate::tools) branches: Vec<Known>,
    /// How many of its computes are active; `None`: nobody counted.
    pub(in crate::tools) active_computes: Option<usize>,
}

/// A branch that is there.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Known {
    /// The branch.
    pub(in crate::tools) branch: Branch,
    /// The ids of its children.
    pub(in crate::tools) children: Vec<String>,
}

impl Known {
    /// The id of its parent.
    pub(in crate::tools) fn source(&self) -> Option<&str> {
        self.branch.status.source_branch.as_deref().map(lakebase::name::id_of)
    }

    /// Whether it is put away.
    pub(in crate::tools) fn is_archived(&self) -> bool {
        self.branch.status.current_state == BranchState::Archived
    }

    /// Whether the platform keeps it from being deleted.
    pub(in crate::tools) fn is_held(&self) -> bool {
        let status = &self.branch.status;
        status.default || status.is_protected || self.branch.is_root() || !self.children.is_empty()
    }
}

impl Survey {
    /// Reads a project; `None` when there is none, or only a deleted one.
    pub(in crate::tools) async fn find(
        api: &dyn ReadApi,
        project: &str,
    ) -> Result<Option<Self>, Failure> {
        let found = lakebase::find_project(api, project).await?;
        let Some(found) = found.filter(|found| found.delete_time.is_none()) else {
            return Ok(None);
        };
        let branches = lakebase::branches(api, project).await?;
        Ok(Some(Self::new(project, found, branches)))
    }

    /// Reads a project that must be there.
    pub(in crate::tools) async fn of(api: &dyn ReadApi, project: &str) -> Result<Self, Failure> {
        Self::find(api, project).await?.ok_or_else(|| {
            Failure::permanent("branching::no_project", format!("there is no project `{project}`"))
                .with_help("`provision_lakebase_project` makes one; check the target's project")
        })
    }

    /// Puts together what was read.
    pub(in crate::tools) fn new(project: &str, found: Project, branches: Vec<Branch>) -> Self {
        let living: Vec<Branch> = branches.into_iter().filter(|one| !one.is_deleted()).collect();
        let mut children: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for branch in &living {
            // One that was made again from its own snapshot is no child of itself.
            let source = branch.status.source_branch.as_ref();
            if let Some(source) = source.filter(|source| **source != branch.name) {
                children.entry(source.clone()).or_default().push(branch.id().to_owned());
            }
        }
        let known = |branch: Branch| {
            let mut children = children.get(&branch.name).cloned().unwrap_or_default();
            children.sort();
            Known { branch, children }
        };
        let mut branches: Vec<Known> = living.into_iter().map(known).collect();
        branches.sort_by(|a, b| a.branch.id().cmp(b.branch.id()));
        Self { project: project.to_owned(), found, branches, active_computes: None }
    }

    /// Counts the active computes of the branches that are not put away.
    pub(in crate::tools) async fn count_computes(
        &mut self,
        api: &dyn ReadApi,
    ) -> Result<(), Failure> {
        let mut active = 0;
        for known in self.unarchived() {
            let endpoints = lakebase::endpoints(api, &self.project, known.branch.id()).await?;
            let at_work = |state: &EndpointState| {
                matches!(state, EndpointState::Active | EndpointState::Init)
            };
            active += endpoints.iter().filter(|one| at_work(&one.status.current_state)).count();
        }
        self.active_computes = Some(active);
        Ok(())
    }

    /// A branch by its id.
    pub(in crate::tools) fn branch(&self, id: &str) -> Option<&Known> {
        self.branches.iter().find(|known| known.branch.id() == id)
    }

    /// A branch that must be there.
    pub(in crate::tools) fn need(&self, id: &str) -> Result<&Known, Failure> {
        self.branch(id).ok_or_else(|| {
            let ids: Vec<&str> = self.branches.iter().map(|known| known.branch.id()).collect();
            Failure::permanent(
                "branching::no_branch",
                format!("project `{}` has no branch `{id}`", self.project),
            )
            .with_help(format!("there are: {}", ids.join(", ")))
        })
    }

    /// The id of the default branch.
    pub(in crate::tools) fn default_branch(&self) -> Option<&str> {
        let said = self.found.status.default_branch.as_deref().map(lakebase::name::id_of);
        let marked = self.branches.iter().find(|known| known.branch.status.default);
        said.or_else(|| marked.map(|known| known.branch.id()))
    }

    /// The branches that are not put away.
    pub(in crate::tools) fn unarchived(&self) -> impl Iterator<Item = &Known> {
        self.branches.iter().filter(|known| !known.is_archived())
    }

    /// The ids of the branches that the platform protects.
    pub(in crate::tools) fn protected(&self) -> Vec<&str> {
        let protected = self.branches.iter().filter(|known| known.branch.status.is_protected);
        protected.map(|known| known.branch.id()).collect()
    }
}

#[cfg(test)]
pub(in crate::tools) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The project `shop` with these branches.
    pub(in crate::tools) fn survey(branches: Vec<Value>) -> Survey {
        let project = json!({
            "name": "projects/shop",
            "uid": "p-1",
            "status": {"default_branch": "projects/shop/branches/production"},
        });
        let branch = |value| serde_json::from_value(value).unwrap();
        let branches = branches.into_iter().map(branch).collect();
        Survey::new("shop", serde_json::from_value(project).unwrap(), branches)
    }

    /// A branch of it.
    pub(in crate::tools) fn branch(id: &str, source: Option<&str>, status: &Value) -> Value {
        let mut branch = json!({
            "name": format!("projects/shop/branches/{id}"),
            "uid": format!("br-{id}"),
            "create_time": "2026-11-01T00:00:00Z",
            "status": {"current_state": "READY"},
        });
        if let Some(source) = source {
            branch["status"]["source_branch"] = json!(format!("projects/shop/branches/{source}"));
        }
        for (name, value) in status.as_object().unwrap() {
            branch["status"][name] = value.clone();
        }
        branch
    }

    #[test]
    fn children_are_found_and_the_deleted_are_not_counted() {
        let survey = survey(vec![
            branch("production", None, &json!({"default": true, "is_protected": true})),
            branch("staging", Some("production"), &json!({})),
            branch("gone", Some("staging"), &json!({"current_state": "DELETED"})),
            branch("old", Some("staging"), &json!({"current_state": "ARCHIVED"})),
        ]);
        let production = survey.need("production").unwrap();
        assert_eq!(production.children, ["staging"]);
        assert!(production.is_held());
        let staging = survey.need("staging").unwrap();
        assert_eq!((staging.source(), staging.children.len()), (Some("production"), 1));
        assert!(!survey.need("old").unwrap().is_held());
        assert_eq!(survey.unarchived().count(), 2);
        assert_eq!(survey.default_branch(), Some("production"));
        assert_eq!(survey.protected(), ["production"]);
        let failure = survey.need("nope").unwrap_err();
        assert_eq!(failure.help.unwrap(), "there are: old, production, staging");
    }
}
