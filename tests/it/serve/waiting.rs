//! Runs that wait for a time leave their place to others.

use std::sync::Arc;
use std::time::Duration;

use lakeops::engine::parts::Parts;
use lakeops::engine::{Engine, StartOptions};
use lakeops::journal::store::{EntryFilter, RunFilter};
use lakeops::journal::{Event, Journal as _, Outcome, Principal, SqliteJournal};
use lakeops::kernel::{Clock, Redactor, RunId, SystemClock, Target, Timestamp};
use lakeops::workflow::{Library, SourceText};
use tokio_util::sync::CancellationToken;

use super::clock::Jumping;
use super::simulated::{Shop, schedule, serve};
use crate::harness::parts::parts;
use crate::harness::{execute, postgres, value};

const START: &str = "2026-12-01T00:00:30Z";
const HOUR: i64 = 3_600_000;

/// Waits an hour between two changes; the first try of the second one fails, and is tried again in an hour.
const LONG: &str = r#"version: 1
name: long
description: Wait an hour, twice.
steps:
  - id: first
    tool: execute_sql
    with: { statements: ["insert into public.t values ('long 1')"] }
  - id: pause
    needs: [first]
    wait: { for: 1h }
  - id: second
    needs: [pause]
    retry: { max_attempts: 2, backoff: { initial: 1h, max: 1h, jitter: 0.0 } }
    sql: tests/late
  - id: third
    needs: [second]
    tool: execute_sql
    with: { statements: ["insert into public.t values ('long 3')"] }
"#;

const LATE: &str = "-- purpose: fails before eight others were there
-- needs: PostgreSQL 14
-- params: none
-- columns: n int8
select public.late() as n
";

/// Fails as a transaction does that lost against others: another try may pass.
const MAKE_LATE: &str = "create function public.late() returns bigint language plpgsql as $$
begin
    if (select count(*) from public.t where what = 'short') < 8 then
        raise exception 'not yet' using errcode = 'serialization_failure';
    end if;
    return 1;
end $$";

const SHORT: &str = r#"version: 1
name: short
description: Put down a row.
steps:
  - id: put
    tool: execute_sql
    with: { statements: ["insert into public.t values ('short')"] }
"#;

/// A server for one run at a time, with a run of `long` that it finds; it serves so many hours.
async fn shop(hint: &str, hours: i64) -> (Parts, Shop, Arc<SqliteJournal>, RunId) {
    let endpoint = postgres().await.fresh_database(hint).await;
    execute(&endpoint, &["create table public.t (what text)", MAKE_LATE]).await;
    let start = Timestamp::parse(START).unwrap().as_millis();
    let clock = Arc::new(Jumping::new(start, start + hours * HOUR));
    let shared: Arc<dyn Clock> = Arc::<Jumping>::clone(&clock);
    let dir = tempfile::tempdir().unwrap().keep();
    let journal = SqliteJournal::open(&dir, Arc::clone(&shared), Redactor::default()).unwrap();
    let me = Principal { name: "shop".to_owned(), from: "test".to_owned() };
    let parts = Parts {
        clock: shared,
        ..parts(Arc::<SqliteJournal>::clone(&journal), Arc::new(endpoint), me.clone())
    };
    let mut library = Library::new().with_sql("tests/late", LATE);
    library.add_workflow(SourceText::new("long.yaml", LONG));
    library.add_workflow(SourceText::new("short.yaml", SHORT));
    let schedules = vec![("short".to_owned(), schedule("short", "*/10 * * * *"))];
    let shop = Shop::new(library, clock, schedules);
    let plan = shop.planned("long").unwrap();
    let options = StartOptions { key: None, by: me, yes: true, forked_from: None };
    let run = Engine::new(parts.clone()).start(&plan, options).await.unwrap();
    (parts, shop, journal, run)
}

async fn served(parts: Parts, shop: &Shop) {
    let serving = serve(parts, shop, shop.clock(), (CancellationToken::new(), 1));
    // A run that keeps its place keeps this clock from going on.
    let served = tokio::time::timeout(Duration::from_mins(10), serving).await;
    served.expect("a run that waits keeps the only place").unwrap();
}

async fn runs(journal: &SqliteJournal, workflow: &str) -> Vec<(Timestamp, Timestamp, Outcome)> {
    let mut runs = journal.runs(RunFilter::default()).await.unwrap();
    runs.retain(|run| run.workflow == workflow);
    runs.reverse();
    runs.iter().map(|run| (run.created_at, run.updated_at, run.outcome)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_an_hour_leaves_the_only_place_to_others() {
    let (parts, shop, journal, run) = shop("places", 3).await;
    let endpoint = parts.endpoints.endpoint("shop", &Target::default(), false).await.unwrap();
    served(parts, &shop).await;
    let long = runs(&journal, "long").await;
    let (began, ended, outcome) = long[0];
    assert_eq!(outcome, Outcome::Succeeded);
    let took = ended.since(began);
    assert!(took >= Duration::from_hours(2) && took < Duration::from_mins(125), "{took:?}");
    let short = runs(&journal, "short").await;
    assert_eq!(short.len(), 18, "each slot of three hours had its run");
    for (due, ended, outcome) in &short {
        assert_eq!(*outcome, Outcome::Succeeded);
        // A deadline of a statement may count as passed in the moment in which the server is not seen to work.
        let took = ended.since(*due);
        assert!(took < Duration::from_mins(10), "{took:?}: none waited for the other");
    }
    let order: String =
        value(&endpoint, "select string_agg(what, ',' order by ctid) from public.t").await;
    assert!(order.starts_with("long 1,short"), "{order}");
    let filter = EntryFilter { stream: Some(run.to_string()), ..EntryFilter::default() };
    let parked: Vec<_> = journal
        .entries(filter)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::RunParked { outcome, reason, .. } => Some((outcome, reason)),
            _ => None,
        })
        .collect();
    let waits = |step: &str| (Outcome::Waiting, format!("{step} until its time has come"));
    assert_eq!(parked, [waits("pause"), waits("second")], "it left twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_is_cancelled_at_once() {
    let (parts, shop, journal, run) = shop("places_cancel", 1).await;
    let engine = Engine::new(parts.clone());
    let cancel = async {
        // Once it has left its place, which it does before the first slot.
        loop {
            let run = journal.runs(RunFilter::default()).await.unwrap().pop().unwrap();
            if run.outcome == Outcome::Waiting {
                break;
            }
            SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(1))).await;
        }
        let by = Principal { name: "ann".to_owned(), from: "test".to_owned() };
        engine.cancel(&run, false, (&by, "no longer wanted")).await.unwrap();
    };
    tokio::join!(served(parts, &shop), cancel);
    let (began, ended, outcome) = runs(&journal, "long").await[0];
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(ended.since(began) < Duration::from_hours(1), "{:?}", ended.since(began));
}
