//! The emulator as a whole: started, reached, stopped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::Service;
use super::credentials::{ServiceLogins, digest};
use super::error::ApiError;
use super::faults::Faults;
use super::http;
use super::reaper;
use super::record::{Kind, Record};
use super::store::{Store, StoreError};
use crate::emulator::fleet::{Address, EndpointId, Fleet, FleetError, FleetOptions};
use crate::kernel::{Clock, IdSource, Secret};
use crate::postgres::{LocalPostgres, Progress};

/// The identity of whoever holds the emulator's token, unless another is asked for.
pub const DEFAULT_USER: &str = "operator@lakeops.local";
/// How long what is at work may take to end when the emulator stops.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an emulator needs.
pub struct EmulatorOptions {
    /// The state directory; everything is kept in `emulator` below it.
    pub state_dir: PathBuf,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn IdSource>,
    /// Where servers come from.
    pub local_postgres: LocalPostgres,
    /// Who is told while PostgreSQL is got.
    pub progress: Arc<dyn Progress>,
    /// The identity of whoever holds the emulator's token: an e-mail address.
    pub user: String,
}

impl EmulatorOptions {
    /// Options with the usual user.
    pub fn new(
        state_dir: PathBuf,
        (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>),
        local_postgres: LocalPostgres,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let user = DEFAULT_USER.to_owned();
        Self { state_dir, clock, ids, local_postgres, progress, user }
    }
}

/// What tells clients how an emulator is reached: the content of `emulator/connection.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFile {
    /// The URL of the API.
    pub host: String,
    /// The file that holds the token.
    pub token_file: PathBuf,
    /// The certificate that endpoints are verified with.
    pub ca_file: PathBuf,
    /// The identity of whoever holds the token: the role to log in as.
    pub user: String,
}

impl ConnectionFile {
    /// Where it lies below a state directory.
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("emulator/connection.json")
    }

    /// That of a state directory; `None` where no emulator was started.
    pub fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(state_dir)).ok()?).ok()
    }
}

/// One endpoint of a running emulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedEndpoint {
    /// Its full name.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// `ACTIVE`, `INIT` or `IDLE`.
    pub state: String,
}

/// The emulator cannot start or stop.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// Its databases cannot be used.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// Its catalogue cannot be used.
    #[error("the emulator's catalogue cannot be used")]
    Store(#[from] StoreError),
    /// It cannot listen, or a file cannot be written.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was left of earlier work cannot be taken up.
    #[error("what the emulator left cannot be taken up: {0}")]
    Recovery(String),
}

impl From<ApiError> for EmulatorError {
    fn from(error: ApiError) -> Self {
        Self::Recovery(error.to_string())
    }
}

/// An emulator in this process.
pub struct Emulator {
    service: Arc<Service>,
    token: Secret<String>,
    connection: ConnectionFile,
    server: tokio::task::JoinHandle<()>,
}

