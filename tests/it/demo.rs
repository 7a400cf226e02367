//! The demo's sick database, and the demo itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lakeops::cli::demo::load::{Forgotten, Load, WORKERS};
use lakeops::cli::demo::patient::TableFigures;
use lakeops::kernel::{Clock as _, RandomIds, SystemClock};
use lakeops::postgres::ServerRecord;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::fleet::processes_on;
use crate::harness;
use crate::harness::scratch::scratch;
use crate::serve::until;

#[tokio::test(flavor = "multi_thread")]
async fn the_patient_is_as_sick_as_the_story_says() {
    // Where nothing is analysed meanwhile: that holds up what VACUUM may remove.
    let (_place, server) = harness::alone("patient").await;
    let (patient, _) = harness::patient(server.endpoint()).await;
    let tables: BTreeMap<String, TableFigures> =
        patient.tables().await.unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
    for name in ["orders", "order_lines", "carts", "payments", "shipments", "reviews"] {
        let table = &tables[&format!("shop.{name}")];
        assert!(table.dead_rows * 2 > table.live_rows, "{table:?}");
        assert_eq!(table.vacuums, 0);
    }
    let trail = &tables["shop.audit_trail"];
    assert_eq!((trail.dead_rows, trail.live_rows), (0, 20_000));
    assert!(trail.bytes > 30 << 20, "{trail:?}");

    let load = Load::start(&patient, Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap();
    harness::pays(&load).await;
    let forgotten = Forgotten::begin(&patient).await.unwrap();
    // Workers that wait for each other do so for a moment only.
    let moment = Duration::from_millis(500);
    while patient.blocked(moment).await.unwrap() < WORKERS as u64 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
    }
    assert_eq!(load.watch(Duration::from_millis(100)).await.payments, 0);
    drop(forgotten);
    while patient.blocked(Duration::ZERO).await.unwrap() > 0 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
    }
    harness::pays(&load).await;
}

