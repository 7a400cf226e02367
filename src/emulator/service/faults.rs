//! Faults on demand, for tests: what the real service does now and then, the emulator does when it is
//! told to. Faults live in memory only.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::emulator::fleet::EndpointId;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub(super) enum What {
    /// An operation takes so much longer, and is answered before it is done.
    SlowReady {
        /// By how many seconds.
        seconds: f64,
    },
    /// A call is carried out, and answered with an error all the same.
    CreatedButErrored {
        /// The status of the answer.
        #[serde(default = "internal")]
        status: u16,
        /// Its code.
        #[serde(default = "internal_code")]
        error_code: String,
    },
    /// An operation does its work, and ends with an error all the same.
    OperationError {
        /// The code of the error.
        #[serde(default = "internal_code")]
        error_code: String,
    },
    /// A call is refused without effect.
    Refused {
        /// The status of the answer.
        #[serde(default = "internal")]
        status: u16,
        /// Its code.
        #[serde(default = "internal_code")]
        error_code: String,
    },
    /// A call is refused for now.
    Throttled {
        /// When it can be tried again, in seconds.
        #[serde(default)]
        retry_after: u64,
    },
    /// A login with a valid secret is refused, as while a fresh one has not arrived everywhere.
    CredentialRefused {
        /// Only the first login at each endpoint.
        #[serde(default)]
        first: bool,
    },
    /// The connection breaks instead of an answer, before the call has an effect.
    DroppedBefore,
    /// The connection breaks instead of an answer, after the call had its effect.
    DroppedAfter,
}

fn internal() -> u16 {
    500
}

fn internal_code() -> String {
    "INTERNAL_ERROR".to_owned()
}

/// A fault, and when it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Fault {
    #[serde(flatten)]
    pub what: What,
    /// How often.
    #[serde(default = "once")]
    pub count: u32,
    /// Only for calls of this verb.
    #[serde(default)]
    pub verb: Option<String>,
    /// Only where the path, or the name of the resource or endpoint, contains this.
    #[serde(default)]
    pub path: Option<String>,
    /// How many of what would fit are let pass first.
    #[serde(default)]
    pub skip: u32,
    /// Happens to every how many of what fits: with 2, what is tried again passes.
    #[serde(default = "once")]
    pub every: u32,
}

fn once() -> u32 {
    1
}

/// The faults that are yet to happen.
#[derive(Default)]
pub(super) struct Faults {
    waiting: Mutex<Vec<Fault>>,
    /// Endpoints that have refused a login.
    refused: Mutex<BTreeSet<String>>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `POST`, `GET` and `DELETE` on `/emulator/faults`.
    pub(super) fn answer(&self, verb: &str, body: &Value) -> Result<Value, ApiError> {
        match verb {
            "POST" => {
                let fault: Fault = serde_json::from_value(body.clone())
                    .map_err(|error| ApiError::invalid(format!("this is no fault: {error}")))?;
                self.lock().push(fault);
            }
            "DELETE" => {
                self.lock().clear();
                self.refused().clear();
            }
            _ => {}
        }
        Ok(json!({ "faults": *self.lock() }))
    }

    /// The first fault that fits, counted down.
    fn take(&self, verb: &str, place: &str, wanted: impl Fn(&What) -> bool) -> Option<What> {
        // What faults are told by is never faulty itself.
        if place.starts_with("/emulator/") {
            return None;
        }
        let mut waiting = self.lock();
        let fits = |fault: &Fault| {
            wanted(&fault.what)
                && fault.verb.as_deref().is_none_or(|own| verb.is_empty() || own == verb)
                && fault.path.as_deref().is_none_or(|part| place.contains(part))
        };
        let at = waiting.iter().position(fits)?;
        let fault = &mut waiting[at];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let what = fault.what.clone();
        fault.skip = fault.every.saturating_sub(1);
        fault.count = fault.count.saturating_sub(1);
        if fault.count == 0 {
            waiting.remove(at);
        }
        Some(what)
    }

    /// What happens to a call before it is looked at.
    pub(super) fn before(&self, verb: &str, path: &str) -> Option<What> {
        self.take(verb, path, |what| {
            matches!(what, What::Refused { .. } | What::Throttled { .. } | What::DroppedBefore)
        })
    }

    /// What happens to a call after it had its effect.
    pub(super) fn after(&self, verb: &str, path: &str) -> Option<What> {
        self.take(verb, path, |what| {
            matches!(what, What::CreatedButErrored { .. } | What::DroppedAfter)
        })
    }

    pub(super) fn slowness(&self, resource: &str) -> Option<Duration> {
        match self.take("", resource, |what| matches!(what, What::SlowReady { .. }))? {
            What::SlowReady { seconds } => Duration::try_from_secs_f64(seconds).ok(),
            _ => None,
        }
    }

    pub(super) fn operation_error(&self, resource: &str) -> Option<ApiError> {
        match self.take("", resource, |what| matches!(what, What::OperationError { .. }))? {
            What::OperationError { error_code } => {
                Some(ApiError::new(500, &error_code, "the operation failed, as it was asked to"))
            }
            _ => None,
        }
    }

    pub(super) fn refuses_login(&self, endpoint: &EndpointId) -> bool {
        let mut refused = self.refused();
        let is_first = !refused.contains(&endpoint.0);
        let fits = |what: &What| match what {
            What::CredentialRefused { first } => is_first || !first,
            _ => false,
        };
        let refuses = self.take("", &endpoint.0, fits).is_some();
        if refuses {
            refused.insert(endpoint.0.clone());
        }
        refuses
    }
}

impl What {
    /// The answer that a call gets because of it.
    pub(super) fn error(&self) -> ApiError {
        let text = "the emulator was asked to fail here";
        match self {
            Self::Throttled { retry_after } => {
                let mut error = ApiError::new(429, "REQUEST_LIMIT_EXCEEDED", text);
                error.retry_after = Some(Duration::from_secs(*retry_after));
                error
            }
            Self::Refused { status, error_code }
            | Self::CreatedButErrored { status, error_code } => {
                ApiError::new(*status, error_code, text)
            }
            _ => ApiError::internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_where_and_as_often_as_it_says() {
        let faults = Faults::default();
        let told = json!({"fault": "throttled", "retry_after": 3, "count": 2, "verb": "POST",
                          "path": "/branches", "skip": 1});
        faults.answer("POST", &told).unwrap();
        assert!(faults.before("GET", "/a/branches").is_none());
        assert!(faults.before("POST", "/a/projects").is_none());
        assert!(faults.after("POST", "/a/branches").is_none());
        let seen: Vec<bool> =
            (0..4).map(|_| faults.before("POST", "/a/branches").is_some()).collect();
        assert_eq!(seen, [false, true, true, false]);
        let told = json!({"fault": "dropped_after", "count": 2, "every": 2});
        faults.answer("POST", &told).unwrap();
        let seen: Vec<bool> = (0..4).map(|_| faults.after("GET", "/a").is_some()).collect();
        assert_eq!(seen, [true, false, true, false]);
        let told = json!({"fault": "credential_refused", "first": true, "count": 9});
        faults.answer("POST", &told).unwrap();
        let logins =
            ["a", "a", "b", "a", "b"].map(|id| faults.refuses_login(&EndpointId(id.into())));
        assert_eq!(logins, [true, false, true, false, false]);
        assert!(faults.answer("POST", &json!({"fault": "flood"})).is_err());
    }
}
