//! An applier that breaks its promise is found: a SQL applier that recovers by doing it again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use lakeops::config::Settings;
use lakeops::crash::copied::Copied;
use lakeops::crash::report::Verdict;
use lakeops::crash::{Launcher, Progress, Report, Test, Tools, conduct, worker};
use lakeops::engine::RunLocks;
use lakeops::engine::apply::{
    Applied, Applier, Appliers, ApplyContext, NotificationApplier, Recovered, SqlApplier,
};
use lakeops::engine::parts::Parts;
use lakeops::journal::{MemoryJournal, Principal, SqliteJournal};
use lakeops::kernel::{
    BoxFuture, Failure, Operation, Recovery, Redactor, Secret, Span, SystemClock,
};
use lakeops::postgres::PgEndpoint;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::engine::kit::{plan, sql, step};
use crate::harness::parts::Nobody;
use crate::harness::{self, execute, postgres};

/// Carries SQL out as a change that may be repeated, whatever it says: no key goes with it.
struct Careless;

fn careless<'a>(cx: &'a ApplyContext<'a>) -> ApplyContext<'a> {
    ApplyContext { recovery: Recovery::Repeatable, ..*cx }
}

impl Applier for Careless {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(async move { SqlApplier.apply(&careless(cx)).await })
    }

    fn recover<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(async { Ok(Recovered::NotApplied) })
    }
}

impl Progress for Nobody {
    fn stage(&self, _what: &str) {}
    fn done(&self, _done: usize, _of: usize) {}
}

fn parts(endpoint: PgEndpoint) -> Parts {
    let journal = MemoryJournal::new(Arc::new(SystemClock), Redactor::default());
    let principal = Principal { name: "crash".to_owned(), from: "test".to_owned() };
    harness::parts::parts(Arc::new(journal), Arc::new(endpoint), principal)
}

/// Starts this test binary again, for [`child`] only.
struct Again {
    is_careless: bool,
}

impl Launcher for Again {
    fn command(&self, folder: &Path) -> Command {
        if self.is_careless {
            std::fs::write(folder.join("careless"), "").unwrap();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crashing::broken::child", "--ignored", "--nocapture"]);
        command.env("LAKEOPS_TEST_FOLDER", folder).env("RUST_BACKTRACE", "0");
        command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the test of a broken applier kills"]
async fn child() {
    let Some(folder) = std::env::var_os("LAKEOPS_TEST_FOLDER") else { return };
    let folder = Path::new(&folder);
    let url = Secret::new(std::env::var_os("LAKEOPS_DATABASE_URL").unwrap().into_string().unwrap());
    let mut parts = parts(PgEndpoint::from_url(&url).unwrap());
    let state = folder.join("state");
    parts.journal =
        SqliteJournal::open(&state, Arc::new(SystemClock), Redactor::default()).unwrap();
    parts.ownership = Arc::new(RunLocks::new(&state));
    parts.kill = worker::kill_points(folder).unwrap();
    let mut settings = Settings::default();
    // Who dies everywhere dies often before anything is settled.
    settings.limits.max_barren_resumes = 1_000;
    parts.settings = Arc::new(settings);
    if folder.join("careless").exists() {
        let appliers = Appliers::new(NotificationApplier::default());
        let kind = Operation::Sql {
            statement: lakeops::kernel::SqlStatement::new(""),
            transactional: true,
        }
        .kind();
        parts.appliers = Arc::new(appliers.replacing(kind, Arc::new(Careless)));
    }
    worker::work(folder, parts, Redactor::default()).await.unwrap();
}

async fn tested(hint: &str, is_careless: bool, in_one_run: bool) -> Report {
    let endpoint = postgres().await.fresh_database(hint).await;
    execute(&endpoint, &["create table public.t (n int)"]).await;
    let plan = plan(vec![step("add", &[], sql(&["insert into public.t values (1)"]))]);
    let tools = Tools {
        parts: parts(endpoint.clone()),
        connection: "test".to_owned(),
        stem: format!("{hint}_{}", std::process::id()),
        setup: vec!["insert into public.t values (0)".to_owned()],
    };
    let test = Test {
        ground: Arc::new(Copied::new(tools, &plan, endpoint).unwrap()),
        launcher: Arc::new(Again { is_careless }),
        clock: Arc::new(SystemClock),
        redactor: Redactor::default(),
        only: vec!["add/do */*".to_owned()],
        sample: None,
        in_one_run,
        jobs: 2,
        approves: true,
        outside: false,
        files: None,
        patience: Span::from_secs(600),
    };
    Box::pin(conduct(&test, &CancellationToken::new(), &Nobody)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applier_that_repeats_what_it_did_is_found() {
    let sound = tested("crash_sound", false, false).await;
    assert!(sound.is_good(), "{sound:#?}");
    let broken = tested("crash_broken", true, false).await;
    assert!(!broken.is_good(), "{broken:#?}");
    let after = broken.lines.iter().rfind(|line| line.boundary.name.ends_with("/after effect"));
    let Verdict::Different { differences } = &after.unwrap().kill else { panic!("{broken:#?}") };
    let rows = differences.iter().find(|found| found.place == "table public.t").unwrap();
    assert_eq!(rows.what, r#"row 2 times instead of 1: {"n":1}"#);
    let text = broken.text(lakeops::report::Style::PLAIN);
    assert!(text.contains("DIFFERENT") && text.contains("table public.t: row 2 times"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_found_in_one_run_as_well() {
    let sound = tested("crash_sound_once", false, true).await;
    assert!(sound.is_good(), "{sound:#?}");
    let run = sound.in_one_run.as_ref().unwrap();
    for boundary in ["before effect", "in transaction", "after effect"] {
        let name = format!("add/do 0/{boundary}");
        assert!(run.died.contains(&name), "{name}: {:?}", run.died);
    }
    assert_eq!(run.died.len(), sound.kills);
    let broken = tested("crash_broken_once", true, true).await;
    assert!(!broken.is_good(), "{broken:#?}");
    let Verdict::Different { differences } = &broken.in_one_run.as_ref().unwrap().ended else {
        panic!("{broken:#?}")
    };
    let rows = differences.iter().find(|found| found.place == "table public.t").unwrap();
    assert!(rows.what.starts_with("row ") && rows.what.ends_with(r#"instead of 1: {"n":1}"#));
}
