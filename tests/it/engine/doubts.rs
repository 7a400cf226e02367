//! Changes of which nobody can tell whether they happened.

use lakeops::journal::Outcome;
use lakeops::journal::event::DoubtVerdict;
use lakeops::plan::{Plan, PlannedStep};
use serde_json::json;
use tokio::net::TcpListener;

use super::kit::{Kit, me, plan, sql, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, postgres, value};

/// A server that takes requests and never answers them while it is alive.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

fn steps(url: &str) -> Vec<PlannedStep> {
    let request = json!({ "method": "POST", "url": url, "expect": [200] });
    vec![
        step("ask", &[], tool("http_request", request)),
        step("after", &["ask"], sql(&["insert into public.t values (1)"])),
    ]
}

async fn kit(name: &str) -> Kit {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    Kit::new(endpoint)
}

async fn rows(kit: &Kit) -> i64 {
    value(&kit.endpoint(), "select count(*) from public.t").await
}

/// A run whose request arrived and got no answer.
async fn doubtful(kit: &Kit, plan: &Plan, listener: &TcpListener) -> lakeops::kernel::RunId {
    let run = kit.start(plan).await;
    let hang_up = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut client, &mut request).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(kit.execute(&run), hang_up);
    assert_eq!(outcome, Outcome::InDoubt, "{:?}", kit.ended(&run, "ask").await);
    assert_eq!(rows(kit).await, 0);
    run
}

async fn settle(kit: &Kit, run: &lakeops::kernel::RunId, verdict: DoubtVerdict) {
    let settled = kit.engine().settle((run, None, None), verdict, (&me(), "looked")).await;
    assert_eq!(settled.unwrap(), ("ask".to_owned(), 0));
}

#[tokio::test]
async fn a_doubt_waits_for_a_person_and_is_never_repeated() {
    let kit = kit("doubt").await;
    let (listener, url) = silent().await;
    let run = doubtful(&kit, &plan(steps(&url)), &listener).await;
    assert!(kit.messages.0.lock().unwrap().iter().any(|title| title.contains("cannot tell")));
    assert_eq!(kit.execute(&run).await, Outcome::InDoubt, "resuming does not send it again");
    assert_eq!(kit.count(&run, "change_started").await, 1);
    settle(&kit, &run, DoubtVerdict::Applied).await;
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.output(&run, "ask").await["ended"], "applied");
    assert_eq!(rows(&kit).await, 1);
    let again =
        kit.engine().settle((&run, None, None), DoubtVerdict::Applied, (&me(), "again")).await;
    assert!(again.unwrap_err().to_string().contains("no such change is in doubt"));
}

#[tokio::test]
async fn what_did_not_happen_is_done_now() {
    let kit = kit("not_applied").await;
    let (listener, url) = silent().await;
    let run = doubtful(&kit, &plan(steps(&url)), &listener).await;
    settle(&kit, &run, DoubtVerdict::NotApplied).await;
    let answer = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut client, &mut request).await.unwrap();
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        tokio::io::AsyncWriteExt::write_all(&mut client, reply).await.unwrap();
        client
    };
    let (outcome, _client) = tokio::join!(kit.execute(&run), answer);
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(kit.output(&run, "ask").await["ended"], "applied");
    assert_eq!(kit.state(&run).await.nodes[0].attempts, 1, "a doubt is no failed try");
    assert_eq!(rows(&kit).await, 1);
}

#[tokio::test]
async fn what_is_abandoned_is_left_and_the_run_goes_on() {
    let kit = kit("abandon").await;
    let (listener, url) = silent().await;
    let run = doubtful(&kit, &plan(steps(&url)), &listener).await;
    settle(&kit, &run, DoubtVerdict::Abandon).await;
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(kit.output(&run, "ask").await["ended"], "abandoned");
    let started = kit.count(&run, "change_started").await;
    assert_eq!(started, 4, "the request, the table of keys with its schema, the insert");
    assert_eq!(rows(&kit).await, 1);
}

#[tokio::test]
async fn a_cancelled_run_ends_once_its_doubt_is_settled() {
    let kit = kit("cancel_doubt").await;
    let (listener, url) = silent().await;
    let run = doubtful(&kit, &plan(steps(&url)), &listener).await;
    kit.cancel(&run, false).await;
    assert_eq!(kit.execute(&run).await, Outcome::InDoubt, "the doubt comes first");
    settle(&kit, &run, DoubtVerdict::NotApplied).await;
    assert_eq!(kit.execute(&run).await, Outcome::Cancelled);
    assert_eq!(kit.count(&run, "change_started").await, 1, "nothing new begins");
    assert_eq!(rows(&kit).await, 0);
}

#[tokio::test]
async fn a_request_whose_process_was_killed_is_in_doubt() {
    let endpoint = postgres().await.fresh_database("killed_request").await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    let (listener, url) = silent().await;
    let crash = Crash::new(&plan(steps(&url)), &endpoint);
    let mut child = crash.spawn(None);
    let (client, _) = listener.accept().await.unwrap();
    child.kill().unwrap();
    assert_eq!(crash.wait(child), End::Killed);
    drop(client);
    assert_eq!(crash.run(None), End::Outcome("in_doubt".to_owned()));
    assert_eq!(crash.run(None), End::Outcome("in_doubt".to_owned()));
    let entries = crash.entries().await;
    let started = entries.iter().filter(|entry| entry.event.kind() == "change_started").count();
    assert_eq!(started, 1, "never repeated blindly");
    assert_eq!(value::<i64>(&endpoint, "select count(*) from public.t").await, 0);
}
