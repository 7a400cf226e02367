//! What is known about one SQL statement from its text alone: whether it may stand in a transaction,
//! how it is found again after a crash, and how much harm it can do.
//!
//! The text is cut into tokens and, where the parser knows the statement, read as a tree. What cannot
//! be read counts as high risk: nobody has shown that it is harmless.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Tokenizer, Word};

use super::destruction::destroys;
use crate::kernel::{Recovery, Risk};

/// What is known about one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementFacts {
    /// How dangerous it is; at least medium, since it is free text.
    pub risk: Risk,
    /// Why it is of that risk, when it is high.
    pub reason: Option<&'static str>,
    /// Where it runs, and what resume does with it.
    pub place: Place,
    /// Whether it leaves nothing behind that would have to be undone (VACUUM, ANALYZE, a query).
    pub leaves_nothing: bool,
}

/// Where a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a transaction of its own.
    Transaction,
    /// Outside: PostgreSQL refuses it in a transaction block. With what resume does when nobody knows
    /// whether it happened.
    Outside(Recovery),
}

/// A text that cannot be carried out as one statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A quote or a comment is not closed.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// More than one statement.
    #[error("it holds {0} statements; write each one as an item of its own")]
    Several(usize),
    /// Transaction control.
    #[error(
        "`{0}` controls a transaction; the engine begins and ends the transaction of a statement"
    )]
    TransactionControl(String),
    /// Something that ends with the session.
    #[error(
        "`{0}` has no effect beyond its own session, and each statement has a session of its own; \
         use `alter role` or `alter database ... set` for settings that stay"
    )]
    SessionOnly(String),
    /// `copy` to or from the client.
    #[error("`copy ... {0}` needs a client that streams; use `insert`, or a file on the server")]
    Stream(String),
    /// An index that resume could not find again.
    #[error(
        "an index that is built concurrently needs a name: a crash can leave half of it behind"
    )]
    Nameless,
}

/// Reads one statement.
pub fn read_statement(text: &str) -> Result<StatementFacts, StatementError> {
    let tokens = tokens(text)?;
    match count_statements(&tokens) {
        0 => return Err(StatementError::Empty),
        1 => {}
        several => return Err(StatementError::Several(several)),
    }
    let words = Words(tokens);
    refuse(&words)?;
    let place = place(&words)?;
    let (risk, reason) = risk(&words, text);
    Ok(StatementFacts { risk, reason, place, leaves_nothing: leaves_nothing(&words) })
}

fn tokens(text: &str) -> Result<Vec<Token>, StatementError> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize()
        .map_err(|error| StatementError::Unreadable(error.to_string()))?;
    Ok(tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect())
}

