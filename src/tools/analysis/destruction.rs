//! Whether a parsed statement destroys something that it cannot bring back.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, Expr, MergeAction, Statement, Visit, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Why a statement is destructive; `None` when it is not.
pub(super) fn destroys(text: &str) -> Option<&'static str> {
    match Parser::parse_sql(&PostgreSqlDialect {}, text) {
        Err(_) => Some("the parser does not know it, so nobody has shown that it is harmless"),
        Ok(statements) => match statements.visit(&mut Destruction) {
            ControlFlow::Break(reason) => Some(reason),
            ControlFlow::Continue(()) => None,
        },
    }
}

/// Looks at every statement of a tree, also at those inside `with` and `explain`.
struct Destruction;

impl Visitor for Destruction {
    type Break = &'static str;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Self::Break> {
        match reason(statement) {
            Some(reason) => ControlFlow::Break(reason),
            None => ControlFlow::Continue(()),
        }
    }
}

fn reason(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::Delete(delete) if !names_rows(delete.selection.as_ref()) => {
            Some("it deletes every row of the table")
        }
        Statement::Update(update) if !names_rows(update.selection.as_ref()) => {
            Some("it overwrites every row of the table")
        }
        Statement::Merge(merge) => merge
            .clauses
            .iter()
            .any(|clause| matches!(clause.action, MergeAction::Delete { .. }))
            .then_some("it deletes rows that a join selects"),
        Statement::AlterTable(alter) => alter.operations.iter().find_map(alteration),
        _ => None,
    }
}

fn alteration(operation: &AlterTableOperation) -> Option<&'static str> {
    match operation {
        AlterTableOperation::DropColumn { .. } => Some("it drops a column with its data"),
        AlterTableOperation::DropConstraint { .. } => Some("it drops a constraint"),
        AlterTableOperation::AlterColumn {
            op: AlterColumnOperation::SetDataType { .. }, ..
        } => Some("it can rewrite the table under an exclusive lock"),
        _ => None,
    }
}

/// Whether a condition looks at a column at all: `where true` selects every row.
fn names_rows(selection: Option<&Expr>) -> bool {
    selection.is_some_and(|condition| condition.visit(&mut NamesColumn).is_break())
}

struct NamesColumn;

impl Visitor for NamesColumn {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}
