//! `lakeops validate`

use std::path::PathBuf;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::Session;
use crate::report::style::count;
use crate::workflow::Diagnostic;

/// Check workflow files: all mistakes of all files at once
///
/// Checks syntax, keys, tools and their arguments, references between steps, expressions, scripts, cron
/// expressions and secrets. No database is needed, and nothing is run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops validate                          every workflow of the folder
  lakeops validate workflows/mine.yaml
  lakeops validate --output json            for editors and CI")]
pub(crate) struct Args {
    /// The files; none: all of the workflows' folder
    files: Vec<PathBuf>,
}

/// Checks them.
pub(crate) fn run(session: &Session<'_>, args: &Args) -> Result<Exit, CliError> {
    let (files, resolution) = library::resolve(session, &args.files)?;
    let found = &resolution.diagnostics;
    if session.shell.prints_json() {
        let json: Vec<_> = found.iter().map(Diagnostic::to_json).collect();
        session.shell.out.data(&json, |_| String::new())?;
    } else {
        library::print_diagnostics(session, found);
    }
    if !resolution.is_sound() {
        return Err(library::mistakes(found));
    }
    if !session.shell.prints_json() {
        let text = format!("{} without a mistake\n", count(files, "workflow"));
        session.shell.out.text(&text)?;
    }
    Ok(Exit::Done)
}
