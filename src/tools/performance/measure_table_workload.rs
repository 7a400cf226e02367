//! Measures recorded statements on a throw-away branch: their plans, and the time that those take which only
//! read, with values from the planner's statistics; each several times, when everything is in memory.
//!
//! Reads: generic plans, the planner's statistics, the catalog of indexes; carries statements out that only
//! read (`explain (analyze)` in `READ ONLY` transactions with timeouts), and none that calls a volatile function.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::kernel::{Bind, Failure, Ident, QualifiedName, Query, Risk, Span, SqlFile, Timestamp};
use crate::lakebase;
use crate::sql_file;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::plan_tree::Node;
use crate::tools::analysis::reading::only_reads;
use crate::tools::analysis::recommendation::Recommendation;
use crate::tools::analysis::text::shorten;
use crate::tools::analysis::trial::{
    Built, Execution, Measured, Measurement, Plan, Recorded, Times, WriteTrial, called, median,
};
use crate::tools::analysis::trial_values::{ColumnValues, QUANTILES, Slots, with_values};
use crate::tools::analysis::workload::plannable;
use crate::tools::branching::place;
use crate::tools::context::ReadContext;
use crate::tools::index_state::{INDEXES, look};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(MeasureTableWorkload));

static VALUES: SqlFile = sql_file!("performance/measure_table_workload.values");
static VOLATILE: SqlFile = sql_file!("performance/measure_table_workload.volatile");
static TABLES: SqlFile = sql_file!("performance/measure_table_workload.tables");

/// How often an experiment writes the same rows in each round.
pub(super) const WRITES: usize = 5;

struct MeasureTableWorkload;

/// What is measured.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The statements, as `collect_table_workload` returns them.
    statements: Vec<Recorded>,
    /// The advice that is tried.
    recommendations: Vec<Recommendation>,
    /// How often each statement is carried out with each set of values, after once to warm up.
    #[serde(default = "three")]
    repeats: u32,
    /// Statements are carried out for so long; what is not measured by then stays so.
    #[serde(default = "five_minutes")]
    within: Span,
    /// How many rows the experiment with writes is about; 0 leaves it out.
    #[serde(default = "thousand")]
    write_rows: u32,
}

const fn three() -> u32 {
    3
}

const fn five_minutes() -> Span {
    Span::from_secs(300)
}

const fn thousand() -> u32 {
    1000
}

/// What is known of a statement before it is carried out.
struct Planned<'a> {
    statement: &'a Recorded,
    text: String,
    plan: Option<Value>,
    slots: Result<Slots, String>,
}

impl ReadTool for MeasureTableWorkload {
    const META: ToolMeta = ToolMeta {
        name: "measure_table_workload",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Measures plans and times of recorded statements on a throw-away branch",
        sql: &[&INDEXES, &VALUES, &VOLATILE, &TABLES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Measurement;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Measurement, Failure> {
        throw_away(cx).await?;
        let mut planned = Vec::new();
        for statement in &params.statements {
            planned.push(plan(cx, statement).await?);
        }
        let volatile = volatile(cx, &planned).await?;
        let known = known(cx, &planned).await?;
        let until = cx.clock.now().plus(params.within.0);
        let mut statements = Vec::new();
        for planned in &planned {
            let times = match executable(planned, &volatile, &known) {
                Ok(texts) => execute(cx, &texts, params.repeats.max(1), until).await?,
                Err(why) => Err(why),
            };
            statements.push(measured(planned, times));
        }
        let mut not_measured = Vec::new();
        let write_trials = write_trials(cx, &params, &mut not_measured).await?;
        let indexes = built(cx, &params.recommendations).await?;
        Ok(Measurement { statements, indexes, write_trials, not_measured })
    }
}

/// Statements are carried out where nobody minds.
async fn throw_away(cx: &ReadContext<'_>) -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::permanent("measure_table_workload::not_throw_away", why).with_help(
            "statements are carried out on a branch whose id begins with `tmp-` and that expires by \
             itself; `verify_index_advice` makes one",
        )
    };
    let api = cx.lakebase()?;
    let (project, branch) = (place::project(cx.target)?, place::branch(None, cx.target)?);
    match lakebase::find_branch(api, &project, &branch).await? {
        Some(found) if found.is_throw_away() && !found.is_deleted() => Ok(()),
        Some(_) => Err(refused(format!("`{branch}` is not there to be thrown away"))),
        None => Err(refused(format!("there is no branch `{branch}`"))),
    }
}

