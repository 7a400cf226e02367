//! The JSON Schema for editors: fresh, right about good files, and right about bad ones.

use std::path::Path;

use lakeops::tools::Catalog;
use lakeops::workflow::load::{Folders, load};
use lakeops::workflow::schema::schema;
use lakeops::workflow::{Library, Reporter, Resolver, SourceText, Sources as _, yaml};
use serde_json::Value;

use crate::workflow::{library, texts, tools};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn registered(library: &Library, catalog: &Catalog) -> Vec<String> {
    let resolution = Resolver::new(catalog, library).resolve_all();
    let offered =
        resolution.workflows.iter().filter(|(_, found)| found.spec.registration.is_some());
    offered.map(|(name, _)| name.clone()).collect()
}

fn fresh() -> (Value, Library) {
    let (library, _) = load(&Folders::below(root()));
    let catalog = Catalog::builtin();
    let names = registered(&library, &catalog);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (schema(&catalog, &names), library)
}

fn json(text: &str) -> Value {
    let mut reporter = Reporter::new(SourceText::new("w", text));
    yaml::parse(&mut reporter).root.unwrap().to_json()
}

fn mistakes(schema: &Value, text: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    validator
        .iter_errors(&json(text))
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_schema_is_fresh() {
    let path = root().join("workflows/.schema/workflow.json");
    let text = serde_json::to_string_pretty(&fresh().0).unwrap() + "\n";
    if std::fs::read_to_string(&path).unwrap_or_default() != text {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        panic!("{} was stale and has been rewritten; run again", path.display());
    }
}

#[test]
fn shipped_and_good_files_fit() {
    let (schema_of_shipped, shipped) = fresh();
    for name in shipped.workflows() {
        let found = mistakes(&schema_of_shipped, shipped.workflow(name).unwrap().text());
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
    let catalog = tools::catalog();
    let names = registered(&library(&["good"]), &catalog);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, text) in texts("good", "yaml") {
        let found = mistakes(&schema(&catalog, &names), &text);
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}

#[test]
fn bad_files_do_not_fit() {
    let schema = schema(&tools::catalog(), &["embedded"]);
    // The others are wrong in ways that only other files or the graph can tell.
    let telling =
        ["five_mistakes.yaml", "recursion.yaml", "shape.yaml", "types.yaml", "waits.yaml"];
    for (name, text) in texts("bad", "yaml") {
        if telling.contains(&name.as_str()) {
            assert!(!mistakes(&schema, &text).is_empty(), "{name} fits");
        }
    }
    let head = "version: 1\nname: w\nsteps:\n";
    for step in [
        "  - { tool: monitor_connections }",
        "  - { id: a }",
        "  - { id: a, approval: required }",
        "  - { id: a, tool: monitor_connections, script: x }",
        "  - { id: a, tool: monitor_connections, approval: { prompt: x } }",
        "  - { id: a, tool: monitor_connection }",
        "  - { id: a, tool: monitor_connections, with: { x: 1 } }",
        "  - { id: a, tool: send_alert }",
        "  - { id: a, tool: send_alert, with: { severity: info, title: 3 } }",
        "  - { id: a, tool: send_alert, with: { severity: high, title: x } }",
        "  - { id: a, tool: terminate_idle_connections, with: { max_idle: 30 } }",
        "  - { id: a, tool: terminate_idle_connections, with: { users: [1] } }",
        "  - { id: a, tool: monitor_connections, timeout: 90 }",
        "  - { id: a, tool: monitor_connections, neds: [b] }",
        "  - { id: a, wait: { event: x } }",
        "  - { id: a, wait: { tool: send_alert, until: x, within: 3s } }",
    ] {
        assert!(!mistakes(&schema, &format!("{head}{step}\n")).is_empty(), "{step} fits");
    }
    for step in [
        "  - { id: a, tool: monitor_connections, x_note: mine }",
        "  - { id: a, tool: send_alert, with: { severity: \"${{ params.s }}\", title: x } }",
        "  - { id: a, tool: terminate_idle_connections, with: { users: \"${{ steps.b }}\" } }",
        "  - { id: a, tool: terminate_idle_connections, with: { max_idle: \"${{ steps.b }}\", dry: \"${{ true }}\" } }",
        "  - { id: a, approval: { prompt: x } }",
    ] {
        let found = mistakes(&schema, &format!("{head}{step}\n"));
        assert!(found.is_empty(), "{step}: {found:#?}");
    }
}
