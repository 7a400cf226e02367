//! The bundle for Databricks: what it says, whether others can read it, and whether its task works.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use lakeops::kernel::Timestamp;
use lakeops::workflow::cron::CronSchedule;
use lakeops::workflow::quartz::quartz;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Served, TOKEN, execute, project, rows};
use crate::cli::Project;

// ---- Quartz, read by somebody else ---------------------------------------------------------------

/// Whether a Quartz expression fires at a minute of a wall clock: written from Quartz's own manual, and from
/// nothing of ours.
fn fires(expression: &str, at: &impl Wall) -> bool {
    let fields: Vec<&str> = expression.split(' ').collect();
    let [second, minute, hour, day, month, week_day] = fields[..] else {
        panic!("{expression} has not six fields")
    };
    assert_eq!(second, "0");
    assert_eq!(fields.iter().filter(|field| **field == "?").count(), 1, "{expression}");
    let [of_minute, of_hour, of_day, of_month, of_week] = at.parts();
    holds(minute, of_minute)
        && holds(hour, of_hour)
        && holds(day, of_day)
        && holds(month, of_month)
        && holds(week_day, of_week)
}

fn holds(field: &str, value: u32) -> bool {
    const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let number = |text: &str| -> u32 {
        let named = NAMES.iter().position(|name| *name == text);
        // Quartz counts from 1, Sunday.
        named.map_or_else(|| text.parse().unwrap(), |at| u32::try_from(at).unwrap() + 1)
    };
    field.split(',').any(|part| match part.split_once('/') {
        _ if part == "*" || part == "?" => true,
        Some((from, step)) => {
            let (from, step) = (number(from), number(step));
            value >= from && (value - from).is_multiple_of(step)
        }
        None => number(part) == value,
    })
}

/// A wall clock: minute, hour, day, month, day of the week from 1, Sunday.
trait Wall {
    fn parts(&self) -> [u32; 5];
}

impl<Z: chrono::TimeZone> Wall for DateTime<Z> {
    fn parts(&self) -> [u32; 5] {
        let week = self.weekday().num_days_from_sunday() + 1;
        [self.minute(), self.hour(), self.day(), self.month(), week]
    }
}

/// The minutes of a time at which one of the expressions fires, minute by minute.
fn minutes(expressions: &[String], zone: &str, (from, days): (&str, i64)) -> Vec<DateTime<Utc>> {
    let zone: chrono_tz::Tz = zone.parse().unwrap();
    let from: DateTime<Utc> = from.parse().unwrap();
    (0..days * 1440)
        .map(|minute| from + chrono::TimeDelta::minutes(minute))
        .filter(|at| {
            let wall = at.with_timezone(&zone);
            expressions.iter().any(|expression| fires(expression, &wall))
        })
        .collect()
}

/// The same by the cron that was converted.
fn slots(cron: &str, zone: &str, (from, days): (&str, i64)) -> Vec<DateTime<Utc>> {
    let schedule = CronSchedule::parse(cron, zone).unwrap();
    let from: DateTime<Utc> = from.parse().unwrap();
    let end = Timestamp::from(from + chrono::TimeDelta::days(days));
    let mut at = Timestamp::from_millis(Timestamp::from(from).as_millis() - 1);
    let mut found = Vec::new();
    while let Some(next) = schedule.next_after(at).filter(|next| *next < end) {
        found.push(next.to_datetime());
        at = next;
    }
    found
}

