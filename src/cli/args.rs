//! What can be typed. The doc comments are the help.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::commands::{
    approvals, approve, audit, bench, cancel, completions, config, demo, doctor, explain, freeze,
    init, logs, plan, reject, resume, run, runs, schema, settle, show, sop, sql, thaw, tools,
    validate, watch,
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
  lakeops demo                     the whole story on a local PostgreSQL, in a minute
  lakeops init                     a configuration, a workflow and an SOP to start from
  lakeops doctor                   what is missing, and how to get it";

/// The examples and the exit codes.
static LONG: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{EXAMPLES}\n\n{CODES}"));

/// What holds for every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where the journal, plans and the local PostgreSQL are kept [env: `LAKEOPS_STATE`]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The configuration file; otherwise .config/lakeops.toml, here or above [env: `LAKEOPS_CONFIG`]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which configured server to work on [env: `LAKEOPS_CONNECTION`]
    #[arg(long, global = true, value_name = "NAME")]
    pub connection: Option<String>,
    /// Any PostgreSQL, without configuration [env: `LAKEOPS_DATABASE_URL`]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "connection")]
    pub database_url: Option<String>,
    /// Where workflows are [env: `LAKEOPS_WORKFLOWS`]
    #[arg(long, global = true, value_name = "DIR")]
    pub workflows: Option<PathBuf>,
    /// How data is printed [env: `LAKEOPS_OUTPUT`] [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,
    /// How logs are written, on stderr [env: `LAKEOPS_LOG_FORMAT`] [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Say more; -vv and -vvv say even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The verbs, in the order in which a newcomer needs them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See the whole story on a local PostgreSQL, in a minute
    Demo(demo::Args),
    /// Write a configuration, a workflow and an SOP to start from
    Init(init::Args),
    /// Find out what is missing, and how to get it
    Doctor(doctor::Args),
    /// Show the configuration, and where each value comes from
    Config(config::Args),
    /// Check workflow files: all mistakes of all files at once
    Validate(validate::Args),
    /// Write the JSON Schema of workflow files, for editors
    Schema(schema::Args),
    /// Make a plan: what would run, in which order, with which texts
    Plan(plan::Args),
    /// Run a workflow or a plan
    Run(run::Args),
    /// Go on with a run that waits or was interrupted
    Resume(resume::Args),
    /// End a run: nothing new starts, what has begun is settled
    Cancel(cancel::Args),
    /// Say what became of a change in doubt, or that a stuck run was taken care of
    Settle(settle::Args),
    /// List what waits for a decision, or show one with every statement
    Approvals(approvals::Args),
    /// Approve exactly the changes that were shown
    Approve(approve::Args),
    /// Reject the changes that were shown
    Reject(reject::Args),
    /// List runs, the newest first
    Runs(runs::Args),
    /// Show a run: its steps, changes and outputs
    Show(show::Args),
    /// Print what happened in a run, line by line
    Logs(logs::Args),
    /// Look on while a run works
    Watch(watch::Args),
    /// Explain why a step ran, or did not: each rule with the values it saw
    Explain(explain::Args),
    /// Show who did what, when and why; verify and export the journal
    Audit(audit::Args),
    /// List, show and run tools
    Tools(tools::Args),
    /// List, show and run reviewed SQL files
    Sql(sql::Args),
    /// Check, test, evaluate and explain SOPs
    Sop(sop::Args),
    /// Stop all changes, everywhere or on one target
    Freeze(freeze::Args),
    /// Allow changes again
    Thaw(thaw::Args),
    /// Measure how fast the engine is here, beside what the disk can do
    Bench(bench::Args),
    /// Write completions for a shell
    Completions(completions::Args),
}
