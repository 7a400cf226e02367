//! Where tests keep what need not outlive the machine.
//!
//! A journal flushes each commit to the disk, and most of a crash test's time went there. What a killed
//! process wrote is in the files whether they are flushed or not, so the tests that kill processes have
//! their files in memory. That the disk keeps what was flushed is tested below SQLite (`harness/disk.rs`).

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";
/// What must be free for that: a test has a few databases of some 40 MB, and several run at once.
const NEEDED: u64 = 6 << 30;
const PREFIX: &str = "lakeops-it-";

/// A directory for as long as it is held; in memory where there is enough.
pub(crate) fn scratch() -> TempDir {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(base()).unwrap()
}

fn base() -> &'static Path {
    static BASE: OnceLock<&Path> = OnceLock::new();
    BASE.get_or_init(|| {
        let memory = Path::new(MEMORY);
        if free(memory).min(available()) < NEEDED {
            return Path::new("/tmp");
        }
        sweep(memory);
        memory
    })
}

fn free(place: &Path) -> u64 {
    statvfs(place).map_or(0, |found| found.blocks_available() * found.fragment_size())
}

/// The memory that is left, as Linux tells it.
fn available() -> u64 {
    let told = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Removes what test processes left that were killed.
fn sweep(memory: &Path) {
    for entry in fs::read_dir(memory).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        if owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
