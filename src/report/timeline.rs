//! The events of a run, one line each: what `logs` and `watch` print. PURE.

use super::run::skip_reason;
use super::style::{Style, Tone, count};
use crate::journal::Entry;
use crate::journal::event::{Decision, DoubtVerdict, Event};
use crate::kernel::{Direction, Settlement};

/// One line: time, step, what happened.
pub fn line(style: Style, entry: &Entry) -> String {
    let time = entry.at.to_datetime().format("%H:%M:%S%.3f").to_string();
    let (step, what, tone) = describe(&entry.event);
    let step = step.unwrap_or("·");
    let what = what.lines().collect::<Vec<_>>().join(" ");
    let what = tone.map_or_else(|| what.clone(), |tone| style.paint(tone, &what));
    format!("{} {step:<24} {what}", style.paint(Tone::Faint, &time))
}

/// The step that an event is about.
pub fn step_of(event: &Event) -> Option<&str> {
    describe(event).0
}

type Line<'a> = (Option<&'a str>, String, Option<Tone>);

/// What happened, for a person.
pub fn describe(event: &Event) -> Line<'_> {
    run_line(event)
        .or_else(|| step_line(event))
        .or_else(|| change_line(event))
        .unwrap_or_else(|| (None, event.kind().replace('_', " "), None))
}

fn run_line(event: &Event) -> Option<Line<'_>> {
    let (what, tone) = match event {
        Event::RunCreated { workflow, by, .. } => {
            (format!("run of {workflow} created by {} ({})", by.name, by.from), None)
        }
        Event::RehearsalBegan { ttl } => {
            (format!("a rehearsal: on branches that live for {ttl}"), None)
        }
        Event::BranchWanted { branch, .. } => (format!("makes branch {branch}"), None),
        Event::BranchRemoved { branch } => (format!("branch {branch} is gone"), None),
        Event::RunClaimed { by, pid } => {
            (format!("process {pid} of {} took the run", by.name), None)
        }
        Event::PreconditionsTaken { found } => {
            (format!("{} noted", count(found.len(), "fingerprint")), None)
        }
        Event::RunParked { outcome, reason, wake_at } => {
            let wake = wake_at.map(|at| format!(", until {at}")).unwrap_or_default();
            (format!("{}{wake}: {reason}", outcome.as_str()), Some(Tone::Warn))
        }
        Event::CancelRequested { by, reason, .. } => {
            (format!("cancel requested by {}: {reason}", by.name), Some(Tone::Warn))
        }
        Event::EndingBegan { outcome, failure, .. } => {
            let why = failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
            (format!("ends as {}{why}", outcome.as_str()), Some(Tone::Bad))
        }
        Event::RunFinished { outcome, .. } => {
            let (tone, mark) = super::style::of_state(outcome.as_str());
            (format!("{mark} {}", outcome.as_str()), Some(tone))
        }
        Event::LockQueued { lock, step: None } => (format!("queues for lock {lock}"), None),
        Event::LockAcquired { lock, step: None } => (format!("has lock {lock}"), None),
        Event::LockReleased { lock, step: None } => (format!("gave lock {lock} back"), None),
        Event::RunStuck { step: None, why } => (format!("stuck: {why}"), Some(Tone::Bad)),
        Event::Unstuck { by, reason } => (format!("taken care of by {}: {reason}", by.name), None),
        Event::NotificationQueued { severity, title, .. } => {
            (format!("notification ({severity}): {title}"), None)
        }
        Event::NotificationDelivered { dedup } => (format!("notification {dedup} delivered"), None),
        Event::EventPublished { name, .. } => (format!("event {name} published"), None),
        Event::Override { what, by, reason, .. } => {
            (format!("{what} by {}: {reason}", by.name), Some(Tone::Warn))
        }
        _ => return None,
    };
    Some((None, what, tone))
}

