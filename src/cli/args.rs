//! What can be typed. The doc comments are the help.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::commands::{
    approvals, approve, ask, audit, bench, cancel, completions, config, demo, doctor, emulator,
    explain, export, fork, freeze, history, init, logs, plan, reject, report, resume, run, runs,
    schedule, schema, serve, settle, show, sop, sql, test, thaw, tools, validate, watch,
};
use super::exit::CODES;
use super::logging::LogFormat;
use super::output::Format;

/// Durable, approvable, auditable operations for PostgreSQL and Databricks Lakebase
///
/// A workflow is a YAML file: it looks at a database, decides by a script, changes what has to be
/// changed, and proves that it helped. lakeops makes a plan of it, carries the plan out step by step,
/// keeps every step in a journal, asks people before anything dangerous, and goes on where it was when
/// the machine went down.
#[derive(Debug, Parser)]
#[command(
    name = "lakeops",
    version,
    after_help = EXAMPLES,
    after_long_help = LONG.as_str(),
    max_term_width = 100,
    propagate_version = false,
    infer_subcommands = false
)]
pub(crate) struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Begin with:
  lakeops demo                     the whole story on a Lakebase of this machine
  lakeops init                     a configuration, a workflow and an SOP to start from
  lakeops doctor                   what is missing, and how to get it";

/// The examples and the exit codes.
static LONG: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{EXAMPLES}\n\n{CODES}"));

/// What holds for every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where the journal, plans and the local PostgreSQL are kept
    #[arg(
        long,
        help = "Where the journal, plans and the local PostgreSQL are kept [env: LAKEOPS_STATE]",
        global = true,
        value_name = "DIR"
    )]
    pub state: Option<PathBuf>,
    /// The configuration file; otherwise .config/lakeops.toml, here or above
    #[arg(
        long,
        help = "The configuration file; otherwise .config/lakeops.toml, here or above [env: LAKEOPS_CONFIG]",
        global = true,
        value_name = "FILE"
    )]
    pub config: Option<PathBuf>,
    /// Which configured server to work on
    #[arg(
        long,
        help = "Which configured server to work on [env: LAKEOPS_CONNECTION]",
        global = true,
        value_name = "NAME"
    )]
    pub connection: Option<String>,
    /// Any PostgreSQL, without configuration
    #[arg(
        long,
        help = "Any PostgreSQL, without configuration [env: LAKEOPS_DATABASE_URL]",
        global = true,
        value_name = "URL",
        conflicts_with = "connection"
    )]
    pub database_url: Option<String>,
    /// Where workflows are
    #[arg(
        long,
        help = "Where workflows are [env: LAKEOPS_WORKFLOWS]",
        global = true,
        value_name = "DIR"
    )]
    pub workflows: Option<PathBuf>,
    /// How data is printed
    #[arg(
        long,
        help = "How data is printed [env: LAKEOPS_OUTPUT] [default: text]",
        global = true,
        value_name = "FORMAT",
        value_enum
    )]
    pub output: Option<Format>,
    /// How logs are written, on stderr
    #[arg(
        long,
        help = "How logs are written, on stderr [env: LAKEOPS_LOG_FORMAT] [default: text]",
        global = true,
        value_name = "FORMAT",
        value_enum
    )]
    pub log_format: Option<LogFormat>,
    /// Say more; -vv and -vvv say even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The verbs, in the order in which a newcomer needs them. What each is for stands at its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Validate(validate::Args),
    Schema(schema::Args),
    Plan(plan::Args),
    Run(run::Args),
    Resume(resume::Args),
    Cancel(cancel::Args),
    Settle(settle::Args),
    Fork(fork::Args),
    Approvals(approvals::Args),
    Approve(approve::Args),
    Reject(reject::Args),
    Runs(runs::Args),
    Show(show::Args),
    Logs(logs::Args),
    Watch(watch::Args),
    Explain(explain::Args),
    Serve(serve::Args),
    Schedule(schedule::Args),
    Audit(audit::Args),
    Report(report::Args),
    History(history::Args),
    Export(export::Args),
    Ask(ask::Args),
    Tools(tools::Args),
    Sql(sql::Args),
    Sop(sop::Args),
    Emulator(emulator::Args),
    Test(test::Args),
    Freeze(freeze::Args),
    Thaw(thaw::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
