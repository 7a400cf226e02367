//! `lakeops plan`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library::{self, Wanted};
use crate::cli::session::{Session, connections_of};
use crate::engine::Loaded;
use crate::engine::parts::Unobserved;
use crate::journal::Outcome;
use crate::kernel::change::Origin;
use crate::kernel::{ChangeSet, Digest};
use crate::plan::{Plan, diff, file};
use crate::report::graph::{Language, graph};
use crate::report::style::{Style, Tone, count, of_state};
use crate::report::{RunView, changes, plan as plan_report};

/// Make a plan: what would run, in which order, with which texts
///
/// A plan is an immutable file with a digest: parameters, steps with their order, the text of every
/// script and SQL file. Equal inputs give equal plans. Nothing is run, and no database is needed, unless
/// --preview is given: then the reads are carried out, and what the write steps would change is shown
/// like a diff. `lakeops run PLANFILE` runs exactly the plan.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lakeops plan heal_bloat
  lakeops plan heal_bloat -p project=shop --preview
  lakeops plan heal_bloat --preview -o heal.json && lakeops run heal.json
  lakeops plan show heal.json --as mermaid
  lakeops plan diff yesterday.json today.json"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, clap::Args)]
struct Make {
    /// The workflow: its name, or its file
    #[arg(required = true)]
    workflow: Option<String>,
    /// A parameter
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Where it works: project/branch or project/branch/database; `-` leaves a part out
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Let every step start a compute that is suspended
    #[arg(long)]
    wake: bool,
    /// Carry the reads out, and show what the write steps would change
    #[arg(long)]
    preview: bool,
    /// Write the plan to a file; with --preview it also remembers what it relies on
    #[arg(short, long = "out", value_name = "FILE")]
    out_file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show a plan: from a file, by its digest, or the one of a run
    Show {
        /// A file, a digest, or a run
        plan: String,
        /// In which form
        #[arg(long = "as", value_enum, default_value_t = Form::Text)]
        form: Form,
    },
    /// Show what differs between two plans
    Diff {
        /// A file, a digest, or a run
        before: String,
        /// A file, a digest, or a run
        after: String,
    },
}

/// How a plan is shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// Its graph, for Markdown pages
    Mermaid,
    /// Its graph, for Graphviz
    Dot,
}

/// Makes, shows or compares plans.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.verb {
        Some(Verb::Show { plan, form }) => show(session, &plan, form).await,
        Some(Verb::Diff { before, after }) => compare(session, &before, &after).await,
        None => make(session, args.make).await,
    }
}

async fn make(session: &Session<'_>, args: Make) -> Result<Exit, CliError> {
    let target = library::target(args.target.as_deref())?;
    let wanted = Wanted { params: args.params, target, wake: args.wake };
    let workflow = args.workflow.unwrap_or_default();
    let plan = library::plan(session, &workflow, &wanted)?;
    if args.preview {
        return show_preview(session, &plan, args.out_file.as_deref()).await;
    }
    if let Some(path) = &args.out_file {
        save(session, &plan, path)?;
    }
    session.shell.out.data(&plan, |style| plan_report::text(style, &plan))?;
    Ok(Exit::Done)
}

/// Shows what a plan would change, and writes it with what it relies on, when it is to be written.
pub(crate) async fn show_preview(
    session: &Session<'_>,
    plan: &Plan,
    out_file: Option<&Path>,
) -> Result<Exit, CliError> {
    let (plan, loaded) = preview(session, plan).await?;
    if let Some(path) = out_file {
        save(session, &plan, path)?;
    }
    let view = RunView::from_entries(&loaded.plan, &loaded.entries);
    session
        .shell
        .out
        .data(&preview_json(&plan, &view), |style| preview_text(style, &plan, &view))?;
    let has_failed = loaded.state.finished.is_some_and(|(outcome, _)| outcome == Outcome::Failed);
    Ok(if has_failed { Exit::Failed } else { Exit::Done })
}

/// Runs the reads and proposals, and notes what the plan relies on.
async fn preview(session: &Session<'_>, plan: &Plan) -> Result<(Plan, Loaded), CliError> {
    let engine = session.rehearsal(&connections_of(plan)).await?;
    let scratch = Arc::clone(&engine.parts().journal);
    let loaded = engine.preview(plan, scratch, Arc::new(Unobserved)).await?;
    Ok((engine.pin(plan, &loaded.state).await?, loaded))
}

fn preview_json(plan: &Plan, view: &RunView) -> Value {
    let steps: Vec<Value> = view
        .steps
        .iter()
        .map(|step| {
            json!({
                "id": step.key, "state": step.state, "output": step.output,
                "failure": step.failure, "changes": step.grounds.set, "ask": step.grounds.ask,
            })
        })
        .collect();
    json!({ "plan": plan, "steps": steps })
}

