//! Endpoints: who comes in, what wakes and sleeps, what passes through.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use lakeops::emulator::fleet::{
    BranchId, ComputeState, EndpointFacts, EndpointId, EndpointSettings, FleetError,
};
use lakeops::kernel::{Clock as _, SystemClock};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::{TestFleet, processes_on, run};

fn settings(id: &str, branch: &BranchId) -> EndpointSettings {
    EndpointSettings {
        id: EndpointId(format!("ep-{id}-{}", std::process::id())),
        branch: branch.clone(),
        read_only: false,
        max_connections: 20,
        suspend_after: None,
        disabled: false,
        pg_settings: BTreeMap::new(),
    }
}

impl TestFleet {
    async fn open_endpoint(&self, settings: &EndpointSettings) -> EndpointFacts {
        Box::pin(self.fleet.open_endpoint(settings.clone())).await.unwrap()
    }

    fn options(&self, facts: &EndpointFacts, role: &str, secret: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&facts.address.host)
            .port(facts.address.port)
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert_from_pem(self.fleet.ca_pem().as_bytes().to_vec())
            .username(role)
            .password(secret)
            .database("postgres")
            .disable_statement_logging()
    }

    async fn log_in(
        &self,
        facts: &EndpointFacts,
        secret: &str,
    ) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.options(facts, "ann", secret)).await
    }
}

async fn sql(connection: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(connection).await.map(drop)
}

async fn number(connection: &mut PgConnection, text: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(connection).await.unwrap()
}

fn code(error: &sqlx::Error) -> String {
    let database = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
    database.code().unwrap().into_owned()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = SystemClock.now().plus(Duration::from_mins(1));
    while !holds() {
        assert!(SystemClock.now() < until, "not in a minute: {what}");
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(20))).await;
    }
}

async fn served(name: &str) -> (TestFleet, BranchId, EndpointSettings, EndpointFacts) {
    let test = TestFleet::new().await;
    let branch = test.root("br-main").await;
    run(&test.fleet, &branch, "create role ann login; grant all on table t to ann").await;
    let settings = settings(name, &branch);
    let facts = test.open_endpoint(&settings).await;
    (test, branch, settings, facts)
}

