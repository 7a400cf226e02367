//! `lakeops thaw`

use super::freeze::{Scope, record};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;

/// Allow changes again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops thaw --reason \"the release is out\"
  lakeops thaw shop/production --reason \"done\"")]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
}

/// Records the thaw.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    record(session, ("thaw", "thawed"), &args.scope, None).await
}
