//! A new version of a SOP over what was given to the old one: what it would have decided. PURE.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::cases::is_same;
use super::{RuleTrace, Sandbox, Scope, Script, ScriptError};
use crate::kernel::Timestamp;

/// A time when the old version decided, or measurements that nobody decided on.
#[derive(Clone, Debug)]
pub struct Past {
    /// Where it comes from: a run and a step, or a row of the history.
    pub from: String,
    /// When it was, where that is known.
    pub at: Option<Timestamp>,
    /// The variables.
    pub given: Scope,
    /// What came out, or why nothing did.
    pub old: Result<Value, String>,
    /// The rules that were checked then, where they are known.
    pub rules: Vec<RuleTrace>,
}

/// What a backtest came to.
#[derive(Clone, Debug, Serialize)]
pub struct Backtest {
    /// How often it was evaluated.
    pub evaluated: usize,
    /// How often the verdict is the same.
    pub same: usize,
    /// How often it differs.
    pub differ: usize,
    /// How often the new version fails where the old one did not.
    pub fail: usize,
    /// Which fields came out otherwise, the most frequent first.
    pub changed: Vec<FieldCount>,
    /// Those that are not the same, in order.
    pub cases: Vec<Replayed>,
}

/// How often a field came out otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldCount {
    /// The field, such as `decision`.
    pub path: String,
    /// How often.
    pub count: usize,
}

/// One evaluation that is not the same.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// Where it comes from.
    pub from: String,
    /// When it was.
    pub at: Option<Timestamp>,
    /// Where the verdicts differ.
    pub differences: Vec<Change>,
    /// Why the new version fails, when it does.
    pub failure: Option<ScriptError>,
    /// Rules whose verdict is another one, or that only one version has: as the new one sees them.
    pub rules: Vec<RuleChange>,
    /// The variables, so that it can become a case.
    pub given: Scope,
}

/// One field that came out otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The field, such as `sessions[0]`; empty for the whole; `error` for a failure.
    pub path: String,
    /// What came out then; absent when nothing did.
    pub old: Option<Value>,
    /// What comes out now; absent when nothing does.
    pub new: Option<Value>,
}

/// A rule of which the two versions say different things.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleChange {
    /// Its name.
    pub rule: String,
    /// What it said then; absent: it was not checked, or that is not known.
    pub old: Option<bool>,
    /// What it says now, with the values that it sees; absent: it is not checked.
    pub new: Option<RuleTrace>,
}

/// Replays a text over the past. Only fields that `fields` names are compared; none: all.
pub fn backtest(
    sandbox: &Sandbox,
    (name, text): (&str, &str),
    past: &[Past],
    fields: &[String],
) -> Backtest {
    let mut version = Version::new(sandbox, name, text);
    let mut report = Backtest {
        evaluated: past.len(),
        same: 0,
        differ: 0,
        fail: 0,
        changed: vec![],
        cases: vec![],
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for past in past {
        let new = version.script(&past.given).and_then(|script| script.evaluate(&past.given));
        let mut differences = Vec::new();
        let (failure, rules) = match (&past.old, new) {
            (Ok(old), Ok(new)) => {
                differ("", Some(old), Some(&new.value), &mut differences);
                (None, rule_changes(&past.rules, &new.rules))
            }
            (Err(_), Err(_)) => (None, Vec::new()),
            (Err(old), Ok(new)) => {
                let (old, new) = (Some(old.as_str().into()), Some(new.value));
                differences.push(Change { path: "error".to_owned(), old, new });
                (None, Vec::new())
            }
            (Ok(old), Err(error)) => {
                let (old, new) = (Some(old.clone()), Some(error.to_string().into()));
                differences.push(Change { path: "error".to_owned(), old, new });
                (Some(error), Vec::new())
            }
        };
        differences.retain(|change| is_asked_for(&change.path, fields));
        if differences.is_empty() {
            report.same += 1;
            continue;
        }
        report.differ += usize::from(failure.is_none());
        report.fail += usize::from(failure.is_some());
        let once: BTreeSet<&str> = differences.iter().map(|change| root(&change.path)).collect();
        for path in once {
            *counts.entry(path.to_owned()).or_default() += 1;
        }
        let (from, at, given) = (past.from.clone(), past.at, past.given.clone());
        report.cases.push(Replayed { from, at, differences, failure, rules, given });
    }
    report.changed = counts.into_iter().map(|(path, count)| FieldCount { path, count }).collect();
    report.changed.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.path.cmp(&b.path)));
    report
}

/// A version of a script, compiled once for each set of variables.
#[derive(Debug)]
pub struct Version<'a> {
    sandbox: &'a Sandbox,
    name: &'a str,
    text: &'a str,
    compiled: BTreeMap<Vec<String>, Result<Script, ScriptError>>,
}

impl<'a> Version<'a> {
    /// A text that is compiled when something is given to it.
    pub fn new(sandbox: &'a Sandbox, name: &'a str, text: &'a str) -> Self {
        Self { sandbox, name, text, compiled: BTreeMap::new() }
    }

