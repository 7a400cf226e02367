//! `lakeops show`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::report::run::{Detail, run as report};
use crate::report::sealed;

/// Show a run: its steps, changes and outputs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops show 3f9a
  lakeops show 3f9a --outputs
  lakeops show 3f9a --output json | jq '.steps[] | {id, state}'")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
    /// The output of every step, too
    #[arg(long)]
    outputs: bool,
}

/// Prints it.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let found = session.find_run(&args.run).await?;
    if found.sealed.is_some() {
        let view = session.sealed_view(found).await?;
        session.shell.out.data(&view, |style| sealed::text(style, &view))?;
        return Ok(Exit::Done);
    }
    let view = session.view(&found).await?;
    let detail = if args.outputs { Detail::Outputs } else { Detail::Changes };
    session.shell.out.data(&view, |style| report(style, &view, detail))?;
    Ok(Exit::Done)
}