#[test]
fn quartz_fires_when_the_cron_does() {
    // No clock is changed in these times: what Quartz makes of that is listed, not converted.
    let quiet = [("UTC", "2027-12-01T00:00:00Z", 95), ("Asia/Kolkata", "2028-02-01T00:00:00Z", 60)];
    let summer = ("America/New_York", "2027-04-01T00:00:00Z", 60);
    let crons = [
        "* * * * *",
        "*/5 * * * *",
        "*/7 * * * *",
        "15 */6 * * *",
        "20,50 9-17/4 * * 1-5",
        "0 2 * * *",
        "0 4 * * 0",
        "0 4 * * 7",
        "0 0 * * sat-sun",
        "59 23 28-31 * *",
        "0 0 1 */2 *",
        "30 6 */10 * *",
        "0 12 29 2 *",
        "0 0 13 * fri",
        "5-55/25 3 1,15 jan-mar mon",
    ];
    for cron in crons {
        let expressions = quartz(cron).unwrap();
        for (zone, from, days) in quiet.into_iter().chain([summer]) {
            let (theirs, ours) =
                (minutes(&expressions, zone, (from, days)), slots(cron, zone, (from, days)));
            assert!(theirs == ours, "{cron} {zone}: {expressions:?}");
        }
    }
    let year = ("2028-01-01T00:00:00Z", 366);
    let found = minutes(&quartz("0 0 13 * fri").unwrap(), "UTC", year);
    assert_eq!(found, slots("0 0 13 * fri", "UTC", year));
    assert_eq!(found.len(), 63, "the Fridays and the thirteenths of 2028, once each");
}

// ---- the bundle ----------------------------------------------------------------------------------

/// A project with everything that is shipped.
fn shipped() -> Project {
    let project = Project::new();
    crate::harness::ship(project.path());
    project
}

