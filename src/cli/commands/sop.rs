//! `lakeops sop`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::Session;
use crate::kernel::Severity;
use crate::report::style::{Style, Tone, count};
use crate::sop::{
    CaseReport, CaseResult, Evaluated, RuleTrace, Sandbox, Scope, check, declared_variables,
    run_cases,
};

/// Check, test, evaluate and explain SOPs
///
/// A SOP is a small Rhai script that turns measurements into decisions. It sees data and returns data; it
/// cannot act. Beside `NAME.rhai` lies `NAME.cases.yaml`: what is given, and what must come out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops sop check                               all scripts
  lakeops sop test connections
  lakeops sop eval hello --given '{\"connections\": {\"total\": 80}, \"most\": 50}'
  lakeops sop backtest connections --since 30d     what the new version would have done
  lakeops tools run monitor_connections --output json > now.json
  lakeops sop explain connections --given-file connections=now.json")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check scripts: that they parse, and name only what exists
    Check {
        /// The scripts, by name or file; none: all
        scripts: Vec<String>,
    },
    /// Run the cases of scripts
    Test {
        /// The scripts, by name or file; none: all
        scripts: Vec<String>,
    },
    /// Evaluate a script and print what it returns
    Eval(Evaluate),
    /// Evaluate a script and print each rule with the values that it saw
    Explain(Evaluate),
    /// Replay a new version over what runs gave the old one, and show where it decides otherwise
    ///
    /// Every evaluation that the journal knows is made again with the file as it is now, with the variables
    /// that it had then, and compared with what came out then. `--history` adds measurements: a query over
    /// the history whose columns are the variables (`alert.value` is a field of `alert`; a text of JSON is
    /// read), judged by the old text and the new one. Ends with 1 when a verdict differs.
    #[command(after_help = "\
Examples:
  lakeops sop backtest bloat
  lakeops sop backtest bloat --new new-bloat.rhai --since 30d --field act
  lakeops sop backtest mine --history \"select metric_value as value from lakebase_metrics\" --output json")]
    Backtest(super::backtest::Args),
}

#[derive(Debug, clap::Args)]
struct Evaluate {
    /// The script, by name or file
    script: String,
    /// Its variables, as one JSON object
    #[arg(long, value_name = "JSON")]
    given: Option<String>,
    /// A variable from a file of JSON
    #[arg(long, value_name = "NAME=FILE")]
    given_file: Vec<String>,
}

/// A script and its cases.
struct Sop {
    name: String,
    script: String,
    cases: Option<String>,
}

/// Checks, tests or evaluates.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Check { scripts } => check_all(session, &scripts),
        Verb::Test { scripts } => test_all(session, &scripts),
        Verb::Eval(args) => {
            let (_, evaluated) = evaluate(session, &args)?;
            let pretty = format!("{:#}\n", evaluated.value);
            session.shell.out.data(&evaluated.value, |_| pretty)?;
            Ok(Exit::Done)
        }
        Verb::Explain(args) => {
            let (name, evaluated) = evaluate(session, &args)?;
            let json = json!({
                "script": name, "value": evaluated.value, "rules": evaluated.rules,
                "seen": evaluated.seen, "printed": evaluated.printed,
            });
            session.shell.out.data(&json, |style| explained(style, &name, &evaluated))?;
            Ok(Exit::Done)
        }
        Verb::Backtest(args) => super::backtest::run(session, args).await,
    }
}

fn check_all(session: &Session<'_>, scripts: &[String]) -> Result<Exit, CliError> {
    let sandbox = Sandbox::new();
    let sops = find(session, scripts)?;
    let (mut json, mut text, mut wrong) = (Vec::new(), String::new(), 0);
    for sop in &sops {
        let problems = check(&sandbox, &sop.name, &sop.script, None, sop.cases.as_deref());
        for problem in &problems {
            wrong += usize::from(problem.severity == Severity::Critical);
            let _ = writeln!(text, "{}: {problem}", sop.name);
        }
        json.push(json!({ "script": sop.name, "problems": problems }));
    }
    let _ = writeln!(text, "{}, {}", count(sops.len(), "script"), count(wrong, "mistake"));
    session.shell.out.data(&json, |_| text)?;
    Ok(if wrong == 0 { Exit::Done } else { Exit::Invalid })
}

fn test_all(session: &Session<'_>, scripts: &[String]) -> Result<Exit, CliError> {
    let sandbox = Sandbox::new();
    let mut reports: Vec<(String, CaseReport)> = Vec::new();
    for sop in find(session, scripts)? {
        let Some(cases) = &sop.cases else {
            session.shell.out.note(&format!("{} has no cases", sop.name));
            continue;
        };
        let report = run_cases(&sandbox, &sop.name, &sop.script, cases).map_err(|error| {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
            CliError::usage(format!("{}: {error}{}", sop.name, why.unwrap_or_default()))
        })?;
        reports.push((sop.name, report));
    }
    let passed = reports.iter().all(|(_, report)| report.passed());
    let json: Vec<Value> = reports
        .iter()
        .map(|(name, report)| {
            json!({ "script": name, "passed": report.passed(), "cases": report.cases,
                    "one_sided": report.one_sided })
        })
        .collect();
    session.shell.out.data(&json, |style| tested(style, &reports))?;
    Ok(if passed { Exit::Done } else { Exit::Failed })
}

