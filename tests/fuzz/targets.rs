//! What is fuzzed: any bytes, as each of the texts that people and disks give. Nothing panics, and what is taken
//! has the properties that are asserted here.
//!
//! The targets of `cargo fuzz` and the replay in the suite (`tests/it/fuzz.rs`) call the same functions.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use lakeops::alert::outbox::Outbox;
use lakeops::config::Settings;
use lakeops::engine::decide::{Situation, decide};
use lakeops::engine::graph::Graph;
use lakeops::engine::state::RunState;
use lakeops::journal::{Entry, audit, export};
use lakeops::kernel::{Span, Target, Timestamp};
use lakeops::plan::{Plan, PlanBody, PlanInputs};
use lakeops::report::graph::Language;
use lakeops::report::run::Detail;
use lakeops::report::{RunView, Style, graph, operations, timeline};
use lakeops::schedule::triggers::Published;
use lakeops::schedule::{slots, triggers};
use lakeops::sop::{ROOTS, Sandbox, Scope, check, declared_variables, run_cases};
use lakeops::tools::Catalog;
use lakeops::workflow::{Library, Resolver, SourceText};
use serde_json::{Value, json};

static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::builtin);
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(Sandbox::new);

/// What files can name: one script, one query, one workflow.
static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let child = "version: 1\nname: child\nparams: { limit: { type: integer, default: 3 } }\nsteps:\n  - { id: look, \
                 tool: monitor_connections }\noutputs: { total: \"${{ steps.look.total }}\" }\n";
    Library::new()
        .with_script("sops/judge.rhai", "// with: total\n#{ act: total > 3 }\n")
        .with_sql("fixtures/count", "-- purpose: counts\n-- params: $1 schema text\nselect 1\n")
        .with_workflow("workflows/child.yaml", child)
});

/// A run of that many events shows what longer ones show.
const MOST_ENTRIES: usize = 300;

/// A workflow file.
pub(crate) fn workflow(bytes: &[u8]) {
    // The loader refuses what is no UTF-8, with its place.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A file is called as the workflow in it.
    let name = text.lines().find_map(|line| line.strip_prefix("name: ")).unwrap_or("fuzzed");
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let name = if is_name(name.trim()) { name.trim() } else { "fuzzed" };
    let source = SourceText::new(format!("workflows/{name}.yaml"), text);
    let resolution = Resolver::new(&CATALOG, &*LIBRARY).resolve_file(&source);
    for found in &resolution.diagnostics {
        let place = found.span.unwrap_or_else(|| panic!("no place: {found}"));
        assert!(place.start.line >= 1 && place.start.column >= 1, "{found}");
    }
    let Some(workflow) = resolution.get(source.stem()) else {
        assert!(!resolution.is_sound(), "refused without a word");
        return;
    };
    let inputs = PlanInputs {
        params: BTreeMap::new(),
        connection: "local".to_owned(),
        target: Target::default(),
        wake: false,
        settings: &Settings::default(),
        policy: None,
        replaces: None,
        now: Timestamp::default(),
    };
    match lakeops::plan::plan(workflow, &inputs) {
        Ok(plan) => sealed(&plan),
        Err(found) => assert!(!found.is_empty(), "no plan, and no word why"),
    }
}

/// A script, an expression and a template; after a line `# cases`, cases of the script.
pub(crate) fn sop(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, cases) = match text.split_once("\n# cases\n") {
        Some((text, cases)) => (text, Some(cases)),
        None => (text, None),
    };
    for problem in check(&SANDBOX, "sops/fuzzed.rhai", text, None, cases) {
        assert!(!problem.to_string().is_empty());
    }
    if let Some(cases) = cases {
        // Cases that cannot be read are an error with its place, which is all that is wanted of them.
        drop(run_cases(&SANDBOX, "sops/fuzzed.rhai", text, cases));
    }
    let names = declared_variables(text).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(ROOTS.iter().copied()).collect();
    let scope: Scope = names.iter().map(|name| ((*name).to_owned(), example())).collect();
    if let Ok(script) = SANDBOX.script("sops/fuzzed.rhai", text, &names) {
        let [one, other] = [(); 2].map(|()| script.evaluate(&scope).map(|found| found.value));
        same(&one, &other);
    }
    if let Ok(expression) = SANDBOX.expression(text) {
        let [one, other] = [(); 2].map(|()| expression.evaluate(&scope).map(|found| found.value));
        same(&one, &other);
    }
    if let Ok(template) = SANDBOX.template(&json!(text)) {
        let [one, other] = [(); 2].map(|()| template.evaluate(&scope).map(|found| found.value));
        same(&one, &other);
    }
}

/// What is evaluated twice gives the same, or fails in the same words.
fn same<E: std::fmt::Display>(one: &Result<Value, E>, other: &Result<Value, E>) {
    match (one, other) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        _ => panic!("it fails only sometimes"),
    }
}

