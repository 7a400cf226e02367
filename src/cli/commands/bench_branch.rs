//! `lakeops bench branch`

use std::sync::Arc;
use std::time::Duration;

use crate::cli::bench_branch::{self, BranchReport, BranchSize, Ground};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::{Session, Shell};
use crate::kernel::Span;
use crate::report::Style;
use crate::report::table::table;

/// Measure how long a branch of a busy database takes, and what its parent notices
///
/// Fills a PostgreSQL of its own in the state directory, has clients write to it, and makes branches
/// meanwhile: the time until each answers, the parent's 99th percentile before and during, whether
/// each is consistent, and whether a branch of the past shows a table that was dropped later.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How much the parent holds
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    megabytes: u64,
    /// How many branches are made
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    trials: u32,
    /// How long the clients are watched before the first
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = Span::parse)]
    warm_up: Span,
}

/// Measures and prints.
pub(crate) async fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(shell)?;
    let state = session.config.state_dir();
    let failed = |error| CliError::unwritable(state.clone(), error);
    std::fs::create_dir_all(&state).map_err(failed)?;
    let folder = bench_branch::folder(&state).map_err(failed)?;
    let ground = Ground {
        folder: folder.path().to_owned(),
        clock: Arc::clone(&shell.clock),
        ids: Arc::clone(&shell.ids),
        local_postgres: session.local_postgres(),
    };
    let size = BranchSize {
        megabytes: args.megabytes,
        trials: args.trials,
        warm_up: Duration::from_millis(args.warm_up.as_millis()),
    };
    let measured = Box::pin(bench_branch::measure(ground, size, |step| shell.out.note(step))).await;
    let report = measured.map_err(|error| CliError::EmulatorFailed {
        message: format!("nothing could be measured: {error}"),
        help: "`lakeops doctor` says what the local PostgreSQL lacks".to_owned(),
    })?;
    shell.out.data(&report, |style| text(style, &report))?;
    let sound = report.consistent && report.past_shows_dropped_table;
    Ok(if sound { Exit::Done } else { Exit::Failed })
}

fn text(style: Style, report: &BranchReport) -> String {
    let time = |ms: f64| format!("{ms:.1} ms");
    let word = |is: bool| if is { "yes" } else { "NO" }.to_owned();
    let all: Vec<_> = report.ready_ms.iter().map(|ms| format!("{ms:.0}")).collect();
    let (before, during) = report.transactions;
    let row = |what: &str, value: String, note: String| vec![what.to_owned(), value, note];
    let rows = vec![
        row("the parent holds", format!("{} MB", report.parent_bytes >> 20), String::new()),
        row(
            "a branch answers after",
            time(report.ready_median_ms),
            format!("of {}", all.join(", ")),
        ),
        row(
            "the parent's p99 before",
            time(report.parent_p99_before_ms),
            format!("of {before} transactions"),
        ),
        row(
            "the parent's p99 meanwhile",
            time(report.parent_p99_during_ms),
            format!("of {during} transactions, {:.1} times", report.parent_p99_ratio),
        ),
        row("every branch is consistent", word(report.consistent), String::new()),
        row("a branch of the past answers after", time(report.past_ready_ms), String::new()),
        row("it shows a table dropped later", word(report.past_shows_dropped_table), String::new()),
    ];
    let mut text = table(style, &["what", "measured", ""], rows, "nothing was measured");
    if report.debug_build {
        text.push_str("this is a build without optimisation: measure a release build\n");
    }
    text
}
