//! `lakeops doctor`

use serde::{Deserialize, Serialize};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::{Session, Shell};
use crate::config::Connection;
use crate::kernel::{Ident, SqlFile};
use crate::postgres::{PgEndpoint, PgReader};
use crate::report::style::{Style, Tone, of_state};
use crate::sql_file;

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
  lakeops doctor --output json | jq '.[] | select(.status != \"ok\")'")]
pub(crate) struct Args {
    /// Only the selected connection, not all that are configured
    #[arg(long)]
    selected: bool,
}

static PRIVILEGES: SqlFile = sql_file!("doctor/privileges");
static EXTENSIONS: SqlFile = sql_file!("doctor/extensions");

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warn,
    Fail,
    Skip,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    status: Status,
    message: String,
    hint: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, message: impl Into<String>) -> Self {
        Self { name: name.into(), status, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
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
                    checks.extend(connection(&session, name).await);
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

/// An error on one line, with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
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
    match crate::cli::library::resolve(session, &[]) {
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

async fn connection(session: &Session<'_>, name: &str) -> Vec<Check> {
    let title = format!("connection {name}");
    let is_selected = session.config.selected_connection() == name;
    match session.config.connections().get(name) {
        Some(Connection::Lakebase { .. }) => {
            return vec![Check::new(title, Status::Skip, "this version cannot reach Lakebase yet")];
        }
        Some(Connection::Local) if !is_selected => {
            return vec![Check::new(title, Status::Skip, "not selected, so it is not started")];
        }
        Some(Connection::Local | Connection::Postgres { .. }) | None => {}
    }
    match session.endpoint(name).await {
        Ok(endpoint) => server(session, &title, endpoint).await,
        Err(error) => {
            let check = Check::new(title, Status::Fail, told(&error));
            vec![match error.help() {
                Some(help) => check.hint(help),
                None => check,
            }]
        }
    }
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the columns of a query")]
struct Privileges {
    user: String,
    database: String,
    version: String,
    is_superuser: bool,
    reads_statistics: bool,
    ends_sessions: bool,
    maintains_tables: bool,
    creates_schemas: bool,
    has_schema: bool,
    in_recovery: bool,
}

#[derive(Deserialize)]
struct Extension {
    name: String,
    available: Option<String>,
    installed: Option<String>,
}

async fn server(session: &Session<'_>, title: &str, endpoint: PgEndpoint) -> Vec<Check> {
    let label = endpoint.label();
    let reader = PgReader::new(endpoint, &session.config.settings().limits, "lakeops:doctor");
    let privileges: Result<Privileges, _> = reader.row(&PRIVILEGES, &[]).await;
    let extensions: Result<Vec<Extension>, _> = reader.rows(&EXTENSIONS, &[]).await;
    reader.close().await;
    let found = match privileges {
        Ok(found) => found,
        Err(error) => {
            let check = Check::new(title, Status::Fail, told(&error));
            let help =
                error.help().unwrap_or_else(|| "is the server there, and the URL right?".into());
            return vec![check.hint(help)];
        }
    };
    let mut checks = vec![reached(title, &label, &found)];
    if !found.is_superuser {
        checks.push(privilege_check(title, &found));
    }
    checks.push(schema_check(title, &found));
    checks.extend(extensions.unwrap_or_default().iter().map(|one| extension_check(title, one)));
    checks
}

fn reached(title: &str, label: &str, found: &Privileges) -> Check {
    let text = format!("PostgreSQL {} at {label}, as {}", found.version, found.user);
    if found.in_recovery {
        Check::new(title, Status::Warn, format!("{text}; it is a standby"))
            .hint("changes need the primary")
    } else {
        Check::new(title, Status::Ok, text)
    }
}

/// The grants that are missing, as statements to be run.
fn privilege_check(title: &str, found: &Privileges) -> Check {
    let user = Ident::new(&found.user);
    let major: u32 = found.version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut grants = Vec::new();
    if !found.reads_statistics {
        grants.push(format!("grant pg_monitor to {user};  -- statistics of all sessions"));
    }
    if !found.ends_sessions {
        grants.push(format!("grant pg_signal_backend to {user};  -- ending sessions"));
    }
    if major >= 17 && !found.maintains_tables {
        grants.push(format!("grant pg_maintain to {user};  -- VACUUM, ANALYZE, REINDEX"));
    }
    let name = format!("{title}: privileges");
    if grants.is_empty() {
        return Check::new(name, Status::Ok, "statistics, ending sessions, maintenance");
    }
    let text = "some readings are not measured, and some changes are refused; a superuser can run:";
    Check::new(name, Status::Warn, text).hint(grants.join("\n"))
}

fn schema_check(title: &str, found: &Privileges) -> Check {
    let name = format!("{title}: schema lakeops");
    if found.has_schema {
        return Check::new(name, Status::Ok, "it is there");
    }
    if found.is_superuser || found.creates_schemas {
        return Check::new(name, Status::Ok, "it is made with the first change, and shown before");
    }
    let (user, database) = (Ident::new(&found.user), Ident::new(&found.database));
    let text = "it is missing, and may not be made; an owner of the database can run:";
    Check::new(name, Status::Warn, text)
        .hint(format!("create schema lakeops authorization {user};\n-- or: grant create on database {database} to {user};"))
}

fn extension_check(title: &str, one: &Extension) -> Check {
    let name = format!("{title}: extension {}", one.name);
    match (&one.installed, &one.available) {
        (Some(version), _) => Check::new(name, Status::Ok, format!("version {version}")),
        (None, Some(_)) => {
            Check::new(name, Status::Warn, "not installed; estimates are used instead")
                .hint(format!("create extension {};", Ident::new(&one.name)))
        }
        (None, None) => Check::new(name, Status::Warn, "the server does not have it"),
    }
}
