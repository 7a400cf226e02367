//! A process of ours in the background: one for each folder, known by the lock that it holds.
//!
//! The lock dies with the process, however that ends, and its file says the process id. So nobody is
//! ever signalled who does not hold the lock.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::CliError;
use crate::kernel::Clock;

/// How long a process may take to end before it is killed.
const PATIENCE: Duration = Duration::from_mins(1);
const TICK: Duration = Duration::from_millis(50);
/// How often a lock is tried that somebody may just be looking at.
const TRIES: u32 = 20;

/// The background process of a folder.
pub(crate) struct Daemon {
    folder: PathBuf,
    name: &'static str,
}

/// As long as it is held, this is the process of its folder.
pub(crate) struct Held {
    _lock: File,
}

impl Daemon {
    pub(crate) const fn new(folder: PathBuf, name: &'static str) -> Self {
        Self { folder, name }
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.name))
    }

    /// What the process says.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn open(&self) -> Result<File, CliError> {
        let path = self.lock_path();
        let fail = |error| CliError::unwritable(path.clone(), error);
        std::fs::create_dir_all(&self.folder).map_err(fail)?;
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        options.open(&path).map_err(fail)
    }

    /// Becomes the process of the folder; `None` when there is one.
    pub(crate) async fn hold(&self, clock: &dyn Clock) -> Result<Option<Held>, CliError> {
        let mut lock = self.open()?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    let write = || {
                        lock.set_len(0)?;
                        lock.rewind()?;
                        writeln!(lock, "{}", std::process::id())
                    };
                    let mut write = write;
                    write().map_err(|error| CliError::unwritable(self.lock_path(), error))?;
                    return Ok(Some(Held { _lock: lock }));
                }
                Err(TryLockError::WouldBlock) => clock.sleep_until(clock.now().plus(TICK)).await,
                Err(TryLockError::Error(error)) => {
                    return Err(CliError::unwritable(self.lock_path(), error));
                }
            }
        }
        Ok(None)
    }

    /// The process id of the one that there is.
    pub(crate) fn pid(&self) -> Result<Option<i32>, CliError> {
        let path = self.lock_path();
        let mut lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::unreadable(path, error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                lock.read_to_string(&mut text)
                    .map_err(|error| CliError::unreadable(path, error))?;
                Ok(text.trim().parse().ok())
            }
            Err(TryLockError::Error(error)) => Err(CliError::unreadable(path, error)),
        }
    }

    /// Starts the program with these arguments in the background; its output goes into the log.
    pub(crate) fn spawn(&self, program: &Path, arguments: &[&str]) -> Result<Child, CliError> {
        let path = self.log_path();
        let fail = |error| CliError::unwritable(path.clone(), error);
        std::fs::create_dir_all(&self.folder).map_err(fail)?;
        let log = File::create(&path).map_err(fail)?;
        let errors = log.try_clone().map_err(fail)?;
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| CliError::unreadable(program, error))
    }

    /// The last lines of the log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Ends the process: asks it, waits, and kills it when it does not end. Says whether there was one.
    pub(crate) async fn stop(&self, clock: &dyn Clock) -> Result<bool, CliError> {
        let Some(pid) = self.pid()? else { return Ok(false) };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // One that has just ended is not there to be told.
            let _told = kill(Pid::from_raw(pid), signal);
            let until = clock.now().plus(PATIENCE);
            while clock.now() < until {
                if self.pid()? != Some(pid) {
                    return Ok(true);
                }
                clock.sleep_until(clock.now().plus(TICK)).await;
            }
        }
        Ok(true)
    }
}

/// Leaves the session of the terminal, so that closing it does not end the process.
pub(crate) fn leave_terminal() {
    // It fails only for a process that leads a group, and that was started by hand.
    let _session = nix::unistd::setsid();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SystemClock;

    #[tokio::test]
    async fn one_process_holds_a_folder_until_it_ends() {
        let place = tempfile::tempdir().unwrap();
        let daemon = || Daemon::new(place.path().join("a"), "daemon");
        assert_eq!(daemon().pid().unwrap(), None);
        let held = daemon().hold(&SystemClock).await.unwrap().unwrap();
        assert_eq!(daemon().pid().unwrap(), i32::try_from(std::process::id()).ok());
        drop(held);
        assert_eq!(daemon().pid().unwrap(), None);
        assert!(!daemon().stop(&SystemClock).await.unwrap());
    }
}
