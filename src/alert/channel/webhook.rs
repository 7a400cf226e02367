//! A POST of JSON to any address, signed.
//!
//! The header `X-Lakeops-Signature` is `sha256=` and the HMAC-SHA256 (RFC 2104) of `TIMESTAMP.BODY` in
//! hexadecimal digits, with the timestamp of `X-Lakeops-Timestamp` (seconds): who checks both knows who sent
//! the body, and that it is no repetition.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Channel, Message, post};
use crate::kernel::digest::hex;
use crate::kernel::{BoxFuture, Clock, Failure, Secret};

/// Any receiver of JSON.
pub struct Webhook {
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    url: String,
    key: Secret<String>,
}

impl Webhook {
    /// Posts to this URL, signed with this key.
    pub fn new(
        client: reqwest::Client,
        clock: Arc<dyn Clock>,
        url: &str,
        key: Secret<String>,
    ) -> Self {
        Self { client, clock, url: url.to_owned(), key }
    }
}

impl Channel for Webhook {
    fn send<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let timestamp = (self.clock.now().as_millis() / 1_000).to_string();
            let body = body(messages).to_string();
            let signature = signature(self.key.expose(), &timestamp, &body)?;
            let request = self
                .client
                .post(&self.url)
                .header("Content-Type", "application/json")
                .header("X-Lakeops-Timestamp", timestamp)
                .header("X-Lakeops-Signature", format!("sha256={signature}"))
                .body(body);
            post(request, "the webhook").await
        })
    }
}

fn body(messages: &[Message]) -> Value {
    let one = |message: &Message| {
        json!({
            "key": message.dedup,
            "state": if message.resolves { "resolved" } else { "firing" },
            "severity": message.severity,
            "title": message.title,
            "body": message.body,
            "labels": message.labels,
            "at": message.at,
            "next": message.command(),
        })
    };
    json!({ "version": 1, "alerts": messages.iter().map(one).collect::<Vec<_>>() })
}

/// The signature that a receiver computes too.
pub fn signature(key: &str, timestamp: &str, body: &str) -> Result<String, Failure> {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes());
    let mut mac = mac.map_err(|error| Failure::permanent("alert::bad_key", error.to_string()))?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    Ok(hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_rfc() {
        // printf 'what do ya want for nothing?.' | openssl dgst -sha256 -hmac Jefe
        let expected = "38c6c848e5a2f57451f5095df6370d5c9b83175b99df46422b34960c28def6ae";
        assert_eq!(signature("Jefe", "what do ya want for nothing?", "").unwrap(), expected);
    }
}
