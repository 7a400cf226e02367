//! A project as people have it: production, protected and with a table; staging below it; and a folder of
//! migrations.

use std::fs;

use lakeops::kernel::ApiCall;
use lakeops::lakebase::name::{BranchName, ProjectName};
use lakeops::lakebase::{Branch, branches, find_project};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use super::killing::run;
use super::whole::Cloud;

const TABLE: &str = "create table public.t (n int, tenant_id text); \
                     insert into public.t values (1, 'a'), (2, 'b')";

/// The project, and the cloud that it is in.
pub(super) struct Shop<'a> {
    pub(super) cloud: &'a Cloud,
    pub(super) project: String,
}

/// Runs statements.
pub(super) async fn execute(session: &mut PgConnection, text: &str) {
    let run = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(session).await;
    run.unwrap_or_else(|error| panic!("{text}: {error}"));
}

impl<'a> Shop<'a> {
    /// Makes it by the API, with these files.
    pub(super) async fn open(cloud: &'a Cloud, project: &str, files: &[(&str, &str)]) -> Self {
        let folder = cloud.folder().join(project);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let shop = Self { cloud, project: project.to_owned() };
        cloud.make_project(project).await;
        execute(&mut shop.session("production").await, TABLE).await;
        let name = ProjectName::new(project);
        let spec =
            json!({ "no_expiry": true, "source_branch": name.branch("production").to_string() });
        let make = ApiCall::post(name.branches_path()).query("branch_id", "staging");
        cloud.change(make.body(json!({ "spec": spec }))).await;
        shop.protect(true).await;
        shop
    }

    async fn protect(&self, on: bool) {
        let call = ApiCall::patch(self.branch("production").path());
        let call = call.query("update_mask", "spec.is_protected");
        self.cloud.change(call.body(json!({ "spec": { "is_protected": on } }))).await;
    }

    /// Removes it, also what expired branches kept.
    pub(super) async fn close(self) {
        self.protect(false).await;
        assert_eq!(self.cloud.projects().await.len(), 1, "there is one project");
        let path = ProjectName::new(&self.project).path();
        self.cloud.change(ApiCall::delete(path).query("purge", "true")).await;
    }

    pub(super) fn branch(&self, branch: &str) -> BranchName {
        BranchName::new(&self.project, branch)
    }

    pub(super) async fn session(&self, branch: &str) -> PgConnection {
        self.cloud.session(&self.branch(branch)).await
    }

    /// The one value that a query gives.
    pub(super) async fn value<T>(&self, branch: &str, query: &str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
    {
        let query = AssertSqlSafe(query.to_owned());
        sqlx::query_scalar(query).fetch_one(&mut self.session(branch).await).await.unwrap()
    }

    /// The branches, in order.
    pub(super) async fn branches(&self) -> Vec<String> {
        let found = branches(&*self.cloud.client, &self.project).await.unwrap();
        let mut names: Vec<String> = found.iter().map(Branch::id).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The branch that the project leads to.
    pub(super) async fn default_branch(&self) -> Option<String> {
        let found = find_project(&*self.cloud.client, &self.project).await.unwrap().unwrap();
        found.status.default_branch
    }

    /// The migrations that a branch has, each as often as it has it.
    pub(super) async fn history(&self, branch: &str) -> String {
        let there = "select to_regclass('lakeops.schema_migration') is not null";
        if !self.value::<bool>(branch, there).await {
            return "none".to_owned();
        }
        let all = "select coalesce(string_agg(version, ',' order by version), '') \
                   from lakeops.schema_migration";
        self.value(branch, all).await
    }

    /// `lakeops run migrate_schema` on its files.
    pub(super) fn migration(&self, more: &[(&str, &str)]) -> Vec<String> {
        let own = [("project", self.project.as_str()), ("directory", self.project.as_str())];
        run("migrate_schema", &[&own[..], more].concat())
    }

    /// What a step of the newest run said.
    pub(super) async fn output(&self, step: &str) -> Value {
        let run = self.newest().await;
        let all = run["steps"].as_array().unwrap().iter();
        let found = all.clone().find(|one| one["id"] == step);
        found.unwrap_or_else(|| panic!("{step}: {run:#}"))["output"].clone()
    }

    /// The newest run.
    pub(super) async fn newest(&self) -> Value {
        let runs = self.cloud.run(&["runs", "--output", "json"]).await.ends(0).json();
        let id = runs[0]["run_id"].as_str().unwrap();
        self.cloud.run(&["show", id, "--output", "json"]).await.ends(0).json()
    }
}
