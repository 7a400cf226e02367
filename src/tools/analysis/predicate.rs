//! What a condition of a plan asks of one table, and whether an index could answer it. PURE.
//!
//! The text is the server's (`EXPLAIN VERBOSE`): every column has its table's alias, every cast is written.
//! What the parser does not know counts as something that no index answers.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator,
    Value as Literal, visit_expressions,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// What an index would have to hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A column, by its name in the catalog.
    Column(String),
    /// `lower` or `upper` of a column: the function, and the column.
    Folded(String, String),
}

impl Key {
    /// The column that it is made of.
    pub fn column(&self) -> &str {
        match self {
            Self::Column(name) | Self::Folded(_, name) => name,
        }
    }
}

/// How a condition uses a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Usage {
    /// It equals something: a value that stands in the text, or one that is not known (`None`).
    Equal(Option<String>),
    /// It equals one of some values.
    OneOf,
    /// It is null.
    Null,
    /// It equals a column of another table, by alias.
    Joined(String),
    /// It lies on one side of something; whether the planner knows of what.
    Range {
        /// Whether the planner could estimate it.
        known: bool,
    },
}

/// One condition that an index could answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// What the index would have to hold.
    pub key: Key,
    /// How it is used.
    pub usage: Usage,
}

/// Why no index answers a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A pattern that begins with a wildcard, or with something unknown.
    Pattern,
    /// A function or a cast around the column.
    Wrapped,
    /// Alternatives.
    Alternatives,
    /// Something else.
    Other,
}

/// A condition, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// What an index could answer.
    pub predicates: Vec<Predicate>,
    /// What none answers.
    pub obstacles: Vec<Obstacle>,
    /// The columns of the table that it names.
    pub columns: BTreeSet<String>,
}

/// On which side of a value that is not in the text a column's values are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// They equal it.
    At,
    /// They equal one of the elements of it.
    Among,
    /// They are greater.
    Above,
    /// They are smaller.
    Below,
}

