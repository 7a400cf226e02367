//! `lakeops schema`

use std::path::PathBuf;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::library;
use crate::cli::session::Session;
use crate::tools::Catalog;

/// Write the JSON Schema of workflow files, for editors
///
/// With it an editor completes keys and tools, shows what each argument means, and marks mistakes. A
/// workflow names it in its first line: `# yaml-language-server: $schema=.schema/workflow.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops schema > workflow.json
  lakeops schema -o workflows/.schema/workflow.json")]
pub(crate) struct Args {
    /// Write to a file instead of stdout
    #[arg(short, long = "out", value_name = "FILE")]
    out_file: Option<PathBuf>,
}

/// Writes it.
pub(crate) fn run(session: &Session<'_>, args: &Args) -> Result<Exit, CliError> {
    let (_, resolution) = library::resolve(session, &[])?;
    let workflows = resolution.workflows.values();
    let registered = workflows.filter(|workflow| workflow.spec.registration.is_some());
    let registered: Vec<&str> =
        registered.map(|workflow| workflow.spec.name.value.as_str()).collect();
    let schema = crate::workflow::schema::schema(&Catalog::builtin(), &registered);
    let text = format!("{schema:#}\n");
    match &args.out_file {
        None => session.shell.out.text(&text)?,
        Some(path) => {
            let full = session.shell.path(path);
            let folder = full.parent().map(std::fs::create_dir_all).transpose();
            folder
                .and_then(|_| std::fs::write(&full, text))
                .map_err(|error| CliError::unwritable(path.clone(), error))?;
        }
    }
    Ok(Exit::Done)
}
