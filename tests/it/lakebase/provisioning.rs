//! Projects and resets that are killed at each boundary, or meet each fault, end as if nothing had
//! happened.

use lakeops::lakebase::name::BranchName;
use lakeops::lakebase::{Branch, branches, endpoints, find_branch};

use super::killing::{FAULTS, run};
use super::shop::execute;
use super::whole::Cloud;

/// The project with everything that needs no tables: registered, with pipelines and rules.
fn provision(project: &str) -> Vec<String> {
    let params = [
        ("project", project),
        ("shape", r#"{"tags":{"disposable":"true"}}"#),
        ("uc_catalog", &format!("{}_db", project.replace('-', "_"))),
        ("repository", project),
    ];
    run("provision_with_governance", &params)
}

fn reset(project: &str) -> Vec<String> {
    run("reset_staging", &[("project", project)])
}

impl Cloud {
    /// The whole project, as the pattern wants it, and once.
    async fn is_whole(&self, project: &str, what: &str) {
        assert_eq!(self.projects().await.len(), 1, "{what}");
        let found = branches(&*self.client, project).await.unwrap();
        let mut ids: Vec<&str> = found.iter().map(Branch::id).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["development", "production", "staging"], "{what}");
        for branch in ids {
            let computes = endpoints(&*self.client, project, branch).await.unwrap();
            assert_eq!(computes.len(), 1, "{what}: {branch}");
        }
        self.is_quiet(what).await;
        self.has_succeeded(what).await;
    }

    async fn remove(&self, project: &str) {
        let tool = ["tools", "run", "delete_disposable_project", "--yes", "--target", project];
        self.run(&tool).await.ends(0);
        assert!(self.projects().await.is_empty(), "{project} is left");
    }
}

#[tokio::test]
async fn a_project_that_is_killed_at_every_boundary_is_made_once() {
    let cloud = Cloud::start().await;
    let project = "tmp-killed";
    std::fs::create_dir_all(cloud.folder().join(project)).unwrap();
    let died = cloud.survives(&provision(project), "").await;
    // Steps that need nothing of each other run at once: who dies in one may leave the effect of another to
    // be found, so that nobody is there right after it.
    for step in ["ops_catalog", "project", "unity_catalog", "pipelines", "agents"] {
        let name = format!("{step}/do 0/before effect");
        assert!(died.contains(&name), "{name}");
    }
    let after = died.iter().filter(|name| name.ends_with("/after effect")).count();
    assert!(after >= 6, "{after} deaths right after an effect");
    cloud.is_whole(project, "killed").await;
    cloud.remove(project).await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_project_that_meets_any_fault_is_made_once() {
    let cloud = Cloud::start().await;
    for fault in FAULTS {
        // It logs in to no database.
        if fault == "credential_refused" {
            continue;
        }
        let project = format!("tmp-{}", fault.replace('_', "-"));
        std::fs::create_dir_all(cloud.folder().join(&project)).unwrap();
        cloud.bears(fault, &provision(&project), 3).await;
        cloud.is_whole(&project, fault).await;
        cloud.remove(&project).await;
    }
    cloud.stop().await;
}

async fn staging(cloud: &Cloud, project: &str) -> Branch {
    find_branch(&*cloud.client, project, "staging").await.unwrap().unwrap()
}

/// Staging differs from what it came from before a reset, and does not afterwards.
async fn is_reset(cloud: &Cloud, project: &str, fault: Option<&str>) {
    let name = BranchName::new(project, "staging");
    let what = fault.unwrap_or("killed");
    execute(&mut cloud.session(&name).await, "create table public.left_over (a int)").await;
    let before = staging(cloud, project).await;
    if let Some(fault) = fault {
        cloud.bears(fault, &reset(project), 1).await;
    } else {
        let died = cloud.survives(&reset(project), "").await;
        for change in 0..3 {
            let name = format!("reset/do {change}/after effect");
            assert!(died.contains(&name), "{name}");
        }
    }
    let after = staging(cloud, project).await;
    assert_ne!(before.uid, after.uid, "{what}: it is another branch");
    let parent = BranchName::new(project, "production").to_string();
    assert_eq!(after.status.source_branch, Some(parent), "{what}");
    let mut session = cloud.session(&name).await;
    let tables = "select string_agg(tablename, ',') from pg_tables where schemaname = 'public'";
    let tables: String = sqlx::query_scalar(tables).fetch_one(&mut session).await.unwrap();
    assert_eq!(tables, "orders", "{what}: what its parent has, and nothing else");
    drop(session);
    cloud.is_whole(project, what).await;
}

#[tokio::test]
async fn a_reset_that_is_killed_at_every_boundary_or_meets_any_fault_happens_once() {
    let cloud = Cloud::start().await;
    let project = "tmp-reset";
    std::fs::create_dir_all(cloud.folder().join(project)).unwrap();
    cloud.going_on(&provision(project)).await.ends(0);
    let mut session = cloud.session(&BranchName::new(project, "production")).await;
    execute(&mut session, "create table public.orders (a int)").await;
    drop(session);
    is_reset(&cloud, project, None).await;
    for fault in FAULTS {
        is_reset(&cloud, project, Some(fault)).await;
    }
    cloud.remove(project).await;
    cloud.stop().await;
}
