//! `lakeops demo`

use std::io::IsTerminal as _;

use crate::cli::demo::{DemoOptions, Screen, play};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Bar;
use crate::cli::session::{Session, Shell};

/// See the whole story on a Lakebase of this machine, in a minute
///
/// Starts an emulator of its own with a real PostgreSQL 17, makes a database sick, lets the shipped
/// workflows find out what is wrong, kills its own worker in the middle, goes on where it was, rehearses
/// a dangerous change on a throw-away branch, stops for an approval, heals, and proves that it helped.
/// At a terminal you are asked; elsewhere the demo decides by itself, for its own database only.
/// Everything shown was measured or read from the journal. It works in a folder of its own below the
/// state directory: your journal is not touched, and no process, database or branch is left. Exits with
/// 0 only if every promise held.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops demo
  lakeops demo --yes               without being asked
  lakeops demo --output json       only the report, at the end")]
pub(crate) struct Args {
    /// Do not ask: the demo approves by itself, for its own database
    #[arg(long)]
    yes: bool,
}

/// Plays the demo.
pub(crate) async fn run(shell: &Shell, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(shell)?;
    let program =
        std::env::current_exe().map_err(|error| CliError::unreadable("lakeops", error))?;
    // Who cannot see what is asked is not asked.
    let is_person = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let options = DemoOptions {
        state: session.config.state_dir(),
        server: session.server_options(),
        program,
        environment: std::sync::Arc::clone(&shell.environment),
        redactor: shell.out.redactor().clone(),
        can_ask: is_person && !args.yes && !shell.prints_json(),
        clock: std::sync::Arc::clone(&shell.clock),
        ids: std::sync::Arc::clone(&shell.ids),
    };
    let mut screen = if shell.prints_json() {
        Screen::silent()
    } else {
        Screen::new(Box::new(std::io::stdout()), shell.out.data_style())
    };
    let report = Box::pin(play(&options, Box::new(Bar::new(&shell.out)), &mut screen)).await?;
    if shell.prints_json() {
        shell.out.data(&report, |_| String::new())?;
    }
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}
