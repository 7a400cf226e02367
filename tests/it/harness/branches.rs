//! A workspace whose branches are databases of the tests' own server: enough of one for workflows that
//! make, migrate, compare and delete branches, and the same for every process of a crash test. What the
//! service itself does is the emulator's matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lakeops::engine::parts::Endpoints;
use lakeops::kernel::{
    ApiCall, ApiVerb, BoxFuture, Clock as _, Failure, Ident, Secret, SystemClock, Target,
};
use lakeops::lakebase::api::{ALREADY_EXISTS, NOT_FOUND};
use lakeops::lakebase::{ReadApi, Reply, Workspace};
use lakeops::postgres::PgEndpoint;
use serde_json::{Value, json};

use super::{connect, execute, postgres};

const PROJECT: &str = "/api/2.0/postgres/projects/shop";

/// The branches of the project `shop`.
#[derive(Clone)]
pub(crate) struct Branches {
    /// Holds one file for each branch, and the addresses.
    dir: PathBuf,
    /// Whoever makes databases.
    admin: PgEndpoint,
    /// Whoever works in them, no superuser.
    worker: PgEndpoint,
}

impl Branches {
    /// A project with `production`, protected and with these tables, and `staging`, as it is.
    pub(crate) async fn found(dir: &Path, hint: &str, tables: &[&str]) -> Self {
        let admin = postgres().await.fresh_database(hint).await;
        let base = admin.database().to_owned();
        let worker = format!("worker_of_{base}");
        execute(&admin, &[&format!("create role \"{worker}\" login")]).await;
        fs::create_dir_all(dir.join("branches")).unwrap();
        fs::write(dir.join("admin"), admin.to_url().expose()).unwrap();
        fs::write(dir.join("worker"), admin.with_user(&worker, None).to_url().expose()).unwrap();
        let found = Self::open(dir).unwrap();
        let name = Ident::new(found.database("production"));
        let owner = Ident::new(&worker);
        execute(&admin, &[&format!("create database {name} owner {owner}")]).await;
        let root = admin.with_database(&found.database("production"));
        execute(&root, &[&format!("alter schema public owner to {owner}")]).await;
        execute(&found.branch("production"), tables).await;
        found.keep("production", None, &json!({"default": true, "is_protected": true}));
        found.copy("production", "staging").await;
        found.keep("staging", Some("production"), &json!({}));
        found
    }

    /// The project of a directory, when it has one.
    pub(crate) fn open(dir: &Path) -> Option<Self> {
        let url = |name: &str| {
            let url = Secret::new(fs::read_to_string(dir.join(name)).ok()?);
            Some(PgEndpoint::from_url(&url).unwrap())
        };
        Some(Self { dir: dir.to_owned(), admin: url("admin")?, worker: url("worker")? })
    }

    /// A branch's database, as the one who works in it.
    pub(crate) fn branch(&self, branch: &str) -> PgEndpoint {
        self.worker.with_database(&self.database(branch))
    }

