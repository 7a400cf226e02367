//! What the engine itself has to say of a run that is over, as history rows. PURE.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::tables::{ALERTS, APPROVALS, RUNS, STEPS};
use crate::journal::event::{ApprovalRequest, Decision, Event, SkipReason};
use crate::journal::{Entry, Principal};
use crate::kernel::{ChangeSet, Direction, Failure, Settlement, Target, Timestamp};
use crate::tools::analysis::recommendation::reviewed;
use crate::tools::tool::HistoryRow;

/// A row of a run, before it is typed.
#[derive(Clone, Debug)]
pub(super) struct Loose {
    /// The row.
    pub(super) row: HistoryRow,
    /// Its id, the same whenever it is made again.
    pub(super) id: String,
    /// The step that it is of.
    pub(super) step: Option<String>,
    /// When it was recorded.
    pub(super) at: Timestamp,
}

/// All rows of a run: those of its tools, and what the engine says of it.
#[derive(Debug, Default)]
pub(super) struct RunRows {
    /// The target of the run.
    pub(super) target: Target,
    /// The rows.
    pub(super) rows: Vec<Loose>,
}

/// Makes the rows of a run from its entries.
pub(super) fn rows(run: &str, entries: Vec<Entry>) -> RunRows {
    let mut fold = Fold { run: run.to_owned(), ..Fold::default() };
    for entry in entries {
        fold.entry(entry);
    }
    fold.finish()
}

#[derive(Default)]
struct Fold {
    run: String,
    target: Target,
    rows: Vec<Loose>,
    workflow: String,
    begun: BTreeMap<String, (u32, Timestamp)>,
    asked: BTreeMap<String, (serde_json::Map<String, Value>, Timestamp)>,
    proposed: BTreeMap<String, ChangeSet>,
    /// What each open approval is about, by step.
    shown: BTreeMap<String, Vec<(String, ChangeSet)>>,
    about: serde_json::Map<String, Value>,
    created: Timestamp,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    succeeded: u32,
    failed: u32,
    skipped: u32,
    applied: u32,
    undone: u32,
}

impl Fold {
    fn push(
        &mut self,
        table: &str,
        (id, step): (String, Option<String>),
        at: Timestamp,
        row: Value,
    ) {
        let row = HistoryRow { table: table.to_owned(), row };
        self.rows.push(Loose { row, id: format!("{}/{id}", self.run), step, at });
    }

    fn entry(&mut self, entry: Entry) {
        let at = entry.at;
        match entry.event {
            Event::RunCreated { plan, workflow, target, key, by, forked_from, .. } => {
                self.about = fields(json!({
                    "workflow": &workflow,
                    "plan_id": plan.to_string(),
                    "run_key": key,
                    "forked_from": forked_from.map(|run| run.to_string()),
                    "started_by": by.name,
                    "started_from": by.from,
                    "started_at": at,
                }));
                (self.workflow, self.target, self.created) = (workflow, target, at);
            }
            Event::AttemptStarted { step, attempt, .. } => {
                self.begun.insert(step, (attempt, at));
            }
            Event::ChangesProposed { step, set, .. } => {
                self.begun.entry(step.clone()).or_insert((1, at));
                self.proposed.insert(step, set);
            }
            Event::AttemptFailed { step, attempt, failure, retry_at } => {
                self.counts.failed += u32::from(retry_at.is_none());
                self.attempt(&step, Some(attempt), at, ("failed", Some(&failure), None, 0));
            }
            Event::StepSucceeded { step, history, .. } => {
                self.counts.succeeded += 1;
                let attempt = self.begun.get(&step).map(|(attempt, _)| *attempt);
                self.attempt(&step, attempt, at, ("succeeded", None, None, history.count()));
                for (index, row) in history.fetched().into_iter().enumerate() {
                    let id = format!("{}/{step}/{index}", self.run);
                    self.rows.push(Loose { row, id, step: Some(step.clone()), at });
                }
            }
            Event::StepSkipped { step, reason } => {
                self.counts.skipped += 1;
                self.attempt(&step, None, at, ("skipped", None, Some(why(&reason)), 0));
            }
            Event::EndingBegan { failure: Some(failure), .. } => {
                self.about.insert("failure_code".into(), failure.code.into());
                self.about.insert("failure_message".into(), failure.message.into());
            }
            Event::RunFinished { outcome, compensation, outputs } => {
                self.about.insert("outcome".into(), outcome.as_str().into());
                self.about.insert("compensation".into(), json!(compensation));
                self.about.insert("outputs".into(), outputs);
                let took = at.since(self.created).as_secs_f64();
                self.about.insert("duration_seconds".into(), took.into());
                self.about.insert("finished_at".into(), json!(at));
            }
            other => self.around(other, at),
        }
    }

