//! The programs of a PostgreSQL server, and the version they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deadline::within;
use super::user::ServerUser;
use crate::kernel::Clock;

/// A program that only prints its version has this long.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// The version of a server: `17.10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PgVersion {
    /// 17 of 17.10.
    pub major: u32,
    /// 10 of 17.10; 0 for a beta.
    pub minor: u32,
}

impl PgVersion {
    /// Reads what `postgres --version` prints.
    pub(super) fn parse(printed: &str) -> Option<Self> {
        let number = printed.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
        let digits = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().ok()
        };
        let minor = number.split_once('.').and_then(|(_, minor)| digits(minor)).unwrap_or(0);
        Some(Self { major: digits(number)?, minor })
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Where an installation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration names it.
    Configured,
    /// It is on `PATH`.
    Path,
    /// The operating system's packages put it where they do.
    System,
    /// We fetched it.
    Fetched,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "configured",
            Self::Path => "on PATH",
            Self::System => "system package",
            Self::Fetched => "fetched",
        })
    }
}

/// A PostgreSQL that can be started.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The directory with `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// Its version.
    pub version: PgVersion,
    /// Where it comes from.
    pub source: Source,
    /// Who runs it.
    pub user: ServerUser,
}

impl Installation {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// The path of an optional program (`psql`, `pgbench`, …), when it is there.
    pub fn optional_program(&self, name: &str) -> Option<PathBuf> {
        Some(self.program(name)).filter(|path| path.is_file())
    }

    /// Whether the server can load this library (`pg_stat_statements`, …).
    pub fn has_library(&self, name: &str) -> bool {
        let Some(home) = self.bin_dir.parent() else { return false };
        let names = [format!("{name}.so"), format!("{name}.dylib")];
        ["lib", "lib/postgresql", "lib64", "lib64/pgsql"]
            .iter()
            .any(|lib| names.iter().any(|file| home.join(lib).join(file).is_file()))
    }

    /// Looks at the programs in `bin_dir`, by running them as the user who will run the server.
    pub(super) async fn inspect(
        bin_dir: &Path,
        source: Source,
        user: &ServerUser,
        clock: &dyn Clock,
    ) -> Result<Self, Unfit> {
        // `/usr/local/bin/postgres` is often a link; what belongs to it lies beside its target.
        let program = bin_dir.join("postgres").canonicalize().map_err(|_| Unfit::Absent)?;
        let bin_dir = program.parent().unwrap_or(bin_dir).to_owned();
        if !bin_dir.join("initdb").is_file() {
            return Err(Unfit::NoInitdb);
        }
        let mut command = tokio::process::Command::from(user.command(&program, Path::new("/")));
        command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = within(clock, VERSION_LIMIT, command.output())
            .await
            .ok_or_else(|| Unfit::Broken { detail: "does not answer".to_owned() })?
            .map_err(|e| Unfit::Broken { detail: format!("as `{}`: {e}", user.name()) })?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let version = PgVersion::parse(&printed).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            Unfit::Broken { detail: said.lines().next().unwrap_or("prints no version").to_owned() }
        })?;
        Ok(Self { bin_dir, version, source, user: user.clone() })
    }
}

/// Why a directory has no server for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no `postgres`.
    #[error("has no program `postgres`")]
    Absent,
    /// There is no `initdb` beside it.
    #[error("has `postgres` but no `initdb` beside it")]
    NoInitdb,
    /// It is older than we need.
    #[error("is version {found}; {oldest} or newer is needed")]
    TooOld {
        /// Its version.
        found: PgVersion,
        /// The oldest major version that will do.
        oldest: u32,
    },
    /// It does not run.
    #[error("does not run: {detail}")]
    Broken {
        /// What it says.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_printed() {
        let read = |text: &str| PgVersion::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(read("postgres (PostgreSQL) 17.10\n"), Some((17, 10)));
        assert_eq!(read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(read("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(read("postgres (PostgreSQL) 19devel"), Some((19, 0)));
        assert_eq!(read("mysqld 8.0"), None);
        assert_eq!(read("postgres (PostgreSQL) \u{665}"), None);
        assert_eq!(read(""), None);
    }
}
