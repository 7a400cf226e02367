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

/// Takes a lock that dies with this process; `None` when another process holds it beyond the limit.
pub(super) async fn lock(
    path: &Path,
    limit: Duration,
    clock: &dyn Clock,
) -> Result<Option<File>, FileError> {
    let until = clock.now().plus(limit);
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| FileError::new("open", path, e))?;
        match file.try_lock() {
            // A file that was removed meanwhile locks nobody out.
            Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            Ok(()) => {}
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
