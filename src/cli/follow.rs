//! Working on a run in the foreground: progress for whoever watches, Ctrl-C parks it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::channels;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::session::Session;
use crate::engine::Engine;
use crate::engine::parts::Observer;
use crate::journal::event::Event;
use crate::journal::{Entry, Outcome};
use crate::kernel::{RunId, Timestamp};
use crate::plan::Plan;
use crate::report::run::{self, Detail};
use crate::report::style::{Style, Tone};
use crate::report::timeline;

/// What whoever watches is told meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Everything that happens.
    All,
    /// Not which steps are skipped.
    Work,
}

/// Works on a run until it is over, waits for somebody, or is interrupted.
pub async fn execute(
    session: &Session<'_>,
    engine: &Engine,
    run: &RunId,
) -> Result<(Outcome, bool), CliError> {
    execute_telling(session, engine, run, Told::All).await
}

/// The same, and says what of it whoever watches is told.
pub async fn execute_telling(
    session: &Session<'_>,
    engine: &Engine,
    run: &RunId,
    told: Told,
) -> Result<(Outcome, bool), CliError> {
    let (interrupt, observer) = (CancellationToken::new(), watcher(session, told));
    let listener = tokio::spawn(listen(interrupt.clone(), session.shell.out.clone()));
    let outcome = engine.execute_apart(run, interrupt.clone(), observer).await;
    listener.abort();
    Ok((outcome?, interrupt.is_cancelled()))
}

/// Tries a plan's changes on throw-away branches and prints what that showed.
pub async fn rehearse_and_print(
    session: &Session<'_>,
    engine: &Engine,
    plan: &Plan,
) -> Result<Exit, CliError> {
    let (interrupt, observer) = (CancellationToken::new(), watcher(session, Told::All));
    let listener = tokio::spawn(listen(interrupt.clone(), session.shell.out.clone()));
    let by = session.principal()?;
    let rehearsed = engine.rehearse(plan, by, interrupt.clone(), observer).await;
    listener.abort();
    let (run, outcome) = rehearsed?;
    let view = session.view_of(&run).await?;
    session.shell.out.data(&view, |style| run::run(style, &view, Detail::Changes))?;
    Ok(if interrupt.is_cancelled() { Exit::Interrupted } else { Exit::of_outcome(outcome) })
}

fn watcher(session: &Session<'_>, told: Told) -> Arc<dyn Observer> {
    Arc::new(Watcher { out: session.shell.out.clone(), told })
}

/// What is printed of a run as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// How it stands.
    Run,
    /// The outputs of the workflow, once it has succeeded.
    Outputs,
    /// The output of its only step, once it has succeeded.
    StepOutput,
}

/// Works on a run and prints how it stands afterwards.
pub async fn execute_and_print(
    session: &Session<'_>,
    engine: &Engine,
    run: &RunId,
    shows: Shows,
) -> Result<Exit, CliError> {
    let (outcome, was_interrupted) = execute(session, engine, run).await?;
    channels::deliver(session).await;
    let view = session.view_of(run).await?;
    let text = |style| run::run(style, &view, Detail::Changes);
    let out = &session.shell.out;
    match (shows, view.steps.first()) {
        (Shows::Outputs, _) if outcome == Outcome::Succeeded => out.data(&view.outputs, text)?,
        (Shows::StepOutput, Some(step)) if outcome == Outcome::Succeeded => {
            out.data(&step.output, text)?;
        }
        _ => out.data(&view, text)?,
    }
    let is_parked = was_interrupted && !outcome.is_final();
    Ok(if is_parked { Exit::Interrupted } else { Exit::of_outcome(outcome) })
}

async fn listen(interrupt: CancellationToken, out: Output) {
    told_to_end().await;
    out.note("interrupted: what has begun is settled, then the run is parked");
    interrupt.cancel();
}

/// Resolves when somebody wants the process to end: Ctrl-C, or SIGTERM.
pub async fn told_to_end() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let told = async {
        match terminate {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = told => {}
    }
}

/// Prints what happens while it happens, for whoever watches.
struct Watcher {
    out: Output,
    told: Told,
}

impl Observer for Watcher {
    fn event(&self, run: &RunId, at: Timestamp, event: &Event) {
        let is_told = self.told == Told::All || !matches!(event, Event::StepSkipped { .. });
        if !self.out.is_watched() || !is_told {
            return;
        }
        let entry =
            Entry { position: 0, stream: run.to_string(), seq: 0, at, event: event.clone() };
        self.out.note(&timeline::line(self.out.message_style(), &entry));
    }

    fn progress(&self, step: &str, text: &str) {
        if self.out.is_watched() {
            let style: Style = self.out.message_style();
            self.out.note(&style.paint(Tone::Faint, &format!("{:>12} {step:<24} {text}", "")));
        }
    }
}
