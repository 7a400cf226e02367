//! Copies a data directory: shares blocks where the disk can, and leaves the processor to others.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::FleetError;
use crate::postgres::{ClusterPlace, ServerUser};

/// Directories whose content belongs to the running server, not to its data.
const EMPTIED: &[&str] = &[
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];
/// Files of the same kind.
const LEFT_OUT: &[&str] = &[
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
];
/// How many threads copy at once.
const THREADS: usize = 1;
/// How much is copied between two looks at whether others want the processor.
const CHUNK: u64 = 256 << 10;
/// How long others then have the processor and the disk for themselves.
const BREATH: Duration = Duration::from_micros(100);
/// The priority of the copying threads.
const NICENESS: &str = "10";

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything: nobody writes to it.
    Whole,
    /// What a copy of a directory in use consists of; WAL and label come from elsewhere.
    WithoutWal,
}

/// One copy.
#[derive(Clone, Debug)]
pub(super) struct CopyJob {
    pub from: PathBuf,
    /// Does not exist yet.
    pub to: PathBuf,
    pub part: Part,
    /// Whether somebody may be at work on it, who has the processor first.
    pub in_use: bool,
    pub user: ServerUser,
}

/// What a copy brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    pub files: u64,
    pub bytes: u64,
}

/// Fills the data directory of a place from one that nobody writes to.
pub(super) async fn fill(place: &ClusterPlace, from: &ClusterPlace) -> Result<(), FleetError> {
    let fresh = fresh(place)?;
    let job = CopyJob {
        from: from.data().to_owned(),
        to: fresh.clone(),
        part: Part::Whole,
        in_use: false,
        user: place.user().clone(),
    };
    copy(job).await?;
    take_in(place, &fresh)
}

/// Where a data directory grows before it is one.
pub(super) fn fresh(place: &ClusterPlace) -> Result<PathBuf, FleetError> {
    let fresh = place.root().join("data.new");
    ClusterPlace::remove(&fresh)?;
    Ok(fresh)
}

/// Makes what has grown the data directory.
pub(super) fn take_in(place: &ClusterPlace, fresh: &Path) -> Result<(), FleetError> {
    fs::rename(fresh, place.data()).map_err(|e| FleetError::copy("create", place.data(), e))
}

/// Copies without holding the caller's thread.
pub(super) async fn copy(job: CopyJob) -> Result<Copied, FleetError> {
    let copied = tokio::task::spawn_blocking(move || run(&job)).await;
    copied.map_err(|_| FleetError::Lost("the copy"))?
}

struct Work<'a> {
    job: &'a CopyJob,
    files: Mutex<VecDeque<PathBuf>>,
    bytes: AtomicU64,
    failed: Mutex<Option<FleetError>>,
}

fn run(job: &CopyJob) -> Result<Copied, FleetError> {
    let mut files = Vec::new();
    make_directory(&job.to, &job.user)?;
    walk(job, Path::new(""), &mut files)?;
    if job.part == Part::WithoutWal {
        for name in ["pg_wal/archive_status", "pg_wal/summaries"] {
            make_directory(&job.to.join(name), &job.user)?;
        }
    }
    let count = files.len();
    let work = Work {
        job,
        files: Mutex::new(files.into()),
        bytes: AtomicU64::new(0),
        failed: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(count.max(1)) {
            scope.spawn(|| work.take_part());
        }
    });
    if let Some(error) = work.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(Copied { files: u64::try_from(count).unwrap_or(u64::MAX), bytes: work.bytes.into_inner() })
}

/// Makes the directories, and lists the files.
fn walk(job: &CopyJob, below: &Path, files: &mut Vec<PathBuf>) -> Result<(), FleetError> {
    let folder = job.from.join(below);
    let fail = |e| FleetError::copy("read", &folder, e);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()), // dropped meanwhile
        other => other.map_err(fail)?,
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let path = below.join(entry.file_name());
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = match entry.file_type() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(fail)?,
        };
        let online = job.part == Part::WithoutWal;
        if kind.is_dir() {
            if online && name.starts_with("pgsql_tmp") {
                continue;
            }
            make_directory(&job.to.join(&path), &job.user)?;
            if !(online && below.as_os_str().is_empty() && EMPTIED.contains(&&*name)) {
                walk(job, &path, files)?;
            }
        } else if kind.is_file() {
            if !(online && is_left_out(below, &name)) {
                files.push(path);
            }
        } else {
            // A link leads out of the data directory; a server of ours has none.
            let why =
                io::Error::new(io::ErrorKind::Unsupported, "it is neither file nor directory");
            return Err(FleetError::copy("copy", &folder.join(&*name), why));
        }
    }
    Ok(())
}

