//! The whole cycle on a workspace, as a person runs it from a folder: what is done, told and recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeops::journal::store::EntryFilter;
use lakeops::journal::{Event, Journal as _, SqliteJournal};
use lakeops::kernel::{Redactor, SystemClock};
use lakeops::lakebase::name::BranchName;
use lakeops::tools::Catalog;
use serde_json::json;

use super::shop::execute;
use super::whole::Cloud;

const TABLES: &str = "create table public.customers (id bigint primary key, name text, updated_at timestamptz) \
    with (autovacuum_enabled = false); \
    create table public.orders (id bigint primary key, customer bigint references public.customers, \
    note text, updated_at timestamptz) with (autovacuum_enabled = false); \
    insert into public.customers select g, 'c ' || g, '2026-01-01' from generate_series(1, 500) as g; \
    insert into public.orders select g, g % 500 + 1, 'n ' || g, '2026-01-01' from generate_series(1, 5000) as g; \
    create index orders_note on public.orders (note); \
    create index orders_note_again on public.orders (note); \
    analyze";
/// Enough dead rows that VACUUM is due.
const WEAR: &str = "update public.orders set note = note || '!'; \
    update public.orders set note = note || '!'; select pg_stat_force_next_flush()";

const MIGRATION: &str = "create table public.audit_log (id bigint primary key, what text);\n\
    alter table public.customers add column preferences jsonb;\n\
    create index audit_log_what on public.audit_log (what);\n";

/// The tables of the history that the cycle is compared by.
const HISTORY: [&str; 6] = [
    "branch_lifecycle",
    "index_recommendations",
    "lakebase_metrics",
    "pg_stat_history",
    "sync_validation_history",
    "vacuum_history",
];

