//! What can be said of a SOP before it decides anything.

use std::fmt;

use serde::Serialize;

use super::cases::{CasesError, declared_variables, run_cases};
use super::{Sandbox, ScriptError};
use crate::kernel::Severity;

/// Something that is wrong with a script or its cases, or looks so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// `warning`: it works, but nobody knows whether it is right. `critical`: it does not work.
    pub severity: Severity,
    /// Which file it is in.
    pub file: ProblemFile,
    /// What is wrong, and where in the file. Line 0: the file as a whole.
    pub error: ScriptError,
}

/// The script or the file of its cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemFile {
    /// The script.
    Script,
    /// Its cases.
    Cases,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.error)
    }
}

/// Checks a script: that it parses, names only variables and functions that exist, and, by its cases,
/// that it meets no missing field and compares no unlike values.
///
/// `with` are the variables that a workflow gives to it, when a workflow does; otherwise its header
/// says them.
pub fn check(
    sandbox: &Sandbox,
    name: &str,
    script: &str,
    with: Option<&[&str]>,
    cases: Option<&str>,
) -> Vec<Problem> {
    let declared = declared_variables(script);
    let mut problems = Vec::new();
    if let (Some(with), Some(declared)) = (with, &declared) {
        let missing = declared.iter().filter(|name| !with.contains(&name.as_str()));
        problems.extend(missing.map(|name| {
            critical(whole(format!("`{name}` is declared in the header and not given by `with`")))
        }));
    }
    match (&declared, with, cases) {
        (None, None, None) => problems.push(warning(
            whole("the script does not say which variables it needs".into())
                .help("begin it with a comment such as `// with: connections, limits`"),
        )),
        (Some(_), _, _) | (_, Some(_), _) => {
            let declared: Vec<&str> = declared.iter().flatten().map(String::as_str).collect();
            let variables = with.map_or(declared, <[&str]>::to_vec);
            if let Err(error) = sandbox.script(name, script, &variables) {
                problems.push(critical(error));
                return problems;
            }
        }
        (None, None, Some(_)) => {}
    }
    match cases {
        Some(cases) => problems.extend(by_cases(sandbox, name, script, cases)),
        None => problems.push(warning(
            whole("no cases show what the script decides".into())
                .help("write them beside it, into a file of the same name with `.cases.yaml`"),
        )),
    }
    problems
}

fn by_cases(sandbox: &Sandbox, name: &str, script: &str, cases: &str) -> Vec<Problem> {
    let report = match run_cases(sandbox, name, script, cases) {
        Ok(report) => report,
        Err(CasesError::Script(error)) => return vec![critical(error)],
        Err(CasesError::Unreadable { message, line, column }) => {
            let error = ScriptError { message, line, column, help: None };
            return vec![Problem { severity: Severity::Critical, file: ProblemFile::Cases, error }];
        }
        Err(error @ CasesError::Expectation { .. }) => {
            let error = whole(error.to_string());
            return vec![Problem { severity: Severity::Critical, file: ProblemFile::Cases, error }];
        }
    };
    let mut problems = Vec::new();
    for case in report.cases {
        // A case that expects the failure shows nothing wrong.
        if let Some(error) = case.failure.filter(|_| !case.differences.is_empty()) {
            let message = format!("case `{}`: {}", case.name, error.message);
            problems.push(critical(ScriptError { message, ..error }));
        }
    }
    problems.extend(report.one_sided.into_iter().map(|rule| {
        warning(
            whole(format!("no two cases show both sides of rule `{rule}`"))
                .help("add a case in which it decides the other way"),
        )
    }));
    problems
}

fn whole(message: String) -> ScriptError {
    ScriptError { message, line: 0, column: 0, help: None }
}

fn critical(error: ScriptError) -> Problem {
    Problem { severity: Severity::Critical, file: ProblemFile::Script, error }
}

fn warning(error: ScriptError) -> Problem {
    Problem { severity: Severity::Warning, file: ProblemFile::Script, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(script: &str, with: Option<&[&str]>, cases: Option<&str>) -> Vec<String> {
        let problems = check(&Sandbox::new(), "x.rhai", script, with, cases);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_scripts_have_no_problems() {
        let cases = "- { name: a, given: { n: 1 }, expect: { act: false } }\n\
                     - { name: b, given: { n: 5 }, expect: { act: true } }";
        let script = "// with: n\n#{ act: rule(\"much\", n > 3, \"\") }";
        assert_eq!(messages(script, None, Some(cases)), Vec::<String>::new());
        assert_eq!(messages(script, Some(&["n"]), Some(cases)), Vec::<String>::new());
    }

    #[test]
    fn problems_are_found_without_running_anything_for_real() {
        let found = messages("// with: n\nm > 3", None, None);
        assert_eq!(found, ["critical: unknown variable `m`"]);
        let found = messages("// with: n\nn.len_of()", None, None);
        assert_eq!(found, ["critical: there is no function `len_of`"]);
        let found = messages("// with: n\nn > 3", Some(&["x"]), None);
        assert_eq!(found.len(), 2, "{found:?}");
        let found = messages("n > 3", None, None);
        assert!(found[0].contains("does not say which variables"), "{found:?}");
        assert!(found[1].contains("no cases"), "{found:?}");
    }

    #[test]
    fn cases_find_unlike_values_and_missing_fields() {
        let cases = "- { name: a, given: { n: { x: high } }, expect: {} }\n\
                     - { name: b, given: { n: { y: 1 } }, expect: {} }";
        let found = messages("// with: n\nrule(\"r\", n.x > 3, \"\")", None, Some(cases));
        assert_eq!(
            found,
            [
                "critical: case `a`: `>` cannot compare a text with an int",
                "critical: case `b`: `n` has no field `x`",
            ]
        );
        let cases = "- { name: a, given: { n: 1 }, expect: false }";
        let found = messages("// with: n\nrule(\"r\", n > 3, \"\")", None, Some(cases));
        assert_eq!(found, ["warning: no two cases show both sides of rule `r`"]);
        assert!(messages("// with: n\nn", None, Some("- 1"))[0].starts_with("critical: "));
    }
}
