//! A network that fails between us and the server, at every piece that the server sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use lakeops::journal::Outcome;
use lakeops::kernel::Span;
use lakeops::plan::Plan;
use lakeops::postgres::PgEndpoint;

use super::kit::{Kit, plan, sql, step};
use crate::apply::proxy::{self, Fault, Trouble};
use crate::harness::{execute, postgres, value};

/// Three changes. How long a step may take decides only how soon silence is noticed.
fn changes(trouble: Trouble) -> Plan {
    let timeout = if trouble == Trouble::Silence { 2 } else { 30 };
    let mut steps = Vec::new();
    for (id, needs, n) in [("a", None, 1), ("b", Some("a"), 2), ("c", Some("b"), 3)] {
        let needs: Vec<&str> = needs.into_iter().collect();
        let mut step = step(id, &needs, sql(&[&format!("insert into public.t values ({n})")]));
        step.timeout = Span::from_secs(timeout);
        // A busy machine lets some more of them pass in silence.
        step.retry.max_attempts = 30;
        steps.push(step);
    }
    plan(steps)
}

/// Runs on a server behind this; says how many pieces the server sent.
async fn run(endpoint: &PgEndpoint, nth: u64, trouble: Trouble) -> u64 {
    execute(endpoint, &["truncate public.t"]).await;
    let pieces = Arc::<AtomicU64>::default();
    let behind = proxy::start(endpoint, Fault::Piece(Arc::clone(&pieces), nth, trouble)).await;
    let kit = Kit::new(behind);
    let run = kit.start(&changes(trouble)).await;
    let outcome = kit.execute(&run).await;
    let case = format!("{trouble:?} at piece {nth}");
    assert_eq!(outcome, Outcome::Succeeded, "{case}");
    let rows: String =
        value(endpoint, "select string_agg(n::text, ',' order by n) from public.t").await;
    assert_eq!(rows, "1,2,3", "{case}");
    pieces.load(Ordering::SeqCst)
}

/// A database with the tables that a run needs: the first makes that of the keys.
async fn database() -> PgEndpoint {
    let endpoint = postgres().await.fresh_database("network").await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    run(&endpoint, 0, Trouble::Reset).await;
    endpoint
}

#[tokio::test]
async fn a_network_that_fails_anywhere_changes_nothing_in_the_end() {
    let endpoint = database().await;
    let pieces = run(&endpoint, 0, Trouble::Reset).await;
    assert!(pieces > 10, "{pieces}");
    for nth in 1..=pieces {
        run(&endpoint, nth, Trouble::Reset).await;
        run(&endpoint, nth, Trouble::HalfClosed).await;
    }
    for nth in (1..=pieces).step_by(3) {
        run(&endpoint, nth, Trouble::Slow).await;
    }
    // Each of these costs a deadline, so they wait together.
    let silent = (1..=pieces).step_by(7).map(async |nth| {
        let endpoint = database().await;
        run(&endpoint, nth, Trouble::Silence).await;
    });
    join_all(silent).await;
}
