//! One run of a test: a fresh copy, processes that die where they are told to, and what is left.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::boundary::{Boundary, of_trace};
use super::capture;
use super::conduct::{CrashError, Test};
use super::ground::Place;
use super::snapshot::Snapshot;
use super::worker::{DIED, FILES, ORDER, OUTCOME, Order, PLAN, STATE, TRACE};
use crate::history::Location;
use crate::journal::event::{Event, Outcome};
use crate::journal::store::RunFilter;
use crate::journal::{Entry, Journal as _, SqliteJournal, Stream};
use crate::kernel::{Direction, Recovery};
use crate::report::RunView;

/// Starts processes of a test.
pub trait Launcher: Send + Sync {
    /// The command of a process that calls [`super::worker::work`] with this folder; its state directory is
    /// `state` in the folder.
    fn command(&self, folder: &Path) -> std::process::Command;
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By SIGKILL, at the boundary that it was told.
    Killed,
    /// By itself.
    Outcome(Outcome),
}

/// A run of a test while it is worked on.
pub(super) struct Trial<'a> {
    test: &'a Test,
    place: &'a Place,
    folder: TempDir,
}

/// A change that nobody can tell the end of.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    /// The step and the change, for people.
    pub(super) what: String,
    /// Whether the workflow says that a person is asked.
    pub(super) is_declared: bool,
}

/// What a run left.
pub(super) struct Left {
    pub(super) view: RunView,
    pub(super) snapshot: Snapshot,
    pub(super) doubts: Vec<Doubt>,
    /// What the journal says that must never be.
    pub(super) faults: Vec<String>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(test: &'a Test, place: &'a Place) -> Result<Self, CrashError> {
        let folder = tempfile::Builder::new().prefix("lakeops-crash-").tempdir();
        let folder = folder.map_err(CrashError::Folder)?;
        let trial = Self { test, place, folder };
        let plan = place.plan.to_bytes().map_err(|error| CrashError::Plan(error.to_string()))?;
        fs::write(trial.path(PLAN), plan).map_err(CrashError::Folder)?;
        fs::create_dir(trial.path(STATE)).map_err(CrashError::Folder)?;
        fs::create_dir(trial.path(FILES)).map_err(CrashError::Folder)?;
        if let Some(files) = &test.files {
            copy(files, &trial.path(FILES)).map_err(CrashError::Folder)?;
        }
        Ok(trial)
    }

