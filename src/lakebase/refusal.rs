//! What a workspace's refusal means. PURE.
//!
//! The code decides first, then the status, as in the official clients.

use std::time::Duration;

use serde_json::Value;

use super::api::{ALREADY_EXISTS, NOT_FOUND};
use crate::kernel::{Failure, RetryClass};

/// A request, for messages and judgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The verb.
    pub(super) verb: &'a str,
    /// The path without its query, or the URL.
    pub(super) path: &'a str,
    /// Whether it changes something.
    pub(super) changes: bool,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// JSON; null when there was none.
    Json(Value),
    /// Something else, its beginning.
    Text(String),
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What it means.
    pub(super) failure: Failure,
    /// How long to wait before it is sent again; nothing happened.
    pub(super) wait: Option<Duration>,
}

/// What is waited for when a throttled answer does not say how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// Messages by which the service throttles, whatever the status (official client).
const THROTTLING: [&str; 3] = [
    "RPC token bucket limit has been exceeded",
    "Please try again later or try a faster operation",
    "com.databricks.backend.manager.util.UnknownWorkerEnvironmentException",
];

impl std::fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.path)
    }
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NotFound,
    NoRoute,
    Exists,
    NotAuthenticated,
    NotAllowed,
    Limit,
    Throttled,
    Conflict,
    Disabled,
    Invalid,
    Redirected,
    Broken,
}

impl Refusal {
    /// Judges an answer.
    pub(super) fn of(call: Call<'_>, status: u16, retry_after: Option<&str>, body: &Body) -> Self {
        let said = Said::of(body);
        let kind = kind(call, status, &said);
        let (code, class, help) = verdict(kind, call.changes);
        let message = match &said.request {
            Some(id) => format!("{call}: {} (request {id})", said.message(status)),
            None => format!("{call}: {}", said.message(status)),
        };
        let mut failure = Failure::permanent(code, message).with_class(class);
        if let Some(help) = help {
            failure = failure.with_help(help);
        }
        let wait = (kind == Kind::Throttled).then(|| {
            let seconds = retry_after.and_then(|text| text.trim().parse().ok());
            seconds.map_or(DEFAULT_WAIT, Duration::from_secs)
        });
        Self { failure, wait }
    }
}

/// What the body says.
struct Said {
    code: String,
    text: String,
    request: Option<String>,
    is_json: bool,
}

