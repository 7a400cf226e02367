//! Carries out SQL statements that the workflow's author wrote.
//!
//! Reads: nothing; the statements are judged by their text.
//! Changes: one change for each statement, in order, each in a transaction of its own unless PostgreSQL
//! forbids that.
//! Undo: by the statement's own `undo`; without one it cannot be undone.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::kernel::{
    Bind, Change, ChangeSet, Failure, Inverse, Operation, Recovery, Risk, SqlStatement,
};
use crate::tools::analysis::statement::{Place, StatementFacts, read_statement};
use crate::tools::analysis::text::shorten;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Ending, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ExecuteSql));

struct ExecuteSql;

/// What to carry out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The statements, in order: plain texts, or `{ sql, binds, undo, transactional }`.
    statements: Vec<Item>,
}

/// One statement: a plain text, or an object.
struct Item(Spelled);

/// A statement with what belongs to it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Spelled {
    /// One SQL statement, with `$1`, `$2`, … where values are bound.
    sql: String,
    /// The values, in order. A text is bound as `text`: write `$1::date` where the column needs it.
    /// `secret:NAME` (or `${{ secrets.NAME }}`) is replaced last and never shown.
    #[serde(default)]
    binds: Vec<Value>,
    /// What undoes it: a statement, or `{ sql, binds }`.
    #[serde(default)]
    undo: Option<Undo>,
    /// Whether it runs in a transaction; by default wherever PostgreSQL allows it. A statement outside
    /// a transaction that is interrupted may have to be settled by a person.
    #[serde(default)]
    transactional: Option<bool>,
}

/// What undoes a statement: a plain text, or an object.
struct Undo(SpelledUndo);

/// An undoing statement with its values.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SpelledUndo {
    /// One SQL statement.
    sql: String,
    /// The values that are bound to it, in order.
    #[serde(default)]
    binds: Vec<Value>,
}

/// What became of the statements.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The statements, in order.
    statements: Vec<Done>,
    /// Rows touched by all of them.
    rows: u64,
}

/// What became of one statement.
#[derive(Serialize, JsonSchema)]
struct Done {
    /// The first 200 characters of its text.
    statement: String,
    /// How it ended.
    ended: Ending,
    /// Rows touched, as the server reported.
    rows: Option<u64>,
    /// The rows that it returned.
    result: Value,
    /// How long it took.
    duration_ms: Option<u64>,
}

impl WriteTool for ExecuteSql {
    const META: ToolMeta = ToolMeta {
        name: "execute_sql",
        family: Family::Core,
        risk: Risk::Medium,
        revision: 1,
        summary: "Carries out SQL statements, one change for each",
        sql: &[],
        secrets: &["statements"],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, _: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        judge(params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let statements: Vec<_> = settled.iter().map(done).collect();
        let rows = statements.iter().filter_map(|done| done.rows).sum();
        Output { statements, rows }
    }
}

fn done(settled: &Settled<'_>) -> Done {
    let receipt = settled.receipt();
    Done {
        statement: shorten(&settled.change.operation.to_string()),
        ended: settled.ending(),
        rows: receipt.and_then(|receipt| receipt.rows),
        result: receipt.map(|receipt| receipt.result.clone()).unwrap_or_default(),
        duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
    }
}

fn judge(params: Params) -> Result<ChangeSet, Failure> {
    if params.statements.is_empty() {
        return Err(Failure::permanent("execute_sql::nothing_to_do", "`statements` is empty"));
    }
    let total = params.statements.len();
    let changes =
        params.statements.into_iter().enumerate().map(|(index, Item(item))| {
            change(&format!("statement {} of {total}", index + 1), item)
        });
    Ok(ChangeSet::new(changes.collect::<Result<_, _>>()?))
}

fn change(which: &str, item: Spelled) -> Result<Change, Failure> {
    let facts = facts(which, &item.sql)?;
    let place = chosen_place(which, &facts, item.transactional)?;
    let (operation, recovery) = operation(item.sql, item.binds, place);
    let mut change = Change::new(which, "the workflow says so", operation);
    change.risk = facts.risk;
    if let Some(reason) = facts.reason {
        change.why = format!("the workflow says so; high risk because {reason}");
    }
    change.recovery = recovery;
    change.inverse = match item.undo {
        Some(Undo(undo)) => inverse(which, undo)?,
        None if facts.leaves_nothing => Inverse::Unneeded,
        None => Inverse::Impossible { why: "the statement names no `undo`".to_owned() },
    };
    Ok(change)
}

fn facts(which: &str, text: &str) -> Result<StatementFacts, Failure> {
    read_statement(text).map_err(|error| {
        let text = shorten(text);
        Failure::permanent(
            "execute_sql::refused",
            format!("{which} (`{text}`) is refused: {error}"),
        )
    })
}

fn chosen_place(
    which: &str,
    facts: &StatementFacts,
    transactional: Option<bool>,
) -> Result<Place, Failure> {
    match (transactional, facts.place) {
        (Some(true), Place::Outside(_)) => Err(Failure::permanent(
            "execute_sql::never_in_transaction",
            format!(
                "{which} says `transactional: true`, and PostgreSQL refuses it in a transaction"
            ),
        )
        .with_help("leave `transactional` out")),
        (Some(false), Place::Transaction) => Ok(Place::Outside(Recovery::Ask)),
        (_, place) => Ok(place),
    }
}

fn operation(sql: String, binds: Vec<Value>, place: Place) -> (Operation, Recovery) {
    let statement = SqlStatement::with_binds(sql, binds.into_iter().map(bind).collect());
    match place {
        Place::Transaction => {
            (Operation::Sql { statement, transactional: true }, Recovery::Transactional)
        }
        Place::Outside(recovery) => (Operation::Sql { statement, transactional: false }, recovery),
    }
}

fn inverse(which: &str, undo: SpelledUndo) -> Result<Inverse, Failure> {
    let facts = facts(&format!("the undo of {which}"), &undo.sql)?;
    let (operation, recovery) = operation(undo.sql, undo.binds, facts.place);
    Ok(Inverse::By { operation, recovery })
}

/// A JSON value as PostgreSQL gets it.
fn bind(value: Value) -> Bind {
    match value {
        Value::Null => Bind::Null,
        Value::Bool(value) => Bind::Bool(value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Bind::Int(whole),
            (None, Some(value)) => Bind::Float(value),
            (None, None) => Bind::Text(number.to_string()),
        },
        Value::String(text) => match text.strip_prefix("secret:") {
            Some(name) => Bind::Secret(name.to_owned()),
            None => Bind::Text(text),
        },
        Value::Array(items) => array(items),
        Value::Object(_) => Bind::Json(value),
    }
}

/// Texts and whole numbers become arrays; anything mixed or deeper is JSON.
fn array(items: Vec<Value>) -> Bind {
    if let Some(texts) = items.iter().map(|item| item.as_str().map(str::to_owned)).collect() {
        return Bind::TextArray(texts);
    }
    match items.iter().map(Value::as_i64).collect() {
        Some(numbers) => Bind::IntArray(numbers),
        None => Bind::Json(Value::Array(items)),
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(sql) => {
                Ok(Self(Spelled { sql, binds: Vec::new(), undo: None, transactional: None }))
            }
            value => Spelled::deserialize(value).map(Self).map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Undo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(sql) => Ok(Self(SpelledUndo { sql, binds: Vec::new() })),
            value => SpelledUndo::deserialize(value).map(Self).map_err(D::Error::custom),
        }
    }
}

