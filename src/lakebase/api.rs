//! What can be asked of a workspace, and what can be done to it: two traits, so that the type says which.

use serde_json::Value;

use crate::kernel::{ApiCall, BoxFuture, Failure};

/// The code of the failure that a path answers nothing.
pub const NOT_FOUND: &str = "lakebase::not_found";

/// The code of the failure that something of that name is there already.
pub const ALREADY_EXISTS: &str = "lakebase::already_exists";

/// Asks a workspace. It can change nothing: it sends GET, and one parsed SELECT by the statement API.
pub trait ReadApi: Send + Sync {
    /// The answer at a path, absolute on the host, query included. Nothing there is the failure
    /// `lakebase::not_found`.
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Failure>>;

    /// The elements of a collection, of all pages. `plural` is the field that holds them.
    fn list<'a>(
        &'a self,
        path: &'a str,
        plural: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>>;

    /// The rows of one SELECT on the connection's warehouse, as objects of texts and nulls.
    fn select<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Vec<Value>, Failure>>;
}

/// What the workspace said to a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body: an operation, or the resource itself.
    pub body: Value,
}

/// Asks and changes a workspace. Only the engine's applier is given one.
pub trait Workspace: ReadApi {
    /// Sends a call. Throttling is waited out; nothing else is sent twice. A failure of class `InDoubt`
    /// says that nobody saw the answer.
    fn send<'a>(&'a self, call: &'a ApiCall) -> BoxFuture<'a, Result<Reply, Failure>>;
}

/// The answer at a path; `None` when there is nothing.
pub async fn find(api: &dyn ReadApi, path: &str) -> Result<Option<Value>, Failure> {
    match api.get(path).await {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.code == NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}
