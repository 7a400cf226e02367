//! `lakeops reject`

use super::approve;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::event::Decision;

/// Reject the changes that were shown
///
/// The step fails, or what depends on it is skipped, as the workflow says. Goes on with the run
/// afterwards, so that it can come to its end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops reject 3f9a heal --reason \"not during the sale\"")]
pub(crate) struct Args {
    #[command(flatten)]
    ruling: approve::Ruling,
}

/// Records the rejection and goes on.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    approve::decide(session, args.ruling, Decision::Rejected).await
}
