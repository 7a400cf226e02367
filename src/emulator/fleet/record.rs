//! What is kept of a branch beside its data.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::FleetError;
use super::types::{BranchId, BranchOrigin};
use crate::kernel::{Digest, Timestamp};

/// The newest form of the record.
const FORMAT: u32 = 1;
/// The longest name of a cluster that still shows its branch.
const LONGEST: usize = 32;

/// What `branches/<uid>.json` says of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BranchRecord {
    pub format: u32,
    pub id: BranchId,
    /// Whether its data is complete; a branch that was interrupted while it was made is removed.
    pub ready: bool,
    pub created: Timestamp,
    /// Where it came from; a root came from nowhere.
    pub origin: Option<BranchOrigin>,
    /// The branch whose data it begins with when its server first starts. Nobody writes to that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_as: Option<BranchId>,
}

impl BranchRecord {
    pub(super) fn new(id: &BranchId, created: Timestamp) -> Self {
        Self {
            format: FORMAT,
            id: id.clone(),
            ready: false,
            created,
            origin: None,
            begins_as: None,
        }
    }

    fn path(state: &Path, id: &BranchId) -> PathBuf {
        folder(state).join(format!("{id}.json"))
    }

    pub(super) fn write(&self, state: &Path) -> Result<(), FleetError> {
        write_json(&Self::path(state, &self.id), self)
    }

    pub(super) fn remove(state: &Path, id: &BranchId) -> Result<(), FleetError> {
        let path = Self::path(state, id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(FleetError::copy("remove", &path, e))
            }
            _ => Ok(()),
        }
    }

    /// All branches of a state directory.
    pub(super) fn all(state: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(folder(state)) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter_map(|path| read_json(&path)).filter(|it: &Self| it.format == FORMAT).collect()
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("branches")
}

/// The name of the cluster that holds a branch.
pub(super) fn cluster_of(branch: &BranchId) -> String {
    if branch.0.len() <= LONGEST {
        return branch.0.clone();
    }
    format!("{}-{}", &branch.0[..16], Digest::of_bytes(branch.0.as_bytes()).short())
}

/// The name of the cluster that holds the copy of a branch that only reads.
pub(super) fn follower_of(branch: &BranchId) -> String {
    format!("ro-{}", Digest::of_bytes(branch.0.as_bytes()).short())
}

/// Replaces a small file on disk, as a whole.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FleetError> {
    let fail = |e: io::Error| FleetError::copy("write", path, e);
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(fail)?;
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(fail)?;
    serde_json::to_writer_pretty(&mut file, value).map_err(|e| fail(e.into()))?;
    file.write_all(b"\n").map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// Reads such a file; one that is missing or damaged says nothing.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
