//! A journal that fails: nothing that was acknowledged is lost, nothing is done twice.

use std::sync::Arc;

use lakeops::engine::parts::Unobserved;
use lakeops::engine::{Engine, EngineError};
use lakeops::journal::event::Event;
use lakeops::journal::faulty::{Fault, FaultyJournal};
use lakeops::journal::store::{Append, Expect, JournalError, Stream};
use lakeops::journal::{Journal, MemoryJournal, Outcome, SqliteJournal};
use lakeops::kernel::{Redactor, RunId, SystemClock};
use lakeops::plan::Plan;
use lakeops::plan::document::{Action, ApprovalMode};
use lakeops::postgres::PgEndpoint;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, Meddled, embed, me, plan, sql, step, tool};
use crate::harness::{execute, postgres, value};

fn insert(n: u32) -> Action {
    sql(&[&format!("insert into public.t values ({n})")])
}

async fn database(name: &str) -> PgEndpoint {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &["create table public.t (n bigint)"]).await;
    endpoint
}

async fn rows(endpoint: &PgEndpoint) -> String {
    let text = "select coalesce(string_agg(n::text, ',' order by n), '') from public.t";
    value(endpoint, text).await
}

async fn try_execute(engine: &Engine, run: &RunId) -> Result<Outcome, EngineError> {
    engine.execute(run, CancellationToken::new(), Arc::new(Unobserved)).await
}

fn chain(length: u32) -> Plan {
    let ids: Vec<String> = (0..length).map(|n| format!("s{n}")).collect();
    let steps = (0..length).map(|n| {
        let place = usize::try_from(n).unwrap();
        let needs: Vec<&str> =
            place.checked_sub(1).map(|before| ids[before].as_str()).into_iter().collect();
        step(&ids[place], &needs, insert(n))
    });
    plan(steps.collect())
}

#[tokio::test]
async fn a_full_disk_stops_a_run_and_space_lets_it_finish() {
    let endpoint = database("full").await;
    let dir = tempfile::tempdir().unwrap();
    let open =
        || SqliteJournal::open(dir.path(), Arc::new(SystemClock), Redactor::default()).unwrap();
    let journal = open();
    let kit = Kit::on(endpoint.clone(), Arc::<SqliteJournal>::clone(&journal));
    let run = kit.start(&chain(30)).await;
    let stream = Stream::Run(run.clone());
    // Room for some of it: the quota grows until a part of the run fits.
    let mut stopped = 0;
    let mut acknowledged = Vec::new();
    for pages in (1..).step_by(8) {
        journal.limit_pages(pages).await.unwrap();
        match try_execute(&kit.engine(), &run).await {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Succeeded);
                break;
            }
            Err(error) => {
                let text = format!("{error:?}");
                assert!(text.contains("full: true"), "{text}");
                stopped += 1;
            }
        }
        let known = journal.read(&stream, 0).await.unwrap();
        assert!(known.starts_with(&acknowledged), "an acknowledged event is lost");
        acknowledged = known;
    }
    assert!(stopped > 1, "the disk was never full");
    let all: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    assert_eq!(rows(&endpoint).await, all.join(","));
    drop(kit);
    drop(journal);
    let journal = open();
    assert_eq!(journal.verify().await.unwrap().broken, None);
    assert!(journal.read(&stream, 0).await.unwrap().starts_with(&acknowledged));
}

/// A bit of everything that is appended in a different way.
fn varied() -> Plan {
    let two = sql(&["insert into public.t values (1)", "insert into public.t values (2)"]);
    let mut asked = step("asked", &["child"], insert(4));
    asked.approval = ApprovalMode::Required;
    plan(vec![
        step("two", &[], two),
        step("child", &["two"], embed(vec![step("inner", &[], insert(3))])),
        asked,
        step("say", &["asked"], tool("publish_event", serde_json::json!({ "event": "said" }))),
    ])
}

