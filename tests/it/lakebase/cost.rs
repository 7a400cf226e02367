//! What Lakebase costs, and a view of hot and archived rows, on the emulator: statements of its SQL API.

use lakeops::kernel::ApiCall;
use lakeops::lakebase::name::path_of;
use lakeops::lakebase::{ReadApi as _, Workspace as _};
use serde_json::{Value, json};

use super::whole::{Cloud, Said};
use crate::harness::within_a_day;

const STATEMENTS: &str = "/api/2.0/sql/statements";

const LABELS: [&str; 2] = ["-p", r#"shape={"tags":{"team":"a"}}"#];

impl Cloud {
    /// The program with a SQL warehouse.
    async fn with_warehouse(&self, args: &[&str]) -> Said {
        let mut command = self.command(args);
        command.env("DATABRICKS_WAREHOUSE_ID", "w");
        command.output().await.unwrap().into()
    }

    async fn statement(&self, text: &str) -> Value {
        let body = json!({ "statement": text, "warehouse_id": "w" });
        let answer = self.client.send(&ApiCall::post(STATEMENTS).body(body)).await.unwrap().body;
        assert_eq!(answer["status"]["state"], "SUCCEEDED", "{text}: {answer}");
        answer
    }
}

fn names(parts: &Value) -> Vec<&str> {
    parts.as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn cost_is_attributed_from_the_billing_tables() {
    within_a_day().await;
    let cloud = Cloud::start().await;
    cloud.provision(&LABELS).await;
    cloud.client.send(&ApiCall::post("/emulator/meter").body(json!({}))).await.unwrap();
    let tool = ["tools", "run", "track_cost_attribution", "--target", "shop", "--output", "json"];
    let said = cloud.run(&tool).await.ends(1);
    assert!(said.err.contains("warehouse"), "{}", said.err);
    // A label that cannot stand in a question is refused, and not left out.
    let odd = [&tool[..], &["-p", r#"tags=["who's"]"#]].concat();
    let said = cloud.with_warehouse(&odd).await.ends(1);
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

#[tokio::test]
async fn a_view_over_both_sides_is_made_in_unity_catalog() {
    let cloud = Cloud::start().await;
    cloud.provision(&LABELS).await;
    let target = ["--target", "shop/development", "--wake", "--output", "json"];
    let table = r#"statements=["create table public.orders (id bigint primary key, amount numeric(12,2), updated_at timestamptz)"]"#;
    let make = ["tools", "run", "execute_sql", "--yes", "-p", table];
    cloud.run(&[&make[..], &target[..]].concat()).await.ends(0);
    let view = ["tools", "run", "create_unified_access_view", "--yes", "-p", "table=public.orders"];
    let view = [&view[..], &["-p", "warehouse_id=w"], &target[..]].concat();
    let said = cloud.run(&view).await.ends(1);
    let all = format!("{}{}", said.out, said.err);
    assert!(all.contains("no database is registered"), "{all}");

    let spec = json!({"branch": "projects/shop/branches/development",
        "postgres_database": "databricks_postgres"});
    let call = ApiCall::post(path_of("catalogs")).query("catalog_id", "shop");
    cloud.client.send(&call.body(json!({ "spec": spec }))).await.unwrap();
    let said = cloud.run(&view).await.ends(1);
    let all = format!("{}{}", said.out, said.err);
    assert!(all.contains("has no table `ops_catalog"), "{all}");
    for text in [
        "create catalog ops_catalog",
        "create schema ops_catalog.lakebase_ops",
        "create table ops_catalog.lakebase_ops.archived_rows (source_table string) using delta \
         location 's3://bucket/archived_rows'",
    ] {
        cloud.statement(text).await;
    }
    let made = cloud.run(&view).await.ends(0).json();
    let full = "ops_catalog.lakebase_ops.vw_orders_unified";
    assert_eq!((&made["view"], &made["made"]), (&json!(full), &json!(true)), "{made:#}");
    assert_eq!(made["hot_source"], "shop.public.orders");
    let path = format!("/api/2.1/unity-catalog/tables/{full}");
    let shown = cloud.client.get(&path).await.unwrap();
    assert_eq!(shown["table_type"], "VIEW");
    let text = shown["view_definition"].as_str().unwrap();
    assert!(text.contains("UNION ALL") && text.contains("AS DECIMAL(12,2)) AS `amount`"), "{text}");
    // What is there as it should be is left as it is; what was changed is put right.
    assert_eq!(cloud.run(&view).await.ends(0).json()["made"], false);
    let other = format!("create or replace view {full} comment 'mine' as select 1 as id");
    cloud.statement(&other).await;
    assert_eq!(cloud.run(&view).await.ends(0).json()["made"], true);
    assert_eq!(cloud.client.get(&path).await.unwrap()["view_definition"], text);
    cloud.stop().await;
}