#[tokio::test]
async fn any_valid_secret_lets_in_over_tls_and_nothing_else_does() {
    let (test, branch, _, facts) = served("login").await;
    let mut one = test.log_in(&facts, "right").await.unwrap();
    let mut two = test.log_in(&facts, "also right").await.unwrap();
    assert_eq!(number(&mut one, "select count(*) from t").await, 100);
    assert_eq!(number(&mut two, "select count(*) from t").await, 100);
    assert_eq!(code(&test.log_in(&facts, "wrong").await.unwrap_err()), "28P01");
    let plain = test.options(&facts, "ann", "right").ssl_mode(PgSslMode::Disable);
    assert_eq!(code(&PgConnection::connect_with(&plain).await.unwrap_err()), "28000");
    for role in ["postgres", "nobody_knows"] {
        let refused = PgConnection::connect_with(&test.options(&facts, role, "right")).await;
        assert_eq!(code(&refused.unwrap_err()), "28000", "{role}");
    }
    run(&test.fleet, &branch, "create role eve").await;
    let refused = PgConnection::connect_with(&test.options(&facts, "eve", "right")).await;
    assert_eq!(code(&refused.unwrap_err()), "28000", "a role without login");
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_read_only_token_cannot_write_whatever_it_tries() {
    let (test, _, settings, facts) = served("read").await;
    let mut writer = test.log_in(&facts, "right").await.unwrap();
    sql(&mut writer, "insert into t values (101)").await.unwrap();
    let mut reader = test.log_in(&facts, "read").await.unwrap();
    assert_eq!(
        number(&mut reader, "select count(*) from t").await,
        101,
        "it sees what is committed"
    );
    for attempt in [
        "insert into t values (1)",
        "set default_transaction_read_only = off; insert into t values (1)",
        "begin read write; insert into t values (1)",
        "do $$ begin perform set_config('transaction_read_only', 'off', true); delete from t; end $$",
        "create table mine (x int)",
    ] {
        let refused = sql(&mut reader, attempt).await.unwrap_err();
        assert!(
            matches!(code(&refused).as_str(), "25006" | "25001" | "0A000"),
            "{attempt}: {refused}"
        );
        sql(&mut reader, "rollback").await.unwrap();
    }
    // A read-only endpoint is served in the same way, also to a token that may write.
    let only = EndpointSettings {
        read_only: true,
        id: EndpointId(format!("{}-ro", settings.id)),
        ..settings
    };
    let facts = test.open_endpoint(&only).await;
    let mut reader = test.log_in(&facts, "right").await.unwrap();
    assert_eq!(code(&sql(&mut reader, "delete from t").await.unwrap_err()), "25006");
    sql(&mut writer, "delete from t").await.unwrap();
    let mut later = test.log_in(&facts, "right").await.unwrap();
    assert_eq!(number(&mut later, "select count(*) from t").await, 0);
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_suspended_endpoint_wakes_for_a_client_without_its_statement_statistics() {
    let (test, branch, settings, facts) = served("suspend").await;
    let statistics = "create extension pg_stat_statements; grant pg_read_all_stats to ann";
    run(&test.fleet, &branch, statistics).await;
    let mut client = test.log_in(&facts, "right").await.unwrap();
    let seen = "select count(*) from pg_stat_statements where query like '%from t%'";
    assert_eq!(number(&mut client, "select count(*) from t").await, 100);
    assert_eq!(number(&mut client, seen).await, 1);
    Box::pin(test.fleet.suspend(&settings.id)).await.unwrap();
    assert_eq!(test.fleet.endpoint_facts(&settings.id).unwrap().state, ComputeState::Idle);
    // Somebody of the fleet itself may use the server at the moment; it is stopped a little later then.
    eventually("nothing runs", || processes_on(&test.clusters()) == 0).await;
    let ended = sql(&mut client, "select 1").await.unwrap_err();
    assert!(!ended.to_string().is_empty(), "an open session is ended");
    let mut client = test.log_in(&facts, "right").await.unwrap();
    assert_eq!(number(&mut client, seen).await, 0, "what was gathered is lost");
    let scans = "select seq_scan from pg_stat_user_tables where relname = 't'";
    assert!(number(&mut client, scans).await > 0, "cumulative statistics stay");
    assert_eq!(test.fleet.endpoint_facts(&settings.id).unwrap().state, ComputeState::Active);
    // Nobody wakes one that is disabled.
    let disabled = EndpointSettings { disabled: true, ..settings.clone() };
    Box::pin(test.fleet.change_endpoint(disabled)).await.unwrap();
    assert_eq!(code(&test.log_in(&facts, "right").await.unwrap_err()), "55000");
    Box::pin(test.fleet.change_endpoint(settings)).await.unwrap();
    test.log_in(&facts, "right").await.unwrap();
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_sleeps_by_itself_but_not_while_somebody_works() {
    let test = TestFleet::new().await;
    let branch = test.root("br-main").await;
    run(&test.fleet, &branch, "create role ann login").await;
    let awake = settings("idle", &branch);
    let facts = test.open_endpoint(&awake).await;
    let mut client = test.log_in(&facts, "right").await.unwrap();
    // Only from now on it may sleep: on a busy machine a login alone can take longer than that.
    let soon = EndpointSettings { suspend_after: Some(Duration::from_secs(3)), ..awake };
    let changed = Box::pin(test.fleet.change_endpoint(soon.clone()));
    // Nobody looks whether it works at the moment when it has just ended: at three seconds and at six.
    let (worked, changed) = tokio::join!(sql(&mut client, "select pg_sleep(5)"), changed);
    changed.unwrap();
    worked.unwrap();
    let state = || test.fleet.endpoint_facts(&soon.id).unwrap().state;
    eventually("it sleeps", || state() == ComputeState::Idle).await;
    Box::pin(test.fleet.shutdown()).await.unwrap();
}

#[tokio::test]
async fn settings_limits_and_cancelling() {
    let (test, branch, settings, facts) = served("limits").await;
    let changed = EndpointSettings {
        max_connections: 9,
        pg_settings: BTreeMap::from([("work_mem".to_owned(), "7MB".to_owned())]),
        ..settings.clone()
    };
    Box::pin(test.fleet.change_endpoint(changed.clone())).await.unwrap();
    let mut first = test.log_in(&facts, "right").await.unwrap();
    let work_mem: String = sqlx::query_scalar("show work_mem").fetch_one(&mut first).await.unwrap();
    assert_eq!(work_mem, "7MB");
    let mut second = test.log_in(&facts, "right").await.unwrap();
    assert_eq!(code(&test.log_in(&facts, "right").await.unwrap_err()), "53300");
    let bad = EndpointSettings {
        pg_settings: BTreeMap::from([("fsync".to_owned(), "on".to_owned())]),
        ..changed
    };
    let refused = Box::pin(test.fleet.change_endpoint(bad)).await;
    assert!(matches!(refused, Err(FleetError::Setting { .. })));
    // The statement timeout of one session cancels by itself; a request from outside needs the key.
    let pid = number(&mut first, "select pg_backend_pid()::bigint").await;
    run(&test.fleet, &branch, "grant pg_signal_backend to ann").await;
    let slow = tokio::spawn(async move { sql(&mut first, "select pg_sleep(60)").await });
    let busy = format!(
        "select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'"
    );
    let until = SystemClock.now().plus(Duration::from_mins(1));
    while number(&mut second, &busy).await == 0 {
        assert!(SystemClock.now() < until, "the query never began");
    }
    sql(&mut second, &format!("select pg_cancel_backend({pid})")).await.unwrap();
    assert_eq!(code(&slow.await.unwrap().unwrap_err()), "57014");
    // Closed: nobody listens any more, nothing runs.
    drop(second);
    Box::pin(test.fleet.close_endpoint(&settings.id)).await.unwrap();
    let address = (facts.address.host.as_str(), facts.address.port);
    eventually("it is closed", || TcpStream::connect(address).is_err()).await;
    Box::pin(test.fleet.delete_branch(&branch)).await.unwrap();
    assert_eq!(processes_on(&test.clusters()), 0);
}
