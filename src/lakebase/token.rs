//! The token that a request carries.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use url::Url;

use super::host::{WorkspaceHost, may_carry_secrets};
use super::lease::{Lease, Renewing};
use super::login::{Credentials, token_of};
use super::refusal::Call;
use super::transport::Transport;
use crate::kernel::{Failure, Secret};

/// A token is renewed when half its life, at most this much of it, is left (official client).
const RENEW_AHEAD: Duration = Duration::from_mins(20);

/// A token is taken for expired this much early (official client).
const EXPIRES_EARLY: Duration = Duration::from_secs(40);

/// How long a token lives when nobody says.
const DEFAULT_LIFE: Duration = Duration::from_hours(1);

/// Where tokens come from.
pub(super) enum Tokens {
    Fixed(Secret<String>),
    File(PathBuf),
    Client { id: String, secret: Secret<String>, renewing: Renewing },
}

impl Tokens {
    pub(super) fn new(credentials: Credentials) -> Self {
        match credentials {
            Credentials::Token(token) => Self::Fixed(token),
            Credentials::TokenFile(path) => Self::File(path),
            Credentials::Client { id, secret } => {
                Self::Client { id, secret, renewing: Renewing::default() }
            }
        }
    }

    /// A token that is good for now.
    pub(super) async fn token(
        &self,
        transport: &Transport,
        host: &WorkspaceHost,
    ) -> Result<Secret<String>, Failure> {
        match self {
            Self::Fixed(token) => Ok(token.clone()),
            Self::File(path) => {
                let token = token_of(path)?;
                known(transport, "workspace token", token.expose())?;
                Ok(token)
            }
            Self::Client { id, secret, renewing } => {
                let ask = || ask(transport, host, (id, secret));
                Ok(renewing.get(transport.clock(), ask).await?.value)
            }
        }
    }

    /// Forgets a token that was refused. Whether another one can be had.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Fixed(_) | Self::File(_) => false,
            Self::Client { renewing, .. } => renewing.forget(),
        }
    }
}

/// Makes a token known to what masks.
pub(super) fn known(transport: &Transport, what: &str, token: &str) -> Result<(), Failure> {
    transport
        .redactor()
        .register(what, token)
        .map_err(|short| Failure::permanent("lakebase::short_secret", short.to_string()))
}

/// Asks for a token as a service principal.
async fn ask(
    transport: &Transport,
    host: &WorkspaceHost,
    (id, secret): (&str, &Secret<String>),
) -> Result<Lease, Failure> {
    let url = token_endpoint(transport, host).await?;
    let call = Call { verb: "POST", path: url.as_str(), changes: false };
    let basic = STANDARD.encode(format!("{id}:{}", secret.expose()));
    let mut basic = reqwest::header::HeaderValue::from_str(&format!("Basic {basic}"))
        .map_err(|_| unusable(&url, "the client id has an impossible character"))?;
    basic.set_sensitive(true);
    let request = transport
        .request(reqwest::Method::POST, url.as_str())
        .header("authorization", basic)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials&scope=all-apis");
    let answer = transport.exchange(call, request).await?.body;
    let Some(token) = answer["access_token"].as_str().filter(|token| !token.is_empty()) else {
        return Err(unusable(&url, "the answer holds no token"));
    };
    known(transport, "access token", token)?;
    let life = seconds(&answer["expires_in"]).unwrap_or(DEFAULT_LIFE);
    let ahead = RENEW_AHEAD.min(life / 2);
    Ok(Lease {
        value: Secret::new(token.to_owned()),
        renew_at: transport.after(life.saturating_sub(ahead)),
        expires_at: transport.after(life.saturating_sub(EXPIRES_EARLY)),
    })
}

/// Where the workspace gives tokens: what it says itself, else the usual place.
async fn token_endpoint(transport: &Transport, host: &WorkspaceHost) -> Result<Url, Failure> {
    let usual = host.url("/oidc/v1/token");
    let said = match look(transport, &host.url("/.well-known/databricks-config")).await? {
        Some(config) => match config["oidc_endpoint"].as_str() {
            Some(oidc) => {
                let place = format!(
                    "{}/.well-known/oauth-authorization-server",
                    oidc.trim_end_matches('/')
                );
                look(transport, &place).await?
            }
            None => None,
        },
        None => None,
    };
    let said = said.as_ref().and_then(|said| said["token_endpoint"].as_str());
    secret_place(said.unwrap_or(&usual))
}

/// An unauthenticated GET; `None` when there is nothing.
async fn look(transport: &Transport, url: &str) -> Result<Option<Value>, Failure> {
    let url = secret_place(url)?;
    let call = Call { verb: "GET", path: url.as_str(), changes: false };
    match transport.exchange(call, transport.request(reqwest::Method::GET, url.as_str())).await {
        Ok(answer) => Ok(Some(answer.body)),
        Err(failure) if failure.class == crate::kernel::RetryClass::Permanent => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A secret goes where nobody listens, whatever a workspace says.
fn secret_place(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|error| {
        Failure::permanent(
            "lakebase::oidc",
            format!("the workspace names `{text}` for tokens: {error}"),
        )
    })?;
    if may_carry_secrets(&url) { Ok(url) } else { Err(unusable(&url, "it is reached without TLS")) }
}

fn unusable(url: &Url, why: &str) -> Failure {
    Failure::permanent("lakebase::oidc", format!("no token from {url}: {why}"))
}

/// Seconds as a number or a text of digits.
fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
