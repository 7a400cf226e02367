//! What a server does by itself, and what it answers.

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Served, entries, project, rows, until};

const ASK: &str = "version: 1\nname: ask\ndescription: Insert a row once somebody agreed.\nparams:\n  n: \
    { type: integer, default: 7 }\nsteps:\n  - id: insert\n    tool: execute_sql\n    approval: required\n    \
    with: { statements: [ { sql: \"insert into public.t values ($1)\", binds: [\"${{ params.n }}\"] } ] }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_approved_and_followed_over_http() {
    let project = project("serve_http", "").await;
    project.write("workflows/ask.yaml", ASK);
    let served = Served::start(&project, &[]);
    assert_eq!(served.ask("GET /health", &[], "").0, 200);
    assert_eq!(served.ask("POST /v1/runs", &[], "{\"workflow\":\"ask\"}").0, 401);
    let wrong = [("Authorization", "Bearer no")];
    assert_eq!(served.ask("GET /v1/runs", &wrong, "").0, 401);
    let (status, refused) = served.api("POST /v1/runs", None, "{\"workflow\":\"nosuch\"}");
    assert_eq!((status, &refused["error"]["code"]), (422, &json!("server::no_workflow")));
    let body = json!({ "workflow": "ask", "params": { "n": 5 } }).to_string();
    let (status, run) = served.api("POST /v1/runs", Some("once"), &body);
    assert_eq!(status, 202, "{run}");
    let id = run["run_id"].as_str().unwrap().to_owned();
    let (_, again) = served.api("POST /v1/runs", Some("once"), &body);
    assert_eq!(again["run_id"], run["run_id"], "the same key is the same run");
    assert_eq!(run["started_by"]["name"], "ci");
    let get = format!("GET /v1/runs/{id}");
    let outcome = || served.api(&get, None, "").1["outcome"].clone();
    assert!(until(|| outcome() == "waiting_approval"));
    let place = format!("/v1/runs/{id}/approvals");
    let (_, asked) = served.api(&format!("GET {place}"), None, "");
    let digest = asked[0]["request"]["digest"].as_str().unwrap_or_else(|| panic!("{asked}"));
    let ruling = |digest: &str| json!({ "step": "insert", "digest": digest, "decision": "approved", "reason": "seen" });
    let other = ruling(&"0".repeat(64)).to_string();
    assert_eq!(served.api(&format!("POST {place}"), None, &other).0, 409, "not what was shown");
    let (status, _) = served.api(&format!("POST {place}"), None, &ruling(digest).to_string());
    assert!(status < 300);
    assert!(until(|| outcome() == "succeeded"));
    assert_eq!(rows(&project).await, 1);
    assert!(until(|| served.metric("lakeops_runs_left_total{outcome=\"succeeded\"}") == 1));
    assert_eq!(served.end(Signal::SIGTERM), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_he_started_where_that_is_forbidden() {
    let project = project("serve_self", "").await;
    project.write("workflows/ask.yaml", ASK);
    let forbidden = "\n[settings.approvals]\nallow_self = false\n";
    project.write(".config/lakeops.toml", &format!("{}{forbidden}", super::CONFIG));
    // By the command line: asking for it at the start is no approval either.
    let run = project.run(&["run", "ask", "--yes", "--output", "json"]).ends(3).json();
    let ours = run["run_id"].as_str().unwrap().to_owned();
    let refused = project.run(&["approve", &ours, "--reason", "by myself"]).ends(2);
    for part in ["started it and may not approve it", "ask another person"] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    // By the API: what its token started.
    let served = Served::start(&project, &[]);
    let (_, run) = served.api("POST /v1/runs", None, "{\"workflow\":\"ask\"}");
    let theirs = run["run_id"].as_str().unwrap().to_owned();
    let outcome =
        |id: &str| served.api(&format!("GET /v1/runs/{id}"), None, "").1["outcome"].clone();
    assert!(until(|| outcome(&theirs) == "waiting_approval"));
    let approve = |id: &str| {
        let place = format!("/v1/runs/{id}/approvals");
        let (_, asked) = served.api(&format!("GET {place}"), None, "");
        let digest = &asked[0]["request"]["digest"];
        let ruling =
            json!({ "step": "insert", "digest": digest, "decision": "approved", "reason": "seen" });
        served.api(&format!("POST {place}"), None, &ruling.to_string())
    };
    let (status, refused) = approve(&theirs);
    assert_eq!(status, 409, "{refused}");
    assert!(refused.to_string().contains("ci started it and may not approve it"), "{refused}");
    assert_eq!(rows(&project).await, 0, "nothing was done yet");
    // Each may approve what the other started.
    let (status, answer) = approve(&ours);
    assert!(status < 300, "{answer}");
    project.run(&["approve", &theirs, "--reason", "by another"]).ends(0);
    assert!(until(|| outcome(&ours) == "succeeded" && outcome(&theirs) == "succeeded"));
    assert_eq!(rows(&project).await, 2);
    assert_eq!(served.end(Signal::SIGTERM), Some(0));
}

const GATED: &str = "version: 1\nname: gated\ndescription: Insert a number once somebody agreed.\nsteps:\n  \
    - { id: gate, approval: { prompt: \"Go on?\" } }\n  - { id: number, needs: [gate], script: \
    sops/number.rhai }\n  - { id: count, needs: [gate], sql: shop/count }\n  - id: insert\n    tool: \
    execute_sql\n    with: { statements: [ { sql: \"insert into public.t values ($1)\", binds: \
    [\"${{ steps.number.n + steps.count.rows[0].n }}\"] } ] }\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_under_a_run_that_waits_does_not_change_that_run() {
    let project = project("serve_edited", "").await;
    let count = |n: u32| {
        let header =
            "-- purpose: a number\n-- needs: PostgreSQL 14\n-- params: none\n-- columns: n int8\n";
        format!("{header}select {n}::int8 as n\n")
    };
    project.write("workflows/gated.yaml", GATED);
    project.write("sops/number.rhai", "#{ n: 5 }\n");
    project.write("sql/shop/count.sql", &count(10));
    let wait = || {
        let run = project.run(&["run", "gated", "--output", "json"]).ends(3).json();
        run["run_id"].as_str().unwrap().to_owned()
    };
    let first = wait();
    // The script, the query and the workflow itself say something else now.
    project.write("sops/number.rhai", "#{ n: 600 }\n");
    project.write("sql/shop/count.sql", &count(2_000));
    project.write(
        "workflows/gated.yaml",
        &GATED.replace("steps.number.n +", "30000 + steps.number.n +"),
    );
    let second = wait();
    std::fs::remove_file(project.path().join("workflows/gated.yaml")).unwrap();
    std::fs::remove_file(project.path().join("sops/number.rhai")).unwrap();
    for run in [&second, &first] {
        project.run(&["approve", run, "--reason", "agreed"]).ends(0);
    }
    let sql = "select string_agg(n::text, ',' order by n) from public.t";
    let inserted: String = crate::harness::value(&project.endpoint(), sql).await;
    assert_eq!(inserted, "15,32600", "each did what it was planned to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_or_waits_and_decisions_are_left_to_it() {
    let project = project("serve_second", "").await;
    project.write("workflows/ask.yaml", ASK);
    let run = project.run(&["run", "ask", "--output", "json"]).ends(3).json();
    let served = Served::start(&project, &[]);
    let second = project.run(&["serve"]).ends(5);
    assert!(
        second.err.contains("lakeops serve") && second.err.contains("--wait"),
        "{}",
        second.err
    );
    let id = run["run_id"].as_str().unwrap();
    let approved = project.run(&["approve", id, "--reason", "agreed"]).ends(0);
    assert!(approved.err.contains("the server goes on with it"), "{}", approved.err);
    assert!(until(|| project.json(&["show", id])["outcome"] == "succeeded"));
    assert_eq!(served.end(Signal::SIGKILL), None);
    // The lock died with its process.
    let next = Served::start(&project, &[]);
    assert_eq!(next.end(Signal::SIGTERM), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_starts_a_run_with_its_fields_and_not_for_ever() {
    let triggers = "params:\n  n: { type: integer, default: 1 }\ntriggers:\n  - { event: chain, when: \
        'event.n < 100', overlap: allow }\n";
    let project = project("serve_chain", "").await;
    // Each run publishes the event that starts the next.
    project.write(
        "workflows/chain.yaml",
        &format!(
            "version: 1\nname: chain\ndescription: Cause the next.\n{triggers}steps:\n  - id: next\n    \
             tool: publish_event\n    with: {{ event: chain, payload: {{ n: \"${{{{ params.n + 1 }}}}\" }} }}\n"
        ),
    );
    let served = Served::start(&project, &[]);
    assert!(until(|| served.metric("lakeops_triggers") == 1));
    project.run(&["run", "chain"]).ends(0);
    let deep = "lakeops_trigger_events_total{fate=\"too_deep\"}";
    assert!(until(|| served.metric(deep) == 1), "it goes on for ever");
    served.end(Signal::SIGTERM);
    let mut numbers = Vec::new();
    for entry in entries(&project, &["event_published"]).await {
        let lakeops::journal::Event::EventPublished { payload, depth, .. } = entry.event else {
            panic!()
        };
        numbers.push((payload["n"].as_i64().unwrap(), depth));
    }
    let expected: Vec<(i64, u32)> = (1..=9).map(|depth| (i64::from(depth) + 1, depth)).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn the_next_times_of_any_cron_text_are_told() {
    let project = crate::cli::Project::new();
    let next = |cron: &str, zone: &str, from: &str| {
        let args = ["schedule", "next", "--cron", cron, "--time-zone", zone, "--from", from];
        project.json(&[&args[..], &["--count", "2"]].concat())
    };
    let spring = next("30 2 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z");
    assert_eq!(spring, json!(["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]));
    let offset = next("@daily", "UTC", "2026-01-01T00:30:00+01:00");
    assert_eq!(offset, json!(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]));
    assert_eq!(next("0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z"), json!([]));
    let bad = project.run(&["schedule", "next", "--cron", "61 * * * *"]).ends(2);
    assert!(bad.err.contains("character 1"), "{}", bad.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_paused_and_resumed_without_a_server() {
    let schedule = "schedule:\n  - { id: often, cron: \"* * * * *\" }\n";
    let project = project("serve_pause", schedule).await;
    project.run(&["schedule", "pause", "insert", "--reason", "release"]).ends(0);
    let listed = project.json(&["schedule", "list"]);
    assert_eq!(listed[0]["paused"][1], "release");
    project.run(&["schedule", "resume", "often", "--reason", "over"]).ends(0);
    project.run(&["schedule", "resume", "often", "--reason", "over"]).ends(2);
    assert!(project.json(&["schedule", "list"])[0]["paused"].is_null());
    let audit = project.run(&["audit", "--output", "csv"]).ends(0).out;
    assert!(audit.contains("schedule_paused") && audit.contains("release"), "{audit}");
    project.run(&["schedule", "trigger", "insert"]).ends(0);
    assert_eq!(rows(&project).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recommended_is_put_before_people_once() {
    let project = project("serve_review", "").await;
    project
        .write("workflows/review_queue.yaml", include_str!("../../../workflows/review_queue.yaml"));
    // As the tools and workflows that come with the program publish: the branch by its id.
    let recommend = "version: 1\nname: recommend\ndescription: Recommend.\nsteps:\n  - id: tell\n    tool: \
        publish_event\n    with:\n      event: index_recommendation\n      payload: { project_id: shop, \
        branch_id: staging, object: o_a_twin, reason: a twin }\n";
    project.write("workflows/recommend.yaml", recommend);
    let served = Served::start(&project, &[]);
    assert!(until(|| served.metric("lakeops_triggers") == 3));
    for _ in 0..2 {
        project.run(&["run", "recommend"]).ends(0);
    }
    let reviews = || -> Vec<serde_json::Value> {
        let runs = project.json(&["runs"]);
        let of = |run: &&serde_json::Value| run["workflow"] == "review_queue";
        runs.as_array().unwrap().iter().filter(of).cloned().collect()
    };
    let done = || reviews().iter().filter(|run| run["outcome"] == "succeeded").count() == 2;
    assert!(until(done), "{:?}", reviews());
    served.end(Signal::SIGTERM);
    assert!(reviews()[0]["target"].as_str().unwrap().contains("shop/staging"), "{:?}", reviews());
    let mut told = Vec::new();
    for entry in entries(&project, &["notification_queued"]).await {
        if let lakeops::journal::Event::NotificationQueued { dedup, title, body, .. } = entry.event
        {
            assert_eq!(title, "for review: index_recommendation of o_a_twin");
            assert_eq!(body, "a twin");
            told.push(dedup);
        }
    }
    assert!(!told.is_empty());
    assert!(
        told.iter().all(|key| key == "review index_recommendation shop/staging o_a_twin"),
        "{told:?}"
    );
}
