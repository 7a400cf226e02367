//! Sends requests and waits for answers: time limits, throttling, and what a lost answer means.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::host::WorkspaceHost;
use super::refusal::{Body, Call, Refusal};
use crate::kernel::{Clock, Failure, IdSource, Redactor, RetryClass, Timestamp};

/// How long a client waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the answer to one request. Default 60 s, as in the official clients.
    pub request: Duration,
    /// For a workspace that throttles, in all. Default 300 s, as in the official clients.
    pub throttled: Duration,
    /// For a workspace that cannot be reached, in all. Default 20 s: a wrong address never answers.
    pub unreachable: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_mins(1),
            throttled: Duration::from_mins(5),
            unreachable: Duration::from_secs(20),
        }
    }
}

/// What comes from outside.
#[derive(Clone)]
pub struct Outside {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Random draws, for jitter.
    pub ids: Arc<dyn IdSource>,
    /// What masks tokens in every output.
    pub redactor: Redactor,
    /// How long to wait for what.
    pub patience: Patience,
}

/// A success.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

/// The most that an answer may hold: a little more than the largest inline result of the statement API.
const MOST_ANSWER: usize = 32 * 1024 * 1024;

const CONNECT: Duration = Duration::from_secs(10);

/// The longest pause between two tries to reach a workspace.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sends requests.
pub(super) struct Transport {
    http: reqwest::Client,
    outside: Outside,
}

impl Transport {
    /// Redirects are not followed: they could carry tokens elsewhere.
    pub(super) fn new(
        host: &WorkspaceHost,
        ca_file: Option<&Path>,
        user_agent: &str,
        outside: Outside,
    ) -> Result<Self, Failure> {
        // The first caller decides; that another part of the program did it before is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(outside.patience.request)
            .user_agent(user_agent);
        if host.is_loopback() {
            builder = builder.no_proxy();
        }
        let own = ca_file.map(certificates).transpose()?.unwrap_or_default();
        builder = if host.is_plain() {
            // The system's certificates are of no use, and may be absent.
            builder.tls_certs_only(own)
        } else {
            builder.tls_certs_merge(own)
        };
        let http = builder.build().map_err(|error| {
            let text = format!("failed to set up the HTTP client: {}", causes(&error));
            Failure::permanent("lakebase::client", text)
        })?;
        Ok(Self { http, outside })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.outside.clock
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.outside.redactor
    }

    /// A request.
    pub(super) fn request(&self, verb: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        self.http.request(verb, url).header("accept", "application/json")
    }

    /// Sends a request until it is answered. Throttling is waited out; what did not reach the workspace
    /// is sent again, and of what changes nothing also what got no answer.
    pub(super) async fn exchange(
        &self,
        call: Call<'_>,
        request: reqwest::RequestBuilder,
    ) -> Result<Answer, Failure> {
        let began = self.clock().now();
        let mut tries = 0;
        loop {
            let Some(request) = request.try_clone() else {
                return Err(Failure::permanent("lakebase::client", format!("{call}: no request")));
            };
            tries += 1;
            let (failure, pause, patience) = match self.once(call, request).await {
                Ok(Once::Answer(answer)) => return Ok(answer),
                Ok(Once::Refused(Refusal { failure, wait: Some(wait) })) => {
                    (failure, wait + self.jitter(), self.outside.patience.throttled)
                }
                Ok(Once::Refused(Refusal { failure, wait: None })) => return Err(failure),
                Err(lost) if call.changes && lost.may_have_arrived => return Err(lost.failure),
                Err(lost) if lost.is_hopeless => return Err(lost.failure),
                Err(lost) => {
                    let pause = Duration::from_secs(tries).min(LONGEST_PAUSE);
                    (lost.failure, pause + self.jitter(), self.outside.patience.unreachable)
                }
            };
            let until = self.clock().now().plus(pause);
            if until > began.plus(patience) {
                return Err(given_up(failure, pause, patience));
            }
            tracing::info!(%failure, ?pause, "trying again");
            self.clock().sleep_until(until).await;
        }
    }

