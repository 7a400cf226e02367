//! Every shipped workflow, on the emulator. What each is given stands in a table.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::emulator::daemon::{ask, done, gone, lakeops_with, project};
use crate::harness::Place;

/// What a run has for itself.
#[derive(Clone, Copy)]
enum Ground {
    /// A branch of `shop/production`, made by [`SETUP`].
    Branch,
    /// A project with these branches, made by [`SETUP`].
    Own(&'static [&'static str]),
    /// The name of a project.
    Named,
}

use Ground::{Branch, Named, Own};

/// Tables with rows that are old, dead or tenants', an index too many, and statements on record.
const SETUP: &str = "
create extension if not exists pg_stat_statements;
create table public.customer (id int primary key, tenant_id text not null default 'a');
insert into public.customer select g, case when g % 2 = 0 then 'a' else 'b' end from generate_series(1, 200) as g;
create role tenant_a;
create role tenant_b;
grant tenant_a, tenant_b to current_user;
grant select, insert, update, delete on public.customer to tenant_a, tenant_b;
create table public.orders (id int primary key, customer int references public.customer, at timestamptz, note text);
insert into public.orders select g, g % 200 + 1, '2024-01-01'::timestamptz + g * interval '1 minute', 'n' from generate_series(1, 1000) as g;
create index orders_at on public.orders (at);
create index orders_at_twin on public.orders (at);
create table public.orders_copy as table public.orders;
alter table public.orders_copy add primary key (id);
create table public.bloated (id int primary key, filler text) with (autovacuum_enabled = off);
insert into public.bloated select g, repeat('x', 200) from generate_series(1, 20000) as g;
delete from public.bloated where id % 3 > 0;
analyze;
";

const MIGRATIONS: [(&str, &str); 4] = [
    ("1_add.sql", "alter table public.orders add column state text;"),
    ("1_add.down.sql", "alter table public.orders drop column state;"),
    ("2_index.sql", "create index orders_customer on public.orders (customer);"),
    ("2_index.down.sql", "drop index public.orders_customer;"),
];

const PAIRS: &str =
    r#"pairs=[{"source":{"table":"public.orders"},"target":{"table":"public.orders_copy"}}]"#;
const TENANTS: &str = r#"tenants=[{"id":"a","role":"tenant_a"},{"id":"b","role":"tenant_b"}]"#;
const ONE_BRANCH: &str = r#"branches=["production"]"#;

/// The parameters that say where.
const HERE: [&str; 2] = ["project=shop", "branch=production"];

