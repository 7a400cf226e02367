//! Cases of a SOP: what is given, and what it must decide.
//!
//! ```yaml
//! - name: nobody waits
//!   given: { connections: { blockers: [], long_idle: [] } }
//!   expect: { act: false }
//! - name: the input is not what the rules need
//!   given: { connections: { blockers: 3 } }
//!   error: blockers
//! ```
//! `expect` names the fields that matter; a list must be equal in length, its items again in what is
//! named. `error` is a part of the message with which the script must fail.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::program::Evaluated;
use super::{RuleTrace, Sandbox, Scope, Script, ScriptError};
use crate::kernel::Seen;

/// One case as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Scope,
    #[serde(default)]
    expect: Option<Value>,
    #[serde(default)]
    error: Option<String>,
}

/// What all cases of a script came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// The cases, in the order of writing.
    pub cases: Vec<CaseResult>,
    /// Rules that held in every case or in none: no case shows what they decide.
    pub one_sided: Vec<String>,
}

impl CaseReport {
    /// Whether every case passed. No cases at all are no proof.
    pub fn passed(&self) -> bool {
        !self.cases.is_empty() && self.cases.iter().all(CaseResult::passed)
    }
}

/// What one case came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Where the result is not what was expected; empty when the case passed.
    pub differences: Vec<Difference>,
    /// The failure of the script, when it failed.
    pub failure: Option<ScriptError>,
    /// The variables and fields that the script refers to, with their values.
    pub seen: Vec<Seen>,
    /// The rules that it checked.
    pub rules: Vec<RuleTrace>,
    /// What it printed.
    pub printed: Vec<String>,
}

impl CaseResult {
    /// Whether the script did what was expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One place where the result is not what was expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The field, such as `sessions[0]`; `error` for the failure itself.
    pub path: String,
    /// What was expected; absent when nothing was.
    pub expected: Option<Value>,
    /// What came out; absent when nothing did.
    pub got: Option<Value>,
}

/// Why cases cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// The file is not a list of cases.
    #[error("cases do not read: {message}")]
    Unreadable {
        /// What is wrong.
        message: String,
        /// The line, from 1; 0 when it is not known.
        line: usize,
        /// The column, from 1; 0 when it is not known.
        column: usize,
    },
    /// A case has neither or both of `expect` and `error`.
    #[error("case `{name}` needs one of `expect` and `error`")]
    Expectation {
        /// The case.
        name: String,
    },
    /// The script does not parse.
    #[error("script does not parse")]
    Script(#[source] ScriptError),
}

/// Runs the cases of a script. The variables that the script may name are those that its header
/// declares, or else those that its cases give.
pub fn run_cases(
    sandbox: &Sandbox,
    name: &str,
    script: &str,
    cases: &str,
) -> Result<CaseReport, CasesError> {
    let cases = read(cases)?;
    let given = cases.iter().flat_map(|case| case.given.keys().cloned());
    let variables = declared_variables(script).unwrap_or_else(|| {
        let given: BTreeSet<String> = given.collect();
        given.into_iter().collect()
    });
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let script = sandbox.script(name, script, &variables).map_err(CasesError::Script)?;
    let cases: Vec<CaseResult> = cases.iter().map(|case| run(&script, case)).collect();
    let one_sided = one_sided(&cases);
    Ok(CaseReport { cases, one_sided })
}

/// The variables that a script declares in its leading comment: `// with: connections, limits`.
pub fn declared_variables(script: &str) -> Option<Vec<String>> {
    let header = script
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("//"))
        .find_map(|line| line.trim_start_matches('/').trim().strip_prefix("with:"))?;
    let names = header.split(',').map(str::trim).filter(|name| !name.is_empty());
    Some(names.map(str::to_owned).collect())
}

fn read(text: &str) -> Result<Vec<Case>, CasesError> {
    let cases: Vec<Case> = serde_yaml::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        CasesError::Unreadable { message: error.to_string(), line, column }
    })?;
    match cases.iter().find(|case| case.expect.is_some() == case.error.is_some()) {
        Some(case) => Err(CasesError::Expectation { name: case.name.clone() }),
        None => Ok(cases),
    }
}

fn run(script: &Script, case: &Case) -> CaseResult {
    let mut differences = Vec::new();
    let result = script.evaluate(&case.given);
    match (&result, &case.expect, &case.error) {
        (Ok(evaluated), Some(expected), _) => {
            compare("", expected, Some(&evaluated.value), &mut differences);
        }
        (Err(error), _, Some(part)) if says(error, part) => {}
        (result, expected, error) => differences.push(Difference {
            path: if error.is_some() || result.is_err() { "error".into() } else { String::new() },
            expected: error.clone().map(Value::String).or_else(|| expected.clone()),
            got: Some(match result {
                Ok(evaluated) => evaluated.value.clone(),
                Err(error) => error.to_string().into(),
            }),
        }),
    }
    let (failure, evaluated) = match result {
        Ok(evaluated) => (None, Some(evaluated)),
        Err(error) => (Some(error), None),
    };
    let (seen, rules, printed) = match evaluated {
        Some(Evaluated { seen, rules, printed, .. }) => (seen, rules, printed),
        None => (Vec::new(), Vec::new(), Vec::new()),
    };
    CaseResult { name: case.name.clone(), differences, failure, seen, rules, printed }
}

