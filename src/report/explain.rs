//! Why a step ran, or did not: each condition and rule with the values that it saw. PURE.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::fold::clock;
use super::run::{compact, skip_reason, tally};
use super::style::{Style, Tone, of_state};
use super::view::{ApprovalView, RunView, StepView};
use crate::kernel::Seen;
use crate::plan::document::{Action, PlannedStep, RunIf};

/// A step explained as text.
pub fn text(style: Style, run: &RunView, step: &StepView, planned: Option<&PlannedStep>) -> String {
    let mut text = String::new();
    let (tone, mark) = of_state(&step.state);
    let state = style.paint(tone, &format!("{mark} {}", step.state));
    let _ = writeln!(text, "{}  {}  {state}", style.paint(Tone::Strong, &step.key), step.action);
    order(&mut text, run, planned);
    condition(&mut text, style, step, planned);
    if let Some(reason) = &step.skipped {
        let _ = writeln!(text, "\nit did not run: {}", skip_reason(reason));
    }
    section(&mut text, style, "its arguments", &step.grounds.arguments);
    seen(&mut text, style, "what it saw", &step.grounds.seen);
    if let Some(items) = step.grounds.items {
        let _ = writeln!(text, "\nit fanned out to {items} items");
    }
    changes(&mut text, style, step);
    for approval in approvals(run, &step.key) {
        asked(&mut text, style, approval);
    }
    for (attempt, failure) in &step.grounds.failures {
        let _ = writeln!(text, "\nattempt {attempt} failed ({}): {failure}", failure.code);
        if let Some(help) = &failure.help {
            let _ = writeln!(text, "  help: {help}");
        }
    }
    section(&mut text, style, "what it saw last", &step.grounds.result);
    section(&mut text, style, "its output", &step.output);
    text
}

fn order(text: &mut String, run: &RunView, planned: Option<&PlannedStep>) {
    let Some(planned) = planned else { return };
    for need in &planned.needs {
        let state = run.step(&need.step).map_or("?", |step| step.state.as_str());
        let why = if need.inferred { "an expression names it" } else { "`needs`" };
        let _ = writeln!(text, "  after {} ({state}): {why}", need.step);
    }
    if planned.run_if == RunIf::Always {
        let _ = writeln!(text, "  runs whatever became of what it needs (`run_if: always`)");
    }
}

fn condition(text: &mut String, style: Style, step: &StepView, planned: Option<&PlannedStep>) {
    let written = planned.and_then(|planned| planned.when.as_deref());
    match (&step.grounds.condition, written) {
        (Some((result, saw)), written) => {
            let written = written.unwrap_or("its condition");
            let tone = if *result { Tone::Good } else { Tone::Warn };
            let result = style.paint(tone, &result.to_string());
            let _ = writeln!(text, "\nwhen {written}  =>  {result}");
            values(text, style, saw);
        }
        (None, Some(written)) if !step.key.ends_with(']') => {
            let _ = writeln!(text, "\nwhen {written}  =>  not evaluated yet");
        }
        (None, _) => {}
    }
}

fn changes(text: &mut String, style: Style, step: &StepView) {
    if step.grounds.proposals == 0 {
        return;
    }
    let times = step.grounds.proposals;
    let _ = writeln!(text, "\nit proposed {} (proposal {times})", tally(&step.changes));
    for change in &step.changes {
        let why = step.grounds.set.as_ref().and_then(|set| {
            set.changes.get(usize::try_from(change.index).ok()?).map(|change| change.why.as_str())
        });
        let object = style.paint(Tone::Strong, &change.object);
        let _ = writeln!(text, "  {} {object}: {}", change.index, why.unwrap_or_default());
    }
    policy(text, style, &step.grounds.policy);
    if step.grounds.ask.is_empty() {
        let _ = writeln!(text, "no approval is needed");
    } else {
        let _ = writeln!(text, "an approval is needed: {}", step.grounds.ask.join("; "));
    }
}

/// The policy's answer, one line for each change that it was asked about.
fn policy(text: &mut String, style: Style, policy: &Value) {
    let answers: Vec<&Value> = match policy {
        Value::Null => return,
        Value::Array(answers) => answers.iter().collect(),
        one => vec![one],
    };
    let _ = writeln!(text, "{}", style.paint(Tone::Strong, "the change policy said"));
    for answer in answers {
        let Some(verdict) = answer["verdict"].as_str() else {
            let _ = writeln!(text, "  {}", compact(answer));
            continue;
        };
        let _ = writeln!(text, "  change {}: {verdict}", answer["change"]);
        for rule in answer["rules"].as_array().into_iter().flatten() {
            self::rule(text, style, "    ", rule);
        }
    }
}

