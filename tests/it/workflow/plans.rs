//! Plans: typed parameters, pinned texts, stable identities, files that cannot be tampered with.

use lakeops::config::Settings;
use lakeops::kernel::{Digest, Target, Timestamp};
use lakeops::plan::document::{Action, PlanError};
use lakeops::plan::file::{PlanFileError, load, save};
use lakeops::plan::{Given, Plan, PlanInputs, diff, plan};
use lakeops::sop::{Sandbox, Scope};
use lakeops::workflow::{Diagnostic, Resolver, Workflow};
use serde_json::{Value, json};

use super::{library, resolve, texts, tools};

fn workflow(name: &str) -> std::sync::Arc<Workflow> {
    let library = library(&["good"]);
    let resolution = Resolver::new(&tools::catalog(), &library).resolve(name);
    std::sync::Arc::clone(resolution.get(name).unwrap())
}

fn inputs<'a>(settings: &'a Settings, params: &[(&str, &str)]) -> PlanInputs<'a> {
    let text = |text: &str| Given::Text(text.to_owned());
    PlanInputs {
        params: params.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
        connection: "local".to_owned(),
        target: Target::default(),
        wake: false,
        settings,
        policy: Some(("sops/change_policy.rhai".to_owned(), "true".to_owned())),
        replaces: None,
        now: Timestamp::from_millis(0),
    }
}

fn made(workflow: &Workflow, params: &[(&str, &str)]) -> Plan {
    let settings = Settings::default();
    match plan(workflow, &inputs(&settings, params)) {
        Ok(plan) => plan,
        Err(found) => panic!("{found:#?}"),
    }
}

fn step<'p>(plan: &'p Plan, id: &str) -> &'p lakeops::plan::PlannedStep {
    plan.body.steps.iter().find(|step| step.id == id).unwrap()
}

#[test]
fn parameters_and_target_are_put_in_and_later_outputs_are_not() {
    let plan = made(&workflow("relieve_connections"), &[("max_idle", "10m"), ("branch", "dev")]);
    let body = &plan.body;
    assert_eq!(body.target.to_string(), "demo/dev/-");
    assert_eq!(body.lock.as_deref(), Some("demo/dev/-"));
    let Action::Tool(heal) = &step(&plan, "heal").action else { panic!("no tool") };
    assert_eq!(heal.with, json!({ "max_idle": "10m" }));
    let Action::Script { with, script } = &step(&plan, "decide").action else {
        panic!("no script")
    };
    assert_eq!(with, &json!({ "connections": "${{ steps.diagnose }}" }));
    let pinned = &body.scripts[script];
    assert_eq!(pinned.sha256, Digest::of_bytes(pinned.text.as_bytes()));
    assert!(body.scripts.contains_key("sops/change_policy.rhai"));
    assert_eq!(body.tools.len(), 4);
    assert_eq!(step(&plan, "heal").timeout.to_string(), "2m");
    assert_eq!(body.on_failure[0].id, "on_failure_1");
    assert_eq!(body.schedule[0]["id"], "relieve_connections */5 * * * * UTC");
}

#[test]
fn embedded_workflows_are_nested_with_their_defaults() {
    let plan = made(&workflow("everything"), &[("most", "7")]);
    let Action::Workflow(child) = &step(&plan, "nested").action else { panic!("no workflow") };
    assert_eq!(child.workflow, "embedded");
    assert_eq!(child.params, json!({ "limit": 7 }));
    let Action::Script { with, .. } = &child.steps[1].action else { panic!("no script") };
    assert_eq!(with, &json!({ "total": "${{ steps.look.total }}", "limit": 7 }));
    assert!(plan.body.scripts.contains_key("sops/judge.rhai"));
    assert_eq!(plan.body.secrets, ["HOOK_TOKEN"]);
    let Action::Sql { with, .. } = &step(&plan, "count").action else { panic!("no query") };
    assert_eq!(with, &[json!("public"), json!(7)]);
}

