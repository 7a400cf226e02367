//! `lakeops approve`

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::engine::EngineError;
use crate::journal::event::Decision;
use crate::journal::store::RunSummary;
use crate::kernel::Digest;
use crate::report::run::{self as run_report, Detail};

/// Approve exactly the changes that were shown
///
/// The approval binds to the digest of the statements: should the proposal be another one when the run
/// goes on, it is asked again. Look before: `lakeops approvals RUN`. Who decided, when, why and from
/// where is kept in the audit. Goes on with the run afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops approvals 3f9a
  lakeops approve 3f9a heal --reason \"low traffic until noon\"
  lakeops approve 3f9a --reason \"as discussed\" --no-resume")]
pub(crate) struct Args {
    #[command(flatten)]
    ruling: Ruling,
}

/// What is decided on, and why: the same for both verbs.
#[derive(Debug, clap::Args)]
pub(crate) struct Ruling {
    /// The run; the beginning of its id is enough
    run: String,
    /// The step that waits; not needed when only one does
    step: Option<String>,
    /// Why; kept in the audit
    #[arg(long)]
    reason: String,
    /// Decide only when the digest begins so: for scripts that looked before
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Only record the decision
    #[arg(long)]
    no_resume: bool,
}

/// Records the approval and goes on.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    decide(session, args.ruling, Decision::Approved).await
}

/// Records a decision and goes on.
pub(crate) async fn decide(
    session: &Session<'_>,
    args: Ruling,
    decision: Decision,
) -> Result<Exit, CliError> {
    let run = session.find_run(&args.run).await?;
    let by = session.principal()?;
    let digest = match &args.digest {
        Some(text) => Some(seen(session, &run, text).await?),
        None => None,
    };
    let clerk = session.clerk().await?;
    let asked = (&run.run_id, args.step.as_deref());
    let decided = clerk.decide_approval(asked, digest.as_ref(), decision, (&by, &args.reason));
    let step = decided.await?;
    let word = if decision == Decision::Approved { "approved" } else { "rejected" };
    let note = format!("{word} `{step}` of run {} as {}", run.run_id, by.name);
    go_on(session, &run, args.no_resume, &note).await
}

/// The whole digest behind what was typed.
async fn seen(session: &Session<'_>, run: &RunSummary, text: &str) -> Result<Digest, CliError> {
    let view = session.view(run).await?;
    let known = view.open_approvals().map(|approval| approval.request.digest.clone());
    let mut fits = known.filter(|digest| text.len() >= 8 && digest.as_str().starts_with(text));
    fits.next().ok_or_else(|| {
        CliError::usage_with(
            format!("nothing that waits has a digest that begins with `{text}`"),
            "`lakeops approvals RUN` shows what is asked now",
        )
    })
}

/// Goes on with a run after a decision, unless a server does, or somebody works on it.
pub(crate) async fn go_on(
    session: &Session<'_>,
    run: &RunSummary,
    only_records: bool,
    note: &str,
) -> Result<Exit, CliError> {
    session.shell.out.note(note);
    let server = super::serve::server_of(&session.config.state_dir());
    if let (Some(server), false) = (&server, only_records) {
        session.shell.out.note(&format!("the server goes on with it ({server})"));
    }
    if !only_records && server.is_none() {
        match super::resume::one(session, run).await {
            Err(CliError::Engine(EngineError::Owned { source, .. })) => {
                session.shell.out.note(&source.to_string());
            }
            other => return other,
        }
    }
    let view = session.view_of(&run.run_id).await?;
    session.shell.out.data(&view, |style| run_report::run(style, &view, Detail::Brief))?;
    Ok(Exit::Done)
}
