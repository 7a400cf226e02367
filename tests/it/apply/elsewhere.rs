//! Requests, programs, messages and events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::engine::apply::{Appliers, NotificationApplier, Recovered};
use lakeops::kernel::{Digest, Operation, Recovery, RetryClass, Severity, Span};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::world::World;

/// A server that answers every request alike and keeps what it was sent.
struct Web {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    async fn new(reply: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/things?token=1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                let mut buffer = vec![0; 65536];
                while !is_complete(&text) {
                    let count = stream.read(&mut buffer).await.unwrap();
                    text.extend_from_slice(&buffer[..count]);
                }
                kept.lock().unwrap().push(String::from_utf8(text).unwrap());
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        Self { url, requests }
    }

    fn world(&self, method: &str) -> World {
        World::new(None, request(method, &self.url))
    }
}

fn is_complete(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn request(method: &str, url: &str) -> Operation {
    Operation::Http {
        method: method.into(),
        url: url.into(),
        headers: BTreeMap::from([("authorization".into(), "secret:TOKEN".into())]),
        body: (method != "GET").then(|| json!({"key": ["secret:TOKEN", 1]})),
        expect: vec![200],
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\n{\"id\":7}";

#[tokio::test]
async fn requests_carry_secrets_and_their_key() {
    let web = Web::new(OK).await;
    let world = web.world("POST");
    let receipt = world.done().await;
    assert_eq!(receipt.result, json!({"status": 200, "body": {"id": 7}}));
    let sent = web.requests.lock().unwrap()[0].clone();
    assert!(sent.contains("authorization: sesame-open"), "{sent}");
    assert!(sent.contains(&format!("idempotency-key: {}", world.key.digest())), "{sent}");
    assert!(sent.ends_with(r#"{"key":["sesame-open",1]}"#), "{sent}");
    let read = web.world("GET");
    read.done().await;
    assert!(!web.requests.lock().unwrap()[1].contains("idempotency-key"));
}

#[tokio::test]
async fn replies_have_their_class() {
    let reply = |status: &str| -> &'static str {
        let text =
            format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\nconnection: close\r\n\r\noops");
        Box::leak(text.into_boxed_str())
    };
    for (status, method, class) in [
        ("503 Busy", "POST", RetryClass::Transient),
        ("500 Broken", "POST", RetryClass::InDoubt),
        ("500 Broken", "GET", RetryClass::Transient),
        ("400 Bad", "POST", RetryClass::Permanent),
    ] {
        let failure = Web::new(reply(status)).await.world(method).refused().await;
        assert_eq!(failure.class, class, "{status}: {failure:?}");
        assert!(failure.message.contains("oops") && !failure.message.contains("token=1"));
    }
    // The server takes the request and hangs up.
    let cut = Web::new("").await;
    assert_eq!(cut.world("POST").refused().await.class, RetryClass::InDoubt);
    assert_eq!(cut.world("GET").refused().await.class, RetryClass::Transient);
    let nobody = World::new(None, request("POST", "http://127.0.0.1:1/"));
    let failure = nobody.refused().await;
    assert_eq!((failure.class, failure.code.as_str()), {
        (RetryClass::Transient, "http::not_connected")
    });
}

#[tokio::test]
async fn lost_requests_are_repeated_when_that_is_harmless() {
    let mut world = World::new(None, request("PUT", "http://127.0.0.1:1/"));
    let is_repeated = async |world: &World| {
        matches!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied)
    };
    world.change.recovery = Recovery::Probe;
    assert!(is_repeated(&world).await);
    world.change.operation = request("POST", "http://127.0.0.1:1/");
    assert!(!is_repeated(&world).await);
    world.change.recovery = Recovery::Repeatable;
    assert!(is_repeated(&world).await);
    world.change.recovery = Recovery::Ask;
    assert!(!is_repeated(&world).await);
}

#[tokio::test]
async fn an_unknown_secret_sends_nothing() {
    let web = Web::new(OK).await;
    let mut world = web.world("POST");
    if let Operation::Http { headers, .. } = &mut world.change.operation {
        headers.insert("x".into(), "secret:NOBODY".into());
    }
    assert_eq!(world.refused().await.code, "apply::no_such_secret");
    assert!(web.requests.lock().unwrap().is_empty());
}

fn command(args: &[&str], probe: Option<&[&str]>) -> World {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let operation = Operation::Command {
        program: args[0].to_owned(),
        args: owned(&args[1..]),
        probe: probe.map(owned),
    };
    let mut world = World::new(None, operation);
    world.settings.allow_commands = true;
    world.change.recovery = Recovery::Probe;
    world
}

#[tokio::test]
async fn programs_run_without_a_shell() {
    let world = command(&["echo", "$HOME; *"], None);
    assert_eq!(world.done().await.result["stdout"], "$HOME; *\n");
    let world = command(&["sh", "-c", "printf %s \"$LAKEOPS_CHANGE\""], None);
    assert_eq!(world.done().await.result["stdout"], world.key.digest().as_str());
    let world = command(&["sh", "-c", "yes | head -c 1000000"], None);
    assert_eq!(world.done().await.result["stdout"].as_str().unwrap().len(), 64 * 1024);
    let failure = command(&["sh", "-c", "echo why >&2; exit 3"], None).refused().await;
    assert!(failure.message.contains("exit code 3: why"), "{failure:?}");
    assert_eq!(failure.class, RetryClass::Permanent);
    assert_eq!(command(&["/no/such/program"], None).refused().await.code, "command::not_started");
}

#[tokio::test]
async fn programs_need_permission() {
    let mut world = command(&["true"], None);
    world.settings.allow_commands = false;
    assert_eq!(world.refused().await.code, "command::not_allowed");
    assert_eq!(world.recover(&Value::Null).await.unwrap_err().code, "command::not_allowed");
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("alive");
    let script = format!("trap '' TERM; mkfifo {0}; sleep 600 > {0} & cat {0}", pipe.display());
    let mut world = command(&["sh", "-c", &script], None);
    world.change.statement_timeout = Some(Span(Duration::from_millis(300)));
    let failure = world.refused().await;
    assert_eq!((failure.class, failure.code.as_str()), {
        (RetryClass::InDoubt, "command::timeout")
    });
    // Nothing with the change's mark is left, so there is nothing to wait for.
    world.settings.limits.orphan_wait = Span(Duration::from_mins(1));
    let found = world.recover(&Value::Null).await.unwrap();
    let Recovered::Unknown(why) = found else { panic!("{found:?}") };
    assert!(why.contains("nobody saw"), "{why}");
}

#[tokio::test]
async fn probes_tell_what_happened() {
    for (exit, expected) in [("0", "applied"), ("1", "not applied"), ("2", "unknown")] {
        let script = format!("exit {exit}");
        let world = command(&["true"], Some(&["sh", "-c", &script]));
        let found = match world.recover(&Value::Null).await.unwrap() {
            Recovered::Applied(_) => "applied",
            Recovered::NotApplied => "not applied",
            Recovered::Unknown(_) => "unknown",
        };
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn notifications_append_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.log");
    let message = |channel: &str| Operation::Notification {
        channel: channel.into(),
        severity: Severity::Critical,
        title: "connections did not recover".into(),
        body: "two\nlines".into(),
        key: None,
        labels: BTreeMap::new(),
        resolves: false,
    };
    let mut world = World::new(None, message("log"));
    world.appliers = Appliers::new(NotificationApplier::to_file(file.clone()));
    world.done().await;
    world.done().await;
    let lines = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["key"], lines[1]["key"]);
    assert_eq!((lines[0]["severity"].as_str(), lines[0]["body"].as_str()), {
        (Some("critical"), Some("two\nlines"))
    });
    world.change.operation = message("pigeon");
    let failure = world.refused().await;
    assert_eq!(failure.code, "notification::unknown_channel");
}

#[tokio::test]
async fn a_file_is_written_once_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ci/lakebase.yml");
    let operation = |content: Option<&str>, before: Option<&str>| Operation::File {
        path: path.display().to_string(),
        content: content.map(str::to_owned),
        before: before.map(|text| Digest::of_bytes(text.as_bytes())),
    };
    let mut world = World::new(None, operation(Some("one"), None));
    assert_eq!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
    assert_eq!(world.done().await.result["adopted"], false);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    assert_eq!(world.done().await.result["adopted"], true, "a second time changes nothing");
    assert!(matches!(world.recover(&Value::Null).await.unwrap(), Recovered::Applied(_)));

    world.change.operation = operation(Some("three"), Some("two"));
    assert_eq!(world.refused().await.code, "file::changed");
    assert!(matches!(world.recover(&Value::Null).await.unwrap(), Recovered::Unknown(_)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");

    world.change.operation = operation(None, Some("one"));
    world.done().await;
    assert!(!path.exists());
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    world.change.operation = Operation::File { path: "ci.yml".into(), content: None, before: None };
    assert_eq!(world.refused().await.code, "file::not_plain", "a relative path is somewhere else");
}

#[tokio::test]
async fn a_link_is_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    std::fs::write(&file, "theirs").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let path = link.display().to_string();
    let world =
        World::new(None, Operation::File { path, content: Some("ours".into()), before: None });
    assert_eq!(world.refused().await.code, "file::not_plain");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "theirs");
}

#[tokio::test]
async fn events_have_no_effect_of_their_own() {
    let event = Operation::Event { name: "self_heal_executed".into(), payload: json!({}) };
    let world = World::new(None, event);
    world.done().await;
    assert_eq!(world.recover(&Value::Null).await.unwrap(), Recovered::NotApplied);
}