fn text_or_object<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let object = generator.subschema_for::<T>();
    schemars::json_schema!({ "oneOf": [{ "type": "string", "minLength": 1 }, object] })
}

impl JsonSchema for Item {
    fn schema_name() -> Cow<'static, str> {
        "SqlItem".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        text_or_object::<Spelled>(generator)
    }
}

impl JsonSchema for Undo {
    fn schema_name() -> Cow<'static, str> {
        "SqlUndo".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        text_or_object::<SpelledUndo>(generator)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn propose(statements: &Value) -> Result<ChangeSet, Failure> {
        judge(serde_json::from_value(json!({ "statements": statements })).unwrap())
    }

    #[test]
    fn a_plain_text_runs_exactly_once_in_a_transaction() {
        let set = propose(&json!(["insert into t values (1)"])).unwrap();
        let change = &set.changes[0];
        assert_eq!(change.operation, Operation::sql("insert into t values (1)", Vec::new()));
        assert_eq!((change.recovery, change.risk), (Recovery::Transactional, Risk::Medium));
        assert!(matches!(change.inverse, Inverse::Impossible { .. }));
    }

    #[test]
    fn values_are_bound_by_their_type() {
        let binds = json!([null, true, 7, 1.5, "a", "secret:PW", ["a"], [1], {"a": 1}, [1, "a"]]);
        let set = propose(&json!([{"sql": "select f($1)", "binds": binds}])).unwrap();
        let Operation::Sql { statement, .. } = &set.changes[0].operation else { panic!("no SQL") };
        let expected = [
            Bind::Null,
            Bind::Bool(true),
            Bind::Int(7),
            Bind::Float(1.5),
            Bind::Text("a".into()),
            Bind::Secret("PW".into()),
            Bind::TextArray(vec!["a".into()]),
            Bind::IntArray(vec![1]),
            Bind::Json(json!({"a": 1})),
            Bind::Json(json!([1, "a"])),
        ];
        assert_eq!(statement.binds, expected);
    }

    #[test]
    fn an_undo_becomes_the_inverse() {
        let set = propose(&json!([
            {"sql": "create table t (a int)", "undo": "drop table t"},
            {"sql": "create index concurrently i on public.t (a)",
             "undo": {"sql": "drop index concurrently public.i"}},
        ]))
        .unwrap();
        let operation = Operation::sql("drop table t", Vec::new());
        let recovery = Recovery::Transactional;
        assert_eq!(set.changes[0].inverse, Inverse::By { operation, recovery });
        let operation = Operation::sql_outside_transaction("drop index concurrently public.i");
        let recovery = Recovery::Probe;
        assert_eq!(set.changes[1].inverse, Inverse::By { operation, recovery });
        assert_eq!(set.changes[1].recovery, Recovery::Probe);
    }

    #[test]
    fn the_author_may_leave_the_transaction_and_not_force_one() {
        let set = propose(&json!([{"sql": "call p()", "transactional": false}])).unwrap();
        assert_eq!(set.changes[0].recovery, Recovery::Ask);
        let error = propose(&json!([{"sql": "vacuum t", "transactional": true}])).unwrap_err();
        assert_eq!(error.code, "execute_sql::never_in_transaction");
    }

    #[test]
    fn refusals_name_the_statement() {
        let error = propose(&json!(["select 1", "select 2; select 3"])).unwrap_err();
        assert!(error.message.starts_with("statement 2 of 2 (`select 2; select 3`)"), "{error}");
        assert_eq!(propose(&json!([])).unwrap_err().code, "execute_sql::nothing_to_do");
        let bad = json!({"statements": [{"sql": "select 1", "bind": []}]});
        let error = serde_json::from_value::<Params>(bad).err().unwrap();
        assert!(error.to_string().contains("unknown field `bind`"), "{error}");
    }
}
