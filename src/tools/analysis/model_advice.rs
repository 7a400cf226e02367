//! What a model says about a statement, and what of it may be shown. PURE.
//!
//! A model is told the text without literals, the plan's node types and what the rules found; never a value,
//! never a name of a person or a host. What it answers is a claim. A rewrite is shown only when it parses as one
//! SELECT that reads, over the same tables, with the same placeholders.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlparser::ast::{Expr, Statement, Value as Literal, visit_expressions, visit_relations};

use super::reading::{DEEPEST, one_statement, reads};
use super::slow_query::Finding;
use super::text::{object_in, prose};

/// What a model answered, as it should.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Why the statement is slow.
    pub explanation: String,
    /// The same statement, written in another way.
    pub rewrite: Option<String>,
}

/// Why a rewrite is not shown.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It is no SQL, or more than one statement.
    #[error("it is not one statement that can be parsed")]
    NotOneStatement,
    /// It does something else than read.
    #[error("it does more than read")]
    NotReadOnly,
    /// It speaks of other tables.
    #[error("it reads other tables than the statement")]
    OtherTables,
    /// It wants other values.
    #[error("it has other placeholders than the statement")]
    OtherPlaceholders,
    /// It is the statement itself.
    #[error("it is the statement itself")]
    Same,
    /// The server cannot plan it.
    #[error("the server cannot plan it")]
    NotPlannable,
    /// The planner thinks that it costs as much.
    #[error("the planner does not think that it is cheaper")]
    NotCheaper,
    /// The statement itself is no query: its rewrites cannot be compared.
    #[error("only queries are rewritten")]
    NotAQuery,
}

/// What is asked.
pub fn question(query: &str, plan: Option<&str>, findings: &[Finding]) -> String {
    let found: Vec<String> = findings
        .iter()
        .map(|finding| format!("- {:?}: {}", finding.fault, without_values(&finding.evidence)))
        .collect();
    format!(
        "PostgreSQL statement, literals removed:\n{query}\n\nPlan (depth, node, table, index):\n{}\n\n\
         Rules found:\n{}\n\n\
         Answer with one JSON object and nothing else: {{\"explanation\": \"why it is slow, in two \
         sentences\", \"rewrite\": \"an equivalent single SELECT with the same placeholders, or null\"}}",
        plan.unwrap_or("not known"),
        if found.is_empty() { "nothing".to_owned() } else { found.join("\n") }
    )
}

/// Conditions of a plan without the constants in them.
fn without_values(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut quoted = false;
    for c in text.chars() {
        match (c, quoted) {
            ('\'', false) => {
                clean.push('?');
                quoted = true;
            }
            ('\'', true) => quoted = false,
            (_, true) => {}
            (c, false) => clean.push(c),
        }
    }
    clean
}

/// Reads what a model wrote: the JSON object in it, whatever stands around it.
pub fn read(text: &str) -> Option<Answer> {
    let mut answer: Answer = object_in(text)?;
    answer.explanation = prose(&answer.explanation);
    answer.rewrite = answer.rewrite.filter(|sql| !sql.trim().is_empty());
    (!answer.explanation.trim().is_empty()).then_some(answer)
}

/// Whether a rewrite may be looked at further: one SELECT that only reads what the statement reads.
pub fn check(query: &str, rewrite: &str) -> Result<(), Refusal> {
    let original = one_statement(query, DEEPEST).filter(reads).ok_or(Refusal::NotAQuery)?;
    let rewritten = one_statement(rewrite, DEEPEST).ok_or(Refusal::NotOneStatement)?;
    if !reads(&rewritten) {
        return Err(Refusal::NotReadOnly);
    }
    if original == rewritten {
        return Err(Refusal::Same);
    }
    let (before, after) = (Shape::of(&original), Shape::of(&rewritten));
    if !after.functions.is_subset(&before.functions) && after.functions.iter().any(|it| acts(it)) {
        return Err(Refusal::NotReadOnly);
    }
    if !after.tables.is_subset(&before.tables) || after.tables.is_empty() {
        return Err(Refusal::OtherTables);
    }
    if after.placeholders != before.placeholders {
        return Err(Refusal::OtherPlaceholders);
    }
    Ok(())
}

