//! The server as it is run: the real program, killed where it hurts.

mod alerts;
mod alone;
mod branches;
mod clock;
mod courier;
mod crashes;
mod day;
mod export;
mod golden;
mod overload;
mod simulated;
mod soak;
#[cfg(feature = "otel")]
mod telemetry;
mod waiting;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use lakeops::journal::store::{Append, Durability, EntryFilter, Expect, Stream};
use lakeops::journal::{Entry, Event, Journal as _, SqliteJournal};
use lakeops::kernel::{Redactor, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cli::Project;

/// A token of the API, long enough to be a secret.
const TOKEN: &str = "test-token-0123456789";

/// The configuration of the projects here.
const CONFIG: &str = "\
[secrets.API]
env = \"API_TOKEN\"

[server]
listen = \"127.0.0.1:0\"

[server.tokens]
ci = \"API\"
";

/// The same with a webhook at an address, at once, and with these further settings of alerts.
fn with_hook(address: &str, alerts: &str) -> String {
    format!(
        "{CONFIG}\n[secrets.HOOK]\nenv = \"HOOK\"\n[channels.hook]\nkind = \"webhook\"\nurl = \
         \"http://{address}/in\"\nsecret = \"HOOK\"\n[alerts]\ngroup_wait = \"0s\"\n{alerts}"
    )
}

/// A server in a process of its own.
pub(super) struct Served {
    child: Child,
    address: String,
    /// Kept open for as long as the server may write.
    out: Option<BufReader<ChildStdout>>,
}

impl Served {
    /// Starts one and waits until it says where it listens.
    pub(super) fn start(project: &Project, variables: &[(&str, &str)]) -> Self {
        Self::try_start(project, variables).expect("the server says where it listens")
    }

    /// The same; `None`: it ended before it said so.
    fn try_start(project: &Project, variables: &[(&str, &str)]) -> Option<Self> {
        let mut command = project.command(&["serve", "--output", "json"]);
        command.env("API_TOKEN", TOKEN).envs(variables.iter().copied());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(project.path().join("serve.log"))
            .unwrap();
        let child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut served = Self { child, address: String::new(), out: None };
        let mut out = BufReader::new(served.child.stdout.take().unwrap());
        let mut text = String::new();
        while serde_json::from_str::<Value>(&text).is_err() {
            if out.read_line(&mut text).unwrap() == 0 {
                return None;
            }
        }
        let said: Value = serde_json::from_str(&text).unwrap();
        served.address = said["url"].as_str()?.trim_start_matches("http://").to_owned();
        served.out = Some(out);
        Some(served)
    }

    /// One request; the status and the body.
    pub(super) fn ask(&self, what: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        self.try_ask(what, headers, body).expect("the server answers")
    }

    /// The same; `None`: nobody answers any more.
    fn try_ask(&self, what: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
        let answer = self.whole(what, headers, body)?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        Some((status, body.unwrap_or_default()))
    }

    /// The whole answer to a request.
    fn whole(&self, what: &str, headers: &[(&str, &str)], body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let mut request = format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        let about = "Content-Type: application/json\r\nContent-Length:";
        write!(request, "{about} {}\r\n\r\n{body}", body.len()).unwrap();
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The same with the token; the body is JSON.
    pub(super) fn api(&self, what: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let bearer = format!("Bearer {TOKEN}");
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(key.map(|key| ("Idempotency-Key", key)));
        let (status, body) = self.ask(what, &headers, body);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}")))
    }

    /// A metric, in whole numbers.
    pub(super) fn metric(&self, name: &str) -> u64 {
        self.try_metric(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    fn try_metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.try_ask("GET /metrics", &[], "")?;
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")))?;
        value.split('.').next()?.parse().ok()
    }

    /// Ends it by a signal and waits for it; the code, when it ended by itself.
    pub(super) fn end(mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Whether it was killed within some minutes; it is left alone otherwise.
    fn is_killed(&mut self) -> bool {
        until(|| self.child.try_wait().unwrap().is_some())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Nothing that a test started outlives it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether something holds within some minutes: on a busy machine each process and each answer takes its time.
pub(super) fn until(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_mins(3) {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn journal(project: &Project) -> std::sync::Arc<SqliteJournal> {
    let state = project.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    SqliteJournal::open(&state, std::sync::Arc::new(SystemClock), Redactor::default()).unwrap()
}

/// Records what somebody else said.
pub(super) async fn record(project: &Project, stream: Stream, event: Event) {
    let append = Append { stream, expect: Expect::Anything, events: vec![event] };
    journal(project).append(vec![append], Durability::Synced).await.unwrap();
}

/// All entries of some kinds.
pub(super) async fn entries(project: &Project, kinds: &[&str]) -> Vec<Entry> {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    journal(project).entries(EntryFilter { kinds, ..EntryFilter::default() }).await.unwrap()
}

/// A project with a database, a table `t` and a workflow that inserts a row into it.
async fn project(hint: &str, occasions: &str) -> Project {
    let project = Project::with_database(hint).await;
    project.write(".config/lakeops.toml", CONFIG);
    let workflow = format!(
        "version: 1\nname: insert\ndescription: Insert a row.\n{occasions}steps:\n  - id: insert\n    \
         tool: execute_sql\n    with: {{ statements: [\"insert into public.t values (1)\"] }}\n"
    );
    project.write("workflows/insert.yaml", &workflow);
    execute(&project, "create table public.t (n bigint)").await;
    project
}

async fn execute(project: &Project, sql: &str) {
    crate::harness::execute(&project.endpoint(), &[sql]).await;
}

async fn rows(project: &Project) -> i64 {
    crate::harness::value(&project.endpoint(), "select count(*) from public.t").await
}
