//! The Lakebase that the demo plays on: an emulator in this process, with one project.
//!
//! It is used as any workspace is: by its API, and by the passwords that it mints.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::error::DemoError;
use super::story::DemoOptions;
use crate::config::LakebaseConnection;
use crate::config::settings::Limits;
use crate::emulator::{ConnectionFile, Emulator, EmulatorOptions};
use crate::kernel::{ApiCall, Clock, Failure, Target};
use crate::lakebase::name::path_of;
use crate::lakebase::{
    Lakebase, Login, Operation, Outside, Patience, Workspace as _, WorkspaceClient, branches,
    operation,
};
use crate::postgres::{LocalPostgres, Quiet};

const PROJECT: &str = "shop";
/// The branch that a project begins with.
const BRANCH: &str = "production";
/// Both, as the command line takes them.
pub(super) const TARGET: &str = "shop/production";

/// How often it is looked whether the project is there, and for how long.
const LOOK: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_mins(2);

/// An emulator, and whoever owns its project.
pub(super) struct Cloud {
    emulator: Emulator,
    lakebase: Arc<Lakebase>,
    clock: Arc<dyn Clock>,
}

impl Cloud {
    /// Deletes what a demo left that was killed. Refused while another demo is at work.
    pub(super) async fn clear(
        options: &DemoOptions,
        local: &LocalPostgres,
        state: PathBuf,
    ) -> Result<(), DemoError> {
        if !state.join("emulator").exists() {
            return Ok(());
        }
        Ok(Box::pin(Emulator::clear(&needs(options, local, state))).await?)
    }

    /// Starts it; it has no project yet, and runs no server.
    pub(super) async fn start(
        options: &DemoOptions,
        local: &LocalPostgres,
        state: PathBuf,
    ) -> Result<Self, DemoError> {
        let file = ConnectionFile::path(&state);
        let emulator = Box::pin(Emulator::start(needs(options, local, state))).await?;
        let reached = LakebaseConnection::from_emulator(&file)
            .map_err(|error| Failure::permanent("demo::emulator", error.to_string()))
            .and_then(|connection| reach(options, &connection));
        match reached {
            Ok(lakebase) => {
                let (lakebase, clock) = (Arc::new(lakebase), Arc::clone(&options.clock));
                Ok(Self { emulator, lakebase, clock })
            }
            Err(failure) => {
                Box::pin(emulator.discard()).await?;
                Err(DemoError::Workspace { what: "log in", failure })
            }
        }
    }

    /// Makes the project, with its branch, its compute and its database.
    pub(super) async fn make_project(&self) -> Result<(), DemoError> {
        let failed = |failure| DemoError::Workspace { what: "make the project", failure };
        // The shop's own programs log in by passwords.
        let body = json!({ "spec": { "enable_pg_native_login": true } });
        let call = ApiCall::post(path_of("projects")).query("project_id", PROJECT).body(body);
        let client = self.lakebase.client();
        let made = client.send(&call).await.map_err(failed)?;
        let mut begun = Operation::of(&made.body);
        let until = self.clock.now().plus(LIMIT);
        while let Some(unfinished) = begun.as_ref().filter(|begun| !begun.done) {
            if self.clock.now() >= until {
                let text = format!("it is not there after {} s", LIMIT.as_secs());
                return Err(failed(Failure::transient("demo::project", text)));
            }
            self.clock.sleep_until(self.clock.now().plus(LOOK)).await;
            begun = operation(&**client, &unfinished.name).await.map_err(failed)?;
        }
        match begun.and_then(|ended| ended.error) {
            Some(error) => Err(failed(Failure::permanent("demo::project", error.message))),
            None => Ok(()),
        }
    }

    /// Where its databases are.
    pub(super) fn lakebase(&self) -> Arc<Lakebase> {
        Arc::clone(&self.lakebase)
    }

    /// The URL of its API.
    pub(super) fn host(&self) -> &str {
        self.emulator.host()
    }

    /// The branches of the project.
    pub(super) async fn branches(&self) -> Result<Vec<String>, DemoError> {
        let found = branches(&**self.lakebase.client(), PROJECT).await;
        let found =
            found.map_err(|failure| DemoError::Workspace { what: "list the branches", failure })?;
        Ok(found.iter().map(|branch| branch.id().to_owned()).collect())
    }

    /// Stops all of it, and deletes what it kept.
    pub(super) async fn discard(self) -> Result<(), DemoError> {
        Ok(Box::pin(self.emulator.discard()).await?)
    }
}

/// The database that the shop works with.
pub(super) fn target() -> Target {
    Target { project: Some(PROJECT.to_owned()), branch: Some(BRANCH.to_owned()), database: None }
}

/// Whether a branch is there from the beginning.
pub(super) fn is_first(branch: &str) -> bool {
    branch == BRANCH
}

fn needs(options: &DemoOptions, local: &LocalPostgres, state: PathBuf) -> EmulatorOptions {
    let sources = (Arc::clone(&options.clock), Arc::clone(&options.ids));
    EmulatorOptions::new(state, sources, local.clone(), Arc::new(Quiet))
}

fn reach(options: &DemoOptions, connection: &LakebaseConnection) -> Result<Lakebase, Failure> {
    let redactor = options.redactor.clone();
    let login = Login::resolve(connection, &*options.environment, &redactor)?;
    let ca_file = login.ca_file.clone();
    let outside = Outside {
        clock: Arc::clone(&options.clock),
        ids: Arc::clone(&options.ids),
        redactor,
        patience: Patience::default(),
    };
    let client = WorkspaceClient::new(login, outside)?;
    Ok(Lakebase::new(client, Some(PROJECT.to_owned()), ca_file, &Limits::default()))
}
