//! The project that the demo works in: a folder with the shipped workflows and SOPs, a configuration
//! and a state of its own. A user's journal is never touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::DemoError;

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),*]
    };
}

/// Embedded, so that an installed program needs no clone.
const FILES: &[(&str, &str)] = shipped![
    "workflows/relieve_connections.yaml",
    "workflows/heal_bloat.yaml",
    "workflows/rewrite_bloat.yaml",
    "workflows/health_check.yaml",
    "sops/connections.rhai",
    "sops/bloat.rhai",
    "sops/health.rhai",
    "sops/change_policy.rhai",
];

/// Its configuration.
const CONFIG: &str = "\
# The project of `lakeops demo`, made anew by each demo.
connection = \"emulator\"
actor_from_env = true
";

/// A project folder.
#[derive(Clone, Debug)]
pub(super) struct Project {
    root: PathBuf,
}

impl Project {
    /// The folder of the demo's project, whether it exists or not.
    pub(super) fn below(state: &Path) -> Result<Self, DemoError> {
        let root = state.join("demo");
        // Workers run in another directory than the demo itself.
        let root = std::path::absolute(&root).map_err(|source| DemoError::File {
            what: "find",
            path: root,
            source,
        })?;
        Ok(Self { root })
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where its journal is, and its emulator while the demo runs.
    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Its configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.root.join(".config/lakeops.toml")
    }

    /// Makes it anew: what an earlier demo left is removed.
    pub(super) fn renew(&self) -> Result<(), DemoError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("remove", &self.root, error));
            }
            _ => {}
        }
        for folder in [".config", "state", "sql"] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder).map_err(|error| self.failed("create", &folder, error))?;
        }
        self.write(".config/lakeops.toml", CONFIG)?;
        FILES.iter().try_for_each(|(path, text)| self.write(path, text))
    }

    fn write(&self, path: &str, text: &str) -> Result<(), DemoError> {
        let path = self.root.join(path);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(|error| self.failed("create", folder, error))?;
        fs::write(&path, text).map_err(|error| self.failed("write", &path, error))
    }

    #[expect(clippy::unused_self, reason = "reads as what it is")]
    fn failed(&self, what: &'static str, path: &Path, source: io::Error) -> DemoError {
        DemoError::File { what, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_made_anew() {
        let state = tempfile::tempdir().unwrap();
        let project = Project::below(state.path()).unwrap();
        project.renew().unwrap();
        fs::write(project.state().join("journal.db"), "old").unwrap();
        project.renew().unwrap();
        assert!(!project.state().join("journal.db").exists());
        let text = fs::read_to_string(project.config()).unwrap();
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["connection"].as_str(), Some("emulator"));
        for (path, _) in FILES {
            assert!(project.root().join(path).is_file(), "{path}");
        }
    }
}
