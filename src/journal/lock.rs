//! Locks of the operating system: the kernel takes them back when their process dies, so there is no
//! clock and no expiry.
//!
//! `<state>/lock` is held shared by every process that has the journal open, exclusively by a
//! migration. `<state>/runs/<run>.lock` is held by the one executor of a run, `<state>/server.lock` by
//! the one server.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::kernel::{RunId, Timestamp};

/// The lock of a state directory.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Waits until no migration is at work.
    pub(super) fn shared(state_dir: &Path) -> io::Result<Self> {
        let file = open(&state_dir.join("lock"))?;
        file.lock_shared()?;
        Ok(Self { _file: file })
    }

    /// The lock for a migration, unless another process has the journal open.
    pub(super) fn try_exclusive(state_dir: &Path) -> io::Result<Option<Self>> {
        let file = open(&state_dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Who holds a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: Option<u32>,
    /// The machine that the process is on.
    pub host: Option<String>,
    /// What it said of itself.
    pub about: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => f.write_str("another process")?,
        }
        if let Some(host) = &self.host {
            write!(f, " on {host}")?;
        }
        if let Some(about) = &self.about {
            write!(f, " ({about})")?;
        }
        self.since.map_or(Ok(()), |since| write!(f, " since {since}"))
    }
}

#[derive(Serialize, Deserialize)]
struct Note {
    pid: u32,
    host: String,
    about: String,
}

/// A lock that says who holds it, until it is dropped or the process dies.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    _file: File,
}

/// The right to execute a run, until it is dropped or the process dies.
#[derive(Debug)]
pub struct RunLock {
    _held: Held,
}

/// The right to be the server of a state directory, until it is dropped or the process dies.
#[derive(Debug)]
pub struct ServerLock {
    _held: Held,
}

impl ServerLock {
    /// Takes the lock, or says who holds it. `about` tells others what this process is doing.
    pub fn try_acquire(state_dir: &Path, about: &str) -> io::Result<Result<Self, Holder>> {
        fs::create_dir_all(state_dir)?;
        let held = Held::try_take(state_dir.join("server.lock"), about)?;
        Ok(held.map(|held| Self { _held: held }))
    }

    /// The server that lives at this moment, if any does.
    pub fn holder(state_dir: &Path) -> io::Result<Option<Holder>> {
        Held::holder(&state_dir.join("server.lock"))
    }
}

impl RunLock {
    /// Takes the lock of a run, or says who holds it. `about` tells others what this process is doing.
    pub fn try_acquire(
        state_dir: &Path,
        run: &RunId,
        about: &str,
    ) -> io::Result<Result<Self, Holder>> {
        let held = Held::try_take(path_of(state_dir, run)?, about)?;
        Ok(held.map(|held| Self { _held: held }))
    }

    /// Who executes a run at this moment, if anybody does.
    pub fn holder(state_dir: &Path, run: &RunId) -> io::Result<Option<Holder>> {
        Held::holder(&path_of(state_dir, run)?)
    }
}

impl Held {
    fn try_take(path: PathBuf, about: &str) -> io::Result<Result<Self, Holder>> {
        loop {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(holder(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The last holder removes the file: a lock on a removed file keeps nobody out.
            let ours = file.metadata()?;
            let there = fs::metadata(&path)
                .is_ok_and(|there| (ours.dev(), ours.ino()) == (there.dev(), there.ino()));
            if there {
                if ours.len() > 0 {
                    file.set_len(0)?;
                }
                write_note(&mut file, about)?;
                return Ok(Ok(Self { path, _file: file }));
            }
        }
    }

    fn holder(path: &Path) -> io::Result<Option<Holder>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(holder(&mut file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A file that stays behind is taken over by the next holder.
        fs::remove_file(&self.path).unwrap_or_default();
    }
}

fn path_of(state_dir: &Path, run: &RunId) -> io::Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if run.as_str().is_empty() || !run.as_str().chars().all(plain) {
        let what = format!("`{run}` is not the id of a run");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(state_dir.join("runs").join(format!("{run}.lock")))
}

/// Opens or makes a file, and its folder when that is not there.
fn open(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            open()
        }
        (opened, _) => opened,
    }
}

/// Writes into an empty file who holds it.
fn write_note(file: &mut File, about: &str) -> io::Result<()> {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        host.unwrap_or_default()
    });
    let note = Note { pid: std::process::id(), host: HOST.clone(), about: about.to_owned() };
    file.write_all(&serde_json::to_vec(&note)?)
}

/// Who holds the lock of this file. The note may be half written: then less is known.
fn holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let note = file.read_to_string(&mut text).ok();
    let note = note.and_then(|_| serde_json::from_str::<Note>(&text).ok());
    let changed = file.metadata().and_then(|data| data.modified()).ok();
    let since = changed.map(|at| Timestamp::from(chrono::DateTime::<chrono::Utc>::from(at)));
    match note {
        Some(Note { pid, host, about }) => {
            Holder { pid: Some(pid), host: Some(host), about: Some(about), since }
        }
        None => Holder { since, ..Holder::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunId::new("0011");
        let first = RunLock::try_acquire(dir.path(), &run, "resume").unwrap().unwrap();
        let holder = RunLock::try_acquire(dir.path(), &run, "other").unwrap().unwrap_err();
        assert_eq!(holder.pid, Some(std::process::id()));
        assert_eq!(holder.about.as_deref(), Some("resume"));
        assert_eq!(RunLock::holder(dir.path(), &run).unwrap(), Some(holder));
        drop(first);
        assert_eq!(RunLock::holder(dir.path(), &run).unwrap(), None);
        let _second = RunLock::try_acquire(dir.path(), &run, "other").unwrap().unwrap();
        assert!(path_of(dir.path(), &run).unwrap().exists());
    }

    #[test]
    fn a_lock_that_was_removed_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunId::new("0011");
        let late = open(&path_of(dir.path(), &run).unwrap()).unwrap();
        drop(RunLock::try_acquire(dir.path(), &run, "first").unwrap().unwrap());
        // `late` now holds the lock of a file that is gone.
        late.try_lock().unwrap();
        assert!(RunLock::try_acquire(dir.path(), &run, "second").unwrap().is_ok());
    }

    #[test]
    fn a_path_is_not_a_run() {
        let dir = tempfile::tempdir().unwrap();
        for odd in ["", "../x", "a/b", "a.b"] {
            assert!(RunLock::try_acquire(dir.path(), &RunId::new(odd), "x").is_err(), "{odd}");
        }
    }

    #[test]
    fn a_migration_waits_for_no_reader() {
        let dir = tempfile::tempdir().unwrap();
        let shared = StateLock::shared(dir.path()).unwrap();
        let other = StateLock::shared(dir.path()).unwrap();
        assert!(StateLock::try_exclusive(dir.path()).unwrap().is_none());
        drop((shared, other));
        assert!(StateLock::try_exclusive(dir.path()).unwrap().is_some());
    }
}
