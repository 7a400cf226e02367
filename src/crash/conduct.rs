//! The whole test: undisturbed runs, a run for each kill, and what they left beside one another.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::boundary::{Boundary, chosen, common, second};
use super::ground::Ground;
use super::report::{InOneRun, Line, Report, Verdict};
use super::snapshot::{Difference, Reference, Snapshot};
use super::trial::{End, Launcher, Left, Trial};
use super::worker::WorkError;
use crate::history::HistoryError;
use crate::journal::JournalError;
use crate::journal::event::Outcome;
use crate::kernel::{Clock, Failure, Redactor, Span};

/// How often a kill is tried whose place is not reached each time.
const TRIES: u32 = 3;

/// What is tested, and how.
pub struct Test {
    /// Where runs begin.
    pub ground: Arc<dyn Ground>,
    /// What starts processes.
    pub launcher: Arc<dyn Launcher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What no output shows.
    pub redactor: Redactor,
    /// Only boundaries that fit one of these patterns; none: all.
    pub only: Vec<String>,
    /// At most so many, spread evenly.
    pub sample: Option<usize>,
    /// One run that dies once at each boundary, instead of a run for each of them.
    pub in_one_run: bool,
    /// How many runs are worked on at once.
    pub jobs: usize,
    /// Whether what is asked is approved.
    pub approves: bool,
    /// Whether programs are run, requests sent and files written for real.
    pub outside: bool,
    /// Files that each run finds in its working directory.
    pub files: Option<PathBuf>,
    /// How long one run may take.
    pub patience: Span,
}

/// Told how far a test is.
pub trait Progress: Send + Sync {
    /// What is being done before anything is killed.
    fn stage(&self, what: &str);
    /// How many boundaries of how many are done; the first call says zero.
    fn done(&self, done: usize, of: usize);
}