impl Emulator {
    /// Takes up what an earlier process left, and serves on a free port of 127.0.0.1.
    pub async fn start(options: EmulatorOptions) -> Result<Self, EmulatorError> {
        let folder = options.state_dir.join("emulator");
        let logins = Arc::<ServiceLogins>::default();
        let fleet = Box::pin(open_fleet(&options, &logins)).await?;
        let store = Store::open(&folder.join("catalogue.db"))?;
        let token_file = folder.join("token");
        let token = take_token(&token_file, &*options.ids)?;
        let (listener, host) = listen(&folder.join("port")).await?;
        let service = Arc::new(Service {
            store,
            fleet,
            clock: options.clock,
            ids: options.ids,
            faults: Faults::default(),
            statements: super::statements::Statements::default(),
            host: host.clone(),
            user: options.user.clone(),
            token_digest: digest(token.expose()),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        logins.connect(&service);
        let ca_file = std::path::absolute(folder.join("tls/ca.pem"));
        let ca_file = ca_file.unwrap_or_else(|_| folder.join("tls/ca.pem"));
        let token_file = std::path::absolute(&token_file).unwrap_or(token_file);
        let connection = ConnectionFile { host, token_file, ca_file, user: options.user };
        Box::pin(service.take_up()).await?;
        let text = serde_json::to_string_pretty(&connection)
            .map_err(|e| io_error("say where the emulator is", e.into()))?;
        write_private(&ConnectionFile::path(&options.state_dir), &text)?;
        service.tasks.spawn(reaper::reap(Arc::downgrade(&service)));
        let server = tokio::spawn(http::serve(listener, Arc::clone(&service)));
        Ok(Self { service, token, connection, server })
    }

    /// Deletes all that an emulator kept which has ended, without going on with what it had begun. Refused
    /// while one runs.
    pub async fn clear(options: &EmulatorOptions) -> Result<(), EmulatorError> {
        let fleet = Box::pin(open_fleet(options, &Arc::default())).await?;
        Ok(Box::pin(fleet.discard()).await?)
    }

    /// The URL of the API.
    pub fn host(&self) -> &str {
        &self.connection.host
    }

    /// The token that calls need.
    pub const fn token(&self) -> &Secret<String> {
        &self.token
    }

    /// How clients reach it.
    pub const fn connection(&self) -> &ConnectionFile {
        &self.connection
    }

    /// The certificate that endpoints are verified with.
    pub fn ca_pem(&self) -> &str {
        self.service.fleet.ca_pem()
    }

    /// Removes now what has expired by now, instead of within a second.
    pub async fn remove_expired(&self) -> Result<(), EmulatorError> {
        Ok(Box::pin(self.service.remove_expired()).await?)
    }

    /// Stops everything. What it keeps stays for the next start.
    pub async fn stop(mut self) -> Result<(), EmulatorError> {
        self.service.end.cancel();
        self.service.tasks.close();
        // Work that takes longer is taken up by the next start.
        drop(tokio::time::timeout(PATIENCE, self.service.tasks.wait()).await);
        // Every call has its answer, and none holds what the next start needs.
        if tokio::time::timeout(PATIENCE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        Ok(Box::pin(self.service.fleet.shutdown()).await?)
    }

    /// Stops everything, and deletes all that it keeps.
    pub async fn discard(self) -> Result<(), EmulatorError> {
        let fleet = Arc::clone(&self.service.fleet);
        // What does not stop by being told is stopped by being deleted.
        drop(Box::pin(self.stop()).await);
        Ok(Box::pin(fleet.discard()).await?)
    }
}

impl Service {
    /// Listens again for what is there, and goes on with what was begun.
    async fn take_up(self: &Arc<Self>) -> Result<(), EmulatorError> {
        let endpoints: Vec<Record> = self.store.transact(|tx| {
            let all: Vec<Record> = tx.below(Kind::Project.plural())?;
            for branch in all.iter().filter(|it| it.kind == Kind::Branch) {
                if let Some(project) = tx.record(branch.project())? {
                    self.keep_past(&project, &branch.uid);
                }
            }
            let mut open = Vec::new();
            for endpoint in all.into_iter().filter(|it| it.kind == Kind::Endpoint && it.ready) {
                // Below what is deleted nothing is open.
                if tx.need_alive(&endpoint.name).is_ok() && tx.need_alive(endpoint.parent()).is_ok()
                {
                    open.push(endpoint);
                }
            }
            Ok::<_, ApiError>(open)
        })?;
        self.sweep().await?;
        for endpoint in endpoints {
            if let Err(error) = self.open_asleep(&endpoint).await {
                tracing::error!(endpoint = %endpoint.name, %error, "an endpoint cannot be opened");
            }
        }
        Ok(self.go_on()?)
    }

    /// Removes databases that the catalogue does not know: of work that failed and was not cleaned up.
    async fn sweep(&self) -> Result<(), EmulatorError> {
        let known: BTreeSet<String> = self.store.transact(|tx| {
            let all: Vec<Record> = tx.below(Kind::Project.plural())?;
            let named = all.into_iter().map(|it| it.uid);
            Ok::<_, ApiError>(named.chain(super::asleep::originals(tx)?).collect())
        })?;
        for branch in self.fleet.branches().into_iter().filter(|it| !known.contains(&it.0)) {
            tracing::warn!(%branch, "a database that nothing names is removed");
            Box::pin(self.fleet.delete_branch(&branch)).await?;
        }
        Ok(())
    }

    /// The endpoints, and where they listen.
    pub(super) fn listed_endpoints(&self) -> Result<Vec<ListedEndpoint>, ApiError> {
        let all: Vec<Record> =
            self.store.transact(|tx| Ok::<_, ApiError>(tx.below(Kind::Project.plural())?))?;
        let endpoints = all.into_iter().filter(|it| it.kind == Kind::Endpoint);
        Ok(endpoints
            .filter_map(|it| {
                let facts = self.fleet.endpoint_facts(&EndpointId(it.uid.clone()))?;
                let state = format!("{:?}", facts.state).to_uppercase();
                Some(ListedEndpoint { name: it.name, address: facts.address, state })
            })
            .collect())
    }
}

async fn open_fleet(
    options: &EmulatorOptions,
    logins: &Arc<ServiceLogins>,
) -> Result<Arc<Fleet>, FleetError> {
    Box::pin(Fleet::open(FleetOptions {
        state_dir: options.state_dir.clone(),
        clock: Arc::clone(&options.clock),
        ids: Arc::clone(&options.ids),
        local_postgres: options.local_postgres.clone(),
        logins: Arc::clone(logins) as Arc<dyn crate::emulator::fleet::Logins>,
        progress: Arc::clone(&options.progress),
    }))
    .await
}

fn io_error(action: impl Into<String>, source: io::Error) -> EmulatorError {
    EmulatorError::Io { action: action.into(), source }
}

/// The token of a state directory, drawn once.
fn take_token(path: &Path, ids: &dyn IdSource) -> Result<Secret<String>, EmulatorError> {
    if let Ok(text) = std::fs::read_to_string(path)
        && !text.trim().is_empty()
    {
        return Ok(Secret::new(text.trim().to_owned()));
    }
    let random: String = (0..4).map(|_| ids.run_id().as_str().to_owned()).collect();
    let token = format!("dapi{random}");
    write_private(path, &token)?;
    Ok(Secret::new(token))
}

/// Replaces a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<(), EmulatorError> {
    let fresh = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|error| io_error(format!("write `{}`", path.display()), error))
}

/// Listens where it listened last, so that a configured client stays configured; else anywhere.
async fn listen(path: &Path) -> Result<(TcpListener, String), EmulatorError> {
    let last = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for port in [last, Some(0)].into_iter().flatten() {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => {
                let address = listener.local_addr().map_err(|e| io_error("listen", e))?;
                write_private(path, &address.port().to_string())?;
                return Ok((listener, format!("http://{address}")));
            }
            Err(error) => failed = error,
        }
    }
    Err(io_error("listen on 127.0.0.1", failed))
}
