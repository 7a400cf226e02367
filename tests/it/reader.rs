//! Sessions that can only read: what they promise, on a real server.

use std::time::Duration;

use lakeops::config::settings::Limits;
use lakeops::engine::apply::APPLY_SQL;
use lakeops::kernel::{Bind, Failure, Query, RetryClass, Span, SqlFile, Timestamp};
use lakeops::postgres::session::SESSION_SQL;
use lakeops::postgres::{PgEndpoint, PgError, PgReader};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{execute, postgres, value};

fn reader(endpoint: &PgEndpoint, name: &str) -> PgReader {
    PgReader::new(endpoint.clone(), &Limits::default(), name)
}

async fn ask(reader: &PgReader, text: &str) -> Result<Vec<Value>, PgError> {
    reader.query("test", &Query::new(text)).await
}

#[tokio::test]
async fn no_trick_writes() {
    let endpoint = postgres().await.fresh_database("tricks").await;
    execute(
        &endpoint,
        &[
            "create table t (a int)",
            "create sequence s",
            "create function sneak() returns void language plpgsql as $$ begin \
             perform pg_catalog.set_config('transaction_read_only', 'off', false); \
             insert into t values (1); end $$",
            "create function plain() returns void language sql as 'insert into t values (1)'",
            "create procedure leave() language plpgsql as $$ begin commit; \
             insert into t values (1); end $$",
        ],
    )
    .await;
    let reader = reader(&endpoint, "tricks");
    for text in [
        "insert into t values (1)",
        "commit",
        "commit; insert into t values (1)",
        "select 1; insert into t values (1)",
        "select 1) q; insert into t values (1); --",
        "with x as (insert into t values (1) returning a) select * from x",
        "explain analyze insert into t values (1)",
        "select * into u from t",
        "select * from t for update",
        "select nextval('s')",
        "select plain()",
        "select sneak()",
        "explain analyze select sneak()",
        "call leave()",
        "do $$ begin commit; insert into t values (1); end $$",
        "set transaction read write",
        "set default_transaction_read_only = off",
        "select set_config('transaction_read_only', 'off', true)",
        "select pg_catalog.pg_terminate_backend(pg_backend_pid())",
        "select pg_advisory_lock(1)",
        "prepare transaction 'x'",
        "copy t to program 'true'",
        "lock table t",
        "listen x",
        "vacuum t",
        "create temp table u (a int)",
        "show all; drop table t",
    ] {
        assert!(ask(&reader, text).await.is_err(), "`{text}` was accepted");
    }
    let rows: i64 = value(&endpoint, "select count(*) from t").await;
    let drawn: bool = value(&endpoint, "select is_called from s").await;
    assert_eq!((rows, drawn), (0, false));
    // And it still reads.
    assert_eq!(ask(&reader, "table t").await.unwrap(), Vec::<Value>::new());
    reader.close().await;
}

