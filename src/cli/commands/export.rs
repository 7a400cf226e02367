//! `lakeops export`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::Session;
use crate::export::{Export, Input, Places, TARGETS, alerts, databricks};
use crate::report::style::{Style, Tone, count};
use crate::report::table::table;

/// Write schedules and alerts for other programs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write a Databricks Asset Bundle: a job for each schedule, an alert for each threshold
    ///
    /// Each job asks a `lakeops serve` for one run per slot and follows it; the slot is the idempotency key,
    /// so a task that is tried again starts nothing twice. The token is named, not written: a secret of the
    /// workspace. What a bundle cannot say is listed, here and in `NOT_EXPRESSED.md`.
    #[command(after_help = "\
Examples:
  lakeops export databricks
  lakeops export databricks --to bundle --host prod=https://dbc-1234.cloud.databricks.com
  cd bundle && databricks bundle deploy --target prod --var lakeops_url=https://ops.example.com")]
    Databricks(Bundle),
    /// Print the alert definitions as bodies for `POST /api/2.0/alerts`
    ///
    /// They are those of the bundle, for a workspace without one.
    #[command(after_help = "\
Examples:
  lakeops export alerts --warehouse 0123456789abcdef --destination 11111111-2222-3333-4444-555555555555
  lakeops export alerts --warehouse W --destination D --catalog ops --schema history > alerts.json")]
    Alerts(Alerts),
}

#[derive(Debug, clap::Args)]
struct Bundle {
    /// The directory that is written to
    #[arg(long, value_name = "DIR", default_value = "databricks")]
    to: PathBuf,
    /// The name of the bundle
    #[arg(long, default_value = "lakeops")]
    name: String,
    /// The workspace of a target: dev, staging or prod
    #[arg(long, value_name = "TARGET=URL")]
    host: Vec<String>,
    /// The application id of the service principal that staging and prod run as
    #[arg(long, value_name = "ID")]
    run_as: Option<String>,
    /// Write over files that are there and differ
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Alerts {
    /// The id of the SQL warehouse that runs them
    #[arg(long, value_name = "ID")]
    warehouse: String,
    /// The id of the notification destination that is told
    #[arg(long, value_name = "ID")]
    destination: String,
    /// The catalogue that the history is registered in
    #[arg(long, default_value = "ops_catalog")]
    catalog: String,
    /// The schema that the history is registered in
    #[arg(long, default_value = "lakebase_ops")]
    schema: String,
}

/// Writes or prints.
pub(crate) fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Databricks(args) => bundle(session, &args),
        Verb::Alerts(args) => definitions(session, args),
    }
}

fn bundle(session: &Session<'_>, args: &Bundle) -> Result<Exit, CliError> {
    if !is_name(&args.name) {
        return Err(CliError::usage_with(
            format!("`{}` is no name of a bundle", args.name),
            "use letters, digits, `-` and `_`",
        ));
    }
    let hosts = args.host.iter().map(|text| host(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let (_, resolution) = library::resolve(session, &[])?;
    library::print_diagnostics(session, &resolution.diagnostics);
    if resolution.diagnostics.iter().any(crate::workflow::Diagnostic::is_error) {
        return Err(CliError::usage_with(
            "workflows with mistakes are not exported",
            "`lakeops validate` shows every mistake with its place",
        ));
    }
    let settings = session.config.settings();
    let input = Input {
        workflows: &resolution.workflows,
        settings,
        repeat_after: session.config.alerts().repeat_after.0.as_secs(),
        name: &args.name,
        hosts: &hosts,
        run_as: args.run_as.as_deref(),
    };
    let made = databricks(input)
        .map_err(|error| CliError::usage(format!("the bundle cannot be written: {error}")))?;
    let folder = session.shell.path(&args.to);
    if !args.force {
        for (name, text) in &made.files {
            let file = folder.join(name);
            let there = std::fs::read_to_string(&file);
            if there.is_ok_and(|there| there != *text) {
                return Err(CliError::usage_with(
                    format!("{} is there, and is not what would be written", file.display()),
                    "`--force` writes over it; `--to DIR` writes elsewhere",
                ));
            }
        }
    }
    std::fs::create_dir_all(&folder)
        .map_err(|error| CliError::unwritable(folder.clone(), error))?;
    for (name, text) in &made.files {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|error| CliError::unwritable(file, error))?;
    }
    let mut json = json!(made);
    json["directory"] = json!(args.to);
    json["files"] = json!(made.files.keys().collect::<Vec<_>>());
    let written = args.to.display().to_string();
    session.shell.out.data(&json, |style| shown(style, &written, &made))?;
    Ok(Exit::Done)
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.bytes().all(is_plain)
}

fn host(text: &str) -> Result<(String, String), CliError> {
    let found = text.split_once('=').filter(|(target, _)| TARGETS.contains(target));
    let found = found.filter(|(_, url)| url.starts_with("https://"));
    found.map(|(target, url)| (target.to_owned(), url.to_owned())).ok_or_else(|| {
        CliError::usage_with(
            format!("`{text}` names no workspace"),
            format!("write `TARGET=https://…`, with one of: {}", TARGETS.join(", ")),
        )
    })
}

fn shown(style: Style, folder: &str, made: &Export) -> String {
    let rows = made.jobs.iter().map(|line| {
        let usual = if line.usual { "usual" } else { "" };
        let (job, workflow) = (line.job.clone(), line.workflow.clone());
        let (cron, quartz) = (line.cron.clone(), line.quartz.clone());
        vec![job, workflow, cron, quartz, line.time_zone.clone(), usual.to_owned()]
    });
    let headings = ["job", "workflow", "cron", "quartz", "zone", ""];
    let mut text = table(style, &headings, rows.collect(), "no workflow has a schedule");
    let _ = writeln!(text, "\n{} over the history", count(made.alerts.len(), "alert"));
    let heading = format!("{} cannot be said there", count(made.not_expressed.len(), "thing"));
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, &heading));
    for gap in &made.not_expressed {
        let of =
            if gap.workflow.is_empty() { String::new() } else { format!("{}: ", gap.workflow) };
        let _ = writeln!(text, "  {of}{} - {}; {}", gap.what, gap.why, gap.instead);
    }
    let _ =
        writeln!(text, "\nwritten to {folder}: databricks.yml, lakeops_task.py, NOT_EXPRESSED.md");
    text
}

fn definitions(session: &Session<'_>, args: Alerts) -> Result<Exit, CliError> {
    for name in [&args.catalog, &args.schema] {
        if !is_name(name) || name.contains('-') {
            return Err(CliError::usage_with(
                format!("`{name}` is no plain name"),
                "use letters, digits and `_`",
            ));
        }
    }
    let places = Places {
        catalog: args.catalog,
        schema: args.schema,
        warehouse: args.warehouse,
        destination: args.destination,
        repeat_after: session.config.alerts().repeat_after.0.as_secs(),
    };
    let found = alerts(session.config.settings(), &places);
    let bodies: Vec<Value> = found.values().map(|alert| json!(alert)).collect();
    let mut text = serde_json::to_string_pretty(&bodies).unwrap_or_default();
    text.push('\n');
    session.shell.out.data(&bodies, |_| text)?;
    Ok(Exit::Done)
}
