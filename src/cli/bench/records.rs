//! Large journals: a run that is gone on with, and many events.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{
    Bench, BenchError, Figure, NoDatabase, bench_step, fan_out_step, forget_peak, make_folder,
    nobody, run_created, script_plan, start, work,
};
use crate::journal::event::Compensation;
use crate::journal::retention::seal_next;
use crate::journal::store::{Append, Durability, Expect, Retention, Sealing};
use crate::journal::{Event, Journal as _, Outcome, SqliteJournal, Stream};
use crate::kernel::{Digest, Redactor, RunId, Span};
use crate::plan::document::{Action, ApprovalGate, OnReject};

/// Later than all that was written.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Events of one run of the large journal.
const EACH: u32 = 1_000;

impl Bench {
    /// A run that rests behind so many settled steps: its journal is opened anew, and it is gone on with
    /// until it rests again. What a start of the program takes comes on top.
    pub(super) async fn resumed(&self, dir: &Path, settled: u32) -> Result<Figure, BenchError> {
        make_folder(dir)?;
        let outside = || (Arc::clone(&self.clock), Arc::clone(&self.ids));
        let gate = ApprovalGate {
            prompt: "go on?".to_owned(),
            show: Vec::new(),
            covers: Vec::new(),
            expires: Span::from_secs(86_400),
            on_reject: OnReject::default(),
            rehearsed_within: None,
        };
        let gate = bench_step("gate".to_owned(), Some("each".to_owned()), Action::Approval(gate));
        let plan = script_plan(vec![fan_out_step(settled), gate], self.clock.now())?;
        let run = {
            let bench = Bench::new(dir, outside(), Arc::new(NoDatabase))?;
            let run = start(&bench.engine, &plan).await?;
            work(&bench.engine, &run, Outcome::WaitingApproval).await?;
            run
        };
        let there = forget_peak();
        let began = self.clock.now();
        let bench = Bench::new(dir, outside(), Arc::new(NoDatabase))?;
        work(&bench.engine, &run, Outcome::WaitingApproval).await?;
        let what = format!("a run of {settled} settled steps, gone on with");
        let mut figure = self.figure(what, u64::from(settled), began);
        figure.note_memory(there);
        Ok(figure)
    }

    /// A journal of so many events: written, opened, one run of it read, all of it checked; then all its runs
    /// are sealed, and what is left is checked.
    pub(super) async fn large_journal(
        &self,
        dir: &Path,
        events: u32,
    ) -> Result<Vec<Figure>, BenchError> {
        make_folder(dir)?;
        let open = || SqliteJournal::open(dir, Arc::clone(&self.clock), Redactor::default());
        let start = self.clock.now();
        let journal = open()?;
        let mut written = 0;
        while written < events {
            let count = EACH.min(events - written);
            let stream = Stream::Run(RunId::new(format!("{written:016x}")));
            let created = run_created(Digest::of_bytes(b"bench"));
            let attempts = (1..count.max(2) - 1).map(|n| Event::AttemptStarted {
                step: format!("s{n}"),
                attempt: 1,
                arguments: json!({ "table": "public.orders", "number": n }),
            });
            let (outcome, compensation) = (Outcome::Succeeded, Compensation::None);
            let ended = Event::RunFinished { outcome, compensation, outputs: json!({}) };
            let ended = (count > 1).then_some(ended);
            let events = std::iter::once(created).chain(attempts).chain(ended).collect();
            let append = Append { stream, expect: Expect::Last(0), events };
            journal.append(vec![append], Durability::Synced).await?;
            written += count;
        }
        drop(journal);
        let mut made = self.figure(format!("{events} events written"), u64::from(events), start);
        let size = || {
            let failed = |source| BenchError::Disk { place: dir.display().to_string(), source };
            let size = std::fs::metadata(dir.join("journal.db")).map_err(failed)?.len();
            let each = size / u64::from(events.max(1));
            Ok::<_, BenchError>(format!("{}, {each} bytes each", bytesize::ByteSize(size)))
        };
        made.note = size()?;
        let start = self.clock.now();
        let journal = open()?;
        journal.head().await?;
        let opened = self.figure("that journal opened".to_owned(), 1, start);
        let start = self.clock.now();
        let last = written.saturating_sub(1) / EACH * EACH;
        let run = Stream::Run(RunId::new(format!("{last:016x}")));
        let read = journal.read(&run, 0).await?.len() as u64;
        let shown = self.figure("its last run read".to_owned(), read, start);
        let start = self.clock.now();
        check(&journal).await?;
        let checked = self.figure("its chain checked".to_owned(), u64::from(events), start);
        let start = self.clock.now();
        let sealing = Sealing {
            runs: Vec::new(),
            retention: Retention { before: start.plus(AFTERWARDS), through: u64::MAX },
            by: nobody(),
            in_history: false,
            archive: None,
        };
        while seal_next(journal.as_ref(), &sealing).await?.runs > 0 {}
        let mut sealed = self.figure("its runs sealed".to_owned(), u64::from(events), start);
        journal.compact().await?;
        sealed.note = size()?;
        let start = self.clock.now();
        check(&journal).await?;
        let walked = self.figure("its links checked".to_owned(), u64::from(events), start);
        Ok(vec![made, opened, shown, checked, sealed, walked])
    }
}

async fn check(journal: &SqliteJournal) -> Result<(), BenchError> {
    match journal.verify().await?.broken {
        None => Ok(()),
        broken => Err(BenchError::Lost(format!("the chain is broken: {broken:?}"))),
    }
}
