//! What a rehearsal showed. PURE.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::fold::clock;
use super::run::compact;
use super::style::{Style, Tone, count, length};
use crate::journal::rehearsal::{Evidence, Rehearsed, Trial, TrialEnd};
use crate::kernel::Span;

/// A run that tried changes on throw-away branches.
#[derive(Clone, Debug, Serialize)]
pub struct RehearsalView {
    /// After how long its branches remove themselves.
    pub ttl: Span,
    /// Its branches.
    pub branches: Vec<BranchView>,
    /// What trying each step's changes showed, the newest try of each.
    pub steps: Vec<StepEvidence>,
}

/// A throw-away branch.
#[derive(Clone, Debug, Serialize)]
pub struct BranchView {
    /// Its id.
    pub branch: String,
    /// Whether it was removed.
    pub removed: bool,
}

/// What trying a step's changes showed.
#[derive(Clone, Debug, Serialize)]
pub struct StepEvidence {
    /// The step.
    pub step: String,
    /// The evidence.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// A rehearsal: each step with its changes, then what became of the branches.
pub fn rehearsal(style: Style, view: &RehearsalView) -> String {
    let mut text = String::new();
    for step in &view.steps {
        let rehearsed = &step.evidence.rehearsed;
        let (tone, mark) =
            if rehearsed.passed() { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let on = rehearsed.branch.as_ref().map_or_else(
            || "no change of a database".to_owned(),
            |branch| format!("tried on branch {branch}"),
        );
        let _ = writeln!(text, "  {} {}  {on}", style.paint(tone, mark), step.step);
        text.push_str(&findings(style, rehearsed));
    }
    if view.steps.is_empty() {
        text.push_str("  no step proposed a change\n");
    }
    for branch in &view.branches {
        let what = if branch.removed {
            "was removed".to_owned()
        } else {
            format!("is removed at the end, or expires {} after it was made", view.ttl)
        };
        let line = format!("branch {} {what}", branch.branch);
        let _ = writeln!(text, "  {}", style.paint(Tone::Faint, &line));
    }
    text
}

/// The evidence that stands behind a set that waits for an approval, or that there is none.
pub fn behind(style: Style, step: &str, evidence: Option<&Evidence>) -> String {
    let Some(evidence) = evidence else {
        return format!("changes of {step}: not rehearsed\n");
    };
    let word = if evidence.rehearsed.passed() { "rehearsed" } else { "rehearsed, and it failed" };
    let at = clock(evidence.at);
    let head = format!("changes of {step}: {word}, at {at} in run {}", evidence.run);
    format!("{}\n{}", style.paint(Tone::Strong, &head), findings(style, &evidence.rehearsed))
}

fn findings(style: Style, rehearsed: &Rehearsed) -> String {
    let mut text = String::new();
    for trial in &rehearsed.changes {
        let tone = match trial.ended {
            TrialEnd::Applied | TrialEnd::Moot => Tone::Good,
            TrialEnd::Failed => Tone::Bad,
            TrialEnd::NotRehearsed | TrialEnd::NotReached => Tone::Faint,
        };
        let statement = style.fit(&trial.operation, 10 + trial.object.chars().count());
        let statement = style.paint(Tone::Faint, &statement);
        let _ = writeln!(text, "      {}  {statement}", trial.object);
        let facts = facts(trial);
        let ended = style.paint(tone, trial.ended.as_str());
        let _ = writeln!(text, "          {ended}{facts}");
        if !trial.locks.is_empty() {
            let locks: Vec<String> =
                trial.locks.iter().map(|lock| format!("{} {}", lock.mode, lock.relation)).collect();
            let _ = writeln!(text, "          locks: {}", locks.join(", "));
        }
    }
    let lines = structure(&rehearsed.schema);
    if !lines.is_empty() {
        let _ = writeln!(text, "      structure afterwards");
    }
    for line in lines {
        let _ = writeln!(text, "          {line}");
    }
    if let Some(why) = &rehearsed.schema_unknown {
        let _ = writeln!(text, "      structure not measured: {why}");
    }
    if let Some(failure) = &rehearsed.failure {
        let _ = writeln!(text, "      {}", style.paint(Tone::Bad, &failure.message));
    }
    text
}

fn facts(trial: &Trial) -> String {
    let Some(receipt) = &trial.receipt else { return String::new() };
    let mut parts = vec![String::new()];
    parts.extend(receipt.duration_ms.map(|millis| length(Duration::from_millis(millis))));
    let rows = receipt.rows.map(|rows| usize::try_from(rows).unwrap_or(usize::MAX));
    parts.extend(rows.map(|rows| count(rows, "row")));
    if !receipt.before.is_null() || !receipt.after.is_null() {
        parts.push(format!("{} -> {}", compact(&receipt.before), compact(&receipt.after)));
    }
    parts.join(" · ")
}

/// The differences of the structure, one to a line: `+ column public.a.b integer`.
fn structure(differences: &Value) -> Vec<String> {
    let text = |difference: &Value, key: &str| {
        difference.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let line = |difference: &Value| {
        let sign = match difference.get("action").and_then(Value::as_str) {
            Some("added") => "+",
            Some("removed") => "-",
            _ => "~",
        };
        let parts = ["kind", "object", "column_type"].map(|key| text(difference, key));
        format!("{sign} {}", parts.join(" ")).trim_end().to_owned()
    };
    differences.as_array().into_iter().flatten().map(line).collect()
}
