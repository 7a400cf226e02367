//! The audit: who did what, when, why and from where, as it follows from the entries. PURE.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::event::{Decision, DoubtVerdict, Event, Principal, SealedRun, StepKey};
use super::store::{Entry, Stream};
use crate::kernel::{Bind, ChangeSet, Direction, Operation, Settlement, SqlStatement, Timestamp};

/// The kinds that an audit is made from: the filter of the entries to read.
pub const AUDIT_KINDS: [&str; 26] = [
    "run_created",
    "branch_wanted",
    "branch_removed",
    "set_rehearsed",
    "run_claimed",
    "run_parked",
    "cancel_requested",
    "ending_began",
    "run_finished",
    "changes_proposed",
    "approval_requested",
    "approval_decided",
    "change_started",
    "change_noted",
    "change_not_applied",
    "change_settled",
    "change_in_doubt",
    "doubt_settled",
    "compensation_proposed",
    "step_compensated",
    "run_stuck",
    "unstuck",
    "override",
    "schedule_paused",
    "schedule_resumed",
    "runs_sealed",
];

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// When.
    pub at: Timestamp,
    /// The place of the event in the journal.
    pub position: u64,
    /// The run; `None`: the installation as a whole.
    pub run: Option<String>,
    /// The step.
    pub step: Option<String>,
    /// Who: the person that decided, or the one whose process executes the run.
    pub actor: Option<String>,
    /// From where.
    pub from: Option<String>,
    /// What, in one word: `approved`, `change_started`.
    pub action: String,
    /// The rest: the statement, the reason.
    pub detail: String,
}

/// Which rows are shown.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Only what this person did.
    pub actor: Option<String>,
}

impl AuditFilter {
    /// Whether a row is shown.
    pub fn lets_through(&self, row: &AuditRow) -> bool {
        self.since.is_none_or(|since| row.at >= since)
            && self.actor.as_ref().is_none_or(|actor| row.actor.as_ref() == Some(actor))
    }
}

/// The audit of some entries, in journal order.
///
/// The statement of a change is in its proposal and the executor in the claim: give all entries of a
/// run (of [`AUDIT_KINDS`]), and filter the rows.
pub fn audit(entries: &[Entry]) -> Vec<AuditRow> {
    let mut audit = Audit::default();
    entries.iter().filter_map(|entry| audit.row(entry)).collect()
}

#[derive(Default)]
struct Audit<'a> {
    executors: HashMap<&'a str, &'a Principal>,
    /// What is done or undone of a step: by stream, step and direction.
    sets: HashMap<(&'a str, &'a str, Direction), &'a ChangeSet>,
}

/// What an event adds to a row.
struct Line<'a> {
    step: Option<&'a StepKey>,
    /// Who, when it is not the executor.
    by: Option<&'a Principal>,
    action: &'static str,
    detail: String,
}

impl<'a> Line<'a> {
    fn new(action: &'static str, detail: impl Into<String>) -> Self {
        Self { step: None, by: None, action, detail: detail.into() }
    }

    fn of(self, step: &'a StepKey) -> Self {
        Self { step: Some(step), ..self }
    }

    fn by(self, by: &'a Principal) -> Self {
        Self { by: Some(by), ..self }
    }
}

impl<'a> Audit<'a> {
    fn row(&mut self, entry: &'a Entry) -> Option<AuditRow> {
        let stream = entry.stream.as_str();
        let line = self.line_of_run(stream, &entry.event).or_else(|| {
            self.line_of_decision(stream, &entry.event)
                .or_else(|| self.line_of_change(stream, &entry.event))
        })?;
        let actor = line.by.or_else(|| self.executors.get(stream).copied());
        Some(AuditRow {
            at: entry.at,
            position: entry.position,
            run: match Stream::parse(stream) {
                Stream::Run(run) => Some(run.as_str().to_owned()),
                _ => None,
            },
            step: line.step.cloned(),
            actor: actor.map(|principal| principal.name.clone()),
            from: actor.map(|principal| principal.from.clone()),
            action: line.action.to_owned(),
            detail: line.detail,
        })
    }