async fn plan<'a>(cx: &ReadContext<'_>, statement: &'a Recorded) -> Result<Planned<'a>, Failure> {
    let text = plannable(&statement.query);
    let plan = match cx.pg.generic_plan("explain", &text).await {
        Ok(answer) => Some(answer),
        Err(error) if error.ends_session() => return Err(error.into()),
        Err(_) => None,
    };
    let slots = plan.as_ref().ok_or_else(|| "the server cannot plan it".to_owned());
    let slots = slots.and_then(|plan| Slots::of(&text, plan, statement.rows_per_call));
    Ok(Planned { statement, text, plan, slots })
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// The volatile functions among all that the plans call.
async fn volatile(
    cx: &ReadContext<'_>,
    planned: &[Planned<'_>],
) -> Result<BTreeSet<String>, Failure> {
    let names: BTreeSet<String> =
        planned.iter().filter_map(|it| it.plan.as_ref()).flat_map(called).collect();
    let binds = [Bind::TextArray(names.into_iter().collect())];
    let found: Vec<Name> = cx.pg.rows(&VOLATILE, &binds).await?;
    Ok(found.into_iter().map(|it| it.name).collect())
}

/// What the planner knows of the columns that values are wanted of.
async fn known(
    cx: &ReadContext<'_>,
    planned: &[Planned<'_>],
) -> Result<Vec<ColumnValues>, Failure> {
    let tables: BTreeSet<(String, String)> =
        planned.iter().filter_map(|it| it.slots.as_ref().ok()).flat_map(Slots::tables).collect();
    Ok(cx.pg.rows(&VALUES, &pairs(tables)).await?)
}

fn pairs(tables: BTreeSet<(String, String)>) -> [Bind; 2] {
    let (schemas, relations) = tables.into_iter().unzip();
    [Bind::TextArray(schemas), Bind::TextArray(relations)]
}

/// The texts of a statement with values, or why it is not carried out.
fn executable(
    planned: &Planned<'_>,
    volatile: &BTreeSet<String>,
    known: &[ColumnValues],
) -> Result<BTreeSet<String>, String> {
    if !only_reads(&planned.text) {
        return Err("it does more than read: only its plan is compared".to_owned());
    }
    let calls = planned.plan.as_ref().map(called).unwrap_or_default();
    if let Some(name) = calls.intersection(volatile).next() {
        return Err(format!("it calls `{name}`, which may act: only its plan is compared"));
    }
    let slots = planned.slots.as_ref().map_err(Clone::clone)?;
    let text = |quantile: f64| {
        let values = slots.values(known, quantile)?;
        with_values(&planned.text, &values).ok_or_else(|| "its text cannot be read".to_owned())
    };
    QUANTILES.into_iter().map(text).collect()
}

/// Carries a statement out, with each set of values once to warm up, and then several times.
async fn execute(
    cx: &ReadContext<'_>,
    texts: &BTreeSet<String>,
    repeats: u32,
    until: Timestamp,
) -> Result<Result<Times, String>, Failure> {
    let mut seen: Vec<Execution> = Vec::new();
    for text in texts {
        let explain =
            format!("explain (analyze, buffers, verbose, timing off, format json) {text}");
        for nth in 0..=repeats {
            if cx.clock.now() >= until {
                return Ok(Err("there was no time left to measure it".to_owned()));
            }
            let answer = match cx.pg.query("recorded statement", &Query::new(&explain)).await {
                Ok(rows) => rows.into_iter().next().unwrap_or_default(),
                Err(error) if error.ends_session() => return Err(error.into()),
                // The server's message may quote the values.
                Err(error) => {
                    let code = error.sqlstate().unwrap_or("no SQLSTATE").to_owned();
                    return Ok(Err(format!("the server refused it with values ({code})")));
                }
            };
            let Some(execution) = Execution::of_answer(&answer) else {
                return Ok(Err("its plan cannot be read".to_owned()));
            };
            if nth > 0 {
                seen.push(execution);
            }
        }
    }
    Ok(times(&seen, texts.len()).ok_or_else(|| "it was not carried out".to_owned()))
}

fn times(seen: &[Execution], values: usize) -> Option<Times> {
    let mut pages: Vec<u64> = seen.iter().map(|it| it.pages).collect();
    pages.sort_unstable();
    let mut plans: Vec<Plan> = seen.iter().map(|it| it.plan.clone()).collect();
    plans.sort_by(|one, two| one.shape.cmp(&two.shape));
    plans.dedup_by(|one, two| one.shape == two.shape);
    Some(Times {
        median_ms: rounded(median(seen.iter().map(|it| it.ms))?),
        executions: u32::try_from(seen.len()).ok()?,
        values: u32::try_from(values).ok()?,
        pages: *pages.get(pages.len() / 2)?,
        plans,
    })
}

fn measured(planned: &Planned<'_>, times: Result<Times, String>) -> Measured {
    let node = planned.plan.as_ref().and_then(Node::of_answer);
    let recorded = planned.statement;
    let (times, not_measured) = match times {
        Ok(times) => (Some(times), None),
        Err(why) => (None, Some(why)),
    };
    Measured {
        queryid: recorded.queryid,
        query: shorten(&recorded.query),
        calls: recorded.calls,
        tables: node.as_ref().map_or_else(|| recorded.tables.clone(), Node::tables),
        plan: node.as_ref().map(Plan::of),
        times,
        not_measured,
    }
}

async fn built(cx: &ReadContext<'_>, advice: &[Recommendation]) -> Result<Vec<Built>, Failure> {
    let wanted: BTreeSet<(&str, &str)> =
        advice.iter().map(|it| (it.schema.as_str(), it.table.as_str())).collect();
    let indexes = look(cx).await?.into_iter();
    let of_table = indexes
        .filter(|it| wanted.contains(&(it.schema_name.as_str(), it.table_relation.as_str())));
    let built = of_table.map(|it| Built {
        index: format!("{}.{}", it.schema_name, it.relation_name),
        size_bytes: it.size_bytes,
        is_valid: it.is_usable(),
    });
    Ok(built.collect())
}

/// A table, as `measure_table_workload.tables` returns it.
#[derive(Deserialize)]
struct Table {
    schema_name: String,
    relation_name: String,
    kind: String,
    columns: Option<Vec<String>>,
    acts: bool,
}

/// The experiments that show what new indexes cost whoever writes.
async fn write_trials(
    cx: &ReadContext<'_>,
    params: &Params,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Vec<WriteTrial>, Failure> {
    let mut new: BTreeMap<(String, String), Vec<&Recommendation>> = BTreeMap::new();
    for advice in params.recommendations.iter().filter(|it| it.kind.makes_index()) {
        let table = (advice.schema.clone(), advice.table.clone());
        new.entry(table).or_default().push(advice);
    }
    if new.is_empty() || params.write_rows == 0 {
        return Ok(Vec::new());
    }
    let tables: Vec<Table> = cx.pg.rows(&TABLES, &pairs(new.keys().cloned().collect())).await?;
    let mut trials = Vec::new();
    for table in tables {
        let key = (table.schema_name.clone(), table.relation_name.clone());
        let name = format!("{}.{}", key.0, key.1);
        let Some(advice) = new.get(&key) else { continue };
        match writes(&table, params.write_rows) {
            Ok(write) => trials.push(write_trial(name, &write, advice)),
            Err(why) => not_measured.push(NotMeasured::new(format!("writes to {name}"), why)),
        }
    }
    Ok(trials)
}

/// Deletes rows and inserts them again, in one statement: no key is there twice, and none that others refer
/// to is missing when it is over.
fn writes(table: &Table, rows: u32) -> Result<String, &'static str> {
    if table.kind != "r" {
        return Err("only plain tables are written to");
    }
    if table.acts {
        return Err("a trigger, a rule or a key of others acts on what is written");
    }
    let columns = table.columns.iter().flatten().map(|name| Ident::new(name).to_string());
    let columns = columns.collect::<Vec<_>>().join(", ");
    let name = QualifiedName::new(&table.schema_name, &table.relation_name);
    Ok(format!(
        "explain (analyze, wal, buffers, verbose, timing off, format json) \
         with moved as (delete from {name} where ctid = any (array(select ctid from {name} \
         limit {rows})) returning {columns}) \
         insert into {name} ({columns}) overriding system value select {columns} from moved"
    ))
}

fn write_trial(table: String, write: &str, advice: &[&Recommendation]) -> WriteTrial {
    let mut trial = WriteTrial { table, ..WriteTrial::default() };
    let round = || std::iter::repeat_n(write.to_owned(), WRITES);
    trial.statements.push(write.to_owned());
    trial.statements.extend(round());
    for advice in advice {
        let index = QualifiedName::new(&advice.schema, &advice.index);
        trial.indexes.push(index.plain());
        trial.statements.push(format!("drop index {index}"));
        trial.statements.extend(round());
    }
    trial
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::analysis::recommendation::tests::advice;
    use crate::tools::analysis::statement::read_statement;

    #[test]
    fn an_experiment_writes_with_and_without_each_index() {
        let table = |acts| Table {
            schema_name: "public".into(),
            relation_name: "Odd t".into(),
            kind: "r".into(),
            columns: Some(vec!["a".into(), "B".into()]),
            acts,
        };
        let write = writes(&table(false), 10).unwrap();
        assert!(write.contains("insert into \"public\".\"Odd t\" (\"a\", \"B\")"), "{write}");
        assert!(writes(&table(true), 10).is_err());
        let trial = write_trial("public.Odd t".into(), &write, &[&advice("a")]);
        assert_eq!(trial.indexes, ["public.t_a_idx"]);
        assert_eq!(trial.statements.len(), 1 + WRITES + 1 + WRITES);
        assert!(trial.statements.iter().all(|text| read_statement(text).is_ok()));
    }

    #[test]
    fn only_what_reads_is_carried_out() {
        let plan = |function: &str| serde_json::json!([{"Plan": {"Node Type": "Result", "Output": [format!("{function}()")]}}]);
        let of = |query: &str, plan: Value| {
            let statement = Recorded { query: query.into(), ..Recorded::default() };
            let slots = Slots::of(query, &plan, 1.0);
            let planned =
                Planned { statement: &statement, text: query.into(), plan: Some(plan), slots };
            executable(&planned, &BTreeSet::from(["random".to_owned()]), &[])
        };
        assert_eq!(of("select now()", plan("now")).unwrap().len(), 1);
        assert!(of("select random()", plan("random")).unwrap_err().contains("`random`"));
        assert!(of("delete from t", plan("now")).unwrap_err().contains("more than read"));
        assert!(of("select 1 for update", plan("now")).is_err());
    }
}
