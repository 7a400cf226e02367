//! Good files resolve without a word; every mistake of the bad ones is told at once.

use std::fmt::Write as _;

use lakeops::workflow::{Diagnostic, Library, Resolver, Sources as _};

use super::{library, resolve, texts, tools};

#[test]
fn good_files_resolve() {
    let library = library(&["good"]);
    let resolution = Resolver::new(&tools::catalog(), &library).resolve_all();
    let told: Vec<String> = resolution.diagnostics.iter().map(Diagnostic::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert_eq!(resolution.workflows.len(), texts("good", "yaml").len());
}

#[test]
fn every_mistake_of_every_bad_file_is_told() {
    let library = library(&["good", "bad"]);
    let catalog = tools::catalog();
    let resolution = Resolver::new(&catalog, &library).resolve_all();
    for (file, _) in texts("bad", "yaml") {
        let stem = file.trim_end_matches(".yaml");
        assert!(resolution.get(stem).is_none(), "{file} resolves");
        let mut told = String::new();
        let path = format!("workflows/{file}");
        for found in resolution.diagnostics.iter().filter(|found| found.file == path) {
            assert!(found.span.is_some(), "{found}");
            writeln!(told, "{found}").unwrap();
        }
        insta::with_settings!({
            snapshot_path => "../../data/workflows/bad",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(stem, told) });
    }
    let others = resolution.diagnostics.iter().filter(|found| found.file.starts_with("sops/"));
    let others: Vec<String> = others.map(Diagnostic::to_string).collect();
    assert!(others.iter().any(|text| text.contains("sops/broken.rhai:")), "{others:?}");
}

#[test]
fn no_path_leads_out_of_the_folders() {
    let library = library(&["good"]);
    let catalog = tools::catalog();
    let script = library.script("sops/judge.rhai").unwrap().to_owned();
    assert!(!script.is_empty());
    for (kind, path) in [
        ("script", "../judge.rhai"),
        ("script", "sops/../sops/judge.rhai"),
        ("script", "sops/./judge.rhai"),
        ("script", "sops//judge.rhai"),
        ("script", "./sops/judge.rhai"),
        ("script", "/etc/passwd"),
        ("script", "sops/../../../../etc/passwd"),
        ("script", "file:///etc/passwd"),
        ("script", "sops\\\\judge.rhai"),
        ("script", "sops/judge.rhai\\0"),
        ("workflow", "../embedded"),
        ("workflow", "./embedded"),
        ("workflow", "workflows/embedded.yaml"),
        ("workflow", "/etc/passwd"),
        ("sql", "../fixtures/count"),
        ("sql", "fixtures/../fixtures/count"),
        ("sql", "/etc/passwd"),
    ] {
        let text = format!("version: 1\nname: out\nsteps:\n  - id: a\n    {kind}: \"{path}\"\n");
        let source = lakeops::workflow::SourceText::new("workflows/out.yaml", text);
        let resolution = Resolver::new(&catalog, &library).resolve_file(&source);
        assert!(resolution.get("out").is_none(), "{kind}: {path}");
        let told: Vec<String> = resolution.diagnostics.iter().map(Diagnostic::to_string).collect();
        assert!(told.iter().any(|told| told.contains("workflows/out.yaml:5:")), "{told:?}");
        assert!(!told.iter().any(|told| told.contains("root:")), "{told:?}");
    }
}

#[test]
fn a_schedule_id_is_that_of_one_schedule() {
    let workflow = |name: &str, schedules: &str| {
        let steps = "steps: [{ id: look, tool: monitor_connections }]";
        let text = format!("version: 1\nname: {name}\nschedule:\n{schedules}{steps}\n");
        (format!("workflows/{name}.yaml"), text)
    };
    let hourly = "  - { id: hourly, cron: \"0 * * * *\" }\n";
    let twice = format!("{hourly}  - {{ id: hourly, cron: \"5 * * * *\" }}\n");
    let same = "  - { cron: \"0 * * * *\" }\n".repeat(2);
    for (files, place, text) in [
        (vec![workflow("a", &twice)], "a.yaml:5:5", "two schedules have the id `hourly`"),
        (vec![workflow("a", &same)], "a.yaml:5:5", "two schedules have the id `a 0 * * * * UTC`"),
        (
            vec![workflow("a", hourly), workflow("b", hourly)],
            "b.yaml:4:5",
            "workflow `a` has a schedule with the id `hourly` as well",
        ),
    ] {
        let library = files
            .into_iter()
            .fold(Library::new(), |all, (path, text)| all.with_workflow(&path, text));
        let resolution = Resolver::new(&tools::catalog(), &library).resolve_all();
        let told: Vec<String> = resolution.diagnostics.iter().map(Diagnostic::to_string).collect();
        assert!(!resolution.is_sound());
        let found = told.iter().any(|it| it.contains(place) && it.contains(text));
        assert!(found, "{place} {text}: {}", told.join("\n"));
    }
}

#[test]
fn edges_are_declared_or_inferred_and_the_order_is_that_of_the_file() {
    let text = "version: 1\nname: w\nsteps:
  - { id: last, needs: [first], tool: send_alert, with: { severity: info, title: \"${{ steps.middle.total.to_string() }}\" } }
  - { id: first, tool: monitor_connections }
  - { id: middle, tool: monitor_connections, when: steps.first.total > 0 }
  - { id: alone, tool: monitor_connections }
";
    let resolution = resolve("w", text);
    let Some(workflow) = resolution.get("w") else { panic!("{:#?}", resolution.diagnostics) };
    let order: Vec<&str> = workflow.steps.iter().map(|step| step.spec.id.value.as_str()).collect();
    assert_eq!(order, ["first", "middle", "last", "alone"]);
    let last = &workflow.steps[2];
    let needs: Vec<(&str, bool)> =
        last.needs.iter().map(|need| (need.step.as_str(), need.inferred)).collect();
    assert_eq!(needs, [("first", false), ("middle", true)]);
}

#[test]
fn secrets_in_clear_are_not_repeated() {
    let library = library(&["bad"]);
    let resolution = Resolver::new(&tools::catalog(), &library).resolve("secrets");
    for found in &resolution.diagnostics {
        for text in [found.to_string(), found.to_json().to_string(), format!("{found:?}")] {
            assert!(!text.contains("hunter2222") && !text.contains("abcdef0123"), "{text}");
        }
    }
}
