//! `lakeops config`

use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::report::table::table;

/// Show the configuration, and where each value comes from
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print every value with its origin
    ///
    /// A later layer wins: built-in defaults, .config/lakeops.toml (here or in a folder above), the
    /// environment, flags. The default .config/lakeops.toml explains each value.
    #[command(after_help = "\
Examples:
  lakeops config show
  lakeops config show settings.limits
  LAKEOPS_SETTINGS__LIMITS__LOCK_TIMEOUT=5s lakeops config show settings.limits.lock_timeout
  lakeops config show --output json")]
    Show {
        /// Only values whose key begins so
        prefix: Option<String>,
    },
}

/// Prints the values.
pub(crate) fn run(session: &Session<'_>, args: &Args) -> Result<Exit, CliError> {
    let Verb::Show { prefix } = &args.verb;
    let mut shown = session.config.show();
    shown.retain(|one| prefix.as_ref().is_none_or(|prefix| one.key.starts_with(prefix)));
    if let (true, Some(prefix)) = (shown.is_empty(), prefix) {
        return Err(CliError::usage_with(
            format!("no key begins with `{prefix}`"),
            "`lakeops config show` lists all keys",
        ));
    }
    session.shell.out.data(&shown, |style| {
        let rows = shown.iter().map(|one| {
            let value = match &one.value {
                Value::Null => "(not set)".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            vec![one.key.clone(), value, one.origin.to_string()]
        });
        table(style, &["key", "value", "origin"], rows.collect(), "nothing is configured")
    })?;
    Ok(Exit::Done)
}
