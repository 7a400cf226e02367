//! One run, and a list of runs, as text. PURE.

use std::fmt::Write as _;

use serde_json::Value;

use super::changes::without_record;
use super::fold::clock;
use super::rehearsal::rehearsal;
use super::style::{Style, Tone, count, length, of_state, place};
use super::table::table;
use super::view::{ChangeView, RunView, StepView};
use crate::journal::event::{Compensation, Outcome, SkipReason};
use crate::journal::store::RunSummary;
use crate::kernel::Timestamp;

/// How much of a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Steps and what is waited for.
    Brief,
    /// The changes of each step too.
    Changes,
    /// The outputs too.
    Outputs,
}

/// A run: heading, steps, and what it waits for.
pub fn run(style: Style, view: &RunView, detail: Detail) -> String {
    let mut text = heading(style, view);
    text.push('\n');
    let is_shown = |step: &&StepView| {
        step.state != "pending" || !(view.outcome.is_final() || view.rehearsal.is_some())
    };
    let steps: Vec<&StepView> = view.steps.iter().filter(is_shown).collect();
    let widest = |of: &dyn Fn(&StepView) -> usize| {
        steps.iter().map(|step| of(step)).max().unwrap_or(0).min(44)
    };
    let columns = Columns {
        key: widest(&|step| step.key.chars().count() + 2 * step.depth),
        action: widest(&|step| step.action.chars().count()),
        state: widest(&|step| step.state.len()),
    };
    if let Some(view) = &view.rehearsal {
        text.push_str(&rehearsal(style, view));
    }
    for step in steps {
        step_lines(&mut text, style, step, &columns);
        if detail != Detail::Brief {
            change_lines(&mut text, style, step);
        }
        if detail == Detail::Outputs && !step.output.is_null() {
            indented(&mut text, style, step.depth, &pretty(&step.output));
        }
    }
    if detail == Detail::Outputs && !view.outputs.is_null() {
        let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "outputs"));
        indented(&mut text, style, 0, &pretty(&view.outputs));
    }
    text.push_str(&ending(style, view));
    text
}

fn heading(style: Style, view: &RunView) -> String {
    let (tone, mark) = of_state(view.outcome.as_str());
    let kind = if view.rehearsal.is_some() { " (rehearsal)" } else { "" };
    let outcome = style.paint(tone, &format!("{mark} {}{kind}", view.outcome.as_str()));
    let name = style.paint(Tone::Strong, &view.workflow);
    let took = length(view.updated_at.since(view.created_at));
    let mut text =
        format!("{outcome}  {name} on {} ({})  {took}\n", place(&view.target), view.connection);
    let by = view.started_by.as_ref().map_or("?", |by| by.name.as_str());
    let mut facts = format!(
        "run {} · plan {} · started by {by} at {}",
        view.run_id,
        view.plan_id.short(),
        clock(view.created_at)
    );
    if let Some(other) = &view.forked_from {
        let _ = write!(facts, " · forked from {other}");
    }
    if view.claims > 1 {
        let _ = write!(facts, " · resumed {}", count(view.claims as usize - 1, "time"));
    }
    let _ = writeln!(text, "{}", style.paint(Tone::Faint, &facts));
    text
}

struct Columns {
    key: usize,
    action: usize,
    state: usize,
}

fn step_lines(text: &mut String, style: Style, step: &StepView, columns: &Columns) {
    let (width, actions, states) = (columns.key, columns.action, columns.state);
    let (tone, mark) = of_state(&step.state);
    let indent = "  ".repeat(step.depth);
    let key = format!("{indent}{}", step.key);
    let mut line = format!("  {} {key:<width$}  ", style.paint(tone, mark));
    let action = format!("{:<actions$}", step.action);
    let _ = write!(line, "{}  ", style.paint(Tone::Faint, &action));
    let _ = write!(line, "{}", style.paint(tone, &format!("{:<states$}", step.state)));
    if let Some(took) = took(step) {
        let _ = write!(line, "  {took:>7}");
    }
    if step.attempts > 1 {
        let _ = write!(line, "  {}", count(step.attempts as usize, "attempt"));
    }
    let about = about(step);
    if !about.is_empty() {
        let _ = write!(line, "  {about}");
    }
    let _ = writeln!(text, "{}", line.trim_end());
    if let Some(failure) = step.failure.as_ref().filter(|_| step.state != "succeeded") {
        let _ = writeln!(text, "      {indent}{}", style.paint(Tone::Bad, &failure.message));
        if let Some(help) = &failure.help {
            let _ = writeln!(text, "      {indent}help: {help}");
        }
    }
}

