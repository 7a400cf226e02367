//! What all acts need: workers, their journal, the patient, and somebody to tell it to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::DemoError;
use super::load::Load;
use super::patient::Patient;
use super::record::{LOOK, Record};
use super::screen::Screen;
use super::worker::{Call, Ended, Workers};
use crate::journal::event::Event;
use crate::kernel::{Clock, RunId};
use crate::report::timeline;

/// Whose news are told.
#[derive(Clone, Copy)]
pub(super) enum Watched<'w> {
    /// The newest run of a workflow: it is only just being made.
    Newest(&'w str),
    /// A run that is there.
    Run(&'w str),
}

/// Tells what happens while it happens.
pub(super) struct Teller<'a> {
    pub screen: &'a mut Screen,
    pub patient: &'a Patient,
    pub load: &'a Load,
    pub record: &'a Record,
    pub workers: &'a Workers,
    pub clock: Arc<dyn Clock>,
    /// How far the events of each run were told.
    pub told: BTreeMap<RunId, u64>,
}

impl Teller<'_> {
    /// Runs a worker, and tells what the journal says meanwhile.
    pub(super) async fn follow(
        &mut self,
        watched: Watched<'_>,
        call: &Call,
    ) -> Result<Ended, DemoError> {
        self.screen.command(&call.args);
        let workers = self.workers;
        let mut work = Box::pin(workers.run(call));
        loop {
            let next = self.clock.now().plus(LOOK);
            let ended = tokio::select! {
                ended = &mut work => Some(ended?),
                () = self.clock.sleep_until(next) => None,
            };
            self.tell_news(watched).await?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// The same, for a worker that must end with one of these exit codes.
    pub(super) async fn expect(
        &mut self,
        watched: Watched<'_>,
        call: &Call,
        codes: &[i32],
    ) -> Result<Ended, DemoError> {
        let ended = self.follow(watched, call).await?;
        if ended.code().is_some_and(|code| codes.contains(&code)) {
            return Ok(ended);
        }
        Err(ended.unexpected(call))
    }

    async fn tell_news(&mut self, watched: Watched<'_>) -> Result<(), DemoError> {
        let run = match watched {
            Watched::Newest(workflow) => self.record.newest(workflow).await?,
            Watched::Run(run) => Some(RunId::new(run)),
        };
        let Some(run) = run else { return Ok(()) };
        let told = self.told.entry(run.clone()).or_default();
        for entry in self.record.after(&run, *told).await? {
            *told = entry.seq;
            if is_told(&entry.event) {
                let style = self.screen.style;
                let line = timeline::line(style, &entry);
                self.screen.say(&line);
            }
        }
        Ok(())
    }
}

/// Whether an event is part of the story: the rest is bookkeeping.
pub(super) fn is_told(event: &Event) -> bool {
    match event {
        Event::RunClaimed { .. }
        | Event::RunParked { .. }
        | Event::RunFinished { .. }
        | Event::EndingBegan { .. }
        | Event::StepSkipped { .. }
        | Event::AttemptFailed { .. }
        | Event::ApprovalRequested { .. }
        | Event::ApprovalDecided { .. }
        | Event::ChangeSettled { .. }
        | Event::ChangeInDoubt { .. }
        | Event::RehearsalBegan { .. }
        | Event::BranchWanted { .. }
        | Event::SetRehearsed { .. }
        | Event::BranchRemoved { .. } => true,
        // That an item, or a message, is done follows from its one change.
        Event::StepSucceeded { step, .. } => !step.contains('[') && !step.starts_with("always"),
        _ => false,
    }
}
