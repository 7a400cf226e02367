//! Asks the configured language model about slow statements, and shows of its answer only what holds up.
//!
//! The analysis by rules stands without it; this tool adds an explanation in prose and perhaps a rewrite. A
//! rewrite is shown when it is one SELECT over the same tables with the same placeholders, and the planner
//! thinks that it is cheaper. That it has the same result is only claimed where a branch was read to compare.
//!
//! Reads: the model's answers, generic plans of rewrites; where a branch is named, both statements there.
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Failure, Query, Risk, Target};
use crate::postgres::PgReader;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::model_advice::{Refusal, check, question, read};
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::plan_tree::Node;
use crate::tools::analysis::slow_query::Finding;
use crate::tools::analysis::workload::plannable;
use crate::tools::context::{AskModel, ReadContext};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ExplainSlowQueries));

/// A rewrite must be thought to cost less than this share of the statement.
const CHEAPER: f64 = 0.9;

struct ExplainSlowQueries;

/// What is asked about.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The analyses of `analyze_slow_queries`.
    analyses: Vec<Analysis>,
    /// How many statements the model is asked about at most, the first ones.
    #[serde(default = "five")]
    most: usize,
    /// A branch on which statements without placeholders are run to compare results and times.
    #[serde(default)]
    branch: Option<String>,
}

const fn five() -> usize {
    5
}

/// Of an analysis, what the model is told.
#[derive(Deserialize, JsonSchema)]
struct Analysis {
    /// Its identity in `pg_stat_statements`.
    queryid: i64,
    /// Its text, without literals.
    query: String,
    /// What rules found.
    #[serde(default)]
    findings: Vec<Finding>,
    /// Its plan, without values.
    #[serde(default)]
    plan: Option<String>,
    /// What the planner thinks it costs.
    #[serde(default)]
    cost: Option<f64>,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The model that was asked; absent when none is configured.
    model: Option<String>,
    /// How many statements it was asked about.
    asked: u64,
    /// What it said of each.
    explanations: Vec<Explained>,
    /// What could not be had of it.
    not_measured: Vec<NotMeasured>,
}

/// What a model said of one statement.
#[derive(Debug, Serialize, JsonSchema)]
struct Explained {
    /// The statement's identity in `pg_stat_statements`.
    queryid: i64,
    /// Why it is slow, as the model sees it: a claim.
    explanation: String,
    /// A rewrite that held up so far.
    rewrite: Option<Rewrite>,
    /// Why the model's rewrite is not shown.
    refused: Option<Refusal>,
}

/// A rewrite that held up so far.
#[derive(Debug, Serialize, JsonSchema)]
struct Rewrite {
    /// The statement, written in another way.
    query: String,
    /// What the planner thinks the statement costs.
    cost_before: f64,
    /// What the planner thinks the rewrite costs.
    cost_after: f64,
    /// Whether it was run beside the statement, with the same result and in less time.
    verified: bool,
    /// How that is known, or why it is not.
    verification: String,
}

impl ReadTool for ExplainSlowQueries {
    const META: ToolMeta = ToolMeta {
        name: "explain_slow_queries",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Asks the configured model about slow statements, and shows what holds up",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let mut output =
            Output { model: None, asked: 0, explanations: Vec::new(), not_measured: Vec::new() };
        let Some(model) = cx.model else {
            let why = "no model is configured; the analysis by rules stands without";
            output.not_measured.push(NotMeasured::new("explanations by a model", why));
            return Ok(output);
        };
        output.model = Some(model.name());
        for analysis in params.analyses.iter().take(params.most) {
            output.asked += 1;
            match explain(cx, model, analysis, params.branch.as_deref()).await? {
                Ok(explained) => output.explanations.push(explained),
                Err(missing) => {
                    // What does not answer once is not waited for again.
                    let silent = missing.why.contains("did not answer");
                    output.not_measured.push(missing);
                    if silent {
                        break;
                    }
                }
            }
        }
        Ok(output)
    }
}

