//! `lakeops emulator`: the background process, as a script meets it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lakeops::kernel::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::client;
use crate::harness::Place;

/// Runs the program; the state directory is the one of the place.
pub(crate) fn lakeops(place: &Place, arguments: &[&str]) -> (i32, Value) {
    lakeops_with(place, &[], arguments)
}

/// The same with these variables.
pub(crate) fn lakeops_with(
    place: &Place,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakeops"));
    command.args(["--output", "json", "--state"]).arg(place.state()).args(arguments);
    command.current_dir(place.base.path()).env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "LAKEOPS_POSTGRES_BIN", "LAKEOPS_POSTGRES_USER"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&said)
        .unwrap_or_else(|_| json!(format!("{said}{}", String::from_utf8_lossy(&output.stderr))));
    (output.status.code().unwrap_or(-1), value)
}

pub(crate) fn done(place: &Place, arguments: &[&str]) -> Value {
    let (code, value) = lakeops(place, arguments);
    assert_eq!(code, 0, "{arguments:?}: {value}");
    value
}

pub(crate) async fn ask(status: &Value, verb: &str, path: &str, body: Value) -> Value {
    let url = format!("{}{path}", status["host"].as_str().unwrap());
    let request = client().request(verb.parse().unwrap(), url);
    let request = request.bearer_auth(status["token"].as_str().unwrap()).json(&body);
    request.send().await.unwrap().json().await.unwrap()
}

/// Makes a project, and waits until it is there: on a busy machine the answer comes before.
pub(crate) async fn project(status: &Value, id: &str) {
    let create = format!("/api/2.0/postgres/projects?project_id={id}");
    let begun = ask(status, "POST", &create, json!({})).await;
    ends(status, &begun).await;
}

/// Waits for the operation that a call began, which has to succeed.
async fn ends(status: &Value, begun: &Value) {
    let operation = format!("/api/2.0/postgres/{}", begun["name"].as_str().unwrap());
    let until = SystemClock.now().plus(Duration::from_mins(2));
    loop {
        let found = ask(status, "GET", &operation, Value::Null).await;
        if found["done"] == true {
            assert!(found.get("error").is_none(), "{found}");
            return;
        }
        assert!(SystemClock.now() < until, "{found}");
        pause(Duration::from_millis(50)).await;
    }
}

async fn pause(time: Duration) {
    SystemClock.sleep_until(SystemClock.now().plus(time)).await;
}

fn kill(status: &Value) {
    let pid = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

pub(crate) async fn gone(place: &Path) {
    let until = SystemClock.now().plus(Duration::from_mins(2));
    while crate::fleet::processes_on(place) > 0 {
        assert!(SystemClock.now() < until, "processes of {} are left", place.display());
        pause(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn it_starts_once_survives_being_killed_and_leaves_nothing() {
    let place = Place::new();
    assert_eq!(done(&place, &["emulator", "status"])["state"], "stopped");
    let status = done(&place, &["emulator", "start"]);
    assert_eq!(status["state"], "running");
    assert_eq!(done(&place, &["emulator", "start"])["pid"], status["pid"], "it runs already");
    let connection = std::fs::read(place.state().join("emulator/connection.json")).unwrap();
    let connection: Value = serde_json::from_slice(&connection).unwrap();
    assert_eq!(connection["host"], status["host"]);
    let token = std::fs::metadata(connection["token_file"].as_str().unwrap()).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&token.permissions()) & 0o777, 0o600);
    project(&status, "shop").await;
    let endpoints = done(&place, &["emulator", "status"])["endpoints"].clone();
    assert_eq!(endpoints[0]["state"], "ACTIVE");
    assert!(endpoints[0]["address"]["host"].as_str().unwrap().starts_with("127."));
    // A branch is being made when everything is killed.
    let slow = json!({"fault": "slow_ready", "seconds": 3600});
    ask(&status, "POST", "/emulator/faults", slow).await;
    let branch = "/api/2.0/postgres/projects/shop/branches?branch_id=dev";
    let begun = ask(&status, "POST", branch, json!({"spec": {"no_expiry": true}})).await;
    assert_eq!(begun["done"], false, "{begun}");
    kill(&status);
    gone(&place.state()).await;
    assert_eq!(done(&place, &["emulator", "status"])["state"], "stopped");
    let killed = status["pid"].clone();
    let status = done(&place, &["emulator", "start"]);
    assert_ne!(status["pid"], killed);
    ends(&status, &begun).await;
    let stopped = done(&place, &["emulator", "stop"]);
    assert_eq!(stopped["was_running"], true);
    gone(&place.state()).await;
    assert_eq!(done(&place, &["emulator", "stop"])["was_running"], false);
    assert_eq!(lakeops(&place, &["emulator", "reset"]).0, 2, "it has to be confirmed");
    done(&place, &["emulator", "reset", "--yes"]);
    assert!(!place.state().join("emulator").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_finishes_what_was_begun_and_leaves_nothing_else() {
    let place = Place::new();
    let mut status = done(&place, &["emulator", "start"]);
    let base = "/api/2.0/postgres/projects";
    project(&status, "shop").await;
    let branch = format!("{base}/shop/branches/dev");
    let kept = || std::fs::read_dir(place.state().join("emulator/branches")).unwrap().count();
    for wait in [20, 150, 400, 800] {
        let (url, token) = (status["host"].clone(), status["token"].clone());
        let request = client()
            .post(format!("{}{base}/shop/branches?branch_id=dev", url.as_str().unwrap()))
            .bearer_auth(token.as_str().unwrap())
            .json(&json!({"spec": {"no_expiry": true}}));
        let asked = tokio::spawn(request.send());
        pause(Duration::from_millis(wait)).await;
        kill(&status);
        drop(asked.await);
        gone(&place.state()).await;
        status = done(&place, &["emulator", "start"]);
        let until = SystemClock.now().plus(Duration::from_mins(3));
        loop {
            let found = ask(&status, "GET", &branch, Value::Null).await;
            if found["error_code"] == "NOT_FOUND" || found["status"]["current_state"] == "READY" {
                break;
            }
            assert!(SystemClock.now() < until, "after {wait} ms: {found}");
            pause(Duration::from_millis(100)).await;
        }
        ask(&status, "DELETE", &format!("{branch}?purge=true"), Value::Null).await;
        let until = SystemClock.now().plus(Duration::from_mins(3));
        while kept() != 1 {
            assert!(SystemClock.now() < until, "after {wait} ms: {} branches are kept", kept());
            pause(Duration::from_millis(100)).await;
        }
    }
    done(&place, &["emulator", "reset", "--yes"]);
    gone(&place.state()).await;
}
