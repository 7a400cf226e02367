//! A question, apart from statements that were written into it. PURE.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Words that statements begin with, and questions hardly.
const BEGINNINGS: &[&str] = &[
    "alter", "copy", "create", "delete", "drop", "grant", "insert", "merge", "revoke", "select",
    "truncate", "update", "with",
];

/// A text with the statements in it set aside: they are neither run nor searched by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub text: String,
    /// The statements.
    pub statements: Vec<String>,
}

impl Question {
    /// Takes a text apart.
    pub fn read(text: &str) -> Self {
        let mut question = Self::default();
        for part in text.split(';') {
            let is_edge = |c: char| c.is_whitespace() || "'\"\\`()".contains(c);
            let inner = part.trim_matches(is_edge);
            if is_statement(part.trim()) || is_statement(inner) {
                question.statements.push(part.trim().to_owned());
            } else {
                question.text.push_str(part);
                question.text.push(' ');
            }
        }
        question.text.truncate(question.text.trim_end().len());
        question
    }
}

fn is_statement(text: &str) -> bool {
    let first = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    BEGINNINGS.iter().any(|word| first.eq_ignore_ascii_case(word))
        && Parser::parse_sql(&PostgreSqlDialect {}, text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_set_aside() {
        for (text, asked, statements) in [
            ("why is it slow?", "why is it slow?", &[][..]),
            ("'; DROP TABLE orders; --", "'  --", &["DROP TABLE orders"]),
            ("slow'; delete from s.orders", "slow'", &["delete from s.orders"]),
            ("select pg_sleep(1000)", "", &["select pg_sleep(1000)"]),
            ("create a branch", "create a branch", &[]),
            ("drop the index that nobody uses", "drop the index that nobody uses", &[]),
            ("update hangs", "update hangs", &[]),
        ] {
            let found = Question::read(text);
            assert_eq!(
                (found.text.as_str(), found.statements),
                (asked, statements.iter().map(|it| (*it).to_owned()).collect())
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            drop(Question::read(&text));
        }
    }
}
