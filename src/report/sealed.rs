//! A run that was sealed: what is left of it, and where the rest is. PURE.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::audit;
use super::fold::clock;
use super::style::{Style, Tone, count, length, of_state};
use crate::journal::store::RunSummary;
use crate::journal::{AuditRow, Entry, Event, Principal};
use crate::kernel::{RunId, Timestamp};

/// What is left of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SealedView {
    /// What lists say of it.
    #[serde(flatten)]
    pub run: RunSummary,
    /// Who started it.
    pub started_by: Option<Principal>,
    /// The run that it was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<RunId>,
    /// What its workflow returned.
    pub outputs: Value,
    /// The seal.
    pub seal: Option<Seal>,
    /// What is known of who did what.
    pub audit: Vec<AuditRow>,
    /// Nothing is left of its steps.
    pub steps: [Value; 0],
}

/// When, by whom, and where the rest is.
#[derive(Clone, Debug, Serialize)]
pub struct Seal {
    /// The position of the event that says so.
    pub position: u64,
    /// When.
    pub at: Timestamp,
    /// Who had it done, or which setting.
    pub by: Principal,
    /// Whether the history has what the run did.
    pub in_history: bool,
    /// The file with its payloads.
    pub archive: Option<String>,
}

impl SealedView {
    /// What the entries that are left say, and the seal.
    pub fn new(run: RunSummary, entries: &[Entry], seal: Option<Entry>) -> Self {
        let mut view = Self {
            run,
            started_by: None,
            forked_from: None,
            outputs: Value::Null,
            seal: seal.and_then(Seal::of),
            audit: crate::journal::audit(entries),
            steps: [],
        };
        for entry in entries {
            match &entry.event {
                Event::RunCreated { by, forked_from, .. } => {
                    (view.started_by, view.forked_from) = (Some(by.clone()), forked_from.clone());
                }
                Event::RunFinished { outputs, .. } => view.outputs = outputs.clone(),
                _ => {}
            }
        }
        view
    }
}

impl Seal {
    fn of(entry: Entry) -> Option<Self> {
        let Entry { position, at, event, .. } = entry;
        let Event::RunsSealed { by, in_history, archive, .. } = event else { return None };
        Some(Self { position, at, by, in_history, archive })
    }
}

/// A sealed run for people.
pub fn text(style: Style, view: &SealedView) -> String {
    let run = &view.run;
    let (tone, mark) = of_state(run.outcome.as_str());
    let outcome = style.paint(tone, &format!("{mark} {} (sealed)", run.outcome.as_str()));
    let name = style.paint(Tone::Strong, &run.workflow);
    let took = length(run.updated_at.since(run.created_at));
    let mut text = format!("{outcome}  {name} on {}  {took}\n", run.target);
    let by = view.started_by.as_ref().map_or("?", |by| by.name.as_str());
    let facts = format!(
        "run {} · plan {} · started by {by} at {}",
        run.run_id,
        run.plan_id.short(),
        clock(run.created_at)
    );
    let _ = writeln!(text, "{}\n", style.paint(Tone::Faint, &facts));
    text.push_str(&audit::text(style, &view.audit));
    let gone = count(usize::try_from(run.sealed.unwrap_or(0)).unwrap_or(usize::MAX), "event");
    let _ = write!(text, "\nof {gone} only the links of the chain are left");
    if let Some(seal) = &view.seal {
        let _ = write!(text, ": sealed at {} by {}", clock(seal.at), seal.by.name);
    }
    text.push('\n');
    let seal = view.seal.as_ref();
    if seal.is_some_and(|seal| seal.in_history) {
        let _ = writeln!(
            text,
            "what it did: lakeops history query \"select * from step_runs where run_id = '{}'\"",
            run.run_id
        );
    }
    if let Some(file) = seal.and_then(|seal| seal.archive.as_ref()) {
        let _ = writeln!(text, "its events: {file}");
    }
    text
}
