//! Asks the configured language model to explain an answer, and runs its SELECT where that is harmless.
//!
//! The answer stands without it. A statement of the model is parsed, refused unless it is one SELECT without
//! effects, written anew from what was understood, run read-only with limits on time and rows, and shown. Its
//! rows go to whoever asked, not to the model.
//!
//! Reads: the model's reply, and what its SELECT reads. Changes: nothing. Undo: nothing to undo.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::settings::Limits;
use crate::kernel::{Failure, Query, Risk, Span};
use crate::postgres::PgReader;
use crate::tools::analysis::ask::claim::{prompt, read};
use crate::tools::analysis::ask::reply::Evidence;
use crate::tools::analysis::ask::select::harmless;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::text::shorten;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ExplainAnswer));

/// How long a statement of a model may run.
const LONGEST_RUN: Duration = Duration::from_secs(5);
/// The most rows of it that are shown.
const MOST_ROWS: usize = 20;

struct ExplainAnswer;

/// What is to be explained.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The question.
    question: String,
    /// What the answer rests on: the evidence of `answer_question`.
    evidence: Vec<Evidence>,
}

/// What the model said.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Output {
    /// The model that was asked; absent when none is configured.
    model: Option<String>,
    /// Its explanation: a claim.
    explanation: Option<String>,
    /// The statement that it wanted, as it was run, or as it came where it was refused.
    sql: Option<String>,
    /// Why the statement was not run.
    refused: Option<String>,
    /// The rows that the statement returned, the first ones.
    rows: Vec<Value>,
    /// Whether there are more rows.
    has_more: bool,
    /// What could not be had of it.
    not_measured: Vec<NotMeasured>,
}

impl ReadTool for ExplainAnswer {
    const META: ToolMeta = ToolMeta {
        name: "explain_answer",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Asks the configured model to explain an answer, and runs its SELECT when harmless",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let mut output = Output::default();
        let mut missing = |why: String| {
            output.not_measured.push(NotMeasured::new("an explanation by a model", why));
        };
        let Some(model) = cx.model else {
            missing("no model is configured (`[model]`); the answer stands without".to_owned());
            return Ok(output);
        };
        output.model = Some(model.name());
        let reply = match model.ask(&prompt(&params.question, &params.evidence)).await {
            Ok(reply) => reply,
            Err(failure) => {
                missing(failure.message);
                return Ok(output);
            }
        };
        let Some(claim) = read(&reply) else {
            missing("it answered in another form than asked".to_owned());
            return Ok(output);
        };
        output.explanation = Some(claim.explanation);
        if let Some(sql) = claim.sql {
            look(cx, &sql, &mut output).await;
        }
        Ok(output)
    }
}

/// Runs a statement of the model, or says why not.
async fn look(cx: &ReadContext<'_>, sql: &str, output: &mut Output) {
    let written = match harmless(sql) {
        Ok(written) => written,
        Err(refusal) => {
            output.sql = Some(shorten(sql));
            output.refused = Some(refusal.to_string());
            return;
        }
    };
    match rows(cx, &written).await {
        Ok(mut rows) => {
            output.has_more = rows.len() > MOST_ROWS;
            rows.truncate(MOST_ROWS);
            output.rows = rows.into_iter().map(shown).collect();
        }
        Err(failure) => output.refused = Some(format!("the server: {}", failure.message)),
    }
    output.sql = Some(written);
}

/// The rows of a statement, read-only, in a session with limits of its own.
async fn rows(cx: &ReadContext<'_>, written: &str) -> Result<Vec<Value>, Failure> {
    let endpoint = cx.pg.endpoint().await?;
    let limits = &cx.settings.limits;
    let least = Span(limits.statement_timeout.0.min(LONGEST_RUN));
    let limits = Limits { statement_timeout: least, ..limits.clone() };
    let reader = PgReader::new(endpoint, &limits, "lakeops:ask");
    let most = MOST_ROWS + 1;
    let text = format!("select * from (\n{written}\n) as q limit {most}");
    let rows = reader.query("the model's statement", &Query::new(text)).await;
    reader.close().await;
    Ok(rows?)
}

/// A row with its texts cut.
fn shown(row: Value) -> Value {
    match row {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => (name, Value::String(shorten(&text))),
                Value::Array(_) | Value::Object(_) => {
                    (name, Value::String(shorten(&value.to_string())))
                }
                other => (name, other),
            })
            .collect(),
        other => other,
    }
}
