//! `lakeops fork`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::{self, Shows};
use crate::cli::session::Session;
use crate::engine::StartOptions;

/// Run a plan again from one step on, with what came before taken over
///
/// Makes a new run of the same plan. Steps that do not depend on the given one keep the outputs that
/// they had; the step and everything after it run again. The other run, and what it changed, stay as
/// they are. An approval is asked for again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops fork 3f9a --from verify")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
    /// The step to begin at
    #[arg(long, value_name = "STEP")]
    from: String,
    /// Makes forking idempotent: with the same key it is done once
    #[arg(long)]
    key: Option<String>,
    /// Approve as the caller what the policy lets the caller approve; never high risk
    #[arg(long)]
    yes: bool,
}

/// Makes the fork and works on it.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let (plan, _) = session.read_run(&run).await?;
    let engine = session.engine_for(&plan).await?;
    let by = session.principal()?;
    let options = StartOptions { key: args.key, by, yes: args.yes, forked_from: None };
    let fork = engine.fork(&run.run_id, &args.from, options).await?;
    session.shell.out.note(&format!("run {fork}, forked from {} at `{}`", run.run_id, args.from));
    follow::execute_and_print(session, &engine, &fork, Shows::Run).await
}
