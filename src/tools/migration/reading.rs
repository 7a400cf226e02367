//! A migration's text, cut into statements by a parser of PostgreSQL's language, each one judged.

use std::collections::BTreeSet;

use squawk_syntax::SourceFile;
use squawk_syntax::ast::{self, AstNode as _, Stmt};

use super::class::{Verdict, classify};
use super::lint::{Finding, lint};
use crate::kernel::{Failure, Recovery};
use crate::postgres::scan::{Token, tokens};
use crate::tools::analysis::statement::{Place, read_statement};
use crate::tools::analysis::text::shorten;

/// How deep parentheses may nest: the parser calls itself for each.
const MOST_DEEP: usize = 200;

/// How often one token may follow itself: the parser calls itself for each `not not not`.
const MOST_REPEATED: usize = 64;

/// The stack of the thread that parses; far more than what those limits need.
const STACK: usize = 64 << 20;

/// A file that was read.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Reading {
    /// Its statements, in order.
    pub(in crate::tools) statements: Vec<Statement>,
    /// Whether they run in one transaction; else each runs on its own, outside.
    pub(in crate::tools) in_transaction: bool,
    /// What the rules say about it.
    pub(in crate::tools) lint: Vec<Finding>,
}

/// One statement of a migration.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Statement {
    /// Its text, without the semicolon.
    pub(in crate::tools) text: String,
    /// The line on which it begins.
    pub(in crate::tools) line: usize,
    /// What it does.
    pub(in crate::tools) verdict: Verdict,
    /// What a resume does with it, when it runs outside a transaction.
    pub(in crate::tools) outside: Option<Recovery>,
    /// The table that it alters or builds on, as written.
    pub(in crate::tools) table: Option<String>,
}

/// Reads a migration. What cannot be carried out is refused with its place.
pub(in crate::tools) async fn read(label: &str, text: &str) -> Result<Reading, Failure> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (label, text) = (label.to_owned(), text.to_owned());
    let gave_up = |label: &str| {
        Failure::permanent("migration::unreadable", format!("`{label}` cannot be read at all"))
    };
    let name = label.clone();
    std::thread::Builder::new()
        .name("migration".to_owned())
        .stack_size(STACK)
        .spawn(move || drop(sender.send(read_now(&label, &text))))
        .map_err(|error| Failure::transient("migration::no_thread", error.to_string()))?;
    receiver.await.unwrap_or_else(|_| Err(gave_up(&name)))
}

/// The same, on this thread's stack.
pub(super) fn read_now(label: &str, text: &str) -> Result<Reading, Failure> {
    let source = Source { label, text };
    source.refuse_depth()?;
    let parsed = SourceFile::parse(text);
    if let Some(error) = parsed.errors().first() {
        let why = format!("it is no SQL that can be read: {}", error.message());
        return Err(source.refused(error.range().start().into(), &why));
    }
    let mut made = BTreeSet::new();
    let mut statements = Vec::new();
    for statement in parsed.tree().stmts() {
        if matches!(statement, Stmt::EmptyStmt(_)) {
            continue;
        }
        statements.push(source.statement(&statement, &made)?);
        made.extend(makes(&statement));
    }
    if statements.is_empty() {
        return Err(source.refused(0, "it holds no statement"));
    }
    let in_transaction = source.place(&statements)?;
    let lint = lint(&parsed, text, in_transaction, |at| source.line(at));
    Ok(Reading { statements, in_transaction, lint })
}

/// The table that a statement makes, as its name folds.
fn makes(statement: &Stmt) -> Option<String> {
    let name = match statement {
        Stmt::CreateTable(create) => create.table_name(),
        Stmt::CreateTableAs(create) => create.table_name(),
        _ => None,
    };
    name.and_then(|name| folded(&name.syntax().text().to_string()))
}

/// The name of a relation as it folds, without `only` and `*`.
pub(super) fn table_name(name: Option<&ast::TableRelationName>) -> Option<String> {
    folded(&name?.table_name_ref()?.syntax().text().to_string())
}

