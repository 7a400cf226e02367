//! Journals that an earlier version wrote, and that every later one must understand: finished runs are
//! shown, interrupted ones go on. They are kept as SQL text in `golden/`.
//!
//! A change of the stored format adds new ones beside them and never touches the old:
//! `cargo test --test it write_golden_journals -- --ignored` writes those of the present version.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lakeops::journal::event::{Compensation, Decision, Event};
use lakeops::journal::store::RunFilter;
use lakeops::journal::{Journal, Outcome, SqliteJournal};
use lakeops::kernel::{Redactor, Span, SystemClock};
use lakeops::plan::document::{
    Action, ApprovalGate, ForEach, OnReject, OnVerifyFail, PinnedText, ToolCall, Verify,
};
use lakeops::plan::{Plan, PlannedStep};
use lakeops::report::RunView;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::kit::{Kit, embedded, plan_with, sql, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, postgres, value};

const FINISHED: &str = include_str!("golden/finished_1.sql");
const INTERRUPTED: &str = include_str!("golden/interrupted_1.sql");

const TABLES: [&str; 1] = ["create table public.t (n bigint)"];
const ROWS: &str = "select coalesce(string_agg(n::text, ',' order by n), '') from public.t";

fn insert(n: u32) -> Action {
    sql(&[&format!("insert into public.t values ({n})")])
}

/// A bit of everything, and a person in the middle.
fn story(last: PlannedStep) -> Plan {
    let script = Action::Script { script: "double".to_owned(), with: json!({ "n": 2 }) };
    let each = json!({ "sql": "insert into public.t values ($1)", "binds": ["${{ item }}"] });
    let mut fan = step("fan", &["double"], tool("execute_sql", json!({ "statements": [each] })));
    fan.for_each = Some(ForEach {
        items: json!([10, 11]),
        key: "k${{ item }}".to_owned(),
        max_parallel: 1,
        fail_fast: true,
    });
    let mut inner = embedded(vec![step("one", &[], insert(1))]);
    inner.lock = Some("inner".to_owned());
    inner.always = vec![step("told", &[], tool("publish_event", json!({ "event": "told" })))];
    let child = step("child", &["fan"], Action::Workflow(Box::new(inner)));
    let gate = Action::Approval(ApprovalGate {
        prompt: "Go on?".to_owned(),
        show: vec!["steps.double.n".to_owned()],
        covers: Vec::new(),
        expires: Span::parse("36500d").unwrap(),
        on_reject: OnReject::Stop,
        rehearsed_within: None,
    });
    let mut after = step("after", &["gate"], insert(2));
    after.when = Some("steps.double.n == 4".to_owned());
    let steps =
        vec![step("double", &[], script), fan, child, step("gate", &["child"], gate), after, last];
    plan_with(steps, &[], |body| {
        body.scripts.insert("double".to_owned(), PinnedText::new("#{ n: n * 2 }"));
        body.lock = Some("golden".to_owned());
        body.always = vec![step("over", &[], tool("publish_event", json!({ "event": "over" })))];
        body.outputs.insert("n".to_owned(), "steps.double.n".to_owned());
    })
}

/// Undoes the step after the gate.
fn check() -> PlannedStep {
    let verify = Action::Verify(Verify {
        call: ToolCall { tool: "monitor_connections".to_owned(), with: json!({}) },
        assert: vec!["result.total < 0".to_owned()],
        every: Span::parse("10ms").unwrap(),
        within: Span::parse("10ms").unwrap(),
        on_fail: OnVerifyFail::Compensate,
    });
    step("check", &["after"], verify)
}

async fn database(name: &str) -> lakeops::postgres::PgEndpoint {
    let endpoint = postgres().await.fresh_database(name).await;
    execute(&endpoint, &TABLES).await;
    endpoint
}

/// A state directory as it was left.
fn restored(text: &str, endpoint: &lakeops::postgres::PgEndpoint) -> Crash {
    Crash::left_by(endpoint, |state| {
        let connection = Connection::open(state.join("journal.db")).unwrap();
        connection.execute_batch(text).unwrap();
    })
}

#[tokio::test]
async fn a_run_that_an_earlier_version_left_goes_on() {
    let endpoint = database("golden").await;
    let crash = restored(INTERRUPTED, &endpoint);
    let before = crash.entries().await.len();
    assert!(before > 20, "{before} entries");
    assert_eq!(crash.finish(), "succeeded");
    assert_eq!(value::<String>(&endpoint, ROWS).await, "2,3", "only what was left to do");
    let entries = crash.entries().await;
    let last = entries.iter().rev().find_map(|entry| match &entry.event {
        Event::RunFinished { outputs, .. } => Some(outputs.clone()),
        _ => None,
    });
    assert_eq!(last, Some(json!({ "n": 4 })));
}

#[tokio::test]
async fn a_run_that_an_earlier_version_finished_is_shown() {
    let endpoint = database("golden_shown").await;
    let crash = restored(FINISHED, &endpoint);
    let (plan, entries) = (crash.plan(), crash.entries().await);
    let view = RunView::from_entries(&plan, &entries);
    assert_eq!(view.outcome.as_str(), "failed");
    assert_eq!(view.compensation, Compensation::Partial);
    let state = |key: &str| view.steps.iter().find(|step| step.key == key).unwrap().state.clone();
    assert_eq!(state("fan[k10]"), "compensated");
    assert_eq!(state("after"), "compensated");
    assert_eq!(state("child/told"), "succeeded");
    // Going on with what is over changes nothing.
    assert_eq!(crash.run(None), End::Outcome("failed".to_owned()));
    assert_eq!(crash.entries().await.len(), entries.len());
    assert_eq!(value::<String>(&endpoint, ROWS).await, "");
}

