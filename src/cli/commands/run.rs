//! `lakeops run`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::{self, Shows};
use crate::cli::library::{self, Wanted};
use crate::cli::session::Session;
use crate::engine::StartOptions;
use crate::plan::{Plan, file};

/// Run a workflow or a plan
///
/// `lakeops run WORKFLOW` makes a plan and runs it; `lakeops run PLANFILE` runs exactly that plan, and
/// refuses it when it was changed or when what it relies on has moved. Every step is kept in the journal:
/// whatever happens to this process, `lakeops resume` goes on where it was. When a person has to
/// approve something, the process ends with exit code 3 and holds nothing; `lakeops approve` goes on.
/// Ctrl-C settles what has begun and parks the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops run health_check
  lakeops run heal_bloat -p project=shop -p branch=production
  lakeops run heal.json
  lakeops run heal_bloat --rehearse                      on a branch, with timings, locks and schema diff
  lakeops run health_check --key hourly-2026-11-22T10    starting twice runs once
  lakeops run health_check --database-url postgres://me@db/app --output json")]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub(crate) struct Args {
    /// The workflow (its name or its file), or a plan's file
    what: String,
    /// A parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Where it works: project/branch or project/branch/database; `-` leaves a part out
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Let every step start a compute that is suspended
    #[arg(long)]
    wake: bool,
    /// Makes starting idempotent: with the same key the run is started once
    #[arg(long)]
    key: Option<String>,
    /// Approve as the caller what the policy lets the caller approve; never high risk
    #[arg(long)]
    yes: bool,
    /// Try the changes on a throw-away branch: nothing touches the target, and what it showed is kept for
    /// approvals
    #[arg(long, conflicts_with_all = ["key", "yes", "no_wait"])]
    rehearse: bool,
    /// Only record the run; `lakeops resume` works on it
    #[arg(long)]
    no_wait: bool,
}

/// Starts a run and works on it.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let plan = plan(session, &args)?;
    if args.rehearse {
        let engine = session.engine(&[&plan.body.connection]).await?;
        return follow::rehearse_and_print(session, &engine, &plan).await;
    }
    let shows = Shows::Run;
    let (yes, waits) = (args.yes, !args.no_wait);
    start(session, &plan, Start { key: args.key, yes, waits, connects: true, shows }).await
}

/// How a run begins.
pub(crate) struct Start {
    pub(crate) key: Option<String>,
    pub(crate) yes: bool,
    pub(crate) waits: bool,
    /// Whether the plan's tools may need the database of its connection.
    pub(crate) connects: bool,
    pub(crate) shows: Shows,
}

/// Starts a run of a plan, works on it and prints it.
pub(crate) async fn start(
    session: &Session<'_>,
    plan: &Plan,
    start: Start,
) -> Result<Exit, CliError> {
    let engine =
        if start.connects { session.engine_for(plan).await? } else { session.clerk().await? };
    let by = session.principal()?;
    let options = StartOptions { key: start.key, by, yes: start.yes, forked_from: None };
    let run = engine.start(plan, options).await?;
    session.shell.out.note(&format!("run {run} of plan {}", plan.id.short()));
    if start.waits {
        follow::execute_and_print(session, &engine, &run, start.shows).await
    } else {
        let view = session.view_of(&run).await?;
        session.shell.out.data(&view, |_| format!("{run}\n"))?;
        Ok(Exit::Done)
    }
}

fn plan(session: &Session<'_>, args: &Args) -> Result<Plan, CliError> {
    let path = session.shell.path(&args.what);
    let is_plan = path.is_file() && path.extension().is_some_and(|ending| ending == "json");
    if !is_plan {
        let target = library::target(args.target.as_deref())?;
        let wanted = Wanted { params: args.params.clone(), target, wake: args.wake };
        return library::plan(session, &args.what, &wanted);
    }
    if !args.params.is_empty() || args.target.is_some() || args.wake {
        return Err(CliError::usage_with(
            "a plan has its parameters and its target already, and which steps may wake a compute",
            "make another plan: `lakeops plan WORKFLOW -p name=value`",
        ));
    }
    Ok(file::load(&path)?)
}
