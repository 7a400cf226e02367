//! Going on after a stretch of a file that is not YAML.

use super::diagnostic::Reporter;
use super::source::{Position, SourceText};
use super::yaml::Broken;

/// How many broken stretches of one file are reported.
pub(super) const MOST_ERRORS: usize = 8;

/// Replaces control characters, which end a file for some parsers, by blanks, and reports them.
pub(super) fn blank_control_characters(text: &mut String, reporter: &mut Reporter) -> bool {
    let is_bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let Some(first) = text.find(is_bad) else { return false };
    let place = reporter.source().place(first, first);
    reporter.hinted(
        "workflow::syntax",
        place,
        "a control character stands here",
        "remove it; in a text in double quotes write it as `\\u0000`",
    );
    *text = text
        .chars()
        .flat_map(|c| {
            let count = if is_bad(c) { c.len_utf8() } else { 1 };
            std::iter::repeat_n(if is_bad(c) { ' ' } else { c }, count)
        })
        .collect();
    true
}

/// Reports a broken stretch with the most likely remedy.
pub(super) fn report(broken: &Broken, text: &str, reporter: &mut Reporter) {
    let source = reporter.source().clone();
    let opened_before = broken.opened.line < broken.at.line;
    let at = if opened_before { broken.opened } else { broken.at };
    let at = tab(broken, &source).unwrap_or_else(|| last_written(&source, at));
    let place = source.place(at.offset, at.offset + 1);
    let message = if broken.is_final {
        broken.message.clone()
    } else {
        format!("this is not YAML: {}", broken.message)
    };
    let help = remedy(&source, at.line, opened_before, text);
    reporter.hinted("workflow::syntax", place, message, help);
}

fn remedy(source: &SourceText, line: usize, opened_before: bool, text: &str) -> String {
    let written = source.line(line);
    let indent: String = written.chars().take_while(|c| c.is_whitespace()).collect();
    let help = if indent.contains('\t') {
        "indent with blanks, not with tabs"
    } else if written.contains("${{") && !written.contains("\"${{") {
        "put quotes around the expression: `\"${{ … }}\"`"
    } else if opened_before {
        "close the bracket that is opened here, and quote texts with `,`, `:`, `{` or `[` in them"
    } else if text.matches('"').count() % 2 == 1 {
        "check that every quote is closed"
    } else {
        "check the indentation, and quote texts that contain `: `"
    };
    help.to_owned()
}

/// The tab that a line is indented with, when that is the mistake.
fn tab(broken: &Broken, source: &SourceText) -> Option<Position> {
    const NEARBY: usize = 3;
    let first = broken.at.line;
    let mut lines = (first..first + NEARBY).filter(|_| broken.message.contains("tab"));
    lines.find_map(|line| {
        let text = source.line(line);
        let indent = text.len() - text.trim_start().len();
        let at = text.get(..indent)?.find('\t')?;
        Some(source.at(line, at + 1))
    })
}

/// The place itself, or the last one before it where something is written.
fn last_written(source: &SourceText, at: Position) -> Position {
    if !source.line(at.line).trim().is_empty() {
        return at;
    }
    let before = source.text().get(..at.offset).unwrap_or("").trim_end();
    match before.char_indices().last() {
        Some((offset, _)) => source.position(offset),
        None => at,
    }
}

/// Blanks the list item or top-level key that a position is in. False when there is nothing left.
pub(super) fn blank_item(text: &mut String, source: &SourceText, at: Position) -> bool {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line = text.get(..at.offset).map_or(0, |before| before.matches('\n').count());
    let line = line.min(lines.len().saturating_sub(1));
    let Some(first) = (0..=line).rev().find(|at| starts_item(lines[*at]).is_some()) else {
        return false;
    };
    let depth = starts_item(lines[first]).unwrap_or(0);
    let ends = |text: &&&str| starts_item(text).is_some_and(|other| other <= depth);
    let length = lines[first + 1..].iter().position(|text| ends(&text)).unwrap_or(lines.len());
    let last = (first + 1 + length).min(lines.len());
    let blank = |text: &str| -> String {
        text.chars()
            .flat_map(|c| match c {
                '\n' | '\r' => std::iter::repeat_n(c, 1),
                _ => std::iter::repeat_n(' ', c.len_utf8()),
            })
            .collect()
    };
    if lines[first..last].iter().all(|text| text.trim().is_empty()) || source.text().is_empty() {
        return false;
    }
    let blanked: String = lines
        .iter()
        .enumerate()
        .map(
            |(at, text)| if (first..last).contains(&at) { blank(text) } else { (*text).to_owned() },
        )
        .collect();
    *text = blanked;
    true
}

/// The indentation of a line that starts a list item or a top-level key.
fn starts_item(line: &str) -> Option<usize> {
    const DEEPEST_ITEM: usize = 4;
    let rest = line.trim_start_matches(' ');
    let indent = line.len() - rest.len();
    let is_item = rest.starts_with("- ") && indent <= DEEPEST_ITEM;
    let is_key = indent == 0 && rest.starts_with(|c: char| !c.is_whitespace() && c != '#');
    (is_item || is_key).then_some(indent)
}
