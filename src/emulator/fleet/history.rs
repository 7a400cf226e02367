//! The past of a branch: base copies and archived WAL, from which a branch of an earlier time is made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::branch::Branch;
use super::copying::{CopyJob, Part, copy, fresh, take_in};
use super::error::FleetError;
use super::keeper::BRANCH_FACTS;
use super::lsn::Lsn;
use super::online::OnlineCopy;
use super::record::{read_json, write_json};
use super::settings::restore_command;
use super::types::{BranchId, BranchOrigin, BranchPoint};
use crate::kernel::{SqlFile, Timestamp};
use crate::postgres::{ClusterPlace, PgAdmin, PostgresError};
use crate::sql_file;

pub(super) const COMMIT_MARK: SqlFile = sql_file!("emulator/commit_mark");

/// A branch that lives shorter than this needs no past.
const FIRST_AFTER: Duration = Duration::from_secs(3);
/// A base copy is older than this at most, if the branch is written to at all.
const EVERY: Duration = Duration::from_hours(1);
/// Less WAL than this since the last base copy is soon replayed.
const LITTLE: u64 = 16 << 20;
/// More is not.
const MUCH: u64 = 256 << 20;
/// How far back a branch can be restored at least, once it is that old, unless another time is asked for.
pub(super) const RETENTION: Duration = Duration::from_hours(7 * 24);
const PATIENCE: Duration = Duration::from_secs(30);

/// A base copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// From here on WAL is needed.
    start: String,
    /// From here on there is a consistent state.
    stop: String,
    /// The timeline at that time.
    timeline: String,
    /// When it was complete: the earliest time that it can be recovered to.
    pub time: Timestamp,
}

#[derive(Deserialize)]
struct Here {
    lsn: String,
}

/// A point in the past that recovery stops at.
struct Goal {
    setting: &'static str,
    value: String,
}

impl Branch {
    fn bases_folder(&self) -> PathBuf {
        self.place().root().join("bases")
    }

