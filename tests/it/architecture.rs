//! The house rules that a compiler cannot check: who may use whom, what is pure, what lies at the top.

use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Who may use whom. A path that is listed more precisely wins.
const MAY_USE: &[(&str, &[&str])] = &[
    ("kernel", &[]),
    ("config", &["kernel"]),
    ("sop", &["kernel"]),
    // The journal stores plans and history rows: types of the two, nothing that runs.
    (
        "journal",
        &["kernel", "config", "plan::document", "plan::Plan", "plan::PlanBody", "tools::tool"],
    ),
    ("postgres", &["kernel", "config", "sop"]),
    ("lakebase", &["kernel", "config", "postgres"]),
    ("emulator", &["kernel", "config", "sop", "postgres", "lakebase"]),
    ("schema", &["kernel", "postgres"]),
    ("tools", &["kernel", "config", "sop", "postgres", "lakebase", "schema"]),
    ("plan", &["kernel", "config", "sop", "postgres", "tools", "workflow"]),
    ("workflow", &["kernel", "config", "sop", "postgres", "tools", "plan"]),
    (
        "engine",
        &[
            "kernel", "config", "sop", "postgres", "lakebase", "tools", "plan", "workflow",
            "journal", "schema",
        ],
    ),
    (
        "crash",
        &[
            "kernel", "config", "postgres", "lakebase", "schema", "tools", "plan", "journal",
            "engine", "history", "report",
        ],
    ),
    ("schedule", &["kernel", "sop", "journal", "workflow::cron", "workflow::elements"]),
    // It implements the port of the engine: a trait, nothing that runs.
    ("history", &["kernel", "config", "tools", "journal", "postgres", "engine::parts"]),
    ("alert", &["kernel", "config", "journal"]),
    // It turns resolved workflows and settings into files of others.
    ("export", &["kernel", "config", "workflow", "plan::document"]),
    // It answers what tools ask.
    ("model", &["kernel", "config", "tools"]),
    ("report", &["kernel", "config", "sop", "tools", "plan", "journal"]),
    (
        "server",
        &[
            "kernel",
            "sop",
            "workflow::cron",
            "workflow::elements",
            "plan",
            "journal",
            "schedule",
            "engine",
            "report",
        ],
    ),
    (
        "cli",
        &[
            "kernel", "config", "sop", "postgres", "lakebase", "tools", "plan", "workflow",
            "journal", "engine", "history", "report", "demo", "emulator", "schedule", "server",
            "alert", "model", "export", "crash",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// Modules (or files) that think and do not act.
const PURE: &[&str] = &[
    "alert/mask.rs",
    "alert/outbox.rs",
    "alert/route.rs",
    "kernel/api_call.rs",
    "kernel/change.rs",
    "kernel/digest.rs",
    "kernel/failure.rs",
    "kernel/kill.rs",
    "kernel/quantity.rs",
    "kernel/risk.rs",
    "kernel/secret.rs",
    "kernel/seen.rs",
    "kernel/sql_text.rs",
    "kernel/target.rs",
    "crash/boundary.rs",
    "crash/report.rs",
    "crash/snapshot.rs",
    "config/alerts.rs",
    "config/check.rs",
    "config/document.rs",
    "config/file.rs",
    "config/history.rs",
    "config/layer.rs",
    "config/policies.rs",
    "config/server.rs",
    "config/settings.rs",
    "config/show.rs",
    "config/window.rs",
    "export/",
    "history/mirror.rs",
    "history/row.rs",
    "history/schema.rs",
    "history/tables.rs",
    "lakebase/compare.rs",
    "lakebase/name.rs",
    "lakebase/resource.rs",
    "journal/admission.rs",
    "journal/chain.rs",
    "journal/derived.rs",
    "journal/event.rs",
    "journal/export.rs",
    "journal/links.rs",
    "journal/occasion.rs",
    "journal/owed.rs",
    "journal/query.rs",
    "journal/rehearsal.rs",
    "journal/store.rs",
    "journal/term.rs",
    "plan/diff.rs",
    "plan/document.rs",
    "plan/literal.rs",
    "plan/params.rs",
    "plan/planner.rs",
    "report/",
    "schedule/slots.rs",
    "schedule/triggers.rs",
    "server/metrics.rs",
    "workflow/actions.rs",
    "workflow/arguments.rs",
    "workflow/assemble.rs",
    "workflow/checker.rs",
    "workflow/cron.rs",
    "workflow/diagnostic.rs",
    "workflow/elements/",
    "workflow/fields.rs",
    "workflow/gates.rs",
    "workflow/graph.rs",
    "workflow/locate.rs",
    "workflow/names.rs",
    "workflow/parse.rs",
    "workflow/quartz.rs",
    "workflow/recovery.rs",
    "workflow/resolve.rs",
    "workflow/resolved.rs",
    "workflow/schema.rs",
    "workflow/secrets.rs",
    "workflow/source.rs",
    "workflow/sources.rs",
    "workflow/spec.rs",
    "workflow/step_rules.rs",
    "workflow/suggest.rs",
    "workflow/tree.rs",
    "workflow/types.rs",
    "workflow/yaml.rs",
];

/// What acts.
const ACTING: &[&str] = &["tokio", "sqlx", "reqwest", "rusqlite", "std::fs", "std::env"];

/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "imp"];

/// All source files, with their names below `src`.
pub(crate) fn sources() -> Vec<(String, String)> {
    files("src")
}

/// The Rust files below a folder of the project, with their names in it.
fn files(root: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let root = Path::new(ROOT).join(root);
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((name.display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}

/// The lines that the program is built from: no comments, no tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let production = text.split("\n#[cfg(test)]").next().unwrap_or(text);
    production.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The modules of ours that a file names, as `module::next`.
fn uses(text: &str) -> BTreeSet<String> {
    let code = code(text).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (start, _) in
        code.match_indices("crate::").filter(|(start, _)| !code[..*start].ends_with('$'))
    {
        let rest = &code[start + "crate::".len()..];
        let path: String = rest.chars().take_while(|c| is_path(*c)).collect();
        match (path.strip_suffix("::"), rest[path.len()..].strip_prefix('{')) {
            (Some(module), Some(group)) if !module.contains("::") => {
                // Of `crate::plan::{Plan, document::Action}` the first part of each entry.
                let group = group.split('}').next().unwrap_or_default();
                found.extend(
                    group.split(',').map(|one| format!("{module}::{}", first(one.trim(), 1))),
                );
            }
            _ => {
                found.insert(first(&path, 2));
            }
        }
    }
    found
}

fn is_path(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':')
}

fn first(path: &str, parts: usize) -> String {
    let all = path.split("::").filter(|part| !part.is_empty());
    all.take(parts).collect::<Vec<_>>().join("::")
}

#[test]
fn modules_use_only_the_layers_below() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let module = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let Some((_, allowed)) = MAY_USE.iter().find(|(own, _)| *own == module) else {
            // A module that the table does not know is a decision that somebody has to write down.
            wrong.push(format!("{name}: add `{module}` to the table of layers"));
            continue;
        };
        for used in uses(&text) {
            let other = used.split("::").next().unwrap_or_default();
            let is_allowed = other == module
                || allowed.iter().any(|one| *one == other || used.starts_with(one))
                || other.chars().next().is_none_or(char::is_uppercase)
                || other == "sql_file";
            if !is_allowed {
                wrong.push(format!("{name} uses `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "layers are broken:\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_do_not_act() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !PURE.iter().any(|pure| name == *pure || (pure.ends_with('/') && name.starts_with(pure)))
        {
            continue;
        }
        for line in code(&text) {
            if let Some(word) = ACTING.iter().find(|word| mentions(line, word)) {
                wrong.push(format!("{name} mentions `{word}`: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "pure modules act:\n{}", wrong.join("\n"));
}

fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = &line[start + word.len()..];
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_')) && after.starts_with("::")
            || line.trim_start().starts_with(&format!("use {word};"))
    })
}

#[test]
fn a_file_that_says_it_is_pure_is_checked() {
    let says_so = sources().into_iter().filter(|(_, text)| {
        text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("PURE"))
    });
    for (name, text) in says_so {
        for line in code(&text) {
            let word = ACTING.iter().find(|word| mentions(line, word));
            assert_eq!(word, None, "{name} says that it is PURE, but: {line}");
        }
    }
}

#[test]
fn no_module_has_an_empty_name() {
    for (name, _) in sources() {
        for part in name.trim_end_matches(".rs").split('/') {
            assert!(!EMPTY_NAMES.contains(&part), "src/{name}: `{part}` says nothing");
        }
    }
}

#[test]
fn every_folder_opens_with_its_purpose() {
    for (name, text) in sources().iter().filter(|(name, _)| name.ends_with("mod.rs")) {
        assert!(text.starts_with("//!"), "src/{name} opens without `//!`");
    }
}

#[test]
fn the_top_level_has_eight_entries() {
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "sops",
        "sql",
        "src",
        "state",
        "tests",
        "workflows",
    ];
    let entries = std::fs::read_dir(ROOT).unwrap().map(|entry| entry.unwrap().file_name());
    let visible = entries.map(|name| name.into_string().unwrap());
    // A build that is not told where to build makes `target`, which git ignores.
    let visible = visible.filter(|name| !name.starts_with('.') && name != "target");
    let visible: BTreeSet<String> = visible.collect();
    assert_eq!(visible, expected.map(str::to_owned).into());
}

/// What the page on durability names as a proof is there.
#[test]
fn every_named_proof_exists() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("src/ARCHITECTURE.md")).unwrap();
    let code: String =
        files("tests/it").into_iter().chain(sources()).map(|(_, text)| text).collect();
    let mut proofs = 0;
    for row in page.lines().filter(|line| line.starts_with("| T")) {
        // The proof is the last column; every second piece is code.
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for named in column.split('`').skip(1).step_by(2) {
            let name = named.rsplit("::").next().unwrap();
            let is_function =
                name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_function && name.contains('_') {
                proofs += 1;
                assert!(code.contains(&format!("fn {name}(")), "{row}");
            }
        }
    }
    assert!(proofs > 40, "{proofs}");
}
