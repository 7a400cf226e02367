//! `lakeops tools`

use std::sync::Arc;

use serde_json::{Map, Value};

use super::run::{self, Start};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::Shows;
use crate::cli::library::{self, Wanted};
use crate::cli::places::Selected;
use crate::cli::session::Session;
use crate::journal::event::Fact;
use crate::kernel::Target;
use crate::lakebase::ReadApi;
use crate::plan::Plan;
use crate::postgres::PgReader;
use crate::report::changes::change_set;
use crate::report::tools::{ToolView, list, one};
use crate::tools::context::{AskModel, Places, ReadHistory};
use crate::tools::{AnyTool, Catalog, ReadContext};
use crate::workflow::{SourceText, Workflow};

/// List, show and run tools
///
/// A read tool looks and can change nothing. A write tool proposes changes; running it here is a run
/// like any other: journaled, and asked for where its risk demands it. A workflow with `tool:` is a tool
/// too, with its `params` and `outputs`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lakeops tools
  lakeops tools show schedule_vacuum_analyze
  lakeops tools run monitor_connections --output json
  lakeops tools run schedule_vacuum_analyze -p tables='[\"public.orders\"]' --preview"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all tools
    List,
    /// Show a tool: its arguments and its output
    Show {
        /// The tool
        tool: String,
    },
    /// Run a tool
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The tool
    tool: String,
    /// An argument: a text, or JSON where the tool wants more than a text
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Where it works: project/branch or project/branch/database; `-` leaves a part out
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Start a compute that is suspended
    #[arg(long)]
    wake: bool,
    /// Only show what it would change
    #[arg(long)]
    preview: bool,
    /// Approve as the caller what the policy lets the caller approve; never high risk
    #[arg(long)]
    yes: bool,
}

/// Lists, shows or runs.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let catalog = Catalog::builtin();
    match args.verb {
        None | Some(Verb::List) => {
            let workflows = library::offered_as_tools(session);
            let mut tools: Vec<ToolView> = catalog.iter().map(ToolView::from).collect();
            tools.extend(workflows.iter().filter_map(|workflow| view_of(workflow)));
            tools.sort_by(|a, b| (a.family, &a.name).cmp(&(b.family, &b.name)));
            session.shell.out.data(&tools, |style| list(style, &tools))?;
            Ok(Exit::Done)
        }
        Some(Verb::Show { tool }) => {
            let view = match find(session, &catalog, &tool)? {
                Found::Tool(tool) => Some(tool.into()),
                Found::Workflow(workflow) => view_of(&workflow),
            };
            let view = view.ok_or_else(|| unknown(&catalog, &[], &tool))?;
            session.shell.out.data(&view, |style| one(style, &view))?;
            Ok(Exit::Done)
        }
        Some(Verb::Run(args)) => match find(session, &catalog, &args.tool)? {
            Found::Tool(tool) => carry_out(session, tool, &args).await,
            Found::Workflow(_) => run_workflow(session, args).await,
        },
    }
}

/// What a name stands for.
enum Found {
    Tool(AnyTool),
    Workflow(Arc<Workflow>),
}

fn find(session: &Session<'_>, catalog: &Catalog, name: &str) -> Result<Found, CliError> {
    if let Some(tool) = catalog.find(name) {
        return Ok(Found::Tool(tool));
    }
    let workflows = library::offered_as_tools(session);
    let found = workflows.iter().find(|workflow| workflow.spec.name.value == name).cloned();
    found.map(Found::Workflow).ok_or_else(|| unknown(catalog, &workflows, name))
}

/// A tool that is built in.
pub(super) fn find_built_in(catalog: &Catalog, name: &str) -> Result<AnyTool, CliError> {
    catalog.find(name).ok_or_else(|| unknown(catalog, &[], name))
}

fn unknown(catalog: &Catalog, workflows: &[Arc<Workflow>], name: &str) -> CliError {
    let tools = catalog.iter().map(|tool| tool.meta().name);
    let known = tools.chain(workflows.iter().map(|workflow| workflow.spec.name.value.as_str()));
    let nearest = known.map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    let help = match nearest {
        Some((distance, near)) if distance <= name.len() / 2 => format!("did you mean `{near}`?"),
        _ => "`lakeops tools` lists them".to_owned(),
    };
    CliError::usage_with(format!("no tool is called `{name}`"), help)
}

/// A workflow as a tool, when it is offered as one.
fn view_of(workflow: &Workflow) -> Option<ToolView> {
    Some(ToolView {
        name: workflow.spec.name.value.clone(),
        family: workflow.spec.registration.as_ref()?.family.as_str(),
        kind: "workflow",
        risk: workflow.risk,
        revision: None,
        summary: workflow.spec.description.clone(),
        secrets: Vec::new(),
        sql: Vec::new(),
        arguments: workflow.params_schema(),
        output: workflow.output_schema().clone(),
    })
}

