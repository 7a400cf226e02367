//! `lakeops runs`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::store::RunFilter;
use crate::report::run::runs;

/// List runs, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops runs
  lakeops runs --open              those that wait or work
  lakeops runs --workflow heal_bloat --limit 5 --output json")]
pub(crate) struct Args {
    /// Only those that are not over
    #[arg(long)]
    open: bool,
    /// Only those of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 30)]
    limit: u32,
}

/// Prints them.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let filter =
        RunFilter { unfinished: args.open, workflow: args.workflow, limit: Some(args.limit) };
    let found = match session.existing_journal()? {
        Some(journal) => journal.runs(filter).await?,
        None => Vec::new(),
    };
    let now = session.shell.clock.now();
    session.shell.out.data(&found, |style| runs(style, &found, now))?;
    Ok(Exit::Done)
}