fn is_left_out(below: &Path, name: &str) -> bool {
    let top = below.as_os_str().is_empty();
    top && LEFT_OUT.contains(&name)
        || name.starts_with("pg_internal.init")
        || name.starts_with("pgsql_tmp")
        || is_temporary_table(name)
}

/// `t3_16384`, perhaps with `_fsm` or `.1` behind it.
fn is_temporary_table(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('t') else { return false };
    let Some((backend, relation)) = rest.split_once('_') else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    number(backend) && relation.starts_with(|c: char| c.is_ascii_digit())
}

fn make_directory(path: &Path, user: &ServerUser) -> Result<(), FleetError> {
    let made = match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        other => other,
    };
    made.and_then(|()| {
        if user.is_other() {
            std::os::unix::fs::lchown(path, Some(user.uid()), Some(user.gid()))?;
        }
        Ok(())
    })
    .map_err(|e| FleetError::copy("create", path, e))
}

impl Work<'_> {
    fn take_part(&self) {
        if self.job.in_use {
            step_back();
        }
        loop {
            let next = self.files.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(path) = next else { return };
            if let Err(error) = self.file(&path) {
                self.files.lock().unwrap_or_else(PoisonError::into_inner).clear();
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
                return;
            }
        }
    }

    fn file(&self, path: &Path) -> Result<(), FleetError> {
        let (from, to) = (self.job.from.join(path), self.job.to.join(path));
        let source = match File::open(&from) {
            // A table that is dropped meanwhile is dropped by the WAL that belongs to the copy.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| FleetError::copy("open", &from, e))?,
        };
        let fail = |e| FleetError::copy("write", &to, e);
        let target =
            File::options().write(true).create_new(true).mode(0o600).open(&to).map_err(fail)?;
        if self.job.user.is_other() {
            let (uid, gid) = (self.job.user.uid(), self.job.user.gid());
            std::os::unix::fs::fchown(&target, Some(uid), Some(gid)).map_err(fail)?;
        }
        let bytes = content(&source, &target, self.job.in_use).map_err(fail)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// The kernel copies, and shares the blocks instead where the disk can. A small piece at a time, so
/// that whoever waits for the processor gets it soon.
fn content(source: &File, target: &File, in_use: bool) -> io::Result<u64> {
    let mut target = target;
    let mut copied = 0_u64;
    loop {
        match io::copy(&mut source.take(CHUNK), &mut target)? {
            0 => return Ok(copied),
            more => copied = copied.saturating_add(more),
        }
        if in_use && copied >= CHUNK {
            std::thread::sleep(BREATH);
        }
    }
}

/// Lets others have the processor first. Without it the copy is only less kind to them.
#[cfg(target_os = "linux")]
fn step_back() {
    let thread = nix::unistd::gettid().to_string();
    let mut renice = Command::new("renice");
    renice.args(["-n", NICENESS, "-p", &thread]);
    drop(renice.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
}

#[cfg(not(target_os = "linux"))]
fn step_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_tables_are_known_by_name() {
        for name in ["t3_16384", "t12_1_fsm", "t0_16384.1"] {
            assert!(is_temporary_table(name), "{name}");
        }
        for name in ["16384", "t3", "t_16384", "tablespace_map", "t3_x"] {
            assert!(!is_temporary_table(name), "{name}");
        }
    }

    #[test]
    fn a_directory_in_use_is_copied_without_what_belongs_to_its_server() {
        let place = tempfile::tempdir().unwrap();
        let from = place.path().join("from");
        for folder in ["base/5", "pg_wal/archive_status", "pg_stat", "base/pgsql_tmp"] {
            fs::create_dir_all(from.join(folder)).unwrap();
        }
        let big = vec![7_u8; usize::try_from(CHUNK).unwrap() + 17];
        for name in ["PG_VERSION", "base/5/1", "base/5/t3_9", "postmaster.pid", "pg_wal/0001"] {
            fs::write(from.join(name), &big).unwrap();
        }
        let user = ServerUser::choose(None).unwrap();
        let job = |to: &str, part| CopyJob {
            from: from.clone(),
            to: place.path().join(to),
            part,
            in_use: part == Part::WithoutWal,
            user: user.clone(),
        };
        let copied = run(&job("online", Part::WithoutWal)).unwrap();
        assert_eq!(copied.files, 2);
        assert_eq!(copied.bytes, 2 * u64::try_from(big.len()).unwrap());
        let to = place.path().join("online");
        assert_eq!(fs::read(to.join("base/5/1")).unwrap(), big);
        assert!(to.join("pg_wal/summaries").is_dir() && !to.join("base/pgsql_tmp").exists());
        assert_eq!(run(&job("whole", Part::Whole)).unwrap().files, 5);
    }
}
