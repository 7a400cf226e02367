//! Where a PostgreSQL database is reached, and how it may be shown.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::kernel::Secret;

/// Parameters that a connection URL may carry.
const PARAMETERS: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "channel_binding",
];

/// One database on one server, with the credentials to reach it. Nothing it prints shows a password.
///
/// What a URL leaves open comes from libpq's variables (`PGUSER`, `PGPASSWORD`, `~/.pgpass`, …), as
/// with `psql`; but TLS does not: a server on another machine must prove its name unless the URL
/// itself says otherwise.
#[derive(Clone)]
pub struct PgEndpoint {
    options: PgConnectOptions,
    compute: Option<ComputeId>,
}

/// Which compute of which branch of Lakebase an endpoint leads to. Branches are copies of each other: the
/// server itself cannot tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeId {
    /// The branch's uid: `br-…`
    pub branch: String,
    /// The endpoint's uid: `ep-…`
    pub endpoint: String,
}

/// A server that wants TLS.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// Its name or address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The user.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a Secret<String>,
    /// The database.
    pub database: &'a str,
    /// Certificates, in PEM form, of an authority that the system does not know.
    pub ca_file: Option<&'a Path>,
}

/// What a session has from its start, in the start-up message.
pub(super) struct Startup {
    /// What the session is called.
    pub(super) application_name: String,
    /// Settings: names and values without spaces.
    pub(super) settings: Vec<(&'static str, String)>,
}

impl PgEndpoint {
    /// Reads a `postgres://` or `postgresql://` URL.
    pub fn from_url(url: &Secret<String>) -> Result<Self, EndpointError> {
        let mut url = Url::parse(url.expose()).map_err(EndpointError::Url)?;
        check_form(&url)?;
        let pairs: Vec<(String, String)> =
            url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        for (key, value) in &pairs {
            check_parameter(key, value)?;
        }
        let names_mode = pairs.iter().any(|(key, _)| key == "sslmode" || key == "ssl-mode");
        url.set_query(None);
        if !pairs.is_empty() {
            let kept = pairs.iter().filter(|(key, _)| key != "channel_binding");
            url.query_pairs_mut().extend_pairs(kept);
        }
        let options = PgConnectOptions::from_url(&url)
            .map_err(|source| EndpointError::Value { detail: source.to_string() })?;
        let mut endpoint = Self::new(options);
        if !names_mode {
            let mode =
                if endpoint.is_loopback() { PgSslMode::Prefer } else { PgSslMode::VerifyFull };
            endpoint.options = endpoint.options.ssl_mode(mode);
        }
        Ok(endpoint)
    }

    /// A server that listens on a Unix socket in `directory`.
    pub fn socket(directory: &Path, port: u16, user: &str, database: &str) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(directory)
            .port(port)
            .username(user)
            .database(database)
            .ssl_mode(PgSslMode::Disable);
        Self::new(options)
    }

