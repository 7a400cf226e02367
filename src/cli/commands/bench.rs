//! `lakeops bench`

use std::time::Duration;

use crate::cli::bench::{BenchReport, Size, measure};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Shell;
use crate::report::Style;
use crate::report::style::length;
use crate::report::table::table;

/// Measure how fast the engine is here, beside what the disk can do
///
/// Runs a chain of script steps, and many runs at once, on a journal of its own in the state
/// directory; prints steps per second beside the synced writes per second of that disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops bench
  lakeops bench --steps 200 --runs 20 --output json")]
pub(crate) struct Args {
    /// Steps of the chain
    #[arg(long, default_value_t = Size::default().chain)]
    steps: u32,
    /// Runs at once
    #[arg(long, default_value_t = Size::default().runs)]
    runs: u32,
}

/// Measures and prints.
pub(crate) async fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let state = shell.config()?.state_dir();
    let failed = |error| CliError::unwritable(state.clone(), error);
    std::fs::create_dir_all(&state).map_err(failed)?;
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&state).map_err(failed)?;
    let size = Size { chain: args.steps, runs: args.runs, ..Size::default() };
    let tools = (std::sync::Arc::clone(&shell.clock), std::sync::Arc::clone(&shell.ids));
    let report = Box::pin(measure(folder.path(), size, tools)).await?;
    shell.out.data(&report, |style| text(style, &report))?;
    Ok(Exit::Done)
}

fn text(style: Style, report: &BenchReport) -> String {
    let rate = |number: f64| format!("{number:.0}");
    let mut rows = vec![
        vec![
            "the disk's synced 4 KiB writes".to_owned(),
            rate(report.disk_synced_writes_per_second),
            String::new(),
        ],
        vec![
            "the journal's synced commits".to_owned(),
            rate(report.journal_synced_commits_per_second),
            String::new(),
        ],
    ];
    rows.extend(report.figures.iter().map(|figure| {
        vec![
            figure.what.clone(),
            rate(figure.steps_per_second),
            format!(
                "{} steps, {} commits, {}",
                figure.steps,
                figure.commits,
                length(Duration::from_millis(figure.elapsed_ms))
            ),
        ]
    }));
    let mut text = table(style, &["what", "per second", ""], rows, "nothing was measured");
    if report.debug_build {
        text.push_str("this is a build without optimisation: measure a release build\n");
    }
    text
}