fn says(error: &ScriptError, part: &str) -> bool {
    error.message.contains(part) || error.help.as_ref().is_some_and(|help| help.contains(part))
}

/// Compares what is expected with what came out, in what is expected.
fn compare(path: &str, expected: &Value, got: Option<&Value>, out: &mut Vec<Difference>) {
    match (expected, got) {
        (Value::Object(fields), Some(Value::Object(there))) => {
            for (name, expected) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(&path, expected, there.get(name), out);
            }
        }
        (Value::Array(items), Some(Value::Array(there))) => {
            for index in 0..items.len().max(there.len()) {
                let path = format!("{path}[{index}]");
                match (items.get(index), there.get(index)) {
                    (Some(expected), got) => compare(&path, expected, got, out),
                    (None, got) => {
                        out.push(Difference { path, expected: None, got: got.cloned() });
                    }
                }
            }
        }
        (expected, got) if is_same(Some(expected), got) => {}
        (expected, got) => out.push(Difference {
            path: path.to_owned(),
            expected: Some(expected.clone()),
            got: got.cloned(),
        }),
    }
}

/// Whether two values are the same to a script: what is absent equals `()`, and 1 equals 1.0.
pub(super) fn is_same(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one.unwrap_or(&Value::Null), other.unwrap_or(&Value::Null)) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (one, other) => one == other,
    }
}

/// Rules whose verdict is the same wherever they were checked.
fn one_sided(cases: &[CaseResult]) -> Vec<String> {
    let verdict = |wanted: bool| -> BTreeSet<&str> {
        let rules = cases.iter().flat_map(|case| &case.rules);
        rules.filter(|rule| rule.verdict == wanted).map(|rule| rule.rule.as_str()).collect()
    };
    verdict(true).symmetric_difference(&verdict(false)).map(|rule| (*rule).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCRIPT: &str = r#"
        // Decides whether there is much.
        // with: rows, limit
        let much = rule("much", rows.len() > limit, `${rows.len()} rows`);
        #{ act: much, rows: rows.map(|row| row.name), share: percent(rows.len(), 4) }
    "#;

    fn report(cases: &str) -> CaseReport {
        run_cases(&Sandbox::new(), "x.rhai", SCRIPT, cases).unwrap()
    }

    #[test]
    fn cases_pass_by_what_they_name() {
        let report = report(
            "- { name: few, given: { rows: [], limit: 1 }, expect: { act: false, share: 0 } }\n\
             - name: many\n  given: { rows: [{ name: a }, { name: b }], limit: 1 }\n  \
             expect: { act: true, rows: [a, b], share: 50 }\n\
             - { name: text, given: { rows: [], limit: x }, error: cannot compare }\n",
        );
        assert!(report.passed(), "{report:#?}");
        assert_eq!(report.one_sided, Vec::<String>::new());
        assert_eq!(report.cases[1].rules[0].why, "2 rows");
    }

    #[test]
    fn differences_say_what_came_out() {
        let report = report(
            "- name: wrong\n  given: { rows: [{ name: a }, { name: b }], limit: 1 }\n  \
             expect: { act: false, rows: [a], gone: 1 }\n\
             - { name: fails, given: { rows: [], limit: x }, expect: {} }\n\
             - { name: does not fail, given: { rows: [], limit: 1 }, error: boom }\n",
        );
        assert!(!report.passed());
        let differences = |at: usize| {
            report.cases[at].differences.iter().map(|d| d.path.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(differences(0), ["act", "gone", "rows[1]"]);
        assert_eq!(report.cases[0].differences[2].got, Some(json!("b")));
        assert_eq!(differences(1), ["error"]);
        assert!(report.cases[1].failure.is_some());
        assert_eq!(differences(2), ["error"]);
        assert_eq!(report.one_sided, Vec::<String>::new());
    }

    #[test]
    fn cases_that_do_not_read_say_where() {
        let run = |cases: &str| run_cases(&Sandbox::new(), "x.rhai", SCRIPT, cases);
        let error = run("- name: a\n  giv: {}\n").unwrap_err();
        assert!(matches!(error, CasesError::Unreadable { line: 2, .. }), "{error:?}");
        assert!(matches!(run("- { name: a }").unwrap_err(), CasesError::Expectation { .. }));
        assert!(!run("[]").unwrap().passed());
        let error = run_cases(&Sandbox::new(), "x", "// with: a\nb", "[]").unwrap_err();
        assert!(matches!(error, CasesError::Script(_)));
    }

    #[test]
    fn rules_that_never_change_are_named() {
        let report =
            report("- { name: few, given: { rows: [], limit: 1 }, expect: { act: false } }");
        assert_eq!(report.one_sided, ["much"]);
    }
}
