//! `lakeops watch`

use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::store::Stream;
use crate::journal::{Outcome, RunLock};
use crate::report::timeline;

/// Look on while a run works
///
/// Prints events as they come, until the run is over or waits and nobody works on it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops watch 3f9a")]
pub(crate) struct Args {
    /// The run; the beginning of its id is enough
    run: String,
}

/// How often the journal is looked at.
const EVERY: Duration = Duration::from_millis(300);

/// Prints events as they come.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let journal = session.journal()?;
    let stream = Stream::Run(run.run_id.clone());
    let mut after = 0;
    loop {
        // Who holds the run is asked before the journal is read: what they wrote last is then read too.
        let holder = RunLock::holder(&session.config.state_dir(), &run.run_id)
            .map_err(|error| CliError::unreadable(session.config.state_dir(), error))?;
        let fresh = journal.read(&stream, after).await?;
        for entry in &fresh {
            after = entry.seq;
            let json = || serde_json::to_string(entry).unwrap_or_default();
            let style = session.shell.out.message_style();
            let line =
                if session.shell.prints_json() { json() } else { timeline::line(style, entry) };
            session.shell.out.text(&format!("{line}\n"))?;
        }
        let outcome = journal.find_run(run.run_id.as_str()).await?.outcome;
        if outcome.is_final() || (holder.is_none() && outcome != Outcome::Running) {
            return Ok(Exit::of_outcome(outcome));
        }
        if holder.is_none() && fresh.is_empty() {
            session.shell.out.note("nobody works on it; `lakeops resume` goes on");
            return Ok(Exit::Done);
        }
        let next = session.shell.clock.now().plus(EVERY);
        tokio::select! {
            () = session.shell.clock.sleep_until(next) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        }
    }
}