    fn around(&mut self, event: Event, at: Timestamp) {
        match event {
            Event::ChangeSettled { direction, settlement: Settlement::Applied { .. }, .. } => {
                match direction {
                    Direction::Do => self.counts.applied += 1,
                    Direction::Undo => self.counts.undone += 1,
                }
            }
            Event::ApprovalRequested { step, request } => {
                // Asked again: the earlier request was answered by nobody.
                self.close_approval(&step);
                self.show(&step, &request);
                let asked = fields(json!({
                    "change_set": request.digest.to_string(),
                    "prompt": request.prompt,
                    "risk": request.risk,
                    "reasons": request.reasons.join("; "),
                    "covers": request.covers,
                    "requested_at": at,
                    "expires_at": request.expires_at,
                }));
                self.asked.insert(step, (asked, at));
            }
            Event::ApprovalDecided { step, decision, by, reason, .. } => {
                self.review(&step, decision, &by, at);
                if let Some((asked, since)) = self.asked.get_mut(&step) {
                    asked.append(&mut fields(json!({
                        "decision": decision,
                        "decided_by": by.name,
                        "decided_from": by.from,
                        "decision_reason": reason,
                        "decided_at": at,
                        "waited_seconds": at.since(*since).as_secs_f64(),
                    })));
                }
                self.close_approval(&step);
            }
            Event::NotificationQueued { dedup, severity, title, body, .. } => {
                let row = json!({
                    "alert_id": dedup,
                    "workflow": self.workflow,
                    "severity": severity,
                    "title": title,
                    "body": body,
                    "raised_at": at,
                });
                self.push(ALERTS, (format!("alert/{dedup}"), None), at, row);
            }
            _ => {}
        }
    }

    /// Keeps what an approval is about: a set that is proposed later was not decided on.
    fn show(&mut self, step: &str, request: &ApprovalRequest) {
        let is_done = request.direction == Direction::Do;
        let covers = request.covers.iter().filter(|_| is_done);
        let shown = covers.filter_map(|key| Some((key.clone(), self.proposed.get(key)?.clone())));
        let shown = shown.collect();
        self.shown.insert(step.to_owned(), shown);
    }

    /// What a person decided about advice is part of its life: a rejected one is not given again.
    fn review(&mut self, step: &str, decision: Decision, by: &Principal, at: Timestamp) {
        let shown = self.shown.remove(step).unwrap_or_default();
        let approved = match decision {
            Decision::Approved => true,
            Decision::Rejected => false,
            // Nobody decided.
            Decision::Expired => return,
        };
        for (covered, set) in shown {
            for (index, change) in set.changes.iter().enumerate() {
                let Some(mut row) = reviewed(&change.facts, approved) else { continue };
                if let Value::Object(row) = &mut row.row {
                    row.insert("reviewed_by".into(), by.name.clone().into());
                    row.insert("reviewed_at".into(), json!(at));
                }
                let id = format!("{}/{covered}/review/{index}/{}", self.run, at.as_millis());
                self.rows.push(Loose { row, id, step: Some(covered.clone()), at });
            }
        }
    }

    fn close_approval(&mut self, step: &str) {
        let Some((mut asked, since)) = self.asked.remove(step) else { return };
        asked.insert("workflow".into(), self.workflow.clone().into());
        let key = (format!("{step}/approval/{}", since.as_millis()), Some(step.to_owned()));
        self.push(APPROVALS, key, since, Value::Object(asked));
    }

    fn attempt(
        &mut self,
        step: &str,
        attempt: Option<u32>,
        at: Timestamp,
        (outcome, failure, reason, rows): (&str, Option<&Failure>, Option<String>, usize),
    ) {
        let begun = self.begun.remove(step).map(|(_, since)| since);
        let row = json!({
            "workflow": self.workflow,
            "attempt": attempt,
            "outcome": outcome,
            "failure_code": failure.map(|failure| &failure.code),
            "failure_message": failure.map(|failure| &failure.message),
            "reason": reason,
            "started_at": begun,
            "ended_at": at,
            "duration_seconds": begun.map(|since| at.since(since).as_secs_f64()),
            "history_rows": rows,
        });
        let key = (format!("{step}/attempt/{}", attempt.unwrap_or(0)), Some(step.to_owned()));
        self.push(STEPS, key, at, row);
    }

    fn finish(mut self) -> RunRows {
        let open: Vec<String> = self.asked.keys().cloned().collect();
        for step in open {
            self.close_approval(&step);
        }
        let counts = json!({
            "steps_succeeded": self.counts.succeeded,
            "steps_failed": self.counts.failed,
            "steps_skipped": self.counts.skipped,
            "changes_applied": self.counts.applied,
            "changes_undone": self.counts.undone,
        });
        let mut about = std::mem::take(&mut self.about);
        about.append(&mut fields(counts));
        let created = self.created;
        self.push(RUNS, ("run".into(), None), created, Value::Object(about));
        RunRows { target: self.target, rows: self.rows }
    }
}

fn fields(value: Value) -> serde_json::Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { serde_json::Map::new() }
}

fn why(reason: &SkipReason) -> String {
    match reason {
        SkipReason::Condition => "its condition was false".to_owned(),
        SkipReason::NeedsSkipped => "everything that it needs was skipped".to_owned(),
        SkipReason::NeedFailed { step } => format!("`{step}` failed"),
        SkipReason::RunEnding => "the run was ending".to_owned(),
        SkipReason::Rejected => "an approval was rejected".to_owned(),
    }
}
