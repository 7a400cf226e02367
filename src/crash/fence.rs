//! What keeps a run of a test on its copy: everything else is refused before it is touched.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::apply::{Applied, Applier, Appliers, ApplyContext, Recovered};
use crate::engine::parts::{Endpoints, Parts};
use crate::kernel::{ApiCall, ApiVerb, BoxFuture, Failure, Operation, SqlStatement, Target};
use crate::lakebase::name::path_of;
use crate::lakebase::{BranchName, ProjectName, ReadApi, Reply, Workspace};
use crate::postgres::PgEndpoint;
use crate::postgres::scan::{Token, tokens};
use crate::tools::context::AskModel;

/// The code of the failure that something lies beyond the fence.
pub const BEYOND: &str = "crash::beyond_the_copy";

/// The copy that a run has for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Fence {
    /// A database on a server that others use as well.
    Database {
        /// Its name.
        database: String,
    },
    /// A branch with its computes.
    Branch {
        /// Its project.
        project: String,
        /// Its id.
        branch: String,
    },
    /// A whole project.
    Project {
        /// Its id.
        project: String,
    },
}

/// What acts on a server as a whole, or on other databases of it.
const SERVER_WIDE: [&str; 12] = [
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_create_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_drop_replication_slot",
    "system",
    "role",
    "user",
    "database",
    "tablespace",
    "subscription",
];

impl Fence {
    fn admits_target(&self, target: &Target) -> bool {
        let is = |own: &Option<String>, id: &String| own.as_ref() == Some(id);
        match self {
            Self::Database { .. } => true,
            Self::Branch { project, branch } => {
                is(&target.project, project) && is(&target.branch, branch)
            }
            Self::Project { project } => is(&target.project, project),
        }
    }

    fn admits_endpoint(&self, endpoint: &PgEndpoint) -> bool {
        match self {
            Self::Database { database } => endpoint.database() == database,
            Self::Branch { .. } | Self::Project { .. } => true,
        }
    }

    fn admits_call(&self, call: &ApiCall) -> bool {
        let root = match self {
            Self::Database { .. } => return false,
            Self::Branch { project, branch } => BranchName::new(project, branch).path(),
            Self::Project { project } => {
                let makes_it = call.verb == ApiVerb::Post
                    && call.path == path_of("projects")
                    && call.query.get("project_id") == Some(project);
                if makes_it {
                    return true;
                }
                ProjectName::new(project).path()
            }
        };
        let rest = call.path.strip_prefix(root.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') && !rest.contains(".."))
    }

    /// Whether a statement stays in its database, where the server is not its own.
    fn admits_statement(&self, statement: &SqlStatement) -> bool {
        let Self::Database { .. } = self else { return true };
        let words: Vec<String> = tokens(&statement.text).iter().filter_map(Token::name).collect();
        let first = words.first().map(String::as_str);
        let defines = matches!(first, Some("alter" | "create" | "drop" | "reassign"));
        let is_server_wide = |place: usize, word: &str| {
            SERVER_WIDE.contains(&word) && (word.starts_with("pg_") || defines && place == 1)
        };
        !words.iter().enumerate().any(|(place, word)| is_server_wide(place, word))
    }

    fn refuse(&self, what: &str) -> Failure {
        let copy = match self {
            Self::Database { database } => format!("the database `{database}`"),
            Self::Branch { project, branch } => format!("the branch `{project}/{branch}`"),
            Self::Project { project } => format!("the project `{project}`"),
        };
        let text = format!("{what} lies beyond the copy that this run has for itself: {copy}");
        let help = match self {
            Self::Database { .. } => {
                "test it on a branch of a workspace, which has a server of its own: `lakeops emulator start`"
            }
            Self::Branch { .. } => "give each run a project of its own: `--own-project`",
            Self::Project { .. } => {
                "name everything after the project, which is another for each run"
            }
        };
        Failure::permanent(BEYOND, text).with_help(help)
    }
}

/// The same parts, kept within a fence. `folder`: the files that a run may write; `outside`: whether
/// programs are run, requests sent and other files written.
pub fn fenced(parts: Parts, fence: &Fence, folder: &Path, outside: bool) -> Parts {
    let guard = Arc::new(Guard {
        fence: fence.clone(),
        inner: Arc::clone(&parts.appliers),
        folder: folder.to_owned(),
        outside,
    });
    let mut appliers = Appliers::clone(&parts.appliers);
    for kind in ["sql", "transaction", "http", "command", "file"] {
        appliers = appliers.replacing(kind, Arc::<Guard>::clone(&guard));
    }
    let endpoints = Fenced { fence: fence.clone(), inner: Arc::clone(&parts.endpoints), outside };
    Parts { appliers: Arc::new(appliers), endpoints: Arc::new(endpoints), ..parts }
}

/// Lets through what stays within the fence.
struct Guard {
    fence: Fence,
    inner: Arc<Appliers>,
    folder: PathBuf,
    outside: bool,
}

impl Guard {
    fn check(&self, operation: &Operation) -> Result<(), Failure> {
        match operation {
            Operation::File { path, .. } if lies_in(Path::new(path), &self.folder) => {
                return Ok(());
            }
            Operation::File { .. } | Operation::Http { .. } | Operation::Command { .. } => {
                return if self.outside { Ok(()) } else { Err(is_outside(operation)) };
            }
            _ => {}
        }
        let mut statements = operation.statements().iter();
        match statements.find(|statement| !self.fence.admits_statement(statement)) {
            Some(statement) => Err(self.fence.refuse(&format!("`{}`", statement.text))),
            None => Ok(()),
        }
    }
}

/// Whether a path stays in a folder: one that steps back may not.
fn lies_in(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) && !path.components().any(|part| part == Component::ParentDir)
}