/// A rule of a script: whether it held, why, and the values that it saw.
fn rule(text: &mut String, style: Style, indent: &str, rule: &Value) {
    let field = |name: &str| rule[name].as_str().unwrap_or_default();
    let holds = rule["verdict"] == true;
    let line = format!("{indent}{} is {holds}: {}", field("rule"), field("why"));
    let tone = if holds { Tone::Warn } else { Tone::Faint };
    let _ = writeln!(text, "{}", style.paint(tone, &line));
    for seen in rule["seen"].as_array().into_iter().flatten() {
        let name = seen["name"].as_str().unwrap_or_default();
        let _ = writeln!(text, "{indent}  {name} = {}", seen["value"]);
    }
}

fn approvals<'a>(run: &'a RunView, key: &str) -> Vec<&'a ApprovalView> {
    let is_about =
        |approval: &&ApprovalView| approval.step == key || approval.sets.contains_key(key);
    run.approvals.iter().filter(is_about).collect()
}

fn asked(text: &mut String, style: Style, approval: &ApprovalView) {
    let request = &approval.request;
    let _ = writeln!(
        text,
        "\nasked at {}: {} (digest {})",
        clock(approval.asked_at),
        style.paint(Tone::Strong, &request.prompt),
        request.digest.short()
    );
    match &approval.decided {
        Some(decided) => {
            let word = serde_json::to_value(decided.decision).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {} by {} at {}: {}",
                word.as_str().unwrap_or("decided"),
                decided.by.name,
                clock(decided.at),
                decided.reason
            );
        }
        None => {
            let _ = writeln!(text, "  nobody has decided; expires {}", clock(request.expires_at));
        }
    }
}

fn section(text: &mut String, style: Style, title: &str, value: &Value) {
    let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
    if value.is_null() || is_empty {
        return;
    }
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, title));
    let pretty = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    for line in pretty.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn seen(text: &mut String, style: Style, title: &str, saw: &[Seen]) {
    if !saw.is_empty() {
        let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, title));
        values(text, style, saw);
    }
}

fn values(text: &mut String, style: Style, saw: &[Seen]) {
    for seen in saw {
        if seen.name.starts_with("rule ") && seen.value["rule"].is_string() {
            rule(text, style, "  ", &seen.value);
        } else {
            let _ = writeln!(text, "  {} = {}", seen.name, seen.value);
        }
    }
}

/// A step explained as JSON.
pub fn to_json(run: &RunView, step: &StepView, planned: Option<&PlannedStep>) -> Value {
    let evidence = &step.grounds;
    let condition = evidence.condition.as_ref().map(|(result, saw)| {
        let written = planned.and_then(|planned| planned.when.clone());
        json!({ "expression": written, "result": result, "seen": saw })
    });
    let failures: Vec<Value> = evidence
        .failures
        .iter()
        .map(|(attempt, failure)| json!({ "attempt": attempt, "failure": failure }))
        .collect();
    json!({
        "run_id": run.run_id,
        "step": step.key,
        "action": step.action,
        "state": step.state,
        "needs": planned.map(|planned| &planned.needs),
        "condition": condition,
        "skipped": step.skipped,
        "arguments": evidence.arguments,
        "seen": evidence.seen,
        "changes": step.changes,
        "policy": evidence.policy,
        "ask": evidence.ask,
        "approvals": approvals(run, &step.key),
        "failures": failures,
        "result": evidence.result,
        "output": step.output,
    })
}

/// The planned step behind a key of a run: `a[x]/b` was planned as step `b` of the workflow in `a`.
pub fn planned<'a>(steps: &'a [PlannedStep], key: &str) -> Option<&'a PlannedStep> {
    steps.iter().find_map(|step| {
        let rest = key.strip_prefix(step.id.as_str())?;
        if rest.is_empty() || (rest.starts_with('[') && rest.ends_with(']') && !rest.contains("]/"))
        {
            return Some(step);
        }
        let Action::Workflow(embedded) = &step.action else { return None };
        let of_item = || rest.strip_prefix('[').and_then(|rest| rest.split_once("]/"));
        let inner = rest.strip_prefix('/').or_else(|| Some(of_item()?.1))?;
        planned(&embedded.steps, inner)
    })
}
