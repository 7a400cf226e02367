//! A consistent copy of a branch while its server runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::copying::{CopyJob, Part, copy};
use super::error::FleetError;
use super::ground::Ground;
use super::lsn::{Lsn, files};
use super::server::Lease;
use super::types::BranchId;
use crate::kernel::{Bind, SqlFile, Timestamp};
use crate::postgres::{ClusterPlace, PgAdmin};
use crate::sql_file;

pub(super) const BACKUP_START: SqlFile = sql_file!("emulator/backup_start");
pub(super) const BACKUP_STOP: SqlFile = sql_file!("emulator/backup_stop");

/// How long the server may take to begin or end a copy: it writes a checkpoint.
const PATIENCE: Duration = Duration::from_mins(5);

/// What a copy is of.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// From here on WAL is needed.
    pub start: Lsn,
    /// From here on the copy is consistent.
    pub stop: Lsn,
    /// The timeline, as eight digits.
    pub timeline: String,
    /// When it was complete.
    pub time: Timestamp,
}

/// Where a copy comes from and goes to.
pub(super) struct OnlineCopy<'a> {
    pub ground: &'a Ground,
    pub branch: &'a BranchId,
    /// The server that is copied; the lease keeps it awake.
    pub lease: &'a Lease,
    pub source: &'a ClusterPlace,
    /// Its archived WAL.
    pub archive: &'a Path,
    /// A directory that does not exist yet.
    pub to: &'a Path,
    /// Whether somebody may be at work on the branch.
    pub in_use: bool,
    /// Whether the copy gets the WAL that makes it consistent; else it has to be in the archive.
    pub with_wal: bool,
}

#[derive(Deserialize)]
struct Started {
    lsn: String,
}

#[derive(Deserialize)]
struct Stopped {
    lsn: String,
    label: String,
    tablespaces: Option<String>,
}

impl OnlineCopy<'_> {
    /// Copies. The session that began the copy stays open until its end; when anything fails the
    /// server forgets of the copy together with that session.
    pub(super) async fn run(&self) -> Result<Snapshot, FleetError> {
        let mut session = PgAdmin::connect(self.lease.endpoint(), PATIENCE).await?;
        let label = [Bind::Text("lakeops".to_owned())];
        let started: Started = session.row(&BACKUP_START, &label).await?;
        let job = CopyJob {
            from: self.source.data().to_owned(),
            to: self.to.to_owned(),
            part: Part::WithoutWal,
            in_use: self.in_use,
            user: self.source.user().clone(),
        };
        let copied = copy(job).await?;
        let (count, bytes) = (copied.files, copied.bytes);
        tracing::debug!(branch = %self.branch, count, bytes, "a branch was copied");
        let stopped: Stopped = session.row(&BACKUP_STOP, &[]).await?;
        let time = self.ground.clock.now();
        session.close().await;
        let (start, stop) = (self.lsn(&started.lsn)?, self.lsn(&stopped.lsn)?);
        let timeline = self.timeline(&stopped.label)?;
        if stopped.tablespaces.is_some_and(|map| !map.is_empty()) {
            return Err(self.answer("its tablespaces", "tablespaces outside the data directory"));
        }
        self.source.write(&self.to.join("backup_label"), &stopped.label)?;
        let settings = "# The settings of a server of the emulator are on its command line.\n";
        self.source.write(&self.to.join("postgresql.auto.conf"), settings)?;
        if self.with_wal {
            for name in files(&timeline, start, stop) {
                self.wal(&name)?;
            }
        }
        Ok(Snapshot { start, stop, timeline, time })
    }

    /// Copies a WAL file from where it is: the server moves it to the archive in its own time.
    fn wal(&self, name: &str) -> Result<(), FleetError> {
        let to = self.to.join("pg_wal").join(name);
        let live = self.source.data().join("pg_wal").join(name);
        let archived = self.archive.join(name);
        for from in [&live, &archived, &live] {
            match fs::copy(from, &to) {
                Ok(_) => return self.give(&to),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(FleetError::copy("copy", from, e)),
            }
        }
        let gone = io::Error::from(io::ErrorKind::NotFound);
        Err(FleetError::copy("find the WAL file", &archived, gone))
    }

    fn give(&self, path: &PathBuf) -> Result<(), FleetError> {
        let user = self.source.user();
        if user.is_other() {
            std::os::unix::fs::lchown(path, Some(user.uid()), Some(user.gid()))
                .map_err(|e| FleetError::copy("change the owner of", path, e))?;
        }
        Ok(())
    }

    fn lsn(&self, text: &str) -> Result<Lsn, FleetError> {
        Lsn::parse(text).ok_or_else(|| self.answer("where its WAL is", text))
    }

    /// `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)`
    fn timeline(&self, label: &str) -> Result<String, FleetError> {
        let name = label.split_once("(file ").and_then(|(_, rest)| rest.get(..8));
        name.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .map(str::to_owned)
            .ok_or_else(|| self.answer("the label of a copy", label))
    }

    fn answer(&self, what: &'static str, answer: &str) -> FleetError {
        FleetError::Answer { branch: self.branch.clone(), what, answer: answer.to_owned() }
    }
}
