//! `lakeops emulator`

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::daemon::{Daemon, leave_terminal};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Bar;
use crate::cli::prompt::confirm;
use crate::cli::session::Session;
use crate::emulator::{ConnectionFile, DEFAULT_USER, Emulator, EmulatorOptions, ListedEndpoint};
use crate::postgres::Quiet;
use crate::report::Style;
use crate::report::table::table;

/// How long the emulator may take to answer after it was started.
const START_LIMIT: Duration = Duration::from_mins(2);
const TICK: Duration = Duration::from_millis(50);
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// Run a Databricks Lakebase on this machine: its API, with real PostgreSQL behind it
///
/// Projects, branches that are copied in a moment, endpoints that wake when somebody connects and sleep
/// when nobody does, credentials that expire. The official clients work with it: point them at `host`
/// with `token`, as `lakeops emulator status` prints them. It listens on loopback addresses only, and
/// keeps everything in the state directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops emulator start
  lakeops emulator status --output json
  export DATABRICKS_HOST=$(lakeops emulator status --output json | jq -r .host)
  export DATABRICKS_TOKEN=$(lakeops emulator status --output json | jq -r .token)
  lakeops emulator stop")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start it in the background; one that runs is left alone
    Start {
        /// Who its token stands for: the owner of projects, and the role to log in as
        #[arg(long, value_name = "EMAIL", default_value = DEFAULT_USER)]
        user: String,
    },
    /// Stop it, and every server of it; what it keeps stays
    Stop,
    /// Say whether it runs, how it is reached, and where its endpoints listen
    Status,
    /// Stop it, and delete everything that it keeps
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Be the background process
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        user: String,
    },
}

/// What `status` says.
#[derive(Clone, Debug, Serialize)]
struct Status {
    /// `running`, `starting` or `stopped`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    endpoints: Vec<ListedEndpoint>,
}

/// Starts, stops, says, deletes, or is the emulator.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Start { user } => start(session, &user).await,
        Verb::Stop => stop(session).await,
        Verb::Status => show(session, &status(session).await?),
        Verb::Reset { yes } => reset(session, yes).await,
        Verb::Serve { user } => serve(session, user).await,
    }
}

fn folder(session: &Session<'_>) -> PathBuf {
    session.config.state_dir().join("emulator")
}

fn daemon(session: &Session<'_>) -> Daemon {
    Daemon::new(folder(session), "daemon")
}

async fn start(session: &Session<'_>, user: &str) -> Result<Exit, CliError> {
    let daemon = daemon(session);
    if daemon.pid()?.is_none() {
        // Getting PostgreSQL can take a while, and is shown here.
        let bar = Bar::new(&session.shell.out);
        session.local_postgres().ensure(&bar).await?;
        bar.finish();
    }
    let status = Box::pin(ready(session, &daemon, user)).await?;
    show(session, &status)
}

fn spawn(session: &Session<'_>, daemon: &Daemon, user: &str) -> Result<Child, CliError> {
    let program =
        std::env::current_exe().map_err(|error| CliError::unreadable("lakeops", error))?;
    let state = session.config.state_dir();
    let state = std::path::absolute(&state).unwrap_or(state);
    let state = state.to_string_lossy().into_owned();
    let mut arguments = vec!["--state", &state, "emulator", "serve", "--user", user];
    let config = session.shell.global.config.as_ref().map(|path| session.shell.path(path));
    let config = config.map(|path| path.to_string_lossy().into_owned());
    if let Some(config) = &config {
        arguments.extend(["--config", config]);
    }
    daemon.spawn(&program, &arguments)
}

/// Waits until the emulator answers, or has ended. One that was there and is gone (it was just being
/// killed) is started anew.
async fn ready(session: &Session<'_>, daemon: &Daemon, user: &str) -> Result<Status, CliError> {
    let clock = &session.shell.clock;
    let until = clock.now().plus(START_LIMIT);
    let mut child: Option<Child> = None;
    loop {
        let found = status(session).await?;
        if found.state == "running" {
            return Ok(found);
        }
        let is_gone = daemon.pid()?.is_none();
        if child.is_none() && is_gone {
            child = Some(spawn(session, daemon, user)?);
        }
        let ended = child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended && is_gone || clock.now() >= until {
            let log = daemon.log_path();
            return Err(CliError::EmulatorFailed {
                message: format!("the emulator does not start:\n{}", daemon.last_words()),
                help: format!("its log is {}", log.display()),
            });
        }
        clock.sleep_until(clock.now().plus(TICK)).await;
    }
}

async fn stop(session: &Session<'_>) -> Result<Exit, CliError> {
    let stopped = daemon(session).stop(&*session.shell.clock).await?;
    session.shell.out.data(&json!({ "state": "stopped", "was_running": stopped }), |_| {
        if stopped { "the emulator is stopped\n" } else { "the emulator does not run\n" }.to_owned()
    })?;
    Ok(Exit::Done)
}