fn took(step: &StepView) -> Option<String> {
    let (started, finished) = (step.started_at?, step.finished_at?);
    (step.state != "skipped").then(|| length(finished.since(started)))
}

fn about(step: &StepView) -> String {
    let mut parts = Vec::new();
    if let Some(reason) = &step.skipped {
        parts.push(skip_reason(reason));
    }
    if let Some(items) = step.grounds.items {
        parts.push(count(items, "item"));
    }
    if !step.changes.is_empty() {
        parts.push(tally(&step.changes));
    }
    parts.extend(step.waiting.clone());
    parts.join(" · ")
}

/// `3 changes: 2 applied, 1 moot`
pub(super) fn tally(changes: &[ChangeView]) -> String {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for change in changes {
        match states.iter_mut().find(|(state, _)| *state == change.state) {
            Some((_, number)) => *number += 1,
            None => states.push((&change.state, 1)),
        }
    }
    let parts: Vec<String> =
        states.iter().map(|(state, number)| format!("{number} {}", words(state))).collect();
    format!("{}: {}", count(changes.len(), "change"), parts.join(", "))
}

fn words(state: &str) -> String {
    match state {
        "new" => "not begun".to_owned(),
        state => state.replace('_', " "),
    }
}

/// Why a step did not run.
pub(super) fn skip_reason(reason: &SkipReason) -> String {
    match reason {
        SkipReason::Condition => "its condition was false".to_owned(),
        SkipReason::NeedsSkipped => "what it needs was skipped".to_owned(),
        SkipReason::NeedFailed { step } => format!("`{step}` failed"),
        SkipReason::RunEnding => "the run was ending".to_owned(),
        SkipReason::Rejected => "an approval was rejected".to_owned(),
    }
}

fn change_lines(text: &mut String, style: Style, step: &StepView) {
    let indent = "  ".repeat(step.depth);
    let lists = [("", &step.changes), ("undo ", &step.undone)];
    for (word, change) in lists.iter().flat_map(|(word, all)| all.iter().map(move |c| (word, c))) {
        let (tone, mark) = of_state(&change.state);
        let mark = style.paint(tone, mark);
        let head = format!("      {indent}{mark} {word}{} {}  ", change.index, change.object);
        let used = 8 + indent.len() + word.len() + change.object.chars().count() + 4;
        let statement = style.fit(without_record(&change.operation), used);
        let _ = writeln!(text, "{head}{}", style.paint(Tone::Faint, &statement));
        let facts = facts(change);
        if !facts.is_empty() {
            let _ = writeln!(text, "          {indent}{facts}");
        }
    }
}

fn facts(change: &ChangeView) -> String {
    if change.state == "new" && change.note.is_none() {
        return String::new();
    }
    let mut parts = vec![words(&change.state)];
    parts.extend(change.duration_ms.map(|millis| length(std::time::Duration::from_millis(millis))));
    parts.extend(change.rows.map(|rows| count(usize::try_from(rows).unwrap_or(usize::MAX), "row")));
    if change.recovered {
        parts.push("found done after a crash".to_owned());
    }
    if !change.before.is_null() || !change.after.is_null() {
        parts.push(format!("{} -> {}", compact(&change.before), compact(&change.after)));
    }
    parts.extend(change.note.clone());
    parts.join(" · ")
}