#[tokio::test]
async fn binds_of_all_types_arrive() {
    let endpoint = postgres().await.endpoint();
    let reader = reader(&endpoint, "binds");
    let at = Timestamp::from_millis(1_763_800_000_123);
    let binds = vec![
        Bind::Text("it's".into()),
        Bind::Int(i64::MIN),
        Bind::Float(0.1),
        Bind::Bool(true),
        Bind::Timestamp(at),
        Bind::Json(json!({"a": [1, null]})),
        Bind::TextArray(vec!["x".into(), "y,z\"".into()]),
        Bind::IntArray(vec![1, -2]),
        Bind::Null,
    ];
    let types = (1..=9).map(|n| format!("pg_catalog.pg_typeof(${n})::text as t{n}, ${n} as v{n}"));
    let text = format!("select {};", types.collect::<Vec<_>>().join(", "));
    let rows = reader.query("binds", &Query::with_binds(text, binds)).await.unwrap();
    let row = &rows[0];
    for (n, (name, value)) in [
        ("text", json!("it's")),
        ("bigint", json!(i64::MIN)),
        ("double precision", json!(0.1)),
        ("boolean", json!(true)),
        ("timestamp with time zone", json!("2025-11-22T08:26:40.123+00:00")),
        ("jsonb", json!({"a": [1, null]})),
        ("text[]", json!(["x", "y,z\""])),
        ("bigint[]", json!([1, -2])),
        ("text", json!(null)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(row[format!("t{}", n + 1)], name);
        assert_eq!(row[format!("v{}", n + 1)], value, "{name}");
    }
    let secret = Query::with_binds("select $1", vec![Bind::Secret("S".into())]);
    assert!(matches!(reader.query("s", &secret).await, Err(PgError::Bind { position: 1, .. })));
    reader.close().await;
}

#[tokio::test]
async fn no_transaction_stays_open_and_lost_connections_come_back() {
    let endpoint = postgres().await.fresh_database("reconnect").await;
    let reader = reader(&endpoint, "reconnect-test");
    ask(&reader, "select 1").await.unwrap();
    ask(&reader, "select 1 / 0").await.unwrap_err();
    let state = "select string_agg(state, ',') from pg_stat_activity \
                 where application_name = 'reconnect-test'";
    assert_eq!(value::<String>(&endpoint, state).await, "idle");
    execute(
        &endpoint,
        &["select pg_terminate_backend(pid, 5000) from pg_stat_activity \
           where application_name = 'reconnect-test'"],
    )
    .await;
    ask(&reader, "select 1").await.unwrap();
    reader.close().await;
    // The server notices within moments.
    let left = "select count(*) from pg_stat_activity where application_name = 'reconnect-test'";
    while value::<i64>(&endpoint, left).await > 0 {}
}

#[tokio::test]
async fn limits_hold() {
    let endpoint = postgres().await.fresh_database("limits").await;
    execute(&endpoint, &["create table t (a int)"]).await;
    // One limit for each session: on a busy machine the longer of two may be the first to pass. It also is
    // how long a session may be idle in its transaction, while we have no processor.
    let limits = Limits { statement_timeout: Span::from_secs(2), ..Limits::default() };
    let reader = PgReader::new(endpoint.clone(), &limits, "limits");
    let failure = |error: PgError| Failure::from(error);
    let slow = failure(ask(&reader, "select pg_sleep(60)").await.unwrap_err());
    assert_eq!(slow.code, "postgres::statement_timeout");
    reader.close().await;
    let limits = Limits { lock_timeout: Span(Duration::from_millis(50)), ..Limits::default() };
    let reader = PgReader::new(endpoint.clone(), &limits, "limits");
    let mut holder = crate::harness::connect(&endpoint).await;
    sqlx::raw_sql("begin; lock table t").execute(&mut holder).await.unwrap();
    let blocked = failure(ask(&reader, "table t").await.unwrap_err());
    assert_eq!((blocked.class, blocked.code.as_str()), {
        (RetryClass::LockTimeout, "postgres::lock_timeout")
    });
    drop(holder);
    reader.close().await;
}

#[derive(Debug, Deserialize)]
struct Row {
    #[expect(dead_code, reason = "only the form of the row matters")]
    n: i32,
}

#[tokio::test]
async fn failures_say_what_and_where() {
    let endpoint = postgres().await.fresh_database("failures").await;
    execute(
        &endpoint,
        &["create table secrets_of_others (a int)", "create role poor_reader login"],
    )
    .await;
    let reader = reader(&endpoint, "failures");
    let error = ask(&reader, "select nonsense from pg_class").await.unwrap_err();
    assert!(error.to_string().contains("at character 8"), "{error}");
    let file = SqlFile { name: "x/y", text: "select * from generate_series(1, 3) as n" };
    let error = reader.row::<Row>(&file, &[]).await.unwrap_err();
    assert!(matches!(error, PgError::RowCount { found: 3, .. }), "{error}");
    let file = SqlFile { name: "x/y", text: "select 'text' as n" };
    let error = reader.row::<Row>(&file, &[]).await.unwrap_err();
    assert!(matches!(error, PgError::Decode { .. }), "{error}");
    let poor =
        PgReader::new(endpoint.with_user("poor_reader", None), &Limits::default(), "failures");
    let denied = Failure::from(ask(&poor, "table secrets_of_others").await.unwrap_err());
    assert_eq!(denied.code, "postgres::missing_privilege");
    let help = denied.help.unwrap();
    assert!(help.contains("GRANT select ON table secrets_of_others"), "{help}");
    let nowhere = PgEndpoint::loopback(
        1,
        "nobody",
        &lakeops::kernel::Secret::new("no password".to_owned()),
        "none",
    );
    let error = ask(&PgReader::new(nowhere, &Limits::default(), "x"), "select 1").await;
    let failure = Failure::from(error.unwrap_err());
    assert_eq!((failure.class, failure.code.as_str()), {
        (RetryClass::Transient, "postgres::connect")
    });
    assert!(failure.message.contains("127.0.0.1:1/none"), "{}", failure.message);
}

#[tokio::test]
async fn server_facts_come_without_privileges_too() {
    let endpoint = postgres().await.fresh_database("facts").await;
    let reader = reader(&endpoint, "facts");
    let facts = reader.server().await.unwrap();
    assert!(facts.version_num >= 170_000 && !facts.in_recovery);
    assert!(facts.system_identifier.is_some());
    assert_eq!(facts.database, endpoint.database());
    execute(
        &endpoint,
        &["create role modest login", "revoke execute on function pg_control_system() from public"],
    )
    .await;
    let modest = PgReader::new(endpoint.with_user("modest", None), &Limits::default(), "facts");
    let seen = modest.server().await.unwrap();
    assert_eq!((seen.system_identifier.as_deref(), seen.user.as_str()), (None, "modest"));
    assert_eq!(seen.difference(&facts), None);
}

#[tokio::test]
async fn own_sql_files_are_what_their_headers_say() {
    let endpoint = postgres().await.fresh_database("contract").await;
    for file in APPLY_SQL.iter().filter(|file| file.name.contains("/create_")) {
        execute(&endpoint, &[file.text]).await;
    }
    let reader = reader(&endpoint, "contract");
    for file in SESSION_SQL.iter().chain(&APPLY_SQL) {
        let described = reader.describe(file.name, file.text).await.unwrap();
        let names: Vec<_> = described.columns.iter().map(|(name, _)| name.as_str()).collect();
        let header = file.header("columns").unwrap();
        let said: Vec<_> = header.split(", ").filter_map(|c| c.split(' ').next()).collect();
        let said = if header == "none" { Vec::new() } else { said };
        assert_eq!(names, said, "{}", file.name);
        let params = file.header("params").unwrap();
        assert_eq!(described.parameters.len(), params.matches('$').count(), "{}", file.name);
    }
}
