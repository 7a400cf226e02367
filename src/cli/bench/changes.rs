//! Changes on a server: each is a transaction there and a commit here.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{Bench, BenchError, Figure, WINDOW, bench_step, make_folder, rate, run, script_plan};
use crate::journal::Journal as _;
use crate::plan::PlannedStep;
use crate::plan::document::{Action, ToolCall};
use crate::postgres::PgEndpoint;

impl Bench {
    /// So many changes in a chain, each with its key in one transaction of the server. The limit follows
    /// from a synced commit of the journal and a commit of the server for each, measured just before:
    /// `1 / (1/J + 1/P)`.
    pub(super) async fn changes(
        &self,
        dir: &Path,
        server: PgEndpoint,
        count: u32,
    ) -> Result<Figure, BenchError> {
        make_folder(dir)?;
        let outside = (Arc::clone(&self.clock), Arc::clone(&self.ids));
        let bench = Bench::new(dir, outside, Arc::new(server.clone()))?;
        let mut session = PgConnection::connect_with(server.options()).await?;
        session.execute("create table public.bench (n bigint)").await?;
        // The first change makes the table of keys.
        run(bench.engine.clone(), script_plan(vec![insert(0)], self.clock.now())?).await?;
        let journal = bench.commits().await?;
        let (start, mut commits) = (self.clock.now(), 0_u64);
        while self.since(start) < WINDOW {
            session.execute("insert into public.bench values (0)").await?;
            commits += 1;
        }
        let postgres = rate(commits, self.since(start));
        let steps: Vec<PlannedStep> = (0..count).map(insert).collect();
        let plan = script_plan(steps, self.clock.now())?;
        let (before, start) = (bench.journal.commits(), self.clock.now());
        run(bench.engine.clone(), plan).await?;
        let what = format!("{count} transactional changes in a chain");
        let mut figure = self.figure(what, u64::from(count), start);
        figure.commits = Some(bench.journal.commits() - before);
        figure.limit_per_second = Some(1.0 / (1.0 / journal + 1.0 / postgres));
        figure.note = format!("the journal {journal:.0}, the server {postgres:.0} commits/s");
        Ok(figure)
    }
}

fn insert(number: u32) -> PlannedStep {
    let with = json!({ "statements": [
        { "sql": "insert into public.bench values ($1)", "binds": [number] },
    ] });
    let needs = number.checked_sub(1).map(|before| format!("s{before}"));
    let call = ToolCall { tool: "execute_sql".to_owned(), with };
    bench_step(format!("s{number}"), needs, Action::Tool(call))
}
