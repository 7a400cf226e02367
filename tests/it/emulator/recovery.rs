//! What survives a restart, and what is made of work that was interrupted.

use serde_json::{Value, json};

use super::{TestEmulator, number, run};

#[tokio::test]
async fn a_restart_keeps_everything_and_goes_on() {
    let test = TestEmulator::start().await;
    test.project("shop").await;
    let main = "projects/shop/branches/production";
    let mut session = test.session(main).await;
    run(&mut session, "create table t as select generate_series(1, 10) as x").await;
    drop(session);
    let (host, token) = (test.emulator.host().to_owned(), test.emulator.token().clone());
    let endpoint = format!("{main}/endpoints/primary");
    let secret = test.token(&endpoint, json!({})).await;
    let before = test.get(&endpoint).await;
    // Work that has not begun when the emulator stops.
    let slow = json!({"fault": "slow_ready", "seconds": 3600});
    test.ok("POST", "/emulator/faults", slow).await;
    let path = "projects/shop/branches?branch_id=dev";
    let (_, begun) = test.call("POST", path, json!({"spec": {"no_expiry": true}})).await;
    assert_eq!(begun["done"], false);
    let place = test.stop().await;
    let test = TestEmulator::start_in(place).await;
    assert_eq!(test.emulator.token(), &token);
    // It listens where it did, unless somebody else has the port by now.
    let is_taken = || std::net::TcpListener::bind(host.strip_prefix("http://").unwrap()).is_err();
    assert!(test.emulator.host() == host || is_taken(), "{}", test.emulator.host());
    let after = test.get(&endpoint).await;
    assert_eq!(after["status"]["hosts"], before["status"]["hosts"]);
    assert_eq!(after["status"]["current_state"], "IDLE", "nobody woke it");
    let user = test.emulator.connection().user.clone();
    let mut session =
        test.connect(&endpoint, (&user, &secret), "databricks_postgres").await.unwrap();
    assert_eq!(number(&mut session, "select count(*) from t").await, 10);
    test.done(begun).await;
    let mut session = test.session("projects/shop/branches/dev").await;
    assert_eq!(number(&mut session, "select count(*) from t").await, 10);
    test.stop().await;
}

#[tokio::test]
async fn a_branch_that_cannot_be_made_leaves_nothing() {
    let test = TestEmulator::start().await;
    test.project("shop").await;
    let path = "projects/shop/branches?branch_id=dev";
    let spec = json!({"no_expiry": true, "source_branch_lsn": "0/1"});
    let (status, answer) = test.call("POST", path, json!({ "spec": spec })).await;
    let answer = test.settled(answer).await;
    assert!(
        status == 400 || answer["error"]["error_code"] == "INVALID_PARAMETER_VALUE",
        "{answer}"
    );
    assert_eq!(test.refused("GET", "projects/shop/branches/dev", Value::Null).await.0, 404);
    test.branch("shop", "dev", json!({"no_expiry": true})).await;
    test.stop().await;
}

#[tokio::test]
async fn branches_that_nobody_used_are_there_when_somebody_connects_also_after_a_restart() {
    let test = TestEmulator::start().await;
    let body = json!({"project": "old", "branches": ["dev", "idle"]});
    test.ok("POST", "/emulator/asleep", body.clone()).await;
    let again = test.refused("POST", "/emulator/asleep", body).await;
    assert_eq!(again, (409, "ALREADY_EXISTS".to_owned()));
    let many: Vec<String> = (0..10).map(|n| format!("b{n}")).collect();
    let many = json!({"project": "more", "branches": many});
    assert_eq!(test.refused("POST", "/emulator/asleep", many).await.0, 400, "ten with the first");
    let listed = test.get("projects/old/branches").await;
    assert_eq!(listed["branches"].as_array().unwrap().len(), 3, "{listed}");

    let place = test.stop().await;
    let test = TestEmulator::start_in(place).await;
    let main = "projects/old/branches/production";
    let dev = "projects/old/branches/dev";
    for branch in [main, dev, "projects/old/branches/idle"] {
        let endpoint = test.get(&format!("{branch}/endpoints/primary")).await;
        assert_eq!(endpoint["status"]["current_state"], "IDLE", "{endpoint}");
    }
    // Each has data of its own, which stay.
    let mut session = test.session(main).await;
    run(&mut session, "create table t as select generate_series(1, 10) as x").await;
    let mut other = test.session(dev).await;
    assert_eq!(number(&mut other, "select count(*) from pg_tables where tablename = 't'").await, 0);
    drop((session, other));
    let place = test.stop().await;
    let test = TestEmulator::start_in(place).await;
    let mut session = test.session(main).await;
    assert_eq!(number(&mut session, "select count(*) from t").await, 10);
    // A branch of one that nobody used yet, and one of one in use.
    let source = json!({"no_expiry": true, "source_branch": "projects/old/branches/idle"});
    test.branch("old", "of-idle", source).await;
    let mut session = test.session("projects/old/branches/of-idle").await;
    run(&mut session, "create table mine (a int)").await;
    test.branch("old", "of-main", json!({"no_expiry": true})).await;
    let mut session = test.session("projects/old/branches/of-main").await;
    assert_eq!(number(&mut session, "select count(*) from t").await, 10);
    test.ok("DELETE", &format!("{dev}?purge=true"), json!({})).await;
    assert_eq!(test.refused("GET", dev, Value::Null).await.0, 404);
    test.stop().await;
}
