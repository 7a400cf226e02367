//! Whether a statement only reads, as far as its text says: what its functions do is another matter. PURE.
//!
//! The one guard for what a model writes and for what was recorded.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, Select, Statement, Visit as _, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// How deep a statement may nest that people wrote: the parser's own limit.
pub const DEEPEST: usize = 50;

/// What a query does beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It writes, or makes a table.
    Writes,
    /// It takes locks.
    Locks,
}

/// The one statement of a text that nests no deeper than this; `None`: it is no SQL, or none, or several.
pub fn one_statement(text: &str, deepest: usize) -> Option<Statement> {
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(deepest);
    let parsed = parser.try_with_sql(text).and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.ok()?;
    let one = statements.pop()?;
    statements.is_empty().then_some(one)
}

/// What a query, or any part of it, does beside reading.
pub fn effect(query: &Query) -> Option<Effect> {
    query.visit(&mut Reading).break_value()
}

/// Whether a statement is a query that only reads.
pub fn reads(statement: &Statement) -> bool {
    matches!(statement, Statement::Query(query) if effect(query).is_none())
}

/// Whether a text is one query that only reads.
pub fn only_reads(text: &str) -> bool {
    one_statement(text, DEEPEST).is_some_and(|statement| reads(&statement))
}

struct Reading;

impl Visitor for Reading {
    type Break = Effect;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Effect> {
        if query.locks.is_empty() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(Effect::Locks)
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Effect> {
        if select.into.is_none() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(Effect::Writes)
        }
    }

    fn pre_visit_statement(&mut self, _statement: &Statement) -> ControlFlow<Effect> {
        // Only a query is looked at: whatever statement stands in it does more than read.
        ControlFlow::Break(Effect::Writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reads() {
        for text in [
            "select o.id from shop.orders o where date(o.at) = $1 and o.kind = $2",
            "with a as (select 1) select * from a",
            "values (1) union all (select 2)",
        ] {
            assert!(only_reads(text), "{text}");
        }
        for writes in [
            "update t set a = $1",
            "select 1; select 2",
            "select id into stolen from t",
            "select id from t for update",
            "with gone as (delete from t returning *) select * from gone",
            "with made as (insert into t values (1) returning *) select * from made",
            "with kept as (select id from t for update) select * from kept",
            "select * from (select id from t for share) q",
            "select 1 where exists (select id from t for update)",
            "",
        ] {
            assert!(!only_reads(writes), "{writes}");
        }
    }
}
