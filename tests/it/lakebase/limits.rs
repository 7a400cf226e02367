//! What expires, what stays, and how many branches there are, as the program and the platform count them.

use lakeops::kernel::ApiCall;
use lakeops::lakebase::name::ProjectName;
use lakeops::lakebase::{Workspace as _, find_branch};
use serde_json::{Value, json};

use super::killing::run;
use super::whole::{Cloud, eventually};

const HERE: [&str; 2] = ["--target", "shop"];

fn make(id: &str, spec: &Value) -> ApiCall {
    let path = ProjectName::new("shop").branches_path();
    ApiCall::post(path).query("branch_id", id).body(json!({ "spec": spec }))
}

impl Cloud {
    async fn count(&self) -> Value {
        self.tool("monitor_branch_count", &HERE).await
    }

    async fn archive(&self, id: &str) {
        let branch = ProjectName::new("shop").branch(id).to_string();
        let call = ApiCall::post("/emulator/archive").body(json!({ "branch": branch }));
        self.client.send(&call).await.unwrap();
    }
}

fn numbers(count: &Value) -> [u64; 3] {
    ["branch_count", "archived", "total"].map(|name| count[name].as_u64().unwrap())
}

#[tokio::test]
async fn archived_branches_take_no_place_and_what_expires_gives_its_place_back() {
    let cloud = Cloud::start().await;
    cloud.make_project("shop").await;
    let soon = json!({ "ttl": "3600s" });
    for n in 1..10 {
        cloud.change(make(&format!("feat-{n}"), &soon)).await;
    }
    let full = cloud.count().await;
    assert_eq!((numbers(&full), &full["level"]), ([10, 0, 10], &json!("critical")), "{full:#}");
    let refused = cloud.client.send(&make("feat-10", &soon)).await.unwrap_err();
    assert!(refused.message.contains("at most 10 branches that are not archived"), "{refused}");
    // The program knows before it asks.
    let create = ["tools", "run", "create_branch", "--yes", "-p", "branch_name=feat-10"];
    let said = cloud.run(&[&create[..], &HERE].concat()).await.ends(1);
    assert!(said.out.contains("10 of 10"), "{}", said.out);

    for id in ["feat-1", "feat-2"] {
        cloud.archive(id).await;
    }
    let room = cloud.count().await;
    assert_eq!((numbers(&room), &room["level"]), ([8, 2, 10], &json!("warning")), "{room:#}");
    cloud.run(&[&create[..], &HERE].concat()).await.ends(0);
    cloud.change(make("feat-11", &json!({ "no_expiry": true }))).await;
    assert_eq!(numbers(&cloud.count().await), [10, 2, 12]);
    cloud.client.send(&make("feat-12", &soon)).await.unwrap_err();

    // What was never told to expire is told now; what expires goes, an archived one too.
    let keep = run("branch_housekeeping", &[("project", "shop")]);
    let said = cloud.run_all(&keep).await.ends(0).json();
    let told =
        said["steps"].as_array().unwrap().iter().find(|step| step["id"] == "enforce").unwrap();
    assert_eq!(told["output"]["expirations_set"], json!(["feat-11"]), "{told:#}");
    let feat = |id: &str| ProjectName::new("shop").branch(id).path();
    for id in ["feat-2", "feat-3"] {
        let expire = ApiCall::patch(feat(id)).query("update_mask", "spec.expiration");
        cloud.change(expire.body(json!({ "spec": { "ttl": "1s" } }))).await;
    }
    for id in ["feat-2", "feat-3"] {
        let gone = async || find_branch(&*cloud.client, "shop", id).await.unwrap().is_none();
        eventually(gone).await;
    }
    assert_eq!(numbers(&cloud.count().await), [9, 1, 10]);
    cloud.stop().await;
}

#[tokio::test]
async fn a_pull_request_has_its_branch_until_it_is_closed() {
    let cloud = Cloud::start().await;
    cloud.make_project("shop").await;
    let request = async |action: &str| {
        let params =
            [("project", "shop"), ("pr_number", "7"), ("source", "production"), ("action", action)];
        cloud.run_all(&run("pr_branch", &params)).await.ends(0).json()["outputs"].clone()
    };
    let branch = async || find_branch(&*cloud.client, "shop", "ci-pr-7").await.unwrap();
    let opened = request("open").await;
    assert_eq!((&opened["branch"], &opened["created"]), (&json!("ci-pr-7"), &json!(true)));
    let made = branch().await.unwrap();
    assert!(made.status.expire_time.is_some(), "it would live for ever: {made:?}");
    let source = ProjectName::new("shop").branch("production").to_string();
    assert_eq!(made.status.source_branch, Some(source));
    // Opened again: the same branch.
    assert_eq!(request("open").await["created"], json!(false));
    assert_eq!(branch().await.unwrap().uid, made.uid);
    // Closed, and closed again.
    assert_eq!(request("close").await["deleted"], json!(true));
    assert!(branch().await.is_none());
    request("close").await;
    cloud.stop().await;
}
