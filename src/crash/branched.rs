//! Copies of a workspace's branch: branches of it. And projects of their own, for workflows about branches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::capture;
use super::fence::Fence;
use super::ground::{Ground, Place, Tools};
use super::snapshot::Snapshot;
use crate::engine::parts::{Rehearsals, ThrowAway};
use crate::kernel::{
    ApiCall, ApiState, BoxFuture, Change, Direction, Failure, Inverse, Operation, Recovery, Span,
    Target,
};
use crate::lakebase::name::{THROW_AWAY, path_of};
use crate::lakebase::{BranchName, ProjectName, ReadApi, Workspace, find_project};
use crate::plan::Plan;

/// Makes the plan for a target.
pub type Planner = Box<dyn Fn(&Target) -> Result<Plan, Failure> + Send + Sync>;

/// How long a branch lives when nobody removes it.
const TTL: Span = Span::from_secs(6 * 3600);

/// Branches of one branch.
pub struct Branched {
    tools: Tools,
    planner: Planner,
    source: Arc<dyn Rehearsals>,
    workspace: Arc<dyn Workspace>,
    original: Target,
    base: Mutex<Option<ThrowAway>>,
    made: Mutex<BTreeMap<usize, ThrowAway>>,
}

/// Whose branches can be made.
pub struct Origin {
    /// What makes branches.
    pub source: Arc<dyn Rehearsals>,
    /// The workspace.
    pub workspace: Arc<dyn Workspace>,
    /// The branch, named in full.
    pub target: Target,
}

impl Branched {
    /// Branches of a branch; `planner` makes the plan for each.
    pub fn new(tools: Tools, planner: Planner, origin: Origin) -> Self {
        Self {
            tools,
            planner,
            source: origin.source,
            workspace: origin.workspace,
            original: origin.target,
            base: Mutex::default(),
            made: Mutex::default(),
        }
    }

    fn on(&self, branch: &ThrowAway) -> Target {
        Target { database: self.original.database.clone(), ..branch.target.clone() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ground for Branched {
    fn about(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("a branch of {}/{}", part(&self.original.project), part(&self.original.branch))
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async {
            // The original may go on; what all copies are made of stands still.
            let suffix = format!("{}-base", self.tools.stem);
            let base = self.source.branch(&self.original, &suffix, TTL).await?;
            // Known before it is there: what is made half is removed as well.
            *lock(&self.base) = Some(base.clone());
            self.tools.change(&base.change, Direction::Do, None).await?;
            let place = self.on(&base);
            if self.tools.setup.is_empty() {
                return Ok(());
            }
            self.tools.set_up(&self.tools.endpoint(&place).await?).await
        })
    }

    fn place(&self, number: usize) -> BoxFuture<'_, Result<Place, Failure>> {
        Box::pin(async move {
            let base = lock(&self.base).clone();
            let Some(base) = base else {
                return Err(Failure::permanent("crash::no_base", "there is nothing to copy yet"));
            };
            let parent = Target { database: None, ..base.target };
            let suffix = format!("{}-{number}", self.tools.stem);
            let made = self.source.branch(&parent, &suffix, TTL).await?;
            lock(&self.made).insert(number, made.clone());
            self.tools.change(&made.change, Direction::Do, None).await?;
            let target = self.on(&made);
            let plan = (self.planner)(&target)?;
            let project = target.project.unwrap_or_default();
            let fence = Fence::Branch { project, branch: made.id.clone() };
            Ok(Place { name: made.id, plan, vars: Vec::new(), fence })
        })
    }

    fn capture<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Snapshot, Failure>> {
        Box::pin(async move {
            let mut snapshot = Snapshot::default();
            let project = self.original.project.clone().unwrap_or_default();
            let branch = (project.as_str(), place.name.as_str());
            capture::branch(&*self.workspace, branch, &mut snapshot).await?;
            let target = Target { branch: Some(place.name.clone()), ..self.original.clone() };
            capture::databases(&self.tools, &target, "", &mut snapshot).await?;
            Ok(snapshot)
        })
    }

    fn remove(&self, number: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let made = lock(&self.made).get(&number).cloned();
            if let Some(made) = made {
                self.tools.change(&made.change, Direction::Undo, None).await?;
                lock(&self.made).remove(&number);
            }
            Ok(())
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async {
            let base = lock(&self.base).take();
            match base {
                Some(base) => self.tools.change(&base.change, Direction::Undo, None).await,
                None => Ok(()),
            }
        })
    }
}

/// A project for each run.
pub struct OwnProjects {
    tools: Tools,
    planner: Planner,
    workspace: Arc<dyn Workspace>,
    own: OwnProject,
    target: Target,
}

