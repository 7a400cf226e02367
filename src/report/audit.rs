//! Who did what, when and why; and whether the journal is what was written. PURE.

use super::fold::clock;
use super::style::{Style, Tone};
use super::table::table;
use crate::journal::AuditRow;
use crate::journal::store::Verification;

/// The rows as a table.
pub fn text(style: Style, rows: &[AuditRow]) -> String {
    let dash = || "-".to_owned();
    let cells = rows.iter().map(|row| {
        let run = row.run.as_deref().unwrap_or("-");
        vec![
            row.position.to_string(),
            clock(row.at),
            run.get(..8).unwrap_or(run).to_owned(),
            row.actor.clone().unwrap_or_else(dash),
            row.step.clone().unwrap_or_default(),
            row.action.replace('_', " "),
            row.detail.split_whitespace().collect::<Vec<_>>().join(" "),
        ]
    });
    let headings = ["#", "when", "run", "who", "step", "what", "detail"];
    table(style, &headings, cells.collect(), "the journal has nothing like that")
}

/// What a verification found.
pub fn verification(style: Style, found: &Verification) -> String {
    let end = &found.head;
    let head = format!("head {} at event {} of journal {}", end.hash, end.position, end.journal);
    let (tone, line) = match &found.broken {
        None => (Tone::Good, format!("✓ {} events are as they were written", found.events)),
        Some(broken) => {
            let event =
                broken.event.as_ref().map(|event| format!(" ({event})")).unwrap_or_default();
            let line = format!("✗ broken at event {}{event}: {}", broken.position, broken.what);
            (Tone::Bad, line)
        }
    };
    format!("{}\n{}\n", style.paint(tone, &line), style.paint(Tone::Faint, &head))
}