const COMPUTED: &str = r#"version: 1
name: w
params:
  patience: { type: duration, default: 5m }
  tries:    { type: integer, default: 4 }
  share:    { type: number, default: 0.5 }
limits: { timeout: "${{ params.patience }}", max_changes: "${{ params.tries * 10 }}" }
defaults: { timeout: "${{ params.tries }}s", retry: { max_attempts: "${{ params.tries }}", backoff: { jitter: "${{ params.share }}" } } }
triggers: [{ event: branch_created, cooldown: "${{ params.patience }}" }]
steps:
  - { id: look, tool: monitor_connections }
  - id: each
    for_each: { in: [a, b], key: "${{ item }}", max_parallel: "${{ params.tries }}" }
    tool: terminate_idle_connections
    with: { max_idle: 30m, users: ["${{ item }}"] }
    timeout: "${{ if params.tries > 3 { \"9m\" } else { \"1m\" } }}"
    retry: { max_attempts: 2 }
  - id: gate
    approval: { prompt: "Go on?", covers: [rewrite], expires: "${{ params.patience }}", rehearsed_within: "${{ params.patience }}" }
  - { id: rewrite, needs: [gate], tool: terminate_idle_connections, with: { max_idle: 30m } }
  - id: until
    wait: { tool: monitor_connections, until: result.total < 3, every: "${{ params.tries }}s", within: "${{ params.patience }}" }
  - id: proof
    verify: { tool: monitor_connections, assert: ["result.total < 3"], every: 1s, within: "${{ params.patience }}" }
"#;

