//! Migrations on a real server, as a role that is no superuser: once each, never a queue behind them,
//! and what others changed is noticed.

use std::time::Duration;

use lakeops::config::Settings;
use lakeops::journal::Outcome;
use lakeops::journal::event::Compensation;
use lakeops::kernel::{
    ChangeSet, Clock as _, Failure, Inverse, Operation, Recovery, Risk, SystemClock, Target,
};
use lakeops::plan::Plan;
use lakeops::plan::document::PlannedStep;
use lakeops::postgres::{PgEndpoint, PgReader};
use lakeops::tools::rules::RuleTexts;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};

use super::kit::{Kit, plan, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{connect, execute, postgres, value};

fn migration(version: &str, sql: &str) -> Value {
    json!({ "version": version, "name": "x", "sql": sql })
}

fn with_undo(version: &str, sql: &str, down: &str) -> Value {
    json!({ "version": version, "name": "x", "sql": sql, "down": down })
}

fn migrate(migrations: &[Value]) -> PlannedStep {
    let with = json!({ "migrations": { "list": migrations }, "lock_timeout": "300ms" });
    let mut migrate = step("migrate", &[], tool("apply_schema_migration", with));
    // It waits briefly for others, and a busy machine lets them take their time.
    migrate.retry.max_attempts = 40;
    migrate
}

fn migrating(migrations: &[Value]) -> Plan {
    plan(vec![migrate(migrations)])
}

async fn history(endpoint: &PgEndpoint) -> String {
    value(
        endpoint,
        "select coalesce(string_agg(version, ',' order by version), '') from lakeops.schema_migration",
    )
    .await
}

/// What the tool proposes on a target.
async fn propose(
    endpoint: &PgEndpoint,
    target: &Target,
    arguments: Value,
) -> Result<ChangeSet, Failure> {
    let settings = Settings::default();
    let reader = PgReader::new(endpoint.clone(), &settings.limits, "lakeops:test");
    let AnyTool::Write(tool) = Catalog::builtin().find("apply_schema_migration").unwrap() else {
        panic!("it writes")
    };
    let rules = RuleTexts::of(tool.meta(), |_| None);
    let context =
        ReadContext { rules: &rules, ..ReadContext::new(&reader, &SystemClock, &settings, target) };
    let proposed = tool.propose(&context, arguments).await;
    reader.close().await;
    proposed
}

#[tokio::test]
async fn a_file_is_one_transaction_and_happens_once() {
    let endpoint = postgres().await.owned_database("migrate_once").await;
    let kit = Kit::new(endpoint.clone());
    let first = migration("1", "create table t (a int); insert into t values (1);");
    let (run, outcome) = kit.run(&migrating(std::slice::from_ref(&first))).await;
    assert_eq!(outcome, Outcome::Succeeded);
    let output = kit.output(&run, "migrate").await;
    assert_eq!(output["applied"], 1, "{output}");
    assert_eq!(output["migrations"][0]["class"], "safe");
    assert_eq!(
        value::<String>(&endpoint, "select run from lakeops.schema_migration").await,
        run.as_str()
    );
    let by: String = value(&endpoint, "select applied_by from lakeops.schema_migration").await;
    assert!(by.starts_with("owner_of_"), "{by}");

    // What is there is not proposed again; what fails leaves nothing of its file.
    let broken = migration("2", "insert into t values (2); insert into nowhere values (3);");
    let (run, outcome) = kit.run(&migrating(&[first.clone(), broken])).await;
    assert_eq!(outcome, Outcome::Failed);
    let (_, code) = kit.ended(&run, "migrate").await;
    assert_eq!(code, "postgres::no_such_table");
    assert_eq!(history(&endpoint).await, "1");
    assert_eq!(value::<i64>(&endpoint, "select count(*) from t").await, 1);

    // The corrected file goes through, and the set that is empty by then succeeds.
    let fixed = migration("2", "insert into t values (2);");
    for _ in 0..2 {
        let (_, outcome) = kit.run(&migrating(&[first.clone(), fixed.clone()])).await;
        assert_eq!(outcome, Outcome::Succeeded);
    }
    assert_eq!(value::<i64>(&endpoint, "select count(*) from t").await, 2);
}

#[tokio::test]
async fn what_was_changed_is_refused_and_what_is_late_is_told() {
    let endpoint = postgres().await.owned_database("migrate_order").await;
    let nowhere = Target::default();
    let (one, three) = (migration("1", "select 1"), migration("3", "select 3"));
    let kit = Kit::new(endpoint.clone());
    assert_eq!(kit.run(&migrating(&[one.clone(), three.clone()])).await.1, Outcome::Succeeded);

    let changed = json!({"migrations": {"list": [migration("1", "select 2"), three]}});
    let failure = propose(&endpoint, &nowhere, changed).await.unwrap_err();
    assert_eq!(failure.code, "migration::changed");
    assert!(failure.message.starts_with("1_x was changed"), "{failure}");

    let late = json!({"migrations": {"list": [one, migration("2", "create table late (a int)")]}});
    let set = propose(&endpoint, &nowhere, late).await.unwrap();
    assert_eq!((set.changes.len(), set.risk()), (2, Risk::High));
    assert!(set.changes[0].why.contains("out of order: 3 was carried out before it"), "{set:?}");
}

#[tokio::test]
async fn an_undo_is_taken_where_nothing_is_lost() {
    let endpoint = postgres().await.owned_database("migrate_undo").await;
    execute(&endpoint, &["create table t (a int)"]).await;
    let list = [
        with_undo("1", "alter table t add column b int", "alter table t drop column b"),
        with_undo("2", "alter table t drop column a", "alter table t add column a int"),
        migration("3", "comment on table t is 'x'"),
        with_undo(
            "4",
            "create index concurrently i on t (b)",
            "drop index concurrently if exists i",
        ),
    ];
    let arguments = json!({"migrations": {"list": list}});
    let set = propose(&endpoint, &Target::default(), arguments).await.unwrap();
    let kinds: Vec<_> = set
        .changes
        .iter()
        .map(|change| match &change.inverse {
            Inverse::By { recovery, .. } => format!("{} by {recovery:?}", change.operation.kind()),
            Inverse::Unneeded => format!("{} unneeded", change.operation.kind()),
            Inverse::Impossible { why } => format!("{}: {why}", change.operation.kind()),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "sql: later runs rely on what it says of earlier ones",
            "transaction by Transactional",
            "transaction: line 1: it drops a column with its data",
            "transaction: no SQL that undoes it was supplied",
            "sql by Probe",
            "transaction by Transactional",
            "event unneeded",
        ]
    );
    // The lossy file is high risk; a table of a few kilobytes is locked for a moment.
    let risks: Vec<_> = set.changes.iter().map(|change| change.risk).collect();
    assert_eq!(risks[1], Risk::Medium);
    assert_eq!(risks[2], Risk::High);

    // Undone by the run whose verification failed: the files and their records, newest first.
    let check = step("check", &["migrate"], super::undoing::failing_verify());
    let undoing = plan(vec![migrate(&[list[0].clone(), list[3].clone()]), check]);
    let kit = Kit::new(endpoint.clone());
    let (run, outcome) = kit.run(&undoing).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(kit.finished(&run).await.map(|(_, undone)| undone), Some(Compensation::Complete));
    assert_eq!(history(&endpoint).await, "");
    let columns = "select string_agg(attname, ',') from pg_attribute where attrelid = 't'::regclass \
                   and attnum > 0 and not attisdropped";
    assert_eq!(value::<String>(&endpoint, columns).await, "a");
}

#[tokio::test]
async fn an_adding_migration_on_a_busy_table_retries_and_lets_others_pass() {
    let endpoint = postgres().await.owned_database("migrate_busy").await;
    execute(&endpoint, &["create table t (a int)", "insert into t values (1)"]).await;
    let step = migrate(&[migration("1", "alter table t add column b int")]);
    let kit = Kit::new(endpoint.clone());
    let mut blocker = connect(&endpoint).await;
    let mut query = async |text: &'static str| {
        sqlx::raw_sql(text).execute(&mut blocker).await.unwrap();
    };
    query("begin; select a from t").await;
    let run = kit.start(&plan(vec![step])).await;
    let (_, task) = kit.spawn(&run);
    kit.until(&run, "change_started").await;
    // Others come while it waits, gives up and tries again: each of them passes soon.
    let (mut longest, start) = (Duration::ZERO, SystemClock.now());
    while SystemClock.now().since(start) < Duration::from_millis(2500)
        || kit.count(&run, "attempt_failed").await < 2
    {
        let before = SystemClock.now();
        assert_eq!(value::<i64>(&endpoint, "select count(*) from t").await, 1);
        longest = longest.max(SystemClock.now().since(before));
    }
    // Behind one that does not give up they would wait for the transaction, which goes on.
    assert!(longest < Duration::from_mins(1), "somebody waited for {longest:?}");
    assert!(kit.count(&run, "attempt_failed").await >= 2, "it was tried again");
    assert_eq!(history(&endpoint).await, "");
    query("commit").await;
    assert_eq!(task.await.unwrap(), Outcome::Succeeded);
    assert_eq!(history(&endpoint).await, "1");
    println!("the longest wait behind a migration with lock_timeout 300 ms: {longest:?}");
}

