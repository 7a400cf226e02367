//! `lakeops bench`

use std::sync::Arc;
use std::time::Duration;

use crate::cli::bench::{BenchReport, Beside, Size, measure};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::history_bench::{HistoryBench, HistoryReport, HistorySize};
use crate::cli::library;
use crate::cli::progress::Bar;
use crate::cli::session::{Session, Shell};
use crate::postgres::{Cluster, ClusterOptions};
use crate::report::Style;
use crate::report::style::length;
use crate::report::table::table;
use crate::workflow::SourceText;

/// Measure how fast the engine is here, beside what the disk can do
///
/// Works on journals of its own in the state directory, and starts a PostgreSQL of its own: starts of the
/// program and the memory that it needs, script steps in a chain, many runs at once, changes on the server,
/// a large fan-out, runs that are gone on with, large and many workflows, a large journal. What is possible
/// at most is measured in the same minute: synced writes of the disk, synced commits of the journal, commits
/// of the server. A size of 0 leaves a figure out.
///
/// Other programs at work on the machine make synced writes seem many times slower than they are. Measure
/// alone, or with real-time priority.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops bench
  chrt -f 10 lakeops bench
  lakeops bench --steps 200 --runs 20 --changes 0 --events 0 --output json
  lakeops bench history
  lakeops bench branch --megabytes 1000")]
pub(crate) struct Args {
    /// Starts of the program
    #[arg(long, default_value_t = Size::default().starts)]
    starts: u32,
    /// Steps of the chain
    #[arg(long, default_value_t = Size::default().chain)]
    steps: u32,
    /// Runs at once
    #[arg(long, default_value_t = Size::default().runs)]
    runs: u32,
    /// Changes on a server, one after the other
    #[arg(long, default_value_t = Size::default().changes)]
    changes: u32,
    /// Items of the fan-out
    #[arg(long, default_value_t = Size::default().items)]
    items: u32,
    /// Settled steps of the run that is gone on with
    #[arg(long, default_value_t = Size::default().settled)]
    settled: u32,
    /// Steps of the workflow that is planned
    #[arg(long, default_value_t = Size::default().dag)]
    dag: u32,
    /// Workflows that are read and checked together
    #[arg(long, default_value_t = Size::default().files)]
    files: u32,
    /// Events of the large journal
    #[arg(long, default_value_t = Size::default().events)]
    events: u32,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Measure the history: a collection, a day of ticks, a question about 90 days
    ///
    /// Starts a PostgreSQL of its own with as many statements, collects them into Delta tables of its own,
    /// then makes up a day and many days of rows. It takes minutes and a gigabyte of disk for the defaults.
    History(HistoryArgs),
    Branch(super::bench_branch::Args),
}

#[derive(Debug, clap::Args)]
struct HistoryArgs {
    /// Statements that are collected
    #[arg(long, default_value_t = HistorySize::default().statements)]
    statements: u32,
    /// Ticks of the day, five minutes apart
    #[arg(long, default_value_t = HistorySize::default().ticks)]
    ticks: u32,
    /// Branches in each tick
    #[arg(long, default_value_t = HistorySize::default().branches)]
    branches: u32,
    /// Days that the question is about
    #[arg(long, default_value_t = HistorySize::default().days)]
    days: u32,
}

/// Measures and prints.
pub(crate) async fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    match &args.what {
        Some(What::History(args)) => Box::pin(history(shell, args)).await,
        Some(What::Branch(args)) => Box::pin(super::bench_branch::run(shell, args)).await,
        None => engine(shell, args).await,
    }
}

/// A directory for what is made meanwhile.
fn folder(session: &Session<'_>) -> Result<tempfile::TempDir, CliError> {
    let state = session.config.state_dir();
    let failed = |error| CliError::unwritable(state.clone(), error);
    std::fs::create_dir_all(&state).map_err(failed)?;
    tempfile::Builder::new().prefix("bench-").tempdir_in(&state).map_err(failed)
}

/// A PostgreSQL of the benchmark's own.
async fn server(session: &Session<'_>, options: &ClusterOptions) -> Result<Cluster, CliError> {
    let server = session.local_postgres();
    let bar = Bar::new(&session.shell.out);
    let installation = server.ensure(&bar).await?;
    let cluster = server.start_guarded(&installation, options, &bar).await?;
    bar.finish();
    Ok(cluster)
}

const COLLECT: &str = "version: 1
name: bench
description: Collect the statements of the benchmark's server.
steps:
  - id: collect
    tool: persist_pg_stat_statements
";

async fn history(shell: &Shell, args: &HistoryArgs) -> Result<Exit, CliError> {
    let session = Session::open(shell)?;
    let text = SourceText::new("bench.yaml".to_owned(), COLLECT.to_owned());
    let plan = library::plan_text(&session, text, &library::Wanted::default())?;
    let folder = folder(&session)?;
    let options = ClusterOptions::new("bench", folder.path())
        .throwaway()
        .with_setting("pg_stat_statements.max", "50000");
    let cluster = server(&session, &options).await?;
    let HistoryArgs { statements, ticks, branches, days } = *args;
    let bench = HistoryBench {
        dir: folder.path(),
        clock: Arc::clone(&shell.clock),
        ids: Arc::clone(&shell.ids),
        size: HistorySize { statements, ticks, branches, days },
    };
    let tell = |what: &str| shell.out.note(what);
    let report = Box::pin(bench.measure(cluster.endpoint(), &plan, &tell)).await;
    cluster.stop().await?;
    let report = report?;
    shell.out.data(&report, |style| history_text(style, &report))?;
    Ok(Exit::Done)
}

