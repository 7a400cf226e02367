//! The user's files as the server sees them: what starts by itself, and how it is planned.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::error::CliError;
use super::library;
use super::session::Session;
use crate::kernel::{Failure, Target};
use crate::plan::Plan;
use crate::server::{Occasions, Wanted, Workflows};
use crate::tools::Catalog;
use crate::workflow::elements::trigger::Trigger;
use crate::workflow::{Diagnostic, Resolution, Resolver, Workflow};

/// The files of a session. They are read again when one of them changed.
pub struct Files<'a> {
    session: &'a Session<'a>,
    stamp: RefCell<Option<Stamp>>,
}

/// By what a change of a file is noticed.
type Stamp = Vec<(String, u64, Option<SystemTime>)>;

impl<'a> Files<'a> {
    /// The files of a session.
    pub const fn new(session: &'a Session<'a>) -> Self {
        Self { session, stamp: RefCell::new(None) }
    }

    fn stamp(&self) -> Stamp {
        let folders = library::folders(self.session);
        let mut stamp = Stamp::new();
        for folder in [&folders.workflows, &folders.scripts, &folders.sql] {
            look(folder, &mut stamp);
        }
        stamp.sort();
        stamp
    }

    fn plan_of(&self, wanted: &Wanted) -> Result<Plan, Failure> {
        let (library, unreadable) = crate::workflow::load::load(&library::folders(self.session));
        let catalog = Catalog::builtin();
        let Resolution { workflows, mut diagnostics } =
            Resolver::new(&catalog, &library).resolve(&wanted.workflow);
        diagnostics.extend(unreadable);
        let Some(workflow) = workflows.get(&wanted.workflow) else {
            return Err(refused(&diagnostics).unwrap_or_else(|| {
                let text = format!("no workflow is called `{}`", wanted.workflow);
                Failure::permanent("server::no_workflow", text)
            }));
        };
        let mut params = wanted.params.clone();
        for param in &workflow.spec.params {
            let name = &param.name.value;
            if let Some(offered) = wanted.offered.get(name) {
                params.entry(name.clone()).or_insert_with(|| offered.clone());
            }
        }
        let given = (params, wanted.target.clone(), false);
        let planned = library::plan_of(self.session, workflow, given);
        let planned =
            planned.map_err(|error| Failure::permanent("server::no_policy", error.to_string()))?;
        planned.map_err(|found| {
            refused(&found).unwrap_or_else(|| {
                Failure::permanent("server::no_plan", "the workflow cannot be planned")
            })
        })
    }
}

impl Workflows for Files<'_> {
    fn occasions(&self) -> Option<Occasions> {
        let stamp = self.stamp();
        if self.stamp.borrow().as_ref() == Some(&stamp) {
            return None;
        }
        *self.stamp.borrow_mut() = Some(stamp);
        match library::resolve(self.session, &[]) {
            Ok((_, resolution)) => {
                library::print_diagnostics(self.session, &resolution.diagnostics);
                Some(occasions(self.session, &resolution))
            }
            Err(error) => {
                tracing::error!(%error, "the workflows cannot be read");
                None
            }
        }
    }

    fn plan(&self, wanted: &Wanted) -> Result<Plan, Failure> {
        self.plan_of(wanted)
    }
}

/// What starts by itself, of all workflows without a mistake.
fn occasions(session: &Session<'_>, resolution: &Resolution) -> Occasions {
    let mut found = Occasions::default();
    for (name, workflow) in &resolution.workflows {
        let schedules = workflow.spec.schedule.iter();
        found.schedules.extend(schedules.map(|spec| (name.clone(), spec.clone())));
        if !workflow.spec.triggers.is_empty() {
            let triggers = triggers(session, workflow);
            found.triggers.extend(triggers.into_iter().map(|trigger| (name.clone(), trigger)));
        }
    }
    found
}

/// The triggers of a workflow. What they take from parameters is known once it is planned.
fn triggers(session: &Session<'_>, workflow: &Workflow) -> Vec<Trigger> {
    let given = (BTreeMap::new(), Target::default(), false);
    let planned = library::plan_of(session, workflow, given);
    let why = match planned {
        Ok(Ok(plan)) => match serde_json::from_value(plan.body.triggers) {
            Ok(triggers) => return triggers,
            Err(error) => error.to_string(),
        },
        Ok(Err(found)) => refused(&found).map(|failure| failure.message).unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    tracing::error!(workflow = workflow.spec.name.value, why, "its triggers start nothing");
    Vec::new()
}

/// The occasions of all workflows of a session.
pub fn of_session(session: &Session<'_>) -> Result<Occasions, CliError> {
    let (_, resolution) = library::resolve(session, &[])?;
    library::print_diagnostics(session, &resolution.diagnostics);
    Ok(occasions(session, &resolution))
}

/// The mistakes as one failure.
fn refused(diagnostics: &[Diagnostic]) -> Option<Failure> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let texts: Vec<String> = errors.map(|diagnostic| diagnostic.message.clone()).collect();
    if texts.is_empty() {
        return None;
    }
    let failure = Failure::permanent("server::no_plan", texts.join("; "));
    Some(failure.with_help("`lakeops validate` shows every mistake with its place"))
}

fn look(folder: &Path, stamp: &mut Stamp) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            look(&entry.path(), stamp);
        } else {
            stamp.push((entry.path().display().to_string(), data.len(), data.modified().ok()));
        }
    }
}