#[test]
fn durations_and_numbers_follow_from_the_parameters() {
    let resolution = resolve("w", COMPUTED);
    let Some(workflow) = resolution.get("w") else { panic!("{:#?}", resolution.diagnostics) };
    let plan = made(workflow, &[("patience", "7m")]);
    let body = serde_json::to_value(&plan.body).unwrap();
    assert_eq!(body["limits"], json!({ "timeout": "7m", "max_changes": 40 }));
    assert_eq!(body["triggers"][0]["cooldown"], "7m");
    let look = step(&plan, "look");
    assert_eq!((look.timeout.to_string().as_str(), look.retry.max_attempts), ("4s", 4));
    assert_eq!(json!(look.retry.backoff.jitter), json!(0.5));
    let each = step(&plan, "each");
    assert_eq!((each.timeout.to_string().as_str(), each.retry.max_attempts), ("9m", 2));
    assert_eq!(json!(each.retry.backoff.jitter), json!(0.5), "what is not written is inherited");
    assert_eq!(each.for_each.as_ref().unwrap().max_parallel, 4);
    let Action::Approval(gate) = &step(&plan, "gate").action else { panic!("no gate") };
    assert_eq!((gate.expires, gate.rehearsed_within), (look_span("7m"), Some(look_span("7m"))));
    let Action::Verify(verify) = &step(&plan, "proof").action else { panic!("no verification") };
    assert_eq!(verify.within, look_span("7m"));
    let settings = Settings::default();
    let found = plan_of(workflow, &settings, &[("tries", "0"), ("share", "7"), ("patience", "0s")]);
    let told: Vec<String> = found.unwrap_err().iter().map(Diagnostic::to_string).collect();
    let once: std::collections::BTreeSet<&String> = told.iter().collect();
    assert_eq!(told.len(), once.len(), "{told:#?}");
    let told = told.join("\n");
    for part in [
        "`timeout` cannot be resolved: it comes to `\"0s\"`",
        "`max_attempts` cannot be resolved: it comes to `0`, but must be a whole number of at least 1",
        "`jitter` cannot be resolved: it comes to `7`, but must be a number from 0 to 1",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(told.contains("w.yaml:7:20"), "{told}");
}

fn look_span(text: &str) -> lakeops::kernel::Span {
    lakeops::kernel::Span::parse(text).unwrap()
}

fn plan_of(
    workflow: &Workflow,
    settings: &Settings,
    params: &[(&str, &str)],
) -> Result<Plan, Vec<Diagnostic>> {
    plan(workflow, &inputs(settings, params))
}

#[test]
fn what_shapes_an_embedded_workflow_is_known_when_the_plan_is_made() {
    let child = r#"version: 1
name: child
params: { patience: { type: duration, default: 5m }, most: { type: integer, default: 3 } }
steps:
  - { id: look, tool: monitor_connections, timeout: "${{ params.patience }}" }
  - { id: judge, script: sops/judge.rhai, with: { total: "${{ params.most }}", limit: 1 } }
"#;
    let parent = |with: &str| {
        let text = format!(
            "version: 1\nname: parent\nparams: {{ p: {{ type: duration, default: 9m }} }}\nsteps:\n  - {{ id: a, tool: monitor_connections }}\n  - id: b\n    workflow: child\n    with: {with}\n"
        );
        let library = library(&["good"]).with_workflow("workflows/child.yaml", child);
        let source = lakeops::workflow::SourceText::new("workflows/parent.yaml", text);
        let resolution = Resolver::new(&tools::catalog(), &library).resolve_file(&source);
        let Some(workflow) = resolution.get("parent") else {
            panic!("{:#?}", resolution.diagnostics)
        };
        plan_of(workflow, &Settings::default(), &[])
    };
    let plan = parent(r#"{ patience: "${{ params.p }}", most: "${{ steps.a.total }}" }"#).unwrap();
    let Action::Workflow(embedded) = &step(&plan, "b").action else { panic!("no workflow") };
    assert_eq!(embedded.steps[0].timeout, look_span("9m"));
    let Action::Script { with, .. } = &embedded.steps[1].action else { panic!("no script") };
    assert_eq!(with["total"], "${{ params.most }}", "that one is known only later");
    let found = parent(r#"{ patience: "${{ steps.a.total + \"s\" }}" }"#).unwrap_err();
    let told = found[0].to_string();
    assert!(told.contains("`params.patience` is known only while the run works"), "{told}");
    assert!(told.contains("workflows/child.yaml:5:"), "{told}");
}

#[test]
fn every_template_of_a_plan_compiles_and_every_need_stands_before() {
    for (file, _) in texts("good", "yaml") {
        let name = file.trim_end_matches(".yaml");
        let given: &[(&str, &str)] = if name == "embedded" { &[("limit", "3")] } else { &[] };
        let plan = made(&workflow(name), given);
        let json = serde_json::to_value(&plan.body).unwrap();
        assert!(Sandbox::new().template(&json).is_ok(), "{name}");
        for (at, step) in plan.body.steps.iter().enumerate() {
            let before = |id: &str| plan.body.steps[..at].iter().any(|other| other.id == id);
            assert!(step.needs.iter().all(|need| before(&need.step)), "{name}/{}", step.id);
        }
        assert_eq!(Plan::parse(&plan.to_bytes().unwrap()).unwrap(), plan);
    }
}

#[test]
fn wrong_parameters_are_all_told() {
    let settings = Settings::default();
    let given = [("max_idl", "10m"), ("max_idle", "10"), ("branch", "x")];
    let found = plan(&workflow("relieve_connections"), &inputs(&settings, &given)).unwrap_err();
    let told: Vec<String> = found.iter().map(Diagnostic::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("no parameter `max_idl`") && told[0].contains("`max_idle`"),
        "{told:?}"
    );
    assert!(told[1].contains("`10` is no duration") && told[1].contains(":8:3"), "{told:?}");
    let found = plan(&workflow("embedded"), &inputs(&settings, &[])).unwrap_err();
    assert!(found[0].to_string().contains("`limit` must be given"), "{}", found[0]);
    assert!(found[0].to_string().contains("How many are too many"), "{}", found[0]);
}

#[test]
fn equal_inputs_make_equal_plans() {
    let text = |params: &str| {
        format!(
            "version: 1\nname: w\nparams:\n{params}steps:\n  - {{ id: a, tool: monitor_connections }}\n"
        )
    };
    let one = "  a: { type: string, default: x }\n  b: { default: 1, type: integer }\n";
    let other =
        "  b: { type: integer, default: 1 } # a comment\n  a: { type: string, default: 'x' }\n";
    let planned = |params: &str, given: &[(&str, &str)]| {
        let resolution = resolve("w", &text(params));
        made(resolution.get("w").unwrap(), given)
    };
    let (first, second) =
        (planned(one, &[("a", "y"), ("b", "2")]), planned(other, &[("b", "2"), ("a", "y")]));
    assert_eq!(first.id, second.id);
    assert_ne!(first.id, planned(one, &[("a", "z")]).id);
    let settings = Settings::default();
    let later = PlanInputs { now: Timestamp::from_millis(7), ..inputs(&settings, &[]) };
    let resolution = resolve("w", &text(one));
    let later = plan(resolution.get("w").unwrap(), &later).unwrap();
    assert_eq!(later.id, planned(one, &[]).id, "when a plan is made is not part of it");
}

#[test]
fn a_given_text_never_becomes_an_expression() {
    let text = "version: 1\nname: w\nparams: { t: { type: string } }\nsteps:\n  - { id: a, tool: send_alert, with: { severity: info, title: \"${{ params.t }}\" } }\n";
    let resolution = resolve("w", text);
    let plan = made(resolution.get("w").unwrap(), &[("t", "${{ secrets.TOKEN }}")]);
    let Action::Tool(call) = &plan.body.steps[0].action else { panic!("no tool") };
    assert_eq!(call.with["title"], "${{ params.t }}");
    let scope = Scope::from([("params".to_owned(), Value::Object(plan.body.params.clone()))]);
    let evaluated = Sandbox::new().template(&call.with).unwrap().evaluate(&scope).unwrap();
    assert_eq!(evaluated.value["title"], "${{ secrets.TOKEN }}");
}

#[test]
fn files_are_written_whole_and_refused_when_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let plan = made(&workflow("relieve_connections"), &[]);
    save(&plan, &path).unwrap();
    save(&plan, &path).unwrap();
    assert_eq!(load(&path).unwrap(), plan);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"30m\"", "\"31m\"")).unwrap();
    let refused = load(&path).unwrap_err();
    assert!(matches!(&refused, PlanFileError::Refused { source: PlanError::Tampered { .. }, .. }));
    assert_eq!(refused.code(), "plan::tampered");
    std::fs::write(&path, text.replace("\"format\":1", "\"format\":2")).unwrap();
    assert_eq!(load(&path).unwrap_err().code(), "plan::newer_format");
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(load(&path).unwrap_err().code(), "plan::malformed");
    assert_eq!(load(&folder.path().join("none")).unwrap_err().code(), "plan::unreadable");
    let nowhere = folder.path().join("none/plan.json");
    assert_eq!(save(&plan, &nowhere).unwrap_err().code(), "plan::unwritable");
}

#[test]
fn differences_are_told_by_step() {
    let workflow = workflow("relieve_connections");
    let before = made(&workflow, &[]);
    assert!(diff::diff(&before, &before).is_empty());
    let mut after = made(&workflow, &[("max_idle", "5m")]);
    after.body.steps.remove(3);
    after.body.steps[0].wake = true;
    let told: Vec<String> = diff::diff(&before, &after).iter().map(ToString::to_string).collect();
    let starts: Vec<&str> = told.iter().map(|line| line.split(':').next().unwrap()).collect();
    let expected = [
        "~ params.max_idle",
        "+ steps[diagnose].wake",
        "~ steps[heal].action.with.max_idle",
        "- steps[verify]",
    ];
    assert_eq!(starts, expected, "{told:#?}");
    assert_eq!(told[0], "~ params.max_idle: \"30m\" -> \"5m\"");
}
