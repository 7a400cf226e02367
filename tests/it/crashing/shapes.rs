//! Small workflows of every shape, through the real program.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::cli::Project;
use crate::harness::{connect, execute, value};
use crate::serve::until;

/// A database with a table for each workflow below.
async fn project(hint: &str) -> Project {
    let project = Project::with_database(hint).await;
    execute(
        &project.endpoint(),
        &[
            "create table public.t (id bigint generated always as identity primary key, n int, \
             made timestamptz default clock_timestamp())",
            "insert into public.t (n) select generate_series(1, 500)",
            "create table public.child (t bigint references public.t, word text)",
        ],
    )
    .await;
    project.write(".config/lakeops.toml", "[settings]\nallow_commands = true\n");
    project
}

fn tested(project: &Project, name: &str, text: &str, more: &[&str]) -> (i32, Value) {
    let file = format!("workflows/{name}.yaml");
    project.write(&file, text);
    let args = [&["test", "crash", &file, "--output", "json"], more].concat();
    let said = project.run(&args);
    assert!(said.code == 0 || said.code == 1, "{}{}", said.out, said.err);
    (said.code, said.json())
}

#[track_caller]
fn passes(project: &Project, name: &str, text: &str, more: &[&str]) -> Value {
    let (code, report) = tested(project, name, text, more);
    assert_eq!(code, 0, "{report:#}");
    let lines = report["lines"].as_array().unwrap();
    let verdicts = lines.iter().flat_map(|line| [&line["kill"], &line["double_kill"]]);
    let reached = verdicts.filter(|found| found["verdict"] != "not_tried").count();
    assert!(reached >= lines.len(), "{report:#}");
    assert!(report["kills"].as_u64().unwrap() >= lines.len() as u64, "{report:#}");
    report
}

/// Where a second kill is a matter of chance it is not tried, which must not become the rule.
#[track_caller]
fn killed_twice(report: &Value) {
    let lines = report["lines"].as_array().unwrap();
    let twice = lines.iter().filter(|line| line["double_kill"]["verdict"] != "not_tried").count();
    assert!(2 * twice >= lines.len(), "{report:#}");
}

fn named(report: &Value, part: &str) -> usize {
    let lines = report["lines"].as_array().unwrap().iter();
    lines.filter(|line| line["boundary"]["name"].as_str().unwrap().contains(part)).count()
}

