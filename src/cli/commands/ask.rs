//! `lakeops ask`

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::{self, Told};
use crate::cli::library;
use crate::cli::session::Session;
use crate::engine::StartOptions;
use crate::journal::Outcome;
use crate::plan::{Given, Plan};
use crate::report::answer;
use crate::report::run::{self, Detail};
use crate::tools::Catalog;
use crate::workflow::{Resolver, SourceText};

/// The workflow that answers: the user's, where there is one of this name.
const WORKFLOW: &str = "natural_language_dba";
const BUILT_IN: &str = include_str!("../../../workflows/natural_language_dba.yaml");

/// Ask a question in words; nothing is changed
///
/// The words of the question choose among read tools and named queries: no model and no network are
/// needed. What they find is answered with figures and rows, and with the command that would fix what is
/// wrong. Where a model is configured ([model]), it also explains; a statement of it runs only when it is
/// one harmless SELECT, read-only, and it is shown. Nothing of the question itself is ever run.
/// Where nothing answers, the nearest is told, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops ask why is my query slow
  lakeops ask 'who is blocking whom?' --connection production
  lakeops ask which tables need vacuum --target shop/production
  lakeops ask 'how big are my tables?' --output json
  lakeops ask --no-model what is wrong with my database")]
pub(crate) struct Args {
    /// The question, in English; quotes are needed only for what the shell would read
    #[arg(required = true, num_args = 1.., value_name = "QUESTION")]
    question: Vec<String>,
    /// Where: project/branch or project/branch/database; `-` leaves a part out
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Start a compute that is suspended
    #[arg(long)]
    wake: bool,
    /// How many tools and queries are chosen at most
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=10))]
    most: u8,
    /// Do not ask the configured model
    #[arg(long)]
    no_model: bool,
}

/// Asks, and prints the answer.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let plan = plan(session, &args)?;
    let engine = session.engine_for(&plan).await?;
    let by = session.principal()?;
    let options = StartOptions { key: None, by, yes: false, forked_from: None };
    let run = engine.start(&plan, options).await?;
    let (outcome, was_interrupted) =
        follow::execute_telling(session, &engine, &run, Told::Work).await?;
    let view = session.view_of(&run).await?;
    let out = &session.shell.out;
    if outcome == Outcome::Succeeded {
        out.data(&view.outputs, |style| answer::answer(style, &view.outputs))?;
        out.note(&format!("how it was found: lakeops show {run}"));
    } else {
        out.data(&view, |style| run::run(style, &view, Detail::Changes))?;
    }
    let is_parked = was_interrupted && !outcome.is_final();
    // As with `grep`: who asks in a script wants to know.
    let is_unanswered = outcome == Outcome::Succeeded && view.outputs["answered"] == false;
    Ok(match (is_parked, is_unanswered) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Failed,
        (false, false) => Exit::of_outcome(outcome),
    })
}

fn plan(session: &Session<'_>, args: &Args) -> Result<Plan, CliError> {
    use crate::workflow::Sources as _;
    let library = library::load(session);
    let is_own = library.workflows().contains(&WORKFLOW);
    let built_in = || SourceText::new(format!("{WORKFLOW}.yaml"), BUILT_IN.to_owned());
    let workflow = library::resolved(session, &library, (WORKFLOW, (!is_own).then(built_in)))?;
    let catalog = Catalog::builtin();
    let all = Resolver::new(&catalog, &library).resolve_all().workflows.into_values();
    let offered = all
        .filter(|it| it.spec.name.value != WORKFLOW)
        .map(|it| json!({ "name": it.spec.name.value, "description": it.spec.description }));
    let params = BTreeMap::from([
        ("question".to_owned(), Given::Json(args.question.join(" ").into())),
        ("most".to_owned(), Given::Json(args.most.into())),
        ("explain".to_owned(), Given::Json((!args.no_model).into())),
        ("workflows".to_owned(), Given::Json(offered.collect())),
    ]);
    let target = library::target(args.target.as_deref())?;
    library::planned(session, &workflow, (params, target, args.wake))
}