    fn line_of_run(&mut self, stream: &'a str, event: &'a Event) -> Option<Line<'a>> {
        Some(match event {
            Event::RunCreated { plan, workflow, target, by, .. } => {
                Line::new("run_created", format!("{workflow} on {target}, plan {plan}")).by(by)
            }
            Event::RunClaimed { by, pid } => {
                self.executors.insert(stream, by);
                Line::new("run_claimed", format!("process {pid}")).by(by)
            }
            Event::RunParked { outcome, reason, .. } => {
                Line::new("run_parked", format!("{}: {reason}", outcome.as_str()))
            }
            Event::EndingBegan { outcome, failure, .. } => {
                let why = failure.as_ref().map(|failure| format!(": {failure}"));
                let why = why.unwrap_or_default();
                Line::new("ending_began", format!("{}{why}", outcome.as_str()))
            }
            Event::BranchWanted { branch, target, .. } => {
                Line::new("branch_wanted", format!("{branch} of {target}, to rehearse on"))
            }
            Event::BranchRemoved { branch } => Line::new("branch_removed", branch),
            Event::SetRehearsed { step, rehearsed } => {
                let how = if rehearsed.passed() { "passed" } else { "failed" };
                Line::new("set_rehearsed", format!("{how}; changes {}", rehearsed.set)).of(step)
            }
            Event::RunFinished { outcome, .. } => Line::new("run_finished", outcome.as_str()),
            Event::RunStuck { step, why } => {
                Line { step: step.as_ref(), ..Line::new("run_stuck", why) }
            }
            Event::RunsSealed { by, in_history, archive, runs } => {
                Line::new("runs_sealed", sealed(*in_history, archive.as_deref(), runs)).by(by)
            }
            _ => return None,
        })
    }

    fn line_of_decision(&self, stream: &str, event: &'a Event) -> Option<Line<'a>> {
        Some(match event {
            Event::CancelRequested { by, compensate, reason } => {
                let undo = if *compensate { "and undo: " } else { "" };
                Line::new("cancel_requested", format!("{undo}{reason}")).by(by)
            }
            Event::ApprovalRequested { step, request } => {
                let reasons = request.reasons.join(", ");
                let detail = format!("{} ({reasons}); changes {}", request.prompt, request.digest);
                Line::new("approval_requested", detail).of(step)
            }
            Event::ApprovalDecided { step, digest, decision, by, reason } => {
                let action = match decision {
                    Decision::Approved => "approved",
                    Decision::Rejected => "rejected",
                    Decision::Expired => "expired",
                };
                Line::new(action, format!("{reason}; changes {digest}")).of(step).by(by)
            }
            Event::DoubtSettled { step, index, direction, verdict, by, reason } => {
                let verdict = match verdict {
                    DoubtVerdict::Applied => "it happened",
                    DoubtVerdict::NotApplied => "it did not happen",
                    DoubtVerdict::Abandon => "it is not to be done",
                };
                let change = self.change(stream, step, *index, *direction);
                Line::new("doubt_settled", format!("{verdict}: {reason}; {change}")).of(step).by(by)
            }
            Event::Unstuck { by, reason } => Line::new("unstuck", reason).by(by),
            Event::SchedulePaused { schedule, by, reason } => {
                Line::new("schedule_paused", format!("{schedule}: {reason}")).by(by)
            }
            Event::ScheduleResumed { schedule, by, reason } => {
                Line::new("schedule_resumed", format!("{schedule}: {reason}")).by(by)
            }
            Event::Override { what, by, reason, expires } => {
                let span = expires.map(|span| format!(" for {span}")).unwrap_or_default();
                Line::new("override", format!("{what}{span}: {reason}")).by(by)
            }
            _ => return None,
        })
    }

    fn line_of_change(&mut self, stream: &'a str, event: &'a Event) -> Option<Line<'a>> {
        Some(match event {
            Event::ChangesProposed { step, set, .. } => {
                self.sets.insert((stream, step, Direction::Do), set);
                return None;
            }
            Event::CompensationProposed { step, set, .. } => {
                self.sets.insert((stream, step, Direction::Undo), set);
                return None;
            }
            Event::ChangeStarted { step, index, direction, .. } => {
                Line::new("change_started", self.change(stream, step, *index, *direction)).of(step)
            }
            Event::ChangeNoted { step, index, direction, note } => {
                let change = self.change(stream, step, *index, *direction);
                Line::new("change_noted", format!("{change}: {note}")).of(step)
            }
            Event::ChangeNotApplied { step, index, direction, failure } => {
                let change = self.change(stream, step, *index, *direction);
                Line::new("change_not_applied", format!("{change}: {failure}")).of(step)
            }
            Event::ChangeSettled { step, index, direction, settlement } => {
                let action = match settlement {
                    Settlement::Applied { .. } => "change_applied",
                    Settlement::Moot => "change_moot",
                    Settlement::Abandoned => "change_abandoned",
                };
                Line::new(action, self.change(stream, step, *index, *direction)).of(step)
            }
            Event::ChangeInDoubt { step, index, direction, why } => {
                let change = self.change(stream, step, *index, *direction);
                Line::new("change_in_doubt", format!("{change}: {why}")).of(step)
            }
            Event::StepCompensated { step, left } => {
                Line::new("step_compensated", left.join("; ")).of(step)
            }
            _ => return None,
        })
    }

    /// A change for people: `do 0: drop index "i" [1, "x"]`.
    fn change(&self, stream: &str, step: &str, index: u32, direction: Direction) -> String {
        let set = self.sets.get(&(stream, step, direction));
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let change = set.and_then(|set| set.changes.get(place));
        let what = change.map(|change| describe(&change.operation));
        format!("{direction} {index}: {}", what.unwrap_or_else(|| "(its proposal is gone)".into()))
    }
}

