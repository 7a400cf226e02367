//! No wait without a deadline.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use super::directory::FileError;
use crate::kernel::Clock;

/// How often something that only polling can tell is looked at.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// How often another process's lock is tried.
const LOCK_TICK: Duration = Duration::from_millis(50);

/// What the future gives, unless the limit passes first.
pub(super) async fn within<F: Future>(
    clock: &dyn Clock,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep_until(clock.now().plus(limit)) => None,
    }
}

/// Waits one tick.
pub(super) async fn tick(clock: &dyn Clock, tick: Duration) {
    clock.sleep_until(clock.now().plus(tick)).await;
}

/// The lock of a file. It dies with this process, and is given back as soon as this is dropped.
///
/// Closing the file is not enough for that: a process that is started at the same moment has a copy of it
/// until it has become its program, and the lock would seem to be held meanwhile.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Takes the lock, unless somebody has it.
    pub(crate) fn try_take(file: File) -> Result<Self, TryLockError> {
        file.try_lock().map(|()| Self(file))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // What cannot be unlocked is when it is closed.
        self.0.unlock().unwrap_or_default();
    }
}

/// Takes a lock that dies with this process; `None` when another process holds it beyond the limit.
pub(super) async fn lock(
    path: &Path,
    limit: Duration,
    clock: &dyn Clock,
) -> Result<Option<FileLock>, FileError> {
    let until = clock.now().plus(limit);
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| FileError::new("open", path, e))?;
        match FileLock::try_take(file) {
            // A file that was removed meanwhile locks nobody out.
            Ok(lock) if is_at(&lock.0, path) => return Ok(Some(lock)),
            Ok(_) => {}
            Err(TryLockError::Error(e)) => return Err(FileError::new("lock", path, e)),
            Err(TryLockError::WouldBlock) if clock.now() >= until => return Ok(None),
            Err(TryLockError::WouldBlock) => tick(clock, LOCK_TICK).await,
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |found: std::fs::Metadata| (found.dev(), found.ino());
    let held = file.metadata().map(inode).ok();
    held.is_some() && held == std::fs::metadata(path).map(inode).ok()
}
