//! `lakeops freeze`

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::Session;
use crate::journal::Event;
use crate::journal::store::{Append, Durability, Expect, Stream};
use crate::kernel::Span;

/// Stop all changes, everywhere or on one target
///
/// Runs go on reading; no change is begun until `lakeops thaw`, or until the freeze runs out. What has
/// begun is settled.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops freeze --reason \"release day\" --for 12h
  lakeops freeze shop/production --reason \"migration by hand\"")]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// For how long; otherwise until `lakeops thaw`
    #[arg(long = "for", value_name = "DURATION", value_parser = Span::parse)]
    length: Option<Span>,
}

/// What is frozen or thawed, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Scope {
    /// The target: project/branch or project/branch/database; none: everything
    target: Option<String>,
    /// Why; kept in the audit
    #[arg(long)]
    reason: String,
}

/// Records the freeze.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    record(session, ("freeze", "frozen"), &args.scope, args.length).await
}

/// Records that a rule is overridden.
pub(crate) async fn record(
    session: &Session<'_>,
    (verb, word): (&str, &str),
    scope: &Scope,
    expires: Option<Span>,
) -> Result<Exit, CliError> {
    let place = match &scope.target {
        None => "*".to_owned(),
        some => library::target(some.as_deref())?.to_string(),
    };
    let by = session.principal()?;
    let event = Event::Override {
        what: format!("{verb} {place}"),
        by: by.clone(),
        reason: scope.reason.clone(),
        expires,
    };
    let append = Append { stream: Stream::System, expect: Expect::Anything, events: vec![event] };
    session.journal()?.append(vec![append], Durability::Synced).await?;
    let shown = scope.target.as_deref().unwrap_or("everything");
    let data = json!({ "state": word, "target": shown, "by": by, "expires": expires });
    session.shell.out.data(&data, |_| match expires {
        Some(span) => format!("{shown} is {word} for {span}\n"),
        None => format!("{shown} is {word}\n"),
    })?;
    Ok(Exit::Done)
}