/// Works until the run is over; approves what waits.
async fn finish(kit: &Kit, run: &RunId) -> Result<Outcome, EngineError> {
    loop {
        let outcome = try_execute(&kit.engine(), run).await?;
        if outcome != Outcome::WaitingApproval {
            return Ok(outcome);
        }
        let approved = lakeops::journal::event::Decision::Approved;
        kit.engine().decide_approval((run, None), None, approved, (&me(), "test")).await?;
    }
}

#[tokio::test]
async fn an_append_that_fails_anywhere_changes_nothing_in_the_end() {
    let memory = || -> Arc<dyn Journal> {
        Arc::new(MemoryJournal::new(Arc::new(SystemClock), Redactor::default()))
    };
    let endpoint = database("calm_appends").await;
    let counting = Arc::new(FaultyJournal::new(memory(), Fault::Before, 0));
    let kit = Kit::on(endpoint.clone(), Arc::<FaultyJournal>::clone(&counting));
    let run = kit.start(&varied()).await;
    assert_eq!(finish(&kit, &run).await.unwrap(), Outcome::Succeeded);
    let appends = counting.appends();
    assert!(appends > 15, "{appends}");
    let events = kit.count(&run, "change_settled").await;
    for fault in [Fault::Before, Fault::After] {
        for nth in 2..=appends {
            execute(&endpoint, &["truncate public.t"]).await;
            let faulty = Arc::new(FaultyJournal::new(memory(), fault, nth));
            let kit = Kit::on(endpoint.clone(), Arc::<FaultyJournal>::clone(&faulty));
            let run = kit.start(&varied()).await;
            // The number of appends differs by what shares a commit: the last ones may not come.
            let first = finish(&kit, &run).await;
            faulty.heal();
            if first.is_err() {
                assert_eq!(
                    finish(&kit, &run).await.unwrap(),
                    Outcome::Succeeded,
                    "{fault:?} {nth}"
                );
            }
            assert_eq!(rows(&endpoint).await, "1,2,3,4", "{fault:?} {nth}");
            assert_eq!(kit.count(&run, "event_published").await, 1, "{fault:?} {nth}");
            let setup = events - kit.count(&run, "change_settled").await;
            assert!(setup == 0 || setup == 2, "{fault:?} {nth}: {setup}");
        }
    }
}

#[tokio::test]
async fn who_lost_the_claim_stops_visibly() {
    let endpoint = database("fenced").await;
    let kit = Kit::new(endpoint.clone());
    let run = kit.start(&chain(3)).await;
    // Somebody else claims the run right after this executor did.
    let claim = Append {
        stream: Stream::Run(run.clone()),
        expect: Expect::Last(2),
        events: vec![Event::RunClaimed { by: me(), pid: 2 }],
    };
    let mut first = Kit::on(endpoint.clone(), Arc::clone(&kit.journal));
    first.parts.journal = Arc::new(Meddled::after_claim(Arc::clone(&kit.journal), claim));
    let error = try_execute(&first.engine(), &run).await.unwrap_err();
    let EngineError::Execute(lakeops::engine::ExecuteError::Journal { source, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(source, JournalError::Conflict { .. }), "{source}");
    assert_eq!(rows(&endpoint).await, "");
    // The loser appends nothing more; whoever claims next finishes.
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(rows(&endpoint).await, "0,1,2");
}

#[tokio::test]
async fn two_executors_of_one_run_do_each_change_once() {
    let endpoint = database("two_executors").await;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let clock = Arc::new(SystemClock);
        let journal = SqliteJournal::open(dir.path(), clock, Redactor::default()).unwrap();
        Kit::on(endpoint.clone(), journal)
    };
    let (kit, other) = (open(), open());
    let run = kit.start(&chain(10)).await;
    // `Alone` lets both in: only the claim fences.
    let (engine, rival) = (kit.engine(), other.engine());
    let (a, b) = tokio::join!(try_execute(&engine, &run), try_execute(&rival, &run));
    assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
    assert_eq!(kit.execute(&run).await, Outcome::Succeeded);
    assert_eq!(rows(&endpoint).await, "0,1,2,3,4,5,6,7,8,9");
}
