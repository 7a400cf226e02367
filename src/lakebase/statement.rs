//! Statements on a SQL warehouse, by the statement API: one SELECT, and the calls of those that change something.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};
use sqlparser::ast::{SetExpr, Statement};
use sqlparser::dialect::DatabricksDialect;
use sqlparser::parser::Parser;

use super::client::WorkspaceClient;
use crate::kernel::{ApiCall, Failure, RetryClass};

const STATEMENTS: &str = "/api/2.0/sql/statements";

/// How long the first answer is waited for by the warehouse itself; the most that it allows is 50 s.
const WAIT: &str = "30s";

/// How long a statement may take in all: a warehouse that sleeps takes minutes to start.
const LONGEST: Duration = Duration::from_mins(15);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The call by which a warehouse runs a statement that changes something. What proves it is for the caller to add.
pub fn on_warehouse(statement: &str, warehouse: &str) -> ApiCall {
    ApiCall::post(STATEMENTS).body(json!({
        "statement": statement,
        "warehouse_id": warehouse,
        "wait_timeout": "50s",
        "on_wait_timeout": "CONTINUE",
    }))
}

/// The rows of a SELECT, as objects of texts and nulls.
pub(super) async fn select(
    client: &WorkspaceClient,
    statement: &str,
) -> Result<Vec<Value>, Failure> {
    check(statement)?;
    let Some(warehouse) = client.warehouse_id() else {
        let text =
            "a question to the lakehouse needs a SQL warehouse, and the connection names none";
        return Err(Failure::permanent("lakebase::no_warehouse", text)
            .with_help("set `warehouse_id` of the connection, or DATABRICKS_WAREHOUSE_ID"));
    };
    let body = json!({
        "statement": statement, "warehouse_id": warehouse, "wait_timeout": WAIT,
        "on_wait_timeout": "CONTINUE", "disposition": "INLINE", "format": "JSON_ARRAY",
    });
    // Sent again it reads again.
    let first = client.send_to(Method::POST, STATEMENTS, Some(&body), false).await?.body;
    let answer = finished(client, first).await?;
    rows(client, answer).await
}

/// Whether a text is one statement that only reads.
fn check(statement: &str) -> Result<(), Failure> {
    let refuse = |why: String| {
        Failure::permanent("lakebase::not_a_read", format!("the statement {why}"))
            .with_help("write one SELECT; changes are made by write tools")
    };
    let parsed = Parser::parse_sql(&DatabricksDialect {}, statement)
        .map_err(|error| refuse(format!("cannot be read: {error}")))?;
    match parsed.as_slice() {
        [Statement::Query(query)] => {
            let mut parts = vec![&*query.body];
            let with = query.with.iter().flat_map(|with| &with.cte_tables);
            parts.extend(with.map(|table| &*table.query.body));
            while let Some(part) = parts.pop() {
                match part {
                    SetExpr::Insert(_)
                    | SetExpr::Update(_)
                    | SetExpr::Delete(_)
                    | SetExpr::Merge(_) => {
                        return Err(refuse("changes rows".to_owned()));
                    }
                    SetExpr::SetOperation { left, right, .. } => parts.extend([&**left, &**right]),
                    SetExpr::Query(query) => parts.push(&query.body),
                    SetExpr::Select(select) if select.into.is_some() => {
                        return Err(refuse("makes a table".to_owned()));
                    }
                    SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => {}
                }
            }
            Ok(())
        }
        [_] => Err(refuse("is no SELECT".to_owned())),
        all => Err(refuse(format!("is {} statements, not one", all.len()))),
    }
}

