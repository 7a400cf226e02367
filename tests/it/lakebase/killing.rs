//! Kills the program at every boundary that a run passes, makes every fault happen to it, and looks for
//! what that left.

use std::fs;
use std::sync::Arc;

use lakeops::journal::store::RunFilter;
use lakeops::journal::{Journal as _, SqliteJournal, Stream};
use lakeops::kernel::{ApiCall, Redactor, SystemClock};
use lakeops::lakebase::{ReadApi as _, Workspace as _, branches, snapshots};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::whole::{Cloud, Said};
use crate::engine::crashes::check_starts;

/// The files of the project folder, as the program is told of them.
pub(super) const WORKFLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows");

/// What is injected, named as the emulator names it.
pub(super) const FAULTS: [&str; 7] = [
    "throttled",
    "dropped_before",
    "dropped_after",
    "created_but_errored",
    "operation_error",
    "slow_ready",
    "credential_refused",
];

/// What one is told to happen as often as there are calls.
const OFTEN: u64 = 99;
/// What changes something.
const VERBS: [&str; 3] = ["POST", "PATCH", "DELETE"];

/// `lakeops run WORKFLOW -p NAME=VALUE …`
pub(super) fn run(workflow: &str, params: &[(&str, &str)]) -> Vec<String> {
    let start = ["--workflows", WORKFLOWS, "run", workflow, "--output", "json"];
    let params =
        params.iter().flat_map(|(name, value)| ["-p".to_owned(), format!("{name}={value}")]);
    start.map(str::to_owned).into_iter().chain(params).collect()
}

fn resume() -> Vec<String> {
    ["resume", "--all", "--output", "json"].map(str::to_owned).into()
}

/// What approves something that waits.
pub(super) fn approval(waiting: &Value) -> Vec<String> {
    let text = |name: &str| waiting[name].as_str().unwrap();
    let (run, step) = (text("run_id"), text("step"));
    let words = ["approve", run, step, "--reason", "it was looked at", "--output", "json"];
    words.map(str::to_owned).into()
}