fn tested(style: Style, reports: &[(String, CaseReport)]) -> String {
    let mut text = String::new();
    for (name, report) in reports {
        let _ = writeln!(text, "{}", style.paint(Tone::Strong, name));
        for case in &report.cases {
            case_lines(&mut text, style, case);
        }
        for rule in &report.one_sided {
            let line = format!("  the rule `{rule}` always came out the same: add a case");
            let _ = writeln!(text, "{}", style.paint(Tone::Warn, &line));
        }
    }
    let cases: usize = reports.iter().map(|(_, report)| report.cases.len()).sum();
    let all = reports.iter().flat_map(|(_, report)| &report.cases);
    let failed = all.filter(|case| !case.passed()).count();
    let _ = writeln!(text, "{}, {failed} failed", count(cases, "case"));
    text
}

fn case_lines(text: &mut String, style: Style, case: &CaseResult) {
    let (mark, tone) = if case.passed() { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
    let _ = writeln!(text, "  {} {}", style.paint(tone, mark), case.name);
    let shown = |value: &Option<Value>| {
        value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
    };
    for difference in &case.differences {
        let place = if difference.path.is_empty() { "it" } else { &difference.path };
        let (expected, got) = (shown(&difference.expected), shown(&difference.got));
        let _ = writeln!(text, "      {place}: expected {expected}, got {got}");
    }
    if !case.passed() {
        rules(text, style, &case.rules);
    }
}

fn rules(text: &mut String, style: Style, rules: &[RuleTrace]) {
    for rule in rules {
        let tone = if rule.verdict { Tone::Warn } else { Tone::Faint };
        let verdict = style.paint(tone, &rule.verdict.to_string());
        let _ = writeln!(text, "      rule {} is {verdict}: {}", rule.rule, rule.why);
        for seen in &rule.seen {
            let _ = writeln!(text, "        {} = {}", seen.name, seen.value);
        }
    }
}

fn explained(style: Style, name: &str, evaluated: &Evaluated) -> String {
    let mut text = format!("{}\n", style.paint(Tone::Strong, name));
    rules(&mut text, style, &evaluated.rules);
    for line in &evaluated.printed {
        let _ = writeln!(text, "      printed {line}");
    }
    let _ = writeln!(text, "{:#}", evaluated.value);
    text
}

fn evaluate(session: &Session<'_>, args: &Evaluate) -> Result<(String, Evaluated), CliError> {
    let sops = find(session, std::slice::from_ref(&args.script))?;
    let Some(sop) = sops.into_iter().next() else {
        return Err(CliError::usage("no script is named"));
    };
    let scope = scope(session, args)?;
    let declared = declared_variables(&sop.script);
    let given: Vec<String> = scope.keys().cloned().collect();
    let variables = declared.unwrap_or(given);
    if let Some(missing) = variables.iter().find(|name| !scope.contains_key(*name)) {
        return Err(CliError::usage_with(
            format!("`{}` needs the variable `{missing}`", sop.name),
            format!("give it: --given '{{\"{missing}\": …}}' or --given-file {missing}=FILE"),
        ));
    }
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let script_error = |error: crate::sop::ScriptError| CliError::Usage {
        message: format!("{}: {error}", sop.name),
        help: error.help.clone(),
    };
    let script = Sandbox::new().script(&sop.name, &sop.script, &variables).map_err(script_error)?;
    let evaluated = script.evaluate(&scope).map_err(script_error)?;
    Ok((sop.name, evaluated))
}

fn scope(session: &Session<'_>, args: &Evaluate) -> Result<Scope, CliError> {
    let mut scope = Scope::new();
    if let Some(given) = &args.given {
        let read: Result<Scope, _> = serde_json::from_str(given);
        scope = read.map_err(|error| {
            let message = format!("`--given` is no JSON object: {error}");
            CliError::usage_with(message, "write `--given '{\"name\": value}'`")
        })?;
    }
    for pair in &args.given_file {
        let (name, file) = pair.split_once('=').ok_or_else(|| {
            CliError::usage_with(format!("`{pair}` names no variable"), "write `name=FILE`")
        })?;
        let text = read(&session.shell.path(file))?;
        let value = serde_json::from_str(&text)
            .map_err(|error| CliError::usage(format!("{file} is no JSON: {error}")))?;
        scope.insert(name.to_owned(), value);
    }
    Ok(scope)
}

/// The scripts of these names or files; none: all of the folder.
fn find(session: &Session<'_>, names: &[String]) -> Result<Vec<Sop>, CliError> {
    let folder = session.config.sops_dir();
    let files: Vec<(String, PathBuf)> = if names.is_empty() {
        let all = library::texts(&folder, &["rhai"])?;
        all.into_keys().map(|name| (name.clone(), folder.join(name))).collect()
    } else {
        names.iter().map(|name| (name.clone(), file_of(session, &folder, name))).collect()
    };
    files
        .into_iter()
        .map(|(name, path)| {
            let script = read(&path)?;
            let beside = path.with_extension("cases.yaml");
            let cases = if beside.is_file() { Some(read(&beside)?) } else { None };
            Ok(Sop { name, script, cases })
        })
        .collect()
}

pub(super) fn file_of(session: &Session<'_>, folder: &Path, name: &str) -> PathBuf {
    let here = session.shell.path(name);
    if here.is_file() { here } else { folder.join(name).with_extension("rhai") }
}

pub(super) fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::unreadable(path, error))
}
