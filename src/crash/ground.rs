//! Where the runs of a test begin: the same state each time, and nothing that anybody needs.

use super::fence::Fence;
use super::snapshot::Snapshot;
use crate::engine::parts::Parts;
use crate::kernel::{BoxFuture, Failure, Secret, Target};
use crate::plan::Plan;
use crate::postgres::PgEndpoint;

/// Makes fresh copies of one beginning.
pub trait Ground: Send + Sync {
    /// What a copy is, for people: `a branch of shop/production`.
    fn about(&self) -> String;

    /// Makes what all copies are made of, once.
    fn prepare(&self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Makes a copy; no other has this number.
    fn place(&self, number: usize) -> BoxFuture<'_, Result<Place, Failure>>;

    /// What is there of a copy by now.
    fn capture<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Snapshot, Failure>>;

    /// Removes the copy of a number, as far as there is one. Doing it again does no harm.
    fn remove(&self, number: usize) -> BoxFuture<'_, Result<(), Failure>>;

    /// Removes what all copies were made of.
    fn clear(&self) -> BoxFuture<'_, Result<(), Failure>>;
}

/// A copy that one run works on.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// What is carried out there.
    pub plan: Plan,
    /// Variables of the processes that work there.
    pub vars: Vec<(&'static str, Secret<String>)>,
    /// What keeps them there.
    pub fence: Fence,
}

/// What grounds make their copies with.
#[derive(Clone)]
pub struct Tools {
    /// The parts of an engine of the connection that is copied.
    pub parts: Parts,
    /// The connection.
    pub connection: String,
    /// What begins the names of this test's copies.
    pub stem: String,
    /// Statements that are carried out on what all copies are made of.
    pub setup: Vec<String>,
}

impl Tools {
    /// Where a target's database is; its compute is woken.
    pub(super) async fn endpoint(&self, target: &Target) -> Result<PgEndpoint, Failure> {
        self.parts.endpoints.endpoint(&self.connection, target, true).await
    }
}
