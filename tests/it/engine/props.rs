//! Tools that only tests have: a proposal that follows a table, and faults on demand.

use lakeops::kernel::{
    Bind, Change, ChangeSet, Failure, Inverse, Operation, Query, Recovery, Risk,
};
use lakeops::tools::tool::{AnyTool, Family, Read, ReadTool, Settled, ToolMeta, Write, WriteTool};
use lakeops::tools::{Catalog, ReadContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All built-in tools and those of this file.
pub(super) fn catalog() -> Catalog {
    let own =
        [AnyTool::Write(&Write(Sweep)), AnyTool::Read(&Read(Panics)), AnyTool::Read(&Read(Tally))];
    let builtin: Vec<AnyTool> = Catalog::builtin().iter().collect();
    Catalog::of(&[builtin.as_slice(), &own].concat())
}

const fn meta(name: &'static str) -> ToolMeta {
    ToolMeta {
        name,
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
        summary: "a prop",
        sql: &[],
        secrets: &[],
    }
}

/// One change of high risk for each row of `public.todo`, in order: `n` goes into `public.done`.
struct Sweep;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SweepParams {
    #[serde(default)]
    independent: bool,
    #[serde(default)]
    at_least: i64,
}

#[derive(Serialize, JsonSchema)]
struct Count {
    count: usize,
}

#[derive(Deserialize)]
struct Row {
    n: i64,
}

impl WriteTool for Sweep {
    const META: ToolMeta = meta("sweep");
    type Params = SweepParams;
    type Output = Count;

    async fn propose(
        &self,
        cx: &ReadContext<'_>,
        params: SweepParams,
    ) -> Result<ChangeSet, Failure> {
        let text = "select n from public.todo where n >= $1 order by n";
        let query = Query::with_binds(text, vec![Bind::Int(params.at_least)]);
        let rows = cx.pg.query("todo", &query).await?;
        let change = |row: serde_json::Value| {
            let row: Row = serde_json::from_value(row).unwrap();
            let insert = "insert into public.done values ($1)";
            let operation = Operation::sql(insert, vec![Bind::Int(row.n)]);
            let mut change = Change::new(format!("row {}", row.n), "it is to do", operation);
            change.risk = Risk::High;
            change.recovery = Recovery::Transactional;
            change.independent = params.independent;
            change.inverse = Inverse::Impossible { why: "done is done".to_owned() };
            change
        };
        Ok(ChangeSet::new(rows.into_iter().map(change).collect()))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Count {
        Count { count: settled.iter().filter(|settled| settled.receipt().is_some()).count() }
    }
}

/// Panics.
struct Panics;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl ReadTool for Panics {
    const META: ToolMeta = meta("panics");
    type Params = Nothing;
    type Output = Count;

    async fn read(&self, _: &ReadContext<'_>, _: Nothing) -> Result<Count, Failure> {
        panic!("on purpose");
    }
}

/// Counts the rows of `public.t`.
struct Tally;

impl ReadTool for Tally {
    const META: ToolMeta = meta("tally");
    type Params = Nothing;
    type Output = Count;

    async fn read(&self, cx: &ReadContext<'_>, _: Nothing) -> Result<Count, Failure> {
        let rows = cx.pg.query("tally", &Query::new("select n from public.t")).await?;
        Ok(Count { count: rows.len() })
    }
}