/// The placeholders that a condition compares with the table of this alias: each with what it is compared
/// with, and how.
pub fn placeholders(condition: &str, alias: &str) -> Vec<(String, Key, Side)> {
    let mut found = Vec::new();
    let Some(expression) = parse(condition) else { return found };
    let flow = visit_expressions(&expression, |inner| {
        compared(inner, alias, &mut found);
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(flow.is_continue());
    found
}

fn compared(expression: &Expr, alias: &str, found: &mut Vec<(String, Key, Side)>) {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
    let mut push = |other: &Expr, key: Key, side| {
        if let Some(name) = placeholder(other) {
            found.push((name, key, side));
        }
    };
    match expression {
        Expr::BinaryOp { left, op, right } => {
            let flipped = key(left, alias).is_none();
            let (mine, other) = if flipped { (right, left) } else { (left, right) };
            let Some(key) = key(mine, alias) else { return };
            match (op, flipped) {
                (Eq, _) => push(other, key, Side::At),
                (Gt | GtEq, false) | (Lt | LtEq, true) => push(other, key, Side::Above),
                (Lt | LtEq, false) | (Gt | GtEq, true) => push(other, key, Side::Below),
                _ => {}
            }
        }
        Expr::AnyOp { left, compare_op: Eq, right, .. } => {
            let Some(key) = key(left, alias) else { return };
            match uncast(right) {
                Expr::Array(array) => {
                    array.elem.iter().for_each(|element| push(element, key.clone(), Side::At));
                }
                other => push(other, key, Side::Among),
            }
        }
        _ => {}
    }
}

fn placeholder(expression: &Expr) -> Option<String> {
    match uncast(expression) {
        Expr::Value(value) => match &value.value {
            Literal::Placeholder(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Takes a condition apart, as far as it concerns the table of this alias.
pub fn take_apart(condition: &str, alias: &str) -> Parts {
    let mut parts = Parts::default();
    let Some(expression) = parse(condition) else {
        parts.obstacles.push(Obstacle::Other);
        return parts;
    };
    parts.columns = columns(&expression, alias);
    let mut conjuncts = Vec::new();
    split(&expression, &mut conjuncts);
    for conjunct in conjuncts {
        if columns(conjunct, alias).is_empty() {
            continue;
        }
        match judge(conjunct, alias) {
            Ok(predicate) => parts.predicates.push(predicate),
            Err(obstacle) => parts.obstacles.push(obstacle),
        }
    }
    parts
}

/// The column of a sort key, and whether it runs backwards.
pub fn sort_key(text: &str, alias: &str) -> Option<(Key, bool)> {
    let text = text.trim();
    let (text, nulls) = match text.find(" NULLS ") {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let (expression, descends) = match text.strip_suffix(" DESC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    // Only the order in which indexes stand by default.
    if nulls.is_some() {
        return None;
    }
    key(&parse(expression)?, alias).map(|key| (key, descends))
}

fn parse(text: &str) -> Option<Expr> {
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).ok()?;
    let expression = parser.parse_expr().ok()?;
    matches!(parser.peek_token().token, sqlparser::tokenizer::Token::EOF).then_some(expression)
}

fn split<'a>(expression: &'a Expr, into: &mut Vec<&'a Expr>) {
    match bare(expression) {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split(left, into);
            split(right, into);
        }
        other => into.push(other),
    }
}

/// Without parentheses.
fn bare(mut expression: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expression {
        expression = inner;
    }
    expression
}

fn judge(conjunct: &Expr, alias: &str) -> Result<Predicate, Obstacle> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, Or, PGILikeMatch, PGLikeMatch};
    match conjunct {
        Expr::BinaryOp { left, op, right } => {
            let (key, other) = sides(left, right, alias)?;
            match op {
                Eq => Ok(Predicate { key, usage: equal(other, alias) }),
                Lt | LtEq | Gt | GtEq => {
                    Ok(Predicate { key, usage: Usage::Range { known: !is_unknown(other) } })
                }
                PGLikeMatch | PGILikeMatch => Err(Obstacle::Pattern),
                Or => Err(Obstacle::Alternatives),
                _ => Err(Obstacle::Other),
            }
        }
        Expr::AnyOp { left, compare_op: Eq, right, .. } => {
            let key = key(left, alias).ok_or(Obstacle::Wrapped)?;
            if columns(right, alias).is_empty() {
                Ok(Predicate { key, usage: Usage::OneOf })
            } else {
                Err(Obstacle::Other)
            }
        }
        Expr::InList { expr, negated: false, .. } => {
            let key = key(expr, alias).ok_or(Obstacle::Wrapped)?;
            Ok(Predicate { key, usage: Usage::OneOf })
        }
        Expr::IsNull(inner) => {
            let key = key(inner, alias).ok_or(Obstacle::Wrapped)?;
            Ok(Predicate { key, usage: Usage::Null })
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            let key = key(expr, alias).ok_or(Obstacle::Other)?;
            Ok(Predicate { key, usage: Usage::Equal(Some("f".to_owned())) })
        }
        other => match key(other, alias) {
            Some(key) => Ok(Predicate { key, usage: Usage::Equal(Some("t".to_owned())) }),
            None => Err(Obstacle::Other),
        },
    }
}

/// The side that is a key of the table, and the other one, which must not speak of the same table.
fn sides<'a>(left: &'a Expr, right: &'a Expr, alias: &str) -> Result<(Key, &'a Expr), Obstacle> {
    for (mine, other) in [(left, right), (right, left)] {
        if columns(mine, alias).is_empty() || !columns(other, alias).is_empty() {
            continue;
        }
        return key(mine, alias).map(|key| (key, other)).ok_or(Obstacle::Wrapped);
    }
    Err(Obstacle::Alternatives)
}

fn equal(other: &Expr, alias: &str) -> Usage {
    let other_table = bare(other);
    if let Expr::CompoundIdentifier(names) = uncast(other_table)
        && let [table, _column] = names.as_slice()
        && table.value != alias
    {
        return Usage::Joined(table.value.clone());
    }
    Usage::Equal(literal(other))
}

/// A column, or a column folded by `lower` or `upper`.
fn key(expression: &Expr, alias: &str) -> Option<Key> {
    let expression = bare(expression);
    if let Some(name) = column(expression, alias) {
        return Some(Key::Column(name));
    }
    let Expr::Function(function) = expression else { return None };
    let name = function.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    match (name.as_str(), list.args.as_slice()) {
        ("lower" | "upper", [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))]) => {
            Some(Key::Folded(name, column(inner, alias)?))
        }
        _ => None,
    }
}

