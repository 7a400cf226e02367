//! `[connections.NAME]`: the servers that can be reached.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::lakebase::LakebaseConnection;
use crate::kernel::Secret;
use crate::kernel::secret::{Redactor, SHORTEST_SECRET};

/// The name of the connection that `--database-url` makes.
pub const DATABASE_URL: &str = "database-url";

/// The name of the connection to the Lakebase on this machine. It is there without being configured.
pub const EMULATOR: &str = "emulator";

/// The kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    /// The PostgreSQL that lakeops starts by itself.
    Local,
    /// Any PostgreSQL server, by its URL.
    Postgres,
    /// A Databricks Lakebase project.
    Lakebase,
}

impl fmt::Display for ConnectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Postgres => "postgres",
            Self::Lakebase => "lakebase",
        })
    }
}

/// A connection as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionEntry {
    /// What is reached: `local`, `postgres` or `lakebase`.
    pub kind: ConnectionKind,
    /// The URL of the server, without a password.
    #[serde(default)]
    pub url: Option<String>,
    /// The environment variable that holds the URL.
    #[serde(default)]
    pub url_env: Option<String>,
    /// The file that holds the URL.
    #[serde(default)]
    pub url_file: Option<String>,
    /// The workspace of a Lakebase connection: `https://….cloud.databricks.com`. Not set:
    /// `DATABRICKS_HOST`, or a profile.
    #[serde(default)]
    pub host: Option<String>,
    /// The environment variable that holds the workspace token. Not set: `DATABRICKS_TOKEN`, or a
    /// profile.
    #[serde(default)]
    pub token_env: Option<String>,
    /// The file that holds the workspace token.
    #[serde(default)]
    pub token_file: Option<String>,
    /// The environment variable that holds a service principal's client id.
    #[serde(default)]
    pub client_id_env: Option<String>,
    /// The environment variable that holds its secret.
    #[serde(default)]
    pub client_secret_env: Option<String>,
    /// The profile of `.databrickscfg`.
    #[serde(default)]
    pub profile: Option<String>,
    /// The SQL warehouse for questions to the lakehouse.
    #[serde(default)]
    pub warehouse_id: Option<String>,
    /// Certificates, in PEM form, of an authority that the system does not know.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The project that is meant where a target names none.
    #[serde(default)]
    pub project: Option<String>,
}

/// Where the URL of a server comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlSource {
    /// It was given itself.
    Given(Secret<String>),
    /// This environment variable holds it.
    Variable(String),
    /// This file holds it.
    File(PathBuf),
}

/// A connection, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The PostgreSQL that lakeops starts by itself.
    Local,
    /// Any PostgreSQL server.
    Postgres {
        /// Where its URL comes from.
        url: UrlSource,
    },
    /// A Databricks workspace with Lakebase.
    Lakebase(LakebaseConnection),
    /// The Lakebase on this machine.
    Emulator {
        /// Where it says, while it runs, how it is reached.
        file: PathBuf,
    },
}

/// A connection that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The variable is not set.
    #[error("the environment variable `{0}` is not set, and the connection takes its URL from it")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("{path} cannot be read ({reason}), and the connection takes its URL from it")]
    NoFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The text is not the URL of a PostgreSQL server.
    #[error("{place} is not a PostgreSQL URL: write `postgres://user@host:5432/database`")]
    NotAUrl {
        /// Where the text came from; the text itself can hold a password.
        place: String,
    },
}

impl ConnectionEntry {
    /// An entry of a kind with nothing else set.
    pub const fn new(kind: ConnectionKind) -> Self {
        Self {
            kind,
            url: None,
            url_env: None,
            url_file: None,
            host: None,
            token_env: None,
            token_file: None,
            client_id_env: None,
            client_secret_env: None,
            profile: None,
            warehouse_id: None,
            ca_file: None,
            project: None,
        }
    }

    /// Checks the entry. Relative files are below `root`. The error names the key that is at fault,
    /// when it is one, and says what is wrong.
    pub fn resolve(&self, root: &Path) -> Result<Connection, (Option<&'static str>, String)> {
        self.refuse_foreign_keys()?;
        match self.kind {
            ConnectionKind::Local => Ok(Connection::Local),
            ConnectionKind::Postgres => {
                self.url_source(root).map(|url| Connection::Postgres { url })
            }
            ConnectionKind::Lakebase => {
                LakebaseConnection::of(self, root).map(Connection::Lakebase)
            }
        }
    }

    fn refuse_foreign_keys(&self) -> Result<(), (Option<&'static str>, String)> {
        let url = [("url", &self.url), ("url_env", &self.url_env), ("url_file", &self.url_file)];
        let lakebase = [
            ("host", &self.host),
            ("token_env", &self.token_env),
            ("token_file", &self.token_file),
            ("client_id_env", &self.client_id_env),
            ("client_secret_env", &self.client_secret_env),
            ("profile", &self.profile),
            ("warehouse_id", &self.warehouse_id),
            ("ca_file", &self.ca_file),
            ("project", &self.project),
        ];
        let is_foreign = |key: &str| match self.kind {
            ConnectionKind::Local => true,
            ConnectionKind::Postgres => !key.starts_with("url"),
            ConnectionKind::Lakebase => key.starts_with("url"),
        };
        let mut set = url.into_iter().chain(lakebase).filter(|(_, value)| value.is_some());
        match set.find(|(key, _)| is_foreign(key)) {
            Some((key, _)) => {
                Err((Some(key), format!("a `{}` connection has no `{key}`", self.kind)))
            }
            None => Ok(()),
        }
    }

