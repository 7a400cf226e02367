//! `lakeops resume`

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::{self, Shows};
use crate::cli::session::Session;
use crate::engine::EngineError;
use crate::journal::store::{RunFilter, RunSummary};
use crate::report::style::of_state;

/// Go on with a run that waits or was interrupted
///
/// What is done is not done again. A change that had begun when the process died is looked at first: its
/// key on the target, or the target itself, says whether it happened.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops resume 3f9a
  lakeops resume --all             every run that is not over, one after the other")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    #[arg(required_unless_present = "all")]
    run: Option<String>,
    /// Every run that is not over
    #[arg(long, conflicts_with = "run")]
    all: bool,
}

/// Goes on.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.run {
        Some(prefix) => {
            let run = session.find_run(&prefix).await?;
            one(session, &run).await
        }
        None => all(session).await,
    }
}

/// Goes on with one run and prints it.
pub(crate) async fn one(session: &Session<'_>, run: &RunSummary) -> Result<Exit, CliError> {
    let (plan, _) = session.read_run(run).await?;
    let engine = session.engine_for(&plan).await?;
    follow::execute_and_print(session, &engine, &run.run_id, Shows::Run).await
}

async fn all(session: &Session<'_>) -> Result<Exit, CliError> {
    let mut results = Vec::new();
    let mut worst = Exit::Done;
    let Some(journal) = session.existing_journal()? else {
        session.shell.out.data(&results, |_| "no runs yet\n".to_owned())?;
        return Ok(Exit::Done);
    };
    let mut open = journal.runs(RunFilter { unfinished: true, ..RunFilter::default() }).await?;
    open.reverse();
    let mut text = String::new();
    for run in open {
        let (plan, _) = session.read_run(&run).await?;
        let engine = session.engine_for(&plan).await?;
        let ended = follow::execute(session, &engine, &run.run_id).await;
        let (state, exit) = match ended {
            Ok((_, true)) => return Ok(Exit::Interrupted),
            Ok((outcome, false)) => (outcome.as_str().to_owned(), Exit::of_outcome(outcome)),
            // Somebody else works on it: that is as good as resuming it.
            Err(CliError::Engine(EngineError::Owned { source, .. })) => {
                (source.to_string(), Exit::Done)
            }
            Err(error) => return Err(error),
        };
        if exit.code() > worst.code() {
            worst = exit;
        }
        let (_, mark) = of_state(&state);
        text.push_str(
            &format_args!("{mark} {}  {}  {state}\n", run.run_id, run.workflow).to_string(),
        );
        results.push(json!({ "run_id": run.run_id, "workflow": run.workflow, "outcome": state }));
    }
    if text.is_empty() {
        text.push_str("every run is over\n");
    }
    session.shell.out.data(&results, |_| text)?;
    Ok(worst)
}
