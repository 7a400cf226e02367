//! Texts of other people as they are shown.

/// The most characters of a query that are shown.
const LONGEST: usize = 200;

/// A query's text on one line, cut after 200 characters.
pub fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten(" select\n  1 "), "select 1");
        let cut = shorten(&"ä".repeat(300));
        assert_eq!(cut.chars().count(), 201);
        assert!(cut.ends_with('…'));
    }
}
