//! A language model behind an OpenAI-compatible endpoint.
//!
//! It is asked one question at a time and remembers nothing. Whatever it answers is a claim: who asks checks
//! it. Literals never reach it, since the texts of statements come without them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::config::ModelConfig;
use crate::kernel::{BoxFuture, Failure, RetryClass, Secret};
use crate::tools::context::AskModel;

/// How much of a reply is read.
const MOST_REPLY: usize = 256 * 1024;

/// The most tokens of an answer.
const MOST_TOKENS: u32 = 1_000;

const ROLE: &str = "You are a PostgreSQL performance engineer. You answer with one JSON object and nothing \
    else. You never suggest statements that change data or settings.";

/// A model that can be asked.
#[derive(Debug)]
pub struct ChatModel {
    client: OnceCell<reqwest::Client>,
    url: String,
    name: String,
    token: Option<Secret<String>>,
    timeout: Duration,
}

impl ChatModel {
    /// The configured model; `None` when none is. Its endpoint is encrypted, or on this machine.
    pub fn new(
        config: &ModelConfig,
        token: Option<Secret<String>>,
    ) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let host = endpoint
            .strip_prefix("http://")
            .map(|rest| rest.split(['/', ':']).next().unwrap_or_default().to_owned());
        let is_local = host.is_some_and(|host| matches!(host.as_str(), "127.0.0.1" | "localhost"));
        if !endpoint.starts_with("https://") && !is_local {
            let text = format!("the model's endpoint `{endpoint}` is not encrypted");
            return Err(Failure::permanent("model::not_encrypted", text)
                .with_help("use https, or an endpoint of this machine"));
        }
        Ok(Some(Self {
            client: OnceCell::new(),
            url: format!("{}/chat/completions", endpoint.trim_end_matches('/')),
            name: config.name.clone(),
            token,
            timeout: config.timeout.0,
        }))
    }

    async fn client(&self) -> Result<&reqwest::Client, Failure> {
        let make = || async {
            // The first caller decides; that another part of the program did it before is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(self.timeout)
                .user_agent(concat!("lakeops/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        self.client.get_or_try_init(make).await.map_err(|error| {
            Failure::permanent("model::client", format!("failed to set up the client: {error}"))
        })
    }

    async fn answer(&self, question: &str) -> Result<String, Failure> {
        let body = json!({
            "model": self.name,
            "messages": [
                { "role": "system", "content": ROLE },
                { "role": "user", "content": question },
            ],
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        });
        let mut request = self.client().await?.post(&self.url).json(&body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let reply = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = reply.status();
        let text = self.body(reply).await?;
        if !status.is_success() {
            let failure = Failure::permanent(
                "model::refused",
                format!("the model `{}` refused: status {}", self.name, status.as_u16()),
            );
            let again = status.is_server_error() || status.as_u16() == 429;
            return Err(if again { failure.with_class(RetryClass::Transient) } else { failure });
        }
        let parsed: Option<Value> = serde_json::from_str(&text).ok();
        let content = parsed.as_ref().and_then(|it| it.pointer("/choices/0/message/content"));
        content.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
            let text = format!("the model `{}` answered in another form than asked", self.name);
            Failure::permanent("model::nonsense", text)
        })
    }

    async fn body(&self, mut reply: reqwest::Response) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST_REPLY {
                let text = format!("the model `{}` answered without an end", self.name);
                return Err(Failure::permanent("model::too_long", text));
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let limit = humantime::format_duration(self.timeout);
        let (code, text) = if error.is_timeout() {
            ("model::timeout", format!("the model `{}` did not answer in {limit}", self.name))
        } else {
            ("model::unreachable", format!("the model `{}` cannot be reached", self.name))
        };
        Failure::transient(code, text).with_help("check `[model]` in the configuration")
    }
}

impl AskModel for ChatModel {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn ask<'a>(&'a self, question: &'a str) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(self.answer(question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(endpoint: Option<&str>) -> Result<Option<ChatModel>, Failure> {
        let config =
            ModelConfig { endpoint: endpoint.map(str::to_owned), ..ModelConfig::default() };
        ChatModel::new(&config, None)
    }

    #[test]
    fn only_what_is_encrypted_or_here_is_asked() {
        assert!(made(None).unwrap().is_none());
        let url = made(Some("https://host/serving-endpoints/")).unwrap().unwrap().url;
        assert_eq!(url, "https://host/serving-endpoints/chat/completions");
        assert!(made(Some("http://127.0.0.1:9/v1")).unwrap().is_some());
        for wrong in ["http://host/v1", "http://localhost.evil/v1", "ftp://host", "host"] {
            assert_eq!(made(Some(wrong)).unwrap_err().code, "model::not_encrypted", "{wrong}");
        }
    }
}
