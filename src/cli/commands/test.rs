//! `lakeops test`

use super::test_crash;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow;
use crate::cli::library::{self, Wanted};
use crate::cli::places::workspace_of;
use crate::cli::session::{Session, Shell};
use crate::engine::{Engine, StartOptions};
use crate::kernel::RunId;
use crate::lakebase::name::{THROW_AWAY, check_id};
use crate::report::run::{self, Detail};
use crate::workflow::SourceText;

/// Prove on the real thing that it works
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops test live --connection cloud
  lakeops test live --connection emulator --output json
  lakeops test crash heal_bloat --database-url postgres://me@db/copy --approve-all")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create, branch, connect to, migrate, compare and delete a disposable project
    ///
    /// It is a run of the workflow `test_live` like any other: journaled, with every call of the workspace
    /// in its record. The project is deleted at the end, also when a step fails and after Ctrl-C;
    /// after a crash `lakeops resume` goes on, and deletes it. Compute time on a live workspace costs money.
    Live {
        /// The id of the project; it begins with `tmp-`
        #[arg(long, value_name = "ID")]
        project: Option<String>,
    },
    Crash(Box<test_crash::Args>),
    #[command(hide = true)]
    CrashWorker(test_crash::WorkerArgs),
}

const WORKFLOW: &str = include_str!("../../../workflows/test_live.yaml");

/// Runs a test.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Live { project } => live(session, project).await,
        Verb::Crash(args) => Box::pin(test_crash::run(session, *args)).await,
        Verb::CrashWorker(args) => Box::pin(test_crash::work(session, args)).await,
    }
}

async fn live(session: &Session<'_>, project: Option<String>) -> Result<Exit, CliError> {
    let connection = session.config.selected_connection();
    if workspace_of(session.config.connection(connection)?)?.is_none() {
        return Err(CliError::usage_with(
            format!("the connection `{connection}` is no workspace"),
            "choose one: `--connection NAME`, or `--connection emulator`",
        ));
    }
    let project = project.unwrap_or_else(|| fresh(session.shell));
    if !project.starts_with(THROW_AWAY) || check_id(&project).is_err() {
        return Err(CliError::usage_with(
            format!("`{project}` is no id of a disposable project"),
            format!(
                "begin it with `{THROW_AWAY}`, and write lower-case letters, digits and dashes"
            ),
        ));
    }
    let text = SourceText::new("test_live.yaml", WORKFLOW.to_owned());
    let params = vec![format!("project={project}")];
    let wanted = Wanted { params, ..Wanted::default() };
    let plan = library::plan_text(session, text, &wanted)?;
    let engine = session.engine(&[connection]).await?;
    let by = session.principal()?;
    let options = StartOptions { key: None, by, yes: true, forked_from: None };
    let run = engine.start(&plan, options).await?;
    session.shell.out.note(&format!("run {run} makes and deletes project {project}"));
    to_its_end(session, &engine, &run).await
}

fn fresh(shell: &Shell) -> String {
    format!("{THROW_AWAY}live-{}", shell.ids.run_id().short())
}

/// Works on the run until it is over. Whatever holds it up ends it: nobody waits here, and the project is
/// to go.
async fn to_its_end(session: &Session<'_>, engine: &Engine, run: &RunId) -> Result<Exit, CliError> {
    let (mut outcome, was_interrupted) = follow::execute(session, engine, run).await?;
    if !outcome.is_final() {
        session.shell.out.note("what was made is deleted");
        let why = if was_interrupted { "interrupted" } else { "it would have to wait" };
        engine.cancel(run, false, (&session.principal()?, why)).await?;
        (outcome, _) = follow::execute(session, engine, run).await?;
    }
    let view = session.view_of(run).await?;
    session.shell.out.data(&view, |style| run::run(style, &view, Detail::Changes))?;
    Ok(if was_interrupted { Exit::Interrupted } else { Exit::of_outcome(outcome) })
}
