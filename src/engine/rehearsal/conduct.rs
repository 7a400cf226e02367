//! A rehearsal from its start to the removal of its branches.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stage::{Open, Stage};
use super::{INTERRUPTED, STEP};
use crate::engine::facade::{Engine, EngineError, Loaded};
use crate::engine::ownership::Alone;
use crate::engine::parts::{Observer, Parts};
use crate::engine::state::{Rehearsal, RunState};
use crate::journal::MemoryJournal;
use crate::journal::event::{Compensation, Event, Outcome, Principal};
use crate::journal::store::{Append, Durability, Expect, JournalError, Stream};
use crate::kernel::{Failure, RunId, Severity, Span};
use crate::plan::Plan;

/// How long a branch lives at least, when nobody removes it.
const TTL: Span = Span::from_secs(3600);

/// How often removing a branch is tried, and the pause between.
const REMOVE_TRIES: u32 = 4;
const REMOVE_PAUSE: Duration = Duration::from_secs(2);

/// How often it is looked whether somebody cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Engine {
    /// Tries the changes of a plan on throw-away branches of its targets: a run of its own, which
    /// carries nothing out. It does not wait: what needs a decision is taken as approved.
    pub async fn rehearse(
        &self,
        plan: &Plan,
        by: Principal,
        interrupt: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<(RunId, Outcome), EngineError> {
        let connection = &plan.body.connection;
        if self.parts().endpoints.rehearsals(connection).is_none() {
            return Err(EngineError::NoRehearsal { connection: connection.clone() });
        }
        let known = self.keep(plan).await?;
        let run = self.parts().ids.run_id();
        let created = Event::RunCreated {
            plan: plan.id.clone(),
            workflow: plan.body.workflow.clone(),
            target: plan.body.target.clone(),
            key: None,
            by,
            yes: false,
            forked_from: None,
            cause: None,
        };
        // A run may work for its whole limit before its branches are in the way.
        let ttl = plan.body.limits.timeout.map_or(TTL, |limit| limit.max(TTL));
        let events = vec![created, Event::RehearsalBegan { ttl }];
        let stream = Stream::Run(run.clone());
        let append = Append { stream, expect: Expect::Last(0), events };
        self.parts().journal.append(vec![append], Durability::Synced).await?;
        drop(known);
        let outcome = self.execute(&run, interrupt, observer).await?;
        Ok((run, outcome))
    }

    /// Works on a rehearsal that was just claimed. One that a process left behind is ended: its branches
    /// are removed, and what it showed stays.
    pub(in crate::engine) async fn conduct(
        &self,
        (run, plan): (&RunId, &Arc<Plan>),
        (state, rehearsal): (&RunState, &Rehearsal),
        interrupt: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome, EngineError> {
        let connection = plan.body.connection.clone();
        let Some(source) = self.parts().endpoints.rehearsals(&connection) else {
            return Err(EngineError::NoRehearsal { connection });
        };
        let stage = Arc::new(Stage {
            parts: self.parts().clone(),
            run: run.clone(),
            claim: state.claim,
            connection,
            ttl: rehearsal.ttl,
            source,
            open: tokio::sync::Mutex::new(Open::default()),
        });
        let (outcome, failure) = if state.cancel.is_some() {
            (Outcome::Cancelled, None)
        } else if rehearsal.claims > 1 {
            let text = "the process that rehearsed died before it was done";
            let failure = Failure::permanent(INTERRUPTED, text)
                .with_help("rehearse again: `lakeops run … --rehearse`");
            (Outcome::Failed, Some(failure))
        } else {
            self.trial(plan, &stage, interrupt, observer).await?
        };
        self.clear(&stage).await?;
        let scope = None;
        let ending = Event::EndingBegan { outcome, compensate: false, scope, failure };
        let finished = Event::RunFinished {
            outcome,
            compensation: Compensation::None,
            outputs: serde_json::Value::Null,
        };
        let events =
            if outcome == Outcome::Succeeded { vec![finished] } else { vec![ending, finished] };
        stage.record(events).await.map_err(|failure| unrecorded(&failure))?;
        Ok(outcome)
    }

    /// The plan against a journal that is forgotten, with SQL on the stage.
    async fn trial(
        &self,
        plan: &Plan,
        stage: &Arc<Stage>,
        interrupt: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<(Outcome, Option<Failure>), EngineError> {
        let clock = Arc::clone(&self.parts().clock);
        let scratch = Arc::new(MemoryJournal::new(clock, self.redactor().clone()));
        let parts = Parts { journal: scratch, ownership: Arc::new(Alone), ..self.parts().clone() };
        let engine = Self::of(parts, self);
        let stop = interrupt.child_token();
        let worked = engine.work_in_scratch(plan, Some(stage), (stop.clone(), observer));
        let loaded = tokio::select! {
            worked = worked => worked,
            never = cancelled(stage, &stop) => match never {},
        };
        let Loaded { state, .. } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let text = format!("the rehearsal broke off: {error}");
                let failure = Failure::permanent("rehearsal::broke_off", text);
                return Ok((Outcome::Failed, Some(failure)));
            }
        };
        let kept = std::mem::take(&mut stage.open.lock().await.kept);
        let broken = kept.into_values().find(|one| !one.passed()).and_then(|one| one.failure);
        let ending = state.ending.and_then(|ending| ending.failure);
        Ok(match state.finished {
            Some((Outcome::Succeeded, _)) if broken.is_none() => (Outcome::Succeeded, None),
            None if stop.is_cancelled() => (Outcome::Cancelled, None),
            _ => (Outcome::Failed, ending.or(broken)),
        })
    }

    /// Removes all branches that the journal knows of. One that stays is told of, and expires.
    async fn clear(&self, stage: &Stage) -> Result<(), EngineError> {
        let rehearsal = self.load(&stage.run).await?.state.rehearsal.unwrap_or_default();
        for (branch, (parent, change)) in &rehearsal.branches {
            let mut removed = stage.remove(parent, change).await;
            for _ in 1..REMOVE_TRIES {
                if removed.is_ok() {
                    break;
                }
                let clock = &stage.parts.clock;
                clock.sleep_until(clock.now().plus(REMOVE_PAUSE)).await;
                removed = stage.remove(parent, change).await;
            }
            match removed {
                Ok(()) => {
                    let gone = Event::BranchRemoved { branch: branch.clone() };
                    stage.record(vec![gone]).await.map_err(|failure| unrecorded(&failure))?;
                }
                Err(failure) => {
                    let title = format!("the throw-away branch `{branch}` could not be removed");
                    let body = format!("{failure}; it expires by itself after {}", stage.ttl);
                    tracing::warn!(%failure, branch, "throw-away branch left");
                    self.parts().notifier.notify(Severity::Warning, &title, &body);
                }
            }
        }
        Ok(())
    }
}

/// Stops the work once somebody cancels the run.
async fn cancelled(stage: &Stage, stop: &CancellationToken) -> std::convert::Infallible {
    let (parts, stream) = (&stage.parts, Stream::Run(stage.run.clone()));
    loop {
        parts.clock.sleep_until(parts.clock.now().plus(LOOK_EVERY)).await;
        let decisions = parts.journal.decisions(&stream, 0).await.unwrap_or_default();
        if decisions.iter().any(|entry| matches!(entry.event, Event::CancelRequested { .. })) {
            stop.cancel();
            return std::future::pending().await;
        }
    }
}

fn unrecorded(failure: &Failure) -> EngineError {
    let reason = format!("{STEP}: {failure}");
    EngineError::Journal(JournalError::Storage { reason, full: false })
}
