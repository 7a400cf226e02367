//! Limits, what expires, and the rest of the workspace: Unity Catalog, statements, jobs, permissions.

use std::time::Duration;

use serde_json::{Value, json};

use super::{TestEmulator, number, run};

const MAIN: &str = "projects/shop/branches/production";

#[tokio::test]
async fn a_login_brings_an_archived_branch_back() {
    let test = TestEmulator::start().await;
    test.project("shop").await;
    test.branch("shop", "old", json!({"no_expiry": true})).await;
    let old = "projects/shop/branches/old";
    let archived = test.ok("POST", "/emulator/archive", json!({ "branch": old })).await;
    assert_eq!(archived["status"]["current_state"], "ARCHIVED");
    let endpoint = format!("{old}/endpoints/primary");
    assert_eq!(test.get(&endpoint).await["status"]["current_state"], "IDLE");
    let mut session = test.session(old).await;
    assert_eq!(number(&mut session, "select 1::bigint").await, 1);
    assert_eq!(test.get(old).await["status"]["current_state"], "READY");
    test.stop().await;
}

#[tokio::test]
async fn what_expires_goes_and_what_must_stay_stays() {
    let test = TestEmulator::start().await;
    test.project("shop").await;
    let create = |id: &str, source: &str, ttl: &str| {
        let spec = json!({"ttl": ttl, "source_branch": format!("projects/shop/branches/{source}")});
        let path = format!("projects/shop/branches?branch_id={id}");
        let test = &test;
        async move { test.ok("POST", &path, json!({ "spec": spec })).await }
    };
    create("parent", "production", "7200s").await;
    // It cannot have a child and an expiry; one that gets a child afterwards stays while it is there.
    let soon = json!({"spec": {"ttl": "600s"}});
    test.ok("PATCH", "projects/shop/branches/parent?update_mask=spec.expiration", soon).await;
    create("child", "parent", "7200s").await;
    // What expires cannot be protected; who protects it says that it stays.
    create("held", "production", "7200s").await;
    let held = |mask: &str| format!("projects/shop/branches/held?update_mask={mask}");
    let soon = json!({"spec": {"ttl": "600s"}});
    test.ok("PATCH", &held("spec.expiration"), soon).await;
    let protect = json!({"spec": {"is_protected": true, "no_expiry": true}});
    let (status, code) = test.refused("PATCH", &held("spec.is_protected"), protect.clone()).await;
    assert_eq!((status, &*code), (400, "BAD_REQUEST"));
    test.ok("PATCH", &held("spec.is_protected%2Cspec.expiration"), protect).await;
    let again =
        test.refused("PATCH", &held("spec.expiration"), json!({"spec": {"ttl": "600s"}})).await;
    assert_eq!(again, (400, "BAD_REQUEST".to_owned()));
    let there = |name: &'static str| {
        let path = format!("projects/shop/branches/{name}");
        let test = &test;
        async move { test.call("GET", &path, Value::Null).await.0 == 200 }
    };
    // The protected one was to expire by then as well.
    test.clock.turn(Duration::from_mins(30));
    test.emulator.remove_expired().await.unwrap();
    assert!(there("parent").await && there("child").await, "a branch with children stays");
    test.ok("DELETE", "projects/shop/branches/child?purge=true", Value::Null).await;
    test.emulator.remove_expired().await.unwrap();
    while there("parent").await {}
    assert!(there("production").await && there("held").await, "what is protected stays");
    test.stop().await;
}

