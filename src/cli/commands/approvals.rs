//! `lakeops approvals`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::store::RunFilter;
use crate::report::approvals::{list, one, to_json};

/// List what waits for a decision, or show one with every statement
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops approvals
  lakeops approvals 3f9a           with every statement, its guard and how it is undone
  lakeops approvals --output json")]
pub(crate) struct Args {
    /// Only those of this run, in full
    run: Option<String>,
}

/// Prints them.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let in_full = args.run.is_some();
    let runs = match (args.run, session.existing_journal()?) {
        (Some(prefix), _) => vec![session.find_run(&prefix).await?],
        (None, Some(journal)) => {
            journal.runs(RunFilter { unfinished: true, ..RunFilter::default() }).await?
        }
        (None, None) => Vec::new(),
    };
    let mut views = Vec::with_capacity(runs.len());
    for run in &runs {
        views.push(session.view(run).await?);
    }
    let waiting: Vec<_> =
        views.iter().flat_map(|view| view.open_approvals().map(move |one| (view, one))).collect();
    let json: Vec<_> = waiting.iter().map(|(view, approval)| to_json(view, approval)).collect();
    session.shell.out.data(&json, |style| {
        if in_full && !waiting.is_empty() {
            let texts = waiting.iter().map(|(view, approval)| one(style, view, approval));
            texts.collect::<Vec<_>>().join("\n")
        } else {
            list(style, &waiting)
        }
    })?;
    Ok(Exit::Done)
}
