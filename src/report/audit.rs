//! Who did what, when and why; and whether the journal is what was written. PURE.

use serde::Serialize;

use super::fold::clock;
use super::style::{Style, Tone, count};
use super::table::table;
use crate::journal::AuditRow;
use crate::journal::store::{Sealable, Space, Verification};

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
        None => {
            let links = found.sealed.events;
            let runs =
                count(usize::try_from(found.sealed.runs).unwrap_or(usize::MAX), "sealed run");
            let sealed = match found.sealed.runs {
                0 => String::new(),
                _ => format!("; of {links} of them, in {runs}, only the links are left"),
            };
            (Tone::Good, format!("✓ {} events are as they were written{sealed}", found.events))
        }
        Some(broken) => {
            let event =
                broken.event.as_ref().map(|event| format!(" ({event})")).unwrap_or_default();
            let line = format!("✗ broken at event {}{event}: {}", broken.position, broken.what);
            (Tone::Bad, line)
        }
    };
    format!("{}\n{}\n", style.paint(tone, &line), style.paint(Tone::Faint, &head))
}

/// What was sealed, or would be.
#[derive(Debug, Serialize)]
pub struct Pruning {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The runs.
    pub runs: Vec<Sealable>,
    /// The file that has their events.
    pub archive: Option<String>,
    /// The file of the journal, then.
    pub space: Space,
}

/// What was sealed, or would be.
pub fn pruned(style: Style, pruning: &Pruning) -> String {
    let size = |bytes: u64| bytesize::ByteSize(bytes).to_string();
    let sum = |of: fn(&Sealable) -> u64| pruning.runs.iter().map(of).sum::<u64>();
    let runs = count(pruning.runs.len(), "run");
    let (events, bytes) = (sum(|run| run.events), size(sum(|run| run.bytes)));
    let done = if pruning.dry_run { "would be sealed" } else { "sealed" };
    let mut text = match pruning.runs.len() {
        0 => {
            "nothing to seal: no run was over for so long that nothing needs any more\n".to_owned()
        }
        _ => format!("{runs} {done}: {events} payloads of {bytes}\n"),
    };
    if pruning.dry_run {
        let row =
            |run: &Sealable| vec![run.run.to_string(), run.events.to_string(), size(run.bytes)];
        let rows = pruning.runs.iter().map(row).collect();
        text.push_str(&table(style, &["run", "payloads", "size"], rows, ""));
    }
    let Space { bytes, free } = pruning.space;
    let line = format!(
        "journal.db has {}, {} of it free: later events use that first, `--compact` gives it back",
        size(bytes),
        size(free)
    );
    text.push_str(&style.paint(Tone::Faint, &line));
    text.push('\n');
    text
}
