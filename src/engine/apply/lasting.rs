//! Whether a change leaves something in its session that the next change could meet.

use crate::kernel::{Operation, Recovery};
use crate::postgres::scan;

/// Statements that begin with these act on rows.
const ROWS: [&str; 8] =
    ["delete", "insert", "merge", "select", "truncate", "update", "values", "with"];

/// Statements that begin with these act on what follows.
const OBJECTS: [&str; 3] = ["alter", "create", "drop"];

/// What of it a session that is open keeps up with by itself. A role's or a database's settings hold only for
/// sessions that begin later; types are remembered by the driver.
const FOLLOWED: [&str; 11] = [
    "constraint",
    "index",
    "materialized",
    "policy",
    "schema",
    "sequence",
    "statistics",
    "table",
    "trigger",
    "unique",
    "view",
];

/// Whether the session of a change can be kept for the next one, once it was reset. What is not known to leave
/// nothing behind has a session of its own, and so has all that is carried out outside a transaction.
pub(in crate::engine) fn keeps_session(operation: &Operation, recovery: Recovery) -> bool {
    recovery == Recovery::Transactional
        && match operation {
            Operation::Sql { statement, transactional: true } => leaves_nothing(&statement.text),
            Operation::Transaction { statements } => {
                statements.iter().all(|statement| leaves_nothing(&statement.text))
            }
            Operation::FromArchive(asked) => leaves_nothing(&asked.statement.text),
            _ => false,
        }
}

/// Whether the statement changes rows, and takes no lock on more than that.
pub(super) fn changes_rows(text: &str) -> bool {
    scan::changes_rows(&scan::tokens(text))
}

fn leaves_nothing(text: &str) -> bool {
    let tokens = scan::tokens(text);
    let is = |at: usize, words: &[&str]| {
        tokens.get(at).is_some_and(|token| words.iter().any(|word| token.is(word)))
    };
    let is_known = is(0, &ROWS) || is(0, &OBJECTS) && is(1, &FOLLOWED);
    // A setting of an author's own cannot be unset again: it stays behind as an empty text.
    is_known && !tokens.iter().any(|token| token.name().as_deref() == Some("set_config"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SqlStatement;

    #[test]
    fn only_what_changes_rows_goes_ahead() {
        for text in ["insert into t values (1)", "-- why\nUPDATE t set a = 1", "delete from t"] {
            assert!(changes_rows(text), "{text}");
        }
        for text in
            ["", "select f()", "truncate t", "alter table t add b int", "with a as (select) delete"]
        {
            assert!(!changes_rows(text), "{text}");
        }
    }

    #[test]
    fn what_may_leave_something_has_a_session_of_its_own() {
        for text in [
            "insert into t values (1)",
            "/* why */ WITH gone AS (delete from t returning *) select count(*) from gone",
            "update t set set_at = now()",
            "create index on t (a)",
            "create unique index u on t (a)",
            "alter table t add b int",
            "drop view v",
        ] {
            assert!(leaves_nothing(text), "{text}");
        }
        for text in [
            "",
            "set role clerk",
            "do $$ begin perform 1; end $$",
            "call p()",
            "load 'auto_explain'",
            "listen news",
            "alter role clerk set search_path = shop",
            "alter database shop set work_mem = '1GB'",
            "alter system set work_mem = '1GB'",
            "alter type mood add value 'fine'",
            "create extension hstore",
            "create temp table t (a int)",
            "create or replace function f() returns int language sql as 'select 1'",
            "select set_config('app.tenant', '1', true)",
            "select pg_catalog.SET_CONFIG('app.tenant', '1', true)",
            "select \"set_config\"('app.tenant', '1', true)",
        ] {
            assert!(!leaves_nothing(text), "{text}");
        }
    }

    #[test]
    fn only_a_transaction_of_statements_that_leave_nothing_keeps_its_session() {
        let statement = |text: &str| SqlStatement::new(text);
        let insert = || statement("insert into t values (1)");
        let sql = |transactional| Operation::Sql { statement: insert(), transactional };
        let both = |last| Operation::Transaction { statements: vec![insert(), statement(last)] };
        assert!(keeps_session(&sql(true), Recovery::Transactional));
        assert!(keeps_session(&both("update t set a = 2"), Recovery::Transactional));
        assert!(!keeps_session(&sql(true), Recovery::Repeatable));
        assert!(!keeps_session(&sql(false), Recovery::Transactional));
        assert!(!keeps_session(&both("set role clerk"), Recovery::Transactional));
    }
}