    /// The workflow that is run.
    pub(super) fn workflow(&self) -> &str {
        &self.place.plan.body.workflow
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a process that goes on with the run. With `kill` it has to die exactly there, unless it ends
    /// without coming to that place.
    pub(super) async fn process(&self, kill: Option<&Boundary>) -> Result<End, CrashError> {
        let end = self.carried(kill, false).await?;
        let elsewhere = |kill: &&Boundary| self.boundaries().last() != Some(*kill);
        match kill.filter(elsewhere) {
            Some(kill) if end == End::Killed => {
                Err(CrashError::KilledElsewhere { wanted: kill.to_string() })
            }
            _ => Ok(end),
        }
    }

    /// Runs processes that go on with the run, and die each at a boundary at which none died yet, until one
    /// ends by itself. The names of the boundaries.
    pub(super) async fn dying(&self) -> Result<Vec<String>, CrashError> {
        loop {
            let before = self.died().len();
            if let End::Outcome(_) = self.carried(None, true).await? {
                return Ok(self.died());
            }
            if self.died().len() == before {
                let wanted = "another boundary".to_owned();
                return Err(CrashError::KilledElsewhere { wanted });
            }
        }
    }

    fn died(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path(DIED)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn carried(&self, kill: Option<&Boundary>, kills_each: bool) -> Result<End, CrashError> {
        let order = Order {
            kill: kill.cloned(),
            kills_each,
            fence: self.place.fence.clone(),
            approves: self.test.approves,
            outside: self.test.outside,
            patience: self.test.patience,
        };
        let order =
            serde_json::to_vec(&order).map_err(|error| CrashError::Plan(error.to_string()))?;
        fs::write(self.path(ORDER), order).map_err(CrashError::Folder)?;
        for name in [TRACE, OUTCOME] {
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CrashError::Folder(error));
                }
                _ => {}
            }
        }
        let mut command = self.test.launcher.command(self.folder.path());
        command.current_dir(self.path(FILES));
        command.envs(self.place.vars.iter().map(|(name, value)| (name, value.expose())));
        let mut command = Command::from(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let patience = self.test.patience.0.saturating_add(Duration::from_secs(30));
        let ended = tokio::time::timeout(patience, command.output()).await;
        let output = ended.map_err(|_| CrashError::TooLong { within: patience })?;
        let output = output.map_err(CrashError::Process)?;
        let is_killed = output.status.signal() == Some(nix::sys::signal::Signal::SIGKILL as i32);
        if is_killed && (kill.is_some() || kills_each) {
            return Ok(End::Killed);
        }
        if output.status.success() || self.path(OUTCOME).is_file() {
            let text = fs::read_to_string(self.path(OUTCOME)).map_err(CrashError::Folder)?;
            return outcome(text).map(End::Outcome);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(CrashError::Failed { said: self.test.redactor.mask(said.trim()) })
    }

    /// What the latest process passed, in order.
    pub(super) fn boundaries(&self) -> Vec<Boundary> {
        of_trace(&fs::read_to_string(self.path(TRACE)).unwrap_or_default())
    }

    /// What the run left.
    pub(super) async fn left(&self) -> Result<Left, CrashError> {
        let mut snapshot = self.test.ground.capture(self.place).await?;
        let state = self.path(STATE);
        let (clock, redactor) = (Arc::clone(&self.test.clock), self.test.redactor.clone());
        let journal = SqliteJournal::open(&state, clock, redactor)?;
        let mut faults = Vec::new();
        if let Some(broken) = journal.verify().await?.broken {
            faults.push(format!("the chain of the journal is broken: {broken:?}"));
        }
        let runs = journal.runs(RunFilter::default()).await?;
        // Beside it may be rehearsals, which have no key.
        let started: Vec<_> = runs.iter().filter(|run| run.key.is_some()).collect();
        let [run] = started.as_slice() else {
            return Err(CrashError::Runs { found: started.len() });
        };
        let entries = journal.read(&Stream::Run(run.run_id.clone()), 0).await?;
        let view = RunView::from_entries(&self.place.plan, &entries);
        faults.extend(twice(&entries));
        capture::run(&view, &entries, &mut snapshot);
        let history = state.join("history");
        if history.is_dir() {
            capture::history(&Location::folder(&history)?, &mut snapshot).await?;
        }
        let log = fs::read_to_string(state.join("notifications.log")).unwrap_or_default();
        capture::notifications(&log, &mut snapshot);
        capture::files(&self.path(FILES), &mut snapshot).map_err(CrashError::Folder)?;
        let folder = self.folder.path().display().to_string();
        let copy = self.place.name.as_str();
        let names = [(view.run_id.as_str(), "RUN"), (copy, "COPY"), (folder.as_str(), "FOLDER")];
        let snapshot = snapshot.without_names(&names);
        Ok(Left { doubts: doubts(&view), view, snapshot, faults })
    }
}

/// What a process says of its run.
fn outcome(said: String) -> Result<Outcome, CrashError> {
    let found = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == said);
    found.ok_or(CrashError::NoOutcome { said })
}

/// Changes that were settled twice, or without a start.
fn twice(entries: &[Entry]) -> Vec<String> {
    let (mut open, mut settled) =
        (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let mut faults = Vec::new();
    for entry in entries {
        let key = |step: &String, index: u32, direction: Direction| {
            format!("{direction} {index} of `{step}`")
        };
        match &entry.event {
            Event::ChangeStarted { step, index, direction, .. } => {
                open.insert(key(step, *index, *direction));
            }
            Event::ChangeSettled { step, index, direction, .. } => {
                let key = key(step, *index, *direction);
                if !open.contains(&key) {
                    faults.push(format!("{key} ended without a start"));
                }
                if !settled.insert(key.clone()) {
                    faults.push(format!("{key} ended twice"));
                }
            }
            _ => {}
        }
    }
    faults
}

fn doubts(view: &RunView) -> Vec<Doubt> {
    let found = view.doubts().map(|(step, change)| {
        let sets = [&step.grounds.set, &step.grounds.undo];
        let place = usize::try_from(change.index).unwrap_or(usize::MAX);
        let asks = sets.into_iter().flatten().any(|set| {
            let found = set.changes.get(place);
            found.is_some_and(|found| {
                found.recovery == Recovery::Ask && found.operation.kind() == change.kind
            })
        });
        Doubt { what: format!("`{}`: {}", step.key, change.operation), is_declared: asks }
    });
    found.collect()
}

/// Copies the files below a folder.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_process_are_known_or_told() {
        for known in Outcome::ALL {
            assert_eq!(outcome(known.as_str().to_owned()).unwrap(), known);
        }
        for torn in ["", "succee", "succeeded\n"] {
            let error = outcome(torn.to_owned()).unwrap_err();
            let text = format!("a process says of its run `{torn}`, which is no outcome");
            assert_eq!(error.to_string(), text);
        }
    }
}
