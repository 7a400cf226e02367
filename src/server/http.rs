//! Health, metrics and the API, on loopback.
//!
//! `GET /health` and `GET /metrics` are open to who reaches them; everything below `/v1` needs a token.
//! An approval names the digest of the changes that were seen: what is approved is what was shown.
//!
//! A start is answered when its run is in the journal. Where too many wait for their turn it is refused with 429, and
//! where nobody takes it in time with 503; `Retry-After` says when to ask again, and nothing was started.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::{Ask, OVERLOADED, Wanted, error_text};
use crate::engine::{Engine, EngineError};
use crate::journal::JournalError;
use crate::journal::event::{Decision, Outcome, Principal};
use crate::journal::occasion;
use crate::journal::retention::seal_of;
use crate::journal::store::{RunFilter, RunSummary, Stream};
use crate::kernel::{Digest, Failure, RetryClass, Secret, Target};
use crate::plan::Given;
use crate::report::RunView;
use crate::report::sealed::SealedView;

/// A loop that has not looked for so long is stuck.
const STUCK: Duration = Duration::from_mins(1);

/// Nobody waits longer for the loop to take a start.
const PATIENCE: Duration = Duration::from_secs(10);

/// In so many seconds it is worth asking again.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// What the handlers share.
pub struct Shared {
    /// The engine: decisions are recorded, nothing is executed.
    pub engine: Engine,
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// Who may use the API: name and token.
    pub tokens: Vec<(String, Secret<String>)>,
    /// Where starts are asked for.
    pub asks: mpsc::Sender<Ask>,
}

/// Answers until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let service = router(shared).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/runs", post(start).get(runs))
        .route("/runs/{id}", get(run))
        .route("/runs/{id}/cancel", post(cancel))
        .route("/runs/{id}/approvals", get(approvals).post(decide))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), authenticate));
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .nest("/v1", api)
        .with_state(shared)
}

/// An answer that is no success.
struct Refused(StatusCode, Failure);

impl Refused {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(status, Failure::permanent(code, message.into()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Failure { code, message, help, .. } = self.1;
        let body = json!({ "error": { "code": code, "message": message, "help": help } });
        let mut response = (self.0, Json(body)).into_response();
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&self.0) {
            response.headers_mut().insert(header::RETRY_AFTER, AGAIN);
        }
        response
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        let (status, code, help) = match &error {
            EngineError::Journal(JournalError::NoSuchRun { .. }) => {
                (StatusCode::NOT_FOUND, "server::no_such_run", None)
            }
            EngineError::Refused { help, .. } => {
                (StatusCode::CONFLICT, "server::refused", help.clone())
            }
            EngineError::Sealed { .. } => (StatusCode::GONE, "server::sealed", None),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "server::unavailable", None),
        };
        let mut failure = Failure::permanent(code, error_text(&error));
        failure.help = help;
        Self(status, failure)
    }
}

impl From<JournalError> for Refused {
    fn from(error: JournalError) -> Self {
        EngineError::from(error).into()
    }
}

/// Who calls, by its token; the name is what is recorded.
async fn authenticate(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let known = shared.tokens.iter().find(|(_, token)| same(token.expose(), given));
    let Some((name, _)) = known else {
        let message = "this needs the header `Authorization: Bearer TOKEN` with a known token";
        let mut refused = Refused::new(StatusCode::UNAUTHORIZED, "server::no_token", message);
        refused.1.help = Some("tokens are configured in `[server.tokens]`".to_owned());
        return Err(refused);
    };
    let principal = Principal { name: name.clone(), from: format!("http {}", from.ip()) };
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

/// Compares digests, so that the time it takes says nothing of the token.
fn same(token: &str, given: &str) -> bool {
    Digest::of_bytes(token.as_bytes()) == Digest::of_bytes(given.as_bytes())
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let now = shared.engine.parts().clock.now();
    let (began, ticked) = shared.metrics.life();
    let journal = shared.engine.parts().journal.head().await;
    let is_well = now.since(ticked) < STUCK && journal.is_ok();
    let body = json!({
        "status": if is_well { "ok" } else { "failing" },
        "since": began,
        "looked_at": ticked,
        "journal": match &journal {
            Ok(head) => json!({ "position": head.position }),
            Err(error) => json!({ "error": error.to_string() }),
        },
        "version": env!("CARGO_PKG_VERSION"),
    });
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.metrics.render(shared.engine.parts().clock.now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// A start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    workflow: String,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    target: Target,
    /// The same as the header `Idempotency-Key`.
    key: Option<String>,
}

async fn start(
    State(shared): State<Arc<Shared>>,
    Extension(by): Extension<Principal>,
    headers: HeaderMap,
    Json(start): Json<Start>,
) -> Result<Response, Refused> {
    let header = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let key = header.map(str::to_owned).or(start.key);
    if key.as_deref().is_some_and(occasion::is_reserved) {
        let message = "a key of this form belongs to a slot or an event";
        return Err(Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "server::reserved_key",
            message,
        ));
    }
    let params = start.params.into_iter().map(|(name, value)| (name, Given::Json(value)));
    let wanted = Wanted {
        workflow: start.workflow,
        params: params.collect(),
        offered: BTreeMap::new(),
        target: start.target,
    };
    let (reply, answer) = oneshot::channel();
    let gone = || {
        let message = "the server is stopping";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "server::stopping", message)
    };
    let sent = shared.asks.send_timeout(Ask { wanted, key, by, reply }, PATIENCE).await;
    sent.map_err(|error| match error {
        SendTimeoutError::Closed(_) => gone(),
        SendTimeoutError::Timeout(_) => {
            let message = "nobody took the start in time; nothing was started";
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "server::busy", message)
        }
    })?;
    let run = match answer.await.map_err(|_| gone())? {
        Ok(run) => run,
        Err(failure) => {
            let status = match failure.class {
                _ if failure.code == OVERLOADED => StatusCode::TOO_MANY_REQUESTS,
                RetryClass::Transient => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            return Err(Refused(status, failure));
        }
    };
    let run = shared.engine.parts().journal.find_run(run.as_str()).await?;
    let view = view(&shared, &run).await?;
    let place = format!("/v1/runs/{}", run.run_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(view)).into_response())
}

