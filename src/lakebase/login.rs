//! Which workspace is meant, and who logs in: the connection's own keys, then the `DATABRICKS_…`
//! variables, then a profile of `.databrickscfg`, as the official clients do it.
//!
//! - A connection that names a host and a way to log in is complete: no variable and no profile adds
//!   another way, so a stray `DATABRICKS_TOKEN` never reaches a workspace that it was not meant for.
//! - The file is looked at when a profile is named, or when nothing else said a host or a way.
//! - `[DEFAULT]` is a profile like any other: the others inherit nothing from it.
//! - Two ways without `auth_type` are an error. What the connection itself names is a choice.

use std::path::{Path, PathBuf};

use configparser::ini::Ini;

use super::host::{HostError, WorkspaceHost};
use crate::config::{Environment, LakebaseConnection, TokenPlace};
use crate::kernel::secret::ShortSecret;
use crate::kernel::{Failure, Redactor, Secret};

/// How somebody proves who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A token, as it is.
    Token(Secret<String>),
    /// A file that holds the token; it may be replaced at any time.
    TokenFile(PathBuf),
    /// A service principal, which asks for tokens.
    Client {
        /// Its id.
        id: String,
        /// Its secret.
        secret: Secret<String>,
    },
}

impl Credentials {
    /// The way as the official clients name it.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::TokenFile(_) => "pat",
            Self::Client { .. } => "oauth-m2m",
        }
    }
}

/// Everything that a client needs to know about a workspace.
#[derive(Clone, Debug)]
pub struct Login {
    /// Its address.
    pub host: WorkspaceHost,
    /// Who logs in.
    pub credentials: Credentials,
    /// Its number, where it was said.
    pub workspace_id: Option<String>,
    /// The SQL warehouse for questions to the lakehouse.
    pub warehouse_id: Option<String>,
    /// Certificates of an authority that the system does not know.
    pub ca_file: Option<PathBuf>,
    /// The project that is meant where a target names none.
    pub project: Option<String>,
    /// Where host and credentials came from, for people: `the connection`, `DATABRICKS_TOKEN`, …
    pub from: Vec<String>,
}

/// A workspace that cannot be logged in to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Nobody says which workspace.
    #[error("no workspace is named")]
    NoHost,
    /// Nobody says who logs in.
    #[error("nothing says who logs in to {host}")]
    NoCredentials {
        /// The workspace.
        host: String,
    },
    /// The address is none.
    #[error("{from} gives an address that cannot be used: {error}")]
    Host {
        /// Where it comes from.
        from: String,
        /// What is wrong with it.
        error: HostError,
    },
    /// A variable that the connection names is not set.
    #[error(
        "the environment variable `{name}` is not set, and the connection takes its {what} from it"
    )]
    NoVariable {
        /// The variable.
        name: String,
        /// What it holds.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A profile is not there.
    #[error("{} has no profile `{profile}`", path.display())]
    NoProfile {
        /// The profile.
        profile: String,
        /// The file.
        path: PathBuf,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Two ways to log in.
    #[error("more than one authorization method configured: {}", methods.join(" and "))]
    ManyMethods {
        /// The ways.
        methods: Vec<String>,
    },
    /// A way that this client does not have.
    #[error("the authorization method `{method}`, asked for by {from}, is none of ours")]
    UnknownMethod {
        /// The way.
        method: String,
        /// Who asks for it.
        from: String,
    },
    /// Half of a way.
    #[error("the authorization method `{method}` lacks {lacks}")]
    Incomplete {
        /// The way.
        method: &'static str,
        /// What is missing.
        lacks: &'static str,
    },
    /// A secret that could not be masked.
    #[error(transparent)]
    Short(#[from] ShortSecret),
}

impl LoginError {
    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::NoHost => "set `host` of the connection, `DATABRICKS_HOST`, or a profile in \
                             ~/.databrickscfg"
                .to_owned(),
            Self::NoCredentials { .. } => {
                "set `token_env`, `token_file`, `profile`, or `client_id_env` and \
                 `client_secret_env` of the connection; or DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID \
                 and DATABRICKS_CLIENT_SECRET"
                    .to_owned()
            }
            Self::Host { .. } => "write `https://NAME.cloud.databricks.com`".to_owned(),
            Self::NoVariable { name, .. } => format!("set `{name}`, or name another variable"),
            Self::Unreadable { .. } => "check that it is there and may be read".to_owned(),
            Self::NoProfile { known, .. } if known.is_empty() => "it has no profiles".to_owned(),
            Self::NoProfile { known, .. } => format!("it has: {}", known.join(", ")),
            Self::ManyMethods { .. } => {
                "keep one of them, or choose by DATABRICKS_AUTH_TYPE (or `auth_type` of the \
                 profile): `pat` or `oauth-m2m`"
                    .to_owned()
            }
            Self::UnknownMethod { .. } => {
                "use `pat` (a token) or `oauth-m2m` (a service principal)".to_owned()
            }
            Self::Incomplete { .. } => "give both client id and client secret".to_owned(),
            Self::Short(_) => "use a longer one".to_owned(),
        }
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        let help = error.help();
        Self::permanent("lakebase::login", error.to_string()).with_help(help)
    }
}

