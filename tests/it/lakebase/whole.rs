//! The program against the emulator: from the command line to a branch's PostgreSQL and back.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lakeops::config::{FixedEnvironment, LakebaseConnection, Settings};
use lakeops::emulator::{Emulator, EmulatorOptions};
use lakeops::kernel::{ApiCall, Clock as _, RandomIds, Redactor, SystemClock};
use lakeops::lakebase::name::{BranchName, path_of};
use lakeops::lakebase::resource::EndpointState;
use lakeops::lakebase::{
    Lakebase, Login, Outside, Patience, ReadApi as _, Workspace as _, WorkspaceClient,
    read_write_endpoint,
};
use lakeops::postgres::Quiet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tempfile::TempDir;

use crate::emulator::log_in;
use crate::harness::scratch::scratch;
use crate::harness::{self, Place};

/// An emulator, and a project folder whose program works on it.
pub(super) struct Cloud {
    emulator: Emulator,
    place: Place,
    folder: TempDir,
    pub(super) client: Arc<WorkspaceClient>,
}

/// How the program ended, and what it said.
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    #[track_caller]
    pub(super) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Cloud {
    pub(super) async fn start() -> Self {
        Self::start_in(Place::new(), scratch()).await
    }

    /// The same workspace after a restart: every compute of it sleeps.
    async fn asleep(self) -> Self {
        Box::pin(self.emulator.stop()).await.unwrap();
        Self::start_in(self.place, self.folder).await
    }

    async fn start_in(place: Place, folder: TempDir) -> Self {
        let options = EmulatorOptions::new(
            place.state(),
            (Arc::new(SystemClock), Arc::new(RandomIds)),
            place.local.clone(),
            Arc::new(Quiet),
        );
        let emulator = Box::pin(Emulator::start(options)).await.unwrap();
        let file = place.state().join("emulator/connection.json");
        let connection = LakebaseConnection::from_emulator(&file).unwrap();
        let redactor = Redactor::default();
        let login = Login::resolve(&connection, &FixedEnvironment::default(), &redactor).unwrap();
        let outside = Outside {
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            redactor,
            // Other tests keep the machine busy.
            patience: Patience { request: Duration::from_mins(2), ..Patience::default() },
        };
        let client = WorkspaceClient::new(login, outside).unwrap();
        Self { emulator, place, folder, client }
    }

    pub(super) async fn stop(self) {
        Box::pin(self.emulator.stop()).await.unwrap();
    }

    /// Puts the shipped workflows and SOPs into the project folder.
    pub(super) fn ship(&self) {
        harness::ship(self.folder());
    }

    /// The databases of its projects.
    pub(super) fn databases(&self) -> Lakebase {
        let file = self.place.state().join("emulator/connection.json");
        let connection = LakebaseConnection::from_emulator(&file).unwrap();
        let limits = Settings::default().limits;
        Lakebase::new(Arc::clone(&self.client), None, connection.ca_file, &limits)
    }

    pub(super) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_lakeops"));
        command.arg("--state").arg(self.place.state()).args(["--connection", "emulator"]);
        command.args(args).current_dir(self.folder.path()).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // The certificates of the system are read for each session, and none of them is needed.
        command.env("SSL_CERT_FILE", self.place.state().join("emulator/tls/ca.pem"));
        command
    }

    pub(super) async fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().await.unwrap().into()
    }

    /// Where files of the project folder are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the program and the emulator keep everything.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.place.state()
    }

    /// Sends a call that changes something, and waits until it is done.
    pub(super) async fn change(&self, call: ApiCall) -> Value {
        let answer = self.client.send(&call).await.unwrap().body;
        let name = path_of(answer["name"].as_str().unwrap());
        let mut operation = answer.clone();
        eventually(async || {
            operation = self.client.get(&name).await.unwrap();
            operation["done"] == true
        })
        .await;
        assert!(operation.get("error").is_none(), "{operation}");
        operation["response"].clone()
    }

    /// A session in a branch, as the owner of its project.
    pub(super) async fn session(&self, branch: &BranchName) -> PgConnection {
        let endpoint = read_write_endpoint(&*self.client, branch).await.unwrap().unwrap();
        let secret = self.client.mint(&endpoint.name).await.unwrap().token;
        let hosts = &endpoint.status.hosts;
        let place = (hosts.host.as_deref().unwrap(), hosts.port.unwrap_or(5432));
        let who = (self.user(), secret.expose().as_str());
        log_in(&self.emulator, place, who, "databricks_postgres").await.unwrap()
    }

    /// The role that owns projects.
    pub(super) fn user(&self) -> &str {
        &self.emulator.connection().user
    }

    /// Runs a tool; what it says as JSON.
    pub(super) async fn tool(&self, tool: &str, args: &[&str]) -> Value {
        let args = [&["tools", "run", tool, "--output", "json"], args].concat();
        self.run(&args).await.ends(0).json()
    }

    /// Makes the project `shop` with a tool.
    pub(super) async fn provision(&self, more: &[&str]) {
        let provision =
            ["tools", "run", "provision_lakebase_project", "--yes", "-p", "project_name=shop"];
        self.run(&[&provision[..], more].concat()).await.ends(0);
    }

    /// Makes a project by the API.
    pub(super) async fn make_project(&self, project: &str) {
        let make = ApiCall::post(path_of("projects")).query("project_id", project);
        self.change(make.body(json!({ "spec": {} }))).await;
    }

    pub(super) async fn projects(&self) -> Vec<Value> {
        self.client.list(&path_of("projects"), "projects").await.unwrap()
    }

    async fn state(&self, branch: &BranchName) -> EndpointState {
        let found = read_write_endpoint(&*self.client, branch).await.unwrap();
        found.unwrap().status.current_state
    }

    /// Switches the compute of a branch off or on, as the API does it.
    async fn switch(&self, branch: &BranchName, on: bool) {
        let body = json!({ "spec": { "disabled": !on } });
        let path = branch.endpoint("primary").path();
        self.change(ApiCall::patch(path).query("update_mask", "spec.disabled").body(body)).await;
    }
}