fn step_line(event: &Event) -> Option<Line<'_>> {
    let (step, what, tone) = match event {
        Event::LockQueued { lock, step: Some(step) } => {
            (step, format!("queues for lock {lock}"), None)
        }
        Event::LockAcquired { lock, step: Some(step) } => (step, format!("has lock {lock}"), None),
        Event::LockReleased { lock, step: Some(step) } => {
            (step, format!("gave lock {lock} back"), None)
        }
        Event::ConditionEvaluated { step, result, .. } => {
            (step, format!("condition is {result}"), None)
        }
        Event::StepSkipped { step, reason } => {
            (step, format!("skipped: {}", skip_reason(reason)), Some(Tone::Faint))
        }
        Event::ItemsListed { step, items } => (step, count(items.len(), "item"), None),
        Event::ScopeOpened { step, target, .. } => (step, format!("begins on {target}"), None),
        Event::AttemptStarted { step, attempt, .. } => {
            (step, format!("attempt {attempt} started"), None)
        }
        Event::AttemptFailed { step, attempt, failure, retry_at } => {
            let next = retry_at.map(|at| format!("; again at {at}")).unwrap_or_default();
            let tone = if retry_at.is_some() { Tone::Warn } else { Tone::Bad };
            (step, format!("attempt {attempt} failed: {failure}{next}"), Some(tone))
        }
        Event::SetRehearsed { step, rehearsed } if rehearsed.passed() => {
            (step, "rehearsed".to_owned(), Some(Tone::Good))
        }
        Event::SetRehearsed { step, .. } => {
            (step, "rehearsed, and it failed".to_owned(), Some(Tone::Bad))
        }
        Event::StepSucceeded { step, .. } => (step, "succeeded".to_owned(), Some(Tone::Good)),
        Event::WaitStarted { step, deadline } => (step, format!("waits until {deadline}"), None),
        Event::WaitPolled { step, next_at, .. } => {
            (step, format!("looked; looks again at {next_at}"), None)
        }
        Event::StepCompensated { step, left } if left.is_empty() => {
            (step, "undone".to_owned(), Some(Tone::Warn))
        }
        Event::StepCompensated { step, left } => {
            (step, format!("not undone: {}", left.join("; ")), Some(Tone::Bad))
        }
        Event::RunStuck { step: Some(step), why } => {
            (step, format!("stuck: {why}"), Some(Tone::Bad))
        }
        _ => return None,
    };
    Some((Some(step.as_str()), what, tone))
}

fn change_line(event: &Event) -> Option<Line<'_>> {
    let (step, what, tone) = match event {
        Event::ChangesProposed { step, set, .. } => {
            let size = count(set.changes.len(), "change");
            (step, format!("proposes {size}, set {}", set.digest.short()), None)
        }
        Event::ApprovalRequested { step, request } => {
            (step, format!("asks: {} ({} risk)", request.prompt, request.risk), Some(Tone::Warn))
        }
        Event::ApprovalDecided { step, decision, by, reason, .. } => {
            let (word, tone) = match decision {
                Decision::Approved => ("approved", Tone::Good),
                Decision::Rejected => ("rejected", Tone::Bad),
                Decision::Expired => ("expired", Tone::Bad),
            };
            (step, format!("{word} by {}: {reason}", by.name), Some(tone))
        }
        Event::ChangeStarted { step, index, direction, .. } => {
            (step, format!("{} {index} started", verb(*direction)), None)
        }
        Event::ChangeNoted { step, index, direction, note } => {
            (step, format!("{} {index} goes on as {note}", verb(*direction)), None)
        }
        Event::ChangeNotApplied { step, index, direction, failure } => {
            let text = format!("{} {index} did not happen: {failure}", verb(*direction));
            (step, text, Some(Tone::Warn))
        }
        Event::ChangeSettled { step, index, direction, settlement } => {
            let (word, tone) = settled(settlement);
            (step, format!("{} {index} {word}", verb(*direction)), Some(tone))
        }
        Event::ChangeInDoubt { step, index, direction, why } => {
            (step, format!("{} {index} is in doubt: {why}", verb(*direction)), Some(Tone::Bad))
        }
        Event::DoubtSettled { step, index, direction, verdict, by, reason } => {
            let word = match verdict {
                DoubtVerdict::Applied => "happened",
                DoubtVerdict::NotApplied => "did not happen",
                DoubtVerdict::Abandon => "did not happen and is given up",
            };
            let text = format!("{} {index} {word}, says {}: {reason}", verb(*direction), by.name);
            (step, text, None)
        }
        Event::CompensationProposed { step, set, impossible, .. } => {
            let rest = match impossible.len() {
                0 => String::new(),
                number => format!("; {number} cannot be undone"),
            };
            let text = format!("undoes {}{rest}", count(set.changes.len(), "change"));
            (step, text, Some(Tone::Warn))
        }
        _ => return None,
    };
    Some((Some(step.as_str()), what, tone))
}

const fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Do => "change",
        Direction::Undo => "undoing of change",
    }
}

fn settled(settlement: &Settlement) -> (String, Tone) {
    match settlement {
        Settlement::Applied { receipt } => {
            let took = receipt.duration_ms.map(|millis| format!(" in {millis}ms"));
            let found = if receipt.recovered { " (found done)" } else { "" };
            (format!("applied{}{found}", took.unwrap_or_default()), Tone::Good)
        }
        Settlement::Moot => ("moot: its guard no longer holds".to_owned(), Tone::Faint),
        Settlement::Abandoned => ("given up".to_owned(), Tone::Faint),
    }
}
