//! `lakeops explain`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::report::RunView;
use crate::report::explain::{planned, text, to_json};

/// Explain why a step ran, or did not: each rule with the values it saw
///
/// Shows what the step waited for, its condition with the values it saw, what it was given, what it
/// proposed and why, what the change policy said, who decided, and what came out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops explain 3f9a heal
  lakeops explain 3f9a 'heal[public.orders]'
  lakeops explain 3f9a check/measure --output json")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
    /// The step's key, as `lakeops show` prints it
    step: String,
}

/// Prints it.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let (plan, entries) = session.read_run(&run).await?;
    let view = RunView::from_entries(&plan, &entries);
    let step = view.step(&args.step).ok_or_else(|| {
        let keys: Vec<&str> = view.steps.iter().map(|step| step.key.as_str()).take(30).collect();
        let message = format!("run {} has no step `{}`", run.run_id, args.step);
        CliError::usage_with(message, format!("it has: {}", keys.join(", ")))
    })?;
    let body = &plan.body;
    let lists = [&body.steps, &body.on_failure, &body.always];
    let written = lists.into_iter().find_map(|steps| planned(steps, &args.step));
    let json = to_json(&view, step, written);
    session.shell.out.data(&json, |style| text(style, &view, step, written))?;
    Ok(Exit::Done)
}
