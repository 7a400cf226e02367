//! What a child process of a test does: it carries the plan of its folder out, within a fence, and dies
//! where it is told to.
//!
//! The folder holds `order.json` and `plan.json`; the process adds a line to `trace` for each boundary, one to
//! `died` where it dies unless one place was named, and writes `outcome` when it ends by itself. Below `state` is its journal, and `files` is its working directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::boundary::Boundary;
use super::fence::{Fence, fenced};
use crate::engine::kill::ArmedKill;
use crate::engine::parts::{Parts, Unobserved};
use crate::engine::{Engine, EngineError, StartOptions};
use crate::journal::event::{Decision, Outcome, Principal};
use crate::journal::{JournalError, Stream};
use crate::kernel::kill::Unarmed;
use crate::kernel::{KillPoints, Redactor, RunId, Span, Timestamp};
use crate::plan::Plan;
use crate::plan::document::PlanError;
use crate::report::RunView;

/// What a process is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Where it dies.
    pub kill: Option<Boundary>,
    /// Whether it dies at the first boundary at which no process of its run died yet.
    pub kills_each: bool,
    /// What it does not reach beyond.
    pub fence: Fence,
    /// Whether it approves what is asked.
    pub approves: bool,
    /// Whether programs are run, requests sent and files written outside of its folder.
    pub outside: bool,
    /// How long it waits for a run that waits.
    pub patience: Span,
}

/// What a process cannot do its work without.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// Its folder cannot be read or written.
    #[error("{path} cannot be used")]
    Folder {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its order is none.
    #[error("the order cannot be read")]
    Order(#[from] serde_json::Error),
    /// Its plan is none.
    #[error("the plan cannot be read")]
    Plan(#[from] PlanError),
    /// The engine cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] JournalError),
}

/// Makes starting idempotent.
const KEY: &str = "crash test";

/// The shortest pause before a run that waits is looked at again.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) const ORDER: &str = "order.json";
pub(super) const PLAN: &str = "plan.json";
pub(super) const TRACE: &str = "trace";
pub(super) const OUTCOME: &str = "outcome";
pub(super) const DIED: &str = "died";
pub(super) const STATE: &str = "state";
pub(super) const FILES: &str = "files";

fn at(path: PathBuf) -> impl FnOnce(std::io::Error) -> WorkError {
    move |source| WorkError::Folder { path, source }
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, WorkError> {
    let path = folder.join(name);
    fs::read(&path).map_err(at(path))
}

fn order(folder: &Path) -> Result<Order, WorkError> {
    Ok(serde_json::from_slice(&read(folder, ORDER)?)?)
}

/// The plan of a process.
pub fn plan(folder: &Path) -> Result<Plan, WorkError> {
    Ok(Plan::parse(&read(folder, PLAN)?)?)
}

/// Where a process dies, and where it leaves its trace.
pub fn kill_points(folder: &Path) -> Result<Arc<dyn KillPoints>, WorkError> {
    let order = order(folder)?;
    let trace = folder.join(TRACE);
    let kill = order.kill.as_ref();
    let armed = ArmedKill::new(kill.map(|kill| kill.nth), Some(&trace)).map_err(at(trace))?;
    Ok(match order.kill {
        Some(kill) => Arc::new(armed.named(kill.name)),
        None if order.kills_each => {
            let died = folder.join(DIED);
            Arc::new(armed.each(&died).map_err(at(died))?)
        }
        None => Arc::new(armed),
    })
}

/// Carries the plan of a folder out, with the parts of an engine whose boundaries are [`kill_points`].
pub async fn work(folder: &Path, parts: Parts, redactor: Redactor) -> Result<Outcome, WorkError> {
    let (order, plan) = (order(folder)?, plan(folder)?);
    // What is rehearsed is not what is tested: it has a branch of its own beyond the fence, and nobody dies in it.
    let beyond = Parts { kill: Arc::new(Unarmed), ..parts.clone() };
    let rehearser = Engine::new(beyond).masking(redactor.clone());
    let parts = fenced(parts, &order.fence, folder, order.outside);
    let engine = Engine::new(parts).masking(redactor);
    let by = engine.parts().principal.clone();
    let options = StartOptions { key: Some(KEY.to_owned()), by, yes: false, forked_from: None };
    let run = engine.start(&plan, options).await?;
    let until = engine.parts().clock.now().plus(order.patience.0);
    let outcome = loop {
        let outcome = engine.execute(&run, CancellationToken::new(), Arc::new(Unobserved)).await?;
        match outcome {
            Outcome::WaitingApproval if order.approves => {
                approve((&engine, &rehearser), &plan, &run).await?;
            }
            Outcome::Waiting | Outcome::Running if engine.parts().clock.now() < until => {
                pause(&engine, &plan, &run, until).await?;
            }
            _ => break outcome,
        }
    };
    let path = folder.join(OUTCOME);
    fs::write(&path, outcome.as_str()).map_err(at(path))?;
    Ok(outcome)
}

async fn view(engine: &Engine, plan: &Plan, run: &RunId) -> Result<RunView, WorkError> {
    let entries = engine.parts().journal.read(&Stream::Run(run.clone()), 0).await?;
    Ok(RunView::from_entries(plan, &entries))
}

/// Approves all that is asked: on a copy that is thrown away nobody has to. What must have been rehearsed for that is.
async fn approve(
    (engine, rehearser): (&Engine, &Engine),
    plan: &Plan,
    run: &RunId,
) -> Result<(), WorkError> {
    let by = Principal { name: KEY.to_owned(), from: "lakeops test crash".to_owned() };
    let view = view(engine, plan, run).await?;
    for asked in view.open_approvals() {
        let decide = || {
            let what = (run, Some(asked.step.as_str()));
            let reason = (&by, "it is done to a copy, which is thrown away");
            engine.decide_approval(what, None, Decision::Approved, reason)
        };
        if let Err(refused) = decide().await {
            if asked.request.rehearsed_within.is_none() {
                return Err(refused.into());
            }
            let interrupt = CancellationToken::new();
            rehearser.rehearse(plan, by.clone(), interrupt, Arc::new(Unobserved)).await?;
            decide().await?;
        }
    }
    Ok(())
}

async fn pause(
    engine: &Engine,
    plan: &Plan,
    run: &RunId,
    until: Timestamp,
) -> Result<(), WorkError> {
    let clock = &engine.parts().clock;
    let soon = clock.now().plus(PAUSE);
    let wake_at = view(engine, plan, run).await?.wake_at.unwrap_or(soon);
    clock.sleep_until(wake_at.max(soon).min(until)).await;
    Ok(())
}
