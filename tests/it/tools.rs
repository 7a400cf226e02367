//! The tools on a real, sick PostgreSQL 17: what they find, and what their changes do.

use std::time::Duration;

use lakeops::config::Settings;
use lakeops::engine::apply::{
    Applied, Applier as _, ApplyContext, ChangeKey, NoNotes, NoSecrets, SqlApplier, setup_changes,
};
use lakeops::kernel::kill::Unarmed;
use lakeops::kernel::{
    Change, ChangeSet, Clock as _, Direction, Failure, Operation, Recovery, Risk, RunId,
    Settlement, SystemClock, Target,
};
use lakeops::postgres::{Cluster, PgEndpoint, PgReader};
use lakeops::tools::tool::Settled;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinHandle;

use crate::harness::{Place, alone, connect, execute, postgres, until, value};

/// Tools at work on one database.
pub(crate) struct Bench {
    pub(crate) endpoint: PgEndpoint,
    pub(crate) settings: Settings,
}

impl Bench {
    pub(crate) async fn new(hint: &str) -> Self {
        let endpoint = postgres().await.fresh_database(hint).await;
        Self { endpoint, settings: Settings::default() }
    }

    /// On a server of its own. On the shared one a worker of autovacuum may look into the database while a
    /// transaction is open in another, and its snapshot then keeps dead rows that VACUUM should remove.
    async fn alone(name: &str) -> (Self, (Cluster, Place)) {
        let (place, server) = alone(name).await;
        (Self { endpoint: server.endpoint(), settings: Settings::default() }, (server, place))
    }

    /// The same database as another user.
    fn as_user(&self, user: &str) -> Self {
        Self { endpoint: self.endpoint.with_user(user, None), settings: self.settings.clone() }
    }

    pub(crate) fn reader(&self) -> PgReader {
        PgReader::new(self.endpoint.clone(), &self.settings.limits, "lakeops:test")
    }

    pub(crate) async fn read(&self, tool: &str, arguments: Value) -> Value {
        let reader = self.reader();
        let AnyTool::Read(tool) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        let output = tool.read(&self.context(&reader), arguments).await;
        reader.close().await;
        output.unwrap_or_else(|failure| panic!("{failure:?}")).value
    }

    async fn propose(&self, tool: &str, arguments: Value) -> Result<ChangeSet, Failure> {
        let reader = self.reader();
        let AnyTool::Write(tool) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        let set = tool.propose(&self.context(&reader), arguments).await;
        reader.close().await;
        set
    }

    fn context<'a>(&'a self, pg: &'a PgReader) -> ReadContext<'a> {
        static NOWHERE: Target = Target { project: None, branch: None, database: None };
        ReadContext::new(pg, &SystemClock, &self.settings, &NOWHERE)
    }

    /// Carries a set out by the engine's own applier, and lets the tool report.
    async fn carry_out(&self, tool: &str, set: &ChangeSet) -> Value {
        let mut settlements = Vec::new();
        for index in 0..set.changes.len() {
            settlements.push(self.settle(set, index).await.unwrap());
        }
        let settled: Vec<_> = set
            .changes
            .iter()
            .zip(&settlements)
            .map(|(change, settlement)| Settled { change, settlement: Some(settlement) })
            .collect();
        let AnyTool::Write(tool) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        tool.report(&settled).unwrap().value
    }

    async fn settle(&self, set: &ChangeSet, index: usize) -> Result<Settlement, Failure> {
        let change = &set.changes[index];
        let key = ChangeKey {
            run: RunId::new("0123456789abcdef"),
            step: "heal".to_owned(),
            set: set.digest.clone(),
            index: u32::try_from(index).unwrap(),
            direction: Direction::Do,
        };
        let applied = SqlApplier.apply(&self.apply_context(change, &key)).await?;
        Ok(match applied {
            Applied::Done(receipt) => Settlement::Applied { receipt },
            Applied::Moot => Settlement::Moot,
        })
    }