    /// The base copies, the oldest first, with their directories.
    fn bases(&self) -> Vec<(Base, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.bases_folder()) else { return Vec::new() };
        let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut bases: Vec<(Base, PathBuf)> = folders
            .filter_map(|folder| Some((read_json(&folder.join("base.json"))?, folder)))
            .collect();
        bases.sort_by_key(|(base, _)| base.time);
        bases
    }

    /// The earliest time that a branch of this one can begin with.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.bases().first().map(|(base, _)| base.time)
    }

    /// Makes the first base copy, before anybody knows of the branch.
    pub(super) async fn take_base(&self) -> Result<(), FleetError> {
        let _history = self.history.lock().await;
        Box::pin(self.copy_base(false)).await
    }

    /// The same, for who has the history already, and of a branch that somebody may be at work on.
    async fn copy_base(&self, in_use: bool) -> Result<(), FleetError> {
        let lease = if in_use {
            // One that was put to sleep or deleted since it was looked at is not started for this.
            let Some(lease) = self.server.lease_running().await else { return Ok(()) };
            lease
        } else {
            self.server.lease().await?
        };
        let folder = self.place().beside("bases")?;
        let fresh = folder.join("new");
        ClusterPlace::remove(&fresh)?;
        fs::create_dir(&fresh).map_err(|e| FleetError::copy("create", &fresh, e))?;
        let online = OnlineCopy {
            ground: &self.ground,
            branch: &self.id,
            lease: &lease,
            source: self.place(),
            archive: self.archive(),
            to: &fresh.join("data"),
            in_use,
            with_wal: false,
        };
        let snapshot = Box::pin(online.run()).await?;
        drop(lease);
        let base = Base {
            start: snapshot.start.to_string(),
            stop: snapshot.stop.to_string(),
            timeline: snapshot.timeline,
            time: snapshot.time,
        };
        write_json(&fresh.join("base.json"), &base)?;
        let kept = folder.join(snapshot.time.as_millis().to_string());
        fs::rename(&fresh, &kept).map_err(|e| FleetError::copy("create", &kept, e))?;
        self.forget_old()
    }

    /// Whether it has no past yet, and lives long enough to get one.
    pub(super) fn lacks_past(&self) -> bool {
        if self.has_past.load(Ordering::Relaxed) {
            return false;
        }
        let age = self.ground.clock.now().since(self.record().created);
        if age < FIRST_AFTER || self.server.runs() != Some(true) {
            return false;
        }
        // The last base copy is never removed, so this is looked at on disk until there is one.
        let lacks = self.bases().is_empty();
        self.has_past.store(!lacks, Ordering::Relaxed);
        lacks
    }

    /// Makes a base copy when one is due. A branch whose server sleeps is not written to, and one whose
    /// history somebody is at is left alone: a copy may take longer than the pause between two looks.
    pub(super) async fn keep_history(&self) -> Result<(), FleetError> {
        let Ok(_history) = self.history.try_lock() else { return Ok(()) };
        let now = self.ground.clock.now();
        let Some((last, _)) = self.bases().pop() else {
            if self.lacks_past() {
                return Box::pin(self.copy_base(true)).await;
            }
            return Ok(());
        };
        let Some(lease) = self.server.lease_running().await else { return Ok(()) };
        let mut session = PgAdmin::connect(lease.endpoint(), PATIENCE).await?;
        let here: Here = session.row(&BRANCH_FACTS, &[]).await?;
        session.close().await;
        drop(lease);
        let position = |text: &str| Lsn::parse(text).map_or(0, |lsn| lsn.0);
        let written = position(&here.lsn).saturating_sub(position(&last.stop));
        if written >= MUCH || written >= LITTLE && now.since(last.time) >= EVERY {
            return Box::pin(self.copy_base(true)).await;
        }
        Ok(())
    }

    /// Removes what is older than the retention; one base copy before it stays.
    fn forget_old(&self) -> Result<(), FleetError> {
        let bases = self.bases();
        let now = self.ground.clock.now();
        let kept_for = self.kept_for();
        let is_old = |base: &Base| now.since(base.time) > kept_for;
        let keep_from = bases.iter().rposition(|(base, _)| is_old(base)).unwrap_or(0);
        for (_, folder) in bases.iter().take(keep_from) {
            ClusterPlace::remove(folder)?;
        }
        let Some((oldest, _)) = bases.get(keep_from) else { return Ok(()) };
        let Some(first) = Lsn::parse(&oldest.start).map(|lsn| lsn.file(&oldest.timeline)) else {
            return Ok(());
        };
        let Ok(entries) = fs::read_dir(self.archive()) else { return Ok(()) };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if is_before(&path, &first) {
                ClusterPlace::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Fills the data directory with the state that another branch had at an earlier point.
    pub(super) async fn fill_from_past(
        &self,
        parent: &Self,
        point: &BranchPoint,
    ) -> Result<BranchOrigin, FleetError> {
        // Nothing of the past is removed meanwhile.
        let _history = parent.history.lock().await;
        let here = parent.commit_something().await?;
        let (goal, base) = parent.find_base(point, here)?;
        let fresh = fresh(self.place())?;
        let job = CopyJob {
            from: base.join("data"),
            to: fresh.clone(),
            part: Part::Whole,
            in_use: false,
            user: self.place().user().clone(),
        };
        copy(job).await?;
        self.place().write(&fresh.join("recovery.signal"), "")?;
        take_in(self.place(), &fresh)?;
        let command = restore_command(parent.archive(), parent.place().data());
        let recovery = [
            ("restore_command", command.as_str()),
            (goal.setting, goal.value.as_str()),
            ("recovery_target_action", "promote"),
            // The server is ready only when it is there.
            ("hot_standby", "off"),
        ];
        let recovery: BTreeMap<_, _> = recovery
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let lease = self.server.lease_with(recovery).await;
        let lease = lease.map_err(|error| unreached(&parent.id, &goal, error))?;
        let mut session = PgAdmin::connect(lease.endpoint(), PATIENCE).await?;
        let reached: Here = session.row(&BRANCH_FACTS, &[]).await?;
        session.close().await;
        drop(lease);
        // The next start is without the settings of the recovery.
        self.server.stop(PATIENCE).await?;
        let time = match point {
            BranchPoint::Time(time) => *time,
            BranchPoint::Head | BranchPoint::Lsn(_) => self.ground.clock.now(),
        };
        Ok(BranchOrigin { lsn: reached.lsn, time })
    }

    /// Commits a transaction that changes nothing: recovery to the present stops before it. Says how
    /// far the WAL had been written before.
    async fn commit_something(&self) -> Result<Lsn, FleetError> {
        let lease = self.server.lease().await?;
        let mut session = PgAdmin::connect(lease.endpoint(), PATIENCE).await?;
        let here: Here = session.row(&BRANCH_FACTS, &[]).await?;
        session.rows::<serde_json::Value>(&COMMIT_MARK, &[]).await?;
        session.close().await;
        Lsn::parse(&here.lsn).ok_or_else(|| FleetError::Answer {
            branch: self.id.clone(),
            what: "where its WAL is",
            answer: here.lsn.clone(),
        })
    }

    /// The base copy to begin with, and where to stop.
    fn find_base(&self, point: &BranchPoint, here: Lsn) -> Result<(Goal, PathBuf), FleetError> {
        let bases = self.bases();
        let refuse =
            |point: String, why: String| FleetError::Point { parent: self.id.clone(), point, why };
        let from = |time: Option<&Base>| {
            time.map_or_else(
                || "it has no base copy yet; try again in a minute".to_owned(),
                |base| format!("it can be restored from {} ({}) on", base.time, base.stop),
            )
        };
        let oldest = bases.first().map(|(base, _)| base);
        match point {
            BranchPoint::Time(time) => {
                if *time > self.ground.clock.now() {
                    return Err(refuse(time.to_string(), "it lies in the future".to_owned()));
                }
                let base = bases.iter().rev().find(|(base, _)| base.time <= *time);
                let (_, folder) = base.ok_or_else(|| refuse(time.to_string(), from(oldest)))?;
                // When it reads this, the server knows no name of a time zone yet, not even `Z`.
                let value = time.to_string().replace('Z', "+00");
                let goal = Goal { setting: "recovery_target_time", value };
                Ok((goal, folder.clone()))
            }
            BranchPoint::Lsn(text) => {
                let lsn = Lsn::parse(text)
                    .ok_or_else(|| refuse(text.clone(), "it is no WAL position".to_owned()))?;
                if lsn > here {
                    return Err(refuse(text.clone(), format!("it is written only up to {here}")));
                }
                let reached = |base: &Base| Lsn::parse(&base.stop).is_some_and(|stop| stop <= lsn);
                let base = bases.iter().rev().find(|(base, _)| reached(base));
                let (_, folder) = base.ok_or_else(|| refuse(text.clone(), from(oldest)))?;
                let goal = Goal { setting: "recovery_target_lsn", value: lsn.to_string() };
                Ok((goal, folder.clone()))
            }
            BranchPoint::Head => Err(refuse("its head".to_owned(), from(oldest))),
        }
    }
}

/// Says what a recovery that did not get there means.
fn unreached(parent: &BranchId, goal: &Goal, error: FleetError) -> FleetError {
    match error {
        FleetError::Server(PostgresError::Exited { log, .. })
            if log.contains("recovery ended before configured recovery target") =>
        {
            let why = "its WAL does not reach that far".to_owned();
            FleetError::Point { parent: parent.clone(), point: goal.value.clone(), why }
        }
        other => other,
    }
}

/// Whether a WAL file is older than another, whatever their timelines.
fn is_before(path: &Path, first: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 24
        && name.bytes().all(|digit| digit.is_ascii_hexdigit())
        && name.get(8..) < first.get(8..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_wal_is_forgotten() {
        let first = "000000020000000000000010";
        for (name, old) in [
            ("00000001000000000000000F", true),
            ("00000002000000000000000F", true),
            ("000000010000000000000010", false),
            ("000000020000000100000000", false),
            ("00000002.history", false),
            ("00000001000000000000000F.partial", false),
        ] {
            assert_eq!(is_before(&Path::new("/wal").join(name), first), old, "{name}");
        }
    }
}
