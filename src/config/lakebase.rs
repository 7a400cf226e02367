//! A connection of the kind `lakebase`: what the configuration says of a workspace.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::connection::{ConnectionEntry, EMULATOR};

/// A Databricks workspace with Lakebase, as far as the configuration describes it. What it leaves open
/// comes from the `DATABRICKS_…` variables and from a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LakebaseConnection {
    /// The workspace.
    pub host: Option<String>,
    /// Where its token is.
    pub token: Option<TokenPlace>,
    /// The variables that hold a service principal's client id and secret.
    pub client_env: Option<(String, String)>,
    /// The profile of `.databrickscfg`.
    pub profile: Option<String>,
    /// The SQL warehouse for questions to the lakehouse.
    pub warehouse_id: Option<String>,
    /// Certificates of an authority that the system does not know.
    pub ca_file: Option<PathBuf>,
    /// The project that is meant where a target names none.
    pub project: Option<String>,
}

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// In this environment variable.
    Variable(String),
    /// In this file; it is read again each time, so it may be replaced.
    File(PathBuf),
}

impl LakebaseConnection {
    /// Checks an entry. Relative files are below `root`.
    pub(super) fn of(
        entry: &ConnectionEntry,
        root: &Path,
    ) -> Result<Self, (Option<&'static str>, String)> {
        let token = match (&entry.token_env, &entry.token_file) {
            (Some(name), None) => Some(TokenPlace::Variable(name.clone())),
            (None, Some(path)) => Some(TokenPlace::File(root.join(path))),
            (None, None) => None,
            (Some(_), Some(_)) => {
                let text = "`token_env` and `token_file` are two places of one token; keep one";
                return Err((Some("token_file"), text.to_owned()));
            }
        };
        let client_env = match (&entry.client_id_env, &entry.client_secret_env) {
            (Some(id), Some(secret)) => Some((id.clone(), secret.clone())),
            (None, None) => None,
            _ => {
                let text = "`client_id_env` and `client_secret_env` go together";
                return Err((None, text.to_owned()));
            }
        };
        if token.is_some() && client_env.is_some() {
            let text = "a token and a service principal are two ways to log in; keep one";
            return Err((Some("client_id_env"), text.to_owned()));
        }
        Ok(Self {
            host: entry.host.clone(),
            token,
            client_env,
            profile: entry.profile.clone(),
            warehouse_id: entry.warehouse_id.clone(),
            ca_file: entry.ca_file.as_ref().map(|path| root.join(path)),
            project: entry.project.clone(),
        })
    }

    /// Whether it says by itself which workspace is meant and who logs in.
    pub const fn is_complete(&self) -> bool {
        self.host.is_some() && (self.token.is_some() || self.client_env.is_some())
    }

    /// Reads what a running emulator says of itself.
    pub fn from_emulator(file: &Path) -> Result<Self, EmulatorError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EmulatorError::NotStarted { file: file.to_owned() });
            }
            Err(error) => {
                let (file, reason) = (file.to_owned(), error.to_string());
                return Err(EmulatorError::Unreadable { file, reason });
            }
        };
        let said: Said = serde_json::from_str(&text).map_err(|error| {
            EmulatorError::Unreadable { file: file.to_owned(), reason: error.to_string() }
        })?;
        let folder = file.parent().unwrap_or(Path::new("."));
        Ok(Self {
            host: Some(said.host),
            token: Some(TokenPlace::File(folder.join(said.token_file))),
            ca_file: said.ca_file.map(|path| folder.join(path)),
            warehouse_id: said.warehouse_id,
            ..Self::default()
        })
    }
}

/// What a running emulator says of itself; paths are relative to the file.
#[derive(Deserialize)]
struct Said {
    host: String,
    token_file: PathBuf,
    ca_file: Option<PathBuf>,
    warehouse_id: Option<String>,
}

/// The Lakebase on this machine cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmulatorError {
    /// It does not say where it is.
    #[error("the connection `{EMULATOR}` needs a running emulator, and there is no {}", file.display())]
    NotStarted {
        /// Where it would say so.
        file: PathBuf,
    },
    /// What it says cannot be read.
    #[error("{} cannot be read: {reason}", file.display())]
    Unreadable {
        /// Where it says so.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::connection::ConnectionKind;

    fn entry(change: impl FnOnce(&mut ConnectionEntry)) -> ConnectionEntry {
        let mut entry = ConnectionEntry::new(ConnectionKind::Lakebase);
        change(&mut entry);
        entry
    }

    fn of(change: impl FnOnce(&mut ConnectionEntry)) -> Result<LakebaseConnection, String> {
        LakebaseConnection::of(&entry(change), Path::new("/root")).map_err(|(_, text)| text)
    }

    #[test]
    fn nothing_is_needed_and_contradictions_are_told() {
        assert_eq!(of(|_| ()).unwrap(), LakebaseConnection::default());
        let some = |text: &str| Some(text.to_owned());
        let file = of(|entry| {
            entry.host = some("h");
            entry.token_file = some("token");
        });
        let file = file.unwrap();
        assert_eq!(file.token, Some(TokenPlace::File("/root/token".into())));
        assert!(file.is_complete());
        let two = of(|entry| {
            entry.token_env = some("A");
            entry.token_file = some("b");
        });
        assert!(two.unwrap_err().contains("keep one"));
        assert!(of(|entry| entry.client_id_env = some("A")).unwrap_err().contains("together"));
        let both = of(|entry| {
            entry.token_env = some("A");
            (entry.client_id_env, entry.client_secret_env) = (some("B"), some("C"));
        });
        assert!(both.unwrap_err().contains("two ways"));
    }

    #[test]
    fn an_emulator_says_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("connection.json");
        let missing = LakebaseConnection::from_emulator(&file).unwrap_err();
        assert!(matches!(missing, EmulatorError::NotStarted { .. }), "{missing}");
        std::fs::write(&file, "{").unwrap();
        let broken = LakebaseConnection::from_emulator(&file).unwrap_err();
        assert!(matches!(broken, EmulatorError::Unreadable { .. }), "{broken}");
        let text = r#"{"host": "http://127.0.0.1:1", "token_file": "token", "ca_file": "/ca.pem"}"#;
        std::fs::write(&file, text).unwrap();
        let found = LakebaseConnection::from_emulator(&file).unwrap();
        assert_eq!(found.token, Some(TokenPlace::File(folder.path().join("token"))));
        assert_eq!(found.ca_file, Some("/ca.pem".into()));
    }
}