/// The folder that they are kept in.
pub(crate) fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/engine/golden")
}

/// An engine on the journal of a state directory.
fn kit_on(state: &Path, endpoint: &lakeops::postgres::PgEndpoint) -> Kit {
    let clock = Arc::new(SystemClock);
    let journal = SqliteJournal::open(state, clock, Redactor::default()).unwrap();
    Kit::on(endpoint.clone(), journal)
}

/// A change behind an approval that demands a rehearsal.
fn demanding() -> Plan {
    let century = || Span::parse("36500d").unwrap();
    let gate = Action::Approval(ApprovalGate {
        prompt: "Make it?".to_owned(),
        show: Vec::new(),
        covers: vec!["make".to_owned()],
        expires: century(),
        on_reject: OnReject::Stop,
        rehearsed_within: Some(century()),
    });
    let make = sql(&["create table public.made (a int)"]);
    plan_with(vec![step("gate", &[], gate), step("make", &["gate"], make)], &[], |_| ())
}

#[tokio::test]
async fn evidence_that_an_earlier_version_gathered_still_counts() {
    let endpoint = postgres().await.fresh_database("golden_rehearsed").await;
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder().join("rehearsed_2.sql")).unwrap();
    Connection::open(dir.path().join("journal.db")).unwrap().execute_batch(&text).unwrap();
    let kit = kit_on(dir.path(), &endpoint);
    let runs = kit.journal.runs(RunFilter::default()).await.unwrap();
    let waits = runs.iter().find(|run| run.outcome == Outcome::WaitingApproval).unwrap();
    let rehearsal = runs.iter().find(|run| run.outcome == Outcome::Succeeded).unwrap();
    let loaded = kit.engine().load(&rehearsal.run_id).await.unwrap();
    let view = RunView::from_entries(&loaded.plan, &loaded.entries);
    assert!(view.rehearsal.is_some());
    for kind in ["rehearsal_began", "branch_wanted", "set_rehearsed", "branch_removed"] {
        assert_eq!(kit.count(&rehearsal.run_id, kind).await, 1, "{kind}");
    }
    // Without the evidence this would be refused.
    kit.decide(&waits.run_id, Decision::Approved).await;
    assert_eq!(kit.execute(&waits.run_id).await, Outcome::Succeeded);
    let made = "select (to_regclass('public.made') is not null)::text";
    assert_eq!(value::<String>(&endpoint, made).await, "true");
}

#[tokio::test]
#[ignore = "writes the journals of the present version"]
async fn write_golden_rehearsals() {
    let (copied, endpoint) = super::rehearsals::copied("g").await;
    let dir = tempfile::tempdir().unwrap();
    let mut kit = kit_on(dir.path(), &endpoint);
    kit.parts.endpoints = copied.parts.endpoints;
    let plan = demanding();
    let (_, outcome) = kit.run(&plan).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    let (_, outcome) = super::rehearsals::rehearse(&kit, &plan).await;
    assert_eq!(outcome, Outcome::Succeeded);
    drop(kit);
    fs::write(folder().join("rehearsed_2.sql"), dump(dir.path()).await).unwrap();
}

#[tokio::test]
#[ignore = "writes the journals of the present version"]
async fn write_golden_journals() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/engine/golden");
    fs::create_dir_all(&folder).unwrap();
    let interrupted =
        Crash::asking(&story(step("last", &["after"], insert(3))), &database("g").await);
    assert_eq!(interrupted.run(None), End::Outcome("waiting_approval".to_owned()));
    fs::write(folder.join("interrupted_1.sql"), dump(&interrupted.state()).await).unwrap();
    let finished = Crash::new(&story(check()), &database("g").await);
    assert_eq!(finished.finish(), "failed");
    fs::write(folder.join("finished_1.sql"), dump(&finished.state()).await).unwrap();
}

/// The journal of a state directory as SQL text.
pub(crate) async fn dump(state: &Path) -> String {
    let clock = Arc::new(SystemClock);
    let journal = SqliteJournal::open(state, clock, Redactor::default()).unwrap();
    assert!(!journal.runs(RunFilter::default()).await.unwrap().is_empty());
    drop(journal);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(state.join("journal.db"), flags).unwrap();
    let mut lines = vec!["begin".to_owned()];
    for pragma in ["application_id", "user_version"] {
        let text = format!("pragma {pragma}");
        let number: i64 = connection.query_row(&text, [], |row| row.get(0)).unwrap();
        lines.push(format!("{text} = {number}"));
    }
    let tables = objects(&connection, "type = 'table'");
    lines.extend(tables.iter().map(|(_, made)| made.clone()));
    for (name, _) in &tables {
        rows(&connection, name, &mut lines);
    }
    lines.extend(objects(&connection, "type <> 'table'").into_iter().map(|(_, made)| made));
    lines.push("commit".to_owned());
    lines.join(";\n") + ";\n"
}

/// The names of tables and the like, and how they are made.
fn objects(connection: &Connection, which: &str) -> Vec<(String, String)> {
    let text = format!(
        "select name, sql from sqlite_master where sql is not null and name not like 'sqlite_%' \
         and {which} order by type = 'trigger', rowid"
    );
    let mut statement = connection.prepare(&text).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    found.map(Result::unwrap).collect()
}

fn rows(connection: &Connection, table: &str, lines: &mut Vec<String>) {
    let mut statement = connection.prepare(&format!("select * from \"{table}\"")).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|column| literal(row.get_ref(column).unwrap()));
        let values: Vec<String> = values.collect();
        lines.push(format!("insert into \"{table}\" values ({})", values.join(", ")));
    }
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => {
            format!("'{}'", String::from_utf8_lossy(bytes).replace('\'', "''"))
        }
        ValueRef::Blob(bytes) => {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{}'", hex.concat())
        }
    }
}