/// Counts statements by their semicolons; those of a SQL function's body (`begin atomic … end`) do
/// not count.
fn count_statements(tokens: &[Token]) -> usize {
    let (mut depth, mut count, mut open) = (0_usize, 0, false);
    for (at, token) in tokens.iter().enumerate() {
        match keyword(token) {
            Some(Keyword::BEGIN) if is_word(tokens.get(at + 1), "ATOMIC") => depth += 1,
            Some(Keyword::CASE) if depth > 0 => depth += 1,
            Some(Keyword::END) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if *token == Token::SemiColon && depth == 0 {
            open = false;
        } else if !open {
            open = true;
            count += 1;
        }
    }
    count
}

fn keyword(token: &Token) -> Option<Keyword> {
    match token {
        Token::Word(Word { quote_style: None, keyword, .. }) => Some(*keyword),
        _ => None,
    }
}

fn is_word(token: Option<&Token>, text: &str) -> bool {
    matches!(token, Some(Token::Word(Word { quote_style: None, value, .. }))
        if value.eq_ignore_ascii_case(text))
}

/// The tokens of one statement.
struct Words(Vec<Token>);

impl Words {
    /// Whether it starts with these words; `a|b` stands for either.
    fn start(&self, pattern: &str) -> bool {
        pattern.split(' ').enumerate().all(|(at, choice)| self.at(at, choice))
    }

    fn at(&self, at: usize, choice: &str) -> bool {
        choice.split('|').any(|word| is_word(self.0.get(at), word))
    }

    /// Whether this word stands somewhere outside quotes.
    fn any(&self, word: &str) -> bool {
        self.0.iter().any(|token| is_word(Some(token), word))
    }

    /// The first `count` words, in lower case.
    fn lead(&self, count: usize) -> String {
        let words: Vec<_> =
            self.0.iter().take(count).map(|token| token.to_string().to_lowercase()).collect();
        words.join(" ")
    }
}

fn refuse(words: &Words) -> Result<(), StatementError> {
    let control = "begin|start|commit|end|rollback|abort|savepoint|release";
    if words.start(control) || words.start("prepare|set transaction") {
        return Err(StatementError::TransactionControl(words.lead(2)));
    }
    let session = "set|reset|discard|listen|unlisten|declare|fetch|move|close|load|lock|prepare|\
                   deallocate|execute";
    if words.start(session) {
        return Err(StatementError::SessionOnly(words.lead(1)));
    }
    let stream = ["stdin", "stdout"].into_iter().find(|word| words.any(word));
    match stream {
        Some(stream) if words.start("copy") => Err(StatementError::Stream(stream.to_owned())),
        _ => Ok(()),
    }
}

fn place(words: &Words) -> Result<Place, StatementError> {
    let index = usize::from(words.at(1, "unique")) + 1;
    if words.start("create") && words.at(index, "index") && words.at(index + 1, "concurrently") {
        let name = index + 2 + usize::from(words.at(index + 2, "if")) * 3;
        let nameless = words.at(name, "on");
        return if nameless {
            Err(StatementError::Nameless)
        } else {
            Ok(Place::Outside(Recovery::Probe))
        };
    }
    if words.start("vacuum|analyze|analyse") || words.start("alter system") {
        return Ok(Place::Outside(Recovery::Repeatable));
    }
    if words.start("drop index concurrently") {
        return Ok(Place::Outside(Recovery::Probe));
    }
    if words.start("reindex") {
        return Ok(reindex(words));
    }
    let never_in_transaction = words.start("create|drop database|tablespace|subscription")
        || words.start("alter subscription")
        || words.start("alter database") && words.any("tablespace")
        || words.start("alter table") && words.any("detach") && words.any("concurrently")
        || words.start("cluster") && words.0.iter().all(|token| !is_name_after_first(words, token));
    Ok(if never_in_transaction { Place::Outside(Recovery::Ask) } else { Place::Transaction })
}

/// Whether a token is a word that is not the statement's first.
fn is_name_after_first(words: &Words, token: &Token) -> bool {
    matches!(token, Token::Word(_)) && words.0.first() != Some(token)
}

/// What is looked for after a crash is the rebuilt index; of a whole schema nobody can tell.
fn reindex(words: &Words) -> Place {
    let whole = ["schema", "database", "system"].into_iter().any(|word| words.any(word));
    match (words.any("concurrently"), whole) {
        (false, false) => Place::Transaction,
        (false, true) => Place::Outside(Recovery::Repeatable),
        (true, false) => Place::Outside(Recovery::Probe),
        (true, true) => Place::Outside(Recovery::Ask),
    }
}

fn risk(words: &Words, text: &str) -> (Risk, Option<&'static str>) {
    let high = |reason| (Risk::High, Some(reason));
    if words.start("drop index concurrently") {
        return (Risk::Medium, None);
    }
    if words.start("drop|truncate") {
        return high("it removes objects or rows for good");
    }
    if words.start("vacuum") && words.any("full") || words.start("cluster") {
        return high("it rewrites the table under an exclusive lock");
    }
    if words.start("reindex") && !words.any("concurrently") {
        return high("it locks the table against writes for as long as it takes");
    }
    // The parser does not know these, or knows another product's form of them.
    let known = words.start("vacuum|analyze|analyse|reindex|checkpoint")
        || words.start("alter system")
        || words.start("refresh materialized");
    if known {
        return (Risk::Medium, None);
    }
    destroys(text).map_or((Risk::Medium, None), high)
}

fn leaves_nothing(words: &Words) -> bool {
    words.start("vacuum|analyze|analyse|reindex|checkpoint|show|explain")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> StatementFacts {
        read_statement(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn recovery(text: &str) -> Option<Recovery> {
        match facts(text).place {
            Place::Transaction => None,
            Place::Outside(recovery) => Some(recovery),
        }
    }

    #[test]
    fn one_statement_is_told_from_several() {
        for text in [
            "select 1",
            "select 1;",
            "select ';'; -- done; really",
            "select $a$ ; $a$",
            "/* ; /* ; */ */ select 1",
            "create function f() returns int begin atomic select case 1 when 1 then 2 end; end",
        ] {
            assert!(read_statement(text).is_ok(), "{text}: {:?}", read_statement(text));
        }
        assert_eq!(read_statement("select 1; select 2"), Err(StatementError::Several(2)));
        assert_eq!(read_statement("vacuum; drop table t;"), Err(StatementError::Several(2)));
        assert_eq!(read_statement(" ; -- nothing"), Err(StatementError::Empty));
        assert!(matches!(read_statement("select 'a"), Err(StatementError::Unreadable(_))));
    }

    #[test]
    fn what_controls_a_transaction_or_a_session_is_refused() {
        for text in ["begin", "COMMIT", "rollback to a", "commit prepared 'x'"] {
            let error = read_statement(text).unwrap_err();
            assert!(matches!(error, StatementError::TransactionControl(_)), "{text}: {error}");
        }
        for text in ["set work_mem = '1GB'", "lock table t", "listen x", "prepare p as select 1"] {
            let error = read_statement(text).unwrap_err();
            assert!(matches!(error, StatementError::SessionOnly(_)), "{text}: {error}");
        }
        assert!(matches!(read_statement("copy t from stdin"), Err(StatementError::Stream(_))));
    }

    #[test]
    fn what_cannot_stand_in_a_transaction_is_known() {
        assert_eq!(recovery("insert into t values (1)"), None);
        assert_eq!(recovery("vacuum (analyze) public.t"), Some(Recovery::Repeatable));
        assert_eq!(recovery("alter system set work_mem = '8MB'"), Some(Recovery::Repeatable));
        assert_eq!(recovery("drop index concurrently public.i"), Some(Recovery::Probe));
        assert_eq!(recovery("reindex index concurrently public.i"), Some(Recovery::Probe));
        assert_eq!(recovery("reindex (verbose) table concurrently t"), Some(Recovery::Probe));
        assert_eq!(recovery("reindex schema concurrently s"), Some(Recovery::Ask));
        assert_eq!(recovery("reindex index public.i"), None);
        assert_eq!(recovery("reindex database d"), Some(Recovery::Repeatable));
        assert_eq!(recovery("create database d"), Some(Recovery::Ask));
        assert_eq!(recovery("cluster"), Some(Recovery::Ask));
        assert_eq!(recovery("cluster t using i"), None);
    }

    #[test]
    fn a_concurrent_index_has_a_name() {
        for text in [
            "create index concurrently i on t (a)",
            "create unique index concurrently if not exists \"I x\" on only sales.orders (a)",
        ] {
            assert_eq!(recovery(text), Some(Recovery::Probe), "{text}");
        }
        let nameless = read_statement("create index concurrently on t (a)");
        assert_eq!(nameless, Err(StatementError::Nameless));
        assert_eq!(recovery("create index i on t (a)"), None);
    }

    #[test]
    fn destructive_statements_are_high_risk() {
        for text in [
            "drop table t",
            "truncate t",
            "delete from t",
            "delete from t where true",
            "update t set a = 1",
            "with gone as (delete from t returning a) select a from gone",
            "explain analyze delete from t",
            "alter table t drop column a",
            "alter table t alter column a type bigint",
            "vacuum full t",
            "vacuum (full) t",
            "reindex table t",
            "do $$ begin perform 1; end $$",
            "frobnicate t",
        ] {
            assert_eq!(facts(text).risk, Risk::High, "{text}");
        }
        for text in [
            "insert into t values ($1)",
            "delete from t where a = 1",
            "update t set a = 1 where b = 2",
            "create table t (a int)",
            "alter table t add column b int",
            "drop index concurrently s.i",
            "vacuum t",
            "select 'drop table t'",
            "refresh materialized view concurrently v",
        ] {
            assert_eq!(facts(text).risk, Risk::Medium, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", words in "([a-z(;'\"$]{1,9}[ \n]){0,12}") {
            drop(read_statement(&text));
            drop(read_statement(&words));
            drop(read_statement(&format!("create index concurrently {words}")));
            drop(read_statement(&format!("delete from t where {text}")));
        }
    }

    #[test]
    fn deep_nesting_is_high_risk_and_no_crash() {
        let deep = format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000));
        assert_eq!(facts(&deep).risk, Risk::High);
    }
}
