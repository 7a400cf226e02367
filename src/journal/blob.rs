//! Payloads that are too large for a row: content-addressed files, on disk before the journal names
//! them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::chain::Hash;
use crate::kernel::digest::hex;

/// Payloads longer than this lie in files.
pub(super) const LONGEST_ROW: usize = 1024 * 1024;

/// The directory of the files.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { root: state_dir.join("blobs") }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, digest: &Hash) -> (PathBuf, String) {
        let name = hex(digest);
        (self.root.join(name.get(..2).unwrap_or_default()), name)
    }

    /// Writes a payload; it is on disk when this returns.
    pub(super) fn write(&self, digest: &Hash, payload: &str) -> io::Result<()> {
        let (dir, name) = self.place(digest);
        if !dir.exists() {
            fs::create_dir_all(&dir)?;
            sync_dir(self.root.parent().unwrap_or(&self.root))?;
            sync_dir(&self.root)?;
        }
        let target = dir.join(&name);
        if !target.exists() {
            // Under another name until it is whole.
            let mut draft = tempfile::NamedTempFile::new_in(&dir)?;
            draft.write_all(payload.as_bytes())?;
            draft.as_file().sync_all()?;
            draft.persist(&target)?;
        }
        sync_dir(&dir)
    }

    /// Removes a payload; one that is not there is removed already.
    pub(super) fn remove(&self, digest: &Hash) -> io::Result<()> {
        let (dir, name) = self.place(digest);
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads a payload. Whether it is what its digest says is for the caller to check.
    pub(super) fn read(&self, digest: &Hash) -> io::Result<String> {
        let (dir, name) = self.place(digest);
        fs::read_to_string(dir.join(name))
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
