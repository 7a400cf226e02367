//! One file per verb: its arguments, whose doc comments are the help, and what it does.

pub(crate) mod approvals;
pub(crate) mod approve;
pub(crate) mod ask;
pub(crate) mod audit;
pub(crate) mod backtest;
pub(crate) mod bench;
pub(crate) mod bench_branch;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod emulator;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod fork;
pub(crate) mod freeze;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod logs;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod reject;
pub(crate) mod report;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schedule;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod show;
pub(crate) mod sop;
pub(crate) mod sql;
pub(crate) mod test;
pub(crate) mod test_crash;
pub(crate) mod thaw;
pub(crate) mod tools;
pub(crate) mod validate;
pub(crate) mod watch;

use super::args::Command;
use super::error::CliError;
use super::exit::Exit;
use super::output::Format;
use super::session::{Session, Shell};

/// Carries a verb out.
pub(super) async fn run(command: Command, shell: &Shell) -> Result<Exit, CliError> {
    let is_table = matches!(command, Command::Audit(_) | Command::History(_));
    if shell.out.format() == Format::Csv && !is_table {
        return Err(CliError::usage_with(
            "only `audit` and `history query` print CSV",
            "use `--output text` or `--output json`",
        ));
    }
    match command {
        Command::Completions(args) => completions::run(shell, &args),
        Command::Init(args) => init::run(shell, &args),
        Command::Demo(args) => demo::run(shell, &args).await,
        Command::Bench(args) => bench::run(shell, &args).await,
        Command::Doctor(args) => doctor::run(shell, &args).await,
        command => {
            let session = Session::open(shell)?;
            let done = Box::pin(with_session(command, &session)).await;
            let closed = session.close().await;
            let exit = done?;
            closed.map(|()| exit)
        }
    }
}

async fn with_session(command: Command, session: &Session<'_>) -> Result<Exit, CliError> {
    match command {
        Command::Config(args) => config::run(session, &args),
        Command::Validate(args) => validate::run(session, &args),
        Command::Schema(args) => schema::run(session, &args),
        Command::Plan(args) => plan::run(session, args).await,
        Command::Run(args) => run::run(session, args).await,
        Command::Resume(args) => resume::run(session, args).await,
        Command::Cancel(args) => cancel::run(session, args).await,
        Command::Fork(args) => fork::run(session, args).await,
        Command::Settle(args) => settle::run(session, args).await,
        Command::Approvals(args) => approvals::run(session, args).await,
        Command::Approve(args) => approve::run(session, args).await,
        Command::Reject(args) => reject::run(session, args).await,
        Command::Runs(args) => runs::run(session, args).await,
        Command::Show(args) => show::run(session, args).await,
        Command::Logs(args) => logs::run(session, args).await,
        Command::Watch(args) => watch::run(session, args).await,
        Command::Explain(args) => explain::run(session, args).await,
        Command::Serve(args) => serve::run(session, args).await,
        Command::Schedule(args) => schedule::run(session, args).await,
        Command::Audit(args) => audit::run(session, args).await,
        Command::Export(args) => export::run(session, args),
        Command::Report(args) => report::run(session, args).await,
        Command::Ask(args) => Box::pin(ask::run(session, args)).await,
        Command::Tools(args) => tools::run(session, args).await,
        Command::Sql(args) => sql::run(session, args).await,
        Command::Sop(args) => sop::run(session, args).await,
        Command::Test(args) => test::run(session, args).await,
        Command::History(args) => history::run(session, args).await,
        Command::Emulator(args) => Box::pin(emulator::run(session, args)).await,
        Command::Freeze(args) => freeze::run(session, args).await,
        Command::Thaw(args) => thaw::run(session, args).await,
        Command::Completions(_)
        | Command::Init(_)
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::Doctor(_) => Ok(Exit::Done),
    }
}
