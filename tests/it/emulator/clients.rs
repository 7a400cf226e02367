//! The official clients, unchanged, against the emulator.
//!
//! They are installed from their registries once, into the directory that builds go to. Where no
//! registry can be reached, this is said loudly and nothing is tested.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::TestEmulator;

const PYTHON: &[&str] = &["databricks-sdk==0.162.0", "psycopg[binary]==3.3.9"];
const NODE: &[&str] = &["@databricks/lakebase@0.6.0"];

/// `target/clients/NAME`, beside the directory of the build.
fn folder(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    target.join("clients").join(name)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Installs what is not there yet, as a whole or not at all.
fn installed(
    name: &str,
    packages: &[&str],
    install: impl Fn(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    // Two tests want the same, and the second would remove what the first is installing.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder(name);
    let mark = folder.join("installed");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&mark).is_ok_and(|text| text == wanted) {
        return Some(folder);
    }
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    match install(&folder) {
        Ok(()) => {
            std::fs::write(mark, wanted).unwrap();
            Some(folder)
        }
        Err(why) => {
            eprintln!("\n*** NOT TESTED: {packages:?} cannot be installed here ***\n{why}\n");
            None
        }
    }
}

pub(crate) fn python() -> Option<PathBuf> {
    installed("python", PYTHON, |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
        let pip = folder.join("venv/bin/pip");
        run(Command::new(pip)
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(PYTHON))
    })
}

fn node() -> Option<PathBuf> {
    installed("node", NODE, |folder| {
        std::fs::write(folder.join("package.json"), r#"{"private": true, "type": "module"}"#)
            .map_err(|error| error.to_string())?;
        let quiet = ["install", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").current_dir(folder).args(quiet).args(NODE))
    })
}

async fn finished(mut command: Command) -> Output {
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(Duration::from_mins(10), running).await.unwrap().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_drives_the_life_of_a_project() {
    let Some(folder) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let test = TestEmulator::start().await;
    let mut command = Command::new(folder.join("venv/bin/python"));
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/emulator/sdk.py"))
        .env("DATABRICKS_HOST", test.emulator.host())
        .env("DATABRICKS_TOKEN", test.emulator.token().expose())
        .env("DATABRICKS_CONFIG_FILE", "/nonexistent")
        .env("NO_PROXY", "127.0.0.1")
        .env("CA_FILE", &test.emulator.connection().ca_file);
    let output = finished(command).await;
    assert!(output.status.success() && output.stdout.ends_with(b"ok\n"), "{}", said(&output));
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_driver_connects_with_credentials_that_it_fetches() {
    let Some(folder) = tokio::task::spawn_blocking(node).await.unwrap() else { return };
    let test = TestEmulator::start().await;
    test.project("shop").await;
    let endpoint = "projects/shop/branches/production/endpoints/primary";
    let hosts = test.get(endpoint).await["status"]["hosts"].clone();
    let script = folder.join("lakebase.mjs");
    std::fs::write(&script, include_str!("lakebase.mjs")).unwrap();
    let mut command = Command::new("node");
    command
        .arg(&script)
        .env("DATABRICKS_HOST", test.emulator.host())
        .env("DATABRICKS_TOKEN", test.emulator.token().expose())
        .env("DATABRICKS_CONFIG_FILE", "/nonexistent")
        .env("NO_PROXY", "127.0.0.1")
        .env("NODE_EXTRA_CA_CERTS", &test.emulator.connection().ca_file)
        .env("LAKEBASE_ENDPOINT", endpoint)
        .env("PGHOST", hosts["host"].as_str().unwrap())
        .env("PGPORT", hosts["port"].as_u64().unwrap_or(5432).to_string())
        .env("PGDATABASE", "databricks_postgres")
        .env("EXPECTED_USER", &test.emulator.connection().user);
    let output = finished(command).await;
    assert!(output.status.success() && output.stdout.ends_with(b"ok\n"), "{}", said(&output));
    test.stop().await;
}
