//! Incidents staged on a real server: each is noticed, and its cause is named first.

use std::time::{Duration, Instant};

use lakeops::config::Settings;
use lakeops::config::settings::Threshold;
use lakeops::journal::Outcome;
use lakeops::kernel::{Secret, SystemClock, Target};
use lakeops::postgres::{PgEndpoint, Quiet};
use lakeops::tools::rules::RuleTexts;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Place, execute, postgres};
use crate::tools::{Bench, Session, pause, sick_table};
use crate::workflows::Bench as Workflows;

const PASSWORD: &str = "the-application-0123";

/// A server of its own: incidents are a matter of the whole server.
struct Ward {
    bench: Bench,
    /// What answers incidents by the shipped workflows, where they are answered.
    answers: Option<Workflows>,
    /// What each took, as a row of a table.
    rows: Vec<String>,
    /// Who makes trouble at present.
    sessions: Vec<Session>,
    waiting: Vec<JoinHandle<()>>,
}

impl Ward {
    fn new(endpoint: PgEndpoint) -> Self {
        let mut settings = Settings::default();
        // The incidents of a test are small and young.
        let levels = [
            ("slot_retained_bytes", 1e6, 4e6),
            ("lock_wait_seconds", 0.1, 60.0),
            ("slow_query_seconds", 0.3, 60.0),
        ];
        for (metric, warning, critical) in levels {
            settings.thresholds.insert(metric.to_owned(), Threshold { warning, critical });
        }
        Self {
            bench: Bench { endpoint, settings },
            answers: None,
            rows: Vec::new(),
            sessions: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The same, whose incidents are answered.
    fn answered(endpoint: PgEndpoint) -> Self {
        let ward = Self::new(endpoint.clone());
        let answers = Workflows::on(endpoint).with(ward.bench.settings.clone());
        Self { answers: Some(answers), ..ward }
    }

    /// Looks as the server does, answers the event of the metric, and looks again; notes what that took.
    async fn answer(&mut self, incident: &str, metric: &str) {
        let Some(answers) = &self.answers else { return };
        let begin = Instant::now();
        let look = answers.run("watch_health_full", &[]).await;
        let noticed = begin.elapsed();
        assert_eq!(look.1, Outcome::Succeeded);
        let firing = answers.view(&look.0).await.outputs["firing"].clone();
        assert!(firing.as_array().unwrap().contains(&json!(metric)), "{incident}: {firing}");
        let (run, outcome) = answers.run("incident_response", &[("metric", metric)]).await;
        let view = answers.view(&run).await;
        let failed: Vec<_> = view.steps.iter().filter(|step| step.failure.is_some()).collect();
        assert_eq!(outcome, Outcome::Succeeded, "{incident}: {failed:#?}");
        let ended = begin.elapsed();
        let outputs = view.outputs;
        let again = answers.run("watch_health_full", &[]).await.0;
        let verified = begin.elapsed();
        let firing = answers.view(&again).await.outputs["firing"].clone();
        let is_over = !firing.as_array().unwrap().contains(&json!(metric));
        let healed = outputs["status"] == "healed";
        assert!(is_over || !healed, "{incident}: {firing}");
        let word = |field: &str| outputs[field].as_str().unwrap_or("-").replace('_', " ");
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        self.rows.push(format!(
            "| {incident} | `{metric}` | {} | {} | {} | {} | {} |",
            seconds(noticed),
            word("cause"),
            word("status"),
            seconds(ended),
            if healed { seconds(verified) } else { "a person".to_owned() },
        ));
    }

    async fn read(&self, tool: &str, arguments: Value) -> Value {
        static HERE: Target = Target { project: None, branch: None, database: None };
        let AnyTool::Read(tool) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        let reader = self.bench.reader();
        let rules = RuleTexts::of(tool.meta(), |_| None);
        let cx = ReadContext {
            rules: &rules,
            ..ReadContext::new(&reader, &SystemClock, &self.bench.settings, &HERE)
        };
        let output = tool.read(&cx, arguments).await.unwrap_or_else(|error| panic!("{error:?}"));
        reader.close().await;
        output.value
    }

    /// What is found once an alert of `metric` fires, with how long it took to notice and to name it.
    async fn diagnosis(&mut self, incident: &str, metric: &str) -> Value {
        let begin = Instant::now();
        let health = self.read("monitor_system_health", json!({"interval": "100ms"})).await;
        let metrics = json!({"metrics": health["metrics"]});
        let alerts = self.read("evaluate_alert_thresholds", metrics).await;
        let detected = begin.elapsed();
        let firing = alerts["firing"].as_array().unwrap();
        assert!(firing.contains(&json!(metric)), "{incident}: {firing:?}");
        let arguments = json!({
            "metric": metric, "interval": "100ms", "long_query": "300ms", "patience": "100ms",
        });
        let diagnosis = self.read("diagnose_root_cause", arguments).await;
        let diagnosed = begin.elapsed();
        println!(
            "{incident}: noticed in {detected:?}, diagnosed in {diagnosed:?}, {}",
            alerts["firing"]
        );
        Box::pin(self.answer(incident, metric)).await;
        diagnosis
    }

    /// Lets an incident grow old, as far as it has to for whom it is staged, in milliseconds.
    async fn age(&self, named: u64, answered: u64) {
        pause(if self.answers.is_some() { answered } else { named }).await;
    }

    /// A session of the application: those of superusers are never ended.
    async fn enter(&mut self, name: &str, statements: &[&str]) -> i32 {
        let password = Secret::new(PASSWORD.to_owned());
        let endpoint = self.bench.endpoint.with_user("app", Some(&password));
        let bench = Bench { endpoint, settings: self.bench.settings.clone() };
        let session = bench.session(name, statements).await;
        let pid = session.pid;
        self.sessions.push(session);
        pid
    }

    /// A session that runs a statement which does not come back.
    async fn stays(&mut self, name: &str, statement: &'static str) -> i32 {
        let session = self.bench.session(name, &[]).await;
        let pid = session.pid;
        self.waiting.push(session.wait_in_background(statement));
        let busy = format!("select state = 'active' from pg_stat_activity where pid = {pid}");
        self.bench.until(&busy).await;
        pause(20).await;
        pid
    }

    /// Everybody goes, and what they left is dropped.
    async fn clear(&mut self, statements: &[&str]) {
        self.sessions.clear();
        let others = "from pg_stat_activity \
            where backend_type = 'client backend' and pid <> pg_backend_pid()";
        execute(&self.bench.endpoint, &[&format!("select pg_terminate_backend(pid) {others}")])
            .await;
        self.bench.until(&format!("select not exists (select {others})")).await;
        for task in self.waiting.drain(..) {
            task.await.unwrap();
        }
        execute(&self.bench.endpoint, statements).await;
    }
}

#[track_caller]
fn first(diagnosis: &Value, cause: &str) -> Value {
    let causes = diagnosis["causes"].as_array().unwrap();
    let ranking: Vec<String> =
        causes.iter().map(|found| format!("{} {}", found["cause"], found["score"])).collect();
    assert_eq!(diagnosis["cause"], cause, "{ranking:?} {diagnosis:#}");
    assert!(!causes[0]["evidence_for"].as_array().unwrap().is_empty(), "{diagnosis:#}");
    causes[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_staged_incident_has_the_right_first_cause() {
    Box::pin(stage_all(Ward::new)).await;
}

/// Each is answered by the shipped workflows, one after the other, as the server would begin them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints the table of the README; takes a minute"]
async fn the_times_of_every_staged_incident() {
    let ward = Box::pin(stage_all(Ward::answered)).await;
    println!(
        "| incident | metric | look | first cause | outcome | answered | over |\n\
         | --- | --- | ---: | --- | --- | ---: | ---: |\n{}",
        ward.rows.join("\n")
    );
    assert_eq!(ward.rows.len(), 8);
}

async fn stage_all(make: impl FnOnce(PgEndpoint) -> Ward) -> Ward {
    let place = Place::new();
    let options = place
        .options("ward")
        .with_setting("max_connections", "23")
        .with_setting("autovacuum", "off")
        .with_setting("wal_level", "logical");
    let installation = postgres().await.installation();
    let cluster = place.local.start(installation, &options, &Quiet).await.unwrap();
    let mut ward = make(cluster.endpoint());
    let setup = [
        "create table t (a int primary key, b int)",
        "insert into t values (1, 1), (2, 2)",
        &format!("create role app login password '{PASSWORD}'"),
        "grant all on t to app",
    ];
    execute(&ward.bench.endpoint, &setup).await;

    let diagnosis = ward.read("diagnose_root_cause", json!({"interval": "100ms"})).await;
    assert_eq!((&diagnosis["cause"], &diagnosis["causes"]), (&json!("unknown"), &json!([])));

    let root = ward.enter("web", &["begin", "update t set b = 2 where a = 1"]).await;
    ward.stays("worker", "update t set b = 3 where a = 1").await;
    ward.stays("worker", "update t set b = 4 where a = 1").await;
    // Who has been idle for less than some seconds is not ended.
    ward.age(150, 6_000).await;
    let cause = first(
        &ward.diagnosis("idle-in-transaction blocker", "lock_wait_seconds").await,
        "idle_transaction_blocks",
    );
    assert_eq!(cause["object"], format!("session {root}"));
    assert_eq!(cause["remedy"]["arguments"]["sessions"], json!([root]));
    assert_eq!(cause["remedy"]["risk"], "low");
    ward.clear(&[]).await;

    ward.stays("report", "select count(*), pg_sleep(600) from t").await;
    let alter = ward.stays("deploy", "alter table t add c int").await;
    ward.stays("web", "select * from t").await;
    ward.stays("web", "select * from t where a = 2").await;
    pause(300).await;
    let cause = first(
        &ward.diagnosis("lock queue behind DDL", "lock_wait_seconds").await,
        "lock_queue_behind_ddl",
    );
    assert_eq!(cause["object"], format!("session {alter}"));
    assert_eq!(cause["remedy"]["action"], "escalate");
    ward.clear(&[]).await;

    let runaway = ward.stays("etl", "select count(*) from generate_series(1, 1000000000000)").await;
    // What answers alerts calls a statement long after half a minute.
    ward.age(400, 31_000).await;
    let cause =
        first(&ward.diagnosis("runaway query", "slow_query_seconds").await, "runaway_query");
    assert_eq!(cause["object"], format!("session {runaway}"));
    ward.clear(&[]).await;

    sick_table(&ward.bench, "storm", "").await;
    let cause =
        first(&ward.diagnosis("dead-tuple storm", "dead_tuple_ratio").await, "dead_rows_pile_up");
    assert_eq!(cause["remedy"]["arguments"], json!({"tables": ["public.storm"]}));
    ward.clear(&["drop table storm"]).await;

    let snapshot = &["begin isolation level repeatable read", "select 1"];
    let holder = ward.enter("analyst", snapshot).await;
    sick_table(&ward.bench, "held", "").await;
    // What answers alerts names a snapshot of some seconds first.
    ward.age(150, 6_000).await;
    let diagnosis = ward.diagnosis("horizon held back", "dead_tuple_ratio").await;
    let cause = first(&diagnosis, "horizon_held_back");
    assert_eq!(cause["object"], format!("session {holder}"));
    let behind = diagnosis["causes"].as_array().unwrap();
    let dead = behind.iter().find(|found| found["cause"] == "dead_rows_pile_up").unwrap();
    assert_eq!(dead["remedy"]["action"], "escalate", "VACUUM would be in vain");
    assert!(!dead["evidence_against"].as_array().unwrap().is_empty());
    ward.clear(&["drop table held"]).await;

    for _ in 0..18 {
        ward.enter("leaky", &[]).await;
    }
    let cause = first(
        &ward.diagnosis("connection flood", "connection_utilization").await,
        "connection_flood",
    );
    assert_eq!(cause["object"], "leaky");
    ward.clear(&[]).await;

    let sequence = [
        "create sequence narrow",
        "create table fed (id int default nextval('narrow'))",
        "select setval('narrow', 2100000000)",
    ];
    execute(&ward.bench.endpoint, &sequence).await;
    let cause =
        first(&ward.diagnosis("sequence near its end", "sequence_used").await, "sequence_near_end");
    assert_eq!(cause["object"], "sequence public.narrow");
    ward.clear(&["drop table fed", "drop sequence narrow"]).await;

    let slot = [
        "select pg_create_physical_replication_slot('forgotten', true)",
        "create table wal as select repeat('x', 900) from generate_series(1, 6000)",
    ];
    execute(&ward.bench.endpoint, &slot).await;
    let cause =
        first(&ward.diagnosis("slot holding WAL", "slot_retained_bytes").await, "slot_holds_wal");
    assert_eq!(cause["object"], "slot forgotten");
    cluster.stop().await.unwrap();
    ward
}
