//! Reports: what is folded from entries, and how it reads.

use lakeops::journal::Entry;
use lakeops::journal::event::{
    ApprovalRequest, Decision, Event, Item, Outcome, Principal, SkipReason,
};
use lakeops::kernel::{
    Bind, Change, ChangeSet, Digest, Direction, Failure, Operation, Receipt, Risk, Seen,
    Settlement, Target, Timestamp,
};
use lakeops::plan::{Plan, PlanBody};
use lakeops::report::graph::{Language, graph};
use lakeops::report::run::Detail;
use lakeops::report::{RunView, Style, approvals, audit, explain, plan, run, timeline};
use serde_json::{Value, json};

const START: i64 = 1_763_800_000_000;

fn step(id: &str, action: impl Into<Value>, needs: &[(&str, bool)]) -> Value {
    let needs: Vec<Value> =
        needs.iter().map(|(step, inferred)| json!({"step": step, "inferred": inferred})).collect();
    json!({
        "id": id, "needs": needs, "action": action.into(), "risk": "low", "timeout": "2m",
        "retry": {"max_attempts": 3, "on": ["transient"],
                  "backoff": {"initial": "1s", "factor": 2.0, "max": "30s", "jitter": 0.2}},
    })
}

fn tool(name: &str, with: &Value) -> Value {
    json!({"kind": "tool", "tool": name, "with": with})
}

fn body() -> PlanBody {
    let zero = Digest::of_bytes(b"");
    let mut heal = step(
        "heal",
        tool("schedule_vacuum_analyze", &json!({"table": "${{ item }}"})),
        &[("decide", true)],
    );
    heal["when"] = json!("steps.decide.act");
    heal["risk"] = json!("high");
    heal["for_each"] = json!({"in": "${{ steps.decide.tables }}", "key": "${{ item }}",
                              "max_parallel": 2, "fail_fast": false});
    let inner = json!({
        "kind": "workflow", "workflow": "health_check", "digest": zero, "params": {}, "target": null,
        "lock": null, "outputs": {},
        "steps": [step("look", tool("monitor_connections", &json!({})), &[])],
    });
    serde_json::from_value(json!({
        "workflow": "heal_bloat", "description": "Vacuums what needs it.", "workflow_digest": zero,
        "params": {"least": 0.2}, "target": {"project": "demo", "branch": "production"},
        "connection": "local", "lock": null, "limits": {"timeout": "1h", "max_changes": 50},
        "steps": [
            step("diagnose", tool("identify_tables_needing_vacuum", &json!({})), &[]),
            step("decide", json!({"kind": "script", "script": "sops/bloat.rhai",
                 "with": {"found": "${{ steps.diagnose }}"}}), &[("diagnose", true)]),
            heal,
            step("check", inner, &[("heal", false)]),
        ],
        "on_failure": [step("alert", tool("send_alert", &json!({"title": "failed"})), &[])],
        "always": [], "outputs": {},
        "scripts": {"sops/bloat.rhai": {"sha256": Digest::of_bytes(b"x"), "text": "x"}},
        "sql": {}, "tools": {"send_alert": 1}, "policy": null, "secrets": [], "preconditions": [],
        "replaces": null, "schedule": null, "triggers": null,
    }))
    .unwrap()
}

fn the_plan() -> Plan {
    Plan::seal(body(), Timestamp::from_millis(START)).unwrap()
}

fn ann() -> Principal {
    Principal { name: "ann".into(), from: "desk".into() }
}

fn set(table: &str) -> ChangeSet {
    let vacuum = format!("vacuum (full, analyze) \"public\".\"{table}\"");
    let operation = Operation::sql_outside_transaction(vacuum);
    let mut change = Change::new(format!("public.{table}"), "62 % dead rows", operation);
    change.risk = Risk::High;
    let note = Operation::sql("insert into notes values ($1)", vec![Bind::Text("done".into())]);
    ChangeSet::new(vec![change, Change::new("notes", "to remember", note)])
}

fn proposed(step: &str, table: &str) -> Event {
    Event::ChangesProposed {
        step: step.into(),
        arguments: json!({"table": table}),
        set: set(table),
        policy: json!([{"change": 0, "verdict": "ask", "reasons": ["over the cap"], "rules": [
            {"rule": "over the cap", "verdict": true, "why": "8 of 4 bytes",
             "seen": [{"name": "change.cost.bytes_rewritten", "value": 8}]},
        ]}]),
        ask: vec!["risk high".into()],
        server: Value::Null,
    }
}

fn request() -> ApprovalRequest {
    ApprovalRequest {
        digest: Digest::of_bytes(b"both"),
        prompt: "Rewrite 2 tables?".into(),
        covers: vec!["heal[orders]".into(), "heal[items]".into()],
        risk: Risk::High,
        reasons: vec!["risk high".into()],
        expires_at: Timestamp::from_millis(START + 86_400_000),
        show: Value::Null,
        rehearsed_within: None,
        direction: Direction::Do,
    }
}

