//! Who did what, when and why; and whether the journal is what was written. PURE.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::fold::clock;
use super::style::{Style, Tone};
use super::table::table;
use super::timeline::describe;
use crate::journal::Entry;
use crate::journal::event::{Event, Principal};
use crate::journal::store::Verification;
use crate::kernel::Timestamp;

/// A line of an audit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRow {
    /// The place in the journal.
    pub position: u64,
    /// When.
    pub at: Timestamp,
    /// The run, or `system`.
    pub run: String,
    /// The kind of the event.
    pub kind: String,
    /// The step, when it is about one.
    pub step: Option<String>,
    /// Who acted; `None`: the engine by itself.
    pub actor: Option<String>,
    /// From where.
    pub from: Option<String>,
    /// What happened, for a person.
    pub what: String,
    /// The event as it is stored.
    pub event: Value,
}

/// The rows of an audit. With `actor`: only what this person did.
pub fn rows(entries: &[Entry], actor: Option<&str>) -> Vec<AuditRow> {
    let all = entries.iter().map(row);
    all.filter(|row| actor.is_none_or(|actor| row.actor.as_deref() == Some(actor))).collect()
}

fn row(entry: &Entry) -> AuditRow {
    let (step, what, _) = describe(&entry.event);
    let by = principal(&entry.event);
    AuditRow {
        position: entry.position,
        at: entry.at,
        run: entry.stream.clone(),
        kind: entry.event.kind().to_owned(),
        step: step.map(str::to_owned),
        actor: by.map(|by| by.name.clone()),
        from: by.map(|by| by.from.clone()),
        what,
        event: serde_json::to_value(&entry.event).unwrap_or_default(),
    }
}

/// Who is behind an event.
pub fn principal(event: &Event) -> Option<&Principal> {
    match event {
        Event::RunCreated { by, .. }
        | Event::RunClaimed { by, .. }
        | Event::CancelRequested { by, .. }
        | Event::ApprovalDecided { by, .. }
        | Event::DoubtSettled { by, .. }
        | Event::Unstuck { by, .. }
        | Event::Override { by, .. } => Some(by),
        _ => None,
    }
}

/// The rows as a table.
pub fn text(style: Style, rows: &[AuditRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.position.to_string(),
            clock(row.at),
            row.run.get(..8).unwrap_or(&row.run).to_owned(),
            row.actor.clone().unwrap_or_else(|| "-".to_owned()),
            row.step.clone().unwrap_or_default(),
            row.what.clone(),
        ]
    });
    let headings = ["#", "when", "run", "actor", "step", "what"];
    table(style, &headings, cells.collect(), "the journal has nothing like that")
}

/// The rows as comma-separated values, with a heading.
pub fn csv(rows: &[AuditRow]) -> String {
    let mut text = String::from("position,at,run,kind,step,actor,from,what\n");
    for row in rows {
        let cells = [
            row.position.to_string(),
            row.at.to_string(),
            row.run.clone(),
            row.kind.clone(),
            row.step.clone().unwrap_or_default(),
            row.actor.clone().unwrap_or_default(),
            row.from.clone().unwrap_or_default(),
            row.what.clone(),
        ];
        let _ = writeln!(text, "{}", cells.map(|cell| csv_cell(&cell)).join(","));
    }
    text
}

fn csv_cell(text: &str) -> String {
    // A cell that a spreadsheet would take for a formula gets a quote in front.
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// What a verification found.
pub fn verification(style: Style, found: &Verification) -> String {
    let head = format!(
        "head {} at {} of journal {}",
        found.head.hash, found.head.position, found.head.journal
    );
    match &found.broken {
        None => {
            let line = format!("✓ {} events are as they were written", found.events);
            format!("{}\n{}\n", style.paint(Tone::Good, &line), style.paint(Tone::Faint, &head))
        }
        Some(broken) => {
            let event = broken.event.as_deref().unwrap_or("an event that cannot be read");
            let line =
                format!("✗ broken at position {}: {event}: {}", broken.position, broken.what);
            format!("{}\n{}\n", style.paint(Tone::Bad, &line), style.paint(Tone::Faint, &head))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_are_quoted_and_no_formulas() {
        assert_eq!(csv_cell("plain"), "plain");
        assert_eq!(csv_cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_cell("=cmd()"), "'=cmd()");
    }
}
