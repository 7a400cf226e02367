//! One executor per run on one machine: a lock of the operating system, held until the process dies.

use std::path::PathBuf;

use super::parts::{Guard, OwnedElsewhere, Ownership};
use crate::journal::RunLock;
use crate::kernel::RunId;

/// Run locks below a state directory.
#[derive(Clone, Debug)]
pub struct RunLocks {
    state_dir: PathBuf,
}

impl RunLocks {
    /// The locks of a state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into() }
    }
}

impl Ownership for RunLocks {
    fn acquire(&self, run: &RunId) -> Result<Guard, OwnedElsewhere> {
        match RunLock::try_acquire(&self.state_dir, run, "executor") {
            Ok(Ok(lock)) => Ok(Box::new(lock)),
            Ok(Err(holder)) => Err(OwnedElsewhere::Held { holder: holder.to_string() }),
            Err(error) => Err(OwnedElsewhere::Unavailable { reason: error.to_string() }),
        }
    }
}

/// Nobody else can work on the runs: they live in this process's memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Ownership for Alone {
    fn acquire(&self, _run: &RunId) -> Result<Guard, OwnedElsewhere> {
        Ok(Box::new(()))
    }
}
