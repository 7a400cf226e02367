//! `lakeops cancel`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;

/// End a run: nothing new starts, what has begun is settled
///
/// The process that works on the run sees it within seconds; when none does, this command ends the
/// run itself. The steps of `always` still run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops cancel 3f9a --reason \"the wrong database\"
  lakeops cancel 3f9a --reason \"it made things worse\" --compensate")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
    /// Why; kept in the audit
    #[arg(long)]
    reason: String,
    /// Undo what the run has changed, newest first
    #[arg(long)]
    compensate: bool,
    /// Only record it; whoever works on the run ends it
    #[arg(long)]
    no_resume: bool,
}

/// Records the wish, and ends the run when nobody else does.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let by = session.principal()?;
    let clerk = session.clerk().await?;
    clerk.cancel(&run.run_id, args.compensate, (&by, &args.reason)).await?;
    let note = format!("run {} is asked to end", run.run_id);
    super::approve::go_on(session, &run, args.no_resume, &note).await
}