fn sealed(in_history: bool, archive: Option<&str>, runs: &[SealedRun]) -> String {
    let events: u64 = runs.iter().map(|one| one.events).sum();
    let places = [in_history.then(|| "the history has what they did".to_owned())]
        .into_iter()
        .chain([archive.map(|file| format!("their payloads are in {file}"))]);
    let places: Vec<_> = places.flatten().collect();
    let places =
        if places.is_empty() { "nothing else has them".to_owned() } else { places.join(", ") };
    let names: Vec<_> = runs.iter().map(|one| one.run.as_str()).collect();
    format!("{events} payloads are gone, {places}; runs {}", names.join(" "))
}

fn describe(operation: &Operation) -> String {
    match operation {
        Operation::Sql { .. } | Operation::Transaction { .. } | Operation::SqlExperiment { .. } => {
            let texts: Vec<_> = operation.statements().iter().map(statement).collect();
            texts.join("; ")
        }
        Operation::FromArchive(rows) => {
            format!("{} (fed with batch {})", statement(&rows.statement), rows.batch)
        }
        other => other.to_string(),
    }
}

fn statement(statement: &SqlStatement) -> String {
    if statement.binds.is_empty() {
        return statement.text.clone();
    }
    let binds: Vec<_> = statement.binds.iter().map(bind).collect();
    format!("{} [{}]", statement.text, binds.join(", "))
}

fn bind(bind: &Bind) -> String {
    let json = |value: serde_json::Value| value.to_string();
    match bind {
        Bind::Text(text) => json(text.as_str().into()),
        Bind::Int(number) => number.to_string(),
        Bind::Float(number) => number.to_string(),
        Bind::Bool(flag) => flag.to_string(),
        Bind::Timestamp(at) => at.to_string(),
        Bind::Json(value) => value.to_string(),
        Bind::TextArray(texts) => json(texts.as_slice().into()),
        Bind::IntArray(numbers) => json(numbers.as_slice().into()),
        Bind::Null => "null".to_owned(),
        Bind::Secret(name) => format!("secret:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Change, Digest, Receipt};

    fn person(name: &str) -> Principal {
        Principal { name: name.into(), from: format!("{name}'s machine") }
    }

    fn entries(events: Vec<Event>) -> Vec<Entry> {
        let entry = |(position, event)| Entry {
            position,
            stream: "aaaa".into(),
            seq: position,
            at: Timestamp::from_millis(0),
            event,
        };
        (1..).zip(events).map(entry).collect()
    }

    #[test]
    fn a_change_is_traced_from_its_approval_to_its_settlement() {
        let binds = vec![Bind::Int(7), Bind::Secret("TOKEN".into())];
        let change = Change::new("i", "unused", Operation::sql("drop index i", binds));
        let set = ChangeSet::new(vec![change]);
        let (step, index, direction) = ("heal".to_owned(), 0, Direction::Do);
        let log = entries(vec![
            Event::RunClaimed { by: person("ada"), pid: 9 },
            Event::ChangesProposed {
                step: step.clone(),
                arguments: serde_json::Value::Null,
                set: set.clone(),
                policy: serde_json::Value::Null,
                ask: Vec::new(),
                server: serde_json::Value::Null,
            },
            Event::ApprovalDecided {
                step: step.clone(),
                digest: Digest::of_bytes(b""),
                decision: Decision::Approved,
                by: person("bob"),
                reason: "window is open".into(),
            },
            Event::ChangeStarted {
                step: step.clone(),
                set: set.digest,
                index,
                direction,
                fingerprint: serde_json::Value::Null,
            },
            Event::ChangeSettled {
                step,
                index,
                direction,
                settlement: Settlement::Applied { receipt: Receipt::default() },
            },
        ]);
        let rows = audit(&log);
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.actor.as_deref().unwrap(), row.action.as_str(), row.step.as_deref()))
            .collect();
        let heal = Some("heal");
        let expected = vec![
            ("ada", "run_claimed", None),
            ("bob", "approved", heal),
            ("ada", "change_started", heal),
            ("ada", "change_applied", heal),
        ];
        assert_eq!(told, expected);
        assert!(rows[1].detail.starts_with("window is open; changes e3b0c442"));
        assert_eq!(rows[2].detail, "do 0: drop index i [7, secret:TOKEN]");
        let filter = AuditFilter { actor: Some("bob".into()), ..AuditFilter::default() };
        assert_eq!(rows.iter().filter(|row| filter.lets_through(row)).count(), 1);
    }

    #[test]
    fn every_decision_is_read() {
        // A kind that makes a row and is not read would be missing from the audit in silence.
        for kind in Event::DECISIONS {
            assert!(AUDIT_KINDS.contains(&kind), "{kind}");
        }
    }
}