fn is_outside(operation: &Operation) -> Failure {
    let text = format!("{operation} has its effect outside of any copy");
    Failure::permanent(BEYOND, text).with_help(
        "with `--outside` programs are run, requests sent and files written for real, once or more for each boundary",
    )
}

impl Applier for Guard {
    fn fingerprint<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, Failure>> {
        self.inner.of(cx.operation).fingerprint(cx)
    }

    fn prepare<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, ()> {
        match self.check(cx.operation) {
            Ok(()) => self.inner.of(cx.operation).prepare(cx),
            // Carrying it out says why not.
            Err(_) => Box::pin(async {}),
        }
    }

    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        match self.check(cx.operation) {
            Ok(()) => self.inner.of(cx.operation).apply(cx),
            Err(failure) => Box::pin(async { Err(failure) }),
        }
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        match self.check(cx.operation) {
            Ok(()) => self.inner.of(cx.operation).recover(cx, fingerprint),
            Err(failure) => Box::pin(async { Err(failure) }),
        }
    }
}

/// Where databases are, within the fence.
struct Fenced {
    fence: Fence,
    inner: Arc<dyn Endpoints>,
    outside: bool,
}

impl Endpoints for Fenced {
    fn endpoint<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
        wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        Box::pin(async move {
            if !self.fence.admits_target(target) {
                return Err(self.fence.refuse(&format!("`{target}`")));
            }
            let endpoint = self.inner.endpoint(connection, target, wake).await?;
            if self.fence.admits_endpoint(&endpoint) {
                Ok(endpoint)
            } else {
                Err(self.fence.refuse(&format!("the database `{}`", endpoint.database())))
            }
        })
    }

    fn workspace(&self, connection: &str) -> Option<Arc<dyn Workspace>> {
        let inner = self.inner.workspace(connection)?;
        Some(Arc::new(FencedWorkspace { fence: self.fence.clone(), inner, outside: self.outside }))
    }

    fn model(&self) -> Option<&dyn AskModel> {
        self.inner.model()
    }

    fn throw_away<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        self.inner.throw_away(connection, target)
    }
}

