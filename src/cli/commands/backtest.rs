//! `lakeops sop backtest`

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::audit::when;
use super::sop::{file_of, read};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::engine::{Engine, Evaluation};
use crate::history;
use crate::journal::Journal;
use crate::journal::store::{RunFilter, RunSummary};
use crate::kernel::{Query, Timestamp};
use crate::plan::Plan;
use crate::report::backtest::text;
use crate::report::style::count;
use crate::sop::{Past, RuleTrace, Sandbox, Scope, Version, backtest};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The script, by name
    script: String,
    /// The new version, when it is not the file of that name
    #[arg(long, value_name = "FILE")]
    new: Option<PathBuf>,
    /// Not before this: an age such as 30d, or a time such as 2026-11-22T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only what runs of this workflow evaluated
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Compare only this field of the verdict; may be given several times
    #[arg(long, value_name = "NAME")]
    field: Vec<String>,
    /// Measurements too: a query over the history, whose columns are the variables
    #[arg(long, value_name = "SQL")]
    history: Option<String>,
    /// The old version for `--history`; by default what the newest plan has
    #[arg(long, value_name = "FILE", requires = "history")]
    against: Option<PathBuf>,
}

/// What the journal says of a script.
#[derive(Default)]
struct Recorded {
    past: Vec<Past>,
    /// The text that the newest plan has.
    newest: Option<String>,
    /// Runs whose events do not add up, or are gone.
    unread: Vec<Value>,
    /// How many runs are sealed.
    sealed: usize,
}

/// Replays and compares.
pub(super) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let file = file_of(session, &session.config.sops_dir(), &args.script);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let path = format!("sops/{}", name.unwrap_or_default());
    let new = read(&args.new.as_ref().map_or(file, |new| session.shell.path(new)))?;
    let now = session.shell.clock.now();
    let since = args.since.as_deref().map(|text| when(text, now)).transpose()?;
    let mut recorded = match session.existing_journal()? {
        Some(journal) => {
            let engine = session.engine(&[]).await?;
            recorded(&engine, journal.as_ref(), &path, (args.workflow.as_deref(), since)).await?
        }
        None => Recorded::default(),
    };
    if let Some(sql) = &args.history {
        let old = match &args.against {
            Some(file) => Some(read(&session.shell.path(file))?),
            None => recorded.newest.take(),
        };
        let old = old.ok_or_else(|| {
            CliError::usage_with(
                format!(
                    "no plan has `{path}`, so there is no old version to judge measurements by"
                ),
                "name it: `--against FILE`",
            )
        })?;
        let location = session.whole_history().await?;
        let answer = history::answer(&location, &Query::new(sql), &[], None).await?;
        let rows = answer.rows()?;
        recorded.past.extend(measured(&path, &old, rows)?);
    }
    for unread in &recorded.unread {
        session.shell.out.note(&format!("run {} is left out: {}", unread["run"], unread["why"]));
    }
    if recorded.sealed > 0 {
        let runs = count(recorded.sealed, "sealed run");
        session.shell.out.note(&format!("{runs} left out: what they were given is gone"));
    }
    if recorded.past.is_empty() {
        return Err(CliError::usage_with(
            format!("nothing is recorded that `{path}` was evaluated on"),
            "a workflow must have run it in a `script` step; what tools and policies ask leaves no inputs. \
             Measurements of the history can stand in: `--history SQL --against OLD`",
        ));
    }
    let found = backtest(&Sandbox::new(), (&path, &new), &recorded.past, &args.field);
    let mut json = json!(found);
    json["script"] = json!(path);
    json["left_out"] = json!(recorded.unread);
    session.shell.out.data(&json, |style| text(style, &path, &found))?;
    Ok(if found.cases.is_empty() { Exit::Done } else { Exit::Failed })
}