fn preview_text(style: Style, plan: &Plan, view: &RunView) -> String {
    let heading = format!("preview of {} · plan {}", plan.body.workflow, plan.id.short());
    let mut text = format!("{}\n", style.paint(Tone::Strong, &heading));
    let sets = || view.steps.iter().filter_map(|step| step.grounds.set.as_ref());
    if let Some(setup) = sets().find_map(|set| made_by(Origin::Engine, set)) {
        let once = "first, once in each database that has not got it:";
        text.push_str(&format_args!("\n{}\n", style.paint(Tone::Strong, once)).to_string());
        text.push_str(&changes::list(style, &setup));
    }
    for step in &view.steps {
        let (tone, mark) = of_state(&step.state);
        let own = step.grounds.set.as_ref().and_then(|set| made_by(Origin::Tool, set));
        let own = own.map_or(0, |own| own.changes.len());
        let about = match (&step.grounds.set, &step.failure, step.state.as_str()) {
            (Some(_), _, _) => format!("would make {}", count(own, "change")),
            (None, Some(failure), _) => failure.message.clone(),
            (None, None, "pending") => "is decided when it runs".to_owned(),
            (None, None, state) => state.to_owned(),
        };
        let mark = style.paint(tone, mark);
        text.push_str(
            &format_args!("\n{mark} {}  {}  {about}\n", step.key, step.action).to_string(),
        );
        if let Some(set) = &step.grounds.set {
            match made_by(Origin::Tool, set) {
                Some(own) => {
                    text.push_str(&changes::list(style, &own));
                    text.push_str(&changes::summary(style, set));
                }
                None => text.push_str(&changes::change_set(style, set)),
            }
            for reason in &step.grounds.ask {
                text.push_str(&format_args!("an approval is needed: {reason}\n").to_string());
            }
        }
    }
    text
}

/// The changes of a set that the tool, or the engine for its own needs, wants; `None` when there are none.
fn made_by(origin: Origin, set: &ChangeSet) -> Option<ChangeSet> {
    let own = set.changes.iter().filter(|change| change.origin == origin);
    let own = ChangeSet::new(own.cloned().collect());
    (!own.is_empty()).then_some(own)
}

fn save(session: &Session<'_>, plan: &Plan, path: &Path) -> Result<(), CliError> {
    file::save(plan, &session.shell.path(path))?;
    session.shell.out.note(&format!("plan {} written to {}", plan.id.short(), path.display()));
    Ok(())
}

async fn show(session: &Session<'_>, plan: &str, form: Form) -> Result<Exit, CliError> {
    let plan = find(session, plan).await?;
    let out = &session.shell.out;
    match form {
        Form::Text => out.data(&plan, |style| plan_report::text(style, &plan))?,
        Form::Mermaid => out.text(&graph(&plan, Language::Mermaid))?,
        Form::Dot => out.text(&graph(&plan, Language::Dot))?,
    }
    Ok(Exit::Done)
}

async fn compare(session: &Session<'_>, before: &str, after: &str) -> Result<Exit, CliError> {
    let (before, after) = (find(session, before).await?, find(session, after).await?);
    let found = diff::diff(&before, &after);
    session.shell.out.data(&found, |style| {
        let mut text = format!("plan {} -> plan {}\n", before.id.short(), after.id.short());
        if found.is_empty() {
            text.push_str("the two are equal\n");
        }
        for one in &found {
            let tone = match (&one.before, &one.after) {
                (None, _) => Tone::Good,
                (_, None) => Tone::Bad,
                (Some(_), Some(_)) => Tone::Warn,
            };
            let line = style.fit(&one.to_string(), 0);
            text.push_str(&style.paint(tone, &line));
            text.push('\n');
        }
        text
    })?;
    Ok(Exit::Done)
}

/// A plan by its file, its digest, or a run.
async fn find(session: &Session<'_>, name: &str) -> Result<Plan, CliError> {
    let path = session.shell.path(name);
    if path.is_file() {
        return Ok(file::load(&path)?);
    }
    if let (Some(digest), Some(journal)) = (Digest::parse(name), session.existing_journal()?)
        && let Some(plan) = journal.plan(&digest).await?
    {
        return Ok(plan);
    }
    let run = session.find_run(name).await.map_err(|_| {
        CliError::usage_with(
            format!("`{name}` is no plan"),
            "give a file that `lakeops plan -o` wrote, the digest of a plan, or a run",
        )
    })?;
    Ok(session.read_run(&run).await?.0)
}
