//! HTTP requests.

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::applier::{SecretSource, substitute, wrong_kind};
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{BoxFuture, Failure, Operation, Receipt, Recovery, RetryClass};

/// How much of a reply is kept.
const MOST_REPLY: usize = 64 * 1024;

/// Sends HTTP requests. Redirects are not followed: they could carry secrets elsewhere.
#[derive(Debug, Default)]
pub struct HttpApplier {
    client: OnceCell<reqwest::Client>,
}

impl HttpApplier {
    async fn client(&self) -> Result<&reqwest::Client, Failure> {
        let make = || async {
            // The first caller decides; that another part of the program did it before is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("lakeops/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        self.client.get_or_try_init(make).await.map_err(|error| {
            Failure::permanent("http::client", format!("failed to set up the HTTP client: {error}"))
        })
    }

    async fn send(&self, cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
        let request = Request::of(cx)?;
        let builder = request.build(self.client().await?, cx)?;
        cx.reach("before effect");
        let reply = builder.send().await.map_err(|error| request.not_sent(&error))?;
        let status = reply.status().as_u16();
        let retry_after = reply.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let body = read_body(reply).await;
        if !request.expect.contains(&status) {
            return Err(request.refused(status, retry_after.as_deref(), &body));
        }
        cx.reach("after effect");
        Ok(Receipt { result: json!({ "status": status, "body": body }), ..Receipt::default() })
    }
}

struct Request<'a> {
    method: &'a str,
    url: &'a str,
    body: Option<&'a Value>,
    expect: &'a [u16],
}

impl<'a> Request<'a> {
    fn of(cx: &ApplyContext<'a>) -> Result<Self, Failure> {
        match cx.operation {
            Operation::Http { method, url, body, expect, .. } => {
                Ok(Self { method, url, body: body.as_ref(), expect })
            }
            other => Err(wrong_kind(other)),
        }
    }

    fn build(
        &self,
        client: &reqwest::Client,
        cx: &ApplyContext<'_>,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let invalid =
            |what: &str| Failure::permanent("http::invalid_request", format!("{self}: {what}"));
        let method = reqwest::Method::from_bytes(self.method.as_bytes())
            .map_err(|_| invalid("not a method"))?;
        let mut builder = client.request(method, self.url).timeout(cx.time_limit());
        if !self.is_read() {
            builder = builder.header("idempotency-key", cx.key.digest().as_str());
        }
        if let Operation::Http { headers, .. } = cx.operation {
            for (name, value) in headers {
                let value = substitute(value, cx.secrets)?;
                let mut value = reqwest::header::HeaderValue::from_str(&value)
                    .map_err(|_| invalid(&format!("header `{name}` has an impossible value")))?;
                value.set_sensitive(true);
                builder = builder.header(name, value);
            }
        }
        match self.body {
            Some(body) => Ok(builder.json(&with_secrets(body, cx.secrets)?)),
            None => Ok(builder),
        }
    }

    fn is_read(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS")
    }

    fn is_repeatable(&self) -> bool {
        self.is_read() || matches!(self.method, "PUT" | "DELETE")
    }

    /// What a request that got no reply means: nothing happened when the server was not even reached.
    fn not_sent(&self, error: &reqwest::Error) -> Failure {
        let class = if error.is_builder() {
            RetryClass::Permanent
        } else if error.is_connect() || self.is_read() {
            RetryClass::Transient
        } else {
            RetryClass::InDoubt
        };
        let code = if error.is_connect() {
            "http::not_connected"
        } else if error.is_timeout() {
            "http::timeout"
        } else {
            "http::no_reply"
        };
        let mut message = format!("{self}: no reply");
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        if error.is_timeout() {
            message.push_str(": timed out");
        }
        Failure::permanent(code, message).with_class(class)
    }

    /// What a status that was not expected means.
    fn refused(&self, status: u16, retry_after: Option<&str>, body: &Value) -> Failure {
        let class = match status {
            408 | 425 | 429 | 503 => RetryClass::Transient,
            500..=599 if self.is_read() => RetryClass::Transient,
            500..=599 => RetryClass::InDoubt,
            _ => RetryClass::Permanent,
        };
        let code = match status {
            401 | 403 => "http::not_allowed",
            404 => "http::not_found",
            409 => "http::conflict",
            429 => "http::rate_limited",
            500..=599 => "http::server_error",
            _ => "http::unexpected_status",
        };
        let said: String = match body {
            Value::String(text) => text.chars().take(500).collect(),
            other => other.to_string().chars().take(500).collect(),
        };
        let failure = Failure::permanent(code, format!("{self}: status {status}: {said}"));
        let failure = failure.with_class(class);
        match retry_after {
            Some(after) => {
                failure.with_help(format!("the server asks to wait: retry-after {after}"))
            }
            None => failure,
        }
    }
}

impl std::fmt::Display for Request<'_> {
    /// Without the query, which may hold what is not for everybody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.url.split(['?', '#']).next().unwrap_or_default())
    }
}

/// Every text of the form `secret:NAME` as its value.
pub(super) fn with_secrets(value: &Value, secrets: &dyn SecretSource) -> Result<Value, Failure> {
    Ok(match value {
        Value::String(text) => Value::String(substitute(text, secrets)?),
        Value::Array(items) => {
            items.iter().map(|item| with_secrets(item, secrets)).collect::<Result<_, _>>()?
        }
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, value)| Ok((key.clone(), with_secrets(value, secrets)?)))
                .collect::<Result<_, Failure>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// The reply as JSON or text. The status has settled what happened: a reply that breaks off is kept as
/// far as it came.
async fn read_body(mut reply: reqwest::Response) -> Value {
    let mut bytes = Vec::new();
    while bytes.len() < MOST_REPLY {
        match reply.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => {
                let json = serde_json::from_slice(&bytes);
                return json.unwrap_or_else(|_| text_of(&bytes));
            }
            Err(_) => break,
        }
    }
    bytes.truncate(MOST_REPLY);
    text_of(&bytes)
}

fn text_of(bytes: &[u8]) -> Value {
    if bytes.is_empty() { Value::Null } else { String::from_utf8_lossy(bytes).into_owned().into() }
}

impl Applier for HttpApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(looked(cx, self.send(cx)))
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(async move {
            let request = Request::of(cx)?;
            let harmless = cx.recovery == Recovery::Repeatable
                || (cx.recovery == Recovery::Probe && request.is_repeatable());
            Ok(if harmless {
                Recovered::NotApplied
            } else {
                Recovered::Unknown(format!("nobody saw the reply to {request}"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(method: &str, status: u16) -> RetryClass {
        let request = Request { method, url: "https://h/p?q=1", body: None, expect: &[200] };
        let failure = request.refused(status, None, &Value::Null);
        assert!(!failure.message.contains("q=1"), "{}", failure.message);
        failure.class
    }

    #[test]
    fn statuses() {
        use RetryClass::{InDoubt, Permanent, Transient};
        assert_eq!(class("POST", 429), Transient);
        assert_eq!(class("POST", 503), Transient);
        assert_eq!(class("POST", 500), InDoubt);
        assert_eq!(class("PUT", 502), InDoubt);
        assert_eq!(class("GET", 500), Transient);
        assert_eq!(class("GET", 404), Permanent);
        assert_eq!(class("POST", 302), Permanent);
    }
}
