//! A language model that misbehaves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use lakeops::config::ModelConfig;
use lakeops::kernel::{Secret, Span};
use lakeops::model::ChatModel;
use serde_json::json;

/// A stand-in for an OpenAI-compatible endpoint: gives its answers one after the other.
pub(crate) struct StandIn {
    answers: Vec<Answer>,
    next: AtomicUsize,
    asked: Mutex<Vec<String>>,
    endpoint: String,
}

/// What it does when it is asked.
pub(crate) enum Answer {
    Says(String),
    Fails(u16),
    Nonsense,
    Endless,
    Hangs,
}

/// Each way not to help, and what is said of it then.
pub(crate) fn silences() -> [(Answer, &'static str); 5] {
    [
        (Answer::Fails(500), "status 500"),
        (Answer::Nonsense, "another form"),
        (Answer::Endless, "without an end"),
        (Answer::Says("I cannot help with that.".to_owned()), "another form"),
        (Answer::Hangs, "did not answer"),
    ]
}

impl StandIn {
    /// Everything that it was sent.
    pub(crate) fn asked(&self) -> String {
        self.asked.lock().unwrap().join("\n")
    }

    /// Where it listens, as `[model] endpoint` names it.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

async fn answer(State(stand_in): State<Arc<StandIn>>, body: String) -> Response {
    stand_in.asked.lock().unwrap().push(body);
    let next = stand_in.next.fetch_add(1, Ordering::SeqCst);
    match stand_in.answers.get(next) {
        Some(Answer::Says(text)) => {
            let message = json!({ "choices": [{ "message": { "content": text } }] });
            axum::Json(message).into_response()
        }
        Some(Answer::Fails(status)) => {
            axum::http::StatusCode::from_u16(*status).unwrap().into_response()
        }
        Some(Answer::Nonsense) => "<html>busy</html>".into_response(),
        Some(Answer::Endless) => "x".repeat(1 << 20).into_response(),
        Some(Answer::Hangs) | None => std::future::pending().await,
    }
}

/// Starts one, and the model that asks it.
pub(crate) async fn stand_in(answers: Vec<Answer>) -> (Arc<StandIn>, ChatModel) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1", listener.local_addr().unwrap());
    // One that hangs is waited for no longer than needed, and the others on a busy machine too.
    let hangs = answers.iter().any(|answer| matches!(answer, Answer::Hangs));
    let timeout = Duration::from_secs(if hangs { 10 } else { 60 });
    let state = Arc::new(StandIn {
        answers,
        next: AtomicUsize::new(0),
        asked: Mutex::default(),
        endpoint: endpoint.clone(),
    });
    let router =
        Router::new().route("/v1/chat/completions", post(answer)).with_state(Arc::clone(&state));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config =
        ModelConfig { endpoint: Some(endpoint), timeout: Span(timeout), ..ModelConfig::default() };
    let token = Secret::new("a token of the test".to_owned());
    (state, ChatModel::new(&config, Some(token)).unwrap().unwrap())
}
