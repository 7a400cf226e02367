//! A workspace that answers as a test says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    pub(super) text: String,
    /// How many requests of this verb and path came before.
    pub(super) earlier: usize,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// `GET /path`
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.verb, self.path)
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Json(u16, Value),
    /// A status with `Retry-After`.
    Wait(u16, &'static str),
    Text(u16, &'static str),
    /// Nothing, for ever.
    Nothing,
}

/// A refusal as the service writes it.
pub(super) fn refused(status: u16, code: &str, message: &str) -> Said {
    Said::Json(status, json!({ "error_code": code, "message": message }))
}

pub(super) fn ok(body: Value) -> Said {
    Said::Json(200, body)
}

type Script = dyn Fn(&Seen) -> Said + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
}

/// A workspace on this machine, until the test ends.
pub(super) struct StandIn {
    pub(super) host: String,
    shared: Arc<Shared>,
}

impl StandIn {
    pub(super) async fn new(script: impl Fn(&Seen) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { script: Box::new(script), seen: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, shared }
    }

    /// What came.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (verb, path) = (method.to_string(), uri.path().to_owned());
    let seen = {
        let mut all = shared.seen.lock().unwrap();
        let earlier = all.iter().filter(|seen| seen.verb == verb && seen.path == path).count();
        let query = uri.query().unwrap_or_default().to_owned();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&body).into_owned();
        all.push(Seen { verb, path, query, headers, body: json, text, earlier });
        all.last().unwrap().clone()
    };
    let status = |status| StatusCode::from_u16(status).unwrap();
    match (shared.script)(&seen) {
        Said::Json(code, body) => (status(code), axum::Json(body)).into_response(),
        Said::Wait(code, after) => (status(code), [("retry-after", after)], "").into_response(),
        Said::Text(code, text) => (status(code), text).into_response(),
        Said::Nothing => std::future::pending().await,
    }
}