impl Said {
    fn of(body: &Body) -> Self {
        let body = match body {
            Body::Json(body) => body,
            Body::Text(text) => {
                let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let text = text.chars().take(200).collect();
                return Self { code: String::new(), text, request: None, is_json: false };
            }
        };
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        // OAuth endpoints and SCIM have words of their own.
        let first = |names: &[&str]| {
            names.iter().map(|name| text(name)).find(|text| !text.is_empty()).unwrap_or_default()
        };
        let details = body["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        let request = details.iter().find_map(|detail| detail["request_id"].as_str());
        Self {
            code: first(&["error_code", "error"]),
            text: first(&["message", "error_description", "detail"]),
            request: request.map(str::to_owned),
            is_json: !body.is_null(),
        }
    }

    fn message(&self, status: u16) -> String {
        let code = if self.code.is_empty() { String::new() } else { format!("{}, ", self.code) };
        let text = if self.text.is_empty() { "refused" } else { &self.text };
        format!("{text} ({code}status {status})")
    }
}

fn kind(call: Call<'_>, status: u16, said: &Said) -> Kind {
    let (code, text) = (said.code.as_str(), said.text.as_str());
    if THROTTLING.iter().any(|words| text.contains(words)) {
        return Kind::Throttled;
    }
    // Some refusals say in words what others say by their code.
    match code {
        "BAD_REQUEST" | "INVALID_PARAMETER_VALUE" if text.contains("already exists") => {
            return Kind::Exists;
        }
        "INVALID_PARAMETER_VALUE" if call.path.contains("/jobs/") && is_missing_job(text) => {
            return Kind::NotFound;
        }
        "PERMISSION_DENIED" if text.contains("Invalid access token") => {
            return Kind::NotAuthenticated;
        }
        _ => {}
    }
    match code {
        "ENDPOINT_NOT_FOUND" => Kind::NoRoute,
        "NOT_FOUND" | "RESOURCE_DOES_NOT_EXIST" => Kind::NotFound,
        "ALREADY_EXISTS" | "RESOURCE_ALREADY_EXISTS" => Kind::Exists,
        "UNAUTHENTICATED" | "invalid_client" => Kind::NotAuthenticated,
        "PERMISSION_DENIED" => Kind::NotAllowed,
        "RESOURCE_LIMIT_EXCEEDED" | "QUOTA_EXCEEDED" => Kind::Limit,
        "RESOURCE_EXHAUSTED" | "REQUEST_LIMIT_EXCEEDED" | "TEMPORARILY_UNAVAILABLE" => {
            Kind::Throttled
        }
        "ABORTED" | "RESOURCE_CONFLICT" | "COULD_NOT_ACQUIRE_LOCK" => Kind::Conflict,
        "FEATURE_DISABLED" => Kind::Disabled,
        "DEADLINE_EXCEEDED"
        | "INTERNAL_ERROR"
        | "INTERNAL"
        | "UNKNOWN"
        | "CANCELLED"
        | "PROJECTS_OPERATION_TIMEOUT" => Kind::Broken,
        "INVALID_PARAMETER_VALUE" | "BAD_REQUEST" | "INVALID_STATE" | "MALFORMED_REQUEST" => {
            Kind::Invalid
        }
        _ if code.ends_with("_DOES_NOT_EXIST") || code.ends_with("_NOT_FOUND") => Kind::NotFound,
        _ if code.ends_with("_ALREADY_EXISTS") => Kind::Exists,
        _ => of_status(status, said),
    }
}

fn of_status(status: u16, said: &Said) -> Kind {
    match status {
        300..=399 => Kind::Redirected,
        401 => Kind::NotAuthenticated,
        403 => Kind::NotAllowed,
        // Whoever does not speak the API's language does not know what is there.
        404 if said.is_json && !said.code.is_empty() => Kind::NotFound,
        404 => Kind::NoRoute,
        409 => Kind::Conflict,
        429 | 503 => Kind::Throttled,
        408 | 500.. => Kind::Broken,
        _ => Kind::Invalid,
    }
}

/// The Jobs API says so by `INVALID_PARAMETER_VALUE`.
fn is_missing_job(text: &str) -> bool {
    (text.starts_with("Job ") || text.starts_with("Run ")) && text.contains("does not exist")
}

fn verdict(kind: Kind, changes: bool) -> (&'static str, RetryClass, Option<&'static str>) {
    use RetryClass::{InDoubt, Permanent, Transient};
    match kind {
        Kind::NotFound => (NOT_FOUND, Permanent, None),
        Kind::NoRoute => (
            "lakebase::no_such_route",
            Permanent,
            Some(
                "is the host a Databricks workspace, and Lakebase there? `lakeops doctor` tries it",
            ),
        ),
        Kind::Exists => (ALREADY_EXISTS, Permanent, None),
        Kind::NotAuthenticated => (
            "lakebase::not_authenticated",
            Permanent,
            Some("the token is wrong or has expired: make a new one; `lakeops doctor` tries it"),
        ),
        Kind::NotAllowed => (
            "lakebase::not_allowed",
            Permanent,
            Some("who logs in lacks the permission (CAN_MANAGE on the project for most changes)"),
        ),
        Kind::Limit => (
            "lakebase::limit",
            Permanent,
            Some(
                "delete or archive what is not needed; `lakeops tools run monitor_branch_count` counts",
            ),
        ),
        Kind::Throttled => (
            "lakebase::throttled",
            Transient,
            Some("the workspace has too much to do; try again later"),
        ),
        Kind::Conflict => (
            "lakebase::conflict",
            Transient,
            Some("another operation is under way on it; nothing was done"),
        ),
        Kind::Disabled => (
            "lakebase::disabled",
            Permanent,
            Some("an administrator of the workspace must turn the feature on"),
        ),
        Kind::Invalid => ("lakebase::refused", Permanent, None),
        Kind::Redirected => (
            "lakebase::redirected",
            Permanent,
            Some("give the workspace's own address, not one that leads to it"),
        ),
        Kind::Broken => ("lakebase::server_error", if changes { InDoubt } else { Transient }, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const READ: Call<'_> =
        Call { verb: "GET", path: "/api/2.0/postgres/projects/x", changes: false };
    const CHANGE: Call<'_> = Call { verb: "POST", changes: true, ..READ };

    fn judge(call: Call<'_>, status: u16, code: &str, message: &str) -> (String, RetryClass) {
        let body = Body::Json(json!({"error_code": code, "message": message}));
        let refusal = Refusal::of(call, status, None, &body);
        (refusal.failure.code, refusal.failure.class)
    }

    fn code(status: u16, code: &str, message: &str) -> String {
        judge(READ, status, code, message).0
    }

    #[test]
    fn the_code_comes_before_the_status() {
        assert_eq!(code(404, "NOT_FOUND", "project id not found"), NOT_FOUND);
        assert_eq!(code(400, "CATALOG_DOES_NOT_EXIST", ""), NOT_FOUND);
        assert_eq!(code(404, "ENDPOINT_NOT_FOUND", ""), "lakebase::no_such_route");
        assert_eq!(code(409, "ALREADY_EXISTS", ""), ALREADY_EXISTS);
        assert_eq!(code(409, "RESOURCE_CONFLICT", ""), "lakebase::conflict");
        assert_eq!(code(400, "BAD_REQUEST", "role with that name already exists"), ALREADY_EXISTS);
        assert_eq!(code(400, "BAD_REQUEST", "cannot delete protected branch"), "lakebase::refused");
        assert_eq!(
            code(403, "PERMISSION_DENIED", "Invalid access token."),
            "lakebase::not_authenticated"
        );
        assert_eq!(code(403, "PERMISSION_DENIED", "no"), "lakebase::not_allowed");
        assert_eq!(code(400, "QUOTA_EXCEEDED", ""), "lakebase::limit");
        assert_eq!(code(418, "", ""), "lakebase::refused");
        let job = Call { path: "/api/2.2/jobs/get", ..READ };
        let missing = judge(job, 400, "INVALID_PARAMETER_VALUE", "Job 7 does not exist.");
        assert_eq!(missing.0, NOT_FOUND);
        assert_eq!(
            code(400, "INVALID_PARAMETER_VALUE", "Job 7 does not exist."),
            "lakebase::refused"
        );
    }

    #[test]
    fn a_stranger_does_not_know_what_is_there() {
        for body in [Body::Text("<html>not here</html>".into()), Body::Json(Value::Null)] {
            let refusal = Refusal::of(READ, 404, None, &body);
            assert_eq!(refusal.failure.code, "lakebase::no_such_route");
        }
        let login = Refusal::of(READ, 302, None, &Body::Json(Value::Null));
        assert_eq!(login.failure.code, "lakebase::redirected");
    }

    #[test]
    fn what_may_have_happened_is_in_doubt() {
        for (status, code) in [(500, "INTERNAL_ERROR"), (504, "DEADLINE_EXCEEDED"), (502, "")] {
            assert_eq!(judge(READ, status, code, "").1, RetryClass::Transient);
            assert_eq!(judge(CHANGE, status, code, "").1, RetryClass::InDoubt);
        }
        assert_eq!(judge(CHANGE, 429, "", "").1, RetryClass::Transient);
        assert_eq!(judge(CHANGE, 409, "ABORTED", "").1, RetryClass::Transient);
    }

    #[test]
    fn throttling_says_how_long() {
        let wait = |status, after, message: &str| {
            let body = Body::Json(json!({"message": message}));
            Refusal::of(CHANGE, status, after, &body).wait
        };
        assert_eq!(wait(429, Some("7"), ""), Some(Duration::from_secs(7)));
        for other in [None, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some("-1")] {
            assert_eq!(wait(503, other, ""), Some(DEFAULT_WAIT), "{other:?}");
        }
        assert_eq!(wait(400, None, THROTTLING[0]), Some(DEFAULT_WAIT));
        assert_eq!(wait(500, Some("7"), ""), None);
    }

    #[test]
    fn the_request_is_named_for_support() {
        let body = Body::Json(json!({"error_code": "NOT_FOUND", "message": "project id not found",
            "details": [{"@type": "x"}, {"request_id": "abc"}]}));
        let failure = Refusal::of(READ, 404, None, &body).failure;
        assert_eq!(
            failure.message,
            "GET /api/2.0/postgres/projects/x: project id not found (NOT_FOUND, status 404) (request abc)"
        );
    }
}
