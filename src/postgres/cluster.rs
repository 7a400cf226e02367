//! A running server of ours.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::deadline::{FileLock, TICK, lock, tick};
use super::directory::ClusterPaths;
use super::endpoint::PgEndpoint;
use super::postmaster::{self, Standing};
use super::record::ServerRecord;
use super::server_error::PostgresError;
use super::spawn::{SUPERUSER, ServerProcess, log_tail};
use crate::kernel::{Clock, Secret};

/// How long another process may take to start or stop the same cluster.
pub(super) const LOCK_LIMIT: Duration = Duration::from_mins(2);
/// A server that is told to stop at once has this long.
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// A server of ours that takes connections. Dropping it stops the server, without waiting for it.
pub struct Cluster {
    pub(super) paths: ClusterPaths,
    pub(super) record: ServerRecord,
    pub(super) password: Secret<String>,
    /// `None` when an earlier process of ours started it.
    pub(super) process: Option<ServerProcess>,
    /// Held for as long as a guarded cluster is ours.
    pub(super) owner: Option<FileLock>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop_limit: Duration,
    /// Where the server's present start begins in the log.
    pub(super) log_from: u64,
    pub(super) stop_on_drop: bool,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The superuser on the private Unix socket.
    pub fn endpoint(&self) -> PgEndpoint {
        PgEndpoint::socket(&self.record.socket, self.record.port, SUPERUSER, "postgres")
    }

    /// The superuser on the loopback address, with a password.
    pub fn loopback(&self) -> PgEndpoint {
        PgEndpoint::loopback(self.record.port, SUPERUSER, &self.password, "postgres")
    }

    /// The loopback endpoint as a URL, password included.
    pub fn url(&self) -> Secret<String> {
        self.loopback().to_url()
    }

    /// The directory of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.record.socket
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.record.port
    }

    /// The name of the superuser.
    pub fn superuser(&self) -> &'static str {
        SUPERUSER
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.record.data
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.paths.log
    }

    /// What later commands find of this server.
    pub fn record(&self) -> &ServerRecord {
        &self.record
    }

    /// Whether the server was already running when it was asked for.
    pub fn was_adopted(&self) -> bool {
        self.process.is_none()
    }

    /// Whether the server ends together with this process.
    pub fn is_guarded(&self) -> bool {
        self.owner.is_some()
    }

    /// Fails when the server has ended, with what it logged last.
    pub fn check(&mut self) -> Result<(), PostgresError> {
        let log = || log_tail(&self.paths.log, self.log_from);
        if let Some(status) = self.process.as_mut().and_then(ServerProcess::exited) {
            return Err(PostgresError::exited(Some(status), log()));
        }
        match postmaster::examine(&self.paths.data, Some(&self.record.token))? {
            Standing::Ours(_) => Ok(()),
            _ => Err(PostgresError::exited(None, log())),
        }
    }

    /// Stops the server: sessions are ended, everything is written, nothing of it runs any more.
    pub async fn stop(mut self) -> Result<(), PostgresError> {
        self.stop_on_drop = false;
        let name = self.paths.name.clone();
        let _held = lock(&self.paths.lock, LOCK_LIMIT, &*self.clock)
            .await?
            .ok_or(PostgresError::InUse { name })?;
        let halt = Halt {
            paths: &self.paths,
            token: &self.record.token,
            limit: self.stop_limit,
            clock: &*self.clock,
        };
        halt.run().await?;
        // The guard in front of the server ends with it.
        let until = self.clock.now().plus(QUIT_LIMIT);
        while let Some(process) = &mut self.process {
            process.release();
            if process.exited().is_some() || self.clock.now() >= until {
                break;
            }
            tick(&*self.clock, TICK).await;
        }
        self.record.pid = None;
        self.record.write(&self.paths.record)?;
        Ok(())
    }

    /// Lets the server run on when this process ends; a later start with the same name finds it.
    /// A guarded server ends with this process all the same.
    pub fn leave_running(mut self) {
        self.stop_on_drop = false;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.stop_on_drop {
            // Nobody is left to hear of a failure; the next start finds what still runs.
            drop(postmaster::signal(&self.paths.data, &self.record.token, Signal::SIGINT));
        }
    }
}

/// Stops the server that was started with `token`, and no other.
pub(super) struct Halt<'a> {
    pub paths: &'a ClusterPaths,
    pub token: &'a str,
    pub limit: Duration,
    pub clock: &'a dyn Clock,
}

impl Halt<'_> {
    pub(super) async fn run(&self) -> Result<(), PostgresError> {
        let data = &self.paths.data;
        for (signal, limit) in [(Signal::SIGINT, self.limit), (Signal::SIGQUIT, QUIT_LIMIT)] {
            let Standing::Ours(server) = postmaster::examine(data, Some(self.token))? else {
                return Ok(());
            };
            postmaster::signal(data, self.token, signal)?;
            let until = self.clock.now().plus(limit);
            while self.clock.now() < until {
                if !postmaster::is_alive(server.pid(), data, self.token) {
                    return Ok(());
                }
                tick(self.clock, TICK).await;
            }
        }
        let log = log_tail(&self.paths.log, 0);
        Err(PostgresError::Slow { what: "stopping the server", limit: self.limit, log })
    }
}
