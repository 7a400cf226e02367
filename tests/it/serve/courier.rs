//! A courier that is killed at every boundary between looking, sending and recording: at least once, and
//! never counted as sent when it was not.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lakeops::journal::Event;
use serde_json::Value;

use super::alerts::Receiver;
use super::{entries, project, with_hook};
use crate::cli::Project;

const TELL: &str = "version: 1\nname: tell\ndescription: Tell people.\nparams:\n  key: { type: string, required: \
    true }\nsteps:\n  - id: tell\n    tool: send_alert\n    with:\n      severity: critical\n      title: \"it is \
    ${{ params.key }}\"\n      body: now\n      key: \"${{ params.key }}\"\n";

/// A run that tells nothing: at its end what waits is sent.
const QUIET: &str = "version: 1\nname: quiet\ndescription: Look.\nsteps:\n  - id: look\n    tool: \
    monitor_connections\n";

fn run(project: &Project, args: &[&str], at: Option<u32>) -> bool {
    let mut command = project.command(args);
    command.env("HOOK", "hook-key-0123").env("API_TOKEN", super::TOKEN);
    if let Some(at) = at {
        command.env("LAKEOPS_KILL_AT", at.to_string()).env("LAKEOPS_KILL_AMONG", "alerts");
    }
    let status = command.output().unwrap().status;
    assert!(status.success() || status.signal() == Some(9), "{status:?}");
    status.success()
}

/// How often the receiver took each key.
fn taken(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for taken in receiver.taken() {
        let body: Value = serde_json::from_str(&taken.body).unwrap();
        let mut keys = Vec::new();
        keys_of(&body, &mut keys);
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
    }
    counts
}

fn keys_of(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(title) = fields.get("title").and_then(Value::as_str) {
                keys.extend(title.strip_prefix("it is ").map(str::to_owned));
            }
            fields.values().for_each(|value| keys_of(value, keys));
        }
        Value::Array(items) => items.iter().for_each(|value| keys_of(value, keys)),
        _ => {}
    }
}

/// How often each key is recorded as sent.
async fn sent(project: &Project) -> BTreeMap<String, usize> {
    let mut keys = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for entry in entries(project, &["alert_routed", "alerts_sent"]).await {
        match entry.event {
            Event::AlertRouted { dedup, .. } => {
                keys.insert(entry.position, dedup);
            }
            Event::AlertsSent { routed, .. } => {
                for position in routed {
                    *counts.entry(keys[&position].clone()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    counts
}

async fn killed_everywhere(refuses: u64) {
    let project = project("serve_courier", "").await;
    project.write("workflows/tell.yaml", TELL).write("workflows/quiet.yaml", QUIET);
    let hook = Receiver::at("127.0.0.1:0", 0, false);
    project.write(".config/lakeops.toml", &with_hook(&hook.address, ""));
    let mut killed = 0;
    loop {
        let key = format!("k{killed}");
        let given = format!("key={key}");
        let tell = ["run", "tell", "-p", &given];
        hook.refuses.store(refuses, Ordering::SeqCst);
        let survived = run(&project, &tell, Some(killed + 1));
        // Whatever is recorded as sent was taken.
        let (now, recorded) = (taken(&hook), sent(&project).await);
        for (key, count) in &recorded {
            assert!(now.get(key).copied().unwrap_or(0) >= *count, "{key}: {now:?} {recorded:?}");
        }
        hook.refuses.store(0, Ordering::SeqCst);
        let begun = Instant::now();
        while !sent(&project).await.contains_key(&key) {
            assert!(begun.elapsed() < Duration::from_mins(5), "{key} was lost");
            run(&project, &["run", "quiet"], None);
        }
        let times = taken(&hook)[&key];
        assert!((1..=2).contains(&times), "{key} was told {times} times");
        // A new process knows that it was told.
        run(&project, &tell, None);
        assert_eq!((taken(&hook)[&key], sent(&project).await[&key]), (times, 1), "{key}");
        if survived {
            break;
        }
        killed += 1;
        assert!(killed < 30, "it never came through");
    }
    // Before and after routing, before the sending, between it and its record, after the record.
    assert!(killed >= 5, "only {killed} processes died");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_courier_loses_nothing_and_counts_nothing_that_was_not_taken() {
    killed_everywhere(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_whose_receiver_says_no_at_first() {
    killed_everywhere(1).await;
}