/// Every shipped workflow, where it is tested, and with which parameters. A project's name is another for
/// each run by itself.
const SHIPPED: &[(&str, Ground, &[&str])] = &[
    ("agent_sandbox", Own(&[]), &["project=shop", "task=look", "source=production"]),
    // Which statements were slow is another in each run: none of them is.
    (
        "analyze_slow_queries_with_ai",
        Branch,
        &["project=shop", "branch=production", "min_mean_exec_ms=3600000"],
    ),
    ("archive_cold_data", Branch, &["project=shop", "branch=production", "min_rows=500"]),
    (
        "archive_table",
        Branch,
        &["project=shop", "branch=production", "table=public.orders", "batch_rows=400"],
    ),
    ("branch_farewell", Branch, &HERE),
    ("branch_housekeeping", Own(&["forgotten"]), &["project=shop"]),
    ("capacity_review", Branch, &HERE),
    ("collect_branch", Branch, &HERE),
    ("collect_metrics", Branch, &["project=shop", ONE_BRANCH]),
    ("cost_review", Branch, &["project=shop"]),
    (
        "execute_low_risk_sop",
        Branch,
        &["project=shop", "branch=production", "issue=dead_tuple_ratio", "value=0.6"],
    ),
    ("full_cycle", Branch, &HERE),
    ("heal_bloat", Branch, &["project=shop", "branch=production", "full_size=1MiB"]),
    ("health_check", Branch, &HERE),
    ("history_maintenance", Branch, &[]),
    (
        "incident_response",
        Branch,
        &["project=shop", "branch=production", "metric=dead_tuple_ratio", "value=0.6"],
    ),
    ("index_review", Branch, &["project=shop", "branch=production", "measure_after=1s"]),
    ("isolate_tenants", Own(&[]), &["project=shop", r#"tables=["public.customer"]"#, TENANTS]),
    ("measure_again", Branch, &HERE),
    ("migrate_schema", Own(&["staging"]), &["project=shop"]),
    (
        "natural_language_dba",
        Branch,
        &["project=shop", "branch=production", "question=which indexes are unused?"],
    ),
    ("pr_branch", Own(&[]), &["project=shop", "pr_number=7", "source=production"]),
    ("provision_with_governance", Named, &["project=shop", "ops_catalog="]),
    ("relieve_connections", Branch, &HERE),
    ("reset_staging", Own(&["staging"]), &["project=shop"]),
    ("resync_check", Branch, &["project=shop", "branch=production", "settle=1s", PAIRS]),
    ("review_queue", Branch, &HERE),
    (
        "rewrite_bloat",
        Own(&[]),
        &["project=shop", "branch=production", "full_size=1MiB", "full_ratio=0.2"],
    ),
    ("run_full_index_analysis", Branch, &HERE),
    ("run_full_sync_validation", Branch, &["project=shop", "branch=production", PAIRS]),
    (
        "run_sop",
        Branch,
        &[
            "project=shop",
            "branch=production",
            "issue=dead_tuple_ratio",
            r#"alert={"metric":"dead_tuple_ratio","value":0.6,"level":"critical"}"#,
        ],
    ),
    ("sample_sessions", Branch, &["project=shop", ONE_BRANCH]),
    (
        "self_heal",
        Branch,
        &["project=shop", "branch=production", "issue=dead_tuple_ratio", "value=0.6"],
    ),
    ("slow_query_review", Branch, &HERE),
    ("suspension_review", Branch, &HERE),
    ("sync_validation", Branch, &["project=shop", "branch=production", PAIRS]),
    ("test_live", Named, &["project=tmp-live"]),
    ("test_migration_on_branch", Own(&[]), &["project=shop"]),
    ("vacuum_window", Branch, &HERE),
    ("verify_index_advice", Own(&[]), &["project=shop", "branch=production"]),
    ("watch_health", Branch, &HERE),
    ("watch_health_full", Branch, &HERE),
    ("wraparound_guard", Branch, &["project=shop", "branch=production", "vacuum_from=100000"]),
];

/// Those that are not run by themselves, and why.
const NOT_ALONE: &[(&str, &str)] = &[(
    "promote_migrations",
    "it takes to a branch what was tried on another in the same run: `migrate_schema` runs it",
)];

/// What makes an emulator with `shop/production`, and the folders that the program looks into.
async fn emulator() -> (Place, Value) {
    let place = Place::new();
    let status = done(&place, &["emulator", "start"]);
    project(&status, "shop").await;
    let base = place.base.path();
    for folder in ["workflows", "sops", "sql"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        std::os::unix::fs::symlink(shipped, base.join(folder)).unwrap();
    }
    let migrations = base.join("files/migrations");
    std::fs::create_dir_all(&migrations).unwrap();
    for (name, text) in MIGRATIONS {
        std::fs::write(migrations.join(name), text).unwrap();
    }
    std::fs::write(base.join("setup.sql"), SETUP).unwrap();
    (place, status)
}

fn tested(place: &Place, name: &str, ground: Ground, more: &[&str]) -> (i32, Value) {
    let mut args = vec!["--connection", "emulator", "test", "crash", name, "--approve-all"];
    args.extend(["--setup", "setup.sql", "--files", "files"]);
    match ground {
        Branch => args.extend(["--target", "shop/production"]),
        Own(branches) => {
            args.push("--own-project");
            args.extend(branches.iter().flat_map(|branch| ["--with-branch", branch]));
        }
        Named => args.extend(["--own-project=named", "--outside"]),
    }
    args.extend(more);
    // The emulator answers questions about costs on any warehouse.
    let warehouse = [("DATABRICKS_WAREHOUSE_ID", "w")];
    lakeops_with(place, if name == "cost_review" { &warehouse } else { &[] }, &args)
}

#[test]
fn every_shipped_workflow_is_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    let mut names: Vec<_> =
        yaml.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    let alone = SHIPPED.iter().map(|(name, ..)| *name);
    let mut known: Vec<_> = alone.chain(NOT_ALONE.iter().map(|(name, _)| *name)).collect();
    known.sort_unstable();
    assert_eq!(names, known);
}

const GROW: &str = r#"version: 1
name: grow
params:
  project: { type: string, required: true }
  branch: { type: string, required: true }
target: { project: "${{ params.project }}", branch: "${{ params.branch }}" }
steps:
  - id: make
    tool: execute_sql
    with: { statements: ["insert into public.customer values (1000, 'b')"] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_run_has_a_branch_for_itself() {
    let (place, status) = emulator().await;
    std::fs::write(place.base.path().join("grow.yaml"), GROW).unwrap();
    let params = ["-p", HERE[0], "-p", HERE[1]];
    let more = [&params[..], &["--only", "make/do */after effect", "--sample", "1"]].concat();
    let (code, report) = tested(&place, "grow.yaml", Branch, &more);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["ground"], "a branch of shop/production");
    assert!(report["kills"].as_u64() >= Some(3), "{report:#}");
    let found = ask(&status, "GET", "/api/2.0/postgres/projects/shop/branches", Value::Null).await;
    assert_eq!(found["branches"].as_array().unwrap().len(), 1, "a copy is left: {found}");
    done(&place, &["emulator", "stop"]);
    gone(&place.state()).await;
}

/// `cargo test --test it -- --ignored --nocapture crashing::shipped`. The variable
/// `LAKEOPS_TEST_CRASH_SAMPLE` takes so many boundaries of each, or with `each` one run of each that dies
/// at every boundary in turn; `LAKEOPS_TEST_CRASH_ONLY` these workflows, by their names with commas.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "every shipped workflow, killed at every boundary, once and twice"]
async fn every_shipped_workflow_ends_the_same_wherever_it_dies() {
    let variable = |name| std::env::var_os(name).map(|value| value.into_string().unwrap());
    let sample = variable("LAKEOPS_TEST_CRASH_SAMPLE");
    let only = variable("LAKEOPS_TEST_CRASH_ONLY");
    let only: Vec<&str> = only.iter().flat_map(|only| only.split(',')).collect();
    let (place, _) = emulator().await;
    let mut wrong = String::new();
    for (name, ground, params) in SHIPPED {
        if !only.is_empty() && !only.contains(name) {
            continue;
        }
        let mut more: Vec<&str> = params.iter().flat_map(|param| ["-p", param]).collect();
        match sample.as_deref() {
            Some("each") => more.push("--in-one-run"),
            sample => more.extend(sample.iter().flat_map(|sample| ["--sample", sample])),
        }
        let (code, report) = tested(&place, name, *ground, &more);
        let (outcome, of) = (&report["outcome"], &report["boundaries"]);
        let (kills, seconds) = (&report["kills"], &report["seconds"]);
        eprintln!("{name}: exit {code}, {outcome}, {of} boundaries, {kills} kills, {seconds} s");
        if *outcome != "succeeded twice" {
            writeln!(wrong, "{name}: {outcome}").unwrap();
        }
        if code != 0 {
            let empty = Vec::new();
            let lines = report["lines"].as_array().unwrap_or(&empty).iter();
            let is_bad = |line: &&Value| {
                let bad = |verdict: &Value| {
                    !["same", "in_doubt", "not_tried"]
                        .iter()
                        .any(|good| verdict["verdict"] == *good)
                };
                bad(&line["kill"]) || bad(&line["double_kill"])
            };
            let bad: Vec<&Value> = lines.filter(is_bad).collect();
            let whole = [&report["in_one_run"], &report].into_iter().find(|part| !part.is_null());
            let told = if bad.is_empty() { json!(whole) } else { json!(bad) };
            eprintln!("{told:#}");
            writeln!(wrong, "{name}: {told:#}").unwrap();
        }
    }
    done(&place, &["emulator", "stop"]);
    gone(&place.state()).await;
    assert!(wrong.is_empty(), "{wrong}");
}