async fn reset(session: &Session<'_>, yes: bool) -> Result<Exit, CliError> {
    let folder = folder(session);
    if !yes {
        if !std::io::stdin().is_terminal() {
            let text = "deleting everything that the emulator keeps has to be confirmed";
            return Err(CliError::usage_with(text, "add `--yes`"));
        }
        let question = format!("Delete all projects in {}? [y/N] ", folder.display());
        if !confirm(&question).await {
            session.shell.out.note("nothing was deleted");
            return Ok(Exit::Cancelled);
        }
    }
    daemon(session).stop(&*session.shell.clock).await?;
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::unwritable(folder, error));
        }
        _ => {}
    }
    session.shell.out.data(&json!({ "state": "stopped", "deleted": folder }), |_| {
        format!("deleted {}\n", folder.display())
    })?;
    Ok(Exit::Done)
}

/// Asks the emulator that runs here.
async fn status(session: &Session<'_>) -> Result<Status, CliError> {
    let pid = daemon(session).pid()?;
    let mut found = Status {
        state: if pid.is_some() { "starting" } else { "stopped" },
        pid,
        host: None,
        token: None,
        user: None,
        ca_file: None,
        endpoints: Vec::new(),
    };
    let connection = ConnectionFile::read(&session.config.state_dir());
    let Some(connection) = connection.filter(|_| pid.is_some()) else { return Ok(found) };
    let Ok(token) = std::fs::read_to_string(&connection.token_file) else { return Ok(found) };
    let Some(endpoints) = endpoints(&connection.host, &token).await else { return Ok(found) };
    found.state = "running";
    found.host = Some(connection.host);
    found.token = Some(token);
    found.user = Some(connection.user);
    found.ca_file = Some(connection.ca_file);
    found.endpoints = endpoints;
    Ok(found)
}

/// The endpoints of an emulator that answers.
async fn endpoints(host: &str, token: &str) -> Option<Vec<ListedEndpoint>> {
    // Another part of the program may have installed it before.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().timeout(ASK_LIMIT).build().ok()?;
    let request = client.get(format!("{host}/emulator/endpoints")).bearer_auth(token.trim());
    let answer = request.send().await.ok()?.error_for_status().ok()?;
    let mut answer: Value = answer.json().await.ok()?;
    serde_json::from_value(answer["endpoints"].take()).ok()
}

fn show(session: &Session<'_>, status: &Status) -> Result<Exit, CliError> {
    session.shell.out.data(status, |style| text(style, status))?;
    Ok(Exit::Done)
}

fn text(style: Style, status: &Status) -> String {
    let (Some(host), Some(token)) = (&status.host, &status.token) else {
        return format!("the emulator is {}\n", status.state);
    };
    let mut text = format!(
        "the emulator runs\n  DATABRICKS_HOST={host}\n  DATABRICKS_TOKEN={token}\n  user  {}\n",
        status.user.as_deref().unwrap_or_default()
    );
    if let Some(file) = &status.ca_file {
        text.extend(["  CA    ", &file.to_string_lossy(), "\n"]);
    }
    let row = |it: &ListedEndpoint| vec![it.name.clone(), it.address.to_string(), it.state.clone()];
    let rows = status.endpoints.iter().map(row).collect();
    text.push_str(&table(style, &["endpoint", "address", "state"], rows, "it has no projects yet"));
    text
}

/// Is the emulator until somebody ends it.
async fn serve(session: &Session<'_>, user: String) -> Result<Exit, CliError> {
    leave_terminal();
    let shell = session.shell;
    let Some(_held) = daemon(session).hold(&*shell.clock).await? else {
        return Err(CliError::usage("an emulator runs already in this state directory"));
    };
    let mut ended = signal()?;
    let sources = (Arc::clone(&shell.clock), Arc::clone(&shell.ids));
    let options = EmulatorOptions {
        user,
        ..EmulatorOptions::new(
            session.config.state_dir(),
            sources,
            session.local_postgres(),
            Arc::new(Quiet),
        )
    };
    let failed = |error: crate::emulator::EmulatorError| CliError::EmulatorFailed {
        message: error.to_string(),
        help: "see the log of the emulator in the state directory".to_owned(),
    };
    let emulator = Box::pin(Emulator::start(options)).await.map_err(failed)?;
    tracing::info!(host = emulator.host(), "the emulator runs");
    ended.recv().await;
    Box::pin(emulator.stop()).await.map_err(failed)?;
    Ok(Exit::Done)
}

fn signal() -> Result<tokio::signal::unix::Signal, CliError> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| CliError::unreadable("signals", error))
}
