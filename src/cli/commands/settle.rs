//! `lakeops settle`

use clap::ValueEnum;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::event::{DoubtVerdict, Outcome};

/// Say what became of a change in doubt, or that a stuck run was taken care of
///
/// A change is in doubt when the process died while it was at work and nothing on the target can tell
/// whether it happened. It is never repeated blindly: somebody looks, and says so here. A run is stuck
/// when an undoing failed, or when ten resumes in a row got nowhere.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops show 3f9a                                              what is in doubt, and why
  lakeops settle 3f9a notify 0 --as applied --reason \"the ticket is there\"
  lakeops settle 3f9a --as not-applied --reason \"no such index\"   when only one is in doubt
  lakeops settle 3f9a --reason \"dropped the index by hand\"        a stuck run goes on")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
    /// The step; not needed when only one change is in doubt
    step: Option<String>,
    /// The change's place in its set
    index: Option<u32>,
    /// What became of it
    #[arg(long = "as", value_enum)]
    verdict: Option<Verdict>,
    /// How you know, or what you did; kept in the audit
    #[arg(long)]
    reason: String,
    /// Only record it
    #[arg(long)]
    no_resume: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    /// It happened
    Applied,
    /// It did not happen: do it
    NotApplied,
    /// It did not happen, and is not to be done
    Abandon,
}

/// Records the verdict and goes on.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let by = session.principal()?;
    let clerk = session.clerk().await?;
    let note = match args.verdict {
        Some(verdict) => {
            let verdict = match verdict {
                Verdict::Applied => DoubtVerdict::Applied,
                Verdict::NotApplied => DoubtVerdict::NotApplied,
                Verdict::Abandon => DoubtVerdict::Abandon,
            };
            let change = (&run.run_id, args.step.as_deref(), args.index);
            let (step, index) = clerk.settle(change, verdict, (&by, &args.reason)).await?;
            format!("change {index} of `{step}` is settled")
        }
        None if run.outcome == Outcome::InDoubt => {
            return Err(CliError::usage_with(
                format!("run {} is in doubt about a change", run.run_id),
                "say what became of it: `--as applied`, `--as not-applied` or `--as abandon`",
            ));
        }
        None => {
            clerk.unstick(&run.run_id, (&by, &args.reason)).await?;
            format!("run {} goes on", run.run_id)
        }
    };
    super::approve::go_on(session, &run, args.no_resume, &note).await
}
