//! Who may log in. The fleet asks; the emulator's API knows.

use super::types::EndpointId;
use crate::kernel::BoxFuture;

/// Somebody wants to log in, with a secret that came over TLS.
#[derive(Clone, Copy)]
pub struct LoginRequest<'a> {
    /// Where.
    pub endpoint: &'a EndpointId,
    /// As whom.
    pub role: &'a str,
    /// To which database.
    pub database: &'a str,
    /// The password or token.
    pub secret: &'a str,
}

/// Whether the login is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginDecision {
    /// It is.
    Allowed {
        /// Whether the session may not write; it is then served by a copy that follows the branch.
        read_only: bool,
    },
    /// It is not.
    Refused {
        /// What the client is told.
        message: String,
    },
}

/// Decides who may log in. Asked once for each login, never again for the session.
pub trait Logins: Send + Sync {
    /// Decides on one login.
    fn check<'a>(&'a self, login: LoginRequest<'a>) -> BoxFuture<'a, LoginDecision>;
}
