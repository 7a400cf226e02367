//! A text cut into the words that matter: enough of SQL to see where a statement ends, what it begins
//! with, and which functions and relations it names.

/// A word, a quoted name, or one other character. Comments and string literals are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Where it starts, in bytes.
    pub start: usize,
    /// The text, quotes included.
    pub text: &'a str,
}

impl Token<'_> {
    /// Whether it is this keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }

    /// The name that it stands for: folded to lower case, or the inside of the quotes.
    pub fn name(&self) -> Option<String> {
        if let Some(inner) = self.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            return Some(inner.replace("\"\"", "\""));
        }
        let first = self.text.chars().next()?;
        (first.is_alphabetic() || first == '_').then(|| self.text.to_lowercase())
    }
}

/// Words that a statement begins with that changes rows.
const CHANGES: [&str; 4] = ["delete", "insert", "merge", "update"];

/// Whether a statement of these tokens changes rows.
pub fn changes_rows(tokens: &[Token<'_>]) -> bool {
    tokens.first().is_some_and(|first| CHANGES.iter().any(|word| first.is(word)))
}

/// The tokens of a text. Total: whatever cannot be read as SQL still comes out as some tokens.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (length, is_token) = next(rest);
        if is_token {
            found.push(Token { start: at, text: rest.get(..length).unwrap_or_default() });
        }
        at += length;
    }
    found
}

/// The length in bytes of what comes next, and whether it counts.
fn next(rest: &str) -> (usize, bool) {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let first = rest.chars().next().unwrap_or(' ');
    if first.is_whitespace() {
        (first.len_utf8(), false)
    } else if rest.starts_with("--") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (comment_length(rest), false)
    } else if rest.starts_with(['e', 'E']) && rest[1..].starts_with('\'') {
        (1 + quoted_length(&rest[1..], '\'', true), false)
    } else if first == '\'' {
        (quoted_length(rest, '\'', false), false)
    } else if first == '"' {
        (quoted_length(rest, '"', false), true)
    } else if let Some(length) = dollar_quoted_length(rest) {
        (length, false)
    } else if word(first) {
        (rest.find(|c| !word(c)).unwrap_or(rest.len()), true)
    } else {
        (first.len_utf8(), true)
    }
}

/// Block comments nest.
fn comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = rest.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// A doubled quote stands for the quote itself.
fn quoted_length(rest: &str, quote: char, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    rest.len()
}

fn dollar_quoted_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('$')?;
    let tag = inner.split('$').next().filter(|tag| tag.len() < inner.len())?;
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    let open = tag.len() + 2;
    let mark = rest.get(..open)?;
    Some(rest.get(open..)?.find(mark).map_or(rest.len(), |at| at + 2 * open))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn literals_and_comments_are_left_out() {
        assert_eq!(
            texts("a.\"b\"\"c\" = 'x''y' -- z\n + /* /* q */ */ E'\\'' $t$ ; $t$ $1;"),
            ["a", ".", "\"b\"\"c\"", "=", "+", "$1", ";"]
        );
    }

    #[test]
    fn names_fold_as_postgresql_folds_them() {
        let name = |text| tokens(text)[0].name();
        assert_eq!(name("Orders").as_deref(), Some("orders"));
        assert_eq!(name("\"Odd \"\"One\"").as_deref(), Some("Odd \"One"));
        assert_eq!(name("("), None);
    }
}