/// `Public."T"` as `public.T`.
fn folded(text: &str) -> Option<String> {
    let parts: Option<Vec<String>> =
        tokens(text).iter().filter(|token| token.text != ".").map(Token::name).collect();
    parts.map(|parts| parts.join("."))
}

/// A file's text and what it is called in messages.
struct Source<'a> {
    label: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or(self.text).matches('\n').count() + 1
    }

    fn refused(&self, at: usize, why: &str) -> Failure {
        let before = self.text.get(..at).unwrap_or(self.text);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let place = format!("{}:{}:{column}", self.label, self.line(at));
        Failure::permanent("migration::refused", format!("{place}: {why}"))
    }

    fn refuse_depth(&self) -> Result<(), Failure> {
        let (mut depth, mut repeated, mut last) = (0_usize, 0_usize, "");
        for token in tokens(self.text) {
            match token.text {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                word if word.eq_ignore_ascii_case("case") => depth += 1,
                word if word.eq_ignore_ascii_case("end") => depth = depth.saturating_sub(1),
                _ => {}
            }
            repeated = if token.text == last { repeated + 1 } else { 0 };
            last = token.text;
            if depth > MOST_DEEP || repeated > MOST_REPEATED {
                return Err(self.refused(token.start, "it nests too deeply"));
            }
        }
        Ok(())
    }

    fn statement(&self, statement: &Stmt, made: &BTreeSet<String>) -> Result<Statement, Failure> {
        let node = statement.syntax();
        let start: usize = node.text_range().start().into();
        let raw = node.text().to_string();
        let text = raw.trim().trim_end_matches(';').trim_end().to_owned();
        let outside = outside(statement, &text).map_err(|why| self.refused(start, &why))?;
        let table = match statement {
            Stmt::AlterTable(alter) => alter.table_relation_name(),
            Stmt::CreateIndex(index) => index.table_relation_name(),
            _ => None,
        };
        Ok(Statement {
            line: self.line(start),
            verdict: classify(statement, &text, made),
            outside,
            table: table.and_then(|name| {
                name.table_name_ref().map(|name| name.syntax().text().to_string())
            }),
            text,
        })
    }

    /// Whether all statements share a transaction. A file is one thing: all of it happened, or none, or
    /// it is a list of statements that PostgreSQL refuses in a transaction.
    fn place(&self, statements: &[Statement]) -> Result<bool, Failure> {
        let is_outside = |one: &&Statement| one.outside.is_some();
        let Some(outside) = statements.iter().find(is_outside) else { return Ok(true) };
        let Some(inside) = statements.iter().find(|one| one.outside.is_none()) else {
            return Ok(false);
        };
        let why = format!(
            "line {} (`{}`) cannot run in a transaction, and line {} (`{}`) belongs into one",
            outside.line,
            shorten(&outside.text),
            inside.line,
            shorten(&inside.text)
        );
        let help = "give what runs CONCURRENTLY a file of its own: half of a file must never stay";
        Err(Failure::permanent("migration::mixed", format!("{}: {why}", self.label))
            .with_help(help))
    }
}

