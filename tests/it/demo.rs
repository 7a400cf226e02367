//! The demo's sick database, and the demo itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lakeops::cli::demo::load::{Forgotten, Load, WORKERS};
use lakeops::cli::demo::patient::{Patient, TableFigures};
use lakeops::kernel::{Clock as _, RandomIds, SystemClock};
use lakeops::postgres::ServerRecord;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{self, value};

#[tokio::test(flavor = "multi_thread")]
async fn the_patient_is_as_sick_as_the_story_says() {
    let database = harness::postgres().await.fresh_database("patient").await;
    let patient = Patient::prepare(database.clone()).await.unwrap();
    let tables: BTreeMap<String, TableFigures> =
        patient.tables().await.unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
    for name in ["orders", "order_lines", "carts", "payments", "shipments", "reviews"] {
        let table = &tables[&format!("shop.{name}")];
        assert!(table.dead_rows * 2 > table.live_rows, "{table:?}");
        assert_eq!(table.vacuums, 0);
    }
    let trail = &tables["shop.audit_trail"];
    assert_eq!((trail.dead_rows, trail.live_rows), (0, 30_000));
    assert!(trail.bytes > 40 << 20, "{trail:?}");

    let load = Load::start(&patient, Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap();
    assert!(load.watch(Duration::from_millis(500)).await.payments > 20);
    let forgotten = Forgotten::begin(&patient).await.unwrap();
    while patient.blocked(Duration::ZERO).await.unwrap() < WORKERS as u64 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
    }
    assert_eq!(load.watch(Duration::from_millis(100)).await.payments, 0);
    drop(forgotten);
    while patient.blocked(Duration::ZERO).await.unwrap() > 0 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(5))).await;
    }
    assert!(load.watch(Duration::from_millis(500)).await.payments > 20);
    let superuser: bool =
        value(&patient.operator(), "select rolsuper from pg_roles where rolname = current_user")
            .await;
    assert!(!superuser, "lakeops needs no superuser");
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

/// A demo in a state directory of its own.
struct Demo {
    state: TempDir,
}

impl Demo {
    fn new() -> Self {
        let state = tempfile::Builder::new().prefix("lakeops-demo-").tempdir_in("/tmp").unwrap();
        Self { state }
    }

    fn start(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_lakeops"))
            .args(["demo", "--state"])
            .arg(self.state.path())
            .args(args)
            .current_dir(self.state.path())
            .env("LAKEOPS_ACTOR", "somebody else")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The data directory of its server, once that runs.
    fn data(&self, child: &mut Child) -> PathBuf {
        let record = self.state.path().join("demo/state/postgres/demo.json");
        loop {
            let text = fs::read_to_string(&record).unwrap_or_default();
            match serde_json::from_str::<ServerRecord>(&text) {
                Ok(record) if record.pid.is_some() => return record.data,
                _ => assert!(child.try_wait().unwrap().is_none(), "the demo ended early"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs to its end, and makes sure that nothing of it is left.
    fn play(&self, args: &[&str]) -> Output {
        let mut child = self.start(args);
        let data = self.data(&mut child);
        assert!(!processes_of(&data).is_empty());
        let output = child.wait_with_output().unwrap();
        assert_eq!(processes_of(&data), [0; 0]);
        assert!(!data.exists());
        output
    }
}

/// The processes that name a data directory.
fn processes_of(data: &Path) -> Vec<u32> {
    let data = data.to_str().unwrap();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        entry.file_name().to_str()?.parse::<u32>().ok()
    });
    let names = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|part| part == data)
    };
    numbers.filter(names).collect()
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
        "month-end-report  idle in transaction",
        "\"idle, and others wait\": 4 wait for process",
        "select pg_catalog.pg_terminate_backend(a.pid, 5000) as ended",
        "SIGKILL at `vacuum[shop.",
        "vacuum (full, analyze) \"shop\".\"audit_trail\"",
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
    assert_eq!(report["bloat"]["decided_by"], "demo");
    assert_eq!(report["connections"]["ended"], 1);
    let trail = report["bloat"]["tables"].as_array().unwrap().iter();
    let trail = trail.clone().find(|table| table["name"] == "shop.audit_trail").unwrap();
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
fn an_interrupted_demo_leaves_nothing_running() {
    let demo = Demo::new();
    let mut child = demo.start(&[]);
    let data = demo.data(&mut child);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(processes_of(&data), [0; 0]);
}
