//! `lakeops test crash`

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cli::crash_ground::{self, Copying, Program};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::told_to_end;
use crate::cli::library::{self, Wanted};
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::crash::branched::OwnProject;
use crate::crash::{CrashError, Ground, Progress, Test, conduct, worker};
use crate::kernel::Span;

/// Kill a run of a workflow at every boundary, and prove that it ends the same
///
/// The workflow runs on copies, never on the database itself. On a workspace (and on the emulator) a copy is
/// a branch of the target's branch, which expires by itself; parameters that name the branch name the copy.
/// Elsewhere it is a database of its own, made by `CREATE DATABASE … TEMPLATE` on the same server: nobody
/// else may be connected to the original at that moment, and what acts on the whole server (sessions of
/// others, roles, ALTER SYSTEM) is refused. What lies beyond the copy is refused in any case.
///
/// It runs twice undisturbed. Then, for each boundary that both runs passed (before and after each commit of
/// the journal, before, in and after each effect), a process of this program is killed with SIGKILL exactly
/// there, and another one resumes; and once more, with a second kill while that resumes. What is left has
/// to be what the undisturbed runs left: the structure of the databases and all rows of their tables, the
/// project with its branches, endpoints, roles and databases, the history, the outbox, published events,
/// files, and the states of all steps. What two undisturbed runs do not agree on (times, random values,
/// measurements) and values of sequences are not compared, and listed.
///
/// Messages stay in the journal: nobody is told anything. Exit code 1 shows the first difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops test crash heal_bloat --database-url postgres://me@db/copy --approve-all
  lakeops test crash migrate_schema --connection emulator --own-project --approve-all
  lakeops test crash nightly --only '*/after effect' --only 'pay/*'
  lakeops test crash long_one --sample 30 --jobs 4 --output json
  lakeops test crash long_one --in-one-run --approve-all")]
pub(crate) struct Args {
    /// The workflow: its name or its file
    workflow: String,
    /// A parameter; `{copy}` in a value stands for the name of the copy
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// What is copied: project/branch or project/branch/database; `-` leaves a part out
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Approve all that is asked, also high risk: it is done to copies, which are thrown away
    #[arg(long)]
    approve_all: bool,
    /// Run programs, send requests, write files outside, and call APIs beyond the project, for real and once or more per boundary
    #[arg(long)]
    outside: bool,
    /// Give each run a project of its own instead of a branch; `named`: only a name, the workflow makes it
    #[arg(long, value_name = "HOW", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "made")]
    own_project: Option<How>,
    /// A branch that is made in each own project before; may be given several times
    #[arg(long, value_name = "BRANCH", requires = "own_project")]
    with_branch: Vec<String>,
    /// Statements that are carried out before, on what all copies are made of
    #[arg(long, value_name = "FILE")]
    setup: Option<PathBuf>,
    /// A folder whose files each run finds in its working directory
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Only boundaries that fit, such as `*/after effect`; may be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// At most so many boundaries, spread evenly over all
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Kill one run once at each boundary that it passes, instead of a run for each; what goes wrong is not told
    /// apart by boundary
    #[arg(long, conflicts_with_all = ["only", "sample"])]
    in_one_run: bool,
    /// How many runs are worked on at once
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// How long one run may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = Span::parse)]
    within: Span,
}

/// How a run comes to a project of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// It is made before
    Made,
    /// Only its name is new: the workflow makes it
    Named,
}

/// Tests and prints.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let setup = match &args.setup {
        Some(file) => {
            let file = session.shell.path(file);
            let text = std::fs::read_to_string(&file);
            crash_ground::statements(&text.map_err(|error| CliError::unreadable(file, error))?)
        }
        None => Vec::new(),
    };
    let target = library::target(args.target.as_deref())?;
    let copying = Copying {
        wanted: Wanted { params: args.params.clone(), target, wake: true },
        own_project: args.own_project.map(|how| match how {
            How::Made => OwnProject::Made(args.with_branch.clone()),
            How::Named => OwnProject::Named,
        }),
        setup,
    };
    let ground = crash_ground::ground(session, &args.workflow, copying).await?;
    announce(session, &*ground, &args);
    let test = Test {
        ground,
        launcher: Arc::new(Program::of(session)?),
        clock: Arc::clone(&session.shell.clock),
        redactor: session.shell.out.redactor().clone(),
        only: args.only,
        sample: args.sample.and_then(|sample| usize::try_from(sample).ok()),
        in_one_run: args.in_one_run,
        jobs: usize::try_from(args.jobs).unwrap_or(1),
        approves: args.approve_all,
        outside: args.outside,
        files: args.files.map(|files| session.shell.path(files)),
        patience: args.within,
    };
    let interrupt = CancellationToken::new();
    let listener = tokio::spawn(listen(interrupt.clone()));
    let bar = TestBar::new(&session.shell.out);
    let report = Box::pin(conduct(&test, &interrupt, &bar)).await;
    listener.abort();
    bar.finish();
    let report = report?;
    session.shell.out.data(&report, |style| report.text(style))?;
    Ok(if report.is_good() { Exit::Done } else { Exit::Failed })
}

fn announce(session: &Session<'_>, ground: &dyn Ground, args: &Args) {
    let mut lines = vec![format!("each run gets {}", ground.about())];
    lines.push(if args.approve_all {
        "everything that is asked is approved: copies are thrown away".to_owned()
    } else {
        "nothing is approved; `--approve-all` approves what is asked".to_owned()
    });
    lines.push("messages stay in the journal".to_owned());
    if args.outside {
        lines.push("programs, requests and files outside of the copy are real".to_owned());
    }
    for line in &lines {
        session.shell.out.note(line);
    }
}

async fn listen(interrupt: CancellationToken) {
    told_to_end().await;
    interrupt.cancel();
}

/// A bar on a terminal, with what is left; nothing elsewhere.
struct TestBar {
    bar: Option<ProgressBar>,
}

impl TestBar {
    fn new(out: &Output) -> Self {
        Self { bar: out.is_watched().then(ProgressBar::new_spinner) }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for TestBar {
    fn stage(&self, what: &str) {
        tracing::info!(what, "crash test");
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
        }
    }

    fn done(&self, done: usize, of: usize) {
        tracing::info!(done, of, "boundaries tested");
        let Some(bar) = &self.bar else { return };
        if done == 0 {
            let template = "{spinner} boundary {pos} of {len} [{bar:30}] {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.reset();
        }
        bar.set_length(u64::try_from(of).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
    }
}

/// What a process that a test kills is told.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    /// Its folder
    folder: PathBuf,
}

/// Carries a plan out, and dies where it is told to.
pub(crate) async fn work(session: &Session<'_>, args: WorkerArgs) -> Result<Exit, CliError> {
    session.arm(worker::kill_points(&args.folder).map_err(CrashError::Work)?);
    let plan = worker::plan(&args.folder).map_err(CrashError::Work)?;
    let engine = session.engine_for(&plan).await?;
    let redactor = session.shell.out.redactor().clone();
    let worked = worker::work(&args.folder, engine.parts().clone(), redactor).await;
    worked.map_err(CrashError::Work)?;
    Ok(Exit::Done)
}