/// What a resume does with a statement outside a transaction; `None`: it runs inside the file's.
fn outside(statement: &Stmt, text: &str) -> Result<Option<Recovery>, String> {
    match statement {
        Stmt::Begin(_)
        | Stmt::Commit(_)
        | Stmt::Rollback(_)
        | Stmt::SavepointCreate(_)
        | Stmt::ReleaseSavepoint(_)
        | Stmt::PrepareTransaction(_)
        | Stmt::SetTransaction(_) => {
            return Err(format!(
                "`{}` controls a transaction, and a file is one already; leave it out",
                shorten(text)
            ));
        }
        Stmt::AlterSystem(_) | Stmt::SetSessionAuth(_) | Stmt::ResetSessionAuth(_) => {
            return Err(format!("`{}` is no part of a database's structure", shorten(text)));
        }
        Stmt::Set(_) if lifts_timeout(text) => {
            return Err(format!(
                "`{}` would let everybody queue behind this file; `lock_timeout` and \
                 `statement_timeout` are arguments of the tool",
                shorten(text)
            ));
        }
        // These hold for the file's own transaction and session.
        Stmt::Set(_)
        | Stmt::Reset(_)
        | Stmt::SetRole(_)
        | Stmt::ResetRole(_)
        | Stmt::SetConstraints(_)
        | Stmt::Lock(_) => return Ok(None),
        _ => {}
    }
    match read_statement(text).map_err(|error| error.to_string())?.place {
        Place::Transaction => Ok(None),
        Place::Outside(Recovery::Ask) => Err(format!(
            "`{}` cannot run in a transaction, and after a crash nobody could tell whether it \
             happened; carry it out by itself with `execute_sql`",
            shorten(text)
        )),
        Place::Outside(recovery) => Ok(Some(recovery)),
    }
}

