//! Slow statements: rules that stand by themselves, and a model that misbehaves.

use serde_json::{Value, json};

use super::bench::Bench;
use crate::harness::model::{Answer, silences, stand_in};
use crate::harness::{connect, execute, value};

async fn setup(bench: &Bench) {
    execute(
        &bench.endpoint,
        &[
            "create extension pg_stat_statements",
            "create schema s",
            "create table s.orders (id int primary key, customer int, at timestamptz, note text)",
            "insert into s.orders select g, g % 2000, now() - g * interval '1 hour', 'n ' || g \
             from generate_series(1, 50000) as g",
            "create index orders_at on s.orders (at)",
            "vacuum analyze s.orders",
            "select pg_stat_statements_reset()",
        ],
    )
    .await;
    let mut connection = connect(&bench.endpoint).await;
    for statement in [
        "select count(*) from s.orders where date_trunc('day', at) = '2020-02-02'",
        "select * from s.orders where customer = 4711",
        "select * from s.orders where note like '%Ada Lovelace%'",
        "select id from s.orders order by id offset 40000 limit 10",
        "select * from s.orders where id = 7",
    ] {
        for _ in 0..5 {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
    }
    drop(connection);
    bench.until("select seq_scan >= 15 from pg_stat_user_tables where relname = 'orders'").await;
}

fn faults(analysis: &Value, text: &str) -> Vec<String> {
    let all = analysis["analyses"].as_array().unwrap();
    let found = all.iter().find(|it| it["query"].as_str().unwrap().contains(text));
    let findings = found.unwrap_or_else(|| panic!("{text}: {all:#?}"))["findings"].clone();
    findings.as_array().unwrap().iter().map(|it| it["fault"].as_str().unwrap().to_owned()).collect()
}

const HARM: &str = "{\"explanation\": \"drop it\", \"rewrite\": \"drop table s.orders\"}";
const SNEAKY: &str = "{\"explanation\": \"with care\", \"rewrite\": \"with x as (delete from s.orders \
    returning id) select count(*) from x where $1 = $2\"}";

#[tokio::test]
async fn rules_stand_alone_and_a_model_only_adds() {
    let bench = Bench::start("slow").await;
    setup(&bench).await;
    let analysis = bench.read("analyze_slow_queries", json!({})).await;
    assert_eq!(faults(&analysis, "date_trunc"), ["wrapped_column"]);
    assert_eq!(faults(&analysis, "customer ="), ["missing_index"]);
    assert_eq!(faults(&analysis, "note like"), ["leading_wildcard"]);
    assert_eq!(faults(&analysis, "offset"), ["deep_offset"]);
    assert_eq!(faults(&analysis, "where id ="), Vec::<String>::new());
    assert_eq!(analysis["not_measured"], json!([]));

    let tool = "explain_slow_queries";
    let about = |text: &str| {
        let mut all = analysis["analyses"].as_array().unwrap().clone();
        all.retain(|it| it["query"].as_str().unwrap().contains(text));
        json!({ "analyses": [all[0].clone()] })
    };
    let without = bench.read(tool, about("customer =")).await;
    assert_eq!((&without["model"], &without["asked"]), (&json!(null), &json!(0)));

    let wrapped = about("date_trunc");
    let better = "{\"explanation\": \"The function hides the index.\", \"rewrite\": \
        \"select count(*) from s.orders where at >= $2::timestamptz and at < $2::timestamptz + \
        interval '1 day' and $1 = 'day'\"}";
    let mut answers = vec![
        Answer::Says(format!("Here you are: {better}")),
        Answer::Says(HARM.to_owned()),
        Answer::Says(SNEAKY.to_owned()),
    ];
    // Who never answers stands apart: it is waited for only briefly, and the others are not.
    let hangs = |answer: &Answer| matches!(answer, Answer::Hangs);
    answers.extend(silences().into_iter().map(|(answer, _)| answer).filter(|it| !hangs(it)));
    let (state, model) = stand_in(answers).await;
    let (other, mute) = stand_in(vec![Answer::Hangs]).await;
    let good = bench.read_with(&model, tool, wrapped.clone()).await;
    let shown = &good["explanations"][0]["rewrite"];
    assert!(shown["cost_after"].as_f64() < shown["cost_before"].as_f64(), "{good:#}");
    assert_eq!(shown["verified"], false, "no branch, no claim");
    for refusal in ["not_read_only", "not_read_only"] {
        let harmful = bench.read_with(&model, tool, wrapped.clone()).await;
        assert_eq!(harmful["explanations"][0]["refused"], refusal, "{harmful:#}");
        assert_eq!(harmful["explanations"][0]["rewrite"], json!(null));
    }
    for (answer, why) in silences() {
        let model = if hangs(&answer) { &mute } else { &model };
        let silent = bench.read_with(model, tool, wrapped.clone()).await;
        assert_eq!(silent["explanations"], json!([]));
        let said = silent["not_measured"][0]["why"].as_str().unwrap();
        assert!(said.contains(why), "{said} / {why}");
    }
    assert_eq!(value::<i64>(&bench.endpoint, "select count(*) from s.orders").await, 50_000);
    let asked = state.asked() + &*other.asked();
    for literal in ["2020-02-02", "Ada", "4711", "a token of the test"] {
        assert!(!asked.contains(literal), "{literal} was sent");
    }
    bench.stop().await;
}
