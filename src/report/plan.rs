//! A plan as text. PURE.

use std::fmt::Write as _;

use serde_json::Value;

use super::fold::{action, clock};
use super::style::{Style, Tone, count, place};
use crate::plan::Plan;
use crate::plan::document::{Action, ApprovalMode, PlannedStep, RunIf, Wait};

/// A plan: what it is, its steps in order with both kinds of edges, and what it has pinned.
pub fn text(style: Style, plan: &Plan) -> String {
    let body = &plan.body;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}  {}",
        style.paint(Tone::Strong, &format!("plan {}", plan.id.short())),
        body.workflow
    );
    if !body.description.is_empty() {
        let _ = writeln!(text, "{}", body.description.trim());
    }
    let facts =
        format!("{} · {} · made {}", place(&body.target), body.connection, clock(plan.created_at));
    let _ = writeln!(text, "{}", style.paint(Tone::Faint, &facts));
    for (name, value) in &body.params {
        let _ = writeln!(text, "  {name} = {value}");
    }
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "steps"));
    steps(&mut text, style, &body.steps, 1);
    for (title, list) in [("on failure", &body.on_failure), ("always", &body.always)] {
        if !list.is_empty() {
            let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, title));
            steps(&mut text, style, list, 1);
        }
    }
    pinned(&mut text, style, plan);
    text
}

fn steps(text: &mut String, style: Style, steps: &[PlannedStep], depth: usize) {
    let indent = "  ".repeat(depth);
    for step in steps {
        let id = style.paint(Tone::Strong, &step.id);
        let _ = writeln!(text, "{indent}{id}  {}{}", action(&step.action), marks(step));
        for line in details(step) {
            let line = style.fit(&line, indent.len() + 4);
            let _ = writeln!(text, "{indent}    {}", style.paint(Tone::Faint, &line));
        }
        if let Action::Workflow(embedded) = &step.action {
            self::steps(text, style, &embedded.steps, depth + 1);
            for (title, list) in
                [("on failure", &embedded.on_failure), ("always", &embedded.always)]
            {
                if !list.is_empty() {
                    let _ = writeln!(text, "{indent}  {}", style.paint(Tone::Faint, title));
                    self::steps(text, style, list, depth + 2);
                }
            }
        }
    }
}

/// What stands behind a step's action in brackets.
fn marks(step: &PlannedStep) -> String {
    let mut marks = Vec::new();
    if step.risk != crate::kernel::Risk::Low {
        marks.push(format!("{} risk", step.risk));
    }
    match step.approval {
        ApprovalMode::Auto => {}
        ApprovalMode::Required => marks.push("asks always".to_owned()),
        ApprovalMode::Never => marks.push("asks never".to_owned()),
    }
    if let Some(for_each) = &step.for_each {
        marks.push(format!("for each, {} at once", for_each.max_parallel));
    }
    if step.run_if == RunIf::Always {
        marks.push("runs always".to_owned());
    }
    if step.allow_failure {
        marks.push("may fail".to_owned());
    }
    if marks.is_empty() { String::new() } else { format!("  [{}]", marks.join(", ")) }
}

fn details(step: &PlannedStep) -> Vec<String> {
    let mut lines = Vec::new();
    let edges = |inferred: bool| {
        let of_kind = step.needs.iter().filter(|need| need.inferred == inferred);
        of_kind.map(|need| need.step.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (word, list) in [("needs", edges(false)), ("reads", edges(true))] {
        if !list.is_empty() {
            lines.push(format!("{word} {list}"));
        }
    }
    lines.extend(step.when.as_ref().map(|when| format!("when {when}")));
    if let Some(for_each) = &step.for_each {
        lines.push(format!("each item of {}, by {}", plain(&for_each.items), for_each.key));
    }
    lines.extend(step.target.as_ref().map(|target| format!("on {}", plain(target))));
    lines.extend(step.lock.as_ref().map(|lock| format!("lock {lock}")));
    lines.extend(of_action(&step.action));
    let retry = &step.retry;
    lines.push(format!(
        "timeout {}, {}",
        step.timeout,
        count(retry.max_attempts as usize, "attempt")
    ));
    lines.extend(step.compensate.as_ref().map(|call| format!("undone by tool {}", call.tool)));
    lines
}

fn of_action(action: &Action) -> Vec<String> {
    match action {
        Action::Tool(call) => arguments(&call.with),
        Action::Script { with, .. } => arguments(with),
        Action::Sql { with, .. } => {
            let numbered = with.iter().enumerate();
            numbered.map(|(index, value)| format!("${} = {}", index + 1, plain(value))).collect()
        }
        Action::Workflow(embedded) => arguments(&embedded.params),
        Action::Approval(gate) => {
            let mut lines = vec![format!("asks {:?}, expires after {}", gate.prompt, gate.expires)];
            if !gate.covers.is_empty() {
                lines.push(format!("covers {}", gate.covers.join(", ")));
            }
            lines
        }
        Action::Wait(Wait::Timer { duration }) => vec![format!("for {}", plain(duration))],
        Action::Wait(Wait::Condition { holds, every, within, .. }) => {
            vec![format!("until {holds}, every {every}, within {within}")]
        }
        Action::Wait(Wait::Event { when, within, .. }) => {
            let when = when.as_ref().map(|when| format!("when {when}, ")).unwrap_or_default();
            vec![format!("{when}within {within}")]
        }
        Action::Verify(verify) => {
            let mut lines: Vec<String> =
                verify.assert.iter().map(|assertion| format!("assert {assertion}")).collect();
            lines.push(format!("every {}, within {}", verify.every, verify.within));
            lines
        }
    }
}

fn arguments(with: &Value) -> Vec<String> {
    match with {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name} = {}", plain(value))).collect()
        }
        Value::Null => Vec::new(),
        other => vec![plain(other)],
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn pinned(text: &mut String, style: Style, plan: &Plan) {
    let body = &plan.body;
    let mut lines = Vec::new();
    let texts = body.scripts.iter().chain(&body.sql);
    lines.extend(texts.map(|(name, pinned)| format!("{name}  {}", pinned.sha256.short())));
    lines.extend(
        body.tools.iter().map(|(name, revision)| format!("tool {name}  revision {revision}")),
    );
    lines.extend(body.secrets.iter().map(|name| format!("secret {name} (by reference)")));
    lines.extend(body.lock.iter().map(|lock| format!("lock {lock}")));
    lines.extend(
        body.preconditions
            .iter()
            .map(|one| format!("precondition {}  {}", one.name, style.fit(&one.fingerprint, 40))),
    );
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "pinned"));
        for line in lines {
            let _ = writeln!(text, "  {}", style.paint(Tone::Faint, &line));
        }
    }
    let _ = writeln!(text, "\nid {}", plan.id);
}
