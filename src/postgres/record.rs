//! What we know of a cluster's server, kept where every later command finds it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::FileError;
use crate::kernel::Timestamp;

/// The newest form of the record that we write and read.
pub(super) const FORMAT: u32 = 1;

/// What `state/postgres/<name>.json` says of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The form of the record.
    pub format: u32,
    /// The version of the server.
    pub version: String,
    /// Its programs.
    pub bin_dir: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// The directory of its Unix socket.
    pub socket: PathBuf,
    /// Its port.
    pub port: u16,
    /// The operating-system user who runs it.
    pub user: String,
    /// Stands in its command line, and was drawn at random for this start: the proof that it is ours.
    pub token: String,
    /// Whether it stops together with the process that started it.
    pub guarded: bool,
    /// Its process, once it has one.
    pub pid: Option<i32>,
    /// When it was started.
    pub started: Timestamp,
}

impl ServerRecord {
    /// Reads a record. One that is missing, damaged or of a newer form says nothing.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (record.format == FORMAT).then_some(record)
    }

    /// Replaces the record on disk, as a whole.
    pub(super) fn write(&self, path: &Path) -> Result<(), FileError> {
        let fail = |e: io::Error| FileError::new("write", path, e);
        let parent = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(parent).map_err(fail)?;
        serde_json::to_writer_pretty(&mut file, self).map_err(|e| fail(e.into()))?;
        file.write_all(b"\n").map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(path).map_err(|e| fail(e.error))?;
        Ok(())
    }
}
