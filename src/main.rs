//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lakeops::cli::main()
}
