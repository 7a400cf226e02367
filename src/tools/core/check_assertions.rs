//! Asks the database questions that must be answered with yes.
//!
//! Reads: what the assertions read, each in a `READ ONLY` transaction of its own.
//! Changes: nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Failure, Query, Risk};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CheckAssertions));

struct CheckAssertions;

/// What must hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The assertions.
    assertions: Vec<Assertion>,
}

/// One assertion.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Assertion {
    /// What holds, in words.
    name: String,
    /// One SELECT that returns one row with one boolean.
    sql: String,
}

/// What holds and what does not.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether all of them hold.
    passed: bool,
    /// How many hold.
    held: usize,
    /// Those that do not.
    failed: Vec<Failed>,
}

/// An assertion that does not hold.
#[derive(Serialize, JsonSchema)]
struct Failed {
    /// What was to hold.
    name: String,
    /// What was seen instead.
    why: String,
}

impl ReadTool for CheckAssertions {
    const META: ToolMeta = ToolMeta {
        name: "check_assertions",
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
        summary: "Asks the database questions that must be answered with yes",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let (mut held, mut failed) = (0, Vec::new());
        for Assertion { name, sql } in params.assertions {
            let why = match cx.pg.query(&name, &Query::new(sql)).await {
                Ok(rows) => seen(&rows),
                // What the statement is to blame for is an answer; a server that is away is none.
                Err(error) if error.sqlstate().is_none() => return Err(error.into()),
                Err(error) => Some(error.to_string()),
            };
            match why {
                None => held += 1,
                Some(why) => failed.push(Failed { name, why }),
            }
        }
        Ok(Output { passed: failed.is_empty(), held, failed })
    }
}

/// What is not a plain yes; `None`: it is.
fn seen(rows: &[Value]) -> Option<String> {
    let [Value::Object(row)] = rows else {
        return Some(format!("{} rows came back, not one", rows.len()));
    };
    match row.values().collect::<Vec<_>>().as_slice() {
        [Value::Bool(true)] => None,
        [value] => Some(format!("the answer is {value}")),
        values => Some(format!("{} columns came back, not one", values.len())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_plain_yes_holds() {
        assert_eq!(seen(&[json!({"ok": true})]), None);
        for rows in [
            vec![],
            vec![json!({"ok": false})],
            vec![json!({"ok": null})],
            vec![json!({"ok": 1})],
            vec![json!({"a": true, "b": true})],
            vec![json!({"ok": true}), json!({"ok": true})],
        ] {
            assert!(seen(&rows).is_some(), "{rows:?}");
        }
    }
}
