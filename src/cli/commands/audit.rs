//! `lakeops audit`

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::journal::export::audit_csv;
use crate::journal::query::AUDIT_KINDS;
use crate::journal::retention::held_against;
use crate::journal::store::{EntryFilter, Head, RawEvent};
use crate::journal::{AuditFilter, Journal, audit, verify_against};
use crate::kernel::{Span, Timestamp};
use crate::report::audit::{text, verification};

/// Show who did what, when and why; verify and export the journal
///
/// The journal is a chain: each event carries a hash over the one before it. `verify` names the first
/// event that was changed, dropped or moved. A tail that was cut leaves a sound chain, so keep a head
/// elsewhere (`lakeops audit head > head.json`) and verify against it.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lakeops audit --since 7d --actor ann
  lakeops audit --output csv > audit.csv
  lakeops audit verify
  lakeops audit head > head.json && lakeops audit verify --against head.json
  lakeops audit export > journal.jsonl
  lakeops audit prune --dry-run"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Not before this: an age such as 7d, or a time such as 2026-11-22T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only what this person did
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this run
    #[arg(long)]
    run: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check that every event is as it was written
    Verify {
        /// A head that was kept elsewhere: shows a tail that was cut, too
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Events of sealed runs that were written to a file: are they what the chain holds?
        #[arg(long, value_name = "FILE")]
        archive: Option<PathBuf>,
    },
    Prune(super::prune::Args),
    /// Print the end of the chain, to be kept elsewhere
    Head,
    /// Print every event as it is stored, one JSON object per line
    Export,
}

/// Audits.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let Some(journal) = session.existing_journal()? else {
        return Err(CliError::usage_with(
            format!("there is no journal in {}", session.config.state_dir().display()),
            "`lakeops run WORKFLOW` makes one; `--state DIR` names another place",
        ));
    };
    match args.verb {
        None => rows(session, journal.as_ref(), args).await,
        Some(Verb::Verify { against, archive }) => {
            verify(session, journal.as_ref(), (against, archive)).await
        }
        Some(Verb::Prune(args)) => {
            Box::pin(super::prune::run(session, journal.as_ref(), args)).await
        }
        Some(Verb::Head) => {
            let head = journal.head().await?;
            // Only its JSON form is of use elsewhere.
            let json = serde_json::to_string_pretty(&head).unwrap_or_default();
            session.shell.out.text(&format!("{json}\n"))?;
            Ok(Exit::Done)
        }
        Some(Verb::Export) => export(session, journal.as_ref()).await,
    }
}

async fn rows(session: &Session<'_>, journal: &dyn Journal, args: Args) -> Result<Exit, CliError> {
    let stream = match &args.run {
        Some(prefix) => Some(journal.find_run(prefix).await?.run_id.to_string()),
        None => None,
    };
    let since =
        args.since.as_deref().map(|text| when(text, session.shell.clock.now())).transpose()?;
    let kinds = AUDIT_KINDS.map(str::to_owned).into();
    let entries = journal.entries(EntryFilter { stream, kinds, ..EntryFilter::default() }).await?;
    let filter = AuditFilter { since, actor: args.actor };
    let mut rows = audit(&entries);
    rows.retain(|row| filter.lets_through(row));
    if session.shell.out.format() == Format::Csv {
        session.shell.out.text(&audit_csv(&rows))?;
    } else {
        session.shell.out.data(&rows, |style| text(style, &rows))?;
    }
    Ok(Exit::Done)
}

/// An age, or a time.
pub(super) fn when(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    if let Some(at) = Timestamp::parse(text) {
        return Ok(at);
    }
    let age = Span::parse(text).map_err(|_| {
        CliError::usage_with(
            format!("`{text}` is no time"),
            "write an age such as `7d`, or a time such as `2026-11-22T10:00:00Z`",
        )
    })?;
    let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Ok(Timestamp::from_millis(now.as_millis().saturating_sub(millis)))
}

async fn verify(
    session: &Session<'_>,
    journal: &dyn Journal,
    (against, archive): (Option<PathBuf>, Option<PathBuf>),
) -> Result<Exit, CliError> {
    let mut found = match against {
        None => journal.verify().await?,
        Some(path) => {
            let text = std::fs::read_to_string(session.shell.path(&path))
                .map_err(|error| CliError::unreadable(path.clone(), error))?;
            let head: Head = serde_json::from_str(&text).map_err(|error| {
                let message = format!("{} is no head of a journal: {error}", path.display());
                CliError::usage_with(message, "`lakeops audit head` prints one")
            })?;
            verify_against(journal, &head).await?
        }
    };
    if let (None, Some(path)) = (&found.broken, archive) {
        let file = File::open(session.shell.path(&path))
            .map_err(|error| CliError::unreadable(path.clone(), error))?;
        for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
            let line = line.map_err(|error| CliError::unreadable(path.clone(), error))?;
            let raw: RawEvent = serde_json::from_str(&line).map_err(|error| {
                let message = format!("line {number} of {} is no event: {error}", path.display());
                CliError::usage_with(message, "`lakeops audit prune --archive FILE` writes them")
            })?;
            found.broken = held_against(journal, &raw).await?;
            if found.broken.is_some() {
                break;
            }
        }
    }
    session.shell.out.data(&found, |style| verification(style, &found))?;
    Ok(if found.broken.is_none() { Exit::Done } else { Exit::Failed })
}

async fn export(session: &Session<'_>, journal: &dyn Journal) -> Result<Exit, CliError> {
    let mut after = 0;
    loop {
        let filter = EntryFilter { after, limit: Some(1000), ..EntryFilter::default() };
        let entries = journal.entries(filter).await?;
        let Some(last) = entries.last() else { return Ok(Exit::Done) };
        after = last.position;
        let lines = entries.iter().map(|entry| serde_json::to_string(entry).unwrap_or_default());
        let mut text = lines.collect::<Vec<_>>().join("\n");
        text.push('\n');
        session.shell.out.text(&text)?;
    }
}
