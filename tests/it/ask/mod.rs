//! Questions in words: which tools they find, and what comes back from a real database.

mod model;
mod questions;

use std::collections::BTreeSet;
use std::time::Duration;

use lakeops::config::Settings;
use lakeops::kernel::{Failure, SystemClock, Target};
use lakeops::postgres::PgReader;
use lakeops::tools::analysis::ask::pointed::{POINTED, VERBS};
use lakeops::tools::analysis::ask::sources::SOURCES;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use lakeops::workflow::Workflow;
use lakeops::workflow::resolved::Action;
use serde_json::{Value, json};

use crate::cli::Project;
use crate::harness::{connect, postgres, until, value};
use crate::registry::shipped;
use questions::{KNOWN, UNANSWERED, UNSEEN, WITH_HARM};

/// What a question is taken for, with all shipped workflows to point at.
async fn interpret(question: &str, workflows: &Value) -> Value {
    let AnyTool::Read(tool) = Catalog::builtin().find("interpret_question").unwrap() else {
        panic!("it looks")
    };
    let nowhere = PgReader::unavailable(Failure::permanent("test::none", "no database is needed"));
    let (settings, target) = (Settings::default(), Target::default());
    let context = ReadContext::new(&nowhere, &SystemClock, &settings, &target);
    let arguments = json!({ "question": question, "workflows": workflows });
    tool.read(&context, arguments).await.unwrap().value
}

fn offered() -> Value {
    let all = shipped();
    let others = all.iter().filter(|it| it.spec.name.value != "natural_language_dba");
    others
        .map(|it| json!({ "name": it.spec.name.value, "description": it.spec.description }))
        .collect()
}

/// How many of the questions find what they should first, and those that do not.
async fn precision(questions: &[(&str, &str)]) -> (f64, Vec<String>) {
    let workflows = offered();
    let mut wrong = Vec::new();
    for (question, expected) in questions {
        let found = interpret(question, &workflows).await;
        let first = found["intents"][0]["name"].as_str().unwrap_or("nothing");
        if first != *expected {
            wrong.push(format!("{question}: {first}, not {expected}"));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "some hundred questions")]
    let share = 1.0 - wrong.len() as f64 / questions.len() as f64;
    (share, wrong)
}

#[tokio::test]
async fn questions_find_what_answers_them() {
    assert!(KNOWN.len() + UNSEEN.len() >= 60);
    let (known, wrong) = precision(KNOWN).await;
    println!("first choice right: {known:.3} of {} questions\n{}", KNOWN.len(), wrong.join("\n"));
    assert!(known >= 0.97, "{known}: {wrong:#?}");
    let (unseen, wrong) = precision(UNSEEN).await;
    println!("first choice right: {unseen:.3} of {} unseen\n{}", UNSEEN.len(), wrong.join("\n"));
    assert!(unseen >= 0.85, "{unseen}: {wrong:#?}");
}

#[tokio::test]
async fn what_the_catalogue_cannot_answer_is_not_answered() {
    let workflows = offered();
    for question in UNANSWERED {
        let found = interpret(question, &workflows).await;
        assert_eq!(found["answerable"], false, "{question}: {found:#}");
        assert_eq!(found["sources"], json!([]), "{question}");
    }
    let near = interpret("which vacuum cleaner should I write about", &workflows).await;
    assert!(!near["nearest"].as_array().unwrap().is_empty() || near["answerable"] == true);
}

#[tokio::test]
async fn harm_in_a_question_is_set_aside() {
    let (share, wrong) = precision(WITH_HARM).await;
    assert!((share - 1.0).abs() < f64::EPSILON, "{wrong:#?}");
    let found = interpret(WITH_HARM[0].0, &json!([])).await;
    assert_eq!(found["left_out"], json!(["DROP TABLE s.orders"]));
    let text = found["question"].as_str().unwrap();
    assert!(!text.contains("DROP"), "{text}");
}

#[tokio::test]
async fn slips_of_the_pen_are_read_as_what_was_meant() {
    let found = interpret("which tables need vaccum and which indxes are unused", &json!([])).await;
    let read: Vec<&str> = found["corrections"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["read_as"].as_str())
        .collect();
    assert!(read.contains(&"vacuum"), "{found:#}");
}

/// The tools and queries that the workflow looks at, apart from the three that find, answer and explain.
fn looked_at(workflow: &Workflow) -> BTreeSet<String> {
    let inner = ["interpret_question", "answer_question", "explain_answer"];
    let names = workflow.steps.iter().map(|step| match &step.action {
        Action::Tool(tool) => tool.meta().name.to_owned(),
        Action::Sql { name, .. } => name.clone(),
        other => panic!("only tools and queries are looked at: {other:?}"),
    });
    names.filter(|name| !inner.contains(&name.as_str())).collect()
}

#[test]
fn everything_that_can_be_chosen_is_looked_at_and_only_reads() {
    let catalog = Catalog::builtin();
    let all = shipped();
    let workflow = all.iter().find(|it| it.spec.name.value == "natural_language_dba").unwrap();
    let sources: BTreeSet<String> = SOURCES.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(sources.len(), SOURCES.len(), "a source stands there twice");
    assert_eq!(looked_at(workflow), sources);
    for source in SOURCES {
        if let Some(tool) = catalog.find(source.name) {
            assert!(!tool.is_write(), "{} changes something", source.name);
        }
        assert!(!source.views.is_empty(), "{} shows nothing", source.name);
        for also in source.also {
            assert!(sources.contains(*also), "{also}");
        }
    }
    for (tool, _) in POINTED {
        assert!(catalog.find(tool).is_some() && !sources.contains(*tool), "{tool}");
    }
}

