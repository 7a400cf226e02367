//! A comparison as Markdown, for reviews and approvals. PURE.

use std::fmt::Write as _;

use serde_json::Value;

use super::diff::{Action, AttributeChange, Diff, Difference, Impact};
use super::script::Statement;

/// The longest value that is written out.
const LONGEST: usize = 120;

/// A comparison as Markdown: what breaks first, then the rest, then the statements.
pub fn markdown(diff: &Diff, statements: &[Statement], from: &str, to: &str) -> String {
    let mut text = format!("### Schema: {} → {}\n\n", inline(from), inline(to));
    if diff.is_empty() {
        text.push_str("No differences.\n");
    }
    for (impact, title) in [(Impact::Breaking, "Breaking"), (Impact::Additive, "Additive")] {
        let own = diff.differences.iter().filter(|one| one.impact == impact);
        let shown: Vec<_> = own.filter(|one| one.within.is_none()).collect();
        if !shown.is_empty() {
            section(&mut text, title, &shown, diff);
        }
    }
    if !statements.is_empty() {
        text.push_str("<details><summary>SQL</summary>\n\n```sql\n");
        text.push_str(&as_script(statements));
        text.push_str("```\n\n</details>\n");
    }
    for one in &diff.uncovered {
        let _ = writeln!(text, "\nNot compared: {} × {}.", one.count, one.kind);
    }
    text
}

/// Statements as a script: one after the other, what they destroy said before them.
pub fn as_script(statements: &[Statement]) -> String {
    let mut text = String::new();
    for statement in statements {
        if let Some(lost) = &statement.destroys {
            let _ = writeln!(text, "-- DESTRUCTIVE: {lost}");
        }
        let _ = writeln!(text, "{};", statement.sql);
    }
    text
}

fn section(text: &mut String, title: &str, shown: &[&Difference], diff: &Diff) {
    let _ = writeln!(text, "#### {title} ({})\n", shown.len());
    for one in shown {
        let mark = match one.action {
            Action::Added => "+",
            Action::Removed => "-",
            Action::Changed => "~",
        };
        let kind = one.column_type.as_ref().map(|kind| format!(" {}", inline(kind)));
        let (kind, object) = (kind.unwrap_or_default(), inline(&one.object));
        let why = one.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let _ = writeln!(text, "- `{mark}` {} {object}{kind}{why}", one.kind.as_str());
        for attribute in &one.attributes {
            let _ = writeln!(text, "  - {}", field(attribute));
        }
        let parts = diff.differences.iter().filter(|part| {
            part.action == one.action && part.within.as_deref() == Some(one.object.as_str())
        });
        for part in parts {
            let kind = part.column_type.as_ref().map(|kind| format!(" {}", inline(kind)));
            let (kind, object) = (kind.unwrap_or_default(), inline(&part.object));
            let _ = writeln!(text, "  - {} {object}{kind}", part.kind.as_str());
        }
    }
    text.push('\n');
}

fn field(change: &AttributeChange) -> String {
    let shown = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let short: String = text.chars().take(LONGEST).collect();
        inline(&if short.len() < text.len() { format!("{short}…") } else { short })
    };
    format!("{}: {} → {}", change.attribute, shown(&change.from), shown(&change.to))
}

/// A text as inline code, whatever stands in it.
fn inline(text: &str) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let longest = flat.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    if flat.is_empty() {
        "` `".to_owned()
    } else if longest > 0 {
        format!("{fence} {flat} {fence}")
    } else {
        format!("{fence}{flat}{fence}")
    }
}
