//! `lakeops doctor`

use crate::cli::doctor::{Check, Status, server, told, workspace};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::{Session, Shell};
use crate::config::Connection;
use crate::report::style::{Style, Tone, of_state};

/// Find out what is missing, and how to get it
///
/// Looks at the state directory, the journal, PostgreSQL, every connection with its privileges and
/// extensions, and the files of workflows. Changes nothing, except that a missing state directory is
/// made. Exits with 5 when something fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops doctor
  lakeops doctor --database-url postgres://me@db/app
  lakeops doctor --connection cloud --selected --target shop/production
  lakeops doctor --output json | jq '.[] | select(.status != \"ok\")'")]
pub(crate) struct Args {
    /// Only the selected connection, not all that are configured
    #[arg(long)]
    selected: bool,
    /// The branch of a workspace whose database is looked at: project/branch or project/branch/database
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Start a compute that is suspended
    #[arg(long)]
    wake: bool,
}

/// Checks everything and prints it.
pub(crate) async fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let mut checks = Vec::new();
    match Session::open(shell) {
        Err(error) => {
            checks.push(Check::new("configuration", Status::Fail, told(&error)));
        }
        Ok(session) => {
            checks.push(configuration(&session));
            checks.push(state_dir(&session));
            checks.push(journal(&session).await);
            checks.push(time_zones());
            checks.push(local_postgres(&session).await);
            checks.push(files(&session));
            for name in session.config.connections().keys() {
                if !args.selected || name == session.config.selected_connection() {
                    checks.extend(connection(&session, name, args).await?);
                }
            }
            session.close().await?;
        }
    }
    shell.out.data(&checks, |style| checks.iter().map(|check| lines(style, check)).collect())?;
    let has_failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if has_failed { Exit::Environment } else { Exit::Done })
}

fn lines(style: Style, check: &Check) -> String {
    let (tone, mark) = of_state(check.status.as_str());
    let name = style.paint(Tone::Strong, &check.name);
    let mut text = format!("{} {name}: {}\n", style.paint(tone, mark), check.message);
    for line in check.hint.iter().flat_map(|hint| hint.lines()) {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn configuration(session: &Session<'_>) -> Check {
    match session.config.file() {
        Some(file) => Check::new("configuration", Status::Ok, file.display().to_string()),
        None => Check::new("configuration", Status::Ok, "no file; the built-in defaults hold")
            .hint("`lakeops init` writes one"),
    }
}

fn state_dir(session: &Session<'_>) -> Check {
    let folder = session.config.state_dir();
    let name = "state directory";
    let probe = std::fs::create_dir_all(&folder).and_then(|()| tempfile::tempfile_in(&folder));
    match probe {
        Ok(_) => Check::new(name, Status::Ok, folder.display().to_string()),
        Err(error) => Check::new(
            name,
            Status::Fail,
            format!("{} cannot be written: {error}", folder.display()),
        )
        .hint("give another one with `--state DIR`, or make it writable"),
    }
}

async fn journal(session: &Session<'_>) -> Check {
    let journal = match session.existing_journal() {
        Ok(Some(journal)) => journal,
        Ok(None) => return Check::new("journal", Status::Skip, "there is none yet"),
        Err(error) => return Check::new("journal", Status::Fail, told(&error)),
    };
    match journal.verify().await {
        Ok(found) => match found.broken {
            None => {
                let text = format!("{} events are as they were written", found.events);
                Check::new("journal", Status::Ok, text)
            }
            Some(broken) => {
                let text = format!("broken at event {}: {}", broken.position, broken.what);
                Check::new("journal", Status::Fail, text)
                    .hint("keep a copy, and compare it with a backup")
            }
        },
        Err(error) => Check::new("journal", Status::Fail, told(&error)),
    }
}

fn time_zones() -> Check {
    // The zones are compiled in; schedules and windows need nothing of the system.
    let zones = chrono_tz::TZ_VARIANTS.len();
    Check::new("time zones", Status::Ok, format!("{zones} are known"))
}

async fn local_postgres(session: &Session<'_>) -> Check {
    let name = "PostgreSQL on this machine";
    let search = match session.local_postgres().search().await {
        Ok(search) => search,
        Err(error) => {
            let help = error.help().unwrap_or_else(|| "set `local_postgres.binaries`".to_owned());
            return Check::new(name, Status::Fail, told(&error)).hint(help);
        }
    };
    if let Some(found) = search.found {
        let text = format!("{} in {}", found.version, found.bin_dir.display());
        return Check::new(name, Status::Ok, text);
    }
    let check = Check::new(name, Status::Warn, "none is installed; the first use fetches one");
    let rejected: Vec<String> = search.rejected.iter().map(ToString::to_string).collect();
    if rejected.is_empty() { check } else { check.hint(rejected.join("\n")) }
}

fn files(session: &Session<'_>) -> Check {
    match library::resolve(session, &[]) {
        Ok((0, _)) => Check::new("workflows", Status::Skip, "there are none here")
            .hint("`lakeops init` writes one to start from"),
        Ok((number, resolution)) if resolution.is_sound() => {
            Check::new("workflows", Status::Ok, format!("{number} without a mistake"))
        }
        Ok(_) => Check::new("workflows", Status::Warn, "some have mistakes")
            .hint("`lakeops validate` shows them"),
        Err(error) => Check::new("workflows", Status::Fail, told(&error)),
    }
}

async fn connection(
    session: &Session<'_>,
    name: &str,
    args: &Args,
) -> Result<Vec<Check>, CliError> {
    let title = format!("connection {name}");
    let is_selected = session.config.selected_connection() == name;
    let skip = |why: &str| Ok(vec![Check::new(title.clone(), Status::Skip, why)]);
    match session.config.connections().get(name) {
        Some(Connection::Emulator { file }) if !is_selected && !file.is_file() => {
            skip("it does not run")
        }
        Some(Connection::Local) if !is_selected => skip("not selected, so it is not started"),
        Some(connection @ (Connection::Emulator { .. } | Connection::Lakebase(_))) => {
            let target = library::target(args.target.as_deref())?;
            Ok(workspace::checks(session, &title, connection, (&target, args.wake)).await)
        }
        Some(Connection::Local | Connection::Postgres { .. }) | None => {
            Ok(match session.server(name).await {
                Ok(endpoint) => server::checks(session, &title, endpoint).await,
                Err(error) => vec![Check::failed(title, &error, error.help())],
            })
        }
    }
}
