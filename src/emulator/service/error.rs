//! Errors as the service answers them: a code, a message, sometimes details.

use std::time::Duration;

use serde_json::{Value, json};

use super::store::StoreError;
use crate::emulator::fleet::FleetError;

/// A call that is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub(super) struct ApiError {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub details: Vec<Value>,
    /// What `Retry-After` says.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self { status, code, message, details: Vec::new(), retry_after: None }
    }

    /// A field is missing or wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "INVALID_PARAMETER_VALUE", message)
    }

    /// The present state of a resource forbids it.
    pub(super) fn forbidden_by_state(message: impl Into<String>) -> Self {
        Self::new(400, "BAD_REQUEST", message)
    }

    /// There is no such resource; `kind` is `project`, `branch` and so on.
    pub(super) fn not_found(kind: &str) -> Self {
        Self::new(404, "NOT_FOUND", format!("{kind} id not found"))
    }

    /// There is one of that name already.
    pub(super) fn exists(kind: &str, id: &str) -> Self {
        Self::new(409, "ALREADY_EXISTS", format!("{kind} with id `{id}` already exists"))
    }

    /// There are as many as there may be.
    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::new(400, "QUOTA_EXCEEDED", message)
    }

    /// Something is deleted that goes only together with what it belongs to.
    pub(super) fn managed_by_parent(message: impl Into<String>) -> Self {
        let mut error = Self::forbidden_by_state(message);
        error.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "domain": "databricks.com",
            "reason": "RESOURCE_CONFLICT",
            "metadata": { "declarative_context": "MANAGED_BY_PARENT" },
        }));
        error
    }

    /// Another operation on the resource has not ended yet.
    pub(super) fn busy(resource: &str, operation: &str) -> Self {
        let text = format!("`{operation}` is still at work on `{resource}`; try again later");
        Self::new(409, "ABORTED", text)
    }

    /// A path that leads nowhere.
    pub(super) fn no_route(verb: &str, path: &str) -> Self {
        Self::new(404, "ENDPOINT_NOT_FOUND", format!("No API found for '{verb} {path}'"))
    }

    /// What the real service can do and the emulator cannot.
    pub(super) fn not_emulated(what: &str) -> Self {
        Self::new(400, "FEATURE_DISABLED", format!("the emulator cannot {what}"))
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "INTERNAL_ERROR", message)
    }

    /// The body of the answer.
    pub(super) fn body(&self, request_id: &str) -> Value {
        let mut details = self.details.clone();
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RequestInfo",
            "request_id": request_id,
            "serving_data": "",
        }));
        let traced = self.status == 404 && self.code == "NOT_FOUND";
        let message = if traced {
            format!("{} [TraceId: {request_id}]", self.message)
        } else {
            self.message.clone()
        };
        json!({ "error_code": self.code, "message": message, "details": details })
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(format!("the emulator's catalogue cannot be used: {error}"))
    }
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        let text = causes(&error);
        match error {
            FleetError::Version { .. } | FleetError::Point { .. } | FleetError::Setting { .. } => {
                Self::invalid(text)
            }
            FleetError::Busy { .. } => Self::new(409, "ABORTED", text),
            _ => Self::internal(text),
        }
    }
}

/// An error with all that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
