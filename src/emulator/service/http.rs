//! HTTP: takes requests apart, asks who calls, and writes answers.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{StatusCode, request::Parts};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::faults::What;
use super::{identity, route};

/// The largest body: a statement may have 16 MiB.
const LARGEST_BODY: usize = 17 << 20;

/// Serves until the service ends.
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let end = service.end.clone();
    let app = Router::new().fallback(answer).with_state(service);
    let app = app.into_make_service_with_connect_info::<Breaker>();
    let served = axum::serve(Breakable(listener), app)
        .with_graceful_shutdown(async move { end.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "the emulator's API has ended");
    }
}

async fn answer(
    State(service): State<Arc<Service>>,
    ConnectInfo(breaker): ConnectInfo<Breaker>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let verb = head.method.as_str().to_owned();
    let path = head.uri.path().to_owned();
    if let Some(fault) = service.faults.before(&verb, &path) {
        if fault == What::DroppedBefore {
            breaker.snap();
        }
        return refuse(&service, &fault.error());
    }
    let answered = Box::pin(asked(&service, &head, body)).await;
    match service.faults.after(&verb, &path) {
        Some(What::DroppedAfter) => {
            breaker.snap();
            refuse(&service, &What::DroppedAfter.error())
        }
        Some(fault) => refuse(&service, &fault.error()),
        None => answered,
    }
}

async fn asked(service: &Arc<Service>, head: &Parts, body: Body) -> Response {
    let Ok(bytes) = to_bytes(body, LARGEST_BODY).await else {
        return refuse(service, &ApiError::invalid("the body is too large, or cannot be read"));
    };
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match (head.method.as_str(), head.uri.path()) {
        ("GET", "/.well-known/databricks-config") => {
            return written(StatusCode::OK, &identity::discovery(service));
        }
        (
            "GET",
            "/oidc/.well-known/oauth-authorization-server"
            | "/oidc/.well-known/openid-configuration",
        ) => return written(StatusCode::OK, &identity::oidc_metadata(service)),
        ("POST", "/oidc/v1/token") => {
            let form: Vec<(String, String)> =
                url::form_urlencoded::parse(&bytes).into_owned().collect();
            return match identity::issue_token(service, authorization, &form) {
                Ok(token) => written(StatusCode::OK, &token),
                Err(refusal) => written(
                    StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST),
                    &json!({ "error": refusal.error, "error_description": refusal.description }),
                ),
            };
        }
        _ => {}
    }
    let principal = match identity::principal(service, authorization) {
        Ok(principal) => principal,
        Err(error) => return refuse(service, &error),
    };
    let body = if bytes.is_empty() { Ok(json!({})) } else { serde_json::from_slice(&bytes) };
    let Ok(body) = body else {
        let error = ApiError::new(400, "MALFORMED_REQUEST", "the body is no JSON");
        return refuse(service, &error);
    };
    let query = head.uri.query().unwrap_or_default();
    let call = Call {
        verb: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        parts: Call::split(head.uri.path()),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        body,
        principal,
    };
    match Box::pin(route::answer(service, &call)).await {
        Ok(value) => written(StatusCode::OK, &value),
        Err(error) => refuse(service, &error),
    }
}

fn written(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}

fn refuse(service: &Service, error: &ApiError) -> Response {
    let request = format!("{}{}", service.hex(), service.hex());
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = written(status, &error.body(&request));
    if let Some(after) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, after.as_secs().into());
    }
    response
}

/// Breaks one connection, so that nothing more is written to it.
#[derive(Clone, Default)]
struct Breaker(Arc<AtomicBool>);

impl Breaker {
    fn snap(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Connected<IncomingStream<'_, Breakable>> for Breaker {
    fn connect_info(stream: IncomingStream<'_, Breakable>) -> Self {
        stream.io().breaker.clone()
    }
}

/// Listens for connections that can be broken.
struct Breakable(TcpListener);

impl Listener for Breakable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        drop(stream.set_nodelay(true));
        (Connection { stream, breaker: Breaker::default() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

struct Connection {
    stream: TcpStream,
    breaker: Breaker,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.breaker.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
