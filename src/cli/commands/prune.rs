//! `lakeops audit prune`

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use super::serve::server_of;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::journal::store::{Retention, SEALED_AFTER, Sealing, Space};
use crate::journal::{Journal, retention};
use crate::kernel::{RunId, Span};
use crate::report::audit::{Pruning, pruned};

/// Seal runs that were over long ago: their events go, the chain stays whole
///
/// Of a sealed run stay: how it began and ended, every decision with the digest that it was about, its key,
/// published events, evidence of rehearsals, and the link of each event that goes, so that `audit verify` still
/// works out every hash, and an event of the chain says what was sealed, when and by whom. By itself this
/// happens to runs that were over for as long as `[history] keep_runs` says, once the history has them. A run
/// whose output a tool still goes on from stays. Plans that only sealed runs were made from go a day later.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops audit prune --dry-run
  lakeops audit prune --older-than 90d --archive old-runs.jsonl
  lakeops audit verify --archive old-runs.jsonl
  lakeops audit prune --compact              gives the space back to the file system")]
pub(crate) struct Args {
    /// How long a run must have been over, a day at least; not given: `[history] keep_runs`
    #[arg(long, value_name = "TIME", value_parser = Span::parse)]
    older_than: Option<Span>,
    /// Show which runs it would be
    #[arg(long)]
    dry_run: bool,
    /// Append the events of these runs to a file first, one JSON object per line
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Also runs that are not in the history
    #[arg(long)]
    without_history: bool,
    /// Rewrite the journal's file without its free space; nobody may serve meanwhile
    #[arg(long)]
    compact: bool,
}

/// Seals.
pub(super) async fn run(
    session: &Session<'_>,
    journal: &dyn Journal,
    args: Args,
) -> Result<Exit, CliError> {
    if let Some(age) = args.older_than
        && age.as_millis() < SEALED_AFTER
    {
        return Err(CliError::usage_with(
            format!("{age} is less than a day"),
            "what runs cost in the last day counts for `[settings.caps]`: write `1d` or more",
        ));
    }
    let state = session.config.state_dir();
    if args.compact
        && let Some(holder) = server_of(&state)
    {
        return Err(CliError::Served { holder });
    }
    let age = args.older_than.unwrap_or(session.config.history().keep_runs);
    let through = if args.without_history {
        u64::MAX
    } else if args.dry_run {
        session.history()?.taken().await?
    } else {
        session.history()?.append_owed().await?.through
    };
    let retention = Retention::of(age, session.shell.clock.now(), through);
    let archive = args.archive.as_ref().map(|file| session.shell.path(file));
    let mut report = Pruning {
        dry_run: args.dry_run,
        runs: Vec::new(),
        archive: archive.as_ref().map(|file| file.display().to_string()),
        space: Space::default(),
    };
    if args.dry_run {
        report.runs = journal.sealable(retention, u32::MAX).await?;
    } else {
        let mut sealing = Sealing {
            runs: Vec::new(),
            retention,
            by: session.principal()?,
            in_history: !args.without_history,
            archive: report.archive.clone(),
        };
        loop {
            let next = retention::next(journal, retention).await?;
            if next.is_empty() {
                // Removes the files that the last sealing left.
                journal.seal(sealing).await?;
                break;
            }
            sealing.runs = next.iter().map(|one| one.run.clone()).collect();
            if let Some(file) = &archive {
                write_down(journal, &sealing.runs, file).await?;
            }
            if journal.seal(sealing.clone()).await?.runs == 0 {
                break;
            }
            report.runs.extend(next);
        }
        if args.compact {
            journal.compact().await?;
        }
    }
    report.space = journal.space().await?;
    session.shell.out.data(&report, |style| pruned(style, &report))?;
    Ok(Exit::Done)
}

/// Appends the events of runs to a file; they are on disk when this returns.
async fn write_down(
    journal: &dyn Journal,
    runs: &[RunId],
    path: &std::path::Path,
) -> Result<(), CliError> {
    let failed = |source| CliError::unwritable(path.to_owned(), source);
    let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
    for run in runs {
        let mut text = String::new();
        for event in journal.raw(run).await? {
            // Texts and numbers: that cannot fail.
            text.push_str(&serde_json::to_string(&event).unwrap_or_default());
            text.push('\n');
        }
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}