/// A column of the table. A `varchar` is written with a cast to `text`, which its index serves all the
/// same.
fn column(expression: &Expr, alias: &str) -> Option<String> {
    match bare(expression) {
        Expr::CompoundIdentifier(names) => match names.as_slice() {
            [table, column] if table.value == alias => Some(column.value.clone()),
            _ => None,
        },
        Expr::Cast { expr, data_type: DataType::Text, .. } => column(expr, alias),
        _ => None,
    }
}

fn uncast(expression: &Expr) -> &Expr {
    match bare(expression) {
        Expr::Cast { expr, .. } => uncast(expr),
        other => other,
    }
}

/// The value, when it stands in the text.
fn literal(expression: &Expr) -> Option<String> {
    match uncast(expression) {
        Expr::Value(value) => match &value.value {
            Literal::SingleQuotedString(text) | Literal::Number(text, _) => Some(text.clone()),
            Literal::Boolean(value) => Some(if *value { "t" } else { "f" }.to_owned()),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a value is only known when the statement runs.
fn is_unknown(expression: &Expr) -> bool {
    let mut unknown = false;
    let flow = visit_expressions(expression, |inner| {
        unknown |= match inner {
            Expr::Value(value) => matches!(value.value, Literal::Placeholder(_)),
            Expr::CompoundIdentifier(_) | Expr::Subquery(_) => true,
            _ => false,
        };
        ControlFlow::<()>::Continue(())
    });
    unknown || flow.is_break()
}

/// The columns of the table that an expression names.
fn columns(expression: &Expr, alias: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let flow = visit_expressions(expression, |inner| {
        if let Expr::CompoundIdentifier(names) = inner
            && let [table, column] = names.as_slice()
            && table.value == alias
        {
            found.insert(column.value.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(flow.is_continue());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicates(condition: &str) -> Vec<(String, Usage)> {
        let parts = take_apart(condition, "t");
        let name = |key: &Key| match key {
            Key::Column(name) => name.clone(),
            Key::Folded(function, name) => format!("{function}({name})"),
        };
        parts.predicates.into_iter().map(|it| (name(&it.key), it.usage)).collect()
    }

    fn obstacles(condition: &str) -> Vec<Obstacle> {
        take_apart(condition, "t").obstacles
    }

    #[test]
    fn equality_in_all_its_forms() {
        let unknown = Usage::Equal(None);
        assert_eq!(predicates("(t.a = $1)"), [("a".into(), unknown.clone())]);
        assert_eq!(predicates("($1 = t.\"Odd A\")"), [("Odd A".into(), unknown.clone())]);
        assert_eq!(predicates("((t.name)::text = $1)"), [("name".into(), unknown.clone())]);
        assert_eq!(predicates("(lower((t.name)::text) = $1)"), [("lower(name)".into(), unknown)]);
        let open = Usage::Equal(Some("open".into()));
        assert_eq!(predicates("(t.status = 'open'::text)"), [("status".into(), open)]);
        assert_eq!(predicates("(t.a = ANY ($1))"), [("a".into(), Usage::OneOf)]);
        assert_eq!(predicates("(t.a = ANY ('{1,2}'::integer[]))"), [("a".into(), Usage::OneOf)]);
        assert_eq!(predicates("(t.a IS NULL)"), [("a".into(), Usage::Null)]);
        assert_eq!(predicates("(NOT t.a)"), [("a".into(), Usage::Equal(Some("f".into())))]);
        assert_eq!(predicates("t.a"), [("a".into(), Usage::Equal(Some("t".into())))]);
        assert_eq!(predicates("(o.id = t.o_id)"), [("o_id".into(), Usage::Joined("o".into()))]);
    }

    #[test]
    fn placeholders_are_found_with_what_they_are_compared_with() {
        let found = |text: &str| -> Vec<String> {
            let all = placeholders(text, "t").into_iter();
            all.map(|(name, key, side)| format!("{name} {} {side:?}", key.column())).collect()
        };
        assert_eq!(
            found("((t.a = $1) AND ($2 < t.b) AND (t.c <= ($3)::bigint) AND (t.d ~~ $4))"),
            ["$1 a At", "$2 b Above", "$3 c Below"]
        );
        assert_eq!(found("(lower((t.e)::text) = $1)"), ["$1 e At"]);
        assert_eq!(found("(t.a = ANY (ARRAY[$1, $2]))"), ["$1 a At", "$2 a At"]);
        assert_eq!(found("(t.a = ANY (($1)::integer[]))"), ["$1 a Among"]);
        assert_eq!(found("(t.at > (now() - ($2)::interval))"), Vec::<String>::new());
        assert_eq!(found("((t.a = $1) OR (o.b = $2))"), ["$1 a At"]);
    }

    #[test]
    fn ranges_know_what_the_planner_knew() {
        let range = |known| Usage::Range { known };
        let found = predicates("((t.a = $1) AND (t.at > $2) AND (t.n <= 10))");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "at", "n"]);
        assert_eq!((&found[1].1, &found[2].1), (&range(false), &range(true)));
        assert_eq!(
            predicates("(t.at > (now() - '1 day'::interval))"),
            [("at".into(), range(true))]
        );
    }

    #[test]
    fn what_no_index_answers() {
        assert_eq!(obstacles("(t.name ~~ $1)"), [Obstacle::Pattern]);
        assert_eq!(obstacles("(t.name ~~* '%x%'::text)"), [Obstacle::Pattern]);
        assert_eq!(obstacles("((t.a = $1) OR (t.b = $2))"), [Obstacle::Alternatives]);
        assert_eq!(obstacles("((t.a)::numeric = $1)"), [Obstacle::Wrapped]);
        assert_eq!(obstacles("(date_trunc('day'::text, t.at) = $1)"), [Obstacle::Wrapped]);
        assert_eq!(obstacles("(t.a <> $1)"), [Obstacle::Other]);
        assert_eq!(obstacles("(t.a = t.b)"), [Obstacle::Alternatives]);
        assert_eq!(obstacles("(hashed SubPlan 1)"), [Obstacle::Other]);
        assert_eq!(obstacles("(o.x = $1)"), [], "another table");
    }

    #[test]
    fn sort_keys_in_the_order_of_an_index() {
        assert_eq!(sort_key("t.at DESC", "t"), Some((Key::Column("at".into()), true)));
        assert_eq!(sort_key("t.at", "t"), Some((Key::Column("at".into()), false)));
        assert_eq!(sort_key("t.at NULLS FIRST", "t"), None);
        assert_eq!(sort_key("(count(*)) DESC", "t"), None);
        assert_eq!(sort_key("o.at", "t"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", words in "([a-z(.='$)]{1,9} ){0,9}") {
            drop(take_apart(&text, "t"));
            drop(take_apart(&words, "t"));
            drop(sort_key(&text, "t"));
        }
    }
}