/// Why a test cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CrashError {
    /// A copy cannot be made or looked at.
    #[error("{0}")]
    Ground(#[from] Failure),
    /// The folder of a run cannot be used.
    #[error("the folder of a run cannot be used")]
    Folder(#[source] std::io::Error),
    /// What a process is told cannot be written.
    #[error("what a process is told cannot be written: {0}")]
    Plan(String),
    /// A process cannot be started.
    #[error("a process cannot be started")]
    Process(#[source] std::io::Error),
    /// A process did not end.
    #[error("a process did not end within {}", humantime::format_duration(*within))]
    TooLong {
        /// After how long.
        within: Duration,
    },
    /// A process died by SIGKILL, but not where it was told to.
    #[error("a process was killed by somebody else on its way to {wanted}")]
    KilledElsewhere {
        /// Where it was told to die.
        wanted: String,
    },
    /// A process says how its run stands in words that nobody knows.
    #[error("a process says of its run `{said}`, which is no outcome")]
    NoOutcome {
        /// What it says.
        said: String,
    },
    /// A process ended with an error.
    #[error("a process ended with an error: {said}")]
    Failed {
        /// What it said.
        said: String,
    },
    /// A journal has not one run.
    #[error("the journal has {found} runs, and one was started")]
    Runs {
        /// How many.
        found: usize,
    },
    /// The undisturbed run waits for somebody.
    #[error("undisturbed, the run does not end: it is `{outcome}`{what}")]
    Waits {
        /// How it stands.
        outcome: String,
        /// What it waits for.
        what: String,
    },
    /// Nothing is left to be tested.
    #[error("none of the {of} boundaries fits")]
    NothingFits {
        /// How many there are.
        of: usize,
    },
    /// A journal cannot be read.
    #[error("the journal of a run cannot be read")]
    Journal(#[from] JournalError),
    /// A history cannot be read.
    #[error("the history of a run cannot be read")]
    History(#[from] HistoryError),
    /// A process cannot do what it is told.
    #[error("this process cannot do what it is told")]
    Work(#[from] WorkError),
    /// Somebody interrupted it.
    #[error("interrupted")]
    Interrupted,
}

impl CrashError {
    /// Whether what was typed is the mistake.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::NothingFits { .. })
    }

    /// What to do next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Ground(failure) => failure.help.clone(),
            Self::Waits { outcome, .. } if outcome == "waiting_approval" => Some(
                "with `--approve-all` everything is approved: it is done to copies, which are thrown away"
                    .to_owned(),
            ),
            Self::Waits { .. } => {
                Some("give parameters with which it ends by itself, or more time: `--within 30m`".to_owned())
            }
            Self::TooLong { .. } => Some("give it more: `--within 30m`".to_owned()),
            Self::NothingFits { .. } => {
                Some("look at all of them: leave `--only` out, with `--sample 1`".to_owned())
            }
            _ => None,
        }
    }
}

/// Carries a test out. Every copy is removed, also when it fails or is interrupted.
pub async fn conduct(
    test: &Test,
    interrupt: &CancellationToken,
    progress: &dyn Progress,
) -> Result<Report, CrashError> {
    let conductor = Conductor {
        test,
        progress,
        numbers: AtomicUsize::new(0),
        kills: AtomicUsize::new(0),
        open: Mutex::default(),
    };
    let outcome = tokio::select! {
        outcome = Box::pin(conductor.all()) => outcome,
        () = interrupt.cancelled() => Err(CrashError::Interrupted),
    };
    progress.stage("removing the copies");
    let left = std::mem::take(&mut *conductor.open());
    for number in left {
        if let Err(failure) = test.ground.remove(number).await {
            tracing::warn!(%failure, number, "a copy is left");
        }
    }
    if let Err(failure) = test.ground.clear().await {
        tracing::warn!(%failure, "what copies were made of is left");
    }
    outcome
}

struct Conductor<'a> {
    test: &'a Test,
    progress: &'a dyn Progress,
    numbers: AtomicUsize,
    kills: AtomicUsize,
    /// The numbers of the copies that may be there.
    open: Mutex<BTreeSet<usize>>,
}

/// What an undisturbed run showed.
struct Undisturbed {
    workflow: String,
    outcome: Outcome,
    boundaries: Vec<Boundary>,
    snapshot: Snapshot,
}

/// What a run that was killed showed.
enum Killed {
    /// It ended without coming to the place of a kill.
    NotReached,
    Ended {
        left: Box<Left>,
        recovery: Vec<Boundary>,
    },
}

impl Conductor<'_> {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeSet<usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn all(&self) -> Result<Report, CrashError> {
        let began = self.test.clock.now();
        self.progress.stage("copying what the runs begin with");
        self.test.ground.prepare().await?;
        self.progress.stage("running it undisturbed, the first of two times");
        let first = self.undisturbed().await?;
        self.progress.stage("running it undisturbed, the second of two times");
        let other = self.undisturbed().await?;
        let outcome = format!("{} twice", first.outcome.as_str());
        let boundaries = common(first.boundaries, &other.boundaries);
        let reference = Reference::of(first.snapshot, &other.snapshot);
        let of = boundaries.len();
        let (lines, in_one_run) = if self.test.in_one_run {
            self.progress.stage("running it again, with a kill at each boundary");
            (Vec::new(), Some(self.in_one_run(&reference).await))
        } else {
            (self.one_by_one(boundaries, &reference).await?, None)
        };
        Ok(Report {
            workflow: first.workflow,
            ground: self.test.ground.about(),
            outcome,
            boundaries: of,
            kills: self.kills.load(Ordering::Relaxed),
            lines,
            in_one_run,
            not_compared: reference.not_compared(),
            took: self.test.clock.now().since(began),
        })
    }

    /// Runs for each of the boundaries that are asked for, which are killed there.
    async fn one_by_one(
        &self,
        boundaries: Vec<Boundary>,
        reference: &Reference,
    ) -> Result<Vec<Line>, CrashError> {
        let of = boundaries.len();
        let chosen = chosen(boundaries, &self.test.only, self.test.sample);
        if chosen.is_empty() {
            return Err(CrashError::NothingFits { of });
        }
        let number = chosen.len();
        self.progress.done(0, number);
        let done = AtomicUsize::new(0);
        let lines =
            futures::stream::iter(chosen.into_iter().enumerate()).map(|(place, boundary)| {
                let done = &done;
                async move {
                    let line = self.line(place, boundary, reference).await;
                    self.progress.done(done.fetch_add(1, Ordering::Relaxed) + 1, number);
                    line
                }
            });
        Ok(lines.buffered(self.test.jobs.max(1)).collect().await)
    }

    /// A fresh copy for the time of `work`.
    async fn on_a_copy<T>(
        &self,
        work: impl AsyncFnOnce(&Trial<'_>) -> Result<T, CrashError>,
    ) -> Result<T, CrashError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number);
        let done = match self.test.ground.place(number).await {
            Ok(place) => match Trial::new(self.test, &place) {
                Ok(trial) => work(&trial).await,
                Err(error) => Err(error),
            },
            Err(failure) => Err(failure.into()),
        };
        match self.test.ground.remove(number).await {
            Ok(()) => {
                self.open().remove(&number);
            }
            // It is tried again at the end.
            Err(failure) => tracing::debug!(%failure, number, "a copy is left for now"),
        }
        done
    }

    async fn undisturbed(&self) -> Result<Undisturbed, CrashError> {
        self.on_a_copy(async |trial| {
            let end = trial.process(None).await?;
            let boundaries = trial.boundaries();
            let left = trial.left().await?;
            match end {
                End::Outcome(outcome) if outcome.is_final() => {
                    if let Some(fault) = left.faults.first() {
                        let text = format!("undisturbed, {fault}");
                        return Err(Failure::permanent("crash::journal", text).into());
                    }
                    let workflow = trial.workflow().to_owned();
                    Ok(Undisturbed { workflow, outcome, boundaries, snapshot: left.snapshot })
                }
                _ => {
                    let what = left.view.waiting_for.first().map(|what| format!(", for {what}"));
                    let outcome = left.view.outcome.as_str().to_owned();
                    Err(CrashError::Waits { outcome, what: what.unwrap_or_default() })
                }
            }
        })
        .await
    }

    async fn line(&self, place: usize, boundary: Boundary, reference: &Reference) -> Line {
        let (kill, recovery) = self.judged(&[&boundary], reference).await;
        let mut second = second(&recovery, place).cloned();
        let mut double_kill = match &second {
            Some(second) => self.judged(&[&boundary, second], reference).await.0,
            None => Verdict::NotTried,
        };
        // Where steps run side by side, another part of them is left each time. Every recovery begins
        // the same.
        if let (Verdict::NotReached, Some(first)) = (&double_kill, recovery.first()) {
            double_kill = self.judged(&[&boundary, first], reference).await.0;
            second = Some(first.clone());
        }
        // Nor that, when events share commits by chance: then nothing was tried, and nothing found.
        if matches!(double_kill, Verdict::NotReached) {
            (double_kill, second) = (Verdict::NotTried, None);
        }
        Line { boundary, kill, double_kill, second }
    }

    /// One run that dies once at each boundary that it passes.
    async fn in_one_run(&self, reference: &Reference) -> InOneRun {
        let ended = self.on_a_copy(async |trial| Ok((trial.dying().await?, trial.left().await?)));
        match ended.await {
            Ok((died, left)) => {
                self.kills.fetch_add(died.len(), Ordering::Relaxed);
                InOneRun { died, ended: verdict(&left, reference) }
            }
            Err(error) => InOneRun { died: Vec::new(), ended: broken(&error) },
        }
    }

    async fn judged(&self, kills: &[&Boundary], reference: &Reference) -> (Verdict, Vec<Boundary>) {
        for _ in 0..TRIES {
            match self.killed(kills).await {
                Ok(Killed::NotReached) => {}
                Ok(Killed::Ended { left, recovery }) => {
                    return (verdict(&left, reference), recovery);
                }
                Err(error) => return (broken(&error), Vec::new()),
            }
        }
        (Verdict::NotReached, Vec::new())
    }

    async fn killed(&self, kills: &[&Boundary]) -> Result<Killed, CrashError> {
        self.on_a_copy(async |trial| {
            for kill in kills {
                if trial.process(Some(kill)).await? != End::Killed {
                    return Ok(Killed::NotReached);
                }
                self.kills.fetch_add(1, Ordering::Relaxed);
            }
            trial.process(None).await?;
            let recovery = trial.boundaries();
            Ok(Killed::Ended { left: Box::new(trial.left().await?), recovery })
        })
        .await
    }
}

fn broken(error: &CrashError) -> Verdict {
    let why = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let why: Vec<String> = why.map(ToString::to_string).collect();
    Verdict::Broken { why: why.join(": ") }
}

fn verdict(left: &Left, reference: &Reference) -> Verdict {
    if !left.doubts.is_empty() && left.doubts.iter().all(|doubt| doubt.is_declared) {
        let changes = left.doubts.iter().map(|doubt| doubt.what.clone()).collect();
        return Verdict::InDoubt { changes };
    }
    let at =
        |place: &str, what: &String| Difference { place: place.to_owned(), what: what.clone() };
    let mut differences: Vec<Difference> =
        left.faults.iter().map(|fault| at("journal", fault)).collect();
    differences.extend(
        left.doubts
            .iter()
            .map(|doubt| at("run", &format!("nobody can tell what became of {}", doubt.what))),
    );
    differences.extend(reference.compare(&left.snapshot));
    if differences.is_empty() { Verdict::Same } else { Verdict::Different { differences } }
}
