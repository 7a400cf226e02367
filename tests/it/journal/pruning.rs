//! `lakeops audit prune`, and what other verbs say of a run that was sealed.

use serde_json::{Value, json};

use super::sealing::written;
use crate::cli::Project;

#[tokio::test]
async fn old_runs_are_pruned_shown_and_proven() {
    let project = Project::new();
    let state = project.path().join("state");
    drop(written(&state).await);
    let counted = project.json(&["report", "operations", "--since", "all"]);

    // Nothing is in the history yet; a dry run does not put it there.
    let shown = project.json(&["audit", "prune", "--dry-run"]);
    assert_eq!((&shown["runs"], &shown["dry_run"]), (&json!([]), &json!(true)), "{shown}");
    let shown = project.json(&["audit", "prune", "--dry-run", "--without-history"]);
    let names: Vec<_> = shown["runs"].as_array().unwrap().iter().map(|one| &one["run"]).collect();
    assert_eq!(names, ["aaaa", "bbbb", "dddd"], "{shown}");
    let told = project.run(&["audit", "prune", "--older-than", "3h"]).ends(2);
    assert!(told.err.contains("less than a day") && told.err.contains("caps"), "{}", told.err);

    let pruned = ["audit", "prune", "--archive", "old.jsonl", "--compact"];
    let told = project.run(&pruned).ends(0);
    assert!(told.out.contains("3 runs sealed: 20 payloads"), "{}", told.out);
    assert!(told.out.contains("journal.db has"), "{}", told.out);
    let again = project.run(&["audit", "prune"]).ends(0);
    assert!(again.out.contains("nothing to seal"), "{}", again.out);

    let verified = ["audit", "verify", "--archive", "old.jsonl"];
    let told = project.run(&verified).ends(0);
    let line = "of 20 of them, in 3 sealed runs, only the links are left";
    assert!(told.out.contains(line), "{}", told.out);
    let file = project.path().join("old.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 15 + 11 + 4);
    std::fs::write(&file, text.replacen("found", "faked", 1)).unwrap();
    let told = project.run(&verified).ends(1);
    assert!(told.out.contains("in the archive: it is not what the chain holds"), "{}", told.out);
    std::fs::write(&file, "{}\n").unwrap();
    assert!(project.run(&verified).ends(2).err.contains("line 1 of"));

    // Lists have it, marked; `show` says what is left and where the rest is; the others say so.
    let runs = project.json(&["runs"]);
    let mut sealed: Vec<&Value> = runs.as_array().unwrap().iter().collect();
    sealed.retain(|run| !run["sealed"].is_null());
    assert_eq!(sealed.len(), 3, "{runs}");
    assert!(project.run(&["runs"]).ends(0).out.contains("succeeded (sealed)"));
    let shown = project.json(&["show", "aaaa"]);
    assert_eq!((&shown["run_id"], &shown["outcome"]), (&json!("aaaa"), &json!("succeeded")));
    assert_eq!((&shown["sealed"], &shown["steps"]), (&json!(9), &json!([])), "{shown}");
    assert_eq!((&shown["seal"]["in_history"], &shown["outputs"]), (&json!(true), &json!({"n": 1})));
    assert!(shown["audit"].to_string().contains("needed; changes"), "{shown}");
    let told = project.run(&["show", "aaaa"]).ends(0).out;
    for part in ["(sealed)", "started by ada", "needed", "of 9 events only the links", "old.jsonl"]
    {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    for verb in ["logs", "resume"] {
        let told = project.run(&[verb, "aaaa"]);
        assert_eq!(told.code, 2, "{verb}: {}{}", told.out, told.err);
        assert!(
            told.err.contains("was sealed") && told.err.contains("lakeops show"),
            "{}",
            told.err
        );
    }
    let audit = project.run(&["audit"]).ends(0).out;
    assert!(audit.contains("runs sealed") && audit.contains("approved"), "{audit}");

    // What is counted is counted as before, and what is missing is said.
    let now = project.json(&["report", "operations", "--since", "all"]);
    assert_eq!(now["runs"], counted["runs"]);
    assert!(now["not_measured"].to_string().contains("payloads of 20 events are gone"), "{now}");
}
