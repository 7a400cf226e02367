//! The command line as a person and a script meet it: the real program, in a process of its own.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use lakeops::kernel::Secret;
use lakeops::postgres::PgEndpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::scratch::scratch;
use crate::harness::{postgres, value};

/// A project folder of its own, and the program in it.
pub(crate) struct Project {
    folder: TempDir,
    pub(crate) url: Option<String>,
}

/// How the program ended, and what it said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }

    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

impl Project {
    pub(crate) fn new() -> Self {
        Self { folder: scratch(), url: None }
    }

    /// With a database of its own.
    pub(crate) async fn with_database(hint: &str) -> Self {
        let endpoint = postgres().await.fresh_database(hint).await;
        Self { url: Some(endpoint.to_url().expose().clone()), ..Self::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its database.
    pub(crate) fn endpoint(&self) -> PgEndpoint {
        PgEndpoint::from_url(&Secret::new(self.url.clone().unwrap())).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lakeops"));
        command.args(args).current_dir(self.path()).env_clear().stdin(Stdio::null());
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(url) = &self.url {
            command.env("LAKEOPS_DATABASE_URL", url);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        Self::finish(self.command(args))
    }

    fn finish(mut command: Command) -> Said {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        self.run(&args).json()
    }
}

const VERBS: &[&[&str]] = &[
    &[],
    &["demo"],
    &["init"],
    &["doctor"],
    &["config"],
    &["config", "show"],
    &["validate"],
    &["schema"],
    &["plan"],
    &["plan", "show"],
    &["plan", "diff"],
    &["run"],
    &["resume"],
    &["cancel"],
    &["settle"],
    &["approvals"],
    &["approve"],
    &["reject"],
    &["runs"],
    &["show"],
    &["logs"],
    &["watch"],
    &["explain"],
    &["audit"],
    &["audit", "verify"],
    &["audit", "head"],
    &["audit", "prune"],
    &["report"],
    &["report", "operations"],
    &["audit", "export"],
    &["history"],
    &["history", "tables"],
    &["history", "query"],
    &["history", "flush"],
    &["history", "chart"],
    &["history", "optimize"],
    &["history", "expire"],
    &["bench", "history"],
    &["export"],
    &["export", "databricks"],
    &["export", "alerts"],
    &["ask"],
    &["tools"],
    &["tools", "list"],
    &["tools", "show"],
    &["tools", "run"],
    &["sql"],
    &["sql", "list"],
    &["sql", "show"],
    &["sql", "run"],
    &["sop"],
    &["sop", "check"],
    &["sop", "test"],
    &["sop", "eval"],
    &["sop", "explain"],
    &["sop", "backtest"],
    &["emulator"],
    &["emulator", "start"],
    &["emulator", "stop"],
    &["emulator", "status"],
    &["emulator", "reset"],
    &["serve"],
    &["schedule"],
    &["schedule", "list"],
    &["schedule", "next"],
    &["schedule", "pause"],
    &["schedule", "resume"],
    &["schedule", "trigger"],
    &["test"],
    &["test", "live"],
    &["test", "crash"],
    &["freeze"],
    &["thaw"],
    &["fork"],
    &["bench"],
    &["bench", "branch"],
    &["completions"],
];

/// What every verb's help repeats.
fn without_everywhere(help: &str) -> String {
    let Some((before, after)) = help.split_once("Everywhere:\n") else { return help.to_owned() };
    let rest = after.find("\nExamples:").map(|at| &after[at..]).unwrap_or_default();
    format!("{before}{rest}")
}

#[test]
fn help_teaches() {
    let project = Project::new();
    let mut text = String::new();
    for &verb in VERBS {
        let help = project.run(&[verb, &["--help"]].concat()).ends(0);
        assert_eq!(help.err, "");
        let body = if verb.is_empty() { help.out.clone() } else { without_everywhere(&help.out) };
        writeln!(text, "==== lakeops {} ====\n{}", verb.join(" "), body.trim_end()).unwrap();
        let leads_to_verbs = body.contains("\nCommands:");
        let is_example_free = verb.len() > 1 || leads_to_verbs;
        assert!(is_example_free || body.contains("\nExamples:"), "{verb:?} has no example");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn every_verb_is_in_the_list() {
    let help = Project::new().run(&["--help"]).out;
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in commands.lines() {
        let verb = line.split_whitespace().next().unwrap();
        let is_tested = VERBS.iter().any(|known| known.first() == Some(&verb));
        assert!(is_tested || verb == "help", "{verb} is not tested");
    }
}

#[test]
fn usage_mistakes_end_with_two() {
    let project = Project::new();
    let said = project.run(&["rnus"]).ends(2);
    assert!(said.err.contains("runs") && said.out.is_empty());
    project.run(&["show"]).ends(2);
    let said = project.run(&["run", "nowhere"]).ends(2);
    assert!(said.err.contains("no workflow is called `nowhere`"), "{}", said.err);
    let said = project.run(&["show", "abc"]).ends(2);
    assert!(said.err.contains("help: `lakeops runs` lists the runs"), "{}", said.err);
    let said = project.run(&["runs", "--output", "csv"]).ends(2);
    assert!(said.err.contains("only `audit` and `history query` print CSV"), "{}", said.err);
    let said = project.run(&["run", "x", "--rehearse", "--yes"]).ends(2);
    assert!(said.err.contains("'--rehearse' cannot be used with '--yes'"), "{}", said.err);
    let mut command = project.command(&["runs"]);
    command.env("LAKEOPS_OUTPUT", "yaml");
    let said = Project::finish(command).ends(2);
    assert!(said.err.contains("`LAKEOPS_OUTPUT`") && said.err.contains("json"), "{}", said.err);
    assert!(!project.path().join("state").exists(), "looking made a state directory");
}

#[test]
fn a_bad_configuration_is_told_whole() {
    let project = Project::new();
    project.write(".config/lakeops.toml", "conection = \"x\"\n[settings]\nallow_commands = 1\n");
    let said = project.run(&["runs"]).ends(2);
    insta::assert_snapshot!(said.err, @r#"
    error: the configuration cannot be used
      caused by: a configuration has no key `conection`
          --> .config/lakeops.toml:1:1
          |
        1 | conection = "x"
          | ^
          = did you mean `connection`?
        1 is not `true` or `false`
          --> .config/lakeops.toml:3:18
          |
        3 | allow_commands = 1
          |                  ^
    "#);
    let said = project.run(&["runs", "--log-format", "json"]).ends(2);
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["exit_code"], 2);
}

#[test]
fn lists_are_arrays_also_when_nothing_is_there() {
    let project = Project::new();
    for verb in [&["runs"][..], &["approvals"], &["tools"], &["sql"], &["config", "show"]] {
        assert!(project.json(verb).is_array(), "{verb:?}");
    }
    let shown = project.json(&["config", "show", "state"]);
    assert_eq!(shown[0]["key"], "state");
    assert_eq!(shown[0]["origin"]["from"], "default");
}

#[test]
fn init_writes_what_is_not_there_and_all_of_it_is_sound() {
    let project = Project::new();
    project.write("workflows/hello.yaml", "# mine\n");
    let said = project.run(&["init"]).ends(0);
    assert!(said.out.contains("kept  ./workflows/hello.yaml"), "{}", said.out);
    let kept = std::fs::read_to_string(project.path().join("workflows/hello.yaml")).unwrap();
    assert_eq!(kept, "# mine\n");
    std::fs::remove_file(project.path().join("workflows/hello.yaml")).unwrap();
    project.run(&["init"]).ends(0);
    project.run(&["validate"]).ends(0);
    project.run(&["sop", "check"]).ends(0);
    let tested = project.run(&["sop", "test"]).ends(0);
    assert!(tested.out.contains(" 0 failed"), "{}", tested.out);
    project.run(&["plan", "hello"]).ends(0);
}

#[test]
fn mistakes_of_workflows_have_places() {
    let project = Project::new();
    project.write(
        "workflows/bad.yaml",
        "version: 1\nname: bad\nsteps:\n  - id: a\n    tool: monitor_conections\n",
    );
    let said = project.run(&["validate"]).ends(2);
    assert!(said.err.contains("workflows/bad.yaml:5:"), "{}", said.err);
    assert!(said.err.contains("monitor_connections"), "{}", said.err);
    let found = project.json(&["validate"]);
    assert_eq!(found[0]["line"], 5);
}

#[test]
fn a_plan_is_written_shown_compared_and_refused_when_it_was_changed() {
    let project = Project::new();
    project.run(&["init"]).ends(0);
    project.run(&["plan", "hello", "-o", "a.json"]).ends(0);
    project.run(&["plan", "hello", "-p", "most=3", "-o", "b.json"]).ends(0);
    let shown = project.run(&["plan", "show", "a.json"]).ends(0);
    assert!(shown.out.contains("monitor_connections"));
    let graph = project.run(&["plan", "show", "a.json", "--as", "mermaid"]).ends(0);
    assert!(graph.out.contains("s_look -.-> s_decide"), "{}", graph.out);
    let diff = project.json(&["plan", "diff", "a.json", "b.json"]);
    assert!(diff.as_array().unwrap().iter().any(|one| one["path"] == "params.most"), "{diff}");
    let text = std::fs::read_to_string(project.path().join("a.json")).unwrap();
    project.write("a.json", &text.replace("hello", "hallo"));
    let said = project.run(&["run", "a.json"]).ends(2);
    assert!(said.err.contains("changed after it was made"), "{}", said.err);
}

#[test]
fn a_server_is_started_only_for_what_asks_for_one() {
    let project = Project::new();
    project.write("sops/add.rhai", "#{ n: n + 1 }").write(
        "workflows/scripts.yaml",
        "version: 1\nname: scripts\nsteps:\n  - { id: a, script: sops/add.rhai, with: { n: 1 } }\n",
    );
    project.write(
        "workflows/look.yaml",
        "version: 1\nname: look\nsteps:\n  - { id: a, tool: monitor_connections }\n",
    );
    let without_server = |args: &[&str]| {
        let mut command = project.command(args);
        command.env("LAKEOPS_POSTGRES_BIN", "/nowhere");
        Project::finish(command)
    };
    let run = |workflow: &str| without_server(&["run", workflow, "--output", "json"]);
    without_server(&["plan", "scripts", "--preview"]).ends(0);
    let ran = run("scripts").ends(0).json();
    assert_eq!(ran["steps"][0]["output"], json!({ "n": 2 }), "{ran}");
    // What cannot be had is told before a run begins.
    let said = run("look");
    assert!(said.code != 0 && said.err.contains("/nowhere"), "{}: {}", said.code, said.err);
    assert_eq!(project.json(&["runs"]).as_array().unwrap().len(), 1);
}

/// It has no event, and what it says of one is nothing.
#[tokio::test]
async fn what_an_event_starts_can_be_started_by_hand() {
    let project = Project::with_database("by_hand").await;
    let text = include_str!("../../workflows/review_queue.yaml");
    project.write("workflows/review_queue.yaml", text);
    let ran = project.json(&["run", "review_queue", "-p", "object=public.t"]);
    let set = &ran["steps"][0];
    assert!(set.to_string().contains("for review: a look of public.t"), "{ran:#}");
}

#[test]
fn whoever_stops_reading_is_no_failure() {
    let project = Project::new();
    let mut child = project
        .command(&["tools", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

const ASK: &str = "\
version: 1
name: ask
description: Insert a row once somebody agreed.
steps:
  - id: make
    tool: execute_sql
    with: { statements: [\"create table t (a int)\"] }
  - id: insert
    needs: [make]
    tool: execute_sql
    approval: required
    with: { statements: [ { sql: \"insert into t values ($1)\", binds: [7] } ] }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_an_approval_and_goes_on() {
    let project = Project::with_database("cli_ask").await;
    project.write("workflows/ask.yaml", ASK);
    let run = project.run(&["run", "ask", "--key", "once", "--output", "json"]).ends(3).json();
    let id = run["run_id"].as_str().unwrap();
    assert_eq!(run["outcome"], "waiting_approval");
    for key in ["run_id", "plan_id", "workflow", "outcome", "steps"] {
        assert!(run.get(key).is_some(), "{key} is missing");
    }
    // The same key is the same run.
    let again = project.run(&["run", "ask", "--key", "once", "--output", "json"]).ends(3).json();
    assert_eq!(again["run_id"], id);
    let waiting = project.json(&["approvals"]);
    assert_eq!(waiting[0]["step"], "insert");
    let shown = project.run(&["approvals", &id[..6]]).ends(0).out;
    assert!(shown.contains("insert into t values ($1)") && shown.contains("$1 = 7"), "{shown}");
    let said = project.run(&["approve", id, "nosuch", "--reason", "x"]).ends(2);
    assert!(said.err.contains("waiting: insert"), "{}", said.err);
    let said = project.run(&["approve", id, "--reason", "x", "--digest", "0000000000"]).ends(2);
    assert!(said.err.contains("no") && said.err.contains("digest"), "{}", said.err);

    let done =
        project.run(&["approve", id, "--reason", "agreed", "--output", "json"]).ends(0).json();
    assert_eq!(done["outcome"], "succeeded");
    let steps = done["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["state"] == "succeeded"), "{done}");
    let rows: i64 = value(&project.endpoint(), "select count(*) from t where a = 7").await;
    assert_eq!(rows, 1);

    let listed = project.json(&["runs"]);
    assert_eq!((listed[0]["run_id"].as_str(), listed.as_array().unwrap().len()), (Some(id), 1));
    let audit = project.run(&["audit", "--output", "csv"]).ends(0).out;
    assert!(
        audit.lines().any(|line| line.contains("approved") && line.contains("agreed")),
        "{audit}"
    );
    let explained = project.run(&["explain", id, "insert"]).ends(0).out;
    assert!(explained.contains("the change policy said") && explained.contains("agreed"));
    assert!(project.run(&["logs", id]).ends(0).out.contains("approved by"));
    let said = project.run(&["explain", id, "nosuch"]).ends(2);
    assert!(said.err.contains("it has: make, insert"), "{}", said.err);
    project.run(&["audit", "verify"]).ends(0);
    let head = project.run(&["audit", "head"]).ends(0).out;
    project.write("head.json", &head);
    project.run(&["audit", "verify", "--against", "head.json"]).ends(0);
    project.write("head.json", &head.replace("\"position\": ", "\"position\": 9"));
    project.run(&["audit", "verify", "--against", "head.json"]).ends(1);
    let exported = project.run(&["audit", "export"]).ends(0).out;
    let end: Value = serde_json::from_str(&head).unwrap();
    assert_eq!(exported.lines().count().to_string(), end["position"].to_string());
    project.run(&["cancel", id, "--reason", "too late"]).ends(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_cancelled_and_frozen_runs_end_as_the_codes_say() {
    let project = Project::with_database("cli_ends").await;
    project.write("workflows/ask.yaml", ASK);
    let start = || {
        let run = project.run(&["run", "ask", "--output", "json"]).ends(3).json();
        run["run_id"].as_str().unwrap().to_owned()
    };
    let rejected = start();
    let said =
        project.run(&["reject", &rejected, "--reason", "not now", "--output", "json"]).ends(1);
    assert_eq!(said.json()["outcome"], "failed");
    let endpoint = project.endpoint();
    crate::harness::execute(&endpoint, &["drop table t"]).await;
    let cancelled = start();
    project.run(&["cancel", &cancelled, "--reason", "enough"]).ends(4);
    project.run(&["resume", &cancelled]).ends(4);
    crate::harness::execute(&endpoint, &["drop table t"]).await;

    project.run(&["freeze", "--reason", "release day", "--for", "1h"]).ends(0);
    let said = project.run(&["run", "ask", "--output", "json"]).ends(1);
    assert!(said.json().to_string().contains("frozen by"), "{}", said.out);
    project.run(&["thaw", "--reason", "it is out"]).ends(0);
    let database = endpoint.database().to_owned();
    let target = format!("shop/production/{database}");
    project.run(&["freeze", "shop/production", "--reason", "migration"]).ends(0);
    let said = project.run(&["run", "ask", "--target", &target, "--output", "json"]).ends(1);
    assert!(said.json().to_string().contains("frozen by"), "{}", said.out);
    let thawed = start();
    project.run(&["cancel", &thawed, "--reason", "done", "--no-resume"]).ends(0);
    let all = project.run(&["resume", "--all", "--output", "json"]).ends(4).json();
    assert_eq!(all[0]["outcome"], "cancelled");
    assert_eq!(project.run(&["resume", "--all"]).ends(0).out, "every run is over\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_takes_over_what_came_before() {
    let project = Project::with_database("cli_fork").await;
    project.write(
        "workflows/three.yaml",
        "version: 1\nname: three\ndescription: one after the other\nsteps:\n\
         \x20 - { id: one, tool: execute_sql, with: { statements: [\"create table f (a int)\"] } }\n\
         \x20 - { id: two, needs: [one], tool: execute_sql, with: { statements: [\"insert into f values (1)\"] } }\n\
         \x20 - { id: other, needs: [one], tool: monitor_connections }\n",
    );
    let run = project.run(&["run", "three", "--output", "json"]).ends(0).json();
    let id = run["run_id"].as_str().unwrap();
    let said = project.run(&["fork", id, "--from", "none"]).ends(2);
    assert!(said.err.contains("one, two, other"), "{}", said.err);
    let args = ["fork", id, "--from", "two", "--key", "again", "--output", "json"];
    let fork = project.run(&args).ends(0).json();
    assert_eq!(project.run(&args).ends(0).json()["run_id"], fork["run_id"], "a key forks once");
    assert_eq!(
        (fork["outcome"].as_str(), fork["forked_from"].as_str()),
        (Some("succeeded"), Some(id))
    );
    let attempts = |step: &str| {
        let steps = fork["steps"].as_array().unwrap();
        steps.iter().find(|one| one["id"] == step).unwrap()["attempts"].clone()
    };
    assert_eq!(
        (attempts("one"), attempts("two"), attempts("other")),
        (0.into(), 1.into(), 0.into())
    );
    let rows: i64 = value(&project.endpoint(), "select count(*) from f").await;
    assert_eq!(rows, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_and_queries_run_by_hand() {
    let project = Project::with_database("cli_tools").await;
    let found = project.json(&["tools", "run", "monitor_connections"]);
    assert!(found["total"].as_u64().is_some(), "{found}");
    let statements = r#"statements=["create table made (a int)"]"#;
    let args = ["tools", "run", "execute_sql", "-p", statements];
    let shown = project.run(&[&args[..], &["--preview"]].concat()).ends(0).out;
    assert!(shown.contains("create table made"), "{shown}");
    let run = project.run(&[&args[..], &["--output", "json"]].concat()).ends(0).json();
    assert_eq!(run["statements"].as_array().map(Vec::len), Some(1), "{run}");
    project.write(
        "sql/mine/count.sql",
        "-- purpose: counts\nselect count(*) as n from made where a > $1\n",
    );
    assert_eq!(project.json(&["sql", "run", "mine/count", "0"])[0]["n"], 0);
    let said = project.run(&["sql", "run", "mine/cuont"]).ends(2);
    assert!(said.err.contains("did you mean `mine/count`?"), "{}", said.err);
    project.write("sql/mine/drop.sql", "drop table made\n");
    let said = project.run(&["sql", "run", "mine/drop"]).ends(1);
    assert!(!said.err.is_empty());
    let said = project.run(&["tools", "run", "monitor_conections"]).ends(2);
    assert!(said.err.contains("did you mean `monitor_connections`?"), "{}", said.err);
    let said = project.run(&["tools", "run", "execute_sql", "-p", "statement=x"]).ends(1);
    assert!(said.err.contains("lakeops tools show execute_sql"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_with_a_registration_is_a_tool() {
    let project = Project::with_database("cli_offered").await;
    project.write(
        "workflows/count_tables.yaml",
        r#"version: 1
name: count_tables
description: Makes a table and counts.
tool: { family: health }
params: { name: { type: string, default: made, description: the table } }
steps:
  - { id: make, tool: execute_sql, with: { statements: ["create table ${{ params.name }} (a int)"] } }
  - { id: look, needs: [make], tool: monitor_connections }
outputs: { total: steps.look.total, made: steps.make.statements.len() }
"#,
    );
    project.write(
        "workflows/uses.yaml",
        "version: 1\nname: uses\nsteps:\n  - { id: a, tool: count_tables, with: { name: other } }\noutputs: { made: steps.a.made }\n",
    );
    let listed = project.json(&["tools"]);
    let listed = listed.as_array().unwrap();
    let one = listed.iter().find(|tool| tool["name"] == "count_tables").unwrap();
    assert_eq!((one["kind"].as_str(), one["risk"].as_str()), (Some("workflow"), Some("medium")));
    let shown = project.run(&["tools", "show", "count_tables"]).ends(0).out;
    assert!(shown.contains("default \"made\"") && shown.contains("the table"), "{shown}");
    assert!(shown.contains("total") && shown.contains("integer"), "{shown}");
    let typo = project.run(&["tools", "show", "count_table"]).ends(2);
    assert!(typo.err.contains("did you mean `count_tables`?"), "{}", typo.err);
    let preview = project.run(&["tools", "run", "count_tables", "--preview"]).ends(0).out;
    assert!(preview.contains("create table made"), "{preview}");
    let output = project.json(&["tools", "run", "count_tables", "-p", "name=mine"]);
    assert_eq!(output["made"], 1, "{output}");
    assert!(output["total"].as_u64().is_some(), "{output}");
    let run = project.json(&["run", "uses"]);
    assert_eq!((run["outcome"].as_str(), &run["outputs"]["made"]), (Some("succeeded"), &json!(1)));
    assert_eq!(project.json(&["runs"]).as_array().unwrap().len(), 2, "a preview is no run");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_missing_and_how_to_get_it() {
    let project = Project::with_database("cli_doctor").await;
    let checks = project.json(&["doctor", "--selected"]);
    let find = |checks: &Value, part: &str| {
        let all = checks.as_array().unwrap().clone();
        all.into_iter().find(|one| one["name"].as_str().unwrap().contains(part)).unwrap()
    };
    assert_eq!(find(&checks, "state directory")["status"], "ok");
    assert_eq!(find(&checks, "connection database-url")["status"], "ok");
    let endpoint = project.endpoint();
    crate::harness::execute(&endpoint, &["create role cli_plain login"]).await;
    let plain = endpoint.with_user("cli_plain", None).to_url().expose().clone();
    let plain = Project { url: Some(plain), ..Project::new() };
    let checks = plain.json(&["doctor", "--selected"]);
    let privileges = find(&checks, "privileges");
    assert_eq!(privileges["status"], "warn");
    let hint = privileges["hint"].as_str().unwrap();
    for role in ["pg_monitor", "pg_signal_backend", "pg_maintain"] {
        assert!(hint.contains(&format!("grant {role} to \"cli_plain\";")), "{hint}");
    }
    assert!(find(&checks, "schema lakeops")["hint"].as_str().unwrap().contains("create schema"));
    let nowhere = Project { url: Some("postgres://me@127.0.0.1:1/none".into()), ..Project::new() };
    let said = nowhere.run(&["doctor", "--selected"]).ends(5);
    assert!(said.out.contains("✗ connection database-url"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_is_parked_and_can_be_resumed() {
    let project = Project::with_database("cli_park").await;
    project.write(
        "workflows/pause.yaml",
        "version: 1\nname: pause\ndescription: waits\nsteps:\n  - id: pause\n    wait: { for: 1h }\n",
    );
    let mut command = project.command(&["run", "pause", "--output", "json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    // The wait has begun once the journal says so.
    while !project.run(&["runs"]).out.contains("pause") || !is_waiting(&project) {}
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["outcome"], "waiting");
    let id = run["run_id"].as_str().unwrap();
    project.run(&["cancel", id, "--reason", "seen enough"]).ends(4);
}

fn is_waiting(project: &Project) -> bool {
    let runs = project.json(&["runs"]);
    let Some(id) = runs[0]["run_id"].as_str() else { return false };
    let shown = project.json(&["show", id]);
    shown["steps"][0]["state"] == "waiting"
}

#[test]
fn a_secret_in_a_url_is_never_shown() {
    let mut project = Project::new();
    project.url = Some("postgres://ann:correct-horse-battery@127.0.0.1:1/none".into());
    for args in [
        &["doctor", "--selected"][..],
        &["config", "show"],
        &["-vvv", "sql", "run", "shared/table_size"],
    ] {
        let said = project.run(args);
        assert!(
            !said.out.contains("correct-horse") && !said.err.contains("correct-horse"),
            "{args:?}"
        );
    }
}

/// All of it, with sizes that are more than one file and one journal page, but small.
#[test]
fn the_engine_measures_itself() {
    let args = "bench --starts 2 --steps 20 --runs 3 --changes 0 --items 100 --settled 200 --dag 1200 \
                --files 3 --events 500";
    let report = Project::new().json(&args.split(' ').collect::<Vec<_>>());
    let what = |text: &str| {
        let figures = report["figures"].as_array().unwrap();
        let is_it = |figure: &&Value| figure["what"].as_str().unwrap().contains(text);
        figures.iter().find(is_it).unwrap_or_else(|| panic!("no {text}: {report:#}"))
    };
    let steps = what("script steps");
    assert!(steps["peak_memory_bytes"].as_u64().unwrap() > 1 << 20, "{steps}");
    assert!(what("1200 steps, read")["elapsed_ms"].as_f64().unwrap() > 0.0);
}