#[tokio::test]
async fn rivals_carry_a_migration_out_once() {
    let endpoint = postgres().await.owned_database("migrate_rivals").await;
    let kit = Kit::new(endpoint.clone());
    let nothing = migration("0", "select 0");
    assert_eq!(kit.run(&migrating(std::slice::from_ref(&nothing))).await.1, Outcome::Succeeded);
    let slow = migration("1", "create table t as select 1 as a; comment on table t is 'slow';");
    let plan = migrating(&[nothing, slow]);
    let rivals = (0..4).map(|_| async {
        let kit = Kit::new(endpoint.clone());
        kit.run(&plan).await.1
    });
    for outcome in futures::future::join_all(rivals).await {
        assert_eq!(outcome, Outcome::Succeeded);
    }
    assert_eq!(history(&endpoint).await, "0,1");
}

#[tokio::test]
async fn a_protected_branch_takes_what_was_tried_elsewhere() {
    let endpoint = postgres().await.owned_database("migrate_tried").await;
    let elsewhere = postgres().await.fresh_database("migrate_trial").await;
    execute(
        &elsewhere,
        &[&format!(
            "alter database \"{}\" owner to \"{}\"",
            elsewhere.database(),
            format_args!("owner_of_{}", endpoint.database())
        )],
    )
    .await;
    let trial = endpoint.with_database(elsewhere.database());
    let production = Target {
        project: Some("shop".into()),
        branch: Some("production".into()),
        database: Some(endpoint.database().into()),
    };
    let list = json!({"list": [migration("1", "create schema s")]});
    let direct = propose(&endpoint, &production, json!({ "migrations": list })).await.unwrap_err();
    assert_eq!(direct.code, "branch_policy::refused");
    assert!(direct.message.contains("by promotion only"), "{direct}");

    let promotion = json!({"migrations": list, "tried_on": {"database": elsewhere.database()}});
    let untried = propose(&endpoint, &production, promotion.clone()).await.unwrap_err();
    assert_eq!(untried.code, "migration::untried");
    let itself = json!({"migrations": list, "tried_on": {"branch": "production"}});
    let itself = propose(&endpoint, &production, itself).await.unwrap_err();
    assert_eq!(itself.code, "migration::untried");

    let kit = Kit::new(trial.clone());
    let other = migrating(&[migration("1", "create schema other")]);
    assert_eq!(kit.run(&other).await.1, Outcome::Succeeded);
    let another_text = propose(&endpoint, &production, promotion.clone()).await.unwrap_err();
    assert_eq!(another_text.code, "migration::untried");
    execute(&trial, &["delete from lakeops.schema_migration"]).await;
    let same = migrating(&[migration("1", "create schema s")]);
    assert_eq!(kit.run(&same).await.1, Outcome::Succeeded);
    let set = propose(&endpoint, &production, promotion).await.unwrap();
    assert!(set.changes.iter().any(|change| change.recovery == Recovery::Transactional));
}