    /// The script for these variables.
    pub fn script(&mut self, given: &Scope) -> Result<&Script, ScriptError> {
        let names: Vec<String> = given.keys().cloned().collect();
        let compile = || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.sandbox.script(self.name, self.text, &names)
        };
        let compiled = self.compiled.entry(names.clone()).or_insert_with(compile);
        compiled.as_ref().map_err(Clone::clone)
    }
}

/// The field of the verdict that a path leads into.
fn root(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}

fn is_asked_for(path: &str, fields: &[String]) -> bool {
    let within = |field: &String| {
        path.strip_prefix(field.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    fields.is_empty() || path == "error" || fields.iter().any(within)
}

/// Where two values differ. What is absent equals `()`.
fn differ(path: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<Change>) {
    match (old, new) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let only_after = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(only_after) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differ(&path, before.get(name), after.get(name), out);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for index in 0..before.len().max(after.len()) {
                differ(&format!("{path}[{index}]"), before.get(index), after.get(index), out);
            }
        }
        (old, new) if is_same(old, new) => {}
        (old, new) => {
            out.push(Change { path: path.to_owned(), old: old.cloned(), new: new.cloned() });
        }
    }
}

/// Rules of which the versions say different things. Without the rules of then nothing is said.
fn rule_changes(old: &[RuleTrace], new: &[RuleTrace]) -> Vec<RuleChange> {
    if old.is_empty() {
        return Vec::new();
    }
    let mut before: Vec<&RuleTrace> = old.iter().collect();
    let mut changes = Vec::new();
    for rule in new {
        // The same rule may be checked once for each row.
        let same = before.iter().position(|known| known.rule == rule.rule);
        let known = same.map(|place| before.remove(place).verdict);
        if known != Some(rule.verdict) {
            let new = Some(rule.clone());
            changes.push(RuleChange { rule: rule.rule.clone(), old: known, new });
        }
    }
    let gone = before.into_iter();
    changes.extend(gone.map(|rule| RuleChange {
        rule: rule.rule.clone(),
        old: Some(rule.verdict),
        new: None,
    }));
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: &str = "let much = rule(\"much\", n > 5, `${n}`); #{ act: much, n: n, list: [n] }";
    const NEW: &str = "let much = rule(\"much\", n > 3, `${n}`); #{ act: much, n: n, list: [n] }";

    fn past(values: &[Value]) -> Vec<Past> {
        let sandbox = Sandbox::new();
        let script = sandbox.script("old", OLD, &["n"]).unwrap();
        let one = |n: &Value| {
            let given = Scope::from([("n".to_owned(), n.clone())]);
            let found = script.evaluate(&given);
            let rules = found.as_ref().map(|found| found.rules.clone()).unwrap_or_default();
            let old = found.map(|found| found.value).map_err(|error| error.to_string());
            Past { from: format!("row {n}"), at: None, given, old, rules }
        };
        values.iter().map(one).collect()
    }

    fn run(text: &str, past: &[Past], fields: &[&str]) -> Backtest {
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        backtest(&Sandbox::new(), ("new", text), past, &fields)
    }

    #[test]
    fn the_same_text_decides_the_same() {
        let past = past(&[json!(1), json!(4), json!(9), json!("text")]);
        let report = run(OLD, &past, &[]);
        assert_eq!((report.evaluated, report.same, report.differ, report.fail), (4, 4, 0, 0));
        assert!(report.cases.is_empty() && report.changed.is_empty());
    }

    #[test]
    fn differing_cases_have_both_values_and_the_rule() {
        let report = run(NEW, &past(&[json!(1), json!(4), json!(9)]), &[]);
        assert_eq!((report.same, report.differ), (2, 1));
        let [case] = report.cases.as_slice() else { panic!("{report:#?}") };
        let act =
            Change { path: "act".to_owned(), old: Some(json!(false)), new: Some(json!(true)) };
        assert_eq!((case.differences.as_slice(), &case.given["n"]), ([act].as_slice(), &json!(4)));
        let [rule] = case.rules.as_slice() else { panic!("{case:#?}") };
        assert_eq!((rule.old, rule.new.as_ref().unwrap().verdict), (Some(false), true));
        assert_eq!(report.changed, [FieldCount { path: "act".to_owned(), count: 1 }]);
    }

    #[test]
    fn only_what_is_asked_for_is_compared() {
        let other = NEW.replace("[n]", "[n, n]");
        let past = past(&[json!(1), json!(4)]);
        assert_eq!(run(&other, &past, &[]).differ, 2);
        let report = run(&other, &past, &["act"]);
        assert_eq!((report.differ, report.same), (1, 1));
        assert_eq!(run(&other, &past, &["lis"]).differ, 0, "a field is a whole name");
        assert_eq!(run(&other, &past, &["list"]).changed[0].count, 2);
    }

    #[test]
    fn a_version_that_fails_or_needs_more_is_told() {
        let past = past(&[json!(4), json!("text")]);
        let report = run("more + n", &past, &[]);
        assert_eq!((report.fail, report.same), (1, 1), "where both fail nothing changed");
        assert!(report.cases[0].failure.as_ref().unwrap().to_string().contains("more"));
        // A version that copes where the old one did not.
        let report = run("#{ act: false }", &past, &["act"]);
        assert_eq!((report.fail, report.differ), (0, 1), "{report:#?}");
        assert_eq!(report.cases[0].differences[0].path, "error");
    }
}
