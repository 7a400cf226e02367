//! `lakeops tools`

use serde_json::{Map, Value};

use crate::cli::commands::run::Start;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::Session;
use crate::kernel::Target;
use crate::plan::Plan;
use crate::postgres::PgReader;
use crate::report::changes::change_set;
use crate::report::tools::{list, one, to_json};
use crate::tools::context::ReadHistory;
use crate::tools::{AnyTool, Catalog, ReadContext};
use crate::workflow::SourceText;

/// List, show and run tools
///
/// A read tool looks and can change nothing. A write tool proposes changes; running it here is a run
/// like any other: journaled, and asked for where its risk demands it.
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
    /// Only show what a write tool would change
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
            let mut tools: Vec<AnyTool> = catalog.iter().collect();
            tools.sort_by_key(|tool| (tool.meta().family, tool.meta().name));
            let json: Vec<Value> = tools.iter().map(to_json).collect();
            session.shell.out.data(&json, |style| list(style, &tools))?;
            Ok(Exit::Done)
        }
        Some(Verb::Show { tool }) => {
            let tool = find(&catalog, &tool)?;
            session.shell.out.data(&to_json(&tool), |style| one(style, &tool))?;
            Ok(Exit::Done)
        }
        Some(Verb::Run(args)) => carry_out(session, &catalog, &args).await,
    }
}

pub(super) fn find(catalog: &Catalog, name: &str) -> Result<AnyTool, CliError> {
    catalog.find(name).ok_or_else(|| {
        let nearest = catalog
            .iter()
            .map(|tool| (strsim::damerau_levenshtein(tool.meta().name, name), tool.meta().name))
            .min();
        let help = match nearest {
            Some((distance, near)) if distance <= name.len() / 2 => {
                format!("did you mean `{near}`?")
            }
            _ => "`lakeops tools` lists them".to_owned(),
        };
        CliError::usage_with(format!("no tool is called `{name}`"), help)
    })
}

async fn carry_out(session: &Session<'_>, catalog: &Catalog, args: &Run) -> Result<Exit, CliError> {
    let tool = find(catalog, &args.tool)?;
    let arguments = arguments(&tool, &args.params)?;
    tool.erased().check_params(&arguments)?;
    let target = library::target(args.target.as_deref())?;
    match tool {
        AnyTool::Write(_) if !args.preview => {
            let plan = plan_of(session, &args.tool, &arguments, target)?;
            let start = Start { key: None, yes: args.yes, waits: true, connects: true };
            super::run::start(session, &plan, start).await
        }
        tool => look(session, tool, arguments, &target).await,
    }
}

/// The plan of a single tool.
pub(super) fn plan_of(
    session: &Session<'_>,
    tool: &str,
    arguments: &Value,
    target: Target,
) -> Result<Plan, CliError> {
    library::plan_text(session, workflow_of(tool, arguments), target)
}

/// Reads or proposes, without a run.
async fn look(
    session: &Session<'_>,
    tool: AnyTool,
    arguments: Value,
    target: &Target,
) -> Result<Exit, CliError> {
    let settings = session.config.settings_for(target);
    let endpoint = session.selected_endpoint().await?;
    let endpoint = match &target.database {
        Some(database) => endpoint.with_database(database),
        None => endpoint,
    };
    let pg = PgReader::new(endpoint, &settings.limits, "lakeops:tools");
    look_from(session, tool, arguments, (target, pg)).await
}

/// Reads or proposes through a session on a database, or on none.
pub(super) async fn look_from(
    session: &Session<'_>,
    tool: AnyTool,
    arguments: Value,
    (target, pg): (&Target, PgReader),
) -> Result<Exit, CliError> {
    let settings = session.config.settings_for(target);
    let rules = library::rules(session, tool.meta())?;
    let clock = session.shell.clock.as_ref();
    let history = match session.existing_journal()? {
        Some(_) => Some(session.history()?),
        None => None,
    };
    let cx = ReadContext {
        rules: &rules,
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
        "version: 1\nname: {tool}\ndescription: {{}}\nsteps:\n  - id: {tool}\n    tool: {name}\n    with: {arguments}\n",
    );
    let text = text.replace("description: {}\n", "description: A single tool, run by hand.\n");
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
