//! The shipped workflows.

mod reviews;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lakeops::cli::demo::load::{Forgotten, Load, WORKERS};
use lakeops::config::Settings;
use lakeops::engine::parts::{History, Parts, Unobserved};
use lakeops::engine::{Engine, StartOptions};
use lakeops::history::{self, HistoryWriter, Location};
use lakeops::journal::event::Decision;
use lakeops::journal::{Journal, MemoryJournal, Outcome, Principal};
use lakeops::kernel::kill::Unarmed;
use lakeops::kernel::{Clock, Query, RandomIds, Redactor, RunId, SystemClock, Target};
use lakeops::plan::Plan;
use lakeops::plan::planner::{self, Given, PlanInputs};
use lakeops::postgres::{PgEndpoint, Quiet};
use lakeops::report::RunView;
use lakeops::tools::Catalog;
use lakeops::workflow::{Library, Resolver, Sources as _};
use serde_json::json;
use sqlx::Connection as _;
use tokio_util::sync::CancellationToken;

use crate::harness;
use crate::harness::parts::parts;

/// The shipped files of a folder with an ending, as `folder/name` and text.
fn shipped(folder: &str, ending: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|found| found == ending));
    let name = |path: &Path| format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
    paths.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

pub(crate) fn library() -> Library {
    let scripts = shipped("sops", "rhai").into_iter();
    let library =
        scripts.fold(Library::new(), |library, (path, text)| library.with_script(path, text));
    let workflows = shipped("workflows", "yaml").into_iter();
    workflows.fold(library, |library, (path, text)| library.with_workflow(&path, text))
}

#[test]
fn shipped_workflows_resolve_without_a_mistake() {
    let (catalog, library) = (Catalog::builtin(), library());
    let resolution = Resolver::new(&catalog, &library).resolve_all();
    assert!(resolution.diagnostics.is_empty(), "{:#?}", resolution.diagnostics);
    assert_eq!(resolution.workflows.len(), shipped("workflows", "yaml").len());
}

/// An engine on one database, and the shipped workflows.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) journal: Arc<dyn Journal>,
    catalog: Catalog,
    library: Library,
    history: Option<Arc<HistoryWriter>>,
}

pub(crate) fn somebody() -> Principal {
    Principal { name: "ann".to_owned(), from: "test".to_owned() }
}

impl Bench {
    pub(crate) fn on(endpoint: PgEndpoint) -> Self {
        Self::keeping(endpoint, None)
    }

    /// The same with a history below a state directory.
    fn keeping(endpoint: PgEndpoint, state: Option<&Path>) -> Self {
        let journal: Arc<dyn Journal> =
            Arc::new(MemoryJournal::new(Arc::new(SystemClock), Redactor::default()));
        Self::of((endpoint, journal), state, Arc::new(SystemClock))
    }

    /// The same with other levels of alerts and limits.
    pub(crate) fn with(self, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let engine = Engine::new(Parts { settings, ..self.engine.parts().clone() });
        Self { engine, ..self }
    }

    /// With a journal that is there already, and a clock.
    fn of(
        (endpoint, journal): (PgEndpoint, Arc<dyn Journal>),
        state: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let history = state.map(|state| {
            let outside = (Arc::clone(&clock), Arc::new(Unarmed) as _);
            let location = Location::folder(&state.join("history")).unwrap();
            Arc::new(HistoryWriter::new(location, Arc::clone(&journal), state, outside))
        });
        let kept = history.clone();
        let engine = Engine::new(Parts {
            clock,
            history: history.map(|history| history as Arc<dyn History>),
            ..parts(Arc::clone(&journal), Arc::new(endpoint), somebody())
        });
        let (catalog, library) = (Catalog::builtin(), library());
        Self { engine, journal, catalog, library, history: kept }
    }

    pub(crate) async fn run(&self, workflow: &str, params: &[(&str, &str)]) -> (RunId, Outcome) {
        let plan = self.plan(workflow, params);
        let options = StartOptions { key: None, by: somebody(), yes: false, forked_from: None };
        let run = self.engine.start(&plan, options).await.unwrap();
        let outcome = self.execute(&run).await;
        (run, outcome)
    }

    pub(crate) fn plan(&self, workflow: &str, params: &[(&str, &str)]) -> Plan {
        let resolution = Resolver::new(&self.catalog, &self.library).resolve(workflow);
        let given = params.iter().map(|(k, v)| ((*k).to_owned(), Given::Text((*v).to_owned())));
        let policy = "sops/change_policy.rhai";
        let inputs = PlanInputs {
            params: given.collect(),
            connection: "test".to_owned(),
            target: Target::default(),
            wake: false,
            settings: &Settings::default(),
            policy: self.library.script(policy).map(|text| (policy.to_owned(), text.to_owned())),
            replaces: None,
            now: SystemClock.now(),
        };
        planner::plan(resolution.get(workflow).unwrap(), &inputs).unwrap()
    }