async fn explain(
    cx: &ReadContext<'_>,
    model: &dyn AskModel,
    analysis: &Analysis,
    branch: Option<&str>,
) -> Result<Result<Explained, NotMeasured>, Failure> {
    let what = format!("what the model says of statement {}", analysis.queryid);
    let asked = question(&analysis.query, analysis.plan.as_deref(), &analysis.findings);
    let text = match model.ask(&asked).await {
        Ok(text) => text,
        Err(failure) => return Ok(Err(NotMeasured::new(what, failure.message))),
    };
    let Some(answer) = read(&text) else {
        return Ok(Err(NotMeasured::new(what, "it answered in another form than asked")));
    };
    let (rewrite, refused) = match answer.rewrite {
        None => (None, None),
        Some(query) => match tried(cx, analysis, query, branch).await? {
            Ok(rewrite) => (Some(rewrite), None),
            Err(refusal) => (None, Some(refusal)),
        },
    };
    let queryid = analysis.queryid;
    Ok(Ok(Explained { queryid, explanation: answer.explanation, rewrite, refused }))
}

/// Looks whether a rewrite holds up. Nothing of it is run unless a branch is named.
async fn tried(
    cx: &ReadContext<'_>,
    analysis: &Analysis,
    query: String,
    branch: Option<&str>,
) -> Result<Result<Rewrite, Refusal>, Failure> {
    if let Err(refusal) = check(&analysis.query, &query) {
        return Ok(Err(refusal));
    }
    let plan = match cx.pg.generic_plan("rewrite", &plannable(&query)).await {
        Ok(answer) => Node::of_answer(&answer),
        Err(error) if error.ends_session() => return Err(error.into()),
        Err(_) => None,
    };
    let (Some(before), Some(plan)) = (analysis.cost, plan) else {
        return Ok(Err(Refusal::NotPlannable));
    };
    if plan.cost >= CHEAPER * before {
        return Ok(Err(Refusal::NotCheaper));
    }
    let (verified, verification) = compare(cx, &analysis.query, &query, branch).await?;
    let cost_after = rounded(plan.cost);
    Ok(Ok(Rewrite { query, cost_before: before, cost_after, verified, verification }))
}

/// Runs both on a branch, where one is named and no value is missing.
async fn compare(
    cx: &ReadContext<'_>,
    query: &str,
    rewrite: &str,
    branch: Option<&str>,
) -> Result<(bool, String), Failure> {
    let not = |why: &str| Ok((false, format!("not verified: {why}")));
    let Some(branch) = branch else { return not("no branch was named to compare results on") };
    if query.contains('$') {
        return not("its values are not known: statements are recorded without them");
    }
    let target = Target { branch: Some(branch.to_owned()), ..cx.target.clone() };
    let reader = cx.reader_at(&target).await?;
    let before = run(cx, &reader, query).await;
    let after = run(cx, &reader, rewrite).await;
    reader.close().await;
    let (Some(before), Some(after)) = (before, after) else {
        return not("one of the two did not come to an end on the branch");
    };
    if before.0 != after.0 {
        return Ok((false, "refuted: the results differ on the branch".to_owned()));
    }
    let faster = after.1 < before.1;
    let text = format!("same result on {branch}; {} ms before, {} ms after", before.1, after.1);
    Ok((faster, text))
}

/// The digest of a result whatever its order, and the milliseconds that it took.
async fn run(cx: &ReadContext<'_>, reader: &PgReader, query: &str) -> Option<(Value, u128)> {
    let query = query.trim_end().trim_end_matches(';');
    let text = format!(
        "select pg_catalog.count(*) as rows, \
         pg_catalog.md5(pg_catalog.string_agg(q::text, ',' order by q::text)) as digest \
         from (\n{query}\n) as q"
    );
    let began = cx.clock.now();
    let rows = reader.query("comparison", &Query::new(text)).await.ok()?;
    let took = cx.clock.now().since(began).as_millis();
    Some((rows.into_iter().next()?, took))
}