fn history_text(style: Style, report: &HistoryReport) -> String {
    let HistoryReport { collection, day, query, .. } = report;
    let row = |what: String, took: u64, more: String| {
        vec![what, length(Duration::from_millis(took)), more]
    };
    let size = |bytes: u64| bytesize::ByteSize(bytes).to_string();
    let rows = vec![
        row(
            format!("{} statements into Delta, warm", collection.rows),
            collection.warm_ms,
            format!(
                "{} commit each; the first took {} ms; the journal has {} after four",
                collection.commits,
                collection.cold_ms,
                size(collection.journal_bytes)
            ),
        ),
        row(
            format!("an append, the first of {} ticks", day.ticks),
            day.first_append_ms,
            format!("{} rows in all; the journal has {}", day.rows, size(day.journal_bytes)),
        ),
        row(
            "an append, the last".to_owned(),
            day.last_append_ms,
            format!("{} live files, {}; {} on disk", day.files, size(day.bytes), day.on_disk),
        ),
        row(
            "the upkeep of that day".to_owned(),
            day.upkeep_ms,
            format!(
                "{} live files, {}; {} on disk a week later",
                day.files_after,
                size(day.bytes_after),
                day.on_disk_after
            ),
        ),
        row(
            format!("a question about {} days", query.days),
            query.median_ms,
            format!("{} rows in {} files; first {} ms", query.rows, query.files, query.first_ms),
        ),
    ];
    let mut text = table(style, &["what", "took", ""], rows, "nothing was measured");
    if let Some(peak) = report.peak_memory_bytes {
        text.push_str("peak memory with the upkeep of the day: ");
        text.push_str(&size(peak));
        text.push('\n');
    }
    if report.debug_build {
        text.push_str(DEBUG);
    }
    text
}

const DEBUG: &str = "this is a build without optimisation: measure a release build\n";

async fn engine(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(shell)?;
    let folder = folder(&session)?;
    let size = Size {
        starts: args.starts,
        chain: args.steps,
        runs: args.runs,
        changes: args.changes,
        items: args.items,
        settled: args.settled,
        dag: args.dag,
        files: args.files,
        events: args.events,
        ..Size::default()
    };
    let cluster = if args.changes > 0 {
        // A server as it is by default: its commits are durable.
        Some(server(&session, &ClusterOptions::new("bench", folder.path())).await?)
    } else {
        None
    };
    let tools = (Arc::clone(&shell.clock), Arc::clone(&shell.ids));
    let program =
        std::env::current_exe().map_err(|error| CliError::unreadable("lakeops", error))?;
    let beside = Beside { server: cluster.as_ref().map(Cluster::endpoint), program: Some(program) };
    let tell = |what: &str| shell.out.note(what);
    let report = Box::pin(measure(folder.path(), size, tools, beside, &tell)).await;
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    let report = report?;
    shell.out.data(&report, |style| text(style, &report))?;
    Ok(Exit::Done)
}

fn text(style: Style, report: &BenchReport) -> String {
    let number = |number: f64| format!("{number:.0}");
    let plain = |what: &str, rate: f64| {
        vec![what.to_owned(), number(rate), String::new(), String::new(), String::new()]
    };
    let mut rows = vec![
        plain("the disk's synced 4 KiB writes", report.disk_synced_writes_per_second),
        plain("the journal's synced commits", report.journal_synced_commits_per_second),
    ];
    rows.extend(report.figures.iter().map(|figure| {
        let took = if figure.elapsed_ms < 100.0 {
            format!("{:.1}ms", figure.elapsed_ms)
        } else {
            length(Duration::from_secs_f64(figure.elapsed_ms / 1_000.0))
        };
        let share = figure.limit_per_second.map(|limit| {
            format!("{:.0} % of at most {limit:.0}", figure.per_second / limit * 100.0)
        });
        let memory = figure
            .peak_memory_bytes
            .map(|bytes| format!("peak memory {}", bytesize::ByteSize(bytes)));
        let commits = figure.commits.map(|commits| format!("{commits} commits"));
        let note = (!figure.note.is_empty()).then(|| figure.note.clone());
        let notes: Vec<String> = [commits, memory, note].into_iter().flatten().collect();
        vec![
            figure.what.clone(),
            number(figure.per_second),
            took,
            share.unwrap_or_default(),
            notes.join("; "),
        ]
    }));
    let header = ["what", "per second", "took", "limit", ""];
    let mut text = table(style, &header, rows, "nothing was measured");
    if report.debug_build {
        text.push_str(DEBUG);
    }
    text
}
