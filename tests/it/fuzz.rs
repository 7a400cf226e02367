//! The fuzz targets of `tests/fuzz`, on stable and for seconds: all seeds, everything that was ever found, and
//! damage to both that is the same in every run. The variable `LAKEOPS_TEST_FUZZ_INPUTS` makes it so many damaged
//! inputs for each target, `LAKEOPS_TEST_FUZZ_SEED` others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lakeops::journal::store::{EntryFilter, RunFilter};
use lakeops::journal::{Journal as _, SqliteJournal};
use lakeops::kernel::{Digest, Redactor, SystemClock};
use serde_json::{Value, json};

use crate::harness::worked;
use crate::workflow::mutations::{Draws, damage};

#[path = "../fuzz/targets.rs"]
mod targets;

/// No input takes more of a processor's time, without optimisation.
const LONGEST: Duration = Duration::from_secs(10);

/// So much is damaged: what is larger takes long and shows nothing else.
const LARGEST: usize = 40_000;

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of some folders, by their names.
fn inputs(folders: &[&str], ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in folders {
        let Ok(files) = std::fs::read_dir(at(folder)) else { continue };
        let paths = files.map(|file| file.unwrap().path());
        let fits = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(ending));
        let paths = paths.filter(|path| path.is_file() && fits(path));
        found.extend(paths.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())));
    }
    found.sort();
    found
}

/// Feeds everything to a target: as it is, and damaged so often in all.
fn replay(
    target: fn(&[u8]),
    (folders, found): (&[&str], &str),
    (ending, damages): (&str, usize),
    damage: fn(&str, &mut Draws) -> String,
) {
    let mut seeds = inputs(folders, ending);
    assert!(!seeds.is_empty(), "no seeds in {folders:?}");
    seeds.extend(inputs(&[found], ""));
    let feed = |name: &str, bytes: &[u8]| {
        let begun = worked();
        let ended = std::panic::catch_unwind(|| target(bytes));
        let took = worked().saturating_sub(begun);
        if ended.is_err() || took > LONGEST {
            let kept =
                std::env::temp_dir().join(format!("lakeops-{}", Digest::of_bytes(bytes).short()));
            std::fs::write(&kept, bytes).unwrap();
            let kept = kept.display();
            panic!("after {took:?}, from {name}: the input is in {kept}; keep it in {found}");
        }
    };
    for (name, bytes) in &seeds {
        feed(name, bytes);
    }
    let small = seeds.iter().filter(|(_, bytes)| bytes.len() < LARGEST);
    let small: Vec<(&String, &str)> = small
        .filter_map(|(name, bytes)| Some((name, std::str::from_utf8(bytes).ok()?)))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let number = |name| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
    let damages = number("LAKEOPS_TEST_FUZZ_INPUTS").unwrap_or(damages as u64);
    let mut draws = Draws(number("LAKEOPS_TEST_FUZZ_SEED").unwrap_or(7));
    for _ in 0..damages {
        let (name, text) = small[draws.below(small.len())];
        let mut text = (*text).to_owned();
        for _ in 0..=draws.below(3) {
            if !text.is_empty() {
                text = damage(&text, &mut draws);
            }
        }
        feed(name, text.as_bytes());
    }
}

/// A value that nobody expects.
fn odd(draws: &mut Draws) -> Value {
    let all = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(9_007_199_254_740_993_u64),
        json!(1e308),
        json!(0.1),
        json!(""),
        json!("x".repeat(5_000)),
        json!("${{ steps.a.b }}"),
        json!("\u{0}\u{202e}é\n"),
        json!("1000000h"),
        json!([]),
        json!({}),
        json!([[[[]]]]),
    ];
    all[draws.below(all.len())].clone()
}

/// How many values there are within a value, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(all) => all.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