    fn apply_context<'a>(&'a self, change: &'a Change, key: &'a ChangeKey) -> ApplyContext<'a> {
        ApplyContext {
            key,
            change,
            operation: &change.operation,
            recovery: change.recovery,
            endpoint: Some(&self.endpoint),
            throw_away: false,
            expected: None,
            settings: &self.settings,
            step_timeout: Duration::from_mins(1),
            secrets: &NoSecrets,
            clock: &SystemClock,
            kill: &Unarmed,
            workspace: None,
            history: None,
            notes: &NoNotes,
            sessions: None,
            witness: None,
            progress: &|_| (),
        }
    }

    /// A session with a name, after some statements.
    pub(crate) async fn session(&self, application: &str, statements: &[&str]) -> Session {
        let endpoint = self.endpoint.with_application_name(application);
        let mut connection = connect(&endpoint).await;
        let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection);
        let pid: i32 = pid.await.unwrap();
        for statement in statements {
            run(&mut connection, statement).await.unwrap();
        }
        Session { pid, connection }
    }

    /// Waits until a query says true.
    pub(crate) async fn until(&self, query: &str) {
        until(&self.endpoint, query, Duration::from_mins(1)).await;
    }

    async fn is_alive(&self, pid: i32) -> bool {
        let query = format!("select exists (select from pg_stat_activity where pid = {pid})");
        value(&self.endpoint, &query).await
    }
}

pub(crate) struct Session {
    pub(crate) pid: i32,
    connection: PgConnection,
}

impl Session {
    /// Runs a statement that is expected to wait.
    pub(crate) fn wait_in_background(mut self, statement: &'static str) -> JoinHandle<()> {
        tokio::spawn(async move {
            // It ends when its turn comes or its session does.
            drop(run(&mut self.connection, statement).await);
        })
    }

    /// Runs a statement again and again, until the session is ended.
    fn repeat_in_background(mut self, statement: &'static str) -> JoinHandle<()> {
        tokio::spawn(async move { while run(&mut self.connection, statement).await.is_ok() {} })
    }
}

pub(crate) async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    statement.execute(connection).await.map(drop)
}

pub(crate) async fn pause(millis: u64) {
    SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(millis))).await;
}

/// A table with many rows of which two thirds were deleted; its counters are up to date.
pub(crate) async fn sick_table(bench: &Bench, name: &str, options: &str) {
    let statements = [
        format!("create table {name} (id int primary key, payload text, note int) {options}"),
        format!(
            "insert into {name} select g, repeat('x', 100), null from generate_series(1, 50000) g"
        ),
        "select pg_stat_force_next_flush()".to_owned(),
    ];
    let texts: Vec<&str> = statements.iter().map(String::as_str).collect();
    execute(&bench.endpoint, &texts).await;
    execute(&bench.endpoint, &[&format!("vacuum (analyze) {name}")]).await;
    let delete = format!("delete from {name} where id % 3 <> 0");
    execute(&bench.endpoint, &[&delete, "select pg_stat_force_next_flush()"]).await;
}