/// The verbs of one cycle, in the order in which a person types them.
fn verbs() -> Vec<Vec<String>> {
    let pair = |table: &str| {
        json!({
            "source": { "table": table },
            "target": { "table": table, "branch": "staging" },
            "timestamp_column": "updated_at",
            "mode": "batch",
        })
    };
    let pairs = format!("sync_pairs={}", json!([pair("public.customers"), pair("public.orders")]));
    let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let cycle = ["run", "full_cycle", "-p", "project=shop", "-p"];
    vec![
        line(&["run", "pr_branch", "-p", "project=shop", "-p", "pr_number=1", "--yes"]),
        line(&["tools", "run", "test_migration_on_branch", "-p", "project=shop", "--yes"]),
        line(&[&cycle[..], &["branch=production", "-p", "branches=true", "-p", &pairs]].concat()),
        line(&[&cycle[..], &["branch=staging"]].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_over_two_branches_does_what_it_says() {
    let cloud = Cloud::start().await;
    cloud.ship();
    cloud.provision(&[]).await;
    for branch in ["production", "staging"] {
        let mut session = cloud.session(&BranchName::new("shop", branch)).await;
        execute(&mut session, TABLES).await;
        execute(&mut session, WEAR).await;
    }
    let migrations = cloud.folder().join("migrations");
    std::fs::create_dir_all(&migrations).unwrap();
    std::fs::write(migrations.join("001_audit_log.sql"), MIGRATION).unwrap();
    for verb in verbs() {
        let words: Vec<&str> = verb.iter().map(String::as_str).collect();
        cloud.run(&[&words[..], &["--output", "json"]].concat()).await.ends(0);
    }

    let tasks = tasks(&cloud).await;
    let commits: usize = HISTORY.iter().map(|table| commits(&cloud, table)).sum();
    let (events, alerts) = told(&cloud).await;
    let mut rows = BTreeMap::new();
    for table in HISTORY {
        let query = format!("select count(*) as n from {table}");
        let counted = cloud.run(&["history", "query", &query, "--output", "json"]).await.ends(0);
        rows.insert(table.to_owned(), counted.json()[0]["n"].as_u64().unwrap());
    }
    println!("| figure | here |\n| --- | --- |");
    for (family, tools) in &tasks {
        let (done, failed) =
            tools.values().fold((0, 0), |sum, (done, failed)| (sum.0 + done, sum.1 + failed));
        let each: Vec<String> =
            tools.iter().map(|(tool, (done, _))| format!("{tool} {done}")).collect();
        println!("| {family} | {done}/{}: {} |", done + failed, each.join(", "));
        assert_eq!(failed, 0, "{family}: {tools:?}");
    }
    let all = |each: &BTreeMap<String, u64>| {
        let each: Vec<String> =
            each.iter().map(|(name, count)| format!("{name} {count}")).collect();
        each.join(", ")
    };
    println!("| events | {}: {} |", events.values().sum::<u64>(), all(&events));
    println!(
        "| rows of the history | {} in {commits} commits: {} |",
        rows.values().sum::<u64>(),
        all(&rows)
    );
    println!("| alerts | {alerts} |");
    let has = |event: &str| events.get(event).copied().unwrap_or_default();
    assert_eq!(has("provisioning_complete"), 1, "{events:?}");
    assert_eq!(has("vacuum_completed"), 2, "once on each branch: {events:?}");
    assert!(has("branch_created") >= 2 && has("schema_migrated") >= 1, "{events:?}");
    assert!(rows.values().all(|count| *count > 0), "{rows:?}");
    cloud.stop().await;
}

/// How often a table of the history was appended to.
fn commits(cloud: &Cloud, table: &str) -> usize {
    let log = cloud.state_dir().join("history").join(table).join("_delta_log");
    let entries = std::fs::read_dir(&log).unwrap_or_else(|error| panic!("{log:?}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "json")).count()
}

/// By family and tool: how often it was done, and how often it failed.
async fn tasks(cloud: &Cloud) -> BTreeMap<String, BTreeMap<String, (u32, u32)>> {
    let catalog = Catalog::builtin();
    let mut tasks: BTreeMap<String, BTreeMap<String, (u32, u32)>> = BTreeMap::new();
    let runs = cloud.run(&["runs", "--output", "json"]).await.ends(0).json();
    for run in runs.as_array().unwrap() {
        let id = run["run_id"].as_str().unwrap();
        let shown = cloud.run(&["show", id, "--output", "json"]).await.ends(0).json();
        let steps = shown["steps"].as_array().unwrap();
        let ids: Vec<&str> = steps.iter().map(|step| step["id"].as_str().unwrap()).collect();
        for (step, id) in steps.iter().zip(&ids) {
            let items = format!("{id}[");
            if ids.iter().any(|other| other.starts_with(&items)) {
                // Its items are counted.
                continue;
            }
            let action = step["action"].as_str().unwrap();
            let Some(tool) = action.strip_prefix("tool ").and_then(|name| catalog.find(name))
            else {
                continue;
            };
            let family = tasks.entry(format!("{:?}", tool.meta().family)).or_default();
            let count = family.entry(tool.meta().name.to_owned()).or_default();
            count.0 += u32::from(step["state"] == "succeeded");
            count.1 += u32::from(step["state"] == "failed");
        }
    }
    tasks
}

/// What was published by name, and how many messages there were.
async fn told(cloud: &Cloud) -> (BTreeMap<String, u64>, usize) {
    let journal =
        SqliteJournal::open(&cloud.state_dir(), Arc::new(SystemClock), Redactor::default());
    let kinds = vec!["event_published".to_owned(), "notification_queued".to_owned()];
    let filter = EntryFilter { kinds, ..EntryFilter::default() };
    let entries = journal.unwrap().entries(filter).await.unwrap();
    let mut events: BTreeMap<String, u64> = BTreeMap::new();
    for entry in &entries {
        if let Event::EventPublished { name, .. } = &entry.event {
            *events.entry(name.clone()).or_default() += 1;
        }
    }
    let alerts = entries.len()
        - events.values().map(|count| usize::try_from(*count).unwrap()).sum::<usize>();
    (events, alerts)
}
