//! The structure of databases: what differs is found exactly, and the SQL that is written for it
//! leaves nothing.

mod mutations;
mod rich;

use std::time::Duration;

use lakeops::config::settings::Limits;
use lakeops::kernel::Ident;
use lakeops::postgres::{PgEndpoint, PgReader};
use lakeops::schema::{Action, Diff, Snapshot, capture, compare, script};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::harness::{connect, execute, postgres, until};

/// The structure of a database.
async fn structure(endpoint: &PgEndpoint) -> Snapshot {
    let reader = PgReader::new(endpoint.clone(), &Limits::default(), "lakeops:test");
    capture(reader, &[]).await.unwrap()
}

/// A copy of a database that nobody is connected to.
async fn copy(endpoint: &PgEndpoint, hint: &str) -> PgEndpoint {
    let source: String = crate::harness::value(endpoint, "select current_database()::text").await;
    let name = format!("{source}_{hint}");
    let sql = format!(
        "create database {} template {} owner {}",
        Ident::new(&name),
        Ident::new(&source),
        Ident::new(endpoint.user())
    );
    // The server itself waits five seconds for who is there to be gone, which a busy machine may exceed.
    let server = postgres().await.endpoint();
    let left =
        format!("select not exists (select from pg_stat_activity where datname = '{source}')");
    until(&server, &left, Duration::from_mins(1)).await;
    execute(&server, &[&sql]).await;
    endpoint.with_database(&name)
}

/// Carries out what gets from one database's structure to another's, statement by statement, and
/// returns what still differs.
async fn turn_into(endpoint: &PgEndpoint, to: &Snapshot) -> Diff {
    let from = structure(endpoint).await;
    let statements = script(&from, to);
    let mut connection = connect(endpoint).await;
    let off = "set check_function_bodies = off";
    sqlx::raw_sql(AssertSqlSafe(off)).execute(&mut connection).await.unwrap();
    for statement in &statements {
        let run = sqlx::raw_sql(AssertSqlSafe(statement.sql.clone())).execute(&mut connection);
        if let Err(error) = run.await {
            let all: Vec<_> = statements.iter().map(|one| one.sql.as_str()).collect();
            panic!("{}: {error}\nof:\n{}", statement.sql, all.join(";\n"));
        }
    }
    connection.close().await.unwrap();
    compare(&structure(endpoint).await, to)
}

/// `+ table public.a`, `- column public.a.b`, `~ view public.v`: what differs, one line each.
fn lines(diff: &Diff) -> Vec<String> {
    let line = |one: &lakeops::schema::Difference| {
        let mark = match one.action {
            Action::Added => '+',
            Action::Removed => '-',
            Action::Changed => '~',
        };
        format!("{mark} {} {}", one.kind.as_str(), one.object)
    };
    diff.differences.iter().map(line).collect()
}

async fn assert_both_ways(before: &PgEndpoint, after: &PgEndpoint) {
    let (from, to) = (structure(before).await, structure(after).await);
    let left = turn_into(before, &to).await;
    assert!(left.is_empty(), "there: {left:#?}");
    let left = turn_into(after, &from).await;
    assert!(left.is_empty(), "and back: {left:#?}");
}

#[tokio::test]
async fn a_migration_of_three_hundred_tables_is_found_exactly_both_ways() {
    let before = postgres().await.owned_database("structure_300").await;
    execute(&before, &[&rich::many_tables(300), &rich::schema()]).await;
    let after = copy(&before, "after").await;
    execute(&after, &[&rich::migration()]).await;
    let (from, to) = (structure(&before).await, structure(&after).await);
    assert_eq!(lines(&compare(&from, &to)), rich::differences());
    let back: Vec<_> = rich::differences()
        .into_iter()
        .map(|line| match line.split_at(1) {
            ("+", rest) => format!("-{rest}"),
            ("-", rest) => format!("+{rest}"),
            _ => line,
        })
        .collect();
    let mut found = lines(&compare(&to, &from));
    let mut expected = back;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(compare(&from, &from).is_empty());
    assert_both_ways(&before, &after).await;
}

#[tokio::test]
async fn a_rich_schema_is_made_from_nothing_and_removed_again() {
    let empty = postgres().await.fresh_database("structure_empty").await;
    let rich = postgres().await.fresh_database("structure_rich").await;
    execute(&rich, &[&rich::many_tables(3), &rich::schema()]).await;
    assert_both_ways(&empty, &rich).await;
}

#[tokio::test]
async fn removing_a_value_of_an_enum_is_a_swap_that_is_marked() {
    let before = postgres().await.fresh_database("structure_enum").await;
    execute(
        &before,
        &["create type mood as enum ('sad', 'ok', 'glad')",
          "create table person (id int primary key, mood mood not null default 'ok', moods mood[])",
          "create index glad on person (id) where mood = 'glad'",
          "create view moods as select mood, count(*) from person group by mood",
          "create function cheer(mood) returns mood language sql return 'glad'::mood",
          "insert into person values (1, 'glad', '{ok,glad}')"],
    )
    .await;
    let after = postgres().await.fresh_database("structure_enum").await;
    execute(
        &after,
        &["create type mood as enum ('ok', 'glad')",
          "create table person (id int primary key, mood mood not null default 'ok', moods mood[])",
          "create index glad on person (id) where mood = 'glad'",
          "create view moods as select mood, count(*) from person group by mood",
          "create function cheer(mood) returns mood language sql return 'glad'::mood"],
    )
    .await;
    let (from, to) = (structure(&before).await, structure(&after).await);
    let diff = compare(&from, &to);
    assert_eq!(lines(&diff), ["~ type public.mood"]);
    assert!(script(&from, &to).iter().any(|one| one.destroys.is_some()));
    assert!(turn_into(&before, &to).await.is_empty());
    let kept: String =
        crate::harness::value(&before, "select mood || ' ' || moods::text from person").await;
    assert_eq!(kept, "glad {ok,glad}");
    // Adding it back is additive and loses nothing.
    assert!(script(&to, &from).iter().all(|one| one.destroys.is_none()));
    assert!(turn_into(&after, &from).await.is_empty());
}

#[tokio::test]
async fn what_the_engine_and_extensions_own_is_left_out() {
    let database = postgres().await.fresh_database("structure_own").await;
    let empty = structure(&database).await;
    execute(&database, &["create schema lakeops", "create table lakeops.applied_change (a int)"])
        .await;
    assert!(compare(&empty, &structure(&database).await).is_empty());
    execute(&database, &["create aggregate total(int) (sfunc = int4pl, stype = int)"]).await;
    let now = structure(&database).await;
    assert_eq!(
        now.uncovered.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(),
        ["aggregate"]
    );
}