fn succeeded(step: &str, output: Value) -> Event {
    Event::StepSucceeded {
        step: step.into(),
        output: output.into(),
        history: Vec::new().into(),
        seen: vec![],
        fact: None,
    }
}

fn attempt(step: &str, attempt: u32) -> Event {
    Event::AttemptStarted { step: step.into(), attempt, arguments: json!({}) }
}

/// Up to the question.
fn until_approval() -> Vec<Event> {
    let item = |key: &str| Item { key: key.into(), value: json!(key) };
    vec![
        Event::RunCreated {
            plan: the_plan().id,
            workflow: "heal_bloat".into(),
            target: Target {
                project: Some("demo".into()),
                branch: Some("production".into()),
                database: None,
            },
            key: Some("nightly".into()),
            by: ann(),
            yes: false,
            forked_from: None,
            cause: None,
        },
        Event::RunClaimed { by: ann(), pid: 7 },
        attempt("diagnose", 1),
        Event::AttemptFailed {
            step: "diagnose".into(),
            attempt: 1,
            failure: Failure::transient("postgres::connection", "the connection was lost"),
            retry_at: Some(Timestamp::from_millis(START + 2_000)),
        },
        attempt("diagnose", 2),
        succeeded("diagnose", json!({"tables": ["orders", "items"]})),
        attempt("decide", 1),
        succeeded("decide", json!({"act": true, "tables": ["orders", "items"]})),
        Event::ConditionEvaluated {
            step: "heal".into(),
            result: true,
            seen: vec![Seen { name: "steps.decide.act".into(), value: json!(true) }],
        },
        Event::ItemsListed { step: "heal".into(), items: [item("orders"), item("items")].into() },
        proposed("heal[orders]", "orders"),
        proposed("heal[items]", "items"),
        Event::ApprovalRequested { step: "heal".into(), request: request() },
        Event::RunParked {
            outcome: Outcome::WaitingApproval,
            wake_at: Some(Timestamp::from_millis(START + 86_400_000)),
            reason: "step `heal` waits for an approval".into(),
        },
    ]
}

fn change(step: &str, index: u32, settlement: Settlement) -> [Event; 2] {
    let step = step.to_owned();
    let direction = Direction::Do;
    let set = set("orders").digest;
    let fingerprint = Value::Null;
    [
        Event::ChangeStarted { step: step.clone(), set, index, direction, fingerprint },
        Event::ChangeSettled { step, index, direction, settlement },
    ]
}

fn until_the_end() -> Vec<Event> {
    let mut events = until_approval();
    events.push(Event::ApprovalDecided {
        step: "heal".into(),
        digest: request().digest,
        decision: Decision::Approved,
        by: ann(),
        reason: "low traffic".into(),
    });
    events.push(Event::RunClaimed { by: ann(), pid: 8 });
    let receipt = Receipt {
        before: json!({"bytes": 8192}),
        after: json!({"bytes": 4096}),
        duration_ms: Some(1_234),
        ..Receipt::default()
    };
    let noted = Event::ChangeNoted {
        step: "heal[orders]".into(),
        index: 0,
        direction: Direction::Do,
        note: "projects/shop/operations/7".into(),
    };
    let [started, settled] = change("heal[orders]", 0, Settlement::Applied { receipt });
    events.extend([started, noted, settled]);
    let found = Receipt { recovered: true, rows: Some(1), ..Receipt::default() };
    events.extend(change("heal[orders]", 1, Settlement::Applied { receipt: found }));
    events.push(succeeded("heal[orders]", json!({"bytes_freed": 4096})));
    events.extend(change("heal[items]", 0, Settlement::Moot));
    events.push(Event::AttemptFailed {
        step: "heal[items]".into(),
        attempt: 1,
        failure: Failure::permanent("postgres::insufficient_privilege", "permission denied")
            .with_help("grant maintain on table public.items to ann"),
        retry_at: None,
    });
    events.push(Event::AttemptFailed {
        step: "heal".into(),
        attempt: 1,
        failure: Failure::permanent("engine::items_failed", "1 of 2 items failed"),
        retry_at: None,
    });
    events.push(Event::StepSkipped {
        step: "check".into(),
        reason: SkipReason::NeedFailed { step: "heal".into() },
    });
    events.push(Event::EndingBegan {
        outcome: Outcome::Failed,
        compensate: false,
        scope: None,
        failure: Some(Failure::permanent("engine::items_failed", "1 of 2 items failed")),
    });
    events.push(attempt("alert", 1));
    events.push(succeeded("alert", Value::Null));
    events.push(Event::RunFinished {
        outcome: Outcome::Failed,
        compensation: lakeops::journal::event::Compensation::None,
        outputs: Value::Null,
    });
    events
}

fn entries(events: Vec<Event>) -> Vec<Entry> {
    let stored = (1u64..).zip(events).map(|(seq, event)| Entry {
        position: seq + 10,
        stream: "3f9a5b7c1d2e4f60".into(),
        seq,
        at: Timestamp::from_millis(START + i64::try_from(seq).unwrap() * 500),
        event,
    });
    stored.collect()
}

fn view(events: Vec<Event>) -> RunView {
    RunView::from_entries(&the_plan(), &entries(events))
}