impl Cloud {
    pub(super) async fn run_all(&self, args: &[String]) -> Said {
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// What waits for a person.
    pub(super) async fn waiting(&self) -> Value {
        self.run(&["approvals", "--output", "json"]).await.ends(0).json()
    }

    /// Runs, and does what a person does: goes on with what died or is in doubt, and approves what is
    /// asked. Each process dies at the first boundary with `among` in its name at which none died yet. How
    /// it ended, and where somebody died.
    pub(super) async fn dying(&self, args: &[String], among: &str) -> (Said, Vec<String>) {
        drop(fs::remove_file(self.folder().join("died")));
        self.dying_elsewhere(args, among).await
    }

    /// The same, sparing where somebody died when it was called before: for runs that begin alike.
    pub(super) async fn dying_elsewhere(
        &self,
        args: &[String],
        among: &str,
    ) -> (Said, Vec<String>) {
        let died = self.folder().join("died");
        let kill = [("LAKEOPS_KILL_EACH", died.to_str().unwrap()), ("LAKEOPS_KILL_AMONG", among)];
        let said = self.to_the_end(args, &kill, usize::MAX).await;
        let names = fs::read_to_string(&died).unwrap_or_default();
        (said, names.lines().map(str::to_owned).collect())
    }

    /// The same to a good end: where somebody died.
    pub(super) async fn survives(&self, args: &[String], among: &str) -> Vec<String> {
        let (said, died) = self.dying(args, among).await;
        said.ends(0);
        println!("{} deaths:\n{}", died.len(), died.join("\n"));
        died
    }

    /// Goes to a good end though a fault happens, so often at least.
    pub(super) async fn bears(&self, fault: &str, args: &[String], least: u64) {
        self.disturb(fault).await;
        self.going_on(args).await.ends(0);
        let met = self.calm().await;
        println!("{fault}: {met} times");
        assert!(met >= least, "{fault} was met {met} times");
    }

    /// The same as [`Cloud::dying`], but only once: at the first boundary with this in its name.
    pub(super) async fn dying_at(&self, args: &[String], boundary: &str) -> Said {
        let kill = [("LAKEOPS_KILL_AT", "1"), ("LAKEOPS_KILL_AMONG", boundary)];
        self.to_the_end(args, &kill, 1).await
    }

    /// The same without dying.
    pub(super) async fn going_on(&self, args: &[String]) -> Said {
        self.to_the_end(args, &[], 0).await
    }

    /// Processes are told to `kill` themselves until so many have died.
    async fn to_the_end(&self, args: &[String], kill: &[(&str, &str)], most: usize) -> Said {
        let (mut args, mut in_doubt, mut deaths) = (args.to_vec(), 0, 0);
        loop {
            let typed: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut command = self.command(&typed);
            // Who dies everywhere dies often before anything is settled.
            command.env("LAKEOPS_SETTINGS__LIMITS__MAX_BARREN_RESUMES", "1000");
            if deaths < most {
                command.envs(kill.iter().copied());
            }
            let said = Said::from(command.output().await.unwrap());
            in_doubt = if said.code == Some(6) { in_doubt + 1 } else { 0 };
            assert!(in_doubt < 30, "it does not end: {}\n{}", said.out, said.err);
            deaths += usize::from(said.code.is_none());
            args = match said.code {
                None | Some(6) => resume(),
                Some(3) => approval(&self.waiting().await[0]),
                Some(_) => return said,
            };
        }
    }

    /// Everything that was begun is over: no operation, no half-made branch, no change that was done twice.
    pub(super) async fn is_quiet(&self, what: &str) {
        self.run(&["audit", "verify"]).await.ends(0);
        let state = self.state_dir();
        let journal =
            SqliteJournal::open(&state, Arc::new(SystemClock), Redactor::default()).unwrap();
        for run in journal.runs(RunFilter::default()).await.unwrap() {
            let entries = journal.read(&Stream::Run(run.run_id.clone()), 0).await.unwrap();
            check_starts(&entries);
        }
        drop(journal);
        let catalogue = state.join("emulator/catalogue.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let open = || {
            let catalogue = Connection::open_with_flags(&catalogue, flags).unwrap();
            let count = "select count(*) from operation where done = 0";
            catalogue.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        // Who finds done what a dead process began does not wait for its operation.
        println!("{what}: {} operations are open", open());
        super::whole::eventually(async || open() == 0).await;
        let mut living = 0;
        for project in self.projects().await {
            let project = project["name"].as_str().unwrap().trim_start_matches("projects/");
            living += branches(&*self.client, project).await.unwrap().len();
            living += snapshots(&*self.client, project).await.unwrap().len();
        }
        let kept = || fs::read_dir(state.join("emulator/branches")).unwrap().count();
        super::whole::eventually(async || kept() == living).await;
    }

    /// Every run succeeded.
    pub(super) async fn has_succeeded(&self, what: &str) {
        let runs = self.run(&["runs", "--output", "json"]).await.ends(0).json();
        for run in runs.as_array().unwrap() {
            assert_eq!(run["outcome"], "succeeded", "{what}: {run:#}");
        }
    }

    /// Lets a fault happen to every call that changes something, or to every operation or login. Where a
    /// call has no effect because of it, what is tried again passes.
    async fn disturb(&self, fault: &str) {
        let told = match fault {
            "slow_ready" => vec![json!({ "fault": fault, "seconds": 0.3 })],
            "operation_error" => vec![json!({ "fault": fault })],
            "credential_refused" => vec![json!({ "fault": fault, "first": true })],
            _ => VERBS
                .map(|verb| json!({ "fault": fault, "verb": verb, "path": "/projects" }))
                .into(),
        };
        let is_without_effect = matches!(fault, "throttled" | "dropped_before");
        for mut told in told {
            told["count"] = json!(OFTEN);
            if is_without_effect {
                told["every"] = json!(2);
            }
            self.client.send(&ApiCall::post("/emulator/faults").body(told)).await.unwrap();
        }
    }

    /// Ends all faults; how many have happened.
    async fn calm(&self) -> u64 {
        let left = self.client.get("/emulator/faults").await.unwrap();
        let left = left["faults"].as_array().unwrap().iter();
        let happened = left.map(|fault| OFTEN - fault["count"].as_u64().unwrap()).sum();
        self.client.send(&ApiCall::delete("/emulator/faults")).await.unwrap();
        happened
    }
}
