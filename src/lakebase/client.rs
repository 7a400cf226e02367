//! A workspace over HTTP.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{ReadApi, Reply, Workspace};
use super::host::WorkspaceHost;
use super::login::{Credentials, Login};
use super::name::path_of;
use super::refusal::Call;
use super::statement;
use super::token::{Tokens, known};
use super::transport::{Answer, Outside, Transport};
use crate::kernel::{ApiCall, BoxFuture, Clock, Failure, Secret, Timestamp};

/// The version of the HTTP library that is named to the workspace.
const HTTP_LIBRARY: &str = "reqwest/0.13";

/// The most pages of one collection.
const MOST_PAGES: usize = 10_000;

/// A workspace over HTTP. Its tokens never reach an output.
pub struct WorkspaceClient {
    host: WorkspaceHost,
    tokens: Tokens,
    transport: Transport,
    workspace_id: Option<String>,
    warehouse_id: Option<String>,
    method: &'static str,
    client_id: Option<String>,
    from: Vec<String>,
    me: OnceCell<String>,
}

/// A password for PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseCredential {
    /// The password.
    pub token: Secret<String>,
    /// Until when somebody can log in with it; open sessions live on.
    pub expires_at: Timestamp,
}

impl WorkspaceClient {
    /// A client; nothing is sent yet.
    pub fn new(login: Login, outside: Outside) -> Result<Arc<Self>, Failure> {
        let method = login.credentials.method();
        let transport =
            Transport::new(&login.host, login.ca_file.as_deref(), &user_agent(method), outside)?;
        let client_id = match &login.credentials {
            Credentials::Client { id, .. } => Some(id.clone()),
            Credentials::Token(_) | Credentials::TokenFile(_) => None,
        };
        Ok(Arc::new(Self {
            host: login.host,
            tokens: Tokens::new(login.credentials),
            transport,
            workspace_id: login.workspace_id,
            warehouse_id: login.warehouse_id,
            method,
            client_id,
            from: login.from,
            me: OnceCell::new(),
        }))
    }

    /// The workspace's address.
    pub const fn host(&self) -> &WorkspaceHost {
        &self.host
    }

    /// How it logs in: `pat` or `oauth-m2m`.
    pub const fn method(&self) -> &'static str {
        self.method
    }

    /// Where address and credentials came from, for people.
    pub fn login_from(&self) -> &[String] {
        &self.from
    }

    /// The SQL warehouse that answers [`ReadApi::select`].
    pub fn warehouse_id(&self) -> Option<&str> {
        self.warehouse_id.as_deref()
    }

    /// Who logs in, as PostgreSQL knows them: the service principal's client id, else the user's name.
    /// Asked once.
    pub async fn identity(&self) -> Result<&str, Failure> {
        if let Some(id) = &self.client_id {
            return Ok(id);
        }
        let ask = || async {
            let path = "/api/2.0/preview/scim/v2/Me";
            let answer = self.get(path).await?;
            let name = answer["userName"].as_str().filter(|name| !name.is_empty());
            name.map(str::to_owned).ok_or_else(|| {
                let text = format!("the answer at {path} names no user");
                Failure::permanent("lakebase::unreadable", text)
            })
        };
        self.me.get_or_try_init(ask).await.map(String::as_str)
    }

    /// Makes a password for an endpoint, by its name. It changes nothing that anybody else sees.
    pub async fn mint(&self, endpoint: &str) -> Result<DatabaseCredential, Failure> {
        let path = path_of("credentials");
        let body = json!({ "endpoint": endpoint });
        let answer = self.send_to(Method::POST, &path, Some(&body), false).await?.body;
        let token = answer["token"].as_str().filter(|token| !token.is_empty());
        let expires_at = answer["expire_time"].as_str().and_then(Timestamp::parse);
        let (Some(token), Some(expires_at)) = (token, expires_at) else {
            let text = format!("the answer at {path} holds no credential");
            return Err(Failure::permanent("lakebase::unreadable", text));
        };
        known(&self.transport, "database credential", token)?;
        Ok(DatabaseCredential { token: Secret::new(token.to_owned()), expires_at })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.transport.clock()
    }

    /// Sends a request. A token that is refused is replaced, once: nothing happened.
    pub(super) async fn send_to(
        &self,
        verb: Method,
        path: &str,
        body: Option<&Value>,
        changes: bool,
    ) -> Result<Answer, Failure> {
        let plain = path.split('?').next().unwrap_or_default();
        let call = Call { verb: verb.as_str(), path: plain, changes };
        let first = self.once(call, (&verb, path), body).await;
        match first {
            Err(failure)
                if failure.code == "lakebase::not_authenticated" && self.tokens.forget() =>
            {
                self.once(call, (&verb, path), body).await
            }
            other => other,
        }
    }

    async fn once(
        &self,
        call: Call<'_>,
        (verb, path): (&Method, &str),
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let token = self.tokens.token(&self.transport, &self.host).await?;
        let mut request = self.transport.request(verb.clone(), &self.host.url(path));
        request = request.header("authorization", bearer(&token)?);
        if let Some(id) = &self.workspace_id {
            request = request.header("x-databricks-workspace-id", id);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.transport.exchange(call, request).await
    }
}

