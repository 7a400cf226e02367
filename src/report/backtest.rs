//! What a new version of a SOP would have decided, as text. PURE.

use std::fmt::Write as _;

use serde_json::Value;

use super::fold::clock;
use super::style::{Style, Tone, count};
use super::table::table;
use crate::sop::{Backtest, Replayed};

/// How many cases are shown; JSON has all.
const SHOWN: usize = 20;
/// How many fields of a case are.
const FIELDS: usize = 12;

/// The counts, and the cases that differ with their values.
pub fn text(style: Style, name: &str, found: &Backtest) -> String {
    let mut text = format!("{}\n", style.paint(Tone::Strong, name));
    let (tone, mark) =
        if found.cases.is_empty() { (Tone::Good, "✓") } else { (Tone::Warn, "✗") };
    let Backtest { evaluated, same, differ, fail, .. } = found;
    let line = format!(
        "{mark} {}: {same} the same, {differ} otherwise, {fail} where the new version fails",
        count(*evaluated, "evaluation")
    );
    let _ = writeln!(text, "{}\n", style.paint(tone, &line));
    if !found.changed.is_empty() {
        let rows = found.changed.iter();
        let rows = rows.map(|field| vec![field.path.clone(), field.count.to_string()]).collect();
        text.push_str(&table(style, &["field", "came out otherwise"], rows, ""));
    }
    for case in found.cases.iter().take(SHOWN) {
        case_lines(&mut text, style, case);
    }
    if found.cases.len() > SHOWN {
        let rest = found.cases.len() - SHOWN;
        let _ =
            writeln!(text, "\nand {rest} more: `--output json` has them all, with what was given");
    }
    text
}

fn case_lines(text: &mut String, style: Style, case: &Replayed) {
    let at = case.at.map(|at| format!("  {}", clock(at))).unwrap_or_default();
    let _ = writeln!(text, "\n{}{at}", style.paint(Tone::Strong, &case.from));
    for change in case.differences.iter().take(FIELDS) {
        let place = if change.path.is_empty() { "it" } else { &change.path };
        let shown = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        let line = format!("{place}: {} -> {}", shown(&change.old), shown(&change.new));
        let _ = writeln!(text, "  {}", style.fit(&line, 2));
    }
    if case.differences.len() > FIELDS {
        let _ = writeln!(text, "  and {} more fields", case.differences.len() - FIELDS);
    }
    for change in &case.rules {
        let said = |verdict: Option<bool>| {
            verdict.map_or_else(|| "not checked".to_owned(), |verdict| verdict.to_string())
        };
        let new = change.new.as_ref();
        let (old, now) = (said(change.old), said(new.map(|rule| rule.verdict)));
        let why = new.map(|rule| format!(": {}", rule.why)).unwrap_or_default();
        let _ = writeln!(text, "  rule {} was {old}, is {now}{why}", change.rule);
        for seen in new.into_iter().flat_map(|rule| &rule.seen) {
            let _ = writeln!(text, "    {} = {}", seen.name, seen.value);
        }
    }
}
