//! The answer to a question in words. PURE.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::style::{Style, Tone};
use super::table::table;
use crate::tools::analysis::ask::interpretation::Intent;
use crate::tools::analysis::ask::rank::Correction;
use crate::tools::analysis::ask::reply::{Evidence, Fix, text as cell};
use crate::tools::analysis::missing::NotMeasured;

/// What is shown of an answer; what a workflow of the user leaves out is not shown.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shown {
    answer: String,
    evidence: Vec<Evidence>,
    fixes: Vec<Fix>,
    pointers: Vec<Intent>,
    nearest: Vec<Intent>,
    corrections: Vec<Correction>,
    left_out: Vec<String>,
    explanation: Option<Claimed>,
    not_measured: Vec<NotMeasured>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Claimed {
    model: Option<String>,
    explanation: Option<String>,
    sql: Option<String>,
    refused: Option<String>,
    rows: Vec<Value>,
    has_more: bool,
    not_measured: Vec<NotMeasured>,
}

/// An answer: sentences, what they rest on, what would fix it.
pub fn answer(style: Style, outputs: &Value) -> String {
    // Every part by itself: a null in one does not hide the others.
    let known = match outputs {
        Value::Object(fields) => {
            let given = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        other => other.clone(),
    };
    let answer: Shown = serde_json::from_value(known).unwrap_or_default();
    let mut text = format!("{}\n", answer.answer);
    for one in &answer.corrections {
        let line = format!("`{}` was read as `{}`", one.written, one.read_as);
        line_in(&mut text, style, Tone::Faint, &line);
    }
    for statement in &answer.left_out {
        let line = format!("not run, and not searched by: {}", style.fit(statement, 30));
        line_in(&mut text, style, Tone::Warn, &line);
    }
    evidence(&mut text, style, &answer.evidence);
    if let Some(explanation) = &answer.explanation {
        explained(&mut text, style, explanation);
    }
    let fixes = answer.fixes.iter().map(|fix| (fix.command.as_str(), fix.does.as_str()));
    commands(&mut text, style, "what would fix it", fixes);
    let see = answer.evidence.iter().map(|one| (one.command.as_str(), "shows all of it"));
    commands(&mut text, style, "to see more", see);
    for (heading, intents) in
        [("perhaps you want", &answer.pointers), ("the nearest", &answer.nearest)]
    {
        let intents = intents.iter().map(|one| (one.command.as_str(), one.says.as_str()));
        commands(&mut text, style, heading, intents);
    }
    missing(&mut text, style, &answer.not_measured);
    text
}

fn evidence(text: &mut String, style: Style, evidence: &[Evidence]) {
    for one in evidence {
        for list in one.lists.iter().filter(|list| !list.rows.is_empty()) {
            let more = list.total.saturating_sub(list.rows.len());
            let more = if more > 0 { format!(", {more} more") } else { String::new() };
            heading(text, style, &format!("{}: {}{more}", one.source, list.what));
            let headings: Vec<&str> = list.columns.iter().map(String::as_str).collect();
            let rows = list.rows.iter().map(|row| cells(&headings, |name| row.get(name)));
            text.push_str(&table(style, &headings, rows.collect(), ""));
        }
    }
}

fn explained(text: &mut String, style: Style, explained: &Claimed) {
    if let (Some(model), Some(said)) = (&explained.model, &explained.explanation) {
        heading(text, style, &format!("{model} says, which is a claim"));
        text.push_str(said.trim());
        text.push('\n');
    }
    match (&explained.sql, &explained.refused) {
        (Some(sql), Some(why)) => {
            line_in(text, style, Tone::Warn, &format!("its statement was refused: {why}: {sql}"));
        }
        (Some(sql), None) => {
            line_in(text, style, Tone::Faint, &format!("its statement, run read-only: {sql}"));
            let headings: Vec<&str> = match explained.rows.first() {
                Some(Value::Object(first)) => first.keys().map(String::as_str).collect(),
                _ => Vec::new(),
            };
            let rows = explained.rows.iter().map(|row| cells(&headings, |name| row.get(name)));
            text.push_str(&table(style, &headings, rows.collect(), "no rows"));
            if explained.has_more {
                line_in(text, style, Tone::Faint, "there are more rows");
            }
        }
        (None, _) => {}
    }
    // Without a model there is nothing to miss.
    if explained.model.is_some() {
        missing(text, style, &explained.not_measured);
    }
}

/// The named fields of a row, in this order.
fn cells<'a>(names: &[&str], field: impl Fn(&str) -> Option<&'a Value>) -> Vec<String> {
    names.iter().map(|&name| field(name).map_or_else(String::new, cell)).collect()
}

fn commands<'a>(
    text: &mut String,
    style: Style,
    title: &str,
    commands: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let commands: Vec<(&str, &str)> = commands.collect();
    if commands.is_empty() {
        return;
    }
    heading(text, style, title);
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    for (command, does) in commands {
        let does = style.fit(does, width + 4);
        let does = style.paint(Tone::Faint, &does);
        writeln!(text, "  {command:<width$}  {does}").ok();
    }
}

fn missing(text: &mut String, style: Style, missing: &[NotMeasured]) {
    for one in missing {
        let needs = one.needs.as_ref().map_or(String::new(), |needs| format!("; {needs}"));
        let line = format!("not measured: {}: {}{needs}", one.what, one.why);
        line_in(text, style, Tone::Faint, &line);
    }
}

fn heading(text: &mut String, style: Style, title: &str) {
    writeln!(text, "\n{}", style.paint(Tone::Strong, title)).ok();
}

fn line_in(text: &mut String, style: Style, tone: Tone, line: &str) {
    writeln!(text, "{}", style.paint(tone, line)).ok();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_shows_what_it_rests_on_and_what_fixes_it() {
        let outputs = json!({
            "answer": "1 invalid index.",
            "evidence": [{
                "source": "detect_invalid_indexes", "says": "1 invalid index", "is_wrong": true,
                "command": "lakeops tools run detect_invalid_indexes",
                "lists": [{
                    "what": "invalid indexes", "total": 3, "columns": ["table", "size_bytes"],
                    "rows": [{ "table": "s.orders", "size_bytes": 8192 }],
                }],
            }],
            "fixes": [{ "command": "lakeops run index_review", "does": "mends it" }],
            "left_out": ["drop table s.orders"],
            "corrections": [{ "written": "indxes", "read_as": "indexes" }],
            "explanation": {
                "model": "m", "explanation": "It broke.", "sql": "select 1", "rows": [{ "a": 1 }],
            },
            "nearest": null,
        });
        let text = answer(Style::PLAIN, &outputs);
        for part in [
            "1 invalid index.\n",
            "`indxes` was read as `indexes`",
            "not run, and not searched by: drop table s.orders",
            "detect_invalid_indexes: invalid indexes, 2 more\nTABLE     SIZE_BYTES\ns.orders  8192\n",
            "m says, which is a claim\nIt broke.\nits statement, run read-only: select 1\nA\n1\n",
            "what would fix it\n  lakeops run index_review  mends it\n",
            "to see more\n  lakeops tools run detect_invalid_indexes  shows all of it\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(answer(Style::PLAIN, &json!(null)), "\n");
    }
}
