//! `lakeops report`

use super::audit::when;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::store::EntryFilter;
use crate::kernel::{Span, Timestamp};
use crate::report::operations::{BEFORE, Fold, KINDS, text, wants_rows};

/// How many entries are in memory at a time.
const PAGE: u32 = 2_000;

/// Show figures about operations, from the journal alone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Runs, incidents, approvals, toil, and what we cost, beside the targets
    ///
    /// Time to detect runs from the last look that found a number in order to the one that told people: an
    /// incident began between the two, so it is the most that detecting took. Time to resolve runs from there
    /// to the look that found the number back. Healed without a person means: an event or a schedule began
    /// the run, nobody decided anything in it, and the number itself proved it. What no event says is not
    /// measured, and said so.
    #[command(after_help = "\
Examples:
  lakeops report operations
  lakeops report operations --since 30d --by-hand 15m
  lakeops report operations --since 2026-11-22T10:00:00Z --output json")]
    Operations(Operations),
}

#[derive(Debug, clap::Args)]
struct Operations {
    /// Not before this: an age such as 7d, a time such as 2026-11-22T10:00:00Z, or `all`
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: String,
    /// How long a person takes for what one such run does: gives the hours that were saved
    #[arg(long, value_name = "TIME", value_parser = Span::parse)]
    by_hand: Option<Span>,
}

/// Reads and prints.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let Verb::Operations(args) = args.verb;
    let now = session.shell.clock.now();
    let since = match args.since.as_str() {
        "all" => None,
        text => Some(when(text, now)?),
    };
    let Some(journal) = session.existing_journal()? else {
        return Err(CliError::usage_with(
            format!("there is no journal in {}", session.config.state_dir().display()),
            "`lakeops serve` and `lakeops run WORKFLOW` make one; `--state DIR` names another place",
        ));
    };
    let mut fold = Fold::new(since);
    let before = |since: Timestamp| {
        Timestamp::from_millis(since.as_millis().saturating_sub_unsigned(BEFORE.as_millis()))
    };
    let mut after = 0;
    loop {
        let page = EntryFilter {
            kinds: KINDS.map(str::to_owned).into(),
            since: since.map(before),
            after,
            limit: Some(PAGE),
            ..EntryFilter::default()
        };
        let entries = journal.entries(page).await?;
        let Some(last) = entries.last() else { break };
        after = last.position;
        for entry in entries {
            if wants_rows(&entry) {
                journal.with_rows(vec![entry]).await?.into_iter().for_each(|entry| fold.add(entry));
            } else {
                fold.add(entry);
            }
        }
    }
    let figures = fold.finish(now, args.by_hand);
    session.shell.out.data(&figures, |style| text(style, &figures))?;
    Ok(Exit::Done)
}