/// A workspace that is changed within the fence only.
struct FencedWorkspace {
    fence: Fence,
    inner: Arc<dyn Workspace>,
    outside: bool,
}

impl ReadApi for FencedWorkspace {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Failure>> {
        self.inner.get(path)
    }

    fn list<'a>(
        &'a self,
        path: &'a str,
        plural: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        self.inner.list(path, plural)
    }

    fn select<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        self.inner.select(statement)
    }
}

impl Workspace for FencedWorkspace {
    fn send<'a>(&'a self, call: &'a ApiCall) -> BoxFuture<'a, Result<Reply, Failure>> {
        let is_database = call.path.starts_with(&path_of(""));
        if self.fence.admits_call(call) || self.outside && !is_database {
            return self.inner.send(call);
        }
        let what = format!("{} {}", call.verb.as_str(), call.path);
        Box::pin(async move { Err(self.fence.refuse(&what)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Fence {
        Fence::Branch { project: "shop".into(), branch: "tmp-1".into() }
    }

    #[test]
    fn calls_stay_on_the_branch_or_in_the_project() {
        let base = "/api/2.0/postgres/projects/shop";
        let within = format!("{base}/branches/tmp-1/roles");
        assert!(shop().admits_call(&ApiCall::post(within)));
        for path in ["/branches/tmp-1/../production", "/branches/tmp-10", "/branches", ""] {
            assert!(!shop().admits_call(&ApiCall::delete(format!("{base}{path}"))), "{path}");
        }
        let project = Fence::Project { project: "shop".into() };
        assert!(project.admits_call(&ApiCall::delete(base)));
        assert!(project.admits_call(&ApiCall::post(format!("{base}/branches"))));
        let make = ApiCall::post("/api/2.0/postgres/projects");
        assert!(project.admits_call(&make.clone().query("project_id", "shop")));
        assert!(!project.admits_call(&make.query("project_id", "shop-2")));
        assert!(!project.admits_call(&ApiCall::delete("/api/2.0/postgres/projects/shop-2")));
    }

    #[test]
    fn files_stay_in_their_folder() {
        let folder = Path::new("/tmp/one");
        assert!(lies_in(Path::new("/tmp/one/a/b"), folder));
        for path in ["/tmp/two", "/tmp/one-more", "/tmp/one/../two", "/tmp/one/a/../../two"] {
            assert!(!lies_in(Path::new(path), folder), "{path}");
        }
    }

    #[test]
    fn targets_are_named_in_full() {
        let target = |project: &str, branch: Option<&str>| Target {
            project: Some(project.into()),
            branch: branch.map(str::to_owned),
            database: None,
        };
        assert!(shop().admits_target(&target("shop", Some("tmp-1"))));
        assert!(!shop().admits_target(&target("shop", Some("production"))));
        assert!(!shop().admits_target(&target("shop", None)), "that is the default branch");
        let project = Fence::Project { project: "shop".into() };
        assert!(project.admits_target(&target("shop", None)));
        assert!(!project.admits_target(&target("other", Some("tmp-1"))));
    }

    #[test]
    fn nothing_reaches_past_a_database() {
        let fence = Fence::Database { database: "copy".into() };
        let admits = |text: &str| fence.admits_statement(&SqlStatement::new(text));
        for text in [
            "select pg_catalog.pg_terminate_backend($1)",
            "ALTER SYSTEM set work_mem = '1MB'",
            "create role x",
            "drop database other",
        ] {
            assert!(!admits(text), "{text}");
            assert!(
                shop().admits_statement(&SqlStatement::new(text)),
                "a branch has its own server"
            );
        }
        for text in [
            "alter table t add column database text",
            "insert into t (role) values ('system')",
            "create table user_role (a int)",
            "vacuum (analyze) public.t",
        ] {
            assert!(admits(text), "{text}");
        }
    }
}
