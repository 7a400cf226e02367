//! Where servers live: directories that the server's user can reach and nobody else can change.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::user::ServerUser;
use crate::kernel::Digest;

/// The kernel's limit for socket paths is 108 bytes; we keep well below it.
const LONGEST_SOCKET_PATH: usize = 99;
const LONGEST_SOCKET_NAME: &str = ".s.PGSQL.65535";

/// The directory for what the server's user must reach: `preferred`, or one below `shared` when
/// `preferred` lies in a home that this user cannot enter.
pub(super) fn reachable(
    preferred: &Path,
    shared: &Path,
    user: &ServerUser,
) -> Result<PathBuf, FileError> {
    let preferred = absolute(preferred)?;
    if user.can_enter(&preferred) {
        return Ok(preferred);
    }
    create(shared, 0o755)?;
    check_owner(shared, geteuid().as_raw())?;
    if user.can_enter(shared) {
        return shared.canonicalize().map_err(|e| FileError::new("resolve", shared, e));
    }
    Err(FileError::Closed { path: shared.to_owned(), user: user.name().to_owned() })
}

/// The files of one cluster.
#[derive(Clone, Debug)]
pub(super) struct ClusterPaths {
    /// The name of the cluster.
    pub name: String,
    /// Who holds this lock may start and stop the cluster.
    pub lock: PathBuf,
    /// The process that a guarded cluster belongs to holds this lock as long as it lives.
    pub owner: PathBuf,
    /// What we know of the server.
    pub record: PathBuf,
    /// Everything below here is the cluster's.
    pub root: PathBuf,
    pub data: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub password: PathBuf,
}

impl ClusterPaths {
    /// Decides where the cluster `name` of the state directory `state` lives, and creates nothing
    /// but the directory of the records.
    pub(super) fn new(
        state: &Path,
        name: &str,
        shared: &Path,
        user: &ServerUser,
    ) -> Result<Self, FileError> {
        let records = absolute(&state.join("postgres"))?;
        create(&records, 0o755)?;
        let records = records.canonicalize().map_err(|e| FileError::new("resolve", &records, e))?;
        // Two state directories may use the same name: below the shared directory both have a place.
        let key = Digest::of_bytes(format!("{}\0{name}", records.display()).as_bytes());
        let home = reachable(&records, shared, user)?;
        let root = if home == records {
            home.join(name)
        } else {
            home.join("clusters").join(format!("{name}-{}", key.short()))
        };
        let mut socket = root.join("socket");
        if socket.join(LONGEST_SOCKET_NAME).as_os_str().len() > LONGEST_SOCKET_PATH {
            socket = short_base(shared, user)?.join(key.short());
        }
        let in_records = |suffix: &str| records.join(format!("{name}.{suffix}"));
        Ok(Self {
            name: name.to_owned(),
            lock: in_records("lock"),
            owner: in_records("owner"),
            record: in_records("json"),
            data: root.join("data"),
            log: root.join("log"),
            password: root.join("password"),
            socket,
            root,
        })
    }

    /// Creates the directories that the server needs.
    pub(super) fn create(&self, user: &ServerUser) -> Result<(), FileError> {
        create(&self.root, if user.is_other() { 0o755 } else { 0o700 })?;
        check_owner(&self.root, geteuid().as_raw())?;
        create(&self.socket, 0o700)?;
        hand_over(&self.socket, user)
    }
}

/// A directory with a short path, for sockets.
fn short_base(shared: &Path, user: &ServerUser) -> Result<PathBuf, FileError> {
    let me = geteuid().as_raw();
    if user.is_other() {
        let base = shared.join("sockets");
        create(&base, 0o755)?;
        check_owner(&base, me)?;
        return Ok(base);
    }
    let base = PathBuf::from(format!("/tmp/lakeops-{me}"));
    create(&base, 0o700)?;
    check_owner(&base, me)?;
    Ok(base)
}

/// Creates a directory and whatever lies above it. The mode holds for each that is created, whatever
/// the umask says.
pub(super) fn create(directory: &Path, mode: u32) -> Result<(), FileError> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        create(parent, 0o755)?;
    }
    let fail = |e| FileError::new("create", directory, e);
    match fs::DirBuilder::new().mode(mode).create(directory) {
        Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(mode)).map_err(fail),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(e) => Err(fail(e)),
    }
}

/// Gives a file or directory to the server's user.
pub(super) fn hand_over(path: &Path, user: &ServerUser) -> Result<(), FileError> {
    if user.is_other() {
        std::os::unix::fs::lchown(path, Some(user.uid()), Some(user.gid()))
            .map_err(|e| FileError::new("change the owner of", path, e))?;
    }
    Ok(())
}

/// Refuses a directory that somebody else owns or can change: what lies in it is run, or obeyed.
pub(super) fn check_owner(directory: &Path, owner: u32) -> Result<(), FileError> {
    let found =
        fs::symlink_metadata(directory).map_err(|e| FileError::new("inspect", directory, e))?;
    if found.is_dir() && found.uid() == owner && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(FileError::Unsafe { path: directory.to_owned() })
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, FileError> {
    std::path::absolute(path).map_err(|e| FileError::new("resolve", path, e))
}

/// A file or directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another user could change what we run.
    #[error(
        "`{}` is not a directory of ours alone: it must be owned by the user who runs this program \
         and writable by nobody else; correct it or remove it",
        path.display()
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
    /// The server's user cannot enter.
    #[error("the user `{user}`, who runs PostgreSQL, cannot enter `{}`", path.display())]
    Closed {
        /// The directory.
        path: PathBuf,
        /// The user.
        user: String,
    },
}

impl FileError {
    pub(super) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_state_directories_never_share_a_cluster() {
        let base = tempfile::tempdir().unwrap();
        let user = ServerUser::choose(None).unwrap();
        let paths = |state: &str| {
            ClusterPaths::new(&base.path().join(state), "main", &base.path().join("s"), &user)
        };
        let (one, two) = (paths("one").unwrap(), paths("two").unwrap());
        assert_ne!(one.root, two.root);
        assert_ne!(one.socket, two.socket);
        assert_eq!(one.root, paths("one").unwrap().root);
    }

    #[test]
    fn socket_paths_stay_short() {
        let base = tempfile::tempdir().unwrap();
        let user = ServerUser::choose(None).unwrap();
        let deep = base.path().join("d".repeat(120));
        let paths = ClusterPaths::new(&deep, "main", &base.path().join("s"), &user).unwrap();
        let socket = paths.socket.join(LONGEST_SOCKET_NAME);
        assert!(socket.as_os_str().len() <= LONGEST_SOCKET_PATH, "{}", socket.display());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let me = geteuid().as_raw();
        assert!(check_owner(base.path(), me).is_ok());
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(check_owner(base.path(), me), Err(FileError::Unsafe { .. })));
        let link = base.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert!(check_owner(&link, me).is_err());
    }
}
