//! Missing indexes: what the workload asks for, and what only looks as if it did.

use serde_json::{Value, json};

use super::bench::{Bench, now, sorted};
use crate::harness::{connect, execute};

const TOOL: &str = "detect_missing_indexes";

/// What is carried out twelve times each, with values as applications send them.
const WORKLOAD: &[&str] = &[
    // These five indexes are missing.
    "select * from mi.orders where customer_id = 17",
    "select * from mi.orders where customer_id = 18 and placed_at > now() - interval '1 day'",
    "select o.id from mi.orders o join mi.customers c on c.id = o.customer_id where c.email = 'c7@x'",
    "select * from mi.customers where lower(email) = 'c9@x'",
    "select * from mi.events order by at desc limit 10",
    "update mi.jobs set state = 'done' where token = 'token 7'",
    // Nothing is missing here: all rows, too many of them, no B-tree that could answer.
    "select * from mi.orders",
    "select count(*) from mi.orders group by status",
    "select * from mi.orders where status = 'open'",
    "select * from mi.orders where note like '%5%'",
    "select * from mi.orders where total + 1 = 8",
    "select * from mi.orders where note = 'n 5' or total = 9",
    "select * from mi.orders where placed_at > '2001-01-01'",
    // A partial index serves the value that is given, and a plan without values cannot know.
    "select * from mi.events where kind = 'rare'",
    // There is an index.
    "select * from mi.orders where id = 5",
    // The table is small.
    "select * from mi.small where a = 5",
    // It is a partition's matter.
    "select * from mi.parts_1 where b = 5",
];

async fn setup(bench: &Bench) {
    execute(
        &bench.endpoint,
        &[
            "create extension pg_stat_statements",
            "create schema mi",
            "create table mi.customers (id int primary key, email varchar(80), name text)",
            "insert into mi.customers select g, 'C' || g || '@x', 'n ' || g \
             from generate_series(1, 20000) as g",
            "create table mi.orders (id int primary key, customer_id int, total int, \
             status text, placed_at timestamptz, note text)",
            "insert into mi.orders select g, g % 500, g % 7000, case g % 3 when 0 then 'open' \
             else 'done' end, now() - g * interval '1 minute', 'n ' || g % 900 \
             from generate_series(1, 50000) as g",
            "create table mi.events (id int, kind text, at timestamptz)",
            "insert into mi.events select g, case when g % 1000 = 0 then 'rare' else 'often' end, \
             now() - g * interval '1 second' from generate_series(1, 30000) as g",
            "create index events_rare on mi.events (id) where kind = 'rare'",
            "create table mi.jobs (id int primary key, token text, state text)",
            "insert into mi.jobs select g, 'token ' || g, 'new' from generate_series(1, 20000) as g",
            "create table mi.small (a int)",
            "insert into mi.small select generate_series(1, 2000)",
            "create table mi.parts (a int, b int) partition by range (a)",
            "create table mi.parts_1 partition of mi.parts for values from (0) to (100000)",
            "insert into mi.parts select g, g from generate_series(1, 20000) as g",
            "vacuum analyze",
        ],
    )
    .await;
}

async fn work(bench: &Bench, statements: &[&str]) {
    execute(&bench.endpoint, &["select pg_stat_statements_reset()"]).await;
    let mut connection = connect(&bench.endpoint).await;
    for statement in statements {
        for _ in 0..12 {
            sqlx::raw_sql(sqlx::AssertSqlSafe((*statement).to_owned()))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }
    drop(connection);
    bench
        .until("select seq_scan >= 12 from pg_stat_user_tables where relid = 'mi.small'::regclass")
        .await;
}

fn advised(output: &Value) -> Vec<String> {
    let list = output["recommendations"].as_array().unwrap().iter();
    let mut found: Vec<String> = list
        .map(|it| {
            let columns: Vec<&str> =
                it["columns"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
            format!("{} ({})", it["table"].as_str().unwrap(), columns.join(", "))
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn what_the_workload_asks_for_is_found_and_nothing_else() {
    let bench = Bench::start("missing").await;
    what_is_missing(&bench).await;
    bench.stop().await;
}

/// Precision and recall 1, and the advice, once followed, is verified and not given again.
pub(super) async fn what_is_missing(bench: &Bench) {
    setup(bench).await;
    work(bench, WORKLOAD).await;
    let output = bench.read(TOOL, json!({})).await;
    assert_eq!(
        advised(&output),
        [
            "customers (email)",
            "customers (lower(email))",
            "events (at)",
            "jobs (token)",
            "orders (customer_id, placed_at)",
        ],
        "{:#}",
        output["passed_over"]
    );
    assert_eq!(output["not_measured"], json!([]), "every statement has a plan");
    let why = |table: &str| {
        let mut reasons = output["passed_over"].as_array().unwrap().clone();
        reasons.retain(|it| it["table"] == table);
        sorted(&Value::Array(reasons), "why")
    };
    assert_eq!(why("mi.events"), ["too many rows fulfil the condition"]);
    assert_eq!(why("mi.parts_1"), ["it is a partition: judge the whole table"]);
    let of_orders = [
        "a function or a cast stands around the column",
        "a pattern with a wildcard in front, or one that is not known",
        "no B-tree answers the condition",
        "the statement wants all rows",
        "too many rows fulfil the condition",
    ];
    assert_eq!(why("mi.orders"), of_orders);
    let orders =
        output["findings"].as_array().unwrap().iter().find(|it| it["table"] == "mi.orders");
    assert_eq!(orders.unwrap()["statements"].as_array().unwrap().len(), 3);

    let statements: Vec<&str> = output["recommendations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["statement"].as_str().unwrap())
        .collect();
    execute(&bench.endpoint, &statements).await;
    execute(&bench.endpoint, &["vacuum analyze"]).await;
    work(bench, WORKLOAD).await;
    let later = bench.read_at(TOOL, json!({}), &[output], now()).await;
    assert_eq!(advised(&later.value), Vec::<String>::new());
    assert_eq!(sorted(&later.value["closed"], "status"), ["verified"; 5]);
}