async fn runs(State(shared): State<Arc<Shared>>) -> Result<Response, Refused> {
    let filter = RunFilter { limit: Some(100), ..RunFilter::default() };
    Ok(Json(shared.engine.parts().journal.runs(filter).await?).into_response())
}

async fn run(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let journal = &shared.engine.parts().journal;
    let run = journal.find_run(&id).await?;
    if run.sealed.is_some() {
        let entries = journal.read(&Stream::Run(run.run_id.clone()), 0).await?;
        let seal = seal_of(journal.as_ref(), &run.run_id).await?;
        return Ok(Json(SealedView::new(run, &entries, seal)).into_response());
    }
    Ok(Json(view(&shared, &run).await?).into_response())
}

async fn view(shared: &Shared, run: &RunSummary) -> Result<RunView, Refused> {
    let journal = &shared.engine.parts().journal;
    let id = &run.run_id;
    if run.sealed.is_some() {
        return Err(EngineError::Sealed { run: id.clone() }.into());
    }
    let entries = journal.read(&Stream::Run(id.clone()), 0).await?;
    let plan = journal.plan(&run.plan_id).await?;
    let missing = || EngineError::NoPlan { run: id.clone(), plan: run.plan_id.clone() };
    Ok(RunView::from_entries(&plan.ok_or_else(missing)?, &entries))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    reason: String,
    #[serde(default)]
    compensate: bool,
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    Extension(by): Extension<Principal>,
    Path(id): Path<String>,
    Json(cancel): Json<Cancel>,
) -> Result<Response, Refused> {
    let run = shared.engine.parts().journal.find_run(&id).await?;
    shared.engine.cancel(&run.run_id, cancel.compensate, (&by, &cancel.reason)).await?;
    Ok(Json(view(&shared, &run).await?).into_response())
}

async fn approvals(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let run = shared.engine.parts().journal.find_run(&id).await?;
    let view = view(&shared, &run).await?;
    Ok(Json(view.open_approvals().collect::<Vec<_>>()).into_response())
}

/// A decision on exactly the changes that were seen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ruling {
    step: String,
    digest: String,
    decision: Word,
    reason: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Approved,
    Rejected,
}

async fn decide(
    State(shared): State<Arc<Shared>>,
    Extension(by): Extension<Principal>,
    Path(id): Path<String>,
    Json(ruling): Json<Ruling>,
) -> Result<Response, Refused> {
    let run = shared.engine.parts().journal.find_run(&id).await?;
    let Some(digest) = Digest::parse(&ruling.digest) else {
        let message = "`digest` is not the digest of what was shown";
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "server::bad_digest", message));
    };
    let decision = match ruling.decision {
        Word::Approved => Decision::Approved,
        Word::Rejected => Decision::Rejected,
    };
    let asked = (&run.run_id, Some(ruling.step.as_str()));
    shared.engine.decide_approval(asked, Some(&digest), decision, (&by, &ruling.reason)).await?;
    let view = view(&shared, &run).await?;
    let status = if view.outcome == Outcome::WaitingApproval {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(view)).into_response())
}
