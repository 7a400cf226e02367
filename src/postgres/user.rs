//! The operating-system user who runs the server. PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::{User, geteuid};

/// Who runs a server when we are root and nobody was configured.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user who runs servers: ourselves, or an unprivileged user when we are root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUser {
    name: String,
    uid: u32,
    gid: u32,
    switch: bool,
}

impl ServerUser {
    /// Takes the configured user, else ourselves, else (as root) `postgres` or `nobody`.
    pub fn choose(configured: Option<&str>) -> Result<Self, UserError> {
        let me = geteuid();
        if !me.is_root() {
            let name = User::from_uid(me).ok().flatten().map_or_else(|| me.to_string(), |u| u.name);
            if let Some(other) = configured.filter(|other| **other != name) {
                return Err(UserError::NotRoot { other: other.to_owned(), name });
            }
            return Ok(Self {
                name,
                uid: me.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                switch: false,
            });
        }
        if let Some(name) = configured {
            return find(name).ok_or_else(|| UserError::Unknown { name: name.to_owned() });
        }
        CANDIDATES.into_iter().find_map(find).ok_or(UserError::Nobody)
    }

    /// The name of the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numeric user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The numeric group id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Whether the server runs as somebody other than ourselves.
    pub fn is_other(&self) -> bool {
        self.switch
    }

    /// A command that runs as this user, in a process group of its own (a Ctrl-C in our terminal is
    /// not meant for the server), and without our environment, which may hold secrets.
    pub(super) fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "GMT")
            .current_dir(directory)
            .process_group(0);
        if self.switch {
            // The standard library also drops all supplementary groups here.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether this user can enter the directory, or would be able to once we have created it; and,
    /// when we are root, whether nobody else could put another directory in its place.
    pub(super) fn can_enter(&self, directory: &Path) -> bool {
        !self.switch || directory.ancestors().all(|part| self.may_search(part))
    }

    fn may_search(&self, directory: &Path) -> bool {
        let Ok(found) = fs::metadata(directory) else {
            return true; // it does not exist yet: we shall create it so that it can be entered
        };
        let sticky = found.mode() & 0o1000 != 0; // others cannot rename what is ours in it
        if found.uid() != 0 || (found.mode() & 0o022 != 0 && !sticky) {
            return false;
        }
        let shift = if found.gid() == self.gid { 3 } else { 0 };
        found.mode() >> shift & 1 == 1
    }
}

fn find(name: &str) -> Option<ServerUser> {
    let user = User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root())?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    Some(ServerUser { name: user.name, uid, gid, switch: true })
}

/// No user can run a server.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Only root can become somebody else.
    #[error(
        "the server cannot be started as `{other}`: we run as `{name}`, and only root can become \
         another user; remove the setting or run as root"
    )]
    NotRoot {
        /// The configured user.
        other: String,
        /// Who we are.
        name: String,
    },
    /// The configured user does not exist, or is root.
    #[error(
        "there is no unprivileged user `{name}` to run PostgreSQL as; create it or name another"
    )]
    Unknown {
        /// The configured user.
        name: String,
    },
    /// Root on a machine without unprivileged users.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to \
         run it as; create one (`useradd --system postgres`)"
    )]
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn somebody_is_always_unprivileged() {
        let user = ServerUser::choose(None).unwrap();
        assert_ne!(user.uid(), 0);
        assert_eq!(user.is_other(), geteuid().is_root());
        assert!(ServerUser::choose(Some("root")).is_err() || !geteuid().is_root());
        assert!(ServerUser::choose(Some("no-such-user")).is_err());
    }

    #[test]
    fn a_closed_directory_closes_what_is_below() {
        let other = ServerUser { name: "x".into(), uid: 54321, gid: 54321, switch: true };
        let base = tempfile::tempdir_in("/tmp").unwrap();
        let mode = |mode| fs::set_permissions(base.path(), fs::Permissions::from_mode(mode));
        mode(0o700).unwrap();
        assert!(!other.can_enter(&base.path().join("below/it")));
        mode(0o711).unwrap();
        let root = geteuid().is_root();
        assert_eq!(other.can_enter(&base.path().join("below/it")), root);
        mode(0o777).unwrap();
        assert!(!other.can_enter(&base.path().join("below/it")), "anybody could replace `below`");
    }
}
