//! A model that explains, and misbehaves while it does.

use std::time::Duration;

use lakeops::config::Settings;
use lakeops::kernel::{Span, SystemClock, Target};
use lakeops::model::ChatModel;
use lakeops::postgres::{PgEndpoint, PgReader};
use lakeops::tools::context::AskModel;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};

use crate::cli::Project;
use crate::harness::model::{Answer, silences, stand_in};
use crate::harness::{execute, postgres, value};

fn says(explanation: &str, sql: Option<&str>) -> Answer {
    Answer::Says(format!("Well: {}", json!({ "explanation": explanation, "sql": sql })))
}

/// How long a statement may take that is to be through, and one that is not.
const ENOUGH: Duration = Duration::from_secs(30);
const TOO_SHORT: Duration = Duration::from_millis(700);

async fn explain(endpoint: &PgEndpoint, model: Option<&ChatModel>, limit: Duration) -> Value {
    let AnyTool::Read(tool) = Catalog::builtin().find("explain_answer").unwrap() else {
        panic!("it looks")
    };
    let mut settings = Settings::default();
    settings.limits.statement_timeout = Span(limit);
    let (reader, target) =
        (PgReader::new(endpoint.clone(), &settings.limits, "lakeops:test"), Target::default());
    let model = model.map(|model| -> &dyn AskModel { model });
    let context =
        ReadContext { model, ..ReadContext::new(&reader, &SystemClock, &settings, &target) };
    let row = json!({
        "relation": "s.orders", "wait_seconds": 7.5, "user_name": "ada",
        "query": "update s.orders set note = 'Lovelace' where id = 4711",
    });
    let evidence = json!([{
        "source": "performance/collect_sessions.locks", "says": "1 waits", "is_wrong": true,
        "command": "lakeops sql run performance/collect_sessions.locks",
        "lists": [{
            "what": "waiting sessions", "total": 1, "rows": [row],
            "columns": ["relation", "wait_seconds", "user_name", "query"],
        }],
    }]);
    let question = "why does ada@example.org wait for \"John Doe\"?";
    let output = tool.read(&context, json!({ "question": question, "evidence": evidence })).await;
    reader.close().await;
    output.unwrap().value
}

const HARM: &[&str] = &[
    "drop table s.orders",
    "select 1; drop table s.orders",
    "with x as (delete from s.orders returning id) select count(*) from x",
    "select * into s.stolen from s.orders",
    "select * from s.orders for update",
    "select pg_terminate_backend(pid) from pg_stat_activity",
    "select pg_read_file('/etc/passwd')",
    "select rolpassword from pg_authid",
    "select s.harm()",
    "select pg_sleep(60)",
];

#[tokio::test]
async fn a_model_only_adds_and_only_what_is_harmless_runs() {
    let endpoint = postgres().await.fresh_database("ask_model").await;
    execute(
        &endpoint,
        &[
            "create schema s",
            "create table s.orders (id int primary key, note text)",
            "insert into s.orders select g, repeat('x', 300) from generate_series(1, 100) as g",
            "create function s.harm() returns int volatile language sql as 'delete from s.orders; select 1'",
        ],
    )
    .await;
    let without = explain(&endpoint, None, ENOUGH).await;
    assert_eq!((&without["model"], &without["rows"]), (&json!(null), &json!([])));

    let mut answers = vec![
        says("It waits.", Some("select id, note from s.orders order by id;")),
        says(
            "It waits for long.",
            Some("select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b"),
        ),
        says("It knows of nothing.", Some("select nothing from s.nowhere")),
    ];
    answers.extend(HARM.iter().map(|sql| says("with care", Some(sql))));
    answers.extend(silences().map(|(answer, _)| answer));
    let (state, model) = stand_in(answers).await;
    let good = explain(&endpoint, Some(&model), ENOUGH).await;
    assert_eq!(good["explanation"], "It waits.", "{good:#}");
    assert_eq!(good["rows"].as_array().unwrap().len(), 20);
    assert_eq!((&good["has_more"], &good["refused"]), (&json!(true), &json!(null)));
    assert!(good["rows"][0]["note"].as_str().unwrap().chars().count() < 210, "texts are cut");
    let slow = explain(&endpoint, Some(&model), TOO_SHORT).await;
    assert!(slow["refused"].as_str().unwrap().contains("timeout"), "{slow:#}");
    let unknown = explain(&endpoint, Some(&model), ENOUGH).await;
    assert!(unknown["refused"].as_str().unwrap().contains("s.nowhere"), "{unknown:#}");
    for sql in HARM {
        let refused = explain(&endpoint, Some(&model), ENOUGH).await;
        assert_eq!((&refused["rows"], &refused["sql"]), (&json!([]), &json!(sql)));
        assert!(refused["refused"].is_string(), "{sql}: {refused:#}");
        assert_eq!(refused["explanation"], "with care");
    }
    for (_, why) in silences() {
        let silent = explain(&endpoint, Some(&model), ENOUGH).await;
        let said = silent["not_measured"][0]["why"].as_str().unwrap();
        assert!(said.contains(why) && silent["explanation"].is_null(), "{said} / {why}");
    }
    assert_eq!(value::<i64>(&endpoint, "select count(*) from s.orders").await, 100);
    let asked = state.asked();
    assert!(asked.contains("s.orders") && asked.contains("7.5"), "{asked}");
    for literal in ["ada", "Lovelace", "4711", "John", "xxx"] {
        assert!(!asked.contains(literal), "{literal} was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_model_explains_what_was_asked() {
    let project = Project::with_database("ask_configured").await;
    let (state, _) = stand_in(vec![
        says("All is well.", Some("select 1 as one")),
        says("Look.", Some("drop table x")),
    ])
    .await;
    let config = format!("[model]\nendpoint = \"{}\"\nname = \"tiny\"\n", state.endpoint());
    project.write(".config/lakeops.toml", &config);
    let text = project.run(&["ask", "is my database healthy?"]).ends(0).out;
    for part in ["tiny says, which is a claim\nAll is well.", "run read-only: SELECT 1 AS one"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let text = project.run(&["ask", "is my database healthy?"]).ends(0).out;
    assert!(
        text.contains("its statement was refused: it does more than read: drop table x"),
        "{text}"
    );
    let without = project.json(&["ask", "--no-model", "is my database healthy?"]);
    assert_eq!((&without["explanation"], &without["answered"]), (&json!(null), &json!(true)));
}
