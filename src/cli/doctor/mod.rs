//! The checks of `lakeops doctor` that look outside: at servers and workspaces.

use serde::Serialize;

pub mod server;
pub mod workspace;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Ok,
    /// Something is missing that not everybody needs.
    Warn,
    /// It cannot be used.
    Fail,
    /// It was not looked at.
    Skip,
}

impl Status {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Check {
    /// A check without advice.
    pub fn new(name: impl Into<String>, status: Status, message: impl Into<String>) -> Self {
        Self { name: name.into(), status, message: message.into(), hint: None }
    }

    /// The same check with advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A check that ended with an error.
    pub fn failed(
        name: impl Into<String>,
        error: &dyn std::error::Error,
        help: Option<String>,
    ) -> Self {
        let check = Self::new(name, Status::Fail, told(error));
        match help {
            Some(help) => check.hint(help),
            None => check,
        }
    }
}

/// An error on one line, with its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