/// A value on one line: an object of one field is that field.
pub(super) fn compact(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let parts: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name} {}", compact(value))).collect();
            parts.join(", ")
        }
        Value::String(text) => text.clone(),
        Value::Null => "not measured".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn indented(text: &mut String, style: Style, depth: usize, body: &str) {
    let indent = "  ".repeat(depth);
    for line in body.lines() {
        let _ = writeln!(text, "      {indent}{}", style.paint(Tone::Faint, line));
    }
}

fn ending(style: Style, view: &RunView) -> String {
    let mut text = String::new();
    let mut lines = Vec::new();
    if let Some(failure) = &view.failure {
        lines.push(style.paint(Tone::Bad, &format!("failed: {}", failure.message)));
        // A rehearsal has no step that would say it.
        let help = failure.help.as_ref().filter(|_| view.rehearsal.is_some());
        lines.extend(help.map(|help| format!("  help: {help}")));
        // Those that may fail are often why a later one did.
        let earlier = view.steps.iter().filter_map(|step| Some((step, step.failure.as_ref()?)));
        for (step, why) in earlier.filter(|(_, why)| !failure.message.contains(&why.message)) {
            lines.push(format!("before it, step `{}` failed: {}", step.key, why.message));
        }
    }
    let is_said = view.outcome == Outcome::Succeeded
        || (view.outcome == Outcome::WaitingApproval && !view.waiting_for.is_empty());
    if let Some(reason) = view.reason.as_ref().filter(|_| !is_said) {
        lines.push(reason.clone());
    }
    match view.compensation {
        Compensation::None => {}
        Compensation::Complete => lines.push("its changes were undone".to_owned()),
        Compensation::Partial => lines.push("some of its changes were undone".to_owned()),
    }
    lines.extend(view.not_undone.iter().map(|what| format!("not undone: {what}")));
    lines.extend(view.waiting_for.iter().map(|what| format!("waits for {what}")));
    let wake_at = view.wake_at.filter(|_| view.outcome == Outcome::Waiting);
    lines.extend(wake_at.map(|at| format!("goes on by itself at {}", clock(at))));
    lines.extend(next(view));
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{}", lines.join("\n"));
    }
    text
}

/// What a person can type next.
fn next(view: &RunView) -> Vec<String> {
    let run = view.run_id.get(..8).unwrap_or(&view.run_id);
    match view.outcome {
        Outcome::WaitingApproval => view
            .open_approvals()
            .flat_map(|approval| {
                let step = &approval.step;
                [
                    format!("  lakeops approvals {run}  (shows what is asked)"),
                    format!("  lakeops approve {run} {step} --reason \"…\""),
                    format!("  lakeops reject {run} {step} --reason \"…\""),
                ]
            })
            .collect(),
        Outcome::InDoubt => view
            .doubts()
            .map(|(step, change)| {
                format!(
                    "  lakeops settle {run} {} {} --as applied|not-applied|abandon --reason \"…\"",
                    step.key, change.index
                )
            })
            .collect(),
        Outcome::Stuck => vec![format!("  lakeops settle {run} --reason \"what you did\"")],
        Outcome::Waiting | Outcome::Running => vec![format!("  lakeops resume {run}")],
        Outcome::Succeeded | Outcome::Failed | Outcome::Cancelled => Vec::new(),
    }
}

/// The parts of a stored target that say something.
fn said(target: &str) -> String {
    let parts: Vec<&str> = target.split('/').filter(|part| *part != "-").collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join("/") }
}

/// A list of runs.
pub fn runs(style: Style, runs: &[RunSummary], now: Timestamp) -> String {
    let rows = runs.iter().map(|run| {
        let (_, mark) = of_state(run.outcome.as_str());
        vec![
            run.run_id.to_string(),
            run.workflow.clone(),
            said(&run.target),
            format!("{mark} {}{}", run.outcome.as_str(), run.sealed.map_or("", |_| " (sealed)")),
            format!("{} ago", length(now.since(run.created_at))),
            length(run.updated_at.since(run.created_at)),
            run.key.clone().unwrap_or_default(),
        ]
    });
    let headings = ["run", "workflow", "target", "outcome", "started", "lasted", "key"];
    table(style, &headings, rows.collect(), "no runs yet; `lakeops run WORKFLOW` starts one")
}
