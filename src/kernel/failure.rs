//! What went wrong, in the form that is kept in the journal.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may be done about a failure.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RetryClass {
    /// Likely to pass by itself: a lost connection, a deadlock, a throttled call.
    Transient,
    /// A lock was not granted in time; nothing was changed.
    LockTimeout,
    /// Trying again changes nothing.
    Permanent,
    /// Nobody can tell whether the change happened; never repeated blindly.
    InDoubt,
}

/// A failure as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What may be done about it.
    pub class: RetryClass,
    /// A stable code, such as `postgres::lock_timeout`.
    pub code: String,
    /// What happened, for a person; masked.
    pub message: String,
    /// What to do next, when there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Failure {
    /// A failure that trying again does not change.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self {
            class: RetryClass::Permanent,
            code: code.to_owned(),
            message: message.into(),
            help: None,
        }
    }

    /// A failure that is likely to pass.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self { class: RetryClass::Transient, ..Self::permanent(code, message) }
    }

    /// The same failure of another class.
    #[must_use]
    pub fn with_class(self, class: RetryClass) -> Self {
        Self { class, ..self }
    }

    /// The same failure with advice.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