fn bearer(token: &Secret<String>) -> Result<reqwest::header::HeaderValue, Failure> {
    let value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", token.expose()));
    let mut value = value.map_err(|_| {
        let text = "the workspace token has a character that no token has";
        Failure::permanent("lakebase::login", text)
            .with_help("check the variable or file that it comes from: is there more in it?")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Who asks, in the form that Databricks tools use: product, library, language, system, way to log in.
fn user_agent(method: &str) -> String {
    let (version, rust) = (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_RUST_VERSION"));
    let os = std::env::consts::OS;
    format!("lakeops/{version} {HTTP_LIBRARY} rust/{rust} os/{os} auth/{method}")
}

impl ReadApi for WorkspaceClient {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move { Ok(self.send_to(Method::GET, path, None, false).await?.body) })
    }

    fn list<'a>(
        &'a self,
        path: &'a str,
        plural: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(async move {
            let mut all = Vec::new();
            let mut page: Option<String> = None;
            for _ in 0..MOST_PAGES {
                let mut answer = self.get(&page_path(path, page.as_deref())).await?;
                match answer[plural].take() {
                    Value::Array(items) => all.extend(items),
                    // A page may be empty and yet not the last.
                    Value::Null => {}
                    other => return Err(no_list(path, plural, &other)),
                }
                let next = answer["next_page_token"].as_str().filter(|token| !token.is_empty());
                match next {
                    None => return Ok(all),
                    Some(next) if page.as_deref() == Some(next) => break,
                    Some(next) => page = Some(next.to_owned()),
                }
            }
            let text = format!("the pages of {path} have no end");
            Err(Failure::permanent("lakebase::unreadable", text))
        })
    }

    fn select<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(statement::select(self, statement))
    }
}

impl Workspace for WorkspaceClient {
    fn send<'a>(&'a self, call: &'a ApiCall) -> BoxFuture<'a, Result<Reply, Failure>> {
        Box::pin(async move {
            let verb = match call.verb {
                crate::kernel::ApiVerb::Post => Method::POST,
                crate::kernel::ApiVerb::Patch => Method::PATCH,
                crate::kernel::ApiVerb::Put => Method::PUT,
                crate::kernel::ApiVerb::Delete => Method::DELETE,
            };
            let path = call.path_and_query();
            let answer = self.send_to(verb, &path, call.body.as_ref(), true).await?;
            Ok(Reply { status: answer.status, body: answer.body })
        })
    }
}

fn page_path(path: &str, page: Option<&str>) -> String {
    let Some(page) = page else { return path.to_owned() };
    let pair = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("page_token", page)
        .finish();
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}{pair}")
}

fn no_list(path: &str, plural: &str, found: &Value) -> Failure {
    let text = format!("the answer at {path} has no list `{plural}`, but {found}");
    Failure::permanent("lakebase::unreadable", text.chars().take(300).collect::<String>())
}