/// What a project is like before a run.
#[derive(Clone, Debug)]
pub enum OwnProject {
    /// It is there, with these branches of its root.
    Made(Vec<String>),
    /// Only its name is new: the workflow makes it.
    Named,
}

impl OwnProjects {
    /// A project for each run, with the branch and database that `target` names.
    pub fn new(
        tools: Tools,
        planner: Planner,
        (workspace, target): (Arc<dyn Workspace>, Target),
        own: OwnProject,
    ) -> Self {
        Self { tools, planner, workspace, own, target }
    }

    fn name(&self, number: usize) -> String {
        format!("{THROW_AWAY}{}-{number}", self.tools.stem)
    }

    async fn branch(&self, project: &str, branch: &str) -> Result<(), Failure> {
        let name = BranchName::new(project, branch);
        let root = find_project(&*self.workspace, project).await?;
        let source = root.and_then(|root| root.status.default_branch);
        let call = ApiCall::post(ProjectName::new(project).branches_path())
            .query("branch_id", branch)
            .body(json!({ "spec": { "source_branch": source, "no_expiry": true } }))
            .proof(ApiState::present(name.path(), json!({ "name": name.to_string() })));
        let change = Change::new(name.to_string(), "a run finds it", Operation::Api(call));
        self.tools.change(&change, Direction::Do, None).await
    }

    fn change(project: &str) -> Change {
        let name = ProjectName::new(project);
        let spec = json!({ "spec": { "display_name": project,
            "custom_tags": [{ "key": "disposable", "value": "true" }] } });
        let call = ApiCall::post(path_of("projects"))
            .query("project_id", project)
            .body(spec)
            .proof(ApiState::present(name.path(), json!({ "name": name.to_string() })));
        let operation = Operation::Api(call);
        let mut change =
            Change::new(format!("project {project}"), "a run has it for itself", operation);
        change.recovery = Recovery::Probe;
        change.inverse = Inverse::By {
            operation: Operation::Api(ApiCall::delete(name.path()).query("purge", "true")),
            recovery: Recovery::Probe,
        };
        change
    }

    async fn unprotect(&self, project: &str) -> Result<(), Failure> {
        for branch in crate::lakebase::branches(&*self.workspace, project).await? {
            if branch.status.is_protected {
                let call = ApiCall::patch(path_of(&branch.name))
                    .query("update_mask", "spec.is_protected")
                    .body(json!({ "name": branch.name, "spec": { "is_protected": false } }));
                let change = Change::new(&branch.name, "its project goes", Operation::Api(call));
                self.tools.change(&change, Direction::Do, None).await?;
            }
        }
        Ok(())
    }
}

impl Ground for OwnProjects {
    fn about(&self) -> String {
        match &self.own {
            OwnProject::Made(branches) if branches.is_empty() => "a project of its own".to_owned(),
            OwnProject::Made(branches) => {
                format!("a project of its own, with the branches {}", branches.join(", "))
            }
            OwnProject::Named => "the name of a project, which it makes itself".to_owned(),
        }
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    fn place(&self, number: usize) -> BoxFuture<'_, Result<Place, Failure>> {
        Box::pin(async move {
            let name = self.name(number);
            let target = Target { project: Some(name.clone()), ..self.target.clone() };
            if let OwnProject::Made(branches) = &self.own {
                self.tools.change(&Self::change(&name), Direction::Do, None).await?;
                // A fresh project has its root branch only, and all others come from it.
                let root = Target { branch: None, ..target.clone() };
                if !self.tools.setup.is_empty() {
                    self.tools.set_up(&self.tools.endpoint(&root).await?).await?;
                }
                for branch in branches {
                    self.branch(&name, branch).await?;
                }
            }
            let plan = (self.planner)(&target)?;
            let fence = Fence::Project { project: name.clone() };
            Ok(Place { name, plan, vars: Vec::new(), fence })
        })
    }

    fn capture<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Snapshot, Failure>> {
        Box::pin(async move {
            let mut snapshot = Snapshot::default();
            let api: &dyn ReadApi = &*self.workspace;
            let branches = capture::project(api, &place.name, &mut snapshot).await?;
            for branch in branches {
                let label = format!("{branch} ");
                let target = Target {
                    project: Some(place.name.clone()),
                    branch: Some(branch),
                    database: self.target.database.clone(),
                };
                capture::databases(&self.tools, &target, &label, &mut snapshot).await?;
            }
            Ok(snapshot)
        })
    }

    fn remove(&self, number: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let name = self.name(number);
            let found = find_project(&*self.workspace, &name).await?;
            if found.is_none_or(|found| found.delete_time.is_some()) {
                return Ok(());
            }
            self.unprotect(&name).await?;
            self.tools.change(&Self::change(&name), Direction::Undo, None).await
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}
