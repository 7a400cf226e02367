//! What an event does to the tables that are derived from the events. PURE.
//!
//! The SQLite journal writes [`Touch`]es in the transaction of their events; [`Tables`] applies the
//! same ones in memory, for the journal in memory and to check the stored tables against a rebuild.

use std::collections::BTreeMap;

use super::event::{Event, Fact, Outcome, SealedRun};
use super::store::{Entry, RunFilter, RunSummary};
use crate::kernel::{RunId, Timestamp};

/// One change of the derived tables.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Touch {
    /// A run began to exist.
    Created(Box<RunSummary>),
    /// The run's outcome.
    Outcome { outcome: Outcome, wake_at: Option<Timestamp> },
    /// The run is last in the lock's queue, unless it stands in it already.
    Queued { lock: String },
    /// The run left the lock's queue.
    Released { lock: String },
    /// The run left all queues.
    ReleasedAll,
    /// The event holds an output that later looks of the same tool go on from.
    Fact(Fact),
    /// A run was sealed, by an event that is not of it.
    Sealed(SealedRun),
}

/// What an event of a run does.
pub(super) fn touches(run: &str, at: Timestamp, event: &Event) -> Vec<Touch> {
    match event {
        Event::RunCreated { plan, workflow, target, key, .. } => {
            vec![Touch::Created(Box::new(RunSummary {
                run_id: RunId::new(run),
                plan_id: plan.clone(),
                workflow: workflow.clone(),
                target: target.to_string(),
                outcome: Outcome::Running,
                created_at: at,
                updated_at: at,
                wake_at: None,
                key: key.clone(),
                sealed: None,
            }))]
        }
        Event::RunClaimed { .. } => {
            vec![Touch::Outcome { outcome: Outcome::Running, wake_at: None }]
        }
        Event::RunParked { outcome, wake_at, .. } => {
            vec![Touch::Outcome { outcome: *outcome, wake_at: *wake_at }]
        }
        Event::RunFinished { outcome, .. } => {
            vec![Touch::Outcome { outcome: *outcome, wake_at: None }, Touch::ReleasedAll]
        }
        Event::LockQueued { lock, .. } => vec![Touch::Queued { lock: lock.clone() }],
        Event::LockReleased { lock, .. } => vec![Touch::Released { lock: lock.clone() }],
        Event::StepSucceeded { fact: Some(found), .. } => vec![Touch::Fact(found.name.clone())],
        Event::RunsSealed { runs, .. } => runs.iter().cloned().map(Touch::Sealed).collect(),
        _ => Vec::new(),
    }
}

/// The derived tables in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tables {
    /// The runs, each with the position of its creation.
    pub(super) runs: BTreeMap<RunId, (u64, RunSummary)>,
    /// The queues of the locks: position of the queueing, run. None is empty.
    pub(super) locks: BTreeMap<String, Vec<(u64, RunId)>>,
    /// The positions of the outputs that a tool goes on from.
    pub(super) facts: BTreeMap<Fact, Vec<u64>>,
}

impl Tables {
    /// Applies an event.
    pub(super) fn apply(&mut self, entry: &Entry) {
        for touch in touches(&entry.stream, entry.at, &entry.event) {
            self.touch(entry, touch);
        }
        if let Some((_, run)) = self.runs.get_mut(&RunId::new(&*entry.stream)) {
            run.updated_at = entry.at;
        }
    }

    /// Applies an event of which only the link is left.
    pub(super) fn apply_link(&mut self, stream: &str, at: Timestamp) {
        if let Some((_, run)) = self.runs.get_mut(&RunId::new(stream)) {
            run.updated_at = at;
        }
    }

    fn touch(&mut self, entry: &Entry, touch: Touch) {
        let run_id = RunId::new(&*entry.stream);
        match touch {
            Touch::Created(summary) => {
                self.runs.insert(run_id, (entry.position, *summary));
            }
            Touch::Outcome { outcome, wake_at } => {
                if let Some((_, run)) = self.runs.get_mut(&run_id) {
                    run.outcome = outcome;
                    run.wake_at = wake_at;
                }
            }
            Touch::Queued { lock } => {
                let queue = self.locks.entry(lock).or_default();
                if queue.iter().all(|(_, run)| *run != run_id) {
                    queue.push((entry.position, run_id));
                }
            }
            Touch::Released { lock } => {
                if let Some(queue) = self.locks.get_mut(&lock) {
                    queue.retain(|(_, run)| *run != run_id);
                }
                self.locks.retain(|_, queue| !queue.is_empty());
            }
            Touch::ReleasedAll => {
                for queue in self.locks.values_mut() {
                    queue.retain(|(_, run)| *run != run_id);
                }
                self.locks.retain(|_, queue| !queue.is_empty());
            }
            Touch::Fact(fact) => self.facts.entry(fact).or_default().push(entry.position),
            Touch::Sealed(SealedRun { run, events }) => {
                if let Some((_, run)) = self.runs.get_mut(&run) {
                    run.sealed = Some(events);
                }
            }
        }
    }

    /// The runs that a filter lets through, newest first.
    pub(super) fn list(&self, filter: &RunFilter) -> Vec<RunSummary> {
        let mut found: Vec<_> = self
            .runs
            .values()
            .filter(|(_, run)| !filter.unfinished || !run.outcome.is_final())
            .filter(|(_, run)| filter.workflow.as_ref().is_none_or(|name| *name == run.workflow))
            .collect();
        found.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        let limit = filter.limit.and_then(|limit| usize::try_from(limit).ok());
        found.into_iter().take(limit.unwrap_or(usize::MAX)).map(|(_, run)| run.clone()).collect()
    }

    /// The runs whose id begins with `prefix`; the one that is exactly `prefix`, when there is one.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<RunSummary> {
        if let Some((_, run)) = self.runs.get(&RunId::new(prefix)) {
            return vec![run.clone()];
        }
        let runs = self.runs.values().map(|(_, run)| run);
        runs.filter(|run| run.run_id.as_str().starts_with(prefix)).cloned().collect()
    }

    /// The run with this key.
    pub(super) fn run_with_key(&self, key: &str) -> Option<RunId> {
        let mut runs = self.runs.values().map(|(_, run)| run);
        runs.find(|run| run.key.as_deref() == Some(key)).map(|run| run.run_id.clone())
    }

    /// The first difference to the tables as they are stored, for people.
    pub(super) fn difference(&self, stored: &Self) -> Option<String> {
        let runs = self.runs.keys().chain(stored.runs.keys());
        if let Some(run) = runs.into_iter().find(|run| self.runs.get(run) != stored.runs.get(run)) {
            return Some(format!("the table `run` says something else of {run} than its events"));
        }
        let locks = self.locks.keys().chain(stored.locks.keys());
        let lock = locks.into_iter().find(|lock| self.locks.get(*lock) != stored.locks.get(*lock));
        if let Some(lock) = lock {
            return Some(format!(
                "the table `lock_queue` says something else of `{lock}` than the events"
            ));
        }
        let facts = self.facts.keys().chain(stored.facts.keys());
        let fact = facts.into_iter().find(|fact| self.facts.get(*fact) != stored.facts.get(*fact));
        fact.map(|fact| {
            let Fact { tool, place } = fact;
            format!("the table `fact` says something else of `{tool}` on {place} than the events")
        })
    }
}
