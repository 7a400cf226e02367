//! `lakeops completions`

use clap::CommandFactory as _;

use crate::cli::args::Cli;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::session::Shell;

/// Write completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops completions bash > /etc/bash_completion.d/lakeops
  lakeops completions zsh > ~/.zfunc/_lakeops
  lakeops completions fish > ~/.config/fish/completions/lakeops.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Writes them to stdout.
pub(crate) fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lakeops", &mut script);
    shell.out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