/// Polls until the statement has ended.
async fn finished(client: &WorkspaceClient, first: Value) -> Result<Value, Failure> {
    let deadline = client.clock().now().plus(LONGEST);
    let (mut answer, mut pause) = (first, FIRST_PAUSE);
    loop {
        let id = answer["statement_id"].as_str().unwrap_or_default().to_owned();
        match answer["status"]["state"].as_str().unwrap_or_default() {
            "SUCCEEDED" => return Ok(answer),
            "PENDING" | "RUNNING" if !id.is_empty() => {}
            _ => return Err(failed(&answer["status"])),
        }
        let now = client.clock().now();
        if now >= deadline {
            let path = format!("{STATEMENTS}/{id}/cancel");
            // What cannot be cancelled ends by itself.
            drop(client.send_to(Method::POST, &path, Some(&json!({})), false).await);
            let text = format!("statement {id} did not end within {} min", LONGEST.as_secs() / 60);
            return Err(Failure::transient("lakebase::statement_timeout", text));
        }
        client.clock().sleep_until(now.plus(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let path = format!("{STATEMENTS}/{id}");
        answer = client.send_to(Method::GET, &path, None, false).await?.body;
    }
}

/// A SQL failure is no failure of the call.
fn failed(status: &Value) -> Failure {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (code, message) = (text(&status["error"]["error_code"]), text(&status["error"]["message"]));
    let state = text(&status["state"]);
    let class = match code.as_str() {
        "TEMPORARILY_UNAVAILABLE" | "RESOURCE_EXHAUSTED" | "DEADLINE_EXCEEDED" => {
            RetryClass::Transient
        }
        _ => RetryClass::Permanent,
    };
    let text = format!("the statement ended as {state}: {message} ({code})");
    Failure::permanent("lakebase::statement_failed", text).with_class(class)
}

/// The rows of all chunks.
async fn rows(client: &WorkspaceClient, mut answer: Value) -> Result<Vec<Value>, Failure> {
    let unreadable = |what: &str| {
        Failure::permanent("lakebase::unreadable", format!("the result of a statement {what}"))
    };
    if answer["manifest"]["truncated"] == true {
        return Err(unreadable("was cut off: it is larger than one answer can hold"));
    }
    let columns = answer["manifest"]["schema"]["columns"].as_array();
    let columns: Vec<String> = columns
        .into_iter()
        .flatten()
        .map(|column| column["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    let id = answer["statement_id"].as_str().unwrap_or_default().to_owned();
    let mut chunk = answer["result"].take();
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let cells = match chunk["data_array"].take() {
            Value::Array(rows) => rows,
            Value::Null => Vec::new(),
            _ => return Err(unreadable("has no rows")),
        };
        for row in cells {
            match row {
                Value::Array(cells) if cells.len() == columns.len() => {
                    let row: Map<String, Value> = columns.iter().cloned().zip(cells).collect();
                    all.push(Value::Object(row));
                }
                _ => return Err(unreadable("has a row that is no row")),
            }
        }
        let Some(next) = chunk["next_chunk_index"].as_u64() else { break };
        if next <= last {
            return Err(unreadable("has chunks without an end"));
        }
        last = next;
        let path = format!("{STATEMENTS}/{id}/result/chunks/{next}");
        chunk = client.send_to(Method::GET, &path, None, false).await?.body;
    }
    let total = answer["manifest"]["total_row_count"].as_u64();
    match total {
        Some(total) if total != all.len() as u64 => {
            Err(unreadable(&format!("has {} of {total} rows", all.len())))
        }
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_select_and_nothing_else() {
        for good in [
            "select 1",
            "with a as (select 1 as x) select x from a union all select 2",
            "select count(*) from main.ops.events version as of 3",
            "select sku_name, sum(usage_quantity) from system.billing.usage group by all",
            "values (1)",
        ] {
            check(good).unwrap_or_else(|failure| panic!("{good}: {failure}"));
        }
        for bad in [
            "delete from t",
            "select 1; drop table t",
            "create table t as select 1",
            "insert into t select 1",
            "",
            "selekt 1",
            "with a as (select 1) insert into t select * from a",
            "optimize t",
        ] {
            assert_eq!(check(bad).unwrap_err().code, "lakebase::not_a_read", "{bad}");
        }
    }
}
