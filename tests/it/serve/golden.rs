//! The journal that a server of an earlier version left: slots, events, alerts and a run that waits. Every
//! later server must go on from it. It is kept as SQL text beside those of single runs.
//!
//! `cargo test --test it write_golden_server -- --ignored` writes that of the present version.

use std::net::TcpListener;
use std::time::Duration;

use lakeops::journal::store::Stream;
use lakeops::journal::{Event, SlotFate};
use lakeops::kernel::{Clock as _, SystemClock, Timestamp};
use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::json;

use super::alerts::Receiver;
use super::{Served, entries, execute, project, record, rows, until, with_hook};
use crate::cli::Project;
use crate::engine::golden::{dump, folder};

const FILE: &str = "served_2.sql";

/// The kinds that only a server and its neighbours write.
const KINDS: [&str; 10] = [
    "schedule_seen",
    "slots_decided",
    "schedule_paused",
    "schedule_resumed",
    "trigger_seen",
    "trigger_decided",
    "event_published",
    "notification_queued",
    "alert_routed",
    "alerts_failed",
];

const OCCASIONS: &str = "schedule:\n  - { id: often, cron: \"* * * * *\", overlap: allow, catch_up: none }\n\
    triggers:\n  - { event: nudge, overlap: allow }\n";

const ASKS: &str = "version: 1\nname: asks\ndescription: Ask.\nsteps:\n  - id: put\n    tool: execute_sql\n    \
    with: { statements: [\"insert into public.t values (7)\"] }\n    approval: required\n";

const TELL: &str = "version: 1\nname: tell\ndescription: Tell people.\nsteps:\n  - id: tell\n    tool: \
    send_alert\n    with: { severity: critical, title: \"locks pile up\", body: now, key: locks }\n";

const VARIABLES: [(&str, &str); 1] = [("HOOK", "hook-key-0123")];

async fn golden(hook: &str) -> Project {
    let project = project("golden_server", OCCASIONS).await;
    let config = with_hook(hook, "repeat_after = \"36500d\"\n");
    project.write(".config/lakeops.toml", &config);
    project.write("workflows/asks.yaml", ASKS).write("workflows/tell.yaml", TELL);
    project
}

fn nudge() -> Event {
    Event::EventPublished { name: "nudge".to_owned(), payload: json!({ "n": 1 }), depth: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_on_from_what_an_earlier_one_left() {
    let hook = Receiver::at("127.0.0.1:0", 0, false);
    let project = golden(&hook.address).await;
    let state = project.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let text = std::fs::read_to_string(folder().join(FILE)).unwrap();
    Connection::open(state.join("journal.db")).unwrap().execute_batch(&text).unwrap();
    let left = entries(&project, &[]).await;
    for kind in KINDS {
        assert!(left.iter().any(|entry| entry.event.kind() == kind), "no {kind} in it");
    }
    let last = left.last().unwrap().position;
    let watermark = left.iter().filter_map(|entry| match &entry.event {
        Event::SlotsDecided { last, .. } => Some(*last),
        _ => None,
    });
    let watermark = watermark.max().unwrap();
    project.run(&["audit", "verify"]).ends(0);

    tokio::task::block_in_place(|| {
        let served = Served::start(&project, &VARIABLES);
        // The alert that waits is sent, and the event that nobody looked at starts its run.
        assert!(until(|| hook.taken().len() == 1), "the alert was lost");
        assert!(until(|| served.metric("lakeops_alerts_waiting") == 0));
        let (_, runs) = served.api("GET /v1/runs", None, "");
        let waits = runs.as_array().unwrap().iter().find(|run| run["workflow"] == "asks").unwrap();
        assert_eq!(waits["outcome"], "waiting_approval");
        let id = waits["run_id"].as_str().unwrap();
        project.run(&["approve", id, "--reason", "still wanted"]);
        let outcome = || served.api(&format!("GET /v1/runs/{id}"), None, "").1["outcome"].clone();
        assert!(until(|| outcome() == "succeeded"), "{}", outcome());
        assert!(until(|| served.metric("lakeops_runs_working") == 0));
        served.end(Signal::SIGTERM);
    });
    let since: Vec<_> =
        entries(&project, &[]).await.into_iter().filter(|entry| entry.position > last).collect();
    let mut first_slot = None;
    let mut nudges = 0;
    for entry in &since {
        match &entry.event {
            Event::SlotsDecided { first, fate, .. } => {
                first_slot.get_or_insert((*first, *fate));
            }
            Event::TriggerDecided { run, .. } => nudges += usize::from(run.is_some()),
            _ => {}
        }
    }
    let next = watermark.plus(Duration::from_mins(1));
    assert_eq!(first_slot, Some((next, SlotFate::Missed)), "right after the last decided slot");
    assert_eq!(nudges, 1, "the event that was published last, and none again");
    let ours = "select count(*) from public.t where n = 7";
    assert_eq!(crate::harness::value::<i64>(&project.endpoint(), ours).await, 1);
    project.run(&["audit", "verify"]).ends(0);
    let report = project.json(&["report", "operations", "--since", "all"]);
    assert!(report["runs"]["by_themselves"].as_u64().unwrap() >= 2, "{report:#}");
    project.run(&["schedule", "list"]).ends(0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes the journal of the present version"]
async fn write_golden_server() {
    // Nobody listens there.
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let project = golden(&down).await;
    let began = Timestamp::from_millis(SystemClock.now().as_millis() - 3 * 60_000);
    let seen = Event::ScheduleSeen {
        schedule: "often".to_owned(),
        workflow: "insert".to_owned(),
        cron: "* * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        tzdb: "golden".to_owned(),
        watermark: began,
        paused: None,
    };
    record(&project, Stream::schedule("often"), seen).await;
    record(&project, Stream::System, nudge()).await;
    let trigger = Event::TriggerSeen {
        trigger: "insert on nudge".to_owned(),
        workflow: "insert".to_owned(),
        event: "nudge".to_owned(),
        position: 0,
        fired_at: None,
    };
    record(&project, Stream::trigger("insert on nudge"), trigger).await;
    let run = |args: &[&str]| {
        let mut command = project.command(args);
        command.envs(VARIABLES).env("API_TOKEN", super::TOKEN).output().unwrap()
    };
    run(&["run", "asks"]);
    run(&["run", "tell"]);
    run(&["schedule", "pause", "often", "--reason", "quiet"]);
    run(&["schedule", "resume", "often", "--reason", "loud"]);
    tokio::task::block_in_place(|| {
        let served = Served::start(&project, &VARIABLES);
        assert!(until(|| served.metric("lakeops_runs_working") == 0));
        // One slot in time, the event, and an alert that found nobody.
        std::thread::sleep(Duration::from_secs(65));
        served.end(Signal::SIGTERM);
    });
    record(&project, Stream::System, nudge()).await;
    execute(&project, "truncate public.t").await;
    assert_eq!(rows(&project).await, 0);
    std::fs::write(folder().join(FILE), dump(&project.path().join("state")).await).unwrap();
}
