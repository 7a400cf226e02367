//! `lakeops logs`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::report::timeline;

/// Print what happened in a run, line by line
///
/// The lines are the events of the journal: what is not there did not happen. With `--output json` the
/// events are printed as they are stored.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops logs 3f9a
  lakeops logs 3f9a --step heal    that step, its items and the steps inside it")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
    /// Only what is about this step
    #[arg(long)]
    step: Option<String>,
}

/// Prints them.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let (_, mut entries) = session.read_run(&run).await?;
    if let Some(wanted) = &args.step {
        entries.retain(|entry| {
            let rest = timeline::step_of(&entry.event).and_then(|step| step.strip_prefix(wanted));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '/']))
        });
    }
    session.shell.out.data(&entries, |style| {
        let mut lines: Vec<String> =
            entries.iter().map(|entry| timeline::line(style, entry)).collect();
        lines.push(String::new());
        lines.join("\n")
    })?;
    Ok(Exit::Done)
}
