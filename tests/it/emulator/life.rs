//! The life of a project, from its first branch to its end.

use std::time::Duration;

use lakeops::kernel::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{TestEmulator, number, run, sqlstate};

const MAIN: &str = "projects/shop/branches/production";

#[tokio::test]
async fn a_project_begins_with_a_branch_that_can_be_used() {
    let test = TestEmulator::start().await;
    let body =
        json!({"spec": {"display_name": "Shop", "custom_tags": [{"key": "team", "value": "a"}]}});
    let made = test.ok("POST", "projects?project_id=shop", body).await;
    assert_eq!(made["response"]["status"]["display_name"], "Shop");
    let project = test.get("projects/shop").await;
    assert!(project.get("spec").is_none());
    assert_eq!(project["status"]["pg_version"], 17);
    assert_eq!(project["status"]["default_branch"], MAIN);
    let branch = test.get(MAIN).await;
    assert_eq!(branch["status"]["current_state"], "READY");
    assert_eq!(branch["status"]["default"], true);
    assert!(branch["status"]["logical_size_bytes"].as_u64().unwrap() > 1_000_000);
    let databases = test.get(&format!("{MAIN}/databases")).await;
    assert_eq!(databases["databases"][0]["status"]["postgres_database"], "databricks_postgres");
    let roles = test.get(&format!("{MAIN}/roles")).await;
    assert_eq!(databases["databases"][0]["status"]["role"], roles["roles"][0]["name"]);
    assert_eq!(roles["roles"][0]["status"]["auth_method"], "LAKEBASE_OAUTH_V1");
    let mut session = test.session(MAIN).await;
    run(&mut session, "create table t (x int); insert into t select generate_series(1, 10)").await;
    assert_eq!(number(&mut session, "select count(*) from pg_stat_statements").await.min(1), 1);
    let superuser = "select count(*) from pg_roles where rolname = current_user and rolsuper";
    assert_eq!(number(&mut session, superuser).await, 0);
    test.stop().await;
}

#[tokio::test]
async fn branches_are_copies_with_rules() {
    let test = TestEmulator::start().await;
    test.project("shop").await;
    let mut main = test.session(MAIN).await;
    run(&mut main, "create table t as select generate_series(1, 10) as x").await;
    let dev = test.branch("shop", "dev", json!({"ttl": "3600s"})).await;
    assert_eq!(dev["status"]["source_branch"], MAIN);
    assert!(dev["status"]["source_branch_lsn"].as_str().unwrap().contains('/'));
    let mut session = test.session("projects/shop/branches/dev").await;
    run(&mut session, "delete from t").await;
    assert_eq!(number(&mut main, "select count(*) from t").await, 10, "nothing is shared");
    // Back in time.
    let past = SystemClock.now();
    SystemClock.sleep_until(past.plus(Duration::from_millis(50))).await;
    run(&mut main, "drop table t").await;
    test.branch("shop", "past", json!({"source_branch_time": past, "no_expiry": true})).await;
    let mut session = test.session("projects/shop/branches/past").await;
    assert_eq!(number(&mut session, "select count(*) from t").await, 10);
    // What is refused.
    let create = "projects/shop/branches?branch_id=x";
    let bad = (400, "INVALID_PARAMETER_VALUE".to_owned());
    for spec in [
        json!({}),
        json!({"ttl": "60s", "no_expiry": true}),
        json!({"no_expiry": false}),
        json!({"ttl": "2592001s"}),
        json!({"no_expiry": true, "source_branch_time": "2040-01-01T00:00:00Z"}),
    ] {
        let refused = test.refused("POST", create, json!({ "spec": spec })).await;
        assert_eq!(refused, bad, "{spec}");
    }
    let again = test
        .refused(
            "POST",
            "projects/shop/branches?branch_id=dev",
            json!({"spec": {"no_expiry": true}}),
        )
        .await;
    assert_eq!(again, (409, "ALREADY_EXISTS".to_owned()));
    let id = test
        .refused(
            "POST",
            "projects/shop/branches?branch_id=A_b",
            json!({"spec": {"no_expiry": true}}),
        )
        .await;
    assert_eq!(id, bad);
    let state = (400, "BAD_REQUEST".to_owned());
    assert_eq!(test.refused("DELETE", MAIN, Value::Null).await, state, "the root stays");
    // Protection.
    let dev = "projects/shop/branches/dev";
    let protect = json!({"spec": {"is_protected": true}});
    let mask = |mask: &str| format!("{dev}?update_mask={mask}");
    assert_eq!(test.refused("PATCH", &mask("spec.is_protected"), protect.clone()).await, state);
    let both = json!({"spec": {"is_protected": true, "no_expiry": true}});
    let done = test.ok("PATCH", &mask("spec.is_protected%2Cspec.expiration"), both).await;
    assert_eq!(done["response"]["status"]["is_protected"], true);
    assert!(done["response"]["status"].get("expire_time").is_none());
    assert_eq!(test.refused("DELETE", dev, Value::Null).await, state);
    let past = "projects/shop/branches/past?update_mask=spec.is_protected";
    assert_eq!(test.refused("PATCH", past, protect).await, (400, "QUOTA_EXCEEDED".to_owned()));
    assert_eq!(test.refused("DELETE", "projects/shop", Value::Null).await, state);
    test.ok("PATCH", &mask("spec.is_protected"), json!({"spec": {"is_protected": false}})).await;
    // Children keep their parent.
    test.branch("shop", "kid", json!({"no_expiry": true, "source_branch": dev})).await;
    assert_eq!(test.refused("DELETE", dev, Value::Null).await, state);
    test.ok("DELETE", "projects/shop/branches/kid?purge=true", Value::Null).await;
    // Deleted, and back.
    let gone = test.ok("DELETE", dev, Value::Null).await;
    assert_eq!(gone["response"]["@type"], "type.googleapis.com/google.protobuf.Empty");
    assert_eq!(test.get(dev).await["status"]["current_state"], "DELETED");
    let listed = |it: &Value| it["branches"].as_array().unwrap().len();
    assert_eq!(listed(&test.get("projects/shop/branches").await), 2);
    assert_eq!(listed(&test.get("projects/shop/branches?show_deleted=true").await), 3);
    test.ok("POST", &format!("{dev}/undelete"), json!({})).await;
    let mut session = test.session(dev).await;
    assert_eq!(number(&mut session, "select count(*) from t").await, 0);
    // In pages.
    let first = test.get("projects/shop/branches?page_size=2").await;
    let token = first["next_page_token"].as_str().unwrap();
    let rest = test.get(&format!("projects/shop/branches?page_size=2&page_token={token}")).await;
    assert_eq!((listed(&first), listed(&rest)), (2, 1));
    assert!(rest.get("next_page_token").is_none());
    // A reset is a deletion and a creation: nothing of the old one is left.
    let before = test.get(dev).await["uid"].clone();
    let replaced = "projects/shop/branches?branch_id=dev&replace_existing=true";
    test.ok("POST", replaced, json!({"spec": {"no_expiry": true}})).await;
    assert_ne!(test.get(dev).await["uid"], before);
    test.ok("DELETE", "projects/shop?purge=true", Value::Null).await;
    assert_eq!(test.refused("GET", "projects/shop", Value::Null).await.0, 404);
    test.stop().await;
}

