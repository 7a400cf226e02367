//! A server that is killed between a slot or an event and its run: never twice, never lost.

use std::collections::BTreeSet;

use lakeops::journal::store::Stream;
use lakeops::journal::{Event, SlotFate};
use lakeops::kernel::{Clock as _, SystemClock, Timestamp};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Served, entries, project, record, rows, until};

const EVERY_MINUTE: &str =
    "schedule:\n  - { id: often, cron: \"* * * * *\", overlap: allow, catch_up: all }\n";

const ON_EVENT: &str = "triggers:\n  - { event: nudge, overlap: allow }\n";

/// Kills servers at the first, second, … boundary until one reaches none; returns how often one died.
fn kill_at_every(project: &crate::cli::Project, among: &str) -> u32 {
    let mut killed = 0;
    for at in 1..200 {
        let at = at.to_string();
        let trace = project.path().join("trace");
        let variables = [
            ("LAKEOPS_KILL_AT", at.as_str()),
            ("LAKEOPS_KILL_AMONG", among),
            ("LAKEOPS_KILL_TRACE", trace.to_str().unwrap()),
        ];
        drop(std::fs::remove_file(&trace));
        let served = Served::try_start(project, &variables);
        // Whoever has all its slots and events behind it reaches no further boundary.
        let Some(mut served) = served else {
            killed += 1;
            continue;
        };
        let mut died = false;
        // The first look may be under way, and one that shows may not be over: only the later ones tell.
        let mut looks = BTreeSet::new();
        let settled = until(|| {
            let Some((looked_at, rests)) = look(&served) else {
                died = true;
                return true;
            };
            if !rests {
                looks.clear();
            }
            looks.insert(looked_at);
            rests && looks.len() > 3
        });
        assert!(settled, "neither died nor came to rest");
        if !died {
            served.end(Signal::SIGTERM);
            return killed;
        }
        assert!(served.is_killed());
        killed += 1;
    }
    panic!("it never came to rest");
}

/// When it began to look the last time, and whether it knows its schedules and works on nothing; `None`: it
/// is dead.
fn look(served: &Served) -> Option<(String, bool)> {
    let health: Value = serde_json::from_str(&served.try_ask("GET /health", &[], "")?.1).ok()?;
    let metric = |name: &str| served.try_metric(&format!("lakeops_{name}"));
    let knows = metric("schedules")? + metric("triggers")? > 0;
    let at_work = metric("runs_working")? + metric("runs_queued")?;
    let rests = knows && at_work + metric("runs_open{outcome=\"running\"}")? == 0;
    Some((health["looked_at"].to_string(), rests))
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_never_lost_and_never_run_twice() {
    let project = project("serve_slots", EVERY_MINUTE).await;
    let began = Timestamp::from_millis(SystemClock.now().as_millis() - 20 * 60_000);
    let seen = Event::ScheduleSeen {
        schedule: "often".to_owned(),
        workflow: "insert".to_owned(),
        cron: "* * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        tzdb: "test".to_owned(),
        watermark: began,
        paused: None,
    };
    record(&project, Stream::schedule("often"), seen).await;
    let killed = tokio::task::block_in_place(|| kill_at_every(&project, "slot of often"));
    // A minute may have begun just before the last server was told to stop.
    project.run(&["resume", "--all"]).ends(0);
    assert!(killed >= 6, "only {killed} servers died");
    let mut slots = BTreeSet::new();
    let mut runs = BTreeSet::new();
    for entry in entries(&project, &["slots_decided"]).await {
        let Event::SlotsDecided { first, last, fate, run, .. } = entry.event else { panic!() };
        assert_eq!(first, last, "every slot has a run");
        assert!(matches!(fate, SlotFate::CaughtUp | SlotFate::Fired), "{fate:?}");
        assert!(slots.insert(first), "slot {first} has two rows");
        assert!(runs.insert(run.unwrap()), "a run has two slots");
    }
    let first = slots.first().unwrap().as_millis();
    let last = slots.last().unwrap().as_millis();
    let minutes = usize::try_from((last - first) / 60_000 + 1).unwrap();
    assert!(first - began.as_millis() <= 60_000);
    assert_eq!(slots.len(), minutes, "a slot was lost");
    assert_eq!(rows(&project).await, i64::try_from(slots.len()).unwrap());
    project.run(&["audit", "verify"]).ends(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_never_lost_and_never_run_twice() {
    let project = project("serve_events", ON_EVENT).await;
    let trigger = "insert on nudge";
    let seen = Event::TriggerSeen {
        trigger: trigger.to_owned(),
        workflow: "insert".to_owned(),
        event: "nudge".to_owned(),
        position: 0,
        fired_at: None,
    };
    record(&project, Stream::trigger(trigger), seen).await;
    for _ in 0..3 {
        let payload = serde_json::json!({});
        let event = Event::EventPublished { name: "nudge".to_owned(), payload, depth: 1 };
        record(&project, Stream::System, event).await;
    }
    let killed = tokio::task::block_in_place(|| kill_at_every(&project, "event for insert"));
    assert!(killed >= 3, "only {killed} servers died");
    let mut events = BTreeSet::new();
    for entry in entries(&project, &["trigger_decided"]).await {
        let Event::TriggerDecided { position, run, .. } = entry.event else { panic!() };
        assert!(run.is_some() && events.insert(position));
    }
    assert_eq!((events.len(), rows(&project).await), (3, 3));
}