const CHANGES: &str = r#"version: 1
name: changes
steps:
  - id: insert
    tool: execute_sql
    with: { statements: ["insert into public.t (n) values (1000)", "insert into public.child select max(id), 'x' from public.t"] }
  - id: index
    needs: [insert]
    tool: execute_sql
    with: { statements: [{ sql: "create index concurrently t_n on public.t (n)", undo: "drop index concurrently public.t_n" }] }
  - id: vacuum
    needs: [index]
    tool: schedule_vacuum_analyze
    with: { tables: ["public.t"] }
  - id: fan
    needs: [vacuum]
    for_each: { in: "${{ [1, 2, 3] }}", key: "n${{ item }}", max_parallel: 3 }
    tool: execute_sql
    with: { statements: [{ sql: "insert into public.child values (null, $1)", binds: ["w${{ item }}"] }] }
  - id: publish
    needs: [fan]
    tool: publish_event
    with: { event: vacuum_completed, payload: { table: public.t } }
  - id: tell
    needs: [fan]
    tool: send_alert
    with: { severity: info, title: "it is done" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_every_recovery_end_the_same() {
    let project = project("crash_changes").await;
    let effects = ["--only", "*/in transaction", "--only", "*/after effect"];
    let more = [&effects[..], &["--sample", "5", "--approve-all"]].concat();
    let report = passes(&project, "changes", CHANGES, &more);
    killed_twice(&report);
    assert!(named(&report, "in transaction") + named(&report, "after effect") > 2, "{report:#}");
    let left = report["not_compared"].as_object().unwrap();
    assert!(left.contains_key("table public.t: id") && left.contains_key("table public.t: made"));
    assert!(left.contains_key("table public.child: t"), "it refers to a sequence's number");
}

const UNDONE: &str = r#"version: 1
name: undone
steps:
  - id: insert
    tool: execute_sql
    with: { statements: [{ sql: "update public.t set n = n + 1 where n > 499", undo: "update public.t set n = n - 1 where n > 500" }] }
  - id: marked
    needs: [insert]
    tool: execute_sql
    with: { statements: [{ sql: "insert into public.child values (null, 'made')" }] }
    compensate: { tool: execute_sql, with: { statements: ["delete from public.child where word = 'made'"] } }
  - id: verify
    needs: [marked]
    verify:
      tool: check_assertions
      with: { assertions: [{ name: never, sql: "select false" }] }
      assert: [ result.passed ]
      every: 1s
      within: 1s
      on_fail: compensate
"#;

#[tokio::test(flavor = "multi_thread")]
async fn undoing_ends_the_same() {
    let project = project("crash_undone").await;
    let more = ["--approve-all", "--only", "*/undo *", "--sample", "3"];
    let report = passes(&project, "undone", UNDONE, &more);
    killed_twice(&report);
    assert_eq!(report["outcome"], "failed twice");
    assert!(named(&report, "/undo ") > 2, "{report:#}");
}

fn command(name: &str, script: &str, more: &str) -> String {
    format!(
        r#"version: 1
name: {name}
steps:
  - id: run
    tool: run_command
    with: {{ program: sh, args: ["-c", "{script}"]{more} }}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_author_says_of_a_command_is_held_against_it() {
    let project = project("crash_command").await;
    let more = ["--approve-all", "--outside", "--only", "run/do 0/*"];
    let (append, write) = ("echo once >> said", "echo once > said");
    // It says that doing it twice does no harm, and it does.
    let (code, report) =
        tested(&project, "append", &command("append", append, ", repeatable: true"), &more);
    assert_eq!(code, 1, "{report:#}");
    let after = report["lines"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["boundary"]["name"] == "run/do 0/after effect");
    let found = &after.unwrap()["kill"]["differences"];
    assert_eq!(found[0]["place"], "files", "{report:#}");
    assert!(found[0]["what"].as_str().unwrap().starts_with("/said is "), "{found:#}");

    let said =
        project.run(&[&["test", "crash", "workflows/append.yaml"], &more[..]].concat()).ends(1);
    assert!(
        said.out.contains("killed at run/do 0/after effect:\n  files: /said is"),
        "{}",
        said.out
    );

    let probe = ", probe: [test, -f, said]";
    passes(&project, "probed", &command("probed", append, probe), &more);
    passes(&project, "written", &command("written", write, ", repeatable: true"), &more);
    // Nothing is said: a person is asked, and that is as it should be.
    let report = passes(&project, "asks", &command("asks", append, ""), &more);
    let doubts = report["lines"].as_array().unwrap().iter();
    let doubts = doubts.filter(|line| line["kill"]["verdict"] == "in_doubt").count();
    assert!(doubts > 0, "{report:#}");

    // Without `--outside` no program is run: undisturbed it fails, and killed it fails the same way.
    let written = command("written", write, ", repeatable: true");
    let inside = ["--approve-all", "--sample", "1"];
    let report = passes(&project, "written", &written, &inside);
    assert_eq!(report["outcome"], "failed twice");
}

/// What a run of a test has been told, from the folders below one.
fn order_below(folder: &Path) -> Option<Value> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut orders = folders.filter_map(|folder| std::fs::read(folder.join("order.json")).ok());
    orders.find_map(|order| serde_json::from_slice(&order).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_it_removes_its_copies() {
    let project = project("crash_told").await;
    project.write("workflows/changes.yaml", CHANGES);
    project.write("tmp/here", "");
    let folder = project.path().join("tmp");
    let mut child = project.command(&["test", "crash", "changes", "--approve-all"]);
    child.env("TMPDIR", &folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let mut order = None;
    assert!(until(|| {
        order = order_below(&folder);
        order.is_some()
    }));
    let order = order.unwrap();
    let copy = order["fence"]["database"].as_str().unwrap();
    let (stem, _) = copy.rsplit_once('_').unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = format!("select count(*) from pg_database where starts_with(datname, '{stem}')");
    assert_eq!(value::<i64>(&project.endpoint(), &left).await, 0, "copies are left: {stem}");
    assert_eq!(order_below(&folder), None, "a folder of a run is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_on_its_copy_and_leaves_none() {
    let project = project("crash_fence").await;
    let beyond = "version: 1\nname: beyond\nsteps:\n  - id: role\n    tool: execute_sql\n    with: { statements: [\"create role lakeops_crash_never\"] }\n";
    let report = passes(&project, "beyond", beyond, &["--approve-all", "--sample", "1"]);
    assert_eq!(report["outcome"], "failed twice");
    let asks = "version: 1\nname: asks\nsteps:\n  - id: go\n    approval: { prompt: \"Go?\" }\n";
    project.write("workflows/asks.yaml", asks);
    let said = project.run(&["test", "crash", "asks"]).ends(1);
    assert!(
        said.err.contains("waiting_approval") && said.err.contains("--approve-all"),
        "{}",
        said.err
    );
    let said = project.run(&["test", "crash", "asks", "--approve-all", "--only", "x"]).ends(2);
    assert!(said.err.contains("boundaries fits"), "{}", said.err);
    let endpoint = project.endpoint();
    let mut session = connect(&endpoint).await;
    let said = project.run(&["test", "crash", "asks", "--approve-all"]).ends(1);
    assert!(said.err.contains("--connection emulator"), "{}", said.err);
    let left: i64 =
        sqlx::query_scalar("select count(*) from pg_roles where rolname = 'lakeops_crash_never'")
            .fetch_one(&mut session)
            .await
            .unwrap();
    let names: Vec<String> = sqlx::query_scalar("select datname::text from pg_database")
        .fetch_all(&mut session)
        .await
        .unwrap();
    session.close().await.unwrap();
    assert_eq!(left, 0, "it was created on the server of everybody");
    let own = endpoint.database();
    assert!(names.iter().any(|name| name == own), "{names:?}");
    assert_eq!(json!(project.json(&["runs"])), json!([]), "the real journal has nothing of it");
}

/// `cargo test --test it -- --ignored crashing::shapes::every_boundary`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: every boundary of the small shapes, killed once and twice"]
async fn every_boundary_of_the_small_shapes() {
    let project = project("crash_every").await;
    for (name, text) in [("changes", CHANGES), ("undone", UNDONE)] {
        let report = passes(&project, name, text, &["--approve-all"]);
        eprintln!("{name}: {} boundaries, {} kills", report["boundaries"], report["kills"]);
    }
}
