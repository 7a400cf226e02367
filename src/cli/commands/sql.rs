//! `lakeops sql`

use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::places::Selected;
use crate::cli::session::Session;
use crate::kernel::{Bind, Query, SqlFile};
use crate::report::style::count;
use crate::report::table::table;
use crate::tools::context::Places as _;
use crate::tools::sql_catalog;
use crate::workflow::{Library, Sources as _};

/// List, show and run reviewed SQL files
///
/// Every statement that lakeops reads with is such a file; your own lie in the folder `sql`. They run in
/// a READ ONLY transaction with time limits.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lakeops sql
  lakeops sql show shared/horizon_holders
  lakeops sql run shared/horizon_holders --output json"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all files
    List,
    /// Show a file
    Show {
        /// The file, without `sql/` and the ending
        name: String,
    },
    /// Run a file, read-only
    Run {
        /// The file, without `sql/` and the ending
        name: String,
        /// Values for $1, $2, …: JSON, or a text
        values: Vec<String>,
        /// Where: project/branch or project/branch/database; `-` leaves a part out
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// Start a compute that is suspended
        #[arg(long)]
        wake: bool,
    },
}

/// Lists, shows or runs.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let library = library::load(session);
    match args.verb {
        None | Some(Verb::List) => list(session, &library),
        Some(Verb::Show { name }) => {
            let text = find(&library, &name)?;
            session.shell.out.data(&json!({ "name": name, "text": text }), |_| text.to_owned())?;
            Ok(Exit::Done)
        }
        Some(Verb::Run { name, values, target, wake }) => {
            let text = find(&library, &name)?;
            carry_out(session, (&name, text), &values, (target.as_deref(), wake)).await
        }
    }
}

fn find<'a>(library: &'a Library, name: &str) -> Result<&'a str, CliError> {
    library.sql(name).ok_or_else(|| {
        let names = library.sql_names();
        let nearest =
            names.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
        let help = match nearest {
            Some((distance, near)) if distance <= name.len() / 2 => {
                format!("did you mean `{near}`?")
            }
            _ => "`lakeops sql` lists them".to_owned(),
        };
        CliError::usage_with(format!("no SQL file is called `{name}`"), help)
    })
}

fn list(session: &Session<'_>, library: &Library) -> Result<Exit, CliError> {
    let files: Vec<(&str, String, bool)> = library
        .sql_names()
        .into_iter()
        .filter_map(|name| {
            let text = library.sql(name)?;
            let is_ours = sql_catalog::find(name).is_some_and(|file| file.text == text);
            let purpose = text.lines().find_map(|line| line.strip_prefix("-- purpose:"));
            Some((name, purpose.unwrap_or_default().trim().to_owned(), is_ours))
        })
        .collect();
    let json: Vec<Value> = files
        .iter()
        .map(|(name, purpose, is_ours)| {
            json!({ "name": name, "purpose": purpose, "built_in": is_ours })
        })
        .collect();
    session.shell.out.data(&json, |style| {
        let rows = files.iter().map(|(name, purpose, is_ours)| {
            let whose = if *is_ours { "lakeops" } else { "yours" };
            vec![(*name).to_owned(), whose.to_owned(), purpose.clone()]
        });
        table(style, &["file", "whose", "purpose"], rows.collect(), "no files")
    })?;
    Ok(Exit::Done)
}

async fn carry_out(
    session: &Session<'_>,
    (name, text): (&str, &str),
    values: &[String],
    (target, wake): (Option<&str>, bool),
) -> Result<Exit, CliError> {
    check_values(name, text, values)?;
    let target = library::target(target)?;
    let selected = Selected::open(session, &target, wake, "lakeops:sql").await?;
    let reader = selected.reader_at(&target);
    let binds = values.iter().map(|value| bind(value)).collect();
    let rows = reader.query(name, &Query::with_binds(text, binds)).await;
    reader.close().await;
    let rows = rows?;
    session.shell.out.data(&rows, |style| {
        let columns: Vec<&str> = rows
            .first()
            .and_then(Value::as_object)
            .map(|row| row.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let cells = rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect());
        table(style, &columns, cells.collect(), "no rows")
    })?;
    Ok(Exit::Done)
}

/// Refuses more or fewer values than the header of the file says that it takes.
fn check_values(name: &str, text: &str, values: &[String]) -> Result<(), CliError> {
    let Some(wanted) = SqlFile::params_of(text) else { return Ok(()) };
    if wanted.len() == values.len() {
        return Ok(());
    }
    let message = format!(
        "`{name}` takes {}, and {} given",
        count(wanted.len(), "value"),
        match values.len() {
            0 => "none is".to_owned(),
            1 => "1 is".to_owned(),
            more => format!("{more} are"),
        }
    );
    let placeholders: Vec<String> = wanted.iter().map(|(param, _)| param.to_uppercase()).collect();
    let command = format!("lakeops sql run {name} {}", placeholders.join(" "));
    let listed: Vec<String> = wanted.iter().map(|(_, about)| about.clone()).collect();
    let about = if listed.is_empty() { String::new() } else { format!(": {}", listed.join(", ")) };
    Err(CliError::usage_with(message, format!("write `{}`{about}", command.trim_end())))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value for a placeholder, of the type that its JSON form has.
fn bind(text: &str) -> Bind {
    match serde_json::from_str(text) {
        Ok(Value::Number(number)) => match number.as_i64() {
            Some(whole) => Bind::Int(whole),
            None => Bind::Float(number.as_f64().unwrap_or_default()),
        },
        Ok(Value::Bool(flag)) => Bind::Bool(flag),
        Ok(Value::Null) => Bind::Null,
        Ok(Value::String(text)) => Bind::Text(text),
        Ok(Value::Array(items)) => array(items),
        Ok(object @ Value::Object(_)) => Bind::Json(object),
        Err(_) => Bind::Text(text.to_owned()),
    }
}

fn array(items: Vec<Value>) -> Bind {
    let numbers: Option<Vec<i64>> = items.iter().map(Value::as_i64).collect();
    let texts: Option<Vec<String>> =
        items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
    match (numbers, texts) {
        (Some(numbers), _) if !numbers.is_empty() => Bind::IntArray(numbers),
        (_, Some(texts)) => Bind::TextArray(texts),
        _ => Bind::Json(Value::Array(items)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_missing_is_named() {
        let text =
            "-- purpose: p\n-- params: $1 pid int8, $2 states text[] (all that count)\nselect 1";
        let refused = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|it| (*it).to_owned()).collect();
            check_values("a/b", text, &values).err().map(|error| format!("{error:?}"))
        };
        assert_eq!(refused(&["1", "[]"]), None);
        for (values, said) in [(&[][..], "takes 2 values, and none is"), (&["1"][..], "and 1 is")] {
            let error = refused(values).unwrap();
            assert!(error.contains(said), "{error}");
            let help = "lakeops sql run a/b PID STATES`: pid int8, states text[] (all that count)";
            assert!(error.contains(help), "{error}");
        }
        let none = check_values("a/b", "-- params: none\nselect 1", &["1".to_owned()]);
        assert!(format!("{:?}", none.unwrap_err()).contains("takes 0 values, and 1 is given"));
        check_values("a/b", "select $1", &[]).unwrap();
    }
}
