//! Where databases are, by the names of connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::CliError;
use super::session::Session;
use crate::config::{Connection, LakebaseConnection};
use crate::engine::parts::Endpoints;
use crate::kernel::{BoxFuture, Failure, Target};
use crate::lakebase::{Lakebase, Login, Outside, Patience, Workspace, WorkspaceClient};
use crate::model::ChatModel;
use crate::postgres::{PgEndpoint, PgReader};
use crate::tools::context::{AskModel, Places};

/// A workspace with its databases. Nothing is sent before something is asked.
pub fn lakebase(
    session: &Session<'_>,
    connection: &LakebaseConnection,
) -> Result<Lakebase, CliError> {
    let shell = session.shell;
    let redactor = shell.out.redactor().clone();
    let login = Login::resolve(connection, shell.environment.as_ref(), &redactor)?;
    let (project, ca_file) = (login.project.clone(), login.ca_file.clone());
    let outside = Outside {
        clock: Arc::clone(&shell.clock),
        ids: Arc::clone(&shell.ids),
        redactor,
        patience: Patience::default(),
    };
    let client = WorkspaceClient::new(login, outside)?;
    Ok(Lakebase::new(client, project, ca_file, &session.config.settings().limits))
}

/// What the configuration says of a connection's workspace; `None`: it is a server of PostgreSQL.
pub fn workspace_of(connection: &Connection) -> Result<Option<LakebaseConnection>, CliError> {
    match connection {
        Connection::Lakebase(found) => Ok(Some(found.clone())),
        Connection::Emulator { file } => Ok(Some(LakebaseConnection::from_emulator(file)?)),
        Connection::Local | Connection::Postgres { .. } => Ok(None),
    }
}

/// The connections that a command has looked up.
pub struct Known {
    pub(super) places: BTreeMap<String, Arc<dyn Endpoints>>,
    pub(super) model: Option<ChatModel>,
}

impl Known {
    fn of(&self, connection: &str) -> Result<&Arc<dyn Endpoints>, Failure> {
        self.places.get(connection).ok_or_else(|| {
            let text = format!("this command did not connect to `{connection}`");
            Failure::permanent("cli::unknown_connection", text)
                .with_help("the plan names it: check the connections of your configuration")
        })
    }
}

impl Endpoints for Known {
    fn endpoint<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
        wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        Box::pin(async move { self.of(connection)?.endpoint(connection, target, wake).await })
    }

    fn workspace(&self, connection: &str) -> Option<Arc<dyn Workspace>> {
        self.of(connection).ok()?.workspace(connection)
    }

    fn model(&self) -> Option<&dyn AskModel> {
        self.model.as_ref().map(|model| -> &dyn AskModel { model })
    }

    fn throw_away<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move { self.of(connection)?.throw_away(connection, target).await })
    }

    fn left_alone<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
        interval: Duration,
    ) -> BoxFuture<'a, Result<Option<String>, Failure>> {
        Box::pin(async move { self.of(connection)?.left_alone(connection, target, interval).await })
    }

    fn used(&self, connection: &str, target: &Target) {
        if let Ok(place) = self.of(connection) {
            place.used(connection, target);
        }
    }
}

/// Reads on the selected connection, without a run.
pub struct Selected {
    place: Arc<dyn Endpoints>,
    connection: String,
    limits: crate::config::settings::Limits,
    wake: bool,
    application_name: &'static str,
}

impl Selected {
    /// What reads on the selected connection. `wake`: whether a suspended compute is started.
    pub async fn open(
        session: &Session<'_>,
        target: &Target,
        wake: bool,
        application_name: &'static str,
    ) -> Result<Self, CliError> {
        let connection = session.config.selected_connection().to_owned();
        let limits = session.config.settings_for(target).limits;
        let place = session.place(&connection).await?;
        Ok(Self { place, connection, limits, wake, application_name })
    }

    /// The workspace, when the connection has one.
    pub fn workspace(&self) -> Option<Arc<dyn Workspace>> {
        self.place.workspace(&self.connection)
    }
}

impl Places for Selected {
    fn reader_at(&self, target: &Target) -> PgReader {
        let (place, connection) = (Arc::clone(&self.place), self.connection.clone());
        let (target, wake) = (target.clone(), self.wake);
        let find = move || -> BoxFuture<'static, Result<PgEndpoint, Failure>> {
            let (place, connection) = (Arc::clone(&place), connection.clone());
            let target = target.clone();
            Box::pin(async move { place.endpoint(&connection, &target, wake).await })
        };
        PgReader::found_by(find, &self.limits, self.application_name)
    }
}
