//! Changes on a server: each is a transaction there and a commit here.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{
    Bench, BenchError, Figure, WINDOW, bench_step, each, make_folder, rate, run, script_plan,
};
use crate::journal::Journal as _;
use crate::plan::document::{Action, ToolCall};
use crate::plan::{Plan, PlannedStep};
use crate::postgres::PgEndpoint;

/// How many changes of a fan-out are at work at a time.
const AT_ONCE: u32 = 8;

impl Bench {
    /// So many changes in a chain, then as many in a fan-out, each with its key in one transaction of the server.
    /// The limit of the chain follows from a synced commit of the journal and a commit of the server for each,
    /// measured just before: `1 / (1/J + 1/P)`. Changes at once share commits, and have no such limit.
    pub(super) async fn changes(
        &self,
        dir: &Path,
        server: PgEndpoint,
        count: u32,
    ) -> Result<[Figure; 2], BenchError> {
        make_folder(dir)?;
        let outside = (Arc::clone(&self.clock), Arc::clone(&self.ids));
        let bench = Bench::new(dir, outside, Arc::new(server.clone()))?;
        let mut session = PgConnection::connect_with(server.options()).await?;
        session.execute("create table public.bench (n bigint)").await?;
        // The first change makes the table of keys.
        run(bench.engine.clone(), script_plan(vec![insert(0)], self.clock.now())?).await?;
        let plan = script_plan((0..count).map(insert).collect(), self.clock.now())?;
        let (mut chain, limit) = bench.changed(&mut session, count, plan).await?;
        chain.what = format!("{count} transactional changes in a chain");
        chain.limit_per_second = Some(limit);
        let plan = script_plan(vec![insert_each(count)], self.clock.now())?;
        let (mut at_once, limit) = bench.changed(&mut session, count, plan).await?;
        at_once.what = format!("{count} transactional changes, {AT_ONCE} at once");
        let share = at_once.per_second / limit * 100.0;
        at_once.note = format!("{share:.0} % of at most {limit:.0} in a chain; {}", at_once.note);
        Ok([chain, at_once])
    }

    /// Runs a plan of so many changes. Returns with it what is possible, each second, of one after the other.
    async fn changed(
        &self,
        session: &mut PgConnection,
        count: u32,
        plan: Plan,
    ) -> Result<(Figure, f64), BenchError> {
        let journal = self.commits().await?;
        let (start, mut commits) = (self.clock.now(), 0_u64);
        while self.since(start) < WINDOW {
            session.execute("insert into public.bench values (0)").await?;
            commits += 1;
        }
        let postgres = rate(commits, self.since(start));
        let (before, start) = (self.journal.commits(), self.clock.now());
        run(self.engine.clone(), plan).await?;
        let mut figure = self.figure(String::new(), u64::from(count), start);
        figure.commits = Some(self.journal.commits() - before);
        figure.note = format!("the journal {journal:.0}, the server {postgres:.0} commits/s");
        Ok((figure, 1.0 / (1.0 / journal + 1.0 / postgres)))
    }
}

fn insert(number: u32) -> PlannedStep {
    let needs = number.checked_sub(1).map(|before| format!("s{before}"));
    bench_step(format!("s{number}"), needs, insert_of(&json!(number)))
}

fn insert_each(items: u32) -> PlannedStep {
    let mut step = bench_step("each".to_owned(), None, insert_of(&json!("${{ item }}")));
    step.for_each = Some(each(items, AT_ONCE));
    step
}

fn insert_of(number: &Value) -> Action {
    let with = json!({ "statements": [
        { "sql": "insert into public.bench values ($1)", "binds": [number] },
    ] });
    Action::Tool(ToolCall { tool: "execute_sql".to_owned(), with })
}
