//! What Lakebase costs, on the emulator: a statement of its SQL API.

use lakeops::kernel::ApiCall;
use lakeops::lakebase::Workspace as _;
use serde_json::{Value, json};

use super::whole::{Cloud, Said};

impl Cloud {
    /// The program with a SQL warehouse.
    async fn with_warehouse(&self, args: &[&str]) -> Said {
        let mut command = self.command(args);
        command.env("DATABRICKS_WAREHOUSE_ID", "w");
        command.output().await.unwrap().into()
    }

    async fn make_project(&self) {
        let labels = r#"shape={"tags":{"team":"a","who's":"b"}}"#;
        let provision = ["tools", "run", "provision_lakebase_project", "--yes", "-p"];
        let named = [&provision[..], &["project_name=shop", "-p", labels]].concat();
        self.run(&named).await.ends(0);
    }
}

fn names(parts: &Value) -> Vec<&str> {
    parts.as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn cost_is_attributed_from_the_billing_tables() {
    let cloud = Cloud::start().await;
    cloud.make_project().await;
    cloud.client.send(&ApiCall::post("/emulator/meter").body(json!({}))).await.unwrap();
    let tool = ["tools", "run", "track_cost_attribution", "--target", "shop", "--output", "json"];
    let said = cloud.run(&tool).await.ends(1);
    assert!(said.err.contains("warehouse"), "{}", said.err);
    // A label that cannot stand in a question is refused, and not left out.
    let said = cloud.with_warehouse(&tool).await.ends(1);
    assert!(said.err.contains("the tag"), "{}", said.err);
    let by_team = [&tool[..], &["-p", r#"tags=["team"]"#]].concat();
    let found = cloud.with_warehouse(&by_team).await.ends(0).json();
    let total = &found["total"];
    for (field, key) in [("quantities", "DBU"), ("quantities", "DSU"), ("list_cost", "USD")] {
        assert!(total[field][key].as_f64().unwrap() > 0.0, "{field} {key}: {total:#}");
    }
    assert_eq!(total["not_priced"], json!({}));
    assert_eq!(names(&found["by_project"]), ["shop"]);
    let mut branches = names(&found["by_branch"]);
    branches.sort_unstable();
    assert_eq!(branches, ["shop/development", "shop/production", "shop/staging"]);
    assert!(names(&found["by_endpoint"]).contains(&"shop/production/primary"), "{found:#}");
    assert_eq!(names(&found["by_tag"]), ["team=a"]);
    // The parts are the whole.
    let sum = |parts: &str| -> f64 {
        let parts = found[parts].as_array().unwrap().iter();
        parts.map(|part| part["list_cost"]["USD"].as_f64().unwrap_or(0.0)).sum()
    };
    let whole = total["list_cost"]["USD"].as_f64().unwrap();
    for parts in ["by_project", "by_branch", "by_day", "by_tag"] {
        assert!((sum(parts) - whole).abs() < 1e-9, "{parts}: {} of {whole}", sum(parts));
    }
    // The first day is not over, so nothing is judged, and that is said.
    assert_eq!(found["anomalies"], json!([]));
    let why = found["not_judged"][0]["why"].as_str().unwrap();
    assert!(why.contains("no complete day"), "{why}");
    let unknown = [&tool[..3], &["--target", "nobody"]].concat();
    assert!(cloud.with_warehouse(&unknown).await.ends(1).err.contains("no project `nobody`"));
    cloud.stop().await;
}
