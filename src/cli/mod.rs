//! The command line: one file per verb, mirroring what a person types.
//!
//! Nothing here decides: verbs gather what the engine needs, call it, and print a report. stdout is data,
//! stderr is everything else. Start with `args::Cli`, then a file of `commands`.

pub mod args;
pub mod bench;
pub mod bench_branch;
pub mod channels;
mod commands;
pub(crate) mod crash_ground;
pub(crate) mod daemon;
pub mod demo;
pub mod doctor;
pub mod error;
pub mod exit;
pub mod follow;
pub mod history_bench;
pub mod library;
pub mod logging;
pub mod occasions;
pub mod output;
pub mod places;
pub mod progress;
pub(crate) mod prompt;
pub mod session;
mod telemetry;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use self::args::Cli;
use self::error::CliError;
use self::exit::Exit;
use self::session::Shell;
use crate::config::{Environment, ProcessEnvironment};

/// Runs the program with the arguments of its process.
pub fn main() -> ExitCode {
    run(std::env::args_os(), Arc::new(ProcessEnvironment)).into()
}

/// Runs the program. Nothing heavy happens before the arguments are parsed.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Arc<dyn Environment>,
) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(shown) => {
            // Whoever reads our output may have gone; help that nobody reads is no failure.
            drop(shown.print());
            return if shown.use_stderr() { Exit::Invalid } else { Exit::Done };
        }
    };
    let shell = match Shell::new(cli.global, environment) {
        Ok(shell) => shell,
        Err(error) => return report(None, &error),
    };
    match work(cli.command, &shell) {
        Ok(exit) => exit,
        Err(error) => report(Some(&shell), &error),
    }
}

fn work(command: args::Command, shell: &Shell) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| CliError::unreadable("the state of the machine", source))?;
    runtime.block_on(Box::pin(commands::run(command, shell)))
}

fn report(shell: Option<&Shell>, error: &CliError) -> Exit {
    if !error.is_silent() {
        match shell {
            Some(shell) if shell.logs_json() => {
                shell.out.error(&format!("{}\n", error.to_json()));
            }
            Some(shell) => shell.out.error(&error.render(shell.out.message_style())),
            None => {
                let mut stderr = std::io::stderr().lock();
                let text = error.render(crate::report::Style::PLAIN);
                drop(std::io::Write::write_all(&mut stderr, text.as_bytes()));
            }
        }
    }
    error.exit()
}
