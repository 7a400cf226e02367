//! A journal with runs that are over, and the history beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lakeops::history::{self, HistoryWriter, Location};
use lakeops::journal::event::{Compensation, Event, Outcome};
use lakeops::journal::store::{Append, Durability, Expect, Stream};
use lakeops::journal::{Journal, Principal, SqliteJournal};
use lakeops::kernel::kill::Unarmed;
use lakeops::kernel::{
    BoxFuture, Clock, Digest, KillPoints, Query, Redactor, RunId, SystemClock, Target, Timestamp,
};
use lakeops::tools::tool::HistoryRow;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(super) struct Kit {
    dir: TempDir,
    pub(super) journal: Arc<dyn Journal>,
}

/// Dies, as far as the writer is concerned, at a boundary.
pub(super) struct DiesAt(pub(super) &'static str);

impl KillPoints for DiesAt {
    fn reach(&self, boundary: &str) {
        assert!(!boundary.ends_with(self.0), "killed at {boundary}");
    }
}

/// The system's clock, so much ahead.
pub(crate) struct Ahead(pub(crate) Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.0)
    }

    fn sleep_until(&self, deadline: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let behind = Timestamp::from_millis(
                deadline.as_millis() - i64::try_from(self.0.as_millis()).unwrap(),
            );
            SystemClock.sleep_until(behind).await;
        })
    }
}

pub(super) fn metric(name: &str, value: f64) -> HistoryRow {
    let row = json!({ "metric_name": name, "metric_value": value, "threshold_level": "normal" });
    HistoryRow { table: "lakebase_metrics".to_owned(), row }
}

pub(super) fn target() -> Target {
    Target { project: Some("shop".to_owned()), branch: Some("main".to_owned()), database: None }
}

impl Kit {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let journal = SqliteJournal::open(dir.path(), clock, Redactor::default()).unwrap();
        Self { dir, journal }
    }

    pub(super) fn state(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.state().join("history")
    }

    pub(super) fn location(&self) -> Location {
        Location::folder(&self.folder()).unwrap()
    }

    pub(super) fn writer(&self) -> HistoryWriter {
        self.writer_with(Arc::new(Unarmed))
    }

    pub(super) fn writer_with(&self, kill: Arc<dyn KillPoints>) -> HistoryWriter {
        let journal = Arc::clone(&self.journal);
        let clock = Arc::new(SystemClock);
        HistoryWriter::new(self.location(), journal, self.state(), (clock, kill))
    }

    /// A writer whose clock is ahead by some days.
    pub(super) fn writer_in(&self, days: u64) -> HistoryWriter {
        let clock = Arc::new(Ahead(Duration::from_secs(days * 86_400)));
        let outside = (clock as Arc<dyn Clock>, Arc::new(Unarmed) as Arc<dyn KillPoints>);
        HistoryWriter::new(self.location(), Arc::clone(&self.journal), self.state(), outside)
    }

    /// A run that is over, whose one step has these rows.
    pub(super) async fn run(&self, id: &str, rows: Vec<HistoryRow>) {
        self.record(id, begun(id)).await;
        let mut events = worked(rows);
        events.push(ended());
        self.record(id, events).await;
    }

    pub(super) async fn record(&self, id: &str, events: Vec<Event>) {
        let stream = Stream::Run(RunId::new(id));
        let append = Append { stream, expect: Expect::Anything, events };
        self.journal.append(vec![append], Durability::Synced).await.unwrap();
    }

    /// The rows of a query.
    pub(super) async fn ask(&self, sql: &str) -> Vec<Value> {
        let answer = history::answer(&self.location(), &Query::new(sql), &[], None).await;
        answer.unwrap().rows().unwrap()
    }

    /// The one number that a query returns.
    pub(super) async fn number(&self, sql: &str) -> i64 {
        let rows = self.ask(sql).await;
        let row = rows[0].as_object().unwrap();
        row.values().next().unwrap().as_i64().unwrap()
    }
}

pub(super) fn begun(id: &str) -> Vec<Event> {
    let by = Principal { name: "ann".to_owned(), from: "test".to_owned() };
    let created = Event::RunCreated {
        plan: Digest::of_bytes(id.as_bytes()),
        workflow: "health_check".to_owned(),
        target: target(),
        key: None,
        by: by.clone(),
        yes: false,
        forked_from: None,
        cause: None,
    };
    vec![created, Event::RunClaimed { by, pid: 1 }]
}

pub(crate) fn worked(rows: Vec<HistoryRow>) -> Vec<Event> {
    let step = "look".to_owned();
    let started = Event::AttemptStarted { step: step.clone(), attempt: 1, arguments: Value::Null };
    let output = json!({}).into();
    vec![
        started,
        Event::StepSucceeded { step, output, history: rows.into(), seen: Vec::new(), fact: None },
    ]
}

pub(crate) fn ended() -> Event {
    let (outcome, compensation) = (Outcome::Succeeded, Compensation::None);
    Event::RunFinished { outcome, compensation, outputs: json!({ "level": "normal" }) }
}