/// A workflow that is offered as a tool: a run of it.
async fn run_workflow(session: &Session<'_>, args: Run) -> Result<Exit, CliError> {
    let target = library::target(args.target.as_deref())?;
    let wanted = Wanted { params: args.params, target, wake: args.wake };
    let plan = library::plan(session, &args.tool, &wanted)?;
    if args.preview {
        return super::plan::show_preview(session, &plan, None).await;
    }
    run::start(session, &plan, by_hand(args.yes, Shows::Outputs)).await
}

async fn carry_out(session: &Session<'_>, tool: AnyTool, args: &Run) -> Result<Exit, CliError> {
    let arguments = arguments(&tool, &args.params)?;
    tool.erased().check_params(&arguments)?;
    let target = library::target(args.target.as_deref())?;
    match tool {
        AnyTool::Write(_) if !args.preview => {
            let plan = plan_of(session, &args.tool, &arguments, (target, args.wake))?;
            run::start(session, &plan, by_hand(args.yes, Shows::StepOutput)).await
        }
        tool => look(session, tool, arguments, (&target, args.wake)).await,
    }
}

/// The plan of a single tool.
pub(super) fn plan_of(
    session: &Session<'_>,
    tool: &str,
    arguments: &Value,
    (target, wake): (Target, bool),
) -> Result<Plan, CliError> {
    let wanted = Wanted { params: Vec::new(), target, wake };
    library::plan_text(session, workflow_of(tool, arguments), &wanted)
}

const fn by_hand(yes: bool, shows: Shows) -> Start {
    Start { key: None, yes, waits: true, connects: true, shows }
}

/// Reads or proposes, without a run.
async fn look(
    session: &Session<'_>,
    tool: AnyTool,
    arguments: Value,
    (target, wake): (&Target, bool),
) -> Result<Exit, CliError> {
    let selected = Selected::open(session, target, wake, "lakeops:tools").await?;
    let pg = selected.reader_at(target);
    look_from(session, tool, arguments, Look { target, pg, selected: Some(&selected) }).await
}

/// Where a tool looks.
pub(super) struct Look<'a> {
    pub(super) target: &'a Target,
    /// A session on a database, or on none.
    pub(super) pg: PgReader,
    /// The connection, when the tool may look further.
    pub(super) selected: Option<&'a Selected>,
}

/// Reads or proposes.
pub(super) async fn look_from(
    session: &Session<'_>,
    tool: AnyTool,
    arguments: Value,
    Look { target, pg, selected }: Look<'_>,
) -> Result<Exit, CliError> {
    let settings = session.config.settings_for(target);
    let workspace = selected.and_then(Selected::workspace);
    let rules = library::rules(session, tool.meta())?;
    let clock = session.shell.clock.as_ref();
    let history = session.existing_history()?;
    let earlier = match session.existing_journal()? {
        Some(journal) if tool.erased().earlier() > 0 => {
            let place = Fact::of(tool.meta().name, session.config.selected_connection(), target);
            journal.facts(&place, tool.erased().earlier()).await?
        }
        _ => Vec::new(),
    };
    let model = session.model()?;
    let cx = ReadContext {
        earlier: &earlier,
        model: model.as_ref().map(|model| -> &dyn AskModel { model }),
        rules: &rules,
        workspace: workspace.as_deref().map(|workspace| -> &dyn ReadApi { workspace }),
        places: selected.map(|selected| -> &dyn Places { selected }),
        history: history.as_deref().map(|history| history as &dyn ReadHistory),
        ..ReadContext::new(&pg, clock, &settings, target)
    };
    let printed = match tool {
        AnyTool::Read(tool) => tool.read(&cx, arguments).await.map(|output| {
            let pretty = format!("{:#}\n", output.value);
            session.shell.out.data(&output.value, |_| pretty)
        }),
        AnyTool::Write(tool) => tool
            .propose(&cx, arguments)
            .await
            .map(|set| session.shell.out.data(&set, |style| change_set(style, &set))),
    };
    pg.close().await;
    printed?.map(|()| Exit::Done)
}

/// A workflow of one step. JSON is YAML.
fn workflow_of(tool: &str, arguments: &Value) -> SourceText {
    let name = Value::String(tool.to_owned());
    let text = format!(
        "version: 1
name: {tool}
description: A single tool, run by hand.
steps:
  - id: {tool}
    tool: {name}
    with: {arguments}
",
    );
    SourceText::new(format!("{tool}.yaml"), text)
}

/// Arguments as they were typed, read as the tool's schema wants them.
fn arguments(tool: &AnyTool, typed: &[String]) -> Result<Value, CliError> {
    let schema = tool.erased().params_schema();
    let mut arguments = Map::new();
    for pair in typed {
        let (name, text) = pair.split_once('=').ok_or_else(|| {
            CliError::usage_with(format!("`{pair}` is no argument"), "write `-p name=value`")
        })?;
        let field = schema.get("properties").and_then(|properties| properties.get(name));
        let as_text = || Value::String(text.to_owned());
        let value = if field.is_some_and(wants_text) {
            as_text()
        } else {
            serde_json::from_str(text).unwrap_or_else(|_| as_text())
        };
        arguments.insert(name.trim().to_owned(), value);
    }
    Ok(Value::Object(arguments))
}

fn wants_text(field: &Value) -> bool {
    match field.get("type") {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => false,
    }
}
