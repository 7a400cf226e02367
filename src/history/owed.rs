//! What the journal owes the history: the typed rows of the runs that ended in a stretch of it.

use std::collections::BTreeMap;

use serde_json::json;

use super::error::HistoryError;
use super::mirror::{self, Loose, RunRows};
use super::row::{self, Row, RowError, Source};
use super::schema::TableDef;
use super::tables::{self, AUDIT, REJECTED};
use crate::journal::query::{AUDIT_KINDS, AuditRow};
use crate::journal::store::{EntryFilter, Head, Stream, is_sealed};
use crate::journal::{Journal, audit};
use crate::kernel::{RunId, Target};
use crate::tools::tool::HistoryRow;

/// About so many rows are held at a time.
const MOST_ROWS: usize = 20_000;

/// How many ends of runs are looked at in one go.
const MOST_RUNS: u32 = 500;

/// The rows of a stretch of the journal, each with the position that made it due.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// The last position of the stretch.
    pub(super) through: u64,
    /// By table.
    pub(super) rows: BTreeMap<&'static str, Vec<(u64, Row)>>,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn add(&mut self, (table, row): (&'static TableDef, Row), due: u64) {
        self.rows.entry(table.name).or_default().push((due, row));
    }

    fn count(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }
}

/// The rows after a position, at the most up to the head; the stretch ends earlier when there are many.
pub(super) async fn after(
    journal: &dyn Journal,
    position: u64,
    head: &Head,
) -> Result<Owed, HistoryError> {
    let mut owed = Owed { through: head.position, ..Owed::default() };
    let kinds = vec!["run_finished".to_owned()];
    let filter =
        EntryFilter { kinds, after: position, limit: Some(MOST_RUNS), ..EntryFilter::default() };
    let ended = journal.entries(filter).await?;
    let is_cut = u32::try_from(ended.len()).is_ok_and(|found| found >= MOST_RUNS);
    let last = ended.last().map(|entry| entry.position);
    for entry in ended.into_iter().filter(|entry| entry.position <= head.position) {
        let run = RunId::new(entry.stream.as_str());
        let entries = journal.read(&Stream::Run(run), 0).await?;
        if is_sealed(0, &entries) {
            // What it did is told by events that are gone. Rows made of the rest would say something else.
            continue;
        }
        let entries = journal.with_rows(entries).await?;
        add_run(&mut owed, &entry.stream, mirror::rows(&entry.stream, entries), entry.position);
        if owed.count() > MOST_ROWS {
            owed.through = entry.position;
            break;
        }
    }
    if let (true, Some(last)) = (is_cut, last) {
        owed.through = owed.through.min(last);
    }
    add_audit(&mut owed, journal, position).await?;
    Ok(owed)
}

fn add_run(owed: &mut Owed, run: &str, rows: RunRows, due: u64) {
    for loose in rows.rows {
        let typed = row::typed(&loose.row, &source(&loose, run, &rows.target));
        let typed = typed.or_else(|error| rejected(&loose, run, &rows.target, &error));
        match typed {
            Ok(typed) => owed.add(typed, due),
            // Cannot be: the row of a rejected row is one of ours.
            Err(error) => tracing::error!(%error, run, "a row of the history was refused"),
        }
    }
}

fn source<'a>(loose: &'a Loose, run: &'a str, target: &'a Target) -> Source<'a> {
    let step = loose.step.as_deref();
    Source { id: loose.id.clone(), run: Some(run), step, target, at: loose.at }
}

/// A row that fits no table is kept as it is.
fn rejected(
    loose: &Loose,
    run: &str,
    target: &Target,
    error: &RowError,
) -> Result<(&'static TableDef, Row), RowError> {
    tracing::warn!(%error, run, step = loose.step, "a history row is kept in `{REJECTED}`");
    let (table_name, row) = (&loose.row.table, &loose.row.row);
    let row = json!({ "table_name": table_name, "why": error.to_string(), "row": row });
    let kept = HistoryRow { table: REJECTED.to_owned(), row };
    row::typed(&kept, &source(loose, run, target))
}

/// Who did what in the stretch, in runs that are over or not and in the installation as a whole.
async fn add_audit(owed: &mut Owed, journal: &dyn Journal, after: u64) -> Result<(), HistoryError> {
    let kinds = || AUDIT_KINDS.map(str::to_owned).into();
    let filter = EntryFilter { kinds: kinds(), after, ..EntryFilter::default() };
    let found = journal.entries(filter).await?;
    let through = owed.through;
    let mut streams: Vec<String> = found
        .into_iter()
        .filter(|entry| entry.position <= through)
        .map(|entry| entry.stream)
        .collect();
    streams.sort_unstable();
    streams.dedup();
    for stream in streams {
        // A line needs what stands before it: whose process it was, which change was proposed.
        let filter =
            EntryFilter { stream: Some(stream.clone()), kinds: kinds(), ..EntryFilter::default() };
        let entries = journal.entries(filter).await?;
        let target = entries.iter().find_map(|entry| match &entry.event {
            crate::journal::Event::RunCreated { target, .. } => Some(target.clone()),
            _ => None,
        });
        let target = target.unwrap_or_default();
        let new = |line: &AuditRow| line.position > after && line.position <= through;
        for line in audit(&entries).into_iter().filter(new) {
            let typed = audit_row(&line, &target);
            match typed {
                Ok(typed) => owed.add(typed, line.position),
                Err(error) => tracing::error!(%error, "a line of the audit was refused"),
            }
        }
    }
    Ok(())
}

fn audit_row(line: &AuditRow, target: &Target) -> Result<(&'static TableDef, Row), RowError> {
    let row = json!({
        "position": line.position,
        "at": line.at,
        "actor": line.actor,
        "actor_from": line.from,
        "action": line.action,
        "detail": line.detail,
    });
    let row = HistoryRow { table: AUDIT.to_owned(), row };
    let id = line.position.to_string();
    let (run, step) = (line.run.as_deref(), line.step.as_deref());
    row::typed(&row, &Source { id, run, step, target, at: line.at })
}

/// The tables in the order in which they are appended to.
pub(super) fn order() -> impl Iterator<Item = &'static TableDef> {
    tables::TABLES.iter()
}