/// The evaluations of a script that the journal knows, the oldest first.
async fn recorded(
    engine: &Engine,
    journal: &dyn Journal,
    path: &str,
    (workflow, since): (Option<&str>, Option<Timestamp>),
) -> Result<Recorded, CliError> {
    let filter = RunFilter { workflow: workflow.map(str::to_owned), ..RunFilter::default() };
    let mut plans = std::collections::BTreeMap::new();
    let mut recorded = Recorded::default();
    // The newest come first.
    for run in journal.runs(filter).await? {
        if since.is_some_and(|since| run.updated_at < since) {
            continue;
        }
        if run.sealed.is_some() {
            recorded.sealed += 1;
            continue;
        }
        let id = run.plan_id.to_string();
        if !plans.contains_key(&id) {
            let plan = journal.plan(&run.plan_id).await?;
            let text = plan.as_ref().and_then(|plan| text_of(plan, path));
            plans.insert(id.clone(), text);
        }
        let Some(Some(text)) = plans.get(&id) else { continue };
        recorded.newest.get_or_insert_with(|| text.clone());
        match engine.evaluations(&run.run_id, path).await {
            Ok(found) => {
                let in_time =
                    found.into_iter().filter(|one| since.is_none_or(|since| one.at >= since));
                recorded.past.extend(in_time.map(|one| past(&run, one)));
            }
            Err(error) => {
                let why = error.to_string();
                recorded.unread.push(json!({ "run": run.run_id, "why": why }));
            }
        }
    }
    recorded.past.sort_by_key(|past| past.at);
    Ok(recorded)
}

fn text_of(plan: &Plan, path: &str) -> Option<String> {
    plan.body.scripts.get(path).map(|pinned| pinned.text.clone())
}

fn past(run: &RunSummary, one: Evaluation) -> Past {
    let rule = |seen: &crate::kernel::Seen| -> Option<RuleTrace> {
        seen.name.strip_prefix("rule ")?;
        serde_json::from_value(seen.value.clone()).ok()
    };
    Past {
        from: format!("run {} step {}", run.run_id, one.step),
        at: Some(one.at),
        rules: one.seen.iter().filter_map(rule).collect(),
        given: one.given,
        old: one.came_to.map_err(|failure| failure.message),
    }
}

/// Rows of the history, judged by the old text.
fn measured(path: &str, old: &str, rows: Vec<Value>) -> Result<Vec<Past>, CliError> {
    let sandbox = Sandbox::new();
    let mut version = Version::new(&sandbox, path, old);
    let mut past = Vec::with_capacity(rows.len());
    for (number, row) in (1..).zip(rows) {
        let given = variables(row);
        let script = version.script(&given).map_err(|error| {
            let help = "the columns of `--history` are the variables of the script";
            CliError::usage_with(format!("the old version of {path}: {error}"), help)
        })?;
        let found = script.evaluate(&given);
        past.push(Past {
            from: format!("row {number} of the history"),
            at: None,
            rules: found.as_ref().map(|found| found.rules.clone()).unwrap_or_default(),
            old: found.map(|found| found.value).map_err(|error| error.to_string()),
            given,
        });
    }
    Ok(past)
}

/// The columns as variables: `alert.value` is a field of `alert`, a text of JSON is read.
fn variables(row: Value) -> Scope {
    let Value::Object(columns) = row else { return Scope::new() };
    let mut given = Map::new();
    for (name, value) in columns {
        let value = match value {
            Value::String(text) if text.starts_with(['{', '[']) => {
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            }
            value => value,
        };
        put(&mut given, &name, value);
    }
    given.into_iter().collect()
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            fields.insert(name.to_owned(), value);
        }
        Some((outer, inner)) => {
            let there = fields.entry(outer).or_insert_with(|| json!({}));
            if let Value::Object(fields) = there {
                put(fields, inner, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_variables() {
        let row = json!({
            "alert.metric": "locks", "alert.value": 3, "limits": "{\"n\": 1}", "note": "{no json",
        });
        let given = variables(row);
        assert_eq!(given["alert"], json!({ "metric": "locks", "value": 3 }));
        assert_eq!((&given["limits"], &given["note"]), (&json!({"n": 1}), &json!("{no json")));
    }

    #[test]
    fn rows_are_judged_by_the_old_version() {
        let rows = vec![json!({ "n": 3 }), json!({ "n": "x" })];
        let past = measured("sops/x.rhai", "#{ act: n > 2 }", rows).unwrap();
        assert_eq!(past[0].old, Ok(json!({ "act": true })));
        assert!(past[1].old.is_err(), "what failed then is a verdict too");
        assert!(measured("sops/x.rhai", "m", vec![json!({ "n": 3 })]).is_err());
    }
}