pub(super) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let until = SystemClock.now().plus(Duration::from_mins(3));
    while !holds().await {
        assert!(SystemClock.now() < until, "not within three minutes");
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(50))).await;
    }
}

#[tokio::test]
async fn the_program_works_on_the_branches_of_a_project() {
    let cloud = Cloud::start().await;
    cloud.provision(&[]).await;
    assert_eq!(cloud.projects().await.len(), 1);

    let doctor = ["doctor", "--selected", "--target", "shop/production", "--wake"];
    let checks = cloud.run(&[&doctor[..], &["--output", "json"]].concat()).await.ends(0).json();
    let status = |name: &str| {
        let mut all = checks.as_array().unwrap().iter();
        let check = all.find(|check| check["name"] == format!("connection emulator{name}"));
        check.unwrap_or_else(|| panic!("{name}: {checks:#}"))["status"].clone()
    };
    assert_eq!(
        (status(""), status(": projects"), status(": database")),
        ("ok".into(), "ok".into(), "ok".into())
    );
    assert_eq!(status(": SQL warehouse"), "skip");

    // A compute that is switched off is left alone, with words.
    let branch = BranchName::new("shop", "development");
    let target = ["--target", "shop/development", "--wake"];
    cloud.switch(&branch, false).await;
    let look = ["tools", "run", "monitor_connections"];
    let said = cloud.run(&[&look[..], &target[..]].concat()).await.ends(1);
    assert!(said.err.contains("no connection can wake it"), "{}", said.err);
    assert_eq!(cloud.state(&branch).await, EndpointState::Idle);
    cloud.switch(&branch, true).await;
    let seen = cloud.tool("monitor_connections", &target).await;
    assert!(seen.as_object().is_some_and(|seen| !seen.is_empty()), "{seen}");

    // A change on a branch is on that branch.
    let statements = r#"statements=["create table public.orders (id bigint primary key)"]"#;
    let change = [&target[..], &["--yes", "-p", statements]].concat();
    cloud.tool("execute_sql", &change).await;
    let compare = [&target[..], &["-p", r#"from={"branch":"production"}"#]].concat();
    let diff = cloud.tool("capture_schema_diff", &compare).await;
    assert_eq!(diff["has_changes"], true, "{diff:#}");
    assert!(diff["sql"].as_str().unwrap().to_lowercase().contains("create table"), "{diff:#}");

    // Nothing that was kept shows the token.
    let token = std::fs::read_to_string(cloud.place.state().join("emulator/token")).unwrap();
    for file in ["journal.db", "journal.db-wal"] {
        let bytes = std::fs::read(cloud.place.state().join(file)).unwrap_or_default();
        let hit = bytes.windows(token.trim().len()).any(|part| part == token.trim().as_bytes());
        assert!(!hit, "{file} holds the token");
    }
    cloud.stop().await;
}

const GROW: &str = r#"version: 1
name: grow
description: Makes a table.
tool: { family: core, risk: medium }
steps:
  - id: make
    tool: execute_sql
    with: { statements: ["create table if not exists public.made (a int)"] }
outputs:
  made: steps.make.statements
"#;

#[tokio::test]
async fn nobody_wakes_a_compute_without_being_told_to() {
    let cloud = Cloud::start().await;
    cloud.provision(&[]).await;
    let mut cloud = cloud.asleep().await;
    let workflows = cloud.folder.path().join("workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    std::fs::write(workflows.join("grow.yaml"), GROW).unwrap();

    let branch = BranchName::new("shop", "development");
    let target = ["--target", "shop/development"];
    let statements = r#"statements=["create table public.made_by_hand (a int)"]"#;
    let writes: [&[&str]; 4] = [
        &["tools", "run", "execute_sql", "--yes", "-p", statements],
        &["tools", "run", "grow", "--yes"],
        &["run", "grow", "--yes"],
        &["run", "grow", "--rehearse"],
    ];
    for write in writes {
        let said = cloud.run(&[write, &target[..]].concat()).await.ends(1);
        for part in ["development/endpoints/", "is suspended, and is not woken", "--wake"] {
            assert!(said.out.contains(part), "{write:?}: {part} in {}\n{}", said.out, said.err);
        }
        assert_eq!(cloud.state(&branch).await, EndpointState::Idle, "{write:?}");
    }
    for write in writes {
        cloud.run(&[write, &target[..], &["--wake"]].concat()).await.ends(0);
        assert_eq!(cloud.state(&branch).await, EndpointState::Active, "{write:?}");
        cloud = cloud.asleep().await;
    }
    assert_eq!(cloud.state(&branch).await, EndpointState::Idle);
    cloud.stop().await;
}

#[tokio::test]
async fn a_live_test_leaves_nothing_behind_also_when_it_is_interrupted() {
    let cloud = Cloud::start().await;
    let test = ["test", "live", "--output", "json"];
    let said = cloud.run(&test).await.ends(0).json();
    assert_eq!(said["outcome"], "succeeded", "{said:#}");
    assert!(cloud.projects().await.is_empty());
    cloud.run(&["test", "live", "--project", "shop"]).await.ends(2);

    let child =
        cloud.command(&[&test[..], &["--project", "tmp-stopped"]].concat()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    let branch = BranchName::new("tmp-stopped", "ci-live-test").path();
    eventually(async || cloud.client.get(&branch).await.is_ok()).await;
    kill(pid, Signal::SIGINT).unwrap();
    let said = Said::from(child.wait_with_output().await.unwrap()).ends(130).json();
    assert_eq!(said["outcome"], "cancelled", "{said:#}");
    assert!(cloud.projects().await.is_empty());
    cloud.stop().await;
}
