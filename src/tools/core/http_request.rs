//! Sends one HTTP request.
//!
//! Reads: nothing.
//! Changes: whatever the other side does; `GET`, `HEAD` and `OPTIONS` count as looking.
//! Undo: unknown; give the step a `compensate`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::kernel::{Change, ChangeSet, Failure, Inverse, Operation, Recovery, Risk};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Ending, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(HttpRequest));

struct HttpRequest;

/// The request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The method.
    #[serde(default)]
    method: Method,
    /// The absolute URL, `http` or `https`, without a password in it.
    url: String,
    /// Header fields. A value may be `secret:NAME` (or `${{ secrets.NAME }}`).
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body: a text is sent as it is, anything else as JSON.
    #[serde(default)]
    body: Option<Value>,
    /// The status codes that count as success; by default 200 to 204.
    #[serde(default = "success")]
    expect: Vec<u16>,
    /// Whether sending it twice does no harm. By default `GET`, `HEAD`, `OPTIONS`, `PUT` and `DELETE`
    /// are repeatable, as HTTP defines them, and `POST` and `PATCH` are not.
    #[serde(default)]
    repeatable: Option<bool>,
}

fn success() -> Vec<u16> {
    (200..=204).collect()
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    /// Looks.
    #[default]
    Get,
    /// Looks at the header fields only.
    Head,
    /// Asks what is allowed.
    Options,
    /// Creates or triggers.
    Post,
    /// Replaces.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    const fn looks(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }

    const fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }
}

/// What became of the request.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How it ended; absent when nothing was proposed.
    ended: Option<Ending>,
    /// What came back.
    response: Value,
    /// How long it took.
    duration_ms: Option<u64>,
}

impl WriteTool for HttpRequest {
    const META: ToolMeta = ToolMeta {
        name: "http_request",
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
        summary: "Sends one HTTP request",
        sql: &[],
        secrets: &["headers"],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, _: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        judge(params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let receipt = first.and_then(Settled::receipt);
        Output {
            ended: first.map(Settled::ending),
            response: receipt.map(|receipt| receipt.result.clone()).unwrap_or_default(),
            duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
        }
    }
}

fn judge(params: Params) -> Result<ChangeSet, Failure> {
    let Params { method, url, headers, body, expect, repeatable } = params;
    let host = check_url(&url)?;
    if method.looks() && body.is_some() {
        let message = format!("a {} request has no body", method.as_str());
        return Err(Failure::permanent("http_request::unwanted_body", message));
    }
    if let Some(bad) = expect.iter().find(|status| !(100..600).contains(*status)) {
        let message = format!("`{bad}` in `expect` is not a status code");
        return Err(Failure::permanent("http_request::bad_status", message));
    }
    let operation =
        Operation::Http { method: method.as_str().to_owned(), url, headers, body, expect };
    let mut change = Change::new(format!("host {host}"), "the workflow says so", operation);
    let repeatable = repeatable.unwrap_or_else(|| method.is_idempotent());
    change.recovery = if repeatable { Recovery::Repeatable } else { Recovery::Ask };
    if !method.looks() {
        change.risk = Risk::Medium;
        let why = "nobody knows what the other side did".to_owned();
        change.inverse = Inverse::Impossible { why };
    }
    Ok(ChangeSet::new(vec![change]))
}

/// The host of a URL that may be called.
fn check_url(text: &str) -> Result<String, Failure> {
    let refuse = |reason: &str| {
        Failure::permanent("http_request::bad_url", format!("`url` {reason}"))
            .with_help("write an absolute URL, such as `https://example.com/hook`")
    };
    let url = Url::parse(text).map_err(|error| refuse(&format!("cannot be read: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("is neither `http` nor `https`"));
    }
    if url.password().is_some() || !url.username().is_empty() {
        return Err(refuse("holds a user or a password; send them in a header").with_help(
            "use `headers: { authorization: \"${{ secrets.NAME }}\" }`, which is never shown",
        ));
    }
    url.host_str().map(str::to_owned).ok_or_else(|| refuse("names no host"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn propose(params: Value) -> Result<Change, Failure> {
        judge(serde_json::from_value(params).unwrap()).map(|mut set| set.changes.remove(0))
    }

    #[test]
    fn looking_is_low_risk_and_repeatable() {
        let change = propose(json!({"url": "https://example.com/a"})).unwrap();
        assert_eq!((change.risk, change.recovery), (Risk::Low, Recovery::Repeatable));
        assert_eq!(change.inverse, Inverse::Unneeded);
        assert_eq!(change.object, "host example.com");
    }

    #[test]
    fn a_post_is_never_repeated_blindly() {
        let post = json!({"url": "https://example.com/", "method": "POST", "body": {"a": 1}});
        let change = propose(post.clone()).unwrap();
        assert_eq!((change.risk, change.recovery), (Risk::Medium, Recovery::Ask));
        let mut promised = post;
        promised["repeatable"] = json!(true);
        assert_eq!(propose(promised).unwrap().recovery, Recovery::Repeatable);
        let put = json!({"url": "https://example.com/", "method": "PUT"});
        assert_eq!(propose(put).unwrap().recovery, Recovery::Repeatable);
    }

    #[test]
    fn bad_requests_are_refused() {
        for url in ["example.com", "file:///etc/passwd", "https://u:p@example.com/", "http://"] {
            let error = propose(json!({"url": url})).unwrap_err();
            assert_eq!(error.code, "http_request::bad_url", "{url}");
            assert!(!error.message.contains("u:p"), "{error}");
        }
        assert!(propose(json!({"url": "http://a/", "body": 1})).is_err());
        assert!(propose(json!({"url": "http://a/", "expect": [42]})).is_err());
    }
}