/// A value and who said it.
#[derive(Clone, Debug)]
struct Said {
    value: String,
    from: String,
}

/// What was said so far.
#[derive(Debug, Default)]
struct Found {
    host: Option<Said>,
    token: Option<Said>,
    token_file: Option<PathBuf>,
    client_id: Option<Said>,
    client_secret: Option<Said>,
    auth_type: Option<Said>,
    workspace_id: Option<Said>,
    warehouse_id: Option<Said>,
    /// The way that the connection itself names.
    chosen: Option<&'static str>,
}

const CONNECTION: &str = "the connection";

impl Login {
    /// Finds out who logs in where. Secrets become known to the redactor.
    pub fn resolve(
        connection: &LakebaseConnection,
        environment: &dyn Environment,
        redactor: &Redactor,
    ) -> Result<Self, LoginError> {
        let mut found = of_connection(connection, environment)?;
        if connection.is_complete() {
            fill(&mut found.warehouse_id, variable(environment, "DATABRICKS_WAREHOUSE_ID"));
        } else {
            add_variables(&mut found, environment);
            add_profile(&mut found, connection, environment)?;
        }
        let host = found.host.take().ok_or(LoginError::NoHost)?;
        let workspace_id = found.workspace_id.take().map(|said| said.value);
        let warehouse_id = found.warehouse_id.take().map(|said| said.value);
        let mut from = vec![host.from.clone()];
        let address = WorkspaceHost::parse(&host.value)
            .map_err(|error| LoginError::Host { from: host.from, error })?;
        let (credentials, by) = found.credentials(&address)?;
        if !from.contains(&by) {
            from.push(by);
        }
        match &credentials {
            Credentials::Token(secret) => redactor.register("workspace token", secret.expose())?,
            Credentials::Client { secret, .. } => {
                redactor.register("client secret", secret.expose())?;
            }
            Credentials::TokenFile(path) => {
                redactor.register("workspace token", token_of(path)?.expose())?;
            }
        }
        Ok(Self {
            host: address,
            credentials,
            workspace_id,
            warehouse_id,
            ca_file: connection.ca_file.clone(),
            project: connection.project.clone(),
            from,
        })
    }
}

