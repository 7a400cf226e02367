//! Figures about operations, from a journal that the real engine wrote while it healed a real server.

use lakeops::config::Settings;
use lakeops::engine::StartOptions;
use lakeops::journal::event::{Decision, Event};
use lakeops::journal::occasion::Cause;
use lakeops::journal::store::{Append, Expect, Stream};
use lakeops::journal::{Entry, Outcome};
use lakeops::kernel::{Clock as _, Span, SystemClock};
use lakeops::plan::document::ApprovalMode;
use lakeops::report::Style;
use lakeops::report::operations::{Fold, KINDS, Operations, text};
use serde_json::{Value, json};

use crate::engine::kit::{plan, sql, step};
use crate::harness::alone;
use crate::tools::{Bench as Database, sick_table};
use crate::workflows::Bench;

fn figures(entries: &[Entry]) -> Operations {
    let mut fold = Fold::new(None);
    let known = entries.iter().filter(|entry| KINDS.contains(&entry.event.kind()));
    known.for_each(|entry| fold.add(entry.clone()));
    fold.finish(SystemClock.now(), Some(Span::from_secs(900)))
}

/// What the looks at alerts came to, as the journal has them.
fn looks(entries: &[Entry]) -> Vec<Value> {
    let output = |entry: &Entry| match &entry.event {
        Event::StepSucceeded { output, fact: Some(fact), .. }
            if fact.name.tool == "evaluate_alert_thresholds" =>
        {
            Some(output.value().into_owned())
        }
        _ => None,
    };
    entries.iter().filter_map(output).collect()
}

fn turned(looks: &[Value], turn: &str) -> Option<usize> {
    let is = |one: &Value| one["metric"] == "dead_tuple_ratio" && one["turn"] == turn;
    looks.iter().position(|look| look["transitions"].as_array().unwrap().iter().any(is))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_from_its_begin_to_its_proof_without_a_person() {
    let (_place, server) = alone("operations").await;
    let database = Database { endpoint: server.endpoint(), settings: Settings::default() };
    let bench = Bench::on(server.endpoint());

    assert_eq!(bench.run("watch_health", &[]).await.1, Outcome::Succeeded);
    sick_table(&database, "storm", "").await;
    assert_eq!(bench.run("watch_health", &[]).await.1, Outcome::Succeeded);
    let event = json!({"metric": "dead_tuple_ratio", "value": 0.6, "turn": "fired"});
    let params = [("metric", "dead_tuple_ratio"), ("value", "0.6")];
    let answer = bench.plan("incident_response", &params);
    let cause = Cause::Event { trigger: "incident_response".into(), position: 1, event, depth: 1 };
    let also = |_: &_| Append {
        stream: Stream::System,
        expect: Expect::Anything,
        events: vec![Event::EventPublished {
            name: "noticed".into(),
            payload: Value::Null,
            depth: 0,
        }],
    };
    let by = crate::workflows::somebody();
    let (run, _) = bench.engine.start_because(&answer, (by, cause), also).await.unwrap();
    assert_eq!(bench.execute(&run).await, Outcome::Succeeded);
    let outputs = bench.view(&run).await.outputs;
    assert_eq!(outputs["status"], "healed", "{outputs}");
    assert_eq!(bench.run("watch_health", &[]).await.1, Outcome::Succeeded);

    // A person decides elsewhere, which is nothing to this incident; a sample says what we cost.
    let mut asked = step("asked", &[], sql(&["select 1"]));
    asked.approval = ApprovalMode::Required;
    let options =
        StartOptions { key: None, by: crate::workflows::somebody(), yes: false, forked_from: None };
    let waits = bench.engine.start(&plan(vec![asked]), options).await.unwrap();
    assert_eq!(bench.execute(&waits).await, Outcome::WaitingApproval);
    let by = crate::workflows::somebody();
    let decision = (Decision::Rejected, (&by, "not today"));
    bench.engine.decide_approval((&waits, None), None, decision.0, decision.1).await.unwrap();
    bench.execute(&waits).await;
    bench.run("sample_sessions", &[("branches", r#"["main"]"#)]).await;

    let entries = bench.journal.entries(lakeops::journal::store::EntryFilter::default());
    let entries = entries.await.unwrap();
    let found = figures(&entries);
    let shown = text(Style::PLAIN, &found);
    let one = found.incidents.iter().find(|one| one.metric == "dead_tuple_ratio");
    let one = one.unwrap_or_else(|| panic!("{shown}"));
    assert!(one.healed_alone && one.is_low_risk(), "{one:#?}");
    assert_eq!(one.healed_by.as_deref(), Some(run.as_str()));
    assert_eq!(one.cause.as_deref(), Some("dead_rows_pile_up"));

    // The same times, counted by hand.
    let looks = looks(&entries);
    let (fired, resolved) = (turned(&looks, "fired").unwrap(), turned(&looks, "resolved").unwrap());
    let at = |look: usize| lakeops::kernel::Timestamp::parse(looks[look]["at"].as_str().unwrap());
    assert_eq!((fired, resolved), (1, 2));
    assert_eq!((one.in_order_at, Some(one.detected_at), one.resolved_at), (at(0), at(1), at(2)));
    let seconds = |from, to| at(to).unwrap().since(at(from).unwrap()).as_secs_f64();
    assert_eq!(one.detect_seconds, Some(seconds(0, 1)));
    assert_eq!(one.resolve_seconds, Some(seconds(1, 2)));
    assert!(found.targets.iter().all(|goal| goal.met == Some(true)), "{shown}");

    // So are the runs, the approval, and what was done without a person.
    let finished = |entry: &&Entry| matches!(entry.event, Event::RunFinished { .. });
    let over = entries.iter().filter(finished).count();
    assert_eq!(usize::try_from(found.runs.started).unwrap(), over);
    assert_eq!(found.runs.by_themselves, 1);
    assert_eq!((found.approvals.asked, found.approvals.rejected), (1, 1));
    assert_eq!(found.approvals.latency.as_ref().map(|latency| latency.count), Some(1));
    assert_eq!((found.toil.runs_without_a_person, found.toil.deeds_of_people), (1, 1));
    assert!(found.toil.changes_without_a_person > 0, "{shown}");
    assert_eq!(found.toil.saved_hours, Some(0.25));
    let own = found.own_queries.as_ref().unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(own.samples, 1);
    assert!(shown.contains("healed without a person"), "{shown}");
    println!("{shown}");
    server.stop().await.unwrap();
}