#[tokio::test]
async fn the_lock_tree_has_its_idle_root() {
    let bench = Bench::new("locks").await;
    execute(
        &bench.endpoint,
        &["create table t (a int primary key, b int)", "insert into t values (1, 1)"],
    )
    .await;
    let root = bench.session("root", &["begin", "update t set b = 2"]).await;
    let waits = |count: u32| {
        format!(
            "select count(*) >= {count} from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
    };
    let update = bench.session("update", &[]).await;
    let update_pid = update.pid;
    let mut background = vec![update.wait_in_background("update t set b = 3")];
    bench.until(&waits(1)).await;
    let alter = bench.session("alter", &[]).await;
    background.push(alter.wait_in_background("alter table t add c int"));
    bench.until(&waits(2)).await;
    let select = bench.session("select", &[]).await;
    let select_pid = select.pid;
    background.push(select.wait_in_background("select * from t"));
    bench.until(&waits(3)).await;
    pause(50).await;

    let output = bench.read("monitor_connections", json!({})).await;
    let ours: Vec<&Value> = output["blockers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|blocker| blocker["database"] == bench.endpoint.database())
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    let blocker = ours[0];
    assert_eq!(blocker["pid"], root.pid);
    assert_eq!(blocker["application"], "root");
    assert_eq!((&blocker["blocked"], &blocker["depth"]), (&json!(3), &json!(3)));
    assert_eq!(blocker["idle_in_transaction"], true);
    assert_eq!(blocker["holds_xmin"], true);
    assert_eq!(blocker["query"], "update t set b = 2");
    assert!(blocker["longest_wait_seconds"].as_f64().unwrap() > 0.0);
    let level = |pid: i32| {
        let waiting = output["waiting"].as_array().unwrap();
        waiting.iter().find(|waiter| waiter["pid"] == pid).unwrap()["level"].clone()
    };
    assert_eq!((level(update_pid), level(select_pid)), (json!(1), json!(3)));
    let later = bench.read("monitor_connections", json!({"min_wait": "1h"})).await;
    assert_eq!(later["blockers"], json!([]));
    drop(root);
    for task in background {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_prepared_transaction_is_a_root() {
    let place = Place::new();
    let options = place.options("prepared").with_setting("max_prepared_transactions", "5");
    let installation = postgres().await.installation();
    let cluster =
        place.local.start(installation, &options, &lakeops::postgres::Quiet).await.unwrap();
    let bench = Bench { endpoint: cluster.endpoint(), settings: Settings::default() };
    execute(
        &bench.endpoint,
        &[
            "create table t (a int)",
            "insert into t values (1)",
            "begin; update t set a = 2; prepare transaction 'left behind'",
        ],
    )
    .await;
    let waiter = bench.session("waiter", &[]).await;
    let pid = waiter.pid;
    let task = waiter.wait_in_background("update t set a = 3");
    bench
        .until("select exists (select from pg_locks where not granted and waitstart is not null)")
        .await;
    let output = bench.read("monitor_connections", json!({})).await;
    let blocker = &output["blockers"][0];
    assert_eq!((&blocker["pid"], &blocker["prepared"]), (&json!(0), &json!("left behind")));
    assert_eq!(output["waiting"][0]["pid"], pid);
    let holders = bench.read("identify_tables_needing_vacuum", json!({})).await;
    assert_eq!(holders["horizon_holders"][0]["kind"], "prepared transaction");
    execute(&bench.endpoint, &["rollback prepared 'left behind'"]).await;
    task.await.unwrap();
    let output = bench.read("monitor_connections", json!({})).await;
    assert_eq!(output["blockers"], json!([]));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_writer_elsewhere_is_a_possible_holder() {
    let (bench, other) = (Bench::new("here").await, Bench::new("elsewhere").await);
    execute(&other.endpoint, &["create table t (a int)"]).await;
    let writer = other.session("writer", &["begin", "insert into t values (1)"]).await;
    let reader = other.session("reader", &["begin", "select 1 from t"]).await;
    let output = bench.read("identify_tables_needing_vacuum", json!({})).await;
    let holders = output["horizon_holders"].as_array().unwrap();
    let of = |pid: i32| holders.iter().find(|holder| holder["pid"] == pid);
    assert_eq!(of(writer.pid).unwrap()["kind"], "session elsewhere");
    assert!(of(reader.pid).is_none(), "it has written nothing");
    let home = other.read("identify_tables_needing_vacuum", json!({})).await;
    let holders = home["horizon_holders"].as_array().unwrap();
    let kind = &holders.iter().find(|holder| holder["pid"] == writer.pid).unwrap()["kind"];
    assert_eq!(kind, "session");
}

#[tokio::test]
async fn the_idle_transaction_ends_and_nobody_else() {
    let bench = Bench::new("idle").await;
    execute(
        &bench.endpoint,
        &["create role idle_app login", "create table t (a int)", "grant all on t to idle_app"],
    )
    .await;
    let app = bench.as_user("idle_app");
    let in_transaction = app.session("web", &["begin", "insert into t values (1)"]).await;
    let spared = app.session("etl-7", &["begin", "insert into t values (2)"]).await;
    let idle = app.session("pool", &[]).await;
    let busy = app.session("busy", &[]).await;
    let busy_pid = busy.pid;
    let task = busy.wait_in_background("select pg_sleep(600)");
    let superuser = bench.session("admin", &["begin", "select 1"]).await;
    let ours = [&in_transaction, &spared, &idle, &superuser].map(|session| session.pid);
    let mut pids = ours.to_vec();
    pids.push(busy_pid);
    let active = format!("select state = 'active' from pg_stat_activity where pid = {busy_pid}");
    bench.until(&active).await;
    pause(30).await;

    let arguments = json!({
        "max_idle": null, "max_idle_in_transaction": "20ms", "sessions": pids,
        "exclude_applications": ["etl*"],
    });
    let set = bench.propose("terminate_idle_connections", arguments).await.unwrap();
    assert_eq!(set.changes.len(), 1, "{set:?}");
    assert_eq!(set.changes[0].risk, Risk::Medium);
    let report = bench.carry_out("terminate_idle_connections", &set).await;
    assert_eq!(report["ended"], 1, "{report}");
    assert_eq!(report["sessions"][0]["pid"], in_transaction.pid);
    assert_eq!(report["sessions"][0]["gone"], true);
    assert!(!bench.is_alive(in_transaction.pid).await);
    for pid in [spared.pid, idle.pid, superuser.pid, busy_pid] {
        assert!(bench.is_alive(pid).await, "{pid} is gone");
    }
    let rows: i64 = value(&bench.endpoint, "select count(*) from t").await;
    assert_eq!(rows, 0, "its transaction was rolled back");

    // The same set again: the session is gone, and whoever has its number now is not hit.
    let again = bench.carry_out("terminate_idle_connections", &set).await;
    assert_eq!((&again["ended"], &again["sessions"][0]["ending"]), (&json!(0), &json!("moot")));
    let arguments = json!({"max_idle": "20ms", "sessions": [idle.pid]});
    let set = bench.propose("terminate_idle_connections", arguments).await.unwrap();
    assert_eq!(set.changes[0].risk, Risk::Low);
    let end = format!("select pg_terminate_backend({busy_pid})");
    execute(&bench.endpoint, &[&end]).await;
    task.await.unwrap();
}

#[tokio::test]
async fn a_session_that_got_the_same_number_is_left_alone() {
    let bench = Bench::new("reuse").await;
    execute(&bench.endpoint, &["create role reuse_app login"]).await;
    let app = bench.as_user("reuse_app");
    let session = app.session("web", &["begin"]).await;
    pause(20).await;
    let arguments = json!({"max_idle_in_transaction": "10ms", "sessions": [session.pid]});
    let set = bench.propose("terminate_idle_connections", arguments).await.unwrap();
    let mut other = set.changes[0].clone();
    // As if the process had been another one's when it was looked at, and the guard had let it pass.
    let Operation::Sql { statement, .. } = &mut other.operation else { panic!("{other:?}") };
    statement.binds[1] = lakeops::kernel::Bind::Text("2001-01-01T00:00:00.000001+00:00".to_owned());
    other.guard = None;
    let report = bench.carry_out("terminate_idle_connections", &ChangeSet::new(vec![other])).await;
    assert_eq!((&report["ended"], &report["sessions"][0]["gone"]), (&json!(0), &json!(false)));
    assert!(bench.is_alive(session.pid).await);
    // So is a session that works again.
    let Session { pid, connection } = session;
    let worker = Session { pid, connection };
    let task = worker.wait_in_background("select pg_sleep(600)");
    let active = format!("select state = 'active' from pg_stat_activity where pid = {pid}");
    bench.until(&active).await;
    let report = bench.carry_out("terminate_idle_connections", &set).await;
    assert_eq!(report["sessions"][0]["ending"], "moot");
    assert!(bench.is_alive(pid).await);
    execute(&bench.endpoint, &[&format!("select pg_terminate_backend({pid})")]).await;
    task.await.unwrap();
}

#[tokio::test]
async fn vacuum_is_proposed_by_the_formula_and_measured() {
    let (bench, _server) = Bench::alone("vacuum").await;
    sick_table(&bench, "\"Sick one\"", "with (autovacuum_enabled = false)").await;
    sick_table(&bench, "tolerant", "with (autovacuum_vacuum_scale_factor = 0.9, autovacuum_analyze_scale_factor = 0.9, autovacuum_enabled = false)").await;
    execute(&bench.endpoint, &["create table fine (a int)"]).await;

    let found = bench.read("identify_tables_needing_vacuum", json!({"bloat_size": "1MB"})).await;
    assert_eq!((&found["checked"], &found["due"]), (&json!(3), &json!(1)), "{found}");
    assert_eq!(found["rewrite_candidates"], 2);
    let table = |name: &str| {
        let tables = found["tables"].as_array().unwrap();
        tables.iter().find(|table| table["table"] == name).unwrap_or_else(|| panic!("{found}"))
    };
    let sick = table("public.\"Sick one\"");
    assert_eq!((&sick["verdict"], &sick["autovacuum_off"]), (&json!("vacuum"), &json!(true)));
    assert_eq!(sick["dead_rows"], 33_334);
    let bloat = sick["bloat_ratio"].as_f64().unwrap();
    assert!((0.6..0.7).contains(&bloat), "{bloat}");
    assert_eq!(table("public.tolerant")["verdict"], "rewrite");

    let set = bench.propose("schedule_vacuum_analyze", json!({})).await.unwrap();
    let texts: Vec<String> =
        set.changes.iter().map(|change| change.operation.to_string()).collect();
    assert_eq!(texts, ["vacuum (analyze) \"public\".\"Sick one\""]);
    assert_eq!((set.risk(), set.changes[0].recovery), (Risk::Low, Recovery::Repeatable));
    let report = bench.carry_out("schedule_vacuum_analyze", &set).await;
    assert_eq!((&report["vacuumed"], &report["dead_rows_removed"]), (&json!(1), &json!(33_334)));
    let done = &report["tables"][0];
    assert_eq!((&done["dead_rows_before"], &done["dead_rows_after"]), (&json!(33_334), &json!(0)));
    assert!(done["duration_ms"].is_u64());
    let set = bench.propose("schedule_vacuum_analyze", json!({})).await.unwrap();
    assert!(set.is_empty());
}

#[tokio::test]
async fn vacuum_full_shrinks_the_table() {
    let (bench, _server) = Bench::alone("full").await;
    sick_table(&bench, "public.bloated", "with (autovacuum_enabled = false)").await;
    execute(&bench.endpoint, &["vacuum (analyze) bloated"]).await;
    let found = bench.read("identify_tables_needing_vacuum", json!({"bloat_size": "1MB"})).await;
    let table = &found["tables"][0];
    assert_eq!(
        (&table["verdict"], &table["bloat_source"]),
        (&json!("rewrite"), &json!("estimate"))
    );
    let estimate = table["bloat_ratio"].as_f64().unwrap();

    execute(&bench.endpoint, &["create schema ext", "create extension pgstattuple schema ext"])
        .await;
    let found = bench.read("identify_tables_needing_vacuum", json!({"bloat_size": "1MB"})).await;
    let table = &found["tables"][0];
    assert_eq!(table["bloat_source"], "pgstattuple", "{found}");
    let measured = table["bloat_ratio"].as_f64().unwrap();
    assert!((estimate - measured).abs() < 0.05, "{estimate} and {measured}");

    let arguments = json!({"tables": ["public.bloated"]});
    let set = bench.propose("schedule_vacuum_full", arguments.clone()).await.unwrap();
    assert_eq!(set.risk(), Risk::High);
    let claimed = set.changes[0].facts["estimated_free_bytes"].as_i64().unwrap();
    let report = bench.carry_out("schedule_vacuum_full", &set).await;
    let reclaimed = report["bytes_reclaimed"].as_i64().unwrap();
    assert!(reclaimed > 4_000_000, "{report}");
    assert!(claimed > reclaimed / 2 && claimed < reclaimed * 2, "{claimed} and {reclaimed}");

    // Another table of the name is not the one that was approved.
    let set = bench.propose("schedule_vacuum_full", arguments).await.unwrap();
    execute(&bench.endpoint, &["drop table bloated", "create table bloated (a int)"]).await;
    let report = bench.carry_out("schedule_vacuum_full", &set).await;
    assert_eq!(report["tables"][0]["ended"], "moot");
}

#[tokio::test]
async fn the_lock_of_a_rewrite_is_waited_for_only_briefly() {
    let bench = Bench::new("briefly").await;
    execute(&bench.endpoint, &["create table t (a int)", "insert into t values (1)"]).await;
    let reader = bench.session("reader", &["begin", "select * from t"]).await;
    let arguments = json!({"tables": ["public.t"], "lock_timeout": "50ms"});
    let set = bench.propose("schedule_vacuum_full", arguments).await.unwrap();
    let failure = bench.settle(&set, 0).await.unwrap_err();
    assert_eq!(failure.class, lakeops::kernel::RetryClass::LockTimeout, "{failure:?}");
    // Neither does looking at tables wait for whoever has one for himself alone.
    drop(reader);
    let locker = bench.session("locker", &["begin", "lock table t"]).await;
    let found = bench.read("identify_tables_needing_vacuum", json!({"tables": ["public.t"]})).await;
    assert_eq!(found["tables"][0]["table"], "public.t");
    drop(locker);
}

#[tokio::test]
async fn an_old_snapshot_makes_vacuum_useless_and_is_named() {
    let (bench, _server) = Bench::alone("snapshot").await;
    execute(&bench.endpoint, &["create table other (a int)"]).await;
    let holder =
        bench.session("holder", &["begin isolation level repeatable read", "select 1"]).await;
    sick_table(&bench, "held", "with (autovacuum_enabled = false)").await;
    let old = json!({"old_after": "1ms"});
    let found = bench.read("identify_tables_needing_vacuum", old.clone()).await;
    let table = &found["tables"][0];
    assert_eq!((&table["table"], &table["verdict"]), (&json!("public.held"), &json!("unblock")));
    assert_eq!(table["blocked_by"], json!([format!("session {}", holder.pid)]));
    let failure = bench.propose("schedule_vacuum_analyze", old.clone()).await.unwrap_err();
    assert_eq!(failure.code, "vacuum::useless");

    let forced = json!({"old_after": "1ms", "even_if_blocked": true});
    let set = bench.propose("schedule_vacuum_analyze", forced).await.unwrap();
    let report = bench.carry_out("schedule_vacuum_analyze", &set).await;
    assert_eq!(report["dead_rows_removed"], 0, "useless indeed: {report}");
    drop(holder);
    bench
        .until("select not exists (select from pg_stat_activity where application_name = 'holder')")
        .await;
    let named = json!({"tables": ["public.held"], "old_after": "1ms"});
    let set = bench.propose("schedule_vacuum_analyze", named).await.unwrap();
    let report = bench.carry_out("schedule_vacuum_analyze", &set).await;
    assert_eq!(report["dead_rows_removed"], 33_334);
}

#[tokio::test]
async fn an_ordinary_user_gets_what_it_may_see_and_the_grant_for_the_rest() {
    let bench = Bench::new("unprivileged").await;
    execute(
        &bench.endpoint,
        &[
            "create role nobody_special login",
            "create role victim login",
            "create table t (a int)",
            "insert into t select generate_series(1, 100)",
            "analyze t",
        ],
    )
    .await;
    let victim = bench.as_user("victim").session("victim", &["begin"]).await;
    let user = bench.as_user("nobody_special");
    let connections = user.read("monitor_connections", json!({})).await;
    assert!(connections["states"]["unknown"].as_u64().unwrap() >= 1, "{connections}");
    assert_eq!(connections["not_measured"][0]["needs"], "grant pg_read_all_stats to current_user");
    let health = user.read("monitor_system_health", json!({"depth": "live"})).await;
    assert_eq!(health["metrics"]["slow_query_seconds"]["level"], "not_measured");
    assert_eq!(health["metrics"]["connection_utilization"]["level"], "normal");

    let ages = user.read("check_txid_wraparound_risk", json!({})).await;
    assert_eq!(ages["members_used"], json!(null), "{ages}");
    assert_eq!(ages["not_measured"][0]["what"], "members of multixacts");

    let tables = user.read("identify_tables_needing_vacuum", json!({"tables": ["public.t"]})).await;
    assert_eq!(tables["tables"][0]["bloat_source"], "not_measured");
    assert_eq!(tables["not_measured"][0]["what"], "bloat");
    for tool in ["schedule_vacuum_analyze", "schedule_vacuum_full"] {
        let failure = user.propose(tool, json!({"tables": ["public.t"]})).await.unwrap_err();
        assert_eq!(failure.code, "vacuum::not_permitted");
        assert!(failure.help.unwrap().contains("grant maintain on public.t"));
    }

    let arguments = json!({"max_idle_in_transaction": "10ms", "sessions": [victim.pid]});
    let failure = user.propose("terminate_idle_connections", arguments.clone()).await.unwrap_err();
    assert_eq!(failure.code, "terminate_idle_connections::not_visible");
    execute(&bench.endpoint, &["grant pg_read_all_stats to nobody_special"]).await;
    pause(20).await;
    let failure = user.propose("terminate_idle_connections", arguments.clone()).await.unwrap_err();
    assert_eq!(failure.code, "terminate_idle_connections::not_permitted");
    execute(&bench.endpoint, &["grant pg_signal_backend to nobody_special"]).await;
    let set = user.propose("terminate_idle_connections", arguments).await.unwrap();
    let report = user.carry_out("terminate_idle_connections", &set).await;
    assert_eq!(report["ended"], 1);
}

#[tokio::test]
async fn health_is_measured_with_rates() {
    // The blocks are those of all databases: nobody else may read some.
    let (bench, _server) = Bench::alone("health").await;
    execute(
        &bench.endpoint,
        &[
            "create table t (id int primary key, payload text)",
            "insert into t select g, repeat('x', 100) from generate_series(1, 20000) g",
            "create sequence narrow",
            "create table fed (id int default nextval('narrow'))",
            "select setval('narrow', 2100000000)",
        ],
    )
    .await;
    let load = bench.session("load", &[]).await;
    let load_pid = load.pid;
    // A session tells what it did between two messages only, and without being asked once in a second.
    let task = load.repeat_in_background(
        "select count(*) from t; select pg_sleep(0.001), pg_stat_force_next_flush()",
    );
    bench
        .until("select seq_scan + idx_scan > 1 from pg_stat_user_tables where relname = 't'")
        .await;
    let health = bench.read("monitor_system_health", json!({"interval": "1500ms"})).await;
    execute(&bench.endpoint, &[&format!("select pg_terminate_backend({load_pid})")]).await;
    task.await.unwrap();

    let metric = |name: &str| &health["metrics"][name];
    assert!(metric("cache_hit_ratio")["value"].as_f64().unwrap() > 0.9, "{health}");
    assert!(metric("connection_utilization")["value"].as_f64().unwrap() > 0.0);
    assert_eq!(metric("sequence_used")["level"], "critical");
    assert_eq!(metric("sequence_used")["detail"], "sequence public.narrow");
    assert_eq!(health["sequences"][0]["end_value"], 2_147_483_647);
    assert_eq!(health["sequences"][0]["column_type"], "integer");
    let breaches = health["breaches"].as_array().unwrap();
    assert!(breaches.contains(&json!("sequence_used")), "{breaches:?}");
    assert_eq!(health["level"], "critical");
    assert!(health["window_seconds"].as_f64().unwrap() >= 1.4);
    assert!(health["sample"]["commits"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn sql_of_the_author_runs_exactly_once() {
    let bench = Bench::new("execute").await;
    execute(&bench.endpoint, &["create table t (a int, b text, c jsonb)"]).await;
    let setup = ChangeSet::new(setup_changes());
    for index in 0..setup.changes.len() {
        bench.settle(&setup, index).await.unwrap();
    }
    let arguments = json!({"statements": [
        {"sql": "insert into t values ($1, $2, $3) returning a, b", "binds": [7, "x", {"k": [1]}]},
        "vacuum t",
        "create index concurrently t_a on t (a)",
    ]});
    let set = bench.propose("execute_sql", arguments).await.unwrap();
    let report = bench.carry_out("execute_sql", &set).await;
    assert_eq!(report["statements"][0]["result"], json!([{"a": 7, "b": "x"}]), "{report}");
    assert_eq!(report["statements"][2]["ended"], "applied");
    // The key row makes the second time a look at the first.
    let again = bench.settle(&set, 0).await.unwrap();
    let Settlement::Applied { receipt } = again else { panic!("{again:?}") };
    assert!(receipt.recovered);
    let rows: i64 = value(&bench.endpoint, "select count(*) from t").await;
    assert_eq!(rows, 1);
}