#[tokio::test]
async fn endpoints_roles_databases_and_credentials() {
    let test = TestEmulator::start().await;
    test.project("shop").await;
    let endpoint = format!("{MAIN}/endpoints/primary");
    let patch = |mask: &str| format!("{endpoint}?update_mask={mask}");
    // Sizes and settings.
    let size = json!({"spec": {"autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 4,
                               "settings": {"pg_settings": {"work_mem": "9MB"}}}});
    let mask =
        "spec.autoscaling_limit_min_cu,spec.autoscaling_limit_max_cu,spec.settings.pg_settings";
    let done = test.ok("PATCH", &patch(mask), size).await;
    assert_eq!(done["response"]["status"]["autoscaling_limit_max_cu"], 4.0);
    let mut session = test.session(MAIN).await;
    let most: String =
        sqlx::query_scalar("show max_connections").fetch_one(&mut session).await.unwrap();
    assert_eq!(most, "839");
    let wide = json!({"spec": {"autoscaling_limit_max_cu": 32}});
    let bad = (400, "INVALID_PARAMETER_VALUE".to_owned());
    assert_eq!(test.refused("PATCH", &patch("spec.autoscaling_limit_max_cu"), wide).await, bad);
    let ours = json!({"spec": {"settings": {"pg_settings": {"fsync": "off"}}}});
    assert_eq!(test.refused("PATCH", &patch("spec.settings.pg_settings"), ours).await, bad);
    // Suspended, and woken by a client only when it may be.
    let off = |on: bool| json!({"spec": {"disabled": on}});
    let done = test.ok("PATCH", &patch("spec.disabled"), off(true)).await;
    assert_eq!(done["response"]["status"]["current_state"], "IDLE");
    let token = test.token(&endpoint, json!({})).await;
    let user = test.emulator.connection().user.clone();
    let refused = test.connect(&endpoint, (&user, &token), "databricks_postgres").await;
    assert_eq!(sqlstate(&refused.unwrap_err()), "55000");
    test.ok("PATCH", &patch("spec.disabled"), off(false)).await;
    test.connect(&endpoint, (&user, &token), "databricks_postgres").await.unwrap();
    let second = test
        .refused(
            "POST",
            &format!("{MAIN}/endpoints?endpoint_id=two"),
            json!({"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE"}}),
        )
        .await;
    assert_eq!(second, (400, "BAD_REQUEST".to_owned()));
    assert_eq!(
        test.refused("DELETE", &endpoint, Value::Null).await,
        (400, "BAD_REQUEST".to_owned())
    );
    // A role with a password, and a database of its own.
    let role = json!({"spec": {"postgres_role": "app", "attributes": {"createdb": true}}});
    let made = test.ok("POST", &format!("{MAIN}/roles?role_id=app-role"), role.clone()).await;
    assert_eq!(made["response"]["status"]["auth_method"], "PG_PASSWORD_SCRAM_SHA_256");
    assert_eq!(made["response"]["status"]["attributes"]["bypassrls"], false);
    let twice = test.refused("POST", &format!("{MAIN}/roles?role_id=app-role"), role).await;
    assert_eq!(twice, (400, "BAD_REQUEST".to_owned()));
    let database =
        json!({"spec": {"postgres_database": "app", "role": format!("{MAIN}/roles/app-role")}});
    test.ok("POST", &format!("{MAIN}/databases?database_id=app-db"), database).await;
    let wrong = json!({"spec": {"role": format!("{MAIN}/roles/nobody")}});
    let refused = test.refused("POST", &format!("{MAIN}/databases?database_id=x"), wrong).await;
    assert_eq!(refused, (404, "NOT_FOUND".to_owned()));
    let drawn = test.ok("POST", &format!("{MAIN}/roles/app-role/password"), json!({})).await;
    let password = drawn["password"].as_str().unwrap();
    let closed = test.connect(&endpoint, ("app", password), "app").await;
    assert_eq!(sqlstate(&closed.unwrap_err()), "28P01", "passwords are not allowed yet");
    let native = json!({"spec": {"enable_pg_native_login": true}});
    test.ok("PATCH", "projects/shop?update_mask=spec.enable_pg_native_login", native).await;
    let mut app = test.connect(&endpoint, ("app", password), "app").await.unwrap();
    run(&mut app, "create table mine (x int)").await;
    let wrong = test.connect(&endpoint, ("app", "npg_wrong"), "app").await;
    assert_eq!(sqlstate(&wrong.unwrap_err()), "28P01");
    let (_, owner) = test.call("DELETE", &format!("{MAIN}/roles/app-role"), Value::Null).await;
    let owner = test.settled(owner).await;
    assert_eq!(owner["error"]["error_code"], "BAD_REQUEST", "it owns a database: {owner}");
    drop(app);
    test.ok("DELETE", &format!("{MAIN}/databases/app-db"), Value::Null).await;
    test.ok("DELETE", &format!("{MAIN}/roles/app-role"), Value::Null).await;
    // Tokens: several at once, for their endpoint and role alone, and for reading only.
    let other = test.token(&endpoint, json!({"ttl": "300s"})).await;
    for token in [&token, &other] {
        test.connect(&endpoint, (&user, token), "databricks_postgres").await.unwrap();
    }
    assert_eq!(
        test.refused("POST", "credentials", json!({"endpoint": endpoint, "ttl": "60s"})).await,
        bad
    );
    let reader = test.token(&endpoint, json!({"claims": [{"permission_set": "READ_ONLY"}]})).await;
    let mut reader =
        test.connect(&endpoint, (&user, &reader), "databricks_postgres").await.unwrap();
    let refused = sqlx::raw_sql("create table no (x int)").execute(&mut reader).await;
    assert_eq!(sqlstate(&refused.unwrap_err()), "25006");
    let made = test.branch("shop", "dev", json!({"no_expiry": true})).await;
    let elsewhere = format!("{}/endpoints/primary", made["name"].as_str().unwrap());
    let refused = test.connect(&elsewhere, (&user, &token), "databricks_postgres").await;
    assert_eq!(sqlstate(&refused.unwrap_err()), "28P01", "a token is for one endpoint");
    test.stop().await;
}

