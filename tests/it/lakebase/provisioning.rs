//! Projects and resets that are killed at each effect, or meet each fault, end as if nothing had happened.

use lakeops::kernel::ApiCall;
use lakeops::lakebase::name::{BranchName, ProjectName};
use lakeops::lakebase::{Workspace as _, branches, endpoints, find_branch};
use serde_json::{Value, json};

use super::whole::{Cloud, Said};

const WORKFLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows");

/// What is injected: named as the emulator names it.
const FAULTS: [&str; 6] = [
    "throttled",
    "dropped_before",
    "dropped_after",
    "created_but_errored",
    "operation_error",
    "slow_ready",
];

fn provision(project: &str) -> Vec<String> {
    let parts = [
        "--workflows",
        WORKFLOWS,
        "run",
        "provision_with_governance",
        "--yes",
        "--output",
        "json",
        "-p",
        r#"shape={"tags":{"disposable":"true"}}"#,
        "-p",
    ];
    parts.iter().map(|part| (*part).to_owned()).chain([format!("project={project}")]).collect()
}

fn reset(project: &str) -> Vec<String> {
    let parts = ["--workflows", WORKFLOWS, "run", "reset_staging", "--yes", "--output", "json"];
    let params = ["-p".to_owned(), "branch=development".to_owned(), "-p".to_owned()];
    let parts = parts.iter().map(|part| (*part).to_owned()).chain(params);
    parts.chain([format!("project={project}")]).collect()
}

impl Cloud {
    async fn run_all(&self, args: &[String]) -> Said {
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Runs, and resumes what died, each process until it dies at the nth effect that it reaches; how many
    /// died. A process passes two boundaries for each change: before its effect and after it.
    async fn dying(&self, args: &[String], (first, next): (u32, u32)) -> usize {
        let resume = ["resume", "--all"].map(str::to_owned);
        let (mut args, mut at) = (args, first);
        for deaths in 0.. {
            let typed: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut command = self.command(&typed);
            command.env("LAKEOPS_KILL_AT", at.to_string()).env("LAKEOPS_KILL_AMONG", " effect");
            let said = Said::from(command.output().await.unwrap());
            match said.code {
                None => (args, at) = (&resume, next),
                Some(0) => return deaths,
                Some(_) => panic!("{}\n{}", said.out, said.err),
            }
        }
        unreachable!("nobody dies for ever");
    }

    async fn resume(&self) {
        self.run(&["resume", "--all", "--output", "json"]).await.ends(0);
    }

    /// The whole project, as the pattern wants it, and once.
    async fn is_whole(&self, project: &str, what: &str) {
        let found = branches(&*self.client, project).await.unwrap();
        let mut ids: Vec<&str> = found.iter().map(lakeops::lakebase::Branch::id).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["development", "production", "staging"], "{what}");
        for branch in ids {
            let computes = endpoints(&*self.client, project, branch).await.unwrap();
            assert_eq!(computes.len(), 1, "{what}: {branch}");
        }
        let runs = self.run(&["runs", "--output", "json"]).await.ends(0).json();
        for run in runs.as_array().unwrap() {
            assert_eq!(run["outcome"], "succeeded", "{what}: {run:#}");
        }
    }

    async fn remove(&self, project: &str) {
        let tool = ["tools", "run", "delete_disposable_project", "--yes", "--target", project];
        self.run(&tool).await.ends(0);
        assert!(self.projects().await.is_empty(), "{project} is left");
    }

    async fn fault(&self, fault: Value) {
        self.client.send(&ApiCall::post("/emulator/faults").body(fault)).await.unwrap();
    }
}

/// Dying after each effect, and before each.
const DEATHS: [(&str, (u32, u32)); 2] = [("after", (2, 2)), ("before", (1, 3))];

#[tokio::test]
async fn a_project_that_is_killed_at_every_effect_is_made_once() {
    let cloud = Cloud::start().await;
    for (when, at) in DEATHS {
        let project = format!("tmp-killed-{when}");
        let deaths = cloud.dying(&provision(&project), at).await;
        assert!(deaths >= 5, "{deaths} deaths");
        cloud.is_whole(&project, when).await;
        cloud.remove(&project).await;
    }
    cloud.stop().await;
}

#[tokio::test]
async fn a_reset_that_is_killed_at_every_effect_happens_once() {
    let cloud = Cloud::start().await;
    let project = "tmp-reset";
    cloud.run_all(&provision(project)).await.ends(0);
    let found = async || {
        let found = find_branch(&*cloud.client, project, "development").await.unwrap().unwrap();
        (found.uid, found.status.source_branch)
    };
    let parent = BranchName::new(project, "production").to_string();
    for (when, at) in DEATHS {
        let before = found().await;
        let deaths = cloud.dying(&reset(project), at).await;
        assert!(deaths >= 3, "{deaths} deaths");
        let after = found().await;
        assert_ne!(before.0, after.0, "{when}: it is another branch");
        assert_eq!(after.1.as_deref(), Some(parent.as_str()), "{when}");
        cloud.is_whole(project, when).await;
    }
    cloud.remove(project).await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_project_that_meets_any_fault_is_made_once() {
    let cloud = Cloud::start().await;
    for fault in FAULTS {
        let project = format!("tmp-{}", fault.replace('_', "-"));
        let name = ProjectName::new(&project).to_string();
        // Twice: for the project, and for what is asked for next.
        let told = match fault {
            "slow_ready" => json!({ "fault": fault, "path": name, "seconds": 0.5, "count": 2 }),
            "operation_error" => json!({ "fault": fault, "path": name, "count": 2 }),
            "throttled" => {
                json!({ "fault": fault, "verb": "POST", "path": "/projects", "retry_after": 1, "count": 2 })
            }
            _ => json!({ "fault": fault, "verb": "POST", "path": "/projects", "count": 2 }),
        };
        cloud.fault(told).await;
        let said = cloud.run_all(&provision(&project)).await;
        if said.code != Some(0) {
            cloud.resume().await;
        }
        cloud.is_whole(&project, fault).await;
        cloud.remove(&project).await;
    }
    cloud.stop().await;
}
