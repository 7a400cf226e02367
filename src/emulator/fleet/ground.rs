//! What every part of the fleet stands on.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::FleetError;
use crate::kernel::Clock;
use crate::postgres::{ClusterPlace, Installation, LocalPostgres};

/// What every part of the fleet stands on.
pub(super) struct Ground {
    /// Everything of the emulator lies below it.
    pub state: PathBuf,
    pub local: LocalPostgres,
    pub installation: Installation,
    pub clock: Arc<dyn Clock>,
}

impl Ground {
    /// Where the cluster of this name lives.
    pub(super) fn place(&self, cluster: &str) -> Result<ClusterPlace, FleetError> {
        Ok(self.local.place(&self.state, cluster)?)
    }
}

/// Whether a name can name a directory, and is none of our own.
pub(super) fn check_id(id: &str) -> Result<(), FleetError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_ours = id.starts_with("ro-") || id.starts_with("template-");
    if (1..=60).contains(&id.len()) && id.bytes().all(fits) && !is_ours {
        return Ok(());
    }
    Err(FleetError::Id { id: id.to_owned() })
}
