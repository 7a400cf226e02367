//! What the journal of the demo's project says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::DemoError;
use crate::journal::rehearsal::{EVIDENCE_KINDS, newest};
use crate::journal::store::{EntryFilter, RunFilter, RunSummary, Verification};
use crate::journal::{Entry, Journal as _, SqliteJournal, Stream};
use crate::kernel::{Clock, Redactor, RunId};
use crate::plan::Plan;
use crate::report::RunView;

/// How often the journal is looked at while a worker is at work.
pub(super) const LOOK: Duration = Duration::from_millis(40);

/// The demo's journal; workers write it, the demo only reads.
pub(super) struct Record {
    journal: Arc<SqliteJournal>,
}

/// A run as the journal has it.
#[derive(Debug)]
pub(super) struct Recorded {
    /// Its events.
    pub entries: Vec<Entry>,
    /// What they come to.
    pub view: RunView,
}

impl Recorded {
    /// The objects of the changes that were applied, of the steps whose keys begin so.
    pub(super) fn applied(&self, prefix: &str) -> BTreeSet<String> {
        let steps = self.view.steps.iter().filter(|step| step.key.starts_with(prefix));
        let changes = steps.flat_map(|step| &step.changes);
        let applied = changes.filter(|change| change.state == "applied");
        applied.map(|change| change.object.clone()).collect()
    }
}

impl Record {
    /// Opens it.
    pub(super) fn open(state: &Path, clock: Arc<dyn Clock>) -> Result<Self, DemoError> {
        Ok(Self { journal: SqliteJournal::open(state, clock, Redactor::default())? })
    }

    /// The newest run of a workflow, when there is one.
    pub(super) async fn newest(&self, workflow: &str) -> Result<Option<RunId>, DemoError> {
        Ok(self.summary(workflow).await?.map(|run| run.run_id))
    }

    async fn summary(&self, workflow: &str) -> Result<Option<RunSummary>, DemoError> {
        let filter = RunFilter {
            workflow: Some(workflow.to_owned()),
            limit: Some(1),
            ..RunFilter::default()
        };
        Ok(self.journal.runs(filter).await?.pop())
    }

    /// The events of a run after a sequence number.
    pub(super) async fn after(&self, run: &RunId, seq: u64) -> Result<Vec<Entry>, DemoError> {
        Ok(self.journal.read(&Stream::Run(run.clone()), seq).await?)
    }

    /// The newest run of a workflow, as it stands.
    pub(super) async fn run(&self, workflow: &str) -> Result<Recorded, DemoError> {
        let summary = self.summary(workflow).await?;
        self.stands(summary.ok_or_else(|| DemoError::NoRun { workflow: workflow.to_owned() })?)
            .await
    }

    /// A run as it stands, by its id. What it asks for knows what rehearsals have shown.
    pub(super) async fn run_of(&self, run: &str) -> Result<Recorded, DemoError> {
        let recorded = self.stands(self.journal.find_run(run).await?).await?;
        let filter = EntryFilter {
            kinds: EVIDENCE_KINDS.map(str::to_owned).into(),
            ..EntryFilter::default()
        };
        let evidence = newest(self.journal.entries(filter).await?);
        Ok(Recorded { view: recorded.view.with_evidence(&evidence), ..recorded })
    }

    async fn stands(&self, summary: RunSummary) -> Result<Recorded, DemoError> {
        let plan = self.plan(&summary.plan_id).await?;
        let entries = self.after(&summary.run_id, 0).await?;
        let view = RunView::from_entries(&plan, &entries);
        Ok(Recorded { entries, view })
    }

    async fn plan(&self, id: &crate::kernel::Digest) -> Result<Plan, DemoError> {
        let plan = self.journal.plan(id).await?;
        plan.ok_or_else(|| DemoError::NoPlan { plan: id.clone() })
    }

    /// Walks the whole chain of events.
    pub(super) async fn verify(&self) -> Result<Verification, DemoError> {
        Ok(self.journal.verify().await?)
    }
}
