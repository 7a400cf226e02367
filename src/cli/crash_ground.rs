//! What `lakeops test crash` copies, and the processes that it starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::error::CliError;
use super::library::{self, POLICY, Wanted};
use super::places::workspace_of;
use super::session::Session;
use crate::crash::branched::{Branched, Origin, OwnProject, OwnProjects, Planner};
use crate::crash::copied::Copied;
use crate::crash::{Ground, Launcher, Tools};
use crate::kernel::{Failure, Target};
use crate::plan::{Given, Plan, PlanInputs};
use crate::postgres::scan::tokens;
use crate::workflow::Workflow;

/// What of a value is replaced by the name of the copy.
const COPY: &str = "{copy}";

/// How copies are made.
pub(crate) struct Copying {
    pub(crate) wanted: Wanted,
    /// The project that each run has for itself; `None`: a branch.
    pub(crate) own_project: Option<OwnProject>,
    /// Statements for what all copies are made of.
    pub(crate) setup: Vec<String>,
}

/// What makes copies of what a workflow works on.
pub(crate) async fn ground(
    session: &Session<'_>,
    name: &str,
    copying: Copying,
) -> Result<Arc<dyn Ground>, CliError> {
    let workflow = library::workflow(session, name)?;
    let params = library::params(&copying.wanted.params)?;
    let target = copying.wanted.target.clone();
    let plan = library::planned(session, &workflow, (params, target, true))?;
    let connection = session.config.selected_connection();
    let is_workspace = workspace_of(session.config.connection(connection)?)?.is_some();
    let id = session.shell.ids.run_id().short().to_owned();
    let engine = session.rehearsal(&[connection]).await?;
    let tools = |stem: String| Tools {
        parts: engine.parts().clone(),
        connection: connection.to_owned(),
        stem,
        setup: copying.setup.clone(),
    };
    if !is_workspace {
        if copying.own_project.is_some() {
            let text = format!("the connection `{connection}` has no projects");
            return Err(CliError::usage_with(text, "choose a workspace: `--connection emulator`"));
        }
        let original = session.server(connection).await?;
        let original = match &plan.body.target.database {
            Some(database) => original.with_database(database),
            None => original,
        };
        let copied = Copied::new(tools(format!("lakeops_crash_{id}")), &plan, original)?;
        return Ok(Arc::new(copied));
    }
    let endpoints = &engine.parts().endpoints;
    let (Some(workspace), Some(source)) =
        (endpoints.workspace(connection), endpoints.rehearsals(connection))
    else {
        return Err(CliError::usage(format!("the connection `{connection}` is no workspace")));
    };
    let target = plan.body.target.clone();
    if let Some(own) = copying.own_project {
        let planner = planner(session, workflow, &copying.wanted, Renamed::Project(&plan))?;
        let origin = (workspace, Target { project: None, ..target });
        return Ok(Arc::new(OwnProjects::new(tools(format!("crash-{id}")), planner, origin, own)));
    }
    if target.project.is_none() || target.branch.is_none() {
        return Err(CliError::usage_with(
            format!("the target `{target}` does not name a branch, so nothing can be copied"),
            "name it: `--target PROJECT/BRANCH`, or the workflow's parameters",
        ));
    }
    let planner = planner(session, workflow, &copying.wanted, Renamed::Branch(&plan))?;
    let origin = Origin { source, workspace, target };
    Ok(Arc::new(Branched::new(tools(format!("crash-{id}")), planner, origin)))
}