#[test]
fn every_file_of_the_demo_is_used_and_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = fs::read_dir(root.join("src/cli/demo"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for entry in fs::read_dir(root.join("sql/demo")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(sources.contains(&format!("sql_file!(\"demo/{stem}\")")), "{stem} is not used");
        let text = fs::read_to_string(&path).unwrap();
        for key in ["purpose", "needs", "params", "columns"] {
            assert!(text.contains(&format!("-- {key}: ")), "{stem} lacks `-- {key}:`");
        }
    }
}

/// A demo in a state directory of its own, which the servers' user can enter too.
struct Demo {
    state: TempDir,
    /// The servers of those that were killed.
    dead: RefCell<BTreeSet<i32>>,
}

impl Demo {
    fn new() -> Self {
        let state = scratch();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { state, dead: RefCell::default() }
    }

    fn start(&self, args: &[&str]) -> Child {
        self.dead.replace(self.servers());
        Command::new(env!("CARGO_BIN_EXE_lakeops"))
            .args(["demo", "--state"])
            .arg(self.state.path())
            .args(args)
            .current_dir(self.state.path())
            .env("LAKEOPS_ACTOR", "somebody else")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Where its emulator is.
    fn emulator(&self) -> PathBuf {
        self.state.path().join("demo/state/emulator")
    }

    /// The process numbers of its servers, as far as they are on record.
    fn servers(&self) -> BTreeSet<i32> {
        let records = fs::read_dir(self.emulator().join("postgres")).into_iter().flatten();
        let pid = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            serde_json::from_str::<ServerRecord>(&text).ok()?.pid
        };
        records.filter_map(|entry| pid(entry.ok()?.path())).collect()
    }

    /// Waits until so many servers run.
    fn wait_for(&self, child: &mut Child, servers: usize) {
        while self.servers().difference(&self.dead.borrow()).count() < servers {
            assert!(child.try_wait().unwrap().is_none(), "the demo ended early");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended; nothing of it is left then.
    fn end(&self, child: Child) -> Output {
        let output = child.wait_with_output().unwrap();
        // A server's processes may end a moment after it.
        assert!(until(|| processes_on(self.state.path()) == 0), "its processes are left");
        assert!(!self.emulator().exists(), "its databases are left");
        output
    }

    /// Runs to its end.
    fn play(&self, args: &[&str]) -> Output {
        let mut child = self.start(args);
        self.wait_for(&mut child, 1);
        assert!(processes_on(&self.emulator()) > 0);
        self.end(child)
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn the_demo_heals_what_it_shows_and_can_be_repeated() {
    let demo = Demo::new();
    let output = demo.play(&[]);
    let told = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{said}");
    assert!(!told.contains('\u{1b}') && !said.contains('\u{1b}'), "colours in a pipe");
    for part in [
        "The project shop/production with PostgreSQL 17",
        "month-end-report  idle in transaction",
        "\"idle, and others wait\": 4 wait for process",
        "select pg_catalog.pg_terminate_backend(a.pid, 5000) as ended",
        "SIGKILL at `vacuum[shop.",
        "these changes of `rewrite` were never rehearsed",
        "tried on branch tmp-rehearse-",
        "vacuum (full, analyze) \"shop\".\"audit_trail\"",
        "changes of rewrite: rehearsed, at ",
        "approved by demo: nobody was asked",
        "linked events verified",
        "Everything held",
    ] {
        assert!(told.contains(part), "`{part}` is missing in:\n{told}");
    }
    assert!(!told.contains('✗'), "{told}");

    let output = demo.play(&["--output", "json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(report["bloat"]["killed_by"], 9);
    assert_eq!(report["connections"]["ended"], 1);
    let rewrite = &report["rewrite"];
    assert_eq!(rewrite["decided_by"], "demo");
    assert_eq!(rewrite["branches_left"], serde_json::json!([]));
    assert!(rewrite["rehearsal"]["branch"].as_str().unwrap().starts_with("tmp-"), "{rewrite}");
    let mut tables = rewrite["tables"].as_array().unwrap().iter();
    let trail = tables.find(|table| table["name"] == "shop.audit_trail").unwrap();
    assert!(trail["bytes_after"].as_i64().unwrap() * 2 < trail["bytes_before"].as_i64().unwrap());
    for promise in report["promises"].as_array().unwrap() {
        assert_eq!(promise["held"], true, "{promise}");
    }
    // The commands that it names work: the journal is still there.
    for command in report["look_further"].as_array().unwrap() {
        let words: Vec<&str> = command.as_str().unwrap().split(' ').skip(1).collect();
        let looked = Command::new(env!("CARGO_BIN_EXE_lakeops"))
            .args(&words)
            .current_dir(demo.state.path())
            .output()
            .unwrap();
        assert!(looked.status.success(), "{command}: {}", String::from_utf8_lossy(&looked.stderr));
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let demo = Demo::new();
    let mut child = demo.start(&[]);
    demo.wait_for(&mut child, 1);
    kill(pid(&child), Signal::SIGTERM).unwrap();
    let output = demo.end(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));

    // In the middle of the rehearsal, and as a terminal tells it: everybody at once.
    let mut child = demo.start(&[]);
    demo.wait_for(&mut child, 2);
    killpg(pid(&child), Signal::SIGINT).unwrap();
    let output = demo.end(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_demo_that_was_killed_is_cleared_away_by_the_next_and_two_do_not_meet() {
    let demo = Demo::new();
    let mut child = demo.start(&[]);
    demo.wait_for(&mut child, 1);
    let output = demo.start(&[]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("another demo is at work on this state directory"), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(demo.emulator().exists());

    // ... and one whose step fails ends in order too.
    let mut child = demo.start(&[]);
    let workflow = demo.state.path().join("demo/workflows/relieve_connections.yaml");
    demo.wait_for(&mut child, 1);
    fs::write(&workflow, "version: 1\nname: no\n").unwrap();
    let output = demo.end(child);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`lakeops run relieve_connections"), "{said}");
}

#[test]
fn what_the_machine_lacks_is_said() {
    let demo = Demo::new();
    let output = Command::new(env!("CARGO_BIN_EXE_lakeops"))
        .args(["demo", "--state"])
        .arg(demo.state.path())
        .env("LAKEOPS_POSTGRES_BIN", "/nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("the demo's PostgreSQL could not be had"), "{said}");
    assert!(!demo.emulator().exists());
}