    fn url_source(&self, root: &Path) -> Result<UrlSource, (Option<&'static str>, String)> {
        match (&self.url, &self.url_env, &self.url_file) {
            (Some(url), None, None) => {
                let parsed = parse_url(url).ok_or_else(|| {
                    let hint = "write `postgres://user@host:5432/database`";
                    (Some("url"), format!("this is not a PostgreSQL URL; {hint}"))
                })?;
                if parsed.password().is_some() {
                    let hint =
                        "use `url_env` or `url_file`, and keep the password out of this file";
                    return Err((Some("url"), format!("the URL holds a password; {hint}")));
                }
                Ok(UrlSource::Given(Secret::new(url.clone())))
            }
            (None, Some(name), None) => Ok(UrlSource::Variable(name.clone())),
            (None, None, Some(path)) => Ok(UrlSource::File(root.join(path))),
            _ => {
                let text =
                    "a `postgres` connection needs exactly one of `url`, `url_env`, `url_file`";
                Err((None, text.to_owned()))
            }
        }
    }
}

impl UrlSource {
    /// The URL. Its password becomes known to the redactor.
    pub fn read(
        &self,
        environment: &dyn Environment,
        redactor: &Redactor,
    ) -> Result<Secret<String>, ConnectionError> {
        let (text, place) = match self {
            Self::Given(url) => (url.expose().clone(), "the database URL".to_owned()),
            Self::Variable(name) => {
                let text = environment.var(name);
                let text = text.ok_or_else(|| ConnectionError::NoVariable(name.clone()))?;
                (text, format!("the value of `{name}`"))
            }
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    ConnectionError::NoFile { path: path.clone(), reason: error.to_string() }
                })?;
                (text.trim().to_owned(), format!("the content of {}", path.display()))
            }
        };
        let url = parse_url(&text).ok_or(ConnectionError::NotAUrl { place })?;
        if let Some(password) = url.password() {
            let plain = percent_decoded(password);
            for form in [password, plain.as_str()] {
                // A short password is taken: servers on a laptop have them, and no output of ours
                // shows a URL. It is too short to be masked wherever its letters stand.
                if form.chars().count() >= SHORTEST_SECRET {
                    let _known = redactor.register("database url", form);
                }
            }
        }
        Ok(Secret::new(text))
    }
}

/// The URL without its password, for people.
pub fn without_password(url: &str) -> String {
    match parse_url(url) {
        Some(mut url) => {
            if url.password().is_some() {
                let _fits = url.set_password(Some("***"));
            }
            url.to_string()
        }
        None => "(not a PostgreSQL URL)".to_owned(),
    }
}

fn parse_url(text: &str) -> Option<url::Url> {
    url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
}

fn percent_decoded(text: &str) -> String {
    // A form-encoded pair decodes `%41`; `+` must stay a plus.
    let pair = format!("x={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(pair.as_bytes()).next();
    decoded.map_or_else(|| text.to_owned(), |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FixedEnvironment;

    fn postgres() -> ConnectionEntry {
        ConnectionEntry::new(ConnectionKind::Postgres)
    }

    #[test]
    fn a_password_in_the_file_is_refused() {
        let url = Some("postgres://ann:secret@db/app".to_owned());
        let (key, message) =
            ConnectionEntry { url, ..postgres() }.resolve(Path::new("/")).unwrap_err();
        assert_eq!(key, Some("url"));
        assert!(message.contains("password") && !message.contains("secret@"), "{message}");
    }

    #[test]
    fn exactly_one_source_of_the_url() {
        assert!(postgres().resolve(Path::new("/")).is_err());
        let two =
            ConnectionEntry { url_env: Some("A".into()), url_file: Some("b".into()), ..postgres() };
        assert!(two.resolve(Path::new("/")).is_err());
        let local = ConnectionEntry {
            url_env: Some("A".into()),
            ..ConnectionEntry::new(ConnectionKind::Local)
        };
        assert_eq!(local.resolve(Path::new("/")).unwrap_err().0, Some("url_env"));
    }

    #[test]
    fn the_password_is_masked_in_both_forms() {
        let mut environment = FixedEnvironment::default();
        let url = "postgres://ann:long%20secret%2Bword@db/app";
        environment.vars.insert("APP_URL".into(), url.into());
        let redactor = Redactor::default();
        let source = UrlSource::Variable("APP_URL".into());
        assert_eq!(source.read(&environment, &redactor).unwrap().expose(), url);
        assert_eq!(redactor.mask("it is long secret+word."), "it is [redacted].");
        assert!(!redactor.mask(url).contains("long%20secret"));
        assert_eq!(without_password(url), "postgres://ann:***@db/app");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let source = UrlSource::Variable("APP_URL".into());
        let error = source.read(&FixedEnvironment::default(), &Redactor::default()).unwrap_err();
        assert!(error.to_string().contains("`APP_URL`"));
    }
}