    /// The branches that are there, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("branches")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn database(&self, branch: &str) -> String {
        format!("{}_{branch}", self.admin.database())
    }

    fn file(&self, branch: &str) -> PathBuf {
        self.dir.join("branches").join(branch)
    }

    fn keep(&self, branch: &str, source: Option<&str>, more: &Value) -> Value {
        let mut status = json!({ "branch_id": branch, "current_state": "READY" });
        if let Some(source) = source {
            status["source_branch"] = json!(format!("projects/shop/branches/{source}"));
        }
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        let resource = json!({
            "name": format!("projects/shop/branches/{branch}"),
            "uid": format!("br-{branch}"),
            "create_time": "2026-11-01T00:00:00Z",
            "status": status,
        });
        let written = self.dir.join(format!("{branch}.new"));
        fs::write(&written, resource.to_string()).unwrap();
        fs::rename(written, self.file(branch)).unwrap();
        resource
    }

    /// Copies a database that others may be at work in: they are sent away first.
    async fn copy(&self, source: &str, branch: &str) {
        let (from, to) = (self.database(source), self.database(branch));
        let owner = Ident::new(self.worker.user());
        let mut admin = connect(&self.admin).await;
        let there =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)");
        if there.bind(&to).fetch_one(&mut admin).await.unwrap() {
            return;
        }
        let (from, to) = (Ident::new(from), Ident::new(to));
        let create = format!("create database {to} template {from} owner {owner}");
        execute(&self.admin, &[&create]).await;
    }

    async fn make(&self, call: &ApiCall) -> Result<Value, Failure> {
        let branch = &call.query["branch_id"];
        if self.file(branch).exists() {
            return Err(Failure::permanent(ALREADY_EXISTS, branch.as_str()));
        }
        let spec = &call.body.as_ref().unwrap()["spec"];
        let source = spec["source_branch"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        self.copy(&source, branch).await;
        let ttl = spec["ttl"].as_str().and_then(|text| text.trim_end_matches('s').parse().ok());
        let lives = std::time::Duration::from_secs(ttl.unwrap_or(3600));
        let expires = json!({ "expire_time": SystemClock.now().plus(lives) });
        Ok(self.keep(branch, Some(&source), &expires))
    }

    async fn delete(&self, path: &str) -> Result<Value, Failure> {
        let branch = path.rsplit('/').next().unwrap();
        if !self.file(branch).exists() {
            return Err(Failure::permanent(NOT_FOUND, path));
        }
        let drop =
            format!("drop database if exists {} with (force)", Ident::new(self.database(branch)));
        execute(&self.admin, &[&drop]).await;
        fs::remove_file(self.file(branch)).unwrap();
        Ok(json!({}))
    }

    fn read(&self, branch: &str) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(self.file(branch)).ok()?).ok()
    }
}

impl ReadApi for Branches {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Failure>> {
        let found = match path.strip_prefix(PROJECT) {
            Some("") => Some(json!({
                "name": "projects/shop", "uid": "p-1",
                "status": {"default_branch": "projects/shop/branches/production"},
            })),
            Some(rest) => rest.strip_prefix("/branches/").and_then(|branch| self.read(branch)),
            None => None,
        };
        Box::pin(async move { found.ok_or_else(|| Failure::permanent(NOT_FOUND, path)) })
    }

    fn list<'a>(
        &'a self,
        path: &'a str,
        plural: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        let found = match plural {
            "branches" => self.names().iter().filter_map(|branch| self.read(branch)).collect(),
            "endpoints" => {
                let name = path.trim_start_matches("/api/2.0/postgres/");
                vec![json!({
                    "name": format!("{name}/primary"), "uid": "ep-1",
                    "status": {
                        "endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "current_state": "ACTIVE",
                        "hosts": {"host": "localhost"},
                    },
                })]
            }
            _ => Vec::new(),
        };
        Box::pin(async move { Ok(found) })
    }

    fn select<'a>(&'a self, _statement: &'a str) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl Workspace for Branches {
    fn send<'a>(&'a self, call: &'a ApiCall) -> BoxFuture<'a, Result<Reply, Failure>> {
        Box::pin(async move {
            let body = match call.verb {
                ApiVerb::Post => self.make(call).await?,
                ApiVerb::Delete => self.delete(&call.path).await?,
                ApiVerb::Patch | ApiVerb::Put => panic!("nothing is changed: {call:?}"),
            };
            Ok(Reply { status: 200, body })
        })
    }
}

impl Endpoints for Branches {
    fn endpoint<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
        _wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        let branch = target.branch.clone().unwrap_or_else(|| "production".to_owned());
        Box::pin(async move {
            let known = self.file(&branch).exists();
            let gone = || Failure::permanent(NOT_FOUND, format!("there is no branch `{branch}`"));
            known.then(|| self.branch(&branch)).ok_or_else(gone)
        })
    }

    fn workspace(&self, _connection: &str) -> Option<Arc<dyn Workspace>> {
        Some(Arc::new(self.clone()))
    }

    fn throw_away<'a>(
        &'a self,
        _connection: &'a str,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        let is_spare = target.branch.as_ref().is_some_and(|branch| branch.starts_with("tmp-"));
        Box::pin(async move { Ok(is_spare) })
    }
}