#[tokio::test]
async fn callers_are_known() {
    let test = TestEmulator::start().await;
    let token = test.emulator.token().expose().clone();
    let status = |answer: reqwest::Response| answer.status().as_u16();
    assert_eq!(status(test.send("GET", "projects", Value::Null, "wrong").await.unwrap()), 403);
    let bare = test.client.get(format!("{}/api/2.0/postgres/projects", test.emulator.host()));
    assert_eq!(status(bare.send().await.unwrap()), 401);
    let open = format!("{}/.well-known/databricks-config", test.emulator.host());
    let config: Value = test.client.get(open).send().await.unwrap().json().await.unwrap();
    assert_eq!(config["oidc_endpoint"], format!("{}/oidc", test.emulator.host()));
    let me = test.get("/api/2.0/preview/scim/v2/Me").await;
    assert_eq!(me["userName"], *test.emulator.connection().user);
    assert_eq!(
        test.refused("GET", "nothing", Value::Null).await,
        (404, "ENDPOINT_NOT_FOUND".to_owned())
    );
    // A machine gets a token for its secret.
    let machine =
        test.ok("POST", "/emulator/service_principals", json!({"client_id": "robot"})).await;
    let secret = machine["client_secret"].as_str().unwrap();
    let ask = |secret: &str| {
        let request = test.client.post(format!("{}/oidc/v1/token", test.emulator.host()));
        let request = request.basic_auth("robot", Some(secret.to_owned()));
        request
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials&scope=all-apis")
            .send()
    };
    let given: Value = ask(secret).await.unwrap().json().await.unwrap();
    let robot = given["access_token"].as_str().unwrap();
    assert_eq!(status(test.send("GET", "projects", Value::Null, robot).await.unwrap()), 200);
    let refused = ask("wrong").await.unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "invalid_client");
    assert!(!token.is_empty());
    test.stop().await;
}