#[test]
fn a_waiting_run_says_what_it_waits_for() {
    let view = view(until_approval());
    assert_eq!(view.outcome, Outcome::WaitingApproval);
    assert_eq!(view.step("heal").unwrap().state, "waiting_approval");
    assert_eq!(view.step("diagnose").unwrap().attempts, 2);
    insta::assert_snapshot!(run::run(Style::PLAIN, &view, Detail::Changes));
}

#[test]
fn a_finished_run_shows_steps_changes_and_failures() {
    let view = view(until_the_end());
    assert_eq!(view.outcome, Outcome::Failed);
    insta::assert_snapshot!(run::run(Style::PLAIN, &view, Detail::Outputs));
}

#[test]
fn the_json_of_a_run_has_the_promised_shape() {
    let json = serde_json::to_value(view(until_the_end())).unwrap();
    for key in ["run_id", "plan_id", "workflow", "outcome", "steps"] {
        assert!(json.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(json["outcome"], "failed");
    for step in json["steps"].as_array().unwrap() {
        for key in ["id", "state", "attempts", "output"] {
            assert!(step.get(key).is_some(), "{key} is missing in {step}");
        }
    }
    let ids: Vec<&str> =
        json["steps"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "diagnose",
            "decide",
            "heal",
            "heal[orders]",
            "heal[items]",
            "check",
            "check/look",
            "alert"
        ]
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&json["steps"][3]).unwrap());
}

#[test]
fn an_approval_shows_every_statement_that_it_covers() {
    let view = view(until_approval());
    let approval = view.open_approvals().next().unwrap();
    insta::assert_snapshot!(approvals::one(Style::PLAIN, &view, approval));
    let json = approvals::to_json(&view, approval);
    assert_eq!(json["changes"]["heal[items]"]["changes"][0]["object"], "public.items");
    assert!(approvals::list(Style::PLAIN, &[(&view, approval)]).contains("demo/production"));
}

#[test]
fn a_decided_approval_is_not_open() {
    assert_eq!(view(until_the_end()).open_approvals().count(), 0);
}

#[test]
fn a_step_is_explained_with_the_values_that_it_saw() {
    let (plan, view) = (the_plan(), view(until_the_end()));
    let explained = |key: &str| {
        let planned = explain::planned(&plan.body.steps, key);
        explain::text(Style::PLAIN, &view, view.step(key).unwrap(), planned)
    };
    insta::assert_snapshot!([explained("heal"), explained("heal[items]")].join("\n----\n"));
    assert!(explained("check").contains("it did not run: `heal` failed"));
}

#[test]
fn keys_lead_back_to_planned_steps() {
    let plan = the_plan();
    let id = |key: &str| explain::planned(&plan.body.steps, key).map(|step| step.id.clone());
    assert_eq!(id("heal[a/b]").as_deref(), Some("heal"));
    assert_eq!(id("check/look").as_deref(), Some("look"));
    assert_eq!(id("check[x]/look").as_deref(), Some("look"));
    assert_eq!(id("checks/look"), None);
}

#[test]
fn every_event_has_a_line() {
    let lines: Vec<String> =
        entries(until_the_end()).iter().map(|entry| timeline::line(Style::PLAIN, entry)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_plan_is_shown_with_both_kinds_of_edges() {
    insta::assert_snapshot!(plan::text(Style::PLAIN, &the_plan()));
    insta::assert_snapshot!(graph(&the_plan(), Language::Mermaid), @r#"
    flowchart TD
      s_diagnose["diagnose<br/>tool identify_tables_needing_vacuum"]
      s_decide["decide<br/>script sops/bloat.rhai"]
      s_heal["heal<br/>tool schedule_vacuum_analyze"]
      subgraph s_check["check · health_check"]
        s_check__look["look<br/>tool monitor_connections"]
      end
      s_diagnose -.-> s_decide
      s_decide -.-> s_heal
      s_heal --> s_check
    "#);
    insta::assert_snapshot!(graph(&the_plan(), Language::Dot), @r#"
    digraph "heal_bloat" {
      node [shape=box, fontname="sans-serif"];
      s_diagnose [label="diagnose\ntool identify_tables_needing_vacuum"];
      s_decide [label="decide\nscript sops/bloat.rhai"];
      s_heal [label="heal\ntool schedule_vacuum_analyze"];
      subgraph "cluster_check" {
        label="check · health_check"; s_check [shape=point];
        s_check__look [label="look\ntool monitor_connections"];
      }
      s_diagnose -> s_decide [style=dotted];
      s_decide -> s_heal [style=dotted];
      s_heal -> s_check;
    }
    "#);
}

#[test]
fn an_audit_names_who_did_what() {
    let rows = lakeops::journal::audit(&entries(until_the_end()));
    let text = audit::text(Style { color: false, width: 200 }, &rows);
    let decided = text.lines().find(|line| line.contains("approved")).unwrap();
    assert!(decided.contains("ann") && decided.contains("low traffic"), "{decided}");
    assert!(text.contains("vacuum (full, analyze)"));
}