    async fn once(&self, call: Call<'_>, request: reqwest::RequestBuilder) -> Result<Once, Lost> {
        let reply = request.send().await.map_err(|error| Lost::of(call, &error))?;
        let status = reply.status();
        let retry_after = reply.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let body = read(call, reply).await;
        if !status.is_success() {
            // The status has settled it, however much of the body came.
            let body = body.unwrap_or(Body::Json(Value::Null));
            let refusal = Refusal::of(call, status.as_u16(), retry_after.as_deref(), &body);
            return Ok(Once::Refused(refusal));
        }
        match body? {
            Body::Json(body) => Ok(Once::Answer(Answer { status: status.as_u16(), body })),
            Body::Text(text) => {
                let text: String = text.chars().take(100).collect();
                let text = format!("{call}: the answer is not JSON: {text}");
                let class = if call.changes { RetryClass::InDoubt } else { RetryClass::Permanent };
                let failure = Failure::permanent("lakebase::unreadable", text).with_class(class);
                let failure = failure.with_help("is the host a Databricks workspace?");
                Ok(Once::Refused(Refusal { failure, wait: None }))
            }
        }
    }

    /// Up to a second.
    fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.outside.ids.draw())
    }

    /// The instant so long from now.
    pub(super) fn after(&self, duration: Duration) -> Timestamp {
        self.clock().now().plus(duration)
    }
}

enum Once {
    Answer(Answer),
    Refused(Refusal),
}

/// A request without an answer.
struct Lost {
    failure: Failure,
    may_have_arrived: bool,
    is_hopeless: bool,
}

impl Lost {
    fn of(call: Call<'_>, error: &reqwest::Error) -> Self {
        let reached = !error.is_connect() && !error.is_builder();
        let class = match (reached, call.changes) {
            (true, true) => RetryClass::InDoubt,
            _ if error.is_builder() => RetryClass::Permanent,
            _ => RetryClass::Transient,
        };
        let (code, what) = if !reached {
            ("lakebase::unreachable", "the workspace cannot be reached")
        } else if error.is_timeout() {
            ("lakebase::timeout", "no answer in time")
        } else {
            ("lakebase::no_answer", "no answer")
        };
        let failure = Failure::permanent(code, format!("{call}: {what}: {}", causes(error)))
            .with_class(class)
            .with_help("check host, network and proxy; `lakeops doctor` tries it");
        // A certificate does not become right by waiting.
        let is_hopeless = error.is_builder() || causes(error).contains("certificate");
        Self { failure, may_have_arrived: reached, is_hopeless }
    }
}

fn given_up(failure: Failure, pause: Duration, patience: Duration) -> Failure {
    let (pause, patience) = (pause.as_secs(), patience.as_secs());
    let message = format!(
        "{}; given up: the next try would be in {pause} s, beyond the {patience} s that we wait",
        failure.message
    );
    Failure { message, ..failure }
}

/// The error's causes, without the URL, which it would repeat.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        texts.push(source.to_string());
        cause = source.source();
    }
    if error.is_timeout() {
        texts.push("timed out".to_owned());
    }
    texts.dedup();
    texts.join(": ")
}

async fn read(call: Call<'_>, mut reply: reqwest::Response) -> Result<Body, Lost> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|error| Lost::of(call, &error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST_ANSWER {
            let text = format!("{call}: the answer is larger than {MOST_ANSWER} bytes");
            let failure = Failure::permanent("lakebase::too_large", text);
            return Err(Lost { failure, may_have_arrived: true, is_hopeless: true });
        }
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Body::Json(Value::Null));
    }
    Ok(match serde_json::from_slice(&bytes) {
        Ok(value) => Body::Json(value),
        Err(_) => Body::Text(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let failed = |why: String| {
        let text = format!("the certificates in {} cannot be used: {why}", path.display());
        Failure::permanent("lakebase::ca_file", text)
            .with_help("`ca_file` names a file in PEM form")
    };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    reqwest::Certificate::from_pem_bundle(&bytes).map_err(|error| failed(error.to_string()))
}