/// Whether it turns one of the timeouts off.
fn lifts_timeout(text: &str) -> bool {
    let words = tokens(text);
    let is_timeout =
        words.iter().any(|word| word.is("lock_timeout") || word.is("statement_timeout"));
    let value = text.rsplit(['=', ' ']).next().unwrap_or_default();
    let value = value.trim_matches(|c: char| c == '\'' || c.is_whitespace());
    let is_none = value.eq_ignore_ascii_case("default")
        || value.trim_end_matches(char::is_alphabetic).parse::<f64>().is_ok_and(|n| n == 0.0);
    is_timeout && is_none
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::migration::class::Class;

    fn refusal(text: &str) -> String {
        read_now("0007_x.sql", text).unwrap_err().message
    }

    #[test]
    fn statements_are_found_with_their_lines() {
        let text = "-- first; not a statement\ncreate table t (\n  a text default ';'\n);\n\n\
                    create function f() returns int begin atomic select 1; select 2; end;\n\
                    comment on table t is $$ a; b $$;";
        let read = read_now("x", text).unwrap();
        let found: Vec<_> = read.statements.iter().map(|one| one.line).collect();
        assert_eq!(found, [2, 6, 7], "{read:?}");
        assert!(read.in_transaction);
        assert!(read.statements[2].text.ends_with("$$ a; b $$"));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_its_place() {
        assert!(refusal("create table t (a int);\nbegin;").starts_with("0007_x.sql:2:1: "));
        for (text, part) in [
            ("commit", "controls a transaction"),
            ("selec 1", "no SQL that can be read"),
            ("", "holds no statement"),
            ("-- only a comment", "holds no statement"),
            ("set lock_timeout = 0", "queue behind this file"),
            ("set local statement_timeout to '0ms'", "queue behind this file"),
            ("alter system set work_mem = '1MB'", "no part of a database's structure"),
            ("create database d", "nobody could tell"),
            ("alter table p detach partition q concurrently", "nobody could tell"),
            ("create index concurrently on t (a)", "needs a name"),
            ("copy t from stdin", "no SQL that can be read"),
            ("listen x", "no effect beyond its own session"),
        ] {
            let message = match read_now("f", text) {
                Err(failure) => failure.message,
                Ok(read) => panic!("{text}: {read:?}"),
            };
            let copied = text.starts_with("copy") && message.contains("streams");
            assert!(message.contains(part) || copied, "{text}: {message}");
        }
        assert!(read_now("f", "set lock_timeout = '2s'; set search_path = a, b; select 1").is_ok());
    }

    #[test]
    fn a_file_is_one_thing() {
        let mixed = "create table t (a int); create index concurrently i on t (a);";
        assert_eq!(read_now("f", mixed).unwrap_err().code, "migration::mixed");
        let read = read_now("f", "create index concurrently i on t (a); drop index concurrently j")
            .unwrap();
        assert!(!read.in_transaction);
        assert!(read.statements.iter().all(|one| one.outside == Some(Recovery::Probe)));
    }

    /// The seed took these for harmless: it looked for IF EXISTS, IF NOT EXISTS and OR REPLACE anywhere.
    #[test]
    fn what_a_search_for_words_accepts_is_classified() {
        for (text, class) in [
            ("DROP TABLE x; CREATE TABLE IF NOT EXISTS y (a int)", Class::Destructive),
            ("DROP TABLE IF EXISTS x", Class::Destructive),
            ("DROP TABLE x -- IF EXISTS is not needed", Class::Destructive),
            ("/* CREATE OR REPLACE */ TRUNCATE t", Class::Destructive),
            ("ALTER TABLE t DROP COLUMN c", Class::Destructive),
            ("ALTER TABLE t DROP COLUMN IF EXISTS c", Class::Destructive),
            ("ALTER TABLE t DROP CONSTRAINT c", Class::Destructive),
            ("ALTER TABLE t ALTER COLUMN a TYPE bigint", Class::Rewrite),
            ("ALTER TABLE t RENAME TO u", Class::Breaking),
            ("DROP SCHEMA s CASCADE", Class::Destructive),
            ("DROP SCHEMA IF EXISTS s CASCADE", Class::Destructive),
            ("DROP VIEW v", Class::Breaking),
            ("DROP TYPE t", Class::Destructive),
            ("DELETE FROM t", Class::Destructive),
            ("DELETE FROM t WHERE true", Class::Destructive),
            ("UPDATE t SET a = 1", Class::Destructive),
            ("SELECT drop_everything()", Class::Destructive),
            ("DO $$ BEGIN EXECUTE 'drop table t'; END $$", Class::Destructive),
            ("GRANT ALL ON t TO PUBLIC", Class::Safe),
            ("COMMENT ON TABLE t IS 'IF NOT EXISTS'", Class::Safe),
            // It cannot happen twice: the history keeps it from being proposed again.
            ("ALTER TABLE t ADD COLUMN c text", Class::Safe),
        ] {
            let read = read_now("f", text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
            let worst = read.statements.iter().map(|one| &one.verdict).max_by_key(|one| one.class);
            let worst = worst.unwrap();
            assert_eq!(worst.class, class, "{text}");
            assert!(!worst.reason.is_empty(), "{text}");
        }
        for refused in ["SET lock_timeout = 0; DROP TABLE IF EXISTS x", "COMMIT; DROP TABLE x"] {
            assert_eq!(read_now("f", refused).unwrap_err().code, "migration::refused", "{refused}");
        }
    }

    #[test]
    fn reviewers_rules_speak_with_lines() {
        let read = read_now("f", "create table t (a int);\n\ncreate index i on u (a);").unwrap();
        let rules: Vec<_> = read.lint.iter().map(|one| (one.rule.as_str(), one.line)).collect();
        assert!(rules.contains(&("require-concurrent-index-creation", 3)), "{rules:?}");
        let silenced =
            "-- squawk-ignore require-concurrent-index-creation\ncreate index i on u (a);";
        let rules = read_now("f", silenced).unwrap().lint;
        assert!(rules.iter().all(|one| one.rule != "require-concurrent-index-creation"));
    }

    #[tokio::test]
    async fn no_text_ends_the_process() {
        for text in [
            format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("select {} true", "not ".repeat(100_000)),
            format!("select {}1", "- ".repeat(100_000)),
            format!("select {} 1", "case when ".repeat(50_000)),
            format!("select {}", "select ".repeat(50_000)),
            format!("create {}", "create table ".repeat(50_000)),
        ] {
            assert!(read("f", &text).await.is_err());
        }
        let long = "insert into t values (1);\n".repeat(2_000);
        assert_eq!(read("f", &long).await.unwrap().statements.len(), 2_000);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", words in "([a-z(;'\"$]{1,9}[ \n]){0,12}") {
            drop(read_now("f", &text));
            drop(read_now("f", &words));
            drop(read_now("f", &format!("alter table {words}")));
            drop(read_now("f", &format!("create {text}")));
        }
    }
}