fn bundle(project: &Project, folder: &str) -> Value {
    let text = std::fs::read_to_string(project.path().join(folder).join("databricks.yml")).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

fn is_key(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !text.is_empty() && text.len() <= 100 && text.chars().all(is_plain)
}

#[test]
fn every_schedule_is_a_job_and_every_threshold_an_alert() {
    let project = shipped();
    let args = ["export", "databricks", "--host", "prod=https://prod.example.com"];
    let said = project.json(&args);
    let bundle = bundle(&project, "databricks");
    let jobs = bundle["resources"]["jobs"].as_object().unwrap();

    // What the workflows say, read by nobody of ours.
    let mut scheduled = Vec::new();
    for file in std::fs::read_dir(project.path().join("workflows")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let workflow: Value = serde_yaml::from_str(&text).unwrap();
        for schedule in workflow["schedule"].as_array().into_iter().flatten() {
            let zone = schedule["time_zone"].as_str().unwrap_or("UTC").to_owned();
            let cron = schedule["cron"].as_str().unwrap().to_owned();
            scheduled.push((workflow["name"].as_str().unwrap().to_owned(), cron, zone));
        }
    }
    assert_eq!(jobs.len(), scheduled.len());
    let span = ("2028-02-20T00:00:00Z", 15);
    for (key, job) in jobs {
        assert!(is_key(key), "{key}");
        let workflow = job["tags"]["workflow"].as_str().unwrap();
        let schedule = &job["schedule"];
        let expression = schedule["quartz_cron_expression"].as_str().unwrap();
        let (_, cron, zone) = scheduled.iter().find(|(name, ..)| name == workflow).unwrap();
        assert_eq!(schedule["timezone_id"], json!(zone));
        let theirs = minutes(&[expression.to_owned()], zone, span);
        assert!(theirs == slots(cron, zone, span) && !theirs.is_empty(), "{key} {expression}");
        assert_eq!(job["max_concurrent_runs"], 1);
        let tasks = job["tasks"].as_array().unwrap();
        let [start, follow] = &tasks[..] else { panic!("{job:#}") };
        assert_eq!(follow["depends_on"], json!([{ "task_key": start["task_key"] }]));
        for task in tasks {
            assert!(task["max_retries"].as_u64().unwrap() > 0);
            assert_eq!(task["environment_key"], job["environments"][0]["environment_key"]);
            let task = task.to_string();
            assert!(task.contains("{{job.trigger.time.iso_datetime}}"), "the slot is the key");
            assert!(!task.contains("journal") && !task.contains("/Volumes"), "{task}");
        }
    }
    for (seed, quartz) in [
        ("metric_collector", "0 0/5 * * * ?"),
        ("index_analyzer", "0 15 * * * ?"),
        ("vacuum_scheduler", "0 0 2 * * ?"),
        ("sync_validator", "0 0/15 * * * ?"),
        ("branch_manager", "0 15 0/6 * * ?"),
        ("cold_archiver", "0 0 3 ? * SUN"),
    ] {
        assert_eq!(jobs[seed]["schedule"]["quartz_cron_expression"], quartz, "{seed}");
    }
    // The seventh is there, or it is said why not.
    let gaps = said["not_expressed"].as_array().unwrap();
    let is_told = gaps.iter().any(|gap| gap["what"].as_str().unwrap().contains("cost_tracker"));
    assert!(jobs.contains_key("cost_tracker") != is_told, "{gaps:#?}");
}

#[test]
fn secrets_are_named_and_what_is_lost_is_listed() {
    let project = shipped();
    let args = [
        "export",
        "databricks",
        "--host",
        "prod=https://prod.example.com",
        "--run-as",
        "0a1b-2c3d",
    ];
    let said = project.json(&args);
    let bundle = bundle(&project, "databricks");
    let gaps = said["not_expressed"].as_array().unwrap();
    let targets = &bundle["targets"];
    assert_eq!(targets.as_object().unwrap().len(), 3);
    assert_eq!(
        (&targets["dev"]["mode"], &targets["dev"]["default"]),
        (&json!("development"), &json!(true))
    );
    assert_eq!(targets["prod"]["mode"], "production");
    assert_eq!(targets["prod"]["run_as"]["service_principal_name"], "0a1b-2c3d");
    assert_eq!(targets["prod"]["workspace"]["host"], "https://prod.example.com");
    assert!(targets["staging"]["presets"]["name_prefix"].is_string());

    // Secrets are named, and every variable that is referred to is declared.
    let text = bundle.to_string();
    for reference in text.split("${var.").skip(1) {
        let name = reference.split('}').next().unwrap();
        assert!(bundle["variables"].get(name).is_some(), "{name}");
    }
    assert!(text.contains("${var.token_scope}/${var.token_key}") && !text.contains("Bearer"));

    let alerts = bundle["resources"]["alerts"].as_object().unwrap();
    for metric in ["cache_hit_ratio", "txid_age", "connection_utilization", "dead_tuple_ratio"] {
        for level in ["warning", "critical"] {
            let alert = &alerts[&format!("{metric}_{level}")];
            let less = metric == "cache_hit_ratio";
            let operator = if less { "LESS_THAN" } else { "GREATER_THAN" };
            assert_eq!(alert["evaluation"]["comparison_operator"], operator, "{metric}");
            assert!(alert["query_text"].as_str().unwrap().contains(&format!("'{metric}'")));
            assert!(alert["schedule"]["quartz_cron_schedule"].is_string(), "not as in a job");
        }
    }
    let limit = &alerts["cache_hit_ratio_critical"]["evaluation"]["threshold"]["value"];
    assert_eq!(limit["double_value"], 0.95);
    assert!(alerts.contains_key("sync_freshness") && alerts.contains_key("collection_stopped"));

    // What is lost is listed for each workflow that loses it, and in the file beside.
    let listed =
        std::fs::read_to_string(project.path().join("databricks/NOT_EXPRESSED.md")).unwrap();
    for (workflow, what) in [
        ("health_check", "catch_up"),
        ("watch_health", "every minute"),
        ("watch_health", "jitter"),
        ("incident_response", "events"),
    ] {
        let found = gaps
            .iter()
            .any(|gap| gap["workflow"] == workflow && gap["what"].as_str().unwrap().contains(what));
        assert!(found, "{workflow} {what}: {gaps:#?}");
        assert!(listed.contains(workflow) && listed.contains(what));
    }

    // The same again is no change; what somebody changed is not written over.
    project.run(&args).ends(0);
    project.write("databricks/databricks.yml", "mine: true\n");
    let refused = project.run(&args).ends(2);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    project.run(&[&args[..], &["--force"]].concat()).ends(0);
    project.run(&["export", "databricks", "--host", "prod=http://x"]).ends(2);
    let bodies = project.json(&["export", "alerts", "--warehouse", "w1", "--destination", "d1"]);
    assert_eq!(bodies.as_array().unwrap().len(), alerts.len());
    assert!(!bodies.to_string().contains("${"), "nothing is left to be filled in");
}

#[test]
fn schedules_that_quartz_cannot_say_are_told() {
    let project = Project::new();
    let workflow = |name: &str, cron: &str| {
        let head =
            format!("version: 1\nname: {name}\ndescription: x\nschedule:\n  - {{ cron: \"{cron}\"");
        let steps = "time_zone: Europe/Amsterdam, overlap: allow }\nsteps:\n  - id: look\n    tool: monitor_connections\n";
        project.write(&format!("workflows/{name}.yaml"), &format!("{head}, {steps}"));
    };
    workflow("either", "0 0 13 * fri");
    workflow("both", "0 0 */2 * fri");
    let said = project.json(&["export", "databricks", "--to", "out"]);
    let jobs = bundle(&project, "out")["resources"]["jobs"].as_object().unwrap().clone();
    let keys: Vec<&String> = jobs.keys().collect();
    assert_eq!(keys, ["either", "either_2"], "one expression each");
    let schedule = |key: &str| {
        let arguments =
            jobs[key]["tasks"][0]["spark_python_task"]["parameters"].as_array().unwrap();
        let at = arguments.iter().position(|text| text == "--schedule").unwrap();
        arguments[at + 1].clone()
    };
    assert_eq!(schedule("either"), schedule("either_2"), "a slot of both is one run");
    let told =
        |workflow: &str, what: &str| {
            said["not_expressed"].as_array().unwrap().iter().any(|gap| {
                gap["workflow"] == workflow && gap["what"].as_str().unwrap().contains(what)
            })
        };
    assert!(told("both", "0 0 */2 * fri"), "{said:#}");
    for what in ["either of two days", "overlap: allow", "clock of Europe/Amsterdam"] {
        assert!(told("either", what), "{what}: {said:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_reads_jobs_and_alerts_without_a_loss() {
    let installed = tokio::task::spawn_blocking(crate::emulator::clients::python).await.unwrap();
    let Some(folder) = installed else { return };
    let project = shipped();
    project.run(&["export", "databricks"]).ends(0);
    let resources = bundle(&project, "databricks")["resources"].clone();
    let mut child = Command::new(folder.join("venv/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/serve/bundle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(resources.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.ends_with(b"ok\n"), "{}", String::from_utf8_lossy(&output.stderr));
}

// ---- the task ------------------------------------------------------------------------------------

/// Runs the exported task as its job would, with what a workspace puts in.
fn task(
    project: &Project,
    job: &Value,
    verb: &str,
    filled: &[(&str, &str)],
    more: &[&str],
) -> Output {
    let tasks = job["tasks"].as_array().unwrap();
    let task = tasks.iter().find(|task| task["task_key"] == verb).unwrap();
    let script = &task["spark_python_task"];
    let arguments = script["parameters"].as_array().unwrap().iter().map(|text| {
        let text = text.as_str().unwrap().to_owned();
        let filled = filled.iter().fold(text, |text, (name, value)| text.replace(name, value));
        assert!(!filled.contains("{{"), "{filled}");
        filled
    });
    Command::new("python3")
        .current_dir(project.path().join("databricks"))
        .arg(script["python_file"].as_str().unwrap())
        .args(arguments)
        .args(["--every", "0.2"])
        .args(more)
        .env("LAKEOPS_API_TOKEN", TOKEN)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn run_of(said: &str) -> &str {
    said.split("run ").nth(1).unwrap().split([' ', ':']).next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_starts_one_run_per_slot_and_ends_as_it_does() {
    let project = project("bundle", "schedule:\n  - { cron: \"0 0 29 2 *\" }\n").await;
    let scheduled = |name: &str, steps: &str| {
        let head = format!(
            "version: 1\nname: {name}\ndescription: x\nschedule:\n  - {{ cron: \"0 0 29 2 *\" }}\n"
        );
        project.write(&format!("workflows/{name}.yaml"), &format!("{head}steps:\n{steps}"));
    };
    let sql = |statement: &str| {
        format!("  - id: s\n    tool: execute_sql\n    with: {{ statements: [\"{statement}\"] }}\n")
    };
    scheduled("fails", &sql("select 1 / 0"));
    scheduled(
        "asks",
        &format!("{}    approval: required\n", sql("insert into public.t values (2)")),
    );
    project.run(&["export", "databricks"]).ends(0);
    let jobs = bundle(&project, "databricks")["resources"]["jobs"].clone();

    let served = Served::start(&project, &[]);
    let url = format!("http://{}", served.address);
    let slot = |slot: &'static str, repair: &'static str| {
        vec![
            ("${var.lakeops_url}", url.clone()),
            ("${var.token_scope}/${var.token_key}", "lakeops/api_token".to_owned()),
            ("{{job.trigger.time.iso_datetime}}", slot.to_owned()),
            ("{{job.repair_count}}", repair.to_owned()),
            ("{{job.parameters.params}}", "{}".to_owned()),
        ]
    };
    let go = |job: &str, verb: &str, filled: &[(&str, String)], more: &[&str]| {
        let filled: Vec<(&str, &str)> =
            filled.iter().map(|(name, value)| (*name, value.as_str())).collect();
        task(&project, &jobs[job], verb, &filled, more)
    };
    let first = slot("2028-02-29T00:00:00", "0");
    let begun = ends(&go("insert", "start", &first, &[]), 0);
    let again = ends(&go("insert", "start", &first, &[]), 0);
    assert_eq!(run_of(&begun), run_of(&again));
    let done = ends(&go("insert", "follow", &first, &[]), 0);
    assert!(done.contains("succeeded") && done.contains(run_of(&begun)), "{done}");
    assert_eq!(rows(&project).await, 1, "three tries, one run");
    // Another slot, and a repair of the first, are runs of their own.
    ends(&go("insert", "follow", &slot("2032-02-29T00:00:00", "0"), &[]), 0);
    ends(&go("insert", "follow", &slot("2028-02-29T00:00:00", "1"), &[]), 0);
    assert_eq!(rows(&project).await, 3);

    let failed = ends(&go("fails", "follow", &first, &[]), 1);
    assert!(failed.contains("division by zero"), "{failed}");
    let waits = ends(&go("asks", "follow", &first, &["--patience", "0.5"]), 3);
    assert!(waits.contains("waits for a person"), "{waits}");
    // Once a person decided, the same task ends as the run does.
    project.run(&["approve", run_of(&waits), "--reason", "seen"]);
    ends(&go("asks", "follow", &first, &[]), 0);
    execute(&project, "delete from public.t where n = 2").await;
    assert_eq!(rows(&project).await, 3);

    // Refusals say why, and the token goes nowhere in the open.
    let mut elsewhere = first.clone();
    elsewhere[0].1 = "http://ops.example.com".to_owned();
    assert!(ends(&go("insert", "start", &elsewhere, &[]), 2).contains("not https"));
    let mut bad = first.clone();
    bad[4].1 = "{\"no_such\": 1}".to_owned();
    assert!(ends(&go("insert", "start", &slot_with(&bad), &[]), 2).contains("no_such"));
    served.end(Signal::SIGTERM);
    let away = ends(&go("insert", "start", &first, &["--lost", "1"]), 4);
    assert!(away.contains("cannot be reached"), "{away}");
}

/// The same at another time, so that it is no run that is there.
fn slot_with<'a>(filled: &[(&'a str, String)]) -> Vec<(&'a str, String)> {
    let mut filled = filled.to_vec();
    filled[2].1 = "2036-02-29T00:00:00".to_owned();
    filled
}