    /// A server on this machine's loopback address.
    pub fn loopback(port: u16, user: &str, password: &Secret<String>, database: &str) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(user)
            .password(password.expose())
            .database(database)
            .ssl_mode(PgSslMode::Disable);
        Self::new(options)
    }

    /// A server by TLS. It must prove its name, except on this machine when no authority is given.
    pub fn remote(remote: &Remote<'_>) -> Self {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(remote.host)
            .port(remote.port)
            .username(remote.user)
            .password(remote.password.expose())
            .database(remote.database)
            .ssl_mode(PgSslMode::VerifyFull);
        if let Some(file) = remote.ca_file {
            options = options.ssl_root_cert(file);
        }
        let mut endpoint = Self::new(options);
        if endpoint.is_loopback() && remote.ca_file.is_none() {
            endpoint.options = endpoint.options.ssl_mode(PgSslMode::Require);
        }
        endpoint
    }

    fn new(options: PgConnectOptions) -> Self {
        // Statements may hold secrets: they reach a log only through our own redacting layers.
        Self { options: options.disable_statement_logging(), compute: None }
    }

    /// The same server, known to be a compute of Lakebase.
    #[must_use]
    pub fn of_compute(self, id: ComputeId) -> Self {
        Self { compute: Some(id), ..self }
    }

    /// The compute of Lakebase that it leads to.
    pub const fn compute(&self) -> Option<&ComputeId> {
        self.compute.as_ref()
    }

    fn with_options(&self, options: PgConnectOptions) -> Self {
        Self { options, compute: self.compute.clone() }
    }

    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        self.with_options(self.options.clone().database(database))
    }

    /// The same database, under another `application_name`.
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> Self {
        self.with_options(self.options.clone().application_name(name))
    }

    /// The same database, with a name and settings that the session has from its start.
    #[must_use]
    pub(super) fn with_startup(&self, startup: &Startup) -> Self {
        let settings = startup.settings.iter().map(|(name, value)| (name, value));
        let options = self.options.clone().application_name(&startup.application_name);
        self.with_options(options.options(settings))
    }

    /// The same database as another user.
    #[must_use]
    pub fn with_user(&self, user: &str, password: Option<&Secret<String>>) -> Self {
        let options = self.options.clone().username(user);
        self.with_options(match password {
            Some(password) => options.password(password.expose()),
            None => options,
        })
    }

    /// Whether a session of the one is a session of the other: the same user in the same database of the same
    /// compute. Passwords differ, where they are given for a time.
    pub fn is_same(&self, other: &Self) -> bool {
        let reached = |endpoint: &Self| (endpoint.host(), endpoint.port());
        reached(self) == reached(other)
            && self.user() == other.user()
            && self.database() == other.database()
            && self.compute == other.compute
    }

    /// What the driver connects with.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// The user who connects.
    pub fn user(&self) -> &str {
        self.options.get_username()
    }

    /// The database; PostgreSQL takes the user's name when none is given.
    pub fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.user())
    }

    /// The host, or the directory of the Unix socket.
    pub fn host(&self) -> String {
        match self.options.get_socket() {
            Some(directory) => directory.display().to_string(),
            None => self.options.get_host().to_owned(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.options.get_port()
    }

    /// `host:port/database`, for people: without user and password.
    pub fn label(&self) -> String {
        format!("{}:{}/{}", self.host(), self.port(), self.database())
    }

    /// Whether the server is on this machine: a Unix socket or a loopback address.
    pub fn is_loopback(&self) -> bool {
        if self.options.get_socket().is_some() {
            return true;
        }
        let host = self.options.get_host();
        host == "localhost"
            || host.starts_with('/')
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The endpoint as a URL that `psql` and its kin accept, password included.
    pub fn to_url(&self) -> Secret<String> {
        Secret::new(self.options.to_url_lossy().to_string())
    }
}

impl fmt::Debug for PgEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEndpoint")
            .field("server", &self.label())
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PgEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

/// A password with an unescaped `@`, `/`, `#` or `?` shifts every later part of a URL; such a URL is
/// refused, so that a piece of the password never serves, or is shown, as a host or a database.
fn check_form(url: &Url) -> Result<(), EndpointError> {
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(EndpointError::Scheme);
    }
    if url.fragment().is_some() || url.path().contains('@') {
        return Err(EndpointError::Unescaped);
    }
    Ok(())
}

fn check_parameter(key: &str, value: &str) -> Result<(), EndpointError> {
    if key.contains(['@', '/', ':']) {
        return Err(EndpointError::Unescaped);
    }
    if !PARAMETERS.contains(&key) && !key.starts_with("options[") {
        return Err(EndpointError::Parameter { name: key.to_owned() });
    }
    // The driver has no channel binding. A server whose certificate is checked cannot be
    // impersonated either, so that is what we ask for instead.
    if key == "channel_binding" && value == "require" {
        return Err(EndpointError::ChannelBinding);
    }
    Ok(())
}

/// A connection URL that cannot be used. No message shows a part of the URL that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error(
        "the connection URL cannot be read ({0}); write `postgres://user:password@host:port/database` \
         and percent-encode special characters of the password"
    )]
    Url(#[source] url::ParseError),
    /// A URL of something else.
    #[error("the connection URL must begin with `postgres://` or `postgresql://`")]
    Scheme,
    /// Parts of the URL stand where they cannot belong.
    #[error(
        "the connection URL has `@`, `/`, `?` or `#` in a place where it cannot be told apart from \
         the rest; percent-encode special characters of the password (`@` is `%40`, `/` is `%2F`, \
         `?` is `%3F`, `#` is `%23`)"
    )]
    Unescaped,
    /// A parameter that would be ignored.
    #[error("the connection URL has the unknown parameter `{name}`; remove it")]
    Parameter {
        /// The parameter.
        name: String,
    },
    /// A demand that cannot be met.
    #[error(
        "`channel_binding=require` is not supported; replace it with `sslmode=verify-full`, which \
         also makes the server prove who it is"
    )]
    ChannelBinding,
    /// A parameter has a value that the driver refuses.
    #[error("the connection URL has a wrong value: {detail}")]
    Value {
        /// What the driver says.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<PgEndpoint, EndpointError> {
        PgEndpoint::from_url(&Secret::new(url.to_owned()))
    }

    fn mode(url: &str) -> String {
        format!("{:?}", read(url).unwrap().options().get_ssl_mode())
    }

    #[test]
    fn both_schemes_and_no_other() {
        assert_eq!(read("postgres://u@h:5433/d").unwrap().label(), "h:5433/d");
        assert_eq!(read("postgresql://u@h:5433/d").unwrap().label(), "h:5433/d");
        assert!(matches!(read("mysql://u@h/d"), Err(EndpointError::Scheme)));
        assert!(matches!(read("h:5432"), Err(EndpointError::Scheme)));
    }

    #[test]
    fn a_remote_server_must_prove_its_name() {
        assert_eq!(mode("postgres://u@db.example.com/d"), "VerifyFull");
        assert_eq!(mode("postgres://u@10.0.0.8/d"), "VerifyFull");
        assert_eq!(mode("postgres://u@db.example.com/d?sslmode=require"), "Require");
        for local in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "%2Fvar%2Frun%2Fpg"] {
            assert_eq!(mode(&format!("postgres://u@{local}/d")), "Prefer", "{local}");
        }
        assert_eq!(mode("postgres://u@localhost/d?sslmode=verify-full"), "VerifyFull");
    }

    #[test]
    fn a_remote_server_proves_its_name_to_whoever_can_check_it() {
        let password = Secret::new("sesame-open".to_owned());
        let mode = |host, ca_file: Option<&str>| {
            let remote = Remote {
                host,
                port: 5432,
                user: "ann@example.com",
                password: &password,
                database: "app",
                ca_file: ca_file.map(Path::new),
            };
            format!("{:?}", PgEndpoint::remote(&remote).options().get_ssl_mode())
        };
        assert_eq!(mode("ep-1.database.example.com", None), "VerifyFull");
        assert_eq!(mode("ep-1.database.example.com", Some("/ca.pem")), "VerifyFull");
        assert_eq!(mode("127.0.0.2", Some("/ca.pem")), "VerifyFull");
        assert_eq!(mode("127.0.0.2", None), "Require");
    }

    #[test]
    fn sockets() {
        let endpoint = PgEndpoint::socket(Path::new("/run/pg"), 5499, "boss", "shop");
        assert!(endpoint.is_loopback());
        assert_eq!(endpoint.label(), "/run/pg:5499/shop");
        let again = PgEndpoint::from_url(&endpoint.to_url()).unwrap();
        assert_eq!(again.label(), endpoint.label());
        let by_parameter = read("postgres:///shop?host=/run/pg&port=5499&user=boss").unwrap();
        assert_eq!(by_parameter.label(), endpoint.label());
        assert_eq!(endpoint.with_database("other").label(), "/run/pg:5499/other");
    }

    #[test]
    fn sessions_are_told_apart_by_user_database_and_compute() {
        let of = |url| read(url).unwrap();
        let one = of("postgres://u:one@h/d");
        assert!(one.is_same(&of("postgres://u:two@h/d")));
        for other in
            ["postgres://v@h/d", "postgres://u@h/e", "postgres://u@i/d", "postgres://u@h:1/d"]
        {
            assert!(!one.is_same(&of(other)), "{other}");
        }
        let id = |endpoint: &str| ComputeId { branch: "br-1".into(), endpoint: endpoint.into() };
        let compute = |uid| PgEndpoint { compute: Some(id(uid)), ..one.clone() };
        assert!(compute("ep-1").is_same(&compute("ep-1")));
        assert!(!compute("ep-1").is_same(&compute("ep-2")) && !one.is_same(&compute("ep-1")));
    }

    #[test]
    fn nothing_printed_shows_the_password() {
        let endpoint = read("postgres://u:sesame-open@h:1/d").unwrap();
        assert_eq!(endpoint.options().get_username(), "u");
        let shown = format!("{endpoint:?} {endpoint} {:?}", endpoint.to_url());
        assert!(!shown.contains("sesame"), "{shown}");
        assert!(endpoint.to_url().expose().contains("sesame%2Dopen"));
    }

    #[test]
    fn unescaped_passwords_are_refused_unseen() {
        for url in [
            "postgres://u:sesame#open@h/d",
            "postgres://u:sesame?open@h/d",
            "postgres://u:sesame/open@h/d",
            "postgres://u:77/sesame@h/d",
            "postgres://u:x@h/d?sesame@open=1",
        ] {
            let error = read(url).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("sesame") && !shown.contains("open"), "{url}: {shown}");
        }
        assert_eq!(read("postgres://u:p%40%2F%23@h:1/d").unwrap().label(), "h:1/d");
    }

    #[test]
    fn parameters_that_would_be_ignored_are_refused() {
        let error = read("postgres://u@h/d?sslmod=require").unwrap_err();
        assert!(error.to_string().contains("`sslmod`"));
        assert!(read("postgres://u@h/d?sslmode=sometimes").is_err());
        assert!(read("postgres://u@h/d?port=99999").is_err());
        assert!(matches!(
            read("postgres://u@h/d?sslmode=require&channel_binding=require"),
            Err(EndpointError::ChannelBinding)
        ));
        assert!(read("postgres://u@h/d?channel_binding=prefer").is_ok());
    }
}