#[test]
fn every_command_that_is_told_exists() {
    let catalog = Catalog::builtin();
    let workflows = shipped();
    let workflow = |name: &str| workflows.iter().find(|it| it.spec.name.value == name).cloned();
    let project = Project::new();
    let remedies = SOURCES.iter().flat_map(|it| it.remedies).map(|it| it.command);
    for command in remedies.chain(VERBS.iter().map(|verb| verb.command)) {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["lakeops", "run", name] => {
                let found = workflow(name).unwrap_or_else(|| panic!("{command}"));
                let needs = found.spec.params.iter().find(|it| it.required && it.default.is_none());
                let misses = needs.filter(|it| it.name.value != "project").map(|it| &it.name.value);
                assert_eq!(misses, None, "{command}");
            }
            ["lakeops", "tools", "run", name, ..] => {
                let offered = workflow(name).is_some_and(|it| it.spec.registration.is_some());
                assert!(offered || catalog.find(name).is_some(), "{command}");
            }
            ["lakeops", verb @ ..] => {
                project.run(&[verb, &["--help"][..]].concat()).ends(0);
            }
            _ => panic!("{command}"),
        }
    }
}

fn source<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let all = answer["evidence"].as_array().unwrap();
    all.iter().find(|it| it["source"] == name).unwrap_or_else(|| panic!("{name}: {answer:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_database_answers_with_figures_rows_and_what_fixes_it() {
    let endpoint = postgres().await.fresh_database("ask").await;
    let mut project = Project::new();
    project.url = Some(endpoint.to_url().expose().clone());
    let mut connection = connect(&endpoint).await;
    for statement in [
        "create schema s",
        "create table s.orders (id int primary key, customer int, note text)",
        "insert into s.orders select g, g, 'n ' || g from generate_series(1, 20000) as g",
        "create index orders_customer on s.orders (customer)",
        "create index orders_customer_again on s.orders (customer)",
    ] {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }

    let answer = project.json(&["ask", "do", "I", "have", "duplicate", "indexes?"]);
    assert_eq!(answer["answered"], true, "{answer:#}");
    let found = source(&answer, "detect_duplicate_indexes");
    assert_eq!(found["lists"][0]["rows"][0]["table"], "s.orders", "{answer:#}");
    assert!(answer["answer"].as_str().unwrap().starts_with("1 superfluous index: table s.orders"));
    assert_eq!(answer["fixes"][0]["command"], "lakeops run index_review");

    // A session that holds another up.
    sqlx::raw_sql("begin; lock table s.orders").execute(&mut connection).await.unwrap();
    let mut waits = connect(&endpoint).await;
    let waiting = tokio::spawn(async move {
        sqlx::raw_sql("update s.orders set note = 'secret of Ada' where id = 1")
            .execute(&mut waits)
            .await
    });
    let is_waiting = "select exists (select from pg_locks where not granted \
                      and relation = 's.orders'::regclass)";
    until(&endpoint, is_waiting, Duration::from_mins(1)).await;
    let text = project.run(&["ask", "who is blocking whom?"]).ends(0).out;
    assert!(
        text.contains("s.orders") && text.contains("lakeops run relieve_connections"),
        "{text}"
    );
    sqlx::raw_sql("rollback").execute(&mut connection).await.unwrap();
    waiting.await.unwrap().unwrap();

    // What no catalogue answers, and what wants to do harm.
    let weather = ["ask", "what is the weather in Paris", "--output", "json"];
    let nothing = project.run(&weather).ends(1).json();
    assert_eq!((&nothing["answered"], &nothing["evidence"]), (&json!(false), &json!([])));
    let harm = project.json(&["ask", "'; DROP TABLE s.orders; --"]);
    assert_eq!(harm["answered"], false, "{harm:#}");
    assert_eq!(harm["left_out"], json!(["DROP TABLE s.orders"]));
    let both = project.json(&[
        "ask",
        "--most",
        "1",
        "which indexes are unused'; delete from s.orders; --",
    ]);
    assert_eq!(both["left_out"], json!(["delete from s.orders"]));
    assert!(source(&both, "catalog/unused_indexes")["is_wrong"] == true, "{both:#}");
    let rows: i64 = value(&endpoint, "select count(*) from s.orders").await;
    assert_eq!(rows, 20_000);

    // What the connection cannot tell is not measured, and that is said.
    let branches = project.json(&["ask", "which branches exist"]);
    assert_eq!(branches["answered"], false, "{branches:#}");
    let why = branches["not_measured"][0]["why"].as_str().unwrap();
    assert!(why.contains("Lakebase"), "{branches:#}");
    // The same as a tool, with the user's own workflow of that name.
    let shipped = include_str!("../../../workflows/natural_language_dba.yaml");
    project.write("workflows/natural_language_dba.yaml", shipped);
    let question = "question=which foreign keys have no index?";
    let tool = project.json(&["tools", "run", "natural_language_dba", "-p", question]);
    assert_eq!(tool["answered"], true, "{tool:#}");
    assert_eq!(tool["intents"][0]["name"], "detect_missing_fk_indexes");
}