#[tokio::test]
async fn statements_outside_transactions_leave_nothing_half_done() {
    let endpoint = postgres().await.owned_database("migrate_outside").await;
    execute(
        &endpoint,
        &["create table t (a int)", "insert into t select 1 from generate_series(1, 10)"],
    )
    .await;
    let kit = Kit::new(endpoint.clone());
    // The duplicates make it fail; PostgreSQL leaves an invalid index, and we do not.
    let unique = migrating(&[migration("1", "create unique index concurrently i on t (a)")]);
    assert_eq!(kit.run(&unique).await.1, Outcome::Failed);
    let left = "select count(*) from pg_index where not indisvalid";
    assert_eq!(value::<i64>(&endpoint, left).await, 0);
    assert_eq!(history(&endpoint).await, "");
    execute(&endpoint, &["truncate t"]).await;
    assert_eq!(kit.run(&unique).await.1, Outcome::Succeeded);
    assert_eq!(history(&endpoint).await, "1");
}

#[tokio::test]
async fn killed_at_every_boundary_each_migration_happens_once() {
    let list = [
        migration("1", "create table t (n int); insert into t values (1);"),
        migration("2", "create index concurrently i on t (n)"),
        migration("3", "insert into t values (3); alter table t add column b int;"),
    ];
    let plan = migrating(&list);
    let calm = postgres().await.owned_database("migrate_calm").await;
    let undisturbed = Crash::new(&plan, &calm);
    assert_eq!(undisturbed.finish(), "succeeded");
    let boundaries = undisturbed.boundaries();
    let effects: Vec<_> = boundaries.iter().filter(|name| name.contains("migrate/")).collect();
    assert!(effects.len() > 20, "{effects:?}");
    let mut missed = Vec::new();
    for (place, name) in boundaries.iter().enumerate() {
        let endpoint = postgres().await.owned_database("migrate_killed").await;
        let crash = Crash::new(&plan, &endpoint);
        if crash.run_until_place(&boundaries, place) != End::Killed {
            missed.push(name);
        }
        assert_eq!(crash.finish(), "succeeded", "{name}");
        assert_eq!(history(&endpoint).await, "1,2,3", "{name}");
        assert_eq!(value::<i64>(&endpoint, "select count(*) from t").await, 2, "{name}");
        let valid: bool = value(
            &endpoint,
            "select bool_and(indisvalid) from pg_index where indrelid = 't'::regclass",
        )
        .await;
        assert!(valid, "{name}");
        let indexes: i64 =
            value(&endpoint, "select count(*) from pg_index where indrelid = 't'::regclass").await;
        assert_eq!(indexes, 1, "{name}");
    }
    // A try more in the undisturbed run makes boundaries that no other run has.
    assert!(missed.len() < 3, "{missed:?} were not reached");
}

#[tokio::test]
async fn changes_are_shown_whole() {
    let endpoint = postgres().await.owned_database("migrate_shown").await;
    let list = json!({"list": [migration("1", "create table t (a int)")]});
    let set = propose(&endpoint, &Target::default(), json!({ "migrations": list })).await.unwrap();
    let Operation::Transaction { statements } = &set.changes[1].operation else {
        panic!("{set:?}")
    };
    assert!(statements[0].text.starts_with("insert into lakeops.schema_migration"));
    assert_eq!(statements[1].text, "create table t (a int)");
    let shown = lakeops::report::changes::change_set(lakeops::report::style::Style::PLAIN, &set);
    for part in ["create table t (a int)", "in one transaction", "cannot be undone"] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
}