    pub(crate) async fn execute(&self, run: &RunId) -> Outcome {
        self.engine.execute(run, CancellationToken::new(), Arc::new(Unobserved)).await.unwrap()
    }

    pub(crate) async fn view(&self, run: &RunId) -> RunView {
        let loaded = self.engine.load(run).await.unwrap();
        RunView::from_entries(&loaded.plan, &loaded.entries)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_is_ended_and_nobody_else() {
    // A server of its own: who blocks others is looked for in all databases, and would be ended there.
    let (_place, server) = harness::alone("forgotten").await;
    let (patient, operator) = harness::patient(server.endpoint()).await;
    let bench = Bench::on(operator);
    let short = [("patience", "10ms")];
    let (run, outcome) = bench.run("relieve_connections", &short).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(bench.view(&run).await.step("heal").unwrap().state, "skipped");

    let load = Load::start(&patient, Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap();
    let _forgotten = Forgotten::begin(&patient).await.unwrap();
    while patient.blocked(Duration::from_secs(5)).await.unwrap() < WORKERS as u64 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(100))).await;
    }
    let (run, outcome) = bench.run("relieve_connections", &short).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.step("heal").unwrap().output["ended"], 1);
    harness::pays(&load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bloat_is_healed_after_a_decision() {
    // A server of its own: an open transaction anywhere on a server, thus of any other test, is in
    // the snapshot that ANALYZE takes beside the next table's VACUUM, which then leaves dead rows.
    let place = harness::Place::new();
    let installation = harness::postgres().await.installation();
    let options = place.options("bloat");
    let server = place.local.start(installation, &options, &Quiet).await.unwrap();
    let (patient, operator) = harness::patient(server.endpoint()).await;
    let bench = Bench::on(operator);
    let before = patient.tables().await.unwrap();
    let (run, outcome) = bench.run("heal_bloat", &[("full_size", "16MiB")]).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::WaitingApproval, "{view:#?}");
    let asked: Vec<_> = view.open_approvals().flat_map(|a| a.sets.values()).collect();
    let statements: Vec<_> = asked.iter().flat_map(|set| &set.changes).collect();
    assert_eq!(statements.len(), 1);
    assert_eq!(
        statements[0].operation.to_string(),
        "vacuum (full, analyze) \"shop\".\"audit_trail\""
    );
    let by = somebody();
    let approve = bench.engine.decide_approval((&run, None), None, Decision::Approved, (&by, "ok"));
    approve.await.unwrap();
    assert_eq!(bench.execute(&run).await, Outcome::Succeeded, "{:#?}", bench.view(&run).await);
    let after = patient.tables().await.unwrap();
    for (was, now) in before.iter().zip(&after) {
        assert_eq!(now.dead_rows, 0, "{now:?}");
        let is_rewritten = was.name == "shop.audit_trail";
        assert_eq!(now.bytes * 2 < was.bytes, is_rewritten, "{was:?} {now:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_alerts_when_it_is_critical() {
    let database = harness::postgres().await.fresh_database("health").await;
    let (_, operator) = harness::patient(database).await;
    let bench = Bench::on(operator);
    let (run, outcome) = bench.run("health_check", &[]).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    // More than half of some tables is dead.
    assert_eq!(view.outputs["severity"], "critical", "{}", view.outputs);
    assert_eq!(view.step("alert").unwrap().output["sent"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_transactions_are_frozen_once_their_holder_is_gone() {
    let place = harness::Place::new();
    let installation = harness::postgres().await.installation();
    // What is a matter of 50 million transactions elsewhere is one of none here.
    let options = place.options("guard").with_setting("autovacuum", "off");
    let options = options.with_setting("vacuum_freeze_min_age", "0");
    let options = options.with_setting("vacuum_freeze_table_age", "0");
    let server = place.local.start(installation, &options, &Quiet).await.unwrap();
    let endpoint = server.endpoint();
    let setup = [
        "create table public.old as select 1 as n",
        "grant select on old to public",
        "create role clerk login",
    ];
    harness::execute(&endpoint, &setup).await;
    let as_clerk = endpoint.options().clone().username("clerk");
    let mut holder = sqlx::PgConnection::connect_with(&as_clerk).await.unwrap();
    for statement in ["begin isolation level repeatable read", "table public.old"] {
        sqlx::raw_sql(statement).execute(&mut holder).await.unwrap();
    }
    let age = "do $$ begin for i in 1..110000 loop \
               perform pg_catalog.pg_current_xact_id(); commit; end loop; end $$";
    harness::execute(&endpoint, &[age]).await;
    let bench = Bench::on(endpoint.clone());
    let params = [("vacuum_from", "100000"), ("most_tables", "200"), ("patience", "10ms")];
    let (run, outcome) = bench.run("wraparound_guard", &params).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.step("unblock").unwrap().output["ended"], 1);
    assert!(view.outputs["vacuumed"].to_string().contains("public.old"), "{}", view.outputs);
    let oldest = "select max(age(relfrozenxid)) < 100000 from pg_class where relkind = 'r'";
    assert!(harness::value::<bool>(&endpoint, oldest).await);
    let (run, outcome) = bench.run("wraparound_guard", &params).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(bench.view(&run).await.step("vacuum").unwrap().state, "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_over_many_branches_is_one_commit_for_each_table() {
    let endpoint = harness::postgres().await.fresh_database("collected").await;
    let statements = ["create extension pg_stat_statements", "create table t (a int primary key)"];
    harness::execute(&endpoint, &statements).await;
    let state = tempfile::tempdir().unwrap();
    let bench = Bench::keeping(endpoint, Some(state.path()));
    for _ in 0..2 {
        let branches = [("branches", r#"["production", "staging"]"#)];
        let (run, outcome) = bench.run("collect_metrics", &branches).await;
        assert_eq!(outcome, Outcome::Succeeded, "{:#?}", bench.view(&run).await);
    }
    let location = Location::folder(&state.path().join("history")).unwrap();
    for table in history::facts(&location).await.unwrap() {
        // Version 0 made the table.
        let most = if table.table.name == "audit" { 4 } else { 2 };
        assert!(table.version.is_none_or(|version| version <= most), "{table:?}");
    }
    let sql = "select branch_id, count(distinct run_id) as runs, count(calls_delta) > 0 as grew \
               from pg_stat_history group by 1 order by 1";
    let answer = history::answer(&location, &Query::new(sql), &[], None).await.unwrap();
    let expected = json!([
        { "branch_id": "production", "runs": 2, "grew": true },
        { "branch_id": "staging", "runs": 2, "grew": true },
    ]);
    assert_eq!(json!(answer.rows().unwrap()), expected);
    let texts = "select count(*) as n, count(distinct queryid) as once from query_texts \
                 where branch_id = 'staging'";
    let answer = history::answer(&location, &Query::new(texts), &[], None).await.unwrap();
    let counted = &answer.rows().unwrap()[0];
    assert!(
        counted["n"].as_i64().unwrap() > 0 && counted["n"].as_i64() >= counted["once"].as_i64()
    );
    let (run, outcome) = bench.run("history_maintenance", &[]).await;
    assert_eq!(outcome, Outcome::Succeeded);
    let view = bench.view(&run).await;
    let output = &view.step("maintain").unwrap().output;
    assert!(output["files_after"].as_u64() < output["files_before"].as_u64(), "{output}");
    let (run, outcome) = bench.run("sample_sessions", &[("branches", r#"["production"]"#)]).await;
    assert_eq!(outcome, Outcome::Succeeded, "{:#?}", bench.view(&run).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_healed_or_escalated() {
    let place = harness::Place::new();
    let installation = harness::postgres().await.installation();
    let server = place.local.start(installation, &place.options("incident"), &Quiet).await.unwrap();
    let (patient, operator) = harness::patient(server.endpoint()).await;
    let bench = Bench::on(operator);
    let load = Load::start(&patient, Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap();
    let _forgotten = Forgotten::begin(&patient).await.unwrap();
    while patient.blocked(Duration::from_secs(5)).await.unwrap() < WORKERS as u64 {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(100))).await;
    }
    // Nobody may end a transaction where only low risk is allowed: a person is told.
    let waits = [("issue", "lock_wait_seconds"), ("value", "60")];
    let (run, outcome) = bench.run("execute_low_risk_sop", &waits).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.outputs["status"], "escalated", "{}", view.outputs);
    assert_eq!(view.outputs["cause"], "idle_transaction_blocks");

    let waits = [("metric", "lock_wait_seconds"), ("value", "60")];
    let (run, outcome) = bench.run("incident_response", &waits).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.outputs["status"], "healed", "{}", view.outputs);
    assert_eq!(view.step("heal/end_sessions").unwrap().output["ended"], 1);
    harness::pays(&load).await;

    // The table that half consists of dead rows is vacuumed, and the number falls.
    drop(load);
    let bloated = [("issue", "dead_tuple_ratio"), ("value", "0.5")];
    let (run, outcome) = bench.run("self_heal", &bloated).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.outputs["status"], "healed", "{}", view.outputs);
    // What is of no low risk anywhere is for a person.
    let full = [("issue", "sequence_used"), ("value", "0.95")];
    let (run, _) = bench.run("self_heal", &full).await;
    assert_eq!(bench.view(&run).await.outputs["status"], "escalated");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_about_indexes_is_followed_after_a_decision() {
    let endpoint = harness::postgres().await.fresh_database("review").await;
    let setup = [
        "create extension pg_stat_statements",
        "create table public.p (id int primary key)",
        "insert into public.p select generate_series(1, 100)",
        "create table public.o (id int primary key, p int references public.p, a int, b int)",
        "insert into public.o select g, g % 100 + 1, g % 2000, g from generate_series(1, 40000) as g",
        "create index o_a on public.o (b)",
        "create index o_a_twin on public.o (b)",
        "vacuum analyze",
    ];
    harness::execute(&endpoint, &setup).await;
    let mut connection = harness::connect(&endpoint).await;
    for _ in 0..20 {
        sqlx::raw_sql("select * from public.o where a = 7").execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let flushed = "select seq_scan >= 20 from pg_stat_user_tables where relname = 'o'";
    while !harness::value::<bool>(&endpoint, flushed).await {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(50))).await;
    }
    let bench = Bench::on(endpoint.clone());
    let (run, outcome) = bench.run("index_review", &[("measure_after", "1s")]).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::WaitingApproval, "{view:#?}");
    let mut asked: Vec<String> = view
        .open_approvals()
        .flat_map(|approval| approval.sets.values())
        .flat_map(|set| &set.changes)
        .map(|change| change.operation.to_string())
        .collect();
    asked.sort();
    let expected = [
        "create index concurrently \"o_a_idx\" on \"public\".\"o\" (a)",
        "drop index concurrently \"public\".\"o_a_twin\"",
    ];
    assert_eq!(asked, expected);
    // Without branches it says so, to whoever decides.
    let sets = view.open_approvals().flat_map(|approval| approval.sets.values());
    for change in sets.flat_map(|set| &set.changes) {
        let untried =
            "; not verified: the connection is no Lakebase workspace, so no branch can be made";
        assert!(change.why.ends_with(untried), "{}", change.why);
    }
    let by = somebody();
    let approve = bench.engine.decide_approval((&run, None), None, Decision::Approved, (&by, "ok"));
    approve.await.unwrap();
    let mut outcome = bench.execute(&run).await;
    while outcome == Outcome::Waiting {
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(200))).await;
        outcome = bench.execute(&run).await;
    }
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.outputs["held"], true, "{:#}", view.outputs);
    let score = |name: &str| view.outputs[name].as_f64().unwrap();
    assert!(score("health_score_after") > score("health_score"), "{:#}", view.outputs);
    let now = "select string_agg(indexrelid::regclass::text, ' ' order by 1) from pg_index \
               where indrelid = 'public.o'::regclass and indisvalid";
    let names = harness::value::<String>(&endpoint, now).await;
    assert_eq!(names.split(' ').filter(|name| name.contains("o_a")).count(), 2, "{names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_advice_is_not_given_again() {
    let endpoint = harness::postgres().await.fresh_database("rejected").await;
    let setup = [
        "create table public.o (id int primary key, b int)",
        "insert into public.o select g, g from generate_series(1, 1000) as g",
        "create index o_b on public.o (b)",
        "create index o_b_twin on public.o (b)",
        "vacuum analyze",
    ];
    harness::execute(&endpoint, &setup).await;
    let state = tempfile::tempdir().unwrap();
    let bench = Bench::keeping(endpoint, Some(state.path()));
    let (run, outcome) = bench.run("index_review", &[("kinds", r#"["drop_duplicate"]"#)]).await;
    assert_eq!(outcome, Outcome::WaitingApproval, "{:#?}", bench.view(&run).await);
    let by = somebody();
    let reject = bench.engine.decide_approval((&run, None), None, Decision::Rejected, (&by, "no"));
    reject.await.unwrap();
    assert_eq!(bench.execute(&run).await, Outcome::Failed);

    let location = Location::folder(&state.path().join("history")).unwrap();
    let sql = "select status, reviewed_by, cast(reviewed_at as varchar) as reviewed_at \
               from index_recommendations where status in ('approved', 'rejected')";
    let answer = history::answer(&location, &Query::new(sql), &[], None).await.unwrap();
    let rows = answer.rows().unwrap();
    assert_eq!((rows.len(), &rows[0]["status"]), (1, &json!("rejected")), "{rows:?}");
    assert_eq!(rows[0]["reviewed_by"], "ann");
    assert!(rows[0]["reviewed_at"].is_string(), "{rows:?}");

    // The twin is still there, and nobody is asked about it any more.
    let (run, outcome) = bench.run("index_review", &[("kinds", r#"["drop_duplicate"]"#)]).await;
    let view = bench.view(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{view:#?}");
    assert_eq!(view.step("decide").unwrap().output["act"], false);
    let found = &view.step("analysis/duplicates").unwrap().output["recommendations"];
    assert_eq!(found[0]["status"], "rejected", "{found:#}");
}