/// What is another for each run.
#[derive(Clone, Copy)]
enum Renamed<'p> {
    Branch(&'p Plan),
    Project(&'p Plan),
}

/// Plans the workflow for a copy. Parameters that named the original name the copy.
fn planner(
    session: &Session<'_>,
    workflow: Arc<Workflow>,
    wanted: &Wanted,
    renamed: Renamed<'_>,
) -> Result<Planner, CliError> {
    let (plan, original) = match renamed {
        Renamed::Branch(plan) => (plan, plan.body.target.branch.clone()),
        Renamed::Project(plan) => (plan, plan.body.target.project.clone()),
    };
    let is_branch = matches!(renamed, Renamed::Branch(_));
    let known = plan.body.params.clone();
    let typed = library::params(&wanted.params)?;
    let settings = session.config.settings_for(&plan.body.target);
    let policy = library::policy(&session.config)?;
    let connection = session.config.selected_connection().to_owned();
    let now = session.shell.clock.now();
    Ok(Box::new(move |target: &Target| {
        let copy = if is_branch { &target.branch } else { &target.project };
        let copy = copy.clone().unwrap_or_default();
        let mut params: BTreeMap<String, Given> = typed
            .iter()
            .map(|(name, given)| {
                let given = match given {
                    Given::Text(text) => Given::Text(text.replace(COPY, &copy)),
                    Given::Json(value) => Given::Json(value.clone()),
                };
                (name.clone(), given)
            })
            .collect();
        for (name, value) in &known {
            let named = original.as_deref().and_then(|original| named(value, original, &copy));
            if let Some(value) = named {
                params.insert(name.clone(), Given::Json(value));
            }
        }
        let inputs = PlanInputs {
            params,
            connection: connection.clone(),
            target: target.clone(),
            wake: true,
            settings: &settings,
            policy: Some((POLICY.to_owned(), policy.clone())),
            replaces: None,
            now,
        };
        crate::plan::plan(&workflow, &inputs).map_err(|found| {
            let text: Vec<String> = found.iter().map(ToString::to_string).collect();
            Failure::permanent("crash::plan", text.join("\n"))
        })
    }))
}

/// The value with the original's name replaced, when it has it: as a whole, or as an element of a list.
fn named(value: &Value, original: &str, copy: &str) -> Option<Value> {
    match value {
        Value::String(text) if text == original => Some(Value::String(copy.to_owned())),
        Value::Array(all) if all.iter().any(|one| one == original) => {
            let renamed = |one: &Value| named(one, original, copy).unwrap_or_else(|| one.clone());
            Some(all.iter().map(renamed).collect())
        }
        _ => None,
    }
}

/// The statements of a file of SQL.
pub(crate) fn statements(text: &str) -> Vec<String> {
    let ends = tokens(text).into_iter().filter(|token| token.text == ";").map(|token| token.start);
    let mut from = 0;
    let mut found = Vec::new();
    for end in ends.chain([text.len()]) {
        let statement = text.get(from..end).unwrap_or_default().trim();
        if !tokens(statement).is_empty() {
            found.push(statement.to_owned());
        }
        from = end + 1;
    }
    found
}

/// This program, as a process of a test.
pub(crate) struct Program {
    path: PathBuf,
    config: Option<PathBuf>,
    /// The workspace's connection; a database is known by its URL.
    connection: Option<String>,
    /// Where an emulator says how it is reached.
    emulator: PathBuf,
    moves_history: bool,
}

impl Program {
    /// This program, with the configuration of a session.
    pub(crate) fn of(session: &Session<'_>) -> Result<Self, CliError> {
        let path =
            std::env::current_exe().map_err(|error| CliError::unreadable("lakeops", error))?;
        let config = &session.config;
        let connection = config.selected_connection();
        let is_workspace = workspace_of(config.connection(connection)?)?.is_some();
        Ok(Self {
            path,
            config: config.file().map(|file| session.shell.path(file)),
            connection: is_workspace.then(|| connection.to_owned()),
            emulator: config.state_dir().join("emulator"),
            moves_history: config.history().location.is_some(),
        })
    }
}

impl Launcher for Program {
    fn command(&self, folder: &Path) -> Command {
        let state = folder.join("state");
        if self.emulator.is_dir() {
            // It is there already for every process of a run but the first.
            let _there = std::os::unix::fs::symlink(&self.emulator, state.join("emulator"));
        }
        let mut command = Command::new(&self.path);
        command.args(["test", "crash-worker"]).arg(folder).arg("--state").arg(&state);
        // Who dies everywhere dies often before anything is settled.
        command.env("LAKEOPS_SETTINGS__LIMITS__MAX_BARREN_RESUMES", "1000");
        for name in ["LAKEOPS_STATE", "LAKEOPS_CONNECTION", "LAKEOPS_DATABASE_URL"] {
            command.env_remove(name);
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if let Some(connection) = &self.connection {
            command.arg("--connection").arg(connection);
        }
        if self.moves_history {
            command.env("LAKEOPS_HISTORY__LOCATION", state.join("history"));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_that_name_the_original_name_the_copy() {
        assert_eq!(named(&json!("shop"), "shop", "tmp-1"), Some(json!("tmp-1")));
        assert_eq!(named(&json!(["a", "shop"]), "shop", "tmp-1"), Some(json!(["a", "tmp-1"])));
        assert_eq!(named(&json!("shop-2"), "shop", "tmp-1"), None);
        assert_eq!(named(&json!(1), "1", "tmp-1"), None);
    }

    #[test]
    fn files_are_cut_into_statements() {
        let text =
            "create table t (a text default ';');\n-- a; b\ndo $$ begin; end $$;\n\n;select 1";
        let found = statements(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[1].ends_with("do $$ begin; end $$"), "{found:?}");
        assert_eq!(found[2], "select 1");
    }
}
