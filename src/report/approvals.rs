//! What waits for a decision. PURE.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::changes::change_set;
use super::fold::clock;
use super::rehearsal::behind;
use super::style::{Style, Tone, place};
use super::table::table;
use super::view::{ApprovalView, RunView};
use crate::kernel::Direction;

/// A list of open approvals.
pub fn list(style: Style, waiting: &[(&RunView, &ApprovalView)]) -> String {
    let rows = waiting.iter().map(|(run, approval)| {
        let changes: usize = approval.sets.values().map(|set| set.changes.len()).sum();
        vec![
            run.run_id.clone(),
            approval.step.clone(),
            run.workflow.clone(),
            place(&run.target),
            approval.request.risk.to_string(),
            changes.to_string(),
            clock(approval.request.expires_at),
            approval.request.prompt.clone(),
        ]
    });
    let headings = ["run", "step", "workflow", "target", "risk", "changes", "expires", "question"];
    table(style, &headings, rows.collect(), "nothing waits for a decision")
}

/// One approval with every statement that it covers.
pub fn one(style: Style, run: &RunView, approval: &ApprovalView) -> String {
    let mut text = String::new();
    let request = &approval.request;
    let question = style.paint(Tone::Strong, &request.prompt);
    let _ = writeln!(text, "{question}");
    let _ = writeln!(text, "run {} · {} on {}", run.run_id, run.workflow, place(&run.target));
    let _ = writeln!(text, "step {} · {} risk", approval.step, request.risk);
    if !request.reasons.is_empty() {
        let _ = writeln!(text, "asked because: {}", request.reasons.join("; "));
    }
    let _ = writeln!(text, "expires {}, then it is rejected", clock(request.expires_at));
    let _ = writeln!(text, "digest {}", request.digest);
    let is_shown = request.show.as_object().map_or(!request.show.is_null(), |all| !all.is_empty());
    if is_shown {
        text.push_str(&shown(style, &request.show));
    }
    for (step, set) in &approval.sets {
        let what = match request.direction {
            Direction::Do => "changes",
            Direction::Undo => "undoing",
        };
        let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, &format!("{what} of {step}")));
        text.push_str(&change_set(style, set));
    }
    if request.rehearsed_within.is_some() || !approval.rehearsed.is_empty() {
        text.push('\n');
        if let Some(within) = request.rehearsed_within {
            let _ = writeln!(text, "a rehearsal not older than {within} is demanded");
        }
        for step in approval.sets.keys() {
            text.push_str(&behind(style, step, approval.rehearsed.get(step)));
        }
    }
    if let Some(decided) = &approval.decided {
        let word = serde_json::to_value(decided.decision).unwrap_or_default();
        let _ = writeln!(
            text,
            "\n{} by {} ({}) at {}: {}",
            word.as_str().unwrap_or("decided"),
            decided.by.name,
            decided.by.from,
            clock(decided.at),
            decided.reason
        );
    }
    text
}

/// What a workflow wants people to see: texts as they are, everything else as JSON.
fn shown(style: Style, show: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::String(text) => text.trim_end().to_owned(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    let Some(all) = show.as_object() else { return format!("\n{}\n", plain(show)) };
    let one = |(name, value): (&String, &Value)| {
        format!("\n{}\n{}\n", style.paint(Tone::Strong, name), plain(value))
    };
    all.iter().map(one).collect()
}

/// The same as JSON.
pub fn to_json(run: &RunView, approval: &ApprovalView) -> Value {
    json!({
        "run_id": run.run_id,
        "workflow": run.workflow,
        "target": run.target,
        "step": approval.step,
        "prompt": approval.request.prompt,
        "risk": approval.request.risk,
        "reasons": approval.request.reasons,
        "digest": approval.request.digest,
        "direction": approval.request.direction,
        "asked_at": approval.asked_at,
        "expires_at": approval.request.expires_at,
        "show": approval.request.show,
        "changes": approval.sets,
        "rehearsed_within": approval.request.rehearsed_within,
        "rehearsed": approval.rehearsed,
        "decided": approval.decided,
    })
}