/// What stands for whatever a text names.
fn example() -> Value {
    let row = json!({ "name": "a", "n": 7, "size": 1.5, "at": "2026-12-01T00:00:00Z", "list": [1, "x", null] });
    json!({ "name": "a", "n": 7, "total": 9, "act": true, "rows": [row], "row": row, "secret": null })
}

/// A plan file. One whose content is not what its id says is refused, so that what anybody may write into it is
/// sealed again.
pub(crate) fn plan(bytes: &[u8]) {
    if let Ok(plan) = Plan::parse(bytes) {
        sealed(&plan);
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let body = value.get("body").cloned().unwrap_or(value);
    let Ok(body) = serde_json::from_value::<PlanBody>(body) else { return };
    if let Ok(plan) = Plan::seal(body, Timestamp::default()) {
        sealed(&plan);
    }
}

/// Checks a plan that was taken: it reads back, and can be shown and begun.
fn sealed(plan: &Plan) {
    let bytes = plan.to_bytes().expect("a plan can be written");
    let read = Plan::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.id, plan.id);
    assert_eq!(read.to_bytes().expect("a plan can be written"), bytes);
    for text in [
        lakeops::report::plan::text(Style::PLAIN, plan),
        graph::graph(plan, Language::Mermaid),
        graph::graph(plan, Language::Dot),
    ] {
        assert!(!text.is_empty());
    }
    if let Some(mut state) = begun(plan) {
        next(plan, &mut state, Timestamp::default());
        shown(plan, &[]);
    }
}

fn begun(plan: &Plan) -> Option<RunState> {
    let is_write = |tool: &str| CATALOG.find(tool).is_some_and(|tool| tool.is_write());
    let graph = Graph::of(&plan.body, &is_write).ok()?;
    let params = Value::Object(plan.body.params.clone());
    Some(RunState::new(Arc::new(graph), &params.into(), &plan.body.target))
}

fn next(plan: &Plan, state: &mut RunState, now: Timestamp) {
    let limits = &plan.body.limits;
    let situation = Situation {
        now,
        in_flight: &HashSet::new(),
        lock: plan.body.lock.as_deref(),
        timeout: limits.timeout.map(|timeout| timeout.0),
        max_changes: limits.max_changes,
        max_barren: 10,
    };
    let next = decide(state, &situation);
    let again = decide(state, &situation);
    assert_eq!(next, again, "the same state, another decision");
}

fn shown(plan: &Plan, entries: &[Entry]) {
    let view = RunView::from_entries(plan, entries);
    for detail in [Detail::Brief, Detail::Changes, Detail::Outputs] {
        assert!(!lakeops::report::run::run(Style::PLAIN, &view, detail).is_empty());
    }
    for step in &view.steps {
        let planned = lakeops::report::explain::planned(&plan.body.steps, &step.key);
        lakeops::report::explain::text(Style::PLAIN, &view, step, planned);
    }
}

/// A journal: a plan's body in the first line, an entry in each further one. What is no entry is left out.
pub(crate) fn journal(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let body = lines.next().and_then(|line| serde_json::from_str::<PlanBody>(line).ok());
    let entries = lines.filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    let entries: Vec<Entry> = entries.take(MOST_ENTRIES).collect();
    told(&entries);
    let Some(plan) = body.and_then(|body| Plan::seal(body, Timestamp::default()).ok()) else {
        return;
    };
    let mut streams: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    for entry in &entries {
        streams.entry(&entry.stream).or_default().push(entry.clone());
    }
    for entries in streams.values() {
        shown(&plan, entries);
        let Some(mut state) = begun(&plan) else { return };
        for entry in entries {
            if state.apply(&entry.event, entry.at, entry.seq).is_err() {
                break;
            }
            next(&plan, &mut state, entry.at);
        }
    }
}

/// Everything that is worked out of entries without a plan.
fn told(entries: &[Entry]) {
    let (mut fold, mut outbox) =
        (operations::Fold::new(None), Outbox::new(Span::from_secs(1), Span::from_secs(60)));
    for entry in entries {
        timeline::line(Style::PLAIN, entry);
        fold.add(entry.clone());
        outbox.apply(entry);
        // What is not about slots or events is an error, and not more.
        drop(slots::Standing::default().apply(entry));
        drop(triggers::Standing::default().apply(entry));
        drop(Published::of(entry));
    }
    drop(slots::Standing::replay(entries));
    drop(triggers::Standing::replay(entries));
    outbox.next();
    let last = entries.last().map_or_else(Timestamp::default, |entry| entry.at);
    operations::text(Style::PLAIN, &fold.finish(last, None));
    let rows = audit(entries);
    export::audit_text(&rows);
    export::audit_csv(&rows);
}
