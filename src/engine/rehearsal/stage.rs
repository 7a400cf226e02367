//! The branches of a rehearsal while it works, and the evidence that it keeps.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::STEP;
use crate::engine::apply::Applied;
use crate::engine::looking::journal_failure;
use crate::engine::parts::{Parts, Rehearsals, ThrowAway};
use crate::engine::single::Single;
use crate::journal::event::{Event, StepKey};
use crate::journal::rehearsal::Rehearsed;
use crate::journal::store::{Append, Durability, Expect, Stream};
use crate::kernel::{Change, Direction, Failure, RunId, Span, Target};
use crate::postgres::PgEndpoint;

/// Where the sets of a rehearsal are tried, one after the other: what a set changes is told apart from
/// what the others do.
pub(in crate::engine) struct Stage {
    /// The real parts: the real journal, and the targets.
    pub(super) parts: Parts,
    pub(super) run: RunId,
    /// The claim that it writes by.
    pub(super) claim: u64,
    pub(super) connection: String,
    pub(super) ttl: Span,
    pub(super) source: Arc<dyn Rehearsals>,
    pub(super) open: Mutex<Open>,
}

/// What a rehearsal has made so far.
#[derive(Default)]
pub(super) struct Open {
    /// The branches, each with the target that it is a branch of.
    branches: Vec<(Target, ThrowAway)>,
    /// The newest evidence of each step.
    pub(super) kept: std::collections::BTreeMap<StepKey, Rehearsed>,
}

/// A branch that is worked on. As long as it is held, nobody else works on any.
pub(super) struct Place<'s> {
    /// Holds all others off.
    _open: MutexGuard<'s, Open>,
    /// Where the branch is.
    pub(super) endpoint: PgEndpoint,
    /// Its id.
    pub(super) id: String,
}

impl Stage {
    /// The branch for a target; it is made when there is none yet. The target's own compute, which has to be
    /// told apart from the branch's, is woken only if `wake` says so.
    pub(super) async fn enter(&self, target: &Target, wake: bool) -> Result<Place<'_>, Failure> {
        let mut open = self.open.lock().await;
        let parent = Target { database: None, ..target.clone() };
        let known = open.branches.iter().find(|(of, _)| *of == parent);
        let branch = if let Some((_, branch)) = known {
            branch.clone()
        } else {
            let made = self.make(&parent, open.branches.len()).await?;
            open.branches.push((parent, made.clone()));
            made
        };
        let place = Target { database: target.database.clone(), ..branch.target };
        let endpoints = &self.parts.endpoints;
        if !endpoints.throw_away(&self.connection, &place).await? {
            let text =
                format!("`{place}` is not there to be thrown away, so nothing is tried on it");
            return Err(Failure::permanent("rehearsal::wrong_place", text));
        }
        let endpoint = endpoints.endpoint(&self.connection, &place, true).await?;
        let real = endpoints.endpoint(&self.connection, target, wake).await?;
        if endpoint.label() == real.label() {
            let text = format!("the branch is at {}, where its parent is", real.label());
            return Err(Failure::permanent("rehearsal::wrong_place", text));
        }
        Ok(Place { _open: open, endpoint, id: branch.id })
    }

    async fn make(&self, parent: &Target, number: usize) -> Result<ThrowAway, Failure> {
        let run = self.run.as_str();
        let suffix = match number {
            0 => format!("rehearse-{run}"),
            number => format!("rehearse-{run}-{number}"),
        };
        let branch = self.source.branch(parent, &suffix, self.ttl).await?;
        self.record(vec![Event::BranchWanted {
            branch: branch.id.clone(),
            target: parent.clone(),
            change: Box::new(branch.change.clone()),
        }])
        .await?;
        match self.apply(parent, &branch.change, Direction::Do).await? {
            Applied::Done(_) => Ok(branch),
            Applied::Moot => {
                let text = format!("branch `{}` could not be made: its parent changed", branch.id);
                Err(Failure::transient("rehearsal::moot", text))
            }
        }
    }

    /// Removes a branch, by the inverse of what made it.
    pub(super) async fn remove(&self, parent: &Target, change: &Change) -> Result<(), Failure> {
        self.apply(parent, change, Direction::Undo).await.map(drop)
    }

    async fn apply(
        &self,
        target: &Target,
        change: &Change,
        direction: Direction,
    ) -> Result<Applied, Failure> {
        let single = Single {
            parts: &self.parts,
            connection: &self.connection,
            target,
            run: &self.run,
            step: STEP,
        };
        single.carry(change, direction, None).await
    }

    /// Keeps what trying a set showed.
    pub(super) async fn keep(&self, step: &StepKey, rehearsed: Rehearsed) -> Result<(), Failure> {
        self.open.lock().await.kept.insert(step.clone(), rehearsed.clone());
        let (step, rehearsed) = (step.clone(), Box::new(rehearsed));
        self.record(vec![Event::SetRehearsed { step, rehearsed }]).await
    }

    /// Appends to the real journal.
    pub(super) async fn record(&self, events: Vec<Event>) -> Result<(), Failure> {
        let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
        let boundary = |phase| format!("{STEP}/{}/{phase}", kinds.join(","));
        let (before, after) = (boundary("before commit"), boundary("after commit"));
        let append = Append {
            stream: Stream::Run(self.run.clone()),
            expect: Expect::Claim(self.claim),
            events,
        };
        self.parts.kill.reach(&before);
        let appended = self.parts.journal.append(vec![append], Durability::Synced).await;
        appended.map_err(|error| journal_failure(&error))?;
        self.parts.kill.reach(&after);
        Ok(())
    }
}
