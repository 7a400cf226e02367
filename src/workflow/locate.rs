//! From a character of a scalar's value to its place in the file.

use super::source::{Place, SourceText};
use super::tree::Node;

/// The place of the `nth` character (from 0) of a scalar's value.
pub(super) fn within(source: &SourceText, node: &Node, nth: usize) -> Place {
    let value = node.scalar().map_or("", |scalar| scalar.text.as_str());
    in_value(source, node.place, value, nth)
}

/// The place of the `nth` character of a value that is written at a place.
///
/// Quotes, escapes, folds and indentation make the written text longer than the value; both are walked
/// side by side, the written one ahead to the next character that fits.
pub(super) fn in_value(source: &SourceText, place: Place, value: &str, nth: usize) -> Place {
    let written = source.slice(place);
    let nth = nth.min(value.trim_end().chars().count().saturating_sub(1));
    let mut raw = written.char_indices().skip(opening(written)).peekable();
    let mut at = 0;
    for c in value.chars().take(nth + 1) {
        if c.is_whitespace() {
            while let Some((offset, _)) = raw.next_if(|(_, r)| r.is_whitespace()) {
                at = offset;
                if c == ' ' {
                    break;
                }
            }
            continue;
        }
        let Some((offset, _)) = raw.by_ref().find(|(_, r)| *r == c) else { break };
        at = offset;
    }
    let start = place.start.offset + at;
    let width = written.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    source.place(start, start + width)
}

/// How many characters stand before the first of the value: a quote, or the header line of a block.
fn opening(written: &str) -> usize {
    match written.chars().next() {
        Some('"' | '\'') => 1,
        Some('|' | '>') => written.chars().take_while(|c| *c != '\n').count() + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::diagnostic::Reporter;
    use crate::workflow::yaml;

    fn find(text: &str, c: char) -> (usize, usize) {
        let mut reporter = Reporter::new(SourceText::new("w", text));
        let root = yaml::parse(&mut reporter).root.unwrap();
        let node = root.get("k").unwrap();
        let nth = node.scalar().unwrap().text.chars().position(|v| v == c).unwrap();
        let at = within(reporter.source(), node, nth).start;
        (at.line, at.column)
    }

    #[test]
    fn characters_are_found_in_every_style() {
        assert_eq!(find("k: ab X", 'X'), (1, 7));
        assert_eq!(find("k: \"a\\\"b X\"", 'X'), (1, 10));
        assert_eq!(find("k: 'it''s X'", 'X'), (1, 11));
        assert_eq!(find("k: |\n  one\n  two X\n", 'X'), (3, 7));
        assert_eq!(find("k: >-\n  one\n  two X\n", 'X'), (3, 7));
        assert_eq!(find("k: one\n  two  X\n", 'X'), (2, 8));
    }
}
