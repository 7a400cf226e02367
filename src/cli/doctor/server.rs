//! What a server is like, and what its user may do there.

use serde::Deserialize;

use super::{Check, Status, told};
use crate::cli::session::Session;
use crate::kernel::{Ident, SqlFile};
use crate::postgres::{PgEndpoint, PgReader};
use crate::sql_file;

static PRIVILEGES: SqlFile = sql_file!("doctor/privileges");
static EXTENSIONS: SqlFile = sql_file!("doctor/extensions");

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
    tables: u64,
    tables_not_owned: u64,
    owners: Vec<String>,
}

#[derive(Deserialize)]
struct Extension {
    name: String,
    available: Option<String>,
    installed: Option<String>,
}

/// Looks at a server: version, privileges, extensions.
pub async fn checks(session: &Session<'_>, title: &str, endpoint: PgEndpoint) -> Vec<Check> {
    let (label, is_lakebase) = (endpoint.label(), endpoint.compute().is_some());
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
        checks.push(privilege_check(title, &found, is_lakebase));
        checks.push(ownership_check(title, &found));
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
fn privilege_check(title: &str, found: &Privileges, is_lakebase: bool) -> Check {
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
    // Nobody is superuser there.
    let who = if is_lakebase { "a member of databricks_superuser" } else { "a superuser" };
    let text =
        format!("some readings are not measured, and some changes are refused; {who} can run:");
    Check::new(name, Status::Warn, text).hint(grants.join("\n"))
}

/// Indexes are built, and tables altered, by owners alone.
fn ownership_check(title: &str, found: &Privileges) -> Check {
    let name = format!("{title}: ownership");
    if found.tables_not_owned == 0 {
        let text = format!("all {} tables may be altered", found.tables);
        return Check::new(name, Status::Ok, text);
    }
    let user = Ident::new(&found.user);
    let grants = found.owners.iter().map(|owner| format!("grant {} to {user};", Ident::new(owner)));
    let text = format!(
        "{} of {} tables belong to others: their indexes cannot be built or dropped, and they cannot \
         be altered; to act as an owner, who may grant it can run:",
        found.tables_not_owned, found.tables
    );
    Check::new(name, Status::Warn, text).hint(grants.collect::<Vec<_>>().join("\n"))
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
