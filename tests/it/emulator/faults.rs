//! What goes wrong when it is told to, and only then.

use std::time::Duration;

use serde_json::{Value, json};

use super::{TestEmulator, sqlstate};

impl TestEmulator {
    async fn fault(&self, fault: Value) {
        self.ok("POST", "/emulator/faults", fault).await;
    }
}

#[tokio::test]
async fn faults_happen_as_often_as_they_are_told_to() {
    let test = TestEmulator::start().await;
    test.fault(json!({"fault": "throttled", "retry_after": 7, "path": "/projects"})).await;
    let token = test.emulator.token().expose().clone();
    let answer = test.send("GET", "projects", Value::Null, &token).await.unwrap();
    assert_eq!(answer.status().as_u16(), 429);
    assert_eq!(answer.headers()["retry-after"], "7");
    test.get("projects").await;
    test.project("shop").await;
    let create = |id: &str| format!("projects/shop/branches?branch_id={id}");
    let body = json!({"spec": {"no_expiry": true}});
    // An answer that does not come, before and after the effect.
    for (fault, id, made) in [("dropped_before", "a", false), ("dropped_after", "b", true)] {
        test.fault(json!({"fault": fault, "verb": "POST", "path": "/branches"})).await;
        assert!(test.send("POST", &create(id), body.clone(), &token).await.is_err(), "{fault}");
        let (status, _) =
            test.call("GET", &format!("projects/shop/branches/{id}"), Value::Null).await;
        assert_eq!(status == 200, made, "{fault}");
    }
    // Made, and answered with an error.
    test.fault(json!({"fault": "created_but_errored", "status": 504, "verb": "POST"})).await;
    assert_eq!(test.refused("POST", &create("c"), body.clone()).await.0, 504);
    test.get("projects/shop/branches/c").await;
    test.fault(json!({"fault": "operation_error", "path": "branches/d"})).await;
    let (_, operation) = test.call("POST", &create("d"), body.clone()).await;
    let operation = test.settled(operation).await;
    assert_eq!(operation["error"]["error_code"], "INTERNAL_ERROR");
    assert_eq!(test.get("projects/shop/branches/d").await["status"]["current_state"], "READY");
    // Slow: answered first, done later.
    test.fault(json!({"fault": "slow_ready", "seconds": 3600, "path": "branches/e"})).await;
    let (_, begun) = test.call("POST", &create("e"), body.clone()).await;
    assert_eq!(begun["done"], false);
    let busy = test.refused("DELETE", "projects/shop/branches/e", Value::Null).await;
    assert_eq!(busy, (409, "ABORTED".to_owned()));
    test.clock.turn(Duration::from_hours(1));
    test.done(begun).await;
    assert_eq!(test.get("projects/shop/branches/e").await["status"]["current_state"], "READY");
    // A fresh token that has not arrived yet.
    let endpoint = "projects/shop/branches/e/endpoints/primary";
    test.fault(json!({"fault": "credential_refused", "count": 2})).await;
    let secret = test.token(endpoint, json!({})).await;
    let user = test.emulator.connection().user.clone();
    for _ in 0..2 {
        let refused = test.connect(endpoint, (&user, &secret), "databricks_postgres").await;
        assert_eq!(sqlstate(&refused.unwrap_err()), "28P01");
    }
    let mut session =
        test.connect(endpoint, (&user, &secret), "databricks_postgres").await.unwrap();
    // A session that breaks.
    test.ok("POST", "/emulator/drop_sessions", json!({ "endpoint": endpoint })).await;
    sqlx::raw_sql("select 1").execute(&mut session).await.unwrap_err();
    test.stop().await;
}