#[tokio::test]
async fn the_rest_of_the_workspace() {
    let test = TestEmulator::start().await;
    let tags = json!({"spec": {"custom_tags": [{"key": "team", "value": "a"}]}});
    test.ok("POST", "projects?project_id=shop", tags).await;
    // A catalog of a database, which it makes.
    let spec =
        json!({"branch": MAIN, "postgres_database": "sales", "create_database_if_missing": true});
    let made = test.ok("POST", "catalogs?catalog_id=shop_sales", json!({ "spec": spec })).await;
    assert_eq!(made["response"]["status"]["postgres_database"], "sales");
    let unity = "/api/2.1/unity-catalog";
    assert_eq!(test.get(&format!("{unity}/catalogs/shop_sales")).await["name"], "shop_sales");
    let grants = format!("{unity}/permissions/catalog/shop_sales");
    let change = json!({"changes": [{"principal": "analysts", "add": ["USE_CATALOG", "SELECT"]}]});
    let granted = test.ok("PATCH", &grants, change).await;
    assert_eq!(granted["privilege_assignments"][0]["privileges"], json!(["SELECT", "USE_CATALOG"]));
    // A synced table says what its script says.
    let spec = json!({"branch": MAIN, "source_table_full_name": "main.raw.orders",
                      "primary_key_columns": ["id"], "scheduling_policy": "SNAPSHOT"});
    let table = "synced_tables/shop_sales.public.orders";
    let create = "synced_tables?synced_table_id=shop_sales.public.orders";
    let made = test.ok("POST", create, json!({ "spec": spec })).await;
    assert_eq!(made["response"]["status"]["detailed_state"], "SYNCED_TABLE_PROVISIONING");
    let script = json!({"status": {"detailed_state": "SYNCED_TABLE_ONLINE", "last_processed_commit_version": 7}});
    test.ok("PATCH", "/emulator/synced_tables/shop_sales.public.orders", script).await;
    assert_eq!(test.get(table).await["status"]["last_processed_commit_version"], 7);
    test.ok("DELETE", table, Value::Null).await;
    // Statements make names, and read the system's tables.
    let sql = |statement: &str, more: Value| {
        let mut body = json!({"statement": statement, "warehouse_id": "w"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let test = &test;
        async move { test.ok("POST", "/api/2.0/sql/statements", body).await }
    };
    for statement in [
        "create catalog if not exists ops",
        "create schema if not exists ops.history",
        "create table if not exists ops.history.metrics (id bigint, name string) using delta location 's3://b/x'",
    ] {
        let done = sql(statement, json!({})).await;
        assert_eq!(done["status"]["state"], "SUCCEEDED", "{statement}: {done}");
    }
    let info = test.get(&format!("{unity}/tables/ops.history.metrics")).await;
    assert_eq!(info["storage_location"], "s3://b/x");
    assert_eq!(info["columns"][0]["type_text"], "bigint");
    test.ok("POST", "/emulator/meter", json!({})).await;
    let text = "select usage_metadata.project_id, custom_tags['team'] as team, \
                sum(usage_quantity) > 0 as used from system.billing.usage \
                where billing_origin_product = 'LAKEBASE' and sku_name like :sku group by 1, 2";
    let sku = json!({"parameters": [{"name": "sku", "value": "%DATABASE_SERVERLESS_COMPUTE%"}]});
    let found = sql(text, sku).await;
    let uid = test.get("projects/shop").await["uid"].clone();
    assert_eq!(found["result"]["data_array"], json!([[uid, "a", "true"]]), "{found}");
    let again = format!("/api/2.0/sql/statements/{}", found["statement_id"].as_str().unwrap());
    assert_eq!(test.get(&again).await, found);
    let failed = sql("select * from system.billing.nothing", json!({})).await;
    assert_eq!(failed["status"]["state"], "FAILED");
    let priced = sql(
        "select sum(u.usage_quantity * p.pricing.default) > 0 from system.billing.usage u \
         join system.billing.list_prices p on u.sku_name = p.sku_name and p.price_end_time is null",
        json!({}),
    );
    assert_eq!(priced.await["result"]["data_array"], json!([["true"]]));
    // Jobs are kept.
    let job =
        test.ok("POST", "/api/2.2/jobs/create", json!({"name": "nightly"})).await["job_id"].clone();
    let run_now = json!({"job_id": job, "idempotency_token": "t"});
    let first = test.ok("POST", "/api/2.2/jobs/run-now", run_now.clone()).await;
    assert_eq!(test.ok("POST", "/api/2.2/jobs/run-now", run_now).await["run_id"], first["run_id"]);
    let started = format!("/api/2.2/jobs/runs/get?run_id={}", first["run_id"]);
    assert_eq!(test.get(&started).await["state"]["life_cycle_state"], "PENDING");
    let listed = test.get("/api/2.2/jobs/list?name=nightly").await;
    assert_eq!(listed["jobs"][0]["job_id"], job);
    let missing = test.refused("GET", "/api/2.2/jobs/get?job_id=1", Value::Null).await;
    assert_eq!(missing, (400, "INVALID_PARAMETER_VALUE".to_owned()));
    // A schedule of snapshots.
    let schedule = format!("{MAIN}/snapshot-schedule");
    assert_eq!(test.get(&schedule).await["schedule"], json!([]));
    let daily = json!({"schedule": [{"retention": "7200s", "daily_schedule": {"hour": 3}}]});
    test.ok("PATCH", &format!("{schedule}?update_mask=schedule"), daily.clone()).await;
    assert_eq!(test.get(&schedule).await["schedule"], daily["schedule"]);
    // Permissions of the project.
    let list =
        json!({"access_control_list": [{"group_name": "devs", "permission_level": "CAN_USE"}]});
    let kept = test.ok("PUT", "/api/2.0/permissions/database-projects/shop", list).await;
    assert_eq!(kept["access_control_list"][1]["group_name"], "devs");
    let mut session = test.session(MAIN).await;
    run(&mut session, "create role tenant nologin").await;
    assert_eq!(number(&mut session, "select 1::bigint").await, 1);
    test.stop().await;
}
