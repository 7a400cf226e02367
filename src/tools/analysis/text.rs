//! Texts of other people as they are shown and kept.

use serde::de::DeserializeOwned;

use crate::postgres::scan::tokens;

/// The most characters of a query that are shown.
const LONGEST: usize = 200;

/// The most characters of what a model explains that are kept.
const LONGEST_PROSE: usize = 2_000;

/// A query's text on one line, cut after 200 characters.
pub fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// A statement with every string literal as `'…'`. `pg_stat_statements` replaces constants of queries by
/// itself, but not those of utility statements, where passwords stand. Comments go, too.
pub fn without_literals(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    let ends = tokens(text).into_iter().map(|token| (token.start, token.start + token.text.len()));
    for (start, end) in ends.chain([(text.len(), text.len())]) {
        let gap = text.get(at..start).unwrap_or_default();
        let is_literal = gap.contains('\'') || gap.contains('$');
        if is_literal || gap.contains("--") || gap.contains("/*") {
            let is_space = char::is_whitespace;
            masked.push_str(if gap.starts_with(is_space) { " " } else { "" });
            masked.push_str(if is_literal { "'…'" } else { "" });
            masked.push_str(if gap.ends_with(is_space) { " " } else { "" });
        } else {
            masked.push_str(gap);
        }
        masked.push_str(text.get(start..end).unwrap_or_default());
        at = end;
    }
    masked
}

/// The JSON object in what a model wrote, whatever stands around it.
pub fn object_in<T: DeserializeOwned>(text: &str) -> Option<T> {
    let (from, to) = (text.find('{')?, text.rfind('}')?);
    serde_json::from_str(text.get(from..=to)?).ok()
}

/// What a model explains, cut after 2,000 characters. What is shown on a terminal must not steer it.
pub fn prose(text: &str) -> String {
    text.chars().take(LONGEST_PROSE).filter(|c| !c.is_control() || *c == '\n').collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_are_masked_and_the_rest_stays() {
        let cases = [
            (
                "alter role a password 'it''s'  valid until E'2\\'x'",
                "alter role a password '…' valid until '…'",
            ),
            ("select $1, \"a'b\" from t where b = $2", "select $1, \"a'b\" from t where b = $2"),
            ("do $x$ begin secret; end $x$", "do '…'"),
            ("select 1 /* don't */ + 2 -- it's 'x'", "select 1 '…' + 2 '…'"),
            ("select 1 /* plain */ + 2", "select 1  + 2"),
            ("select\n  1", "select\n  1"),
            ("set x = 'unfinished", "set x = '…'"),
        ];
        for (text, masked) in cases {
            assert_eq!(without_literals(text), masked);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_keep_a_literal(text in "[a-z'$\" ]{0,12}", secret in "[A-Z]{6}") {
            drop(without_literals(&text));
            let statement = format!("create role r password '{secret}' {text}");
            prop_assert!(!without_literals(&statement).contains(&secret));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten(" select\n  1 "), "select 1");
        let cut = shorten(&"ä".repeat(300));
        assert_eq!(cut.chars().count(), 201);
        assert!(cut.ends_with('…'));
    }
}
