//! Makes data directories and starts server processes.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::deadline::within;
use super::directory::{self, ClusterPaths, FileError};
use super::installation::Installation;
use super::options::{ClusterOptions, Durability};
use super::postmaster::MARK;
use super::server_error::PostgresError;
use crate::kernel::{Clock, Secret};

/// Runs a server that must not outlive us. The guard's standard input is a pipe whose other end only
/// this process holds: however we end, the pipe closes, the read returns and the server is stopped.
/// The server is the guard's child, so its process id belongs to nobody else while the guard waits.
const GUARD: &str = include_str!("guard.sh");
/// The superuser of every cluster of ours.
pub(super) const SUPERUSER: &str = "postgres";
const INITDB_LIMIT: Duration = Duration::from_mins(2);
const LOG_TAIL: u64 = 8192;
const LOG_LINES: usize = 12;
/// A log that has grown beyond this starts anew; the last one is kept.
const LOG_LIMIT: u64 = 16 << 20;

/// Makes the data directory, as a whole or not at all.
pub(super) async fn initialise(
    installation: &Installation,
    paths: &ClusterPaths,
    password: &Secret<String>,
    more: &[&str],
    clock: &dyn Clock,
) -> Result<(), PostgresError> {
    let user = &installation.user;
    let fresh = paths.root.join("data.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(|e| FileError::new("remove", &fresh, e))?;
    }
    write_password(paths, password)?;
    directory::hand_over(&paths.password, user)?;
    directory::create(&fresh, 0o700)?;
    directory::hand_over(&fresh, user)?;
    let mut command = user.command(&installation.program("initdb"), &paths.root);
    command
        .arg("--pgdata")
        .arg(&fresh)
        .args(["--username", SUPERUSER, "--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg("--pwfile")
        .arg(&paths.password)
        .args(["--encoding=UTF8", "--no-sync", "--no-instructions", "--locale=C"])
        .args(more)
        .stdin(Stdio::null());
    if installation.version.major >= 17 {
        command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
    }
    let mut command = tokio::process::Command::from(command);
    let output = within(clock, INITDB_LIMIT, command.kill_on_drop(true).output())
        .await
        .ok_or(PostgresError::Slow { what: "initdb", limit: INITDB_LIMIT, log: String::new() })?
        .map_err(|e| FileError::new("run", &installation.program("initdb"), e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PostgresError::Initdb { said });
    }
    fs::rename(&fresh, &paths.data).map_err(|e| FileError::new("create", &paths.data, e))?;
    Ok(())
}

pub(super) fn write_password(
    paths: &ClusterPaths,
    password: &Secret<String>,
) -> Result<(), FileError> {
    let fail = |e| FileError::new("write", &paths.password, e);
    match fs::remove_file(&paths.password) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&paths.password)
        .map_err(fail)?;
    file.write_all(password.expose().as_bytes()).map_err(fail)
}

/// The superuser's password, as it was drawn when the data directory was made.
pub(super) fn read_password(paths: &ClusterPaths) -> Result<Secret<String>, FileError> {
    let text = fs::read_to_string(&paths.password)
        .map_err(|e| FileError::new("read", &paths.password, e))?;
    Ok(Secret::new(text.trim().to_owned()))
}

/// A server process of ours, or the guard in front of it.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    /// As long as this end is open, the guard lets the server run.
    pipe: Option<ChildStdin>,
}

impl ServerProcess {
    /// Starts a server; it is not ready yet.
    pub(super) fn start(
        installation: &Installation,
        paths: &ClusterPaths,
        options: &ClusterOptions,
        start: &Start,
    ) -> Result<Self, FileError> {
        let log = open_log(&paths.log)?;
        let fail = |e| FileError::new("start the server of", &paths.data, e);
        let program = installation.program("postgres");
        let mut command = if start.guarded {
            let mut guard = installation.user.command(Path::new("/bin/sh"), &paths.root);
            guard.args(["-c", GUARD, "lakeops-guard"]).arg(program);
            guard.stdin(Stdio::piped());
            guard
        } else {
            let mut command = installation.user.command(&program, &paths.root);
            command.stdin(Stdio::null());
            command
        };
        add_settings(&mut command, installation, paths, options, start);
        command.stdout(log.try_clone().map_err(fail)?).stderr(log);
        let mut child = command.spawn().map_err(fail)?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// How the process ended, if it has.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends a process that has not come so far as to be a server.
    pub(super) fn give_up(&mut self) {
        self.release();
        if self.exited().is_none() && self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }

    /// Lets the guard stop the server.
    pub(super) fn release(&mut self) {
        drop(self.pipe.take());
    }
}

/// What is drawn anew for each start.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub token: String,
    pub port: u16,
    pub guarded: bool,
}

fn add_settings(
    command: &mut Command,
    installation: &Installation,
    paths: &ClusterPaths,
    options: &ClusterOptions,
    start: &Start,
) {
    let mut set = |name: &str, value: &str| {
        command.arg("-c").arg(format!("{name}={value}"));
    };
    set("listen_addresses", "127.0.0.1");
    set("port", &start.port.to_string());
    set("unix_socket_directories", &paths.socket.to_string_lossy());
    set("unix_socket_permissions", "0700");
    set("logging_collector", "off");
    set("log_destination", "stderr");
    // Only GMT is known without the system's time zone files.
    set("timezone", "GMT");
    set("log_timezone", "GMT");
    if installation.has_library("pg_stat_statements") {
        set("shared_preload_libraries", "pg_stat_statements");
    }
    if options.durability == Durability::Throwaway {
        set("fsync", "off");
        set("full_page_writes", "off");
    }
    for (name, value) in &options.settings {
        set(name, value);
    }
    command.arg("-c").arg(format!("{MARK}{}", start.token)).arg("-D").arg(&paths.data);
}

fn open_log(path: &Path) -> Result<File, FileError> {
    let fail = |e| FileError::new("open", path, e);
    if fs::metadata(path).is_ok_and(|found| found.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("old")).map_err(fail)?;
    }
    File::options().create(true).append(true).mode(0o600).open(path).map_err(fail)
}

/// How long the log is now; what a start writes comes after it.
pub(super) fn log_end(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// The last lines of the log that were written after `from`.
pub(super) fn log_tail(path: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        let from = if from > length { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL))))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// A port that is free now: `wanted` if it is, else one that the operating system picks.
pub(super) fn free_port(wanted: Option<u16>) -> Result<u16, FileError> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    wanted
        .map_or_else(|| bind(0), |port| bind(port).or_else(|_| bind(0)))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| FileError::new("listen on", Path::new("127.0.0.1"), e))
}
