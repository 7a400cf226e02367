//! Texts of `pg_stat_statements`, made fit to be planned. PURE.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// Words that stand before a literal and say its type. Where the literal was taken out, `interval $1` is no
/// SQL any more.
const TYPES: [&str; 5] = ["date", "interval", "time", "timestamp", "timestamptz"];

/// Whether EXPLAIN takes a statement, by how it begins.
pub fn explainable(query: &str) -> bool {
    let first = query.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    let word: String = first.chars().take_while(char::is_ascii_alphabetic).collect();
    matches!(
        word.to_lowercase().as_str(),
        "select" | "with" | "insert" | "update" | "delete" | "merge" | "values"
    )
}

/// The tokens of a text; `None` when they do not give it back letter by letter: it is left alone.
pub(super) fn tokens(query: &str) -> Option<Vec<Token>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, query).tokenize().ok()?;
    (tokens.iter().map(Token::to_string).collect::<String>() == query).then_some(tokens)
}

/// The text with `interval $1` written as `($1)::interval`; a text that cannot be read stays as it is.
pub fn plannable(query: &str) -> String {
    let Some(tokens) = tokens(query) else { return query.to_owned() };
    let mut text = String::with_capacity(query.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let gap = matches!(tokens.get(at + 1), Some(Token::Whitespace(_)));
        let next = tokens.get(at + 1 + usize::from(gap));
        if let (Some(word), Some(Token::Placeholder(name))) = (type_word(token), next) {
            text.extend(["(", name, ")::", word]);
            at += 2 + usize::from(gap);
        } else {
            text.push_str(&token.to_string());
            at += 1;
        }
    }
    text
}

fn type_word(token: &Token) -> Option<&'static str> {
    let Token::Word(word) = token else { return None };
    if word.quote_style.is_some() {
        return None;
    }
    TYPES.into_iter().find(|name| word.value.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_literals_are_written_as_casts() {
        let text =
            "select * from t where at > now() - interval $1 and d = date $2 and x = 'interval $3'";
        let expected = "select * from t where at > now() - ($1)::interval and d = ($2)::date \
                        and x = 'interval $3'";
        assert_eq!(plannable(text), expected);
        assert_eq!(plannable("select \"date\" from t"), "select \"date\" from t");
        assert_eq!(plannable("select 'open"), "select 'open");
        let escaped = "select e'a\\'b', $q$x$q$, t.\"A b\" from t -- no; end\n where a = $1";
        assert_eq!(plannable(escaped), escaped);
    }

    #[test]
    fn only_what_can_be_explained() {
        assert!(explainable(" SELECT 1") && explainable("(select 1)") && explainable("with a as"));
        assert!(!explainable("vacuum t") && !explainable("set x = 1") && !explainable(""));
    }
}