/// Functions that act, or that a rewrite has no business to call.
fn acts(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    name.starts_with("pg_")
        || name.starts_with("dblink")
        || name.starts_with("lo_")
        || matches!(name, "set_config" | "nextval" | "setval" | "query_to_xml")
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    tables: BTreeSet<String>,
    placeholders: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Shape {
    fn of(statement: &Statement) -> Self {
        let mut shape = Self::default();
        let mut defined = BTreeSet::new();
        if let Statement::Query(query) = statement {
            let with = query.with.iter().flat_map(|with| &with.cte_tables);
            defined.extend(with.map(|it| it.alias.name.value.to_lowercase()));
        }
        let flow = visit_relations(statement, |name| {
            let name = name.to_string().to_lowercase();
            if !defined.contains(&name) {
                shape.tables.insert(name);
            }
            ControlFlow::<()>::Continue(())
        });
        debug_assert!(flow.is_continue());
        let flow = visit_expressions(statement, |expression| {
            match expression {
                Expr::Value(value) => {
                    if let Literal::Placeholder(name) = &value.value {
                        shape.placeholders.insert(name.clone());
                    }
                }
                Expr::Function(function) => {
                    shape.functions.insert(function.name.to_string().to_lowercase());
                }
                _ => {}
            }
            ControlFlow::<()>::Continue(())
        });
        debug_assert!(flow.is_continue());
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "select o.id from shop.orders o where date(o.at) = $1 and o.kind = $2";

    #[test]
    fn an_equivalent_select_may_be_looked_at() {
        let fine = "select o.id from shop.orders o where o.at >= $1::date \
                    and o.at < $1::date + 1 and o.kind = $2";
        assert_eq!(check(QUERY, fine), Ok(()));
        let with = "with x as (select * from shop.orders where kind = $2) \
                    select id from x where date(at) = $1";
        assert_eq!(check(QUERY, with), Ok(()));
    }

    #[test]
    fn harm_and_nonsense_are_refused() {
        for (rewrite, why) in [
            ("drop table shop.orders", Refusal::NotReadOnly),
            ("delete from shop.orders where date(at) = $1 and kind = $2", Refusal::NotReadOnly),
            ("select 1; drop table shop.orders", Refusal::NotOneStatement),
            ("you should add an index", Refusal::NotOneStatement),
            (
                "with x as (delete from shop.orders returning id) select id from x",
                Refusal::NotReadOnly,
            ),
            ("select id into stolen from shop.orders where kind = $2", Refusal::NotReadOnly),
            (
                "select id from shop.orders where kind = $2 and date(at) = $1 for update",
                Refusal::NotReadOnly,
            ),
            (
                "select pg_terminate_backend(o.id) from shop.orders o where $1 = $2",
                Refusal::NotReadOnly,
            ),
            ("select pg_read_file($1) from shop.orders where kind = $2", Refusal::NotReadOnly),
            ("select id from shop.secrets where date(at) = $1 and kind = $2", Refusal::OtherTables),
            ("select id from shop.orders where kind = $2", Refusal::OtherPlaceholders),
            (QUERY, Refusal::Same),
        ] {
            assert_eq!(check(QUERY, rewrite), Err(why), "{rewrite}");
        }
        assert_eq!(check("update t set a = $1", "select 1"), Err(Refusal::NotAQuery));
    }

    #[test]
    fn what_surrounds_the_answer_is_left_out() {
        let answer =
            read("Sure!\n```json\n{\"explanation\": \"it\\u0007 wraps\", \"rewrite\": \" \"}\n```");
        let expected = Answer { explanation: "it wraps".into(), rewrite: None };
        assert_eq!(answer, Some(expected));
        assert_eq!(read("no idea"), None);
        assert_eq!(read("{\"rewrite\": \"select 1\"}"), None);
        assert_eq!(read("}{"), None);
    }

    #[test]
    fn no_value_is_asked_about() {
        let finding = Finding {
            fault: super::super::slow_query::Fault::WrappedColumn,
            object: None,
            evidence: "it filters by (t.name = 'Ada''s secret'::text)".into(),
            advice: String::new(),
        };
        let asked = question(QUERY, None, &[finding]);
        assert!(
            asked.contains(QUERY) && !asked.contains("Ada") && !asked.contains("secret"),
            "{asked}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "\\PC{0,80}") {
            drop(read(&text));
            check(QUERY, &text).ok();
        }
    }
}
