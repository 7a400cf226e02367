//! A secret goes to the other side, and nowhere else.

use std::fs;
use std::sync::Arc;

use lakeops::engine::apply::SecretSource;
use lakeops::journal::{Outcome, SqliteJournal};
use lakeops::kernel::{Redactor, Secret, SystemClock};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::kit::{Kit, plan_with, step, tool};
use crate::harness::{execute, postgres, value};

const CANARY: &str = "c4n/ry+\"t0ken\"&x=?";
const BASE64: &str = "YzRuL3J5KyJ0MGtlbiImeD0/";
const URL: &str = "c4n%2Fry%2B%22t0ken%22%26x%3D%3F";
const JSON: &str = "c4n/ry+\\\"t0ken\\\"&x=?";

struct OneSecret;

impl SecretSource for OneSecret {
    fn secret(&self, name: &str) -> Option<Secret<String>> {
        (name == "TOKEN").then(|| Secret::new(CANARY.to_owned()))
    }
}

#[tokio::test]
async fn no_byte_of_the_journal_shows_a_secret_in_any_form() {
    let endpoint = postgres().await.fresh_database("secrets").await;
    execute(&endpoint, &["create table public.t (token text)"]).await;
    let dir = tempfile::tempdir().unwrap();
    let redactor = Redactor::default();
    redactor.register("TOKEN", CANARY).unwrap();
    let clock = Arc::new(SystemClock);
    let journal = SqliteJournal::open(dir.path(), clock, redactor).unwrap();
    let mut kit = Kit::on(endpoint.clone(), Arc::<SqliteJournal>::clone(&journal));
    kit.parts.secrets = Arc::new(OneSecret);
    // The other side echoes what it was sent, in every form.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let echo = async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let count = client.read(&mut request).await.unwrap();
        let sent = String::from_utf8_lossy(&request[..count]).into_owned();
        let body = format!("{CANARY} {BASE64} {URL} {JSON}");
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        client.write_all(reply.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        sent
    };
    let request = json!({
        "method": "PUT", "url": url, "headers": { "x-token": "${{ secrets.TOKEN }}" }
    });
    let store = json!({ "statements": [
        { "sql": "insert into public.t values ($1)", "binds": ["${{ secrets.TOKEN }}"] },
        { "sql": "select token from public.t" },
    ] });
    let echoed = json!({ "statements": [
        { "sql": "do $$ begin raise exception '%', (select token from public.t); end $$" }
    ] });
    let mut fails = step("fails", &["store"], tool("execute_sql", echoed));
    fails.allow_failure = true;
    let steps = vec![
        step("send", &[], tool("http_request", request)),
        step("store", &["send"], tool("execute_sql", store)),
        fails,
    ];
    let plan = plan_with(steps, &[], |body| body.secrets = vec!["TOKEN".to_owned()]);
    let ((run, outcome), sent) = tokio::join!(kit.run(&plan), echo);
    assert!(outcome == Outcome::Succeeded || outcome == Outcome::WaitingApproval, "{outcome:?}");
    assert!(sent.contains(CANARY), "the other side has it: {sent}");
    if outcome == Outcome::WaitingApproval {
        kit.decide(&run, lakeops::journal::event::Decision::Approved).await;
        assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    }
    assert_eq!(value::<String>(&endpoint, "select token from public.t").await, CANARY);
    assert_eq!(kit.ended(&run, "fails").await.0, "failed");
    let state = format!("{:?}", kit.state(&run).await);
    drop(kit);
    drop(journal);
    let mut looked_at = 0;
    for file in fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        looked_at += bytes.len();
        for form in [CANARY, BASE64, URL, JSON] {
            let shown = bytes.windows(form.len()).any(|part| part == form.as_bytes());
            assert!(!shown, "{} shows `{form}`", path.display());
            assert!(!state.contains(form), "the state shows `{form}`");
        }
    }
    assert!(looked_at > 10_000, "{looked_at}");
}
