//! The directories of one cluster, for who fills its data directory by other means than `initdb`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::directory::{self, ClusterPaths, FileError};
use super::user::ServerUser;

/// The directories of one cluster. Everything of it lies below [`ClusterPlace::root`].
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlace {
    paths: ClusterPaths,
    user: ServerUser,
}

impl ClusterPlace {
    pub(super) fn new(paths: ClusterPaths, user: ServerUser) -> Self {
        Self { paths, user }
    }

    pub(super) fn paths(&self) -> &ClusterPaths {
        &self.paths
    }

    /// The directory that everything lies in.
    pub(crate) fn root(&self) -> &Path {
        &self.paths.root
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.paths.data
    }

    /// Who runs the server.
    pub(crate) fn user(&self) -> &ServerUser {
        &self.user
    }

    /// Creates the directories around the data directory.
    pub(crate) fn create(&self) -> Result<(), FileError> {
        self.paths.create(&self.user)
    }

    /// Creates a directory beside the data directory, for the server's user alone.
    pub(crate) fn beside(&self, name: &str) -> Result<PathBuf, FileError> {
        let directory = self.paths.root.join(name);
        directory::create(&directory, 0o700)?;
        directory::hand_over(&directory, &self.user)?;
        Ok(directory)
    }

    /// Writes a small file of the server's user.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<(), FileError> {
        fs::write(path, text).map_err(|e| FileError::new("write", path, e))?;
        directory::hand_over(path, &self.user)
    }

    /// Removes a file or a directory with all that it holds, if it is there.
    pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, e)),
            _ => Ok(()),
        }
    }
}