/// The token that a file holds.
pub(super) fn token_of(path: &Path) -> Result<Secret<String>, LoginError> {
    let text = std::fs::read_to_string(path).map_err(|error| LoginError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(Secret::new(text.trim().to_owned()))
}

fn of_connection(
    connection: &LakebaseConnection,
    environment: &dyn Environment,
) -> Result<Found, LoginError> {
    let own = |value: &Option<String>| {
        value.clone().map(|value| Said { value, from: CONNECTION.to_owned() })
    };
    let named = |name: &String, what| match environment.var(name) {
        Some(value) => Ok(Some(Said { value, from: format!("`{name}`") })),
        None => Err(LoginError::NoVariable { name: name.clone(), what }),
    };
    let mut found = Found {
        host: own(&connection.host),
        warehouse_id: own(&connection.warehouse_id),
        ..Found::default()
    };
    match &connection.token {
        Some(TokenPlace::Variable(name)) => {
            found.token = named(name, "token")?;
            found.chosen = Some("pat");
        }
        Some(TokenPlace::File(path)) => {
            found.token_file = Some(path.clone());
            found.chosen = Some("pat");
        }
        None => {}
    }
    if let Some((id, secret)) = &connection.client_env {
        found.client_id = named(id, "client id")?;
        found.client_secret = named(secret, "client secret")?;
        found.chosen = Some("oauth-m2m");
    }
    Ok(found)
}

fn fill(place: &mut Option<Said>, said: Option<Said>) {
    if place.is_none() {
        *place = said;
    }
}

fn variable(environment: &dyn Environment, name: &str) -> Option<Said> {
    environment.var(name).map(|value| Said { value, from: format!("`{name}`") })
}

fn add_variables(found: &mut Found, environment: &dyn Environment) {
    let said = |name: &str| variable(environment, name);
    fill(&mut found.host, said("DATABRICKS_HOST"));
    if found.token_file.is_none() {
        fill(&mut found.token, said("DATABRICKS_TOKEN"));
    }
    fill(&mut found.client_id, said("DATABRICKS_CLIENT_ID"));
    fill(&mut found.client_secret, said("DATABRICKS_CLIENT_SECRET"));
    fill(&mut found.auth_type, said("DATABRICKS_AUTH_TYPE"));
    fill(&mut found.workspace_id, said("DATABRICKS_WORKSPACE_ID"));
    fill(&mut found.warehouse_id, said("DATABRICKS_WAREHOUSE_ID"));
}

fn add_profile(
    found: &mut Found,
    connection: &LakebaseConnection,
    environment: &dyn Environment,
) -> Result<(), LoginError> {
    let named = connection.profile.clone();
    let named = named.or_else(|| environment.var("DATABRICKS_CONFIG_PROFILE"));
    if named.is_none() && (found.host.is_some() || found.has_any_way()) {
        return Ok(());
    }
    let Some(path) = profile_file(environment) else { return Ok(()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok(());
        }
        Err(error) => return Err(LoginError::Unreadable { path, reason: error.to_string() }),
    };
    let file = parse_profiles(text)
        .map_err(|reason| LoginError::Unreadable { path: path.clone(), reason })?;
    let chosen = named.clone().or_else(|| file.get("__settings__", "default_profile"));
    let profile = chosen.clone().unwrap_or_else(|| "DEFAULT".to_owned());
    let mut known: Vec<String> =
        file.sections().into_iter().filter(|name| name != "__settings__").collect();
    if !known.contains(&profile) {
        if chosen.is_none() {
            return Ok(());
        }
        known.sort();
        return Err(LoginError::NoProfile { profile, path, known });
    }
    let from = format!("profile `{profile}` of {}", path.display());
    let said = |key: &str| {
        let value = file.get(&profile, key).filter(|value| !value.is_empty());
        value.map(|value| Said { value, from: from.clone() })
    };
    fill(&mut found.host, said("host"));
    if found.token_file.is_none() {
        fill(&mut found.token, said("token"));
    }
    fill(&mut found.client_id, said("client_id"));
    fill(&mut found.client_secret, said("client_secret"));
    fill(&mut found.auth_type, said("auth_type"));
    fill(&mut found.workspace_id, said("workspace_id"));
    fill(&mut found.warehouse_id, said("warehouse_id"));
    Ok(())
}

fn profile_file(environment: &dyn Environment) -> Option<PathBuf> {
    let home = || environment.var("HOME").map(PathBuf::from);
    match environment.var("DATABRICKS_CONFIG_FILE") {
        Some(path) => Some(match path.strip_prefix("~/") {
            Some(rest) => home()?.join(rest),
            None => environment.current_dir().join(path),
        }),
        None => Some(home()?.join(".databrickscfg")),
    }
}

/// Reads the file as Python's `configparser` does for the official client: comments on lines of their
/// own only, and nothing inherited.
fn parse_profiles(text: String) -> Result<Ini, String> {
    let mut file = Ini::new_cs();
    file.set_inline_comment_symbols(Some(&[]));
    file.set_default_section("");
    file.read(text)?;
    Ok(file)
}

impl Found {
    fn has_any_way(&self) -> bool {
        self.has_token() || self.has_client()
    }

    fn has_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    fn has_client(&self) -> bool {
        self.client_id.is_some() || self.client_secret.is_some()
    }

    fn credentials(self, host: &WorkspaceHost) -> Result<(Credentials, String), LoginError> {
        let method = match (self.chosen, &self.auth_type) {
            (Some(chosen), _) => chosen,
            (None, Some(said)) => match said.value.as_str() {
                "pat" => "pat",
                "oauth-m2m" => "oauth-m2m",
                _ => {
                    let (method, from) = (said.value.clone(), said.from.clone());
                    return Err(LoginError::UnknownMethod { method, from });
                }
            },
            (None, None) => match (self.has_client(), self.has_token()) {
                (true, true) => {
                    let methods = vec!["oauth".to_owned(), "pat".to_owned()];
                    return Err(LoginError::ManyMethods { methods });
                }
                (true, false) => "oauth-m2m",
                (false, true) => "pat",
                (false, false) => {
                    return Err(LoginError::NoCredentials { host: host.to_string() });
                }
            },
        };
        if method == "oauth-m2m" {
            let lacks = |lacks| LoginError::Incomplete { method: "oauth-m2m", lacks };
            let id = self.client_id.ok_or_else(|| lacks("a client id"))?;
            let secret = self.client_secret.ok_or_else(|| lacks("a client secret"))?;
            let from = secret.from;
            return Ok((
                Credentials::Client { id: id.value, secret: Secret::new(secret.value) },
                from,
            ));
        }
        match (self.token_file, self.token) {
            (Some(path), _) => {
                Ok((Credentials::TokenFile(path.clone()), path.display().to_string()))
            }
            (None, Some(token)) => Ok((Credentials::Token(Secret::new(token.value)), token.from)),
            (None, None) => Err(LoginError::Incomplete { method: "pat", lacks: "a token" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FixedEnvironment;

    /// A home with a `.databrickscfg`, and variables.
    struct World {
        home: tempfile::TempDir,
        environment: FixedEnvironment,
        connection: LakebaseConnection,
    }

    impl World {
        fn new(profiles: Option<&str>) -> Self {
            let home = tempfile::tempdir().unwrap();
            let mut environment = FixedEnvironment::default();
            environment.vars.insert("HOME".into(), home.path().display().to_string());
            if let Some(text) = profiles {
                std::fs::write(home.path().join(".databrickscfg"), text).unwrap();
            }
            Self { home, environment, connection: LakebaseConnection::default() }
        }

        fn var(mut self, name: &str, value: &str) -> Self {
            self.environment.vars.insert(name.into(), value.into());
            self
        }

        fn connection(mut self, change: impl FnOnce(&mut LakebaseConnection)) -> Self {
            change(&mut self.connection);
            self
        }

        fn resolve(&self) -> Result<Login, LoginError> {
            Login::resolve(&self.connection, &self.environment, &Redactor::default())
        }

        fn token(&self) -> String {
            match self.resolve().unwrap().credentials {
                Credentials::Token(token) => token.expose().clone(),
                other => panic!("{other:?}"),
            }
        }
    }

    const PROFILES: &str = "\
; written by the official client
[DEFAULT]
host = https://default.example.com/
token = dapi-default # not a comment
[ci]
host: ci.example.com
client_id = robot
client_secret = robot-secret
[bare]
host = https://bare.example.com
[odd]
host = https://odd.example.com
auth_type = databricks-cli
";

    #[test]
    fn the_file_is_the_last_resort() {
        let world = World::new(Some(PROFILES));
        let login = world.resolve().unwrap();
        assert_eq!(login.host.as_str(), "https://default.example.com");
        assert_eq!(world.token(), "dapi-default # not a comment");
        assert!(login.from[0].starts_with("profile `DEFAULT` of "), "{:?}", login.from);

        // A host from elsewhere leaves the file closed, so there is no way to log in.
        let host = World::new(Some(PROFILES)).var("DATABRICKS_HOST", "https://x.example.com");
        assert!(matches!(host.resolve(), Err(LoginError::NoCredentials { .. })));
        let token = World::new(Some(PROFILES)).var("DATABRICKS_TOKEN", "dapi-variable");
        assert_eq!(token.resolve().unwrap_err(), LoginError::NoHost);
    }

    #[test]
    fn a_named_profile_fills_what_nobody_said_and_inherits_nothing() {
        let world = World::new(Some(PROFILES)).var("DATABRICKS_CONFIG_PROFILE", "ci");
        let login = world.resolve().unwrap();
        assert_eq!(login.host.as_str(), "https://ci.example.com");
        assert_eq!(login.credentials.method(), "oauth-m2m");

        let world = world.var("DATABRICKS_HOST", "https://other.example.com");
        assert_eq!(world.resolve().unwrap().host.as_str(), "https://other.example.com");

        let bare = World::new(Some(PROFILES)).connection(|c| c.profile = Some("bare".into()));
        assert!(matches!(bare.resolve(), Err(LoginError::NoCredentials { .. })));

        let error = World::new(Some(PROFILES)).connection(|c| c.profile = Some("prod".into()));
        let error = error.resolve().unwrap_err();
        assert!(error.to_string().contains("no profile `prod`"), "{error}");
        assert_eq!(error.help(), "it has: DEFAULT, bare, ci, odd");
        let none = World::new(None).connection(|c| c.profile = Some("prod".into()));
        assert!(matches!(none.resolve(), Err(LoginError::Unreadable { .. })));
    }

    #[test]
    fn the_file_may_say_which_profile_is_meant() {
        let text = format!("{PROFILES}[__settings__]\ndefault_profile = ci\n");
        let login = World::new(Some(&text)).resolve().unwrap();
        assert_eq!(login.host.as_str(), "https://ci.example.com");
        let elsewhere = World::new(None);
        std::fs::write(elsewhere.home.path().join("other"), PROFILES).unwrap();
        let elsewhere = elsewhere.var("DATABRICKS_CONFIG_FILE", "~/other");
        assert_eq!(elsewhere.token(), "dapi-default # not a comment");
    }

    #[test]
    fn two_ways_want_a_choice() {
        let two = || {
            World::new(None)
                .var("DATABRICKS_HOST", "h.example.com")
                .var("DATABRICKS_TOKEN", "dapi-variable")
                .var("DATABRICKS_CLIENT_ID", "robot")
                .var("DATABRICKS_CLIENT_SECRET", "robot-secret")
        };
        let error = two().resolve().unwrap_err().to_string();
        assert_eq!(error, "more than one authorization method configured: oauth and pat");
        let pat = two().var("DATABRICKS_AUTH_TYPE", "pat");
        assert_eq!(pat.resolve().unwrap().credentials.method(), "pat");
        let m2m = two().var("DATABRICKS_AUTH_TYPE", "oauth-m2m");
        assert_eq!(m2m.resolve().unwrap().credentials.method(), "oauth-m2m");
        let odd = World::new(Some(PROFILES)).connection(|c| c.profile = Some("odd".into()));
        assert!(matches!(odd.resolve(), Err(LoginError::UnknownMethod { .. })));
        let half = World::new(None)
            .var("DATABRICKS_HOST", "h.example.com")
            .var("DATABRICKS_CLIENT_ID", "robot");
        assert!(matches!(half.resolve(), Err(LoginError::Incomplete { .. })));
    }

    #[test]
    fn a_complete_connection_listens_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "emulator-token\n").unwrap();
        let world = World::new(Some(PROFILES))
            .var("DATABRICKS_HOST", "https://elsewhere.example.com")
            .var("DATABRICKS_TOKEN", "dapi-variable")
            .var("DATABRICKS_CLIENT_ID", "robot")
            .var("DATABRICKS_WORKSPACE_ID", "77")
            .var("DATABRICKS_WAREHOUSE_ID", "w1")
            .var("DATABRICKS_CONFIG_PROFILE", "ci")
            .connection(|connection| {
                connection.host = Some("http://127.0.0.1:8080".into());
                connection.token = Some(TokenPlace::File(file.clone()));
            });
        let login = world.resolve().unwrap();
        assert_eq!(login.host.as_str(), "http://127.0.0.1:8080");
        assert_eq!(login.credentials, Credentials::TokenFile(file));
        assert_eq!((login.workspace_id, login.warehouse_id), (None, Some("w1".into())));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = World::new(None).resolve().unwrap_err();
        assert!(error.help().contains("DATABRICKS_HOST"));
        let unset = World::new(None).connection(|connection| {
            connection.host = Some("h.example.com".into());
            connection.token = Some(TokenPlace::Variable("SHOP_TOKEN".into()));
        });
        assert!(unset.resolve().unwrap_err().to_string().contains("`SHOP_TOKEN` is not set"));
        let clear = unset.var("SHOP_TOKEN", "dapi-variable");
        let clear = clear.connection(|c| c.host = Some("http://h.example.com".into()));
        assert!(matches!(clear.resolve(), Err(LoginError::Host { .. })));
    }

    #[test]
    fn secrets_are_masked() {
        let redactor = Redactor::default();
        let world = World::new(Some(PROFILES)).var("DATABRICKS_CONFIG_PROFILE", "ci");
        Login::resolve(&world.connection, &world.environment, &redactor).unwrap();
        assert_eq!(redactor.mask("it is robot-secret."), "it is [redacted].");
    }
}
