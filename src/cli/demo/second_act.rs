//! The second act: dead rows, and a worker that is killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cloud;
use super::error::DemoError;
use super::figures::{Bloat, compare, size};
use super::patient::TableFigures;
use super::teller::{Teller, Watched};
use super::worker::Call;
use crate::journal::Entry;
use crate::journal::event::Event;
use crate::kernel::Settlement;
use crate::report::RunView;
use crate::report::style::Tone;

pub(super) const WORKFLOW: &str = "heal_bloat";
/// The step that vacuums, one item for each table.
const VACUUM: &str = "vacuum[";
/// The worker dies when so many tables are vacuumed, before it can write down that the last one is.
const DIES_AFTER: &str = "4";

pub(super) async fn tell(teller: &mut Teller<'_>, traces: &Path) -> Result<Bloat, DemoError> {
    teller.screen.act(2, "Dead rows, and a worker that is killed");
    let (before, from) = (teller.patient.tables().await?, teller.clock.now());
    tables(teller, &before);
    let (killed_by, killed_at) = kill(teller, traces).await?;
    let struck = teller.record.run(WORKFLOW).await?;
    let settled = settled(&struck.entries);
    let begun: BTreeSet<String> = begun(&struck.entries).difference(&settled).cloned().collect();
    survey(teller, &struck.view, killed_at.as_deref());
    let run = struck.view.run_id.clone();
    if killed_by.is_some() {
        teller.expect(Watched::Run(&run), &Call::new(&["resume", &run]), &[0]).await?;
        not_again(teller, &settled, &begun).await?;
    }
    let recorded = teller.record.run(WORKFLOW).await?;
    let after = teller.patient.tables().await?;
    let payments = teller.load.since(from);
    teller.screen.say(&format!("Payments, while all this went on: {payments}."));
    Ok(Bloat {
        run_id: run,
        outcome: recorded.view.outcome,
        killed_by,
        killed_at,
        settled_before_kill: settled,
        begun_before_kill: begun,
        vacuumed: recorded.applied(VACUUM),
        tables: compare(&before, &after),
        payments,
    })
}

/// The tables as they are, those with the most dead rows first.
fn tables(teller: &mut Teller<'_>, figures: &[TableFigures]) {
    let mut figures = figures.to_vec();
    figures.sort_by_key(|table| std::cmp::Reverse((table.dead_rows, table.bytes)));
    let rows = figures.into_iter().map(|table| {
        vec![
            table.name,
            size(table.bytes),
            table.live_rows.to_string(),
            table.dead_rows.to_string(),
            table.vacuums.to_string(),
        ]
    });
    let headings = ["table", "size", "live rows", "dead rows", "vacuums"];
    teller.screen.table(&headings, rows.collect(), "no tables");
    teller.screen.line("");
}

/// Runs the workflow in a worker that is armed to kill itself with SIGKILL.
async fn kill(
    teller: &mut Teller<'_>,
    traces: &Path,
) -> Result<(Option<i32>, Option<String>), DemoError> {
    let trace: PathBuf = traces.join("boundaries");
    let call = Call::new(&["run", WORKFLOW, "--target", cloud::TARGET])
        .with_var("LAKEOPS_KILL_AT", DIES_AFTER)
        .with_var("LAKEOPS_KILL_AMONG", "/after effect")
        .with_var("LAKEOPS_KILL_TRACE", trace.display().to_string());
    let ended = teller.follow(Watched::Newest(WORKFLOW), &call).await?;
    if ended.signal().is_none() && ended.code() != Some(0) {
        return Err(ended.unexpected(&call));
    }
    let reached = std::fs::read_to_string(&trace).unwrap_or_default();
    let last = reached.lines().last().and_then(|line| line.split_once(' '));
    Ok((ended.signal(), last.map(|(_, boundary)| boundary.to_owned())))
}

/// What the journal has of a run whose worker is dead.
fn survey(teller: &mut Teller<'_>, view: &RunView, boundary: Option<&str>) {
    let style = teller.screen.style;
    let text = match boundary {
        Some(boundary) => format!("The worker is gone: SIGKILL at `{boundary}`."),
        None => "The worker is gone.".to_owned(),
    };
    teller.screen.say(&style.paint(Tone::Bad, &text));
    teller.screen.say("What the journal has of it, and nothing else is needed to go on:");
    let items = view.steps.iter().filter(|step| step.key.starts_with(VACUUM));
    let rows: Vec<Vec<String>> = items
        .map(|step| {
            let change = step.changes.first();
            let state = change.map_or("not begun", |change| match change.state.as_str() {
                "applied" => "settled",
                "started" => "begun, its end is not recorded",
                "new" => "proposed",
                _ => "not applied",
            });
            let took = change.and_then(|change| change.duration_ms);
            let took = took.map(|took| format!("{took}ms")).unwrap_or_default();
            let dead = |value: &serde_json::Value| value["dead_rows"].as_i64();
            let dead =
                change.and_then(|change| Some((dead(&change.before)?, dead(&change.after)?)));
            let dead = dead.map(|(from, to)| format!("{from} -> {to}")).unwrap_or_default();
            vec![step.key.clone(), state.to_owned(), dead, took]
        })
        .collect();
    teller.screen.table(&["step", "change", "dead rows", "took"], rows, "nothing was begun");
    teller.screen.line("");
}

/// What the server counts of the tables whose VACUUM had begun before the kill.
async fn not_again(
    teller: &mut Teller<'_>,
    settled: &BTreeSet<String>,
    begun: &BTreeSet<String>,
) -> Result<(), DemoError> {
    let tables = teller.patient.tables().await?;
    let counted = |names: &BTreeSet<String>| {
        let counted = tables.iter().filter(|table| names.contains(&table.name));
        let counted = counted.map(|table| format!("{} ({})", table.name, table.vacuums));
        counted.collect::<Vec<_>>().join(", ")
    };
    teller.screen.line("");
    teller
        .screen
        .say("How often the server itself counts a VACUUM of what had begun before the kill:");
    teller.screen.say(&format!("  settled before it:        {}", counted(settled)));
    if !begun.is_empty() {
        let text = format!("  without a record of it:   {}", counted(begun));
        teller.screen.say(&format!("{text}; begun again, which VACUUM allows"));
    }
    Ok(())
}

/// The tables whose VACUUM is settled.
fn settled(entries: &[Entry]) -> BTreeSet<String> {
    let names = entries.iter().filter_map(|entry| match &entry.event {
        Event::ChangeSettled { step, settlement: Settlement::Applied { .. }, .. } => item(step),
        _ => None,
    });
    names.collect()
}

/// The tables whose VACUUM was begun.
fn begun(entries: &[Entry]) -> BTreeSet<String> {
    let names = entries.iter().filter_map(|entry| match &entry.event {
        Event::ChangeStarted { step, .. } => item(step),
        _ => None,
    });
    names.collect()
}

/// The table of a step `vacuum[shop.orders]`.
fn item(step: &str) -> Option<String> {
    step.strip_prefix(VACUUM)?.strip_suffix(']').map(str::to_owned)
}