/// Changes the value at a place, counted as [`size`] counts.
fn change(value: &mut Value, mut place: usize, draws: &mut Draws) {
    if place == 0 {
        let twin = value.clone();
        match value {
            _ if draws.below(3) > 0 => *value = odd(draws),
            Value::Array(all) => all.push(twin),
            Value::Object(fields) => drop(fields.insert("x".to_owned(), twin)),
            other => *other = json!([twin]),
        }
        return;
    }
    let parts: Vec<&mut Value> = match value {
        Value::Array(all) => all.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => return,
    };
    for part in parts {
        let within = size(part);
        if place <= within {
            return change(part, place - 1, draws);
        }
        place -= within;
    }
}

/// Damages a text of JSON documents, one a line: a value in one of them, or their order.
fn damage_lines(text: &str, draws: &mut Draws) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = draws.below(lines.len());
    match draws.below(8) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let other = draws.below(lines.len());
            lines.swap(at, other);
        }
        3 => return damage(text, draws),
        _ => {
            if let Ok(mut value) = serde_json::from_str::<Value>(&lines[at]) {
                let place = draws.below(size(&value));
                change(&mut value, place, draws);
                lines[at] = value.to_string();
            }
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn no_workflow_file_makes_it_panic() {
    let folders = ["tests/data/workflows/good", "tests/data/workflows/bad", "workflows"];
    replay(targets::workflow, (&folders, "tests/fuzz/found/workflow"), (".yaml", 150), damage);
}

#[test]
fn no_script_makes_it_panic() {
    let folders = ["tests/data/workflows/sops", "sops", "tests/fuzz/seeds/sop"];
    replay(targets::sop, (&folders, "tests/fuzz/found/sop"), (".rhai", 300), damage);
}

#[test]
fn no_plan_makes_it_panic() {
    let folders = ["tests/fuzz/seeds/plan"];
    replay(targets::plan, (&folders, "tests/fuzz/found/plan"), (".json", 300), damage_lines);
}

#[test]
fn no_journal_makes_it_panic() {
    let folders = ["tests/fuzz/seeds/journal"];
    replay(targets::journal, (&folders, "tests/fuzz/found/journal"), (".jsonl", 300), damage_lines);
}

#[test]
fn damage_reaches_every_value() {
    let whole = json!({ "a": [1, { "b": "x" }], "c": null });
    assert_eq!(size(&whole), 6);
    let mut changed = std::collections::BTreeSet::new();
    for place in 0..6 {
        let mut value = whole.clone();
        change(&mut value, place, &mut Draws(11));
        assert_ne!(value, whole, "{place}");
        changed.insert(value.to_string());
    }
    assert_eq!(changed.len(), 6, "{changed:?}");
}

/// `cargo test --test it write_fuzz_seeds -- --ignored`: the golden journals, each as its plan and its entries.
#[tokio::test]
#[ignore = "writes files that are kept"]
async fn write_fuzz_seeds() {
    for kind in ["plan", "journal"] {
        std::fs::create_dir_all(at("tests/fuzz/seeds").join(kind)).unwrap();
    }
    for (path, sql) in inputs(&["tests/it/engine/golden"], ".sql") {
        let name = Path::new(&path).file_stem().unwrap().to_str().unwrap().to_owned();
        let dir = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
        connection.execute_batch(std::str::from_utf8(&sql).unwrap()).unwrap();
        drop(connection);
        let journal =
            SqliteJournal::open(dir.path(), Arc::new(SystemClock), Redactor::default()).unwrap();
        let run = journal.runs(RunFilter::default()).await.unwrap().pop().unwrap();
        let plan = journal.plan(&run.plan_id).await.unwrap().unwrap();
        let mut lines = vec![serde_json::to_string(&plan.body).unwrap()];
        for entry in journal.entries(EntryFilter::default()).await.unwrap() {
            lines.push(serde_json::to_string(&entry).unwrap());
        }
        let write = |file: String, text: String| std::fs::write(at(&file), text + "\n").unwrap();
        let plan = serde_json::to_string(&plan).unwrap();
        write(format!("tests/fuzz/seeds/plan/{name}.json"), plan);
        write(format!("tests/fuzz/seeds/journal/{name}.jsonl"), lines.join("\n"));
    }
}
