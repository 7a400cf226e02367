//! The copy of a branch that follows it and cannot be written to.
//!
//! What a session may not write is decided by the server: on a standby every transaction only reads,
//! and no setting, function or `begin read write` changes that. Sessions of tokens that only read, and
//! all sessions of read-only endpoints, are served from here. The copy is made when it is first needed.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::branch::Branch;
use super::copying::{fresh, take_in};
use super::error::FleetError;
use super::ground::Ground;
use super::keeper::BRANCH_FACTS;
use super::lsn::Lsn;
use super::online::OnlineCopy;
use super::record::follower_of;
use super::server::{Lease, Server};
use super::settings::restore_command;
use super::types::BranchId;
use crate::kernel::SqlFile;
use crate::postgres::PgAdmin;
use crate::sql_file;

pub(super) const REPLAYED_LSN: SqlFile = sql_file!("emulator/replayed_lsn");

/// How long the copy may take to show what was committed before a login.
const CATCH_UP: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(10);

/// The copy of a branch that only reads.
pub(super) struct Follower {
    server: Arc<Server>,
    making: tokio::sync::Mutex<()>,
}

#[derive(Deserialize)]
struct At {
    lsn: Option<String>,
}

impl Follower {
    pub(super) fn new(ground: &Arc<Ground>, branch: &BranchId) -> Result<Self, FleetError> {
        let server = Server::new(ground, &follower_of(branch), std::collections::BTreeMap::new())?;
        Ok(Self { server, making: tokio::sync::Mutex::default() })
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Removes all of it.
    pub(super) async fn discard(&self, ground: &Ground) -> Result<(), FleetError> {
        Ok(ground.local.discard(&ground.state, self.server.name()).await?)
    }
}

impl Branch {
    /// Uses the copy that only reads, once it shows everything that is committed by now.
    pub(super) async fn follow(&self) -> Result<Lease, FleetError> {
        let (wanted, conninfo) = self.here().await?;
        let _making = self.follower.making.lock().await;
        self.configure_follower(&conninfo);
        if !self.follower.server.place().data().is_dir() {
            Box::pin(self.make_follower()).await?;
        }
        match Box::pin(self.caught_up(wanted)).await {
            Ok(Some(lease)) => return Ok(lease),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(branch = %self.id, %error, "a copy that follows is made anew");
            }
        }
        // It has lost its branch, so it is made anew.
        let Some(closed) = self.follower.server.closed(PATIENCE).await? else {
            let what = "others read from its copy";
            return Err(FleetError::Busy { branch: self.id.clone(), what });
        };
        self.follower.discard(&self.ground).await?;
        Box::pin(self.make_follower()).await?;
        drop(closed);
        let lease = Box::pin(self.caught_up(wanted)).await?;
        let what = "its copy does not catch up";
        lease.ok_or_else(|| FleetError::Busy { branch: self.id.clone(), what })
    }

    /// How far the branch is written, and how its copy connects to it.
    async fn here(&self) -> Result<(Lsn, String), FleetError> {
        let lease = self.server.lease().await?;
        let mut session = PgAdmin::connect(lease.endpoint(), PATIENCE).await?;
        let at: At = session.row(&BRANCH_FACTS, &[]).await?;
        session.close().await;
        let directory = lease.endpoint().host().replace('\\', "\\\\").replace('\'', "\\'");
        let conninfo = format!("host='{directory}' port={} user=postgres", lease.endpoint().port());
        let lsn = at.lsn.unwrap_or_default();
        let wanted = Lsn::parse(&lsn).ok_or_else(|| FleetError::Answer {
            branch: self.id.clone(),
            what: "where its WAL is",
            answer: lsn,
        })?;
        Ok((wanted, conninfo))
    }

    fn configure_follower(&self, conninfo: &str) {
        let mut settings = self.follower_settings();
        settings.insert("archive_mode".to_owned(), "off".to_owned());
        settings.insert("hot_standby".to_owned(), "on".to_owned());
        settings.insert("primary_conninfo".to_owned(), conninfo.to_owned());
        let command = restore_command(self.archive(), self.place().data());
        settings.insert("restore_command".to_owned(), command);
        self.follower.server.configure(settings);
    }

    async fn make_follower(&self) -> Result<(), FleetError> {
        let place = self.follower.server.place();
        place.create()?;
        self.ground.local.draw_password(place)?;
        let fresh = fresh(place)?;
        let lease = self.server.lease().await?;
        let online = OnlineCopy {
            ground: &self.ground,
            branch: &self.id,
            lease: &lease,
            source: self.place(),
            archive: self.archive(),
            to: &fresh,
            in_use: true,
            with_wal: true,
        };
        Box::pin(online.run()).await?;
        place.write(&fresh.join("standby.signal"), "")?;
        take_in(place, &fresh)
    }

    async fn caught_up(&self, wanted: Lsn) -> Result<Option<Lease>, FleetError> {
        let lease = self.follower.server.lease().await?;
        let mut session = PgAdmin::connect(lease.endpoint(), PATIENCE).await?;
        let clock = &self.ground.clock;
        let until = clock.now().plus(CATCH_UP);
        loop {
            let at: At = session.row(&REPLAYED_LSN, &[]).await?;
            if at.lsn.and_then(|lsn| Lsn::parse(&lsn)).is_some_and(|lsn| lsn >= wanted) {
                session.close().await;
                return Ok(Some(lease));
            }
            if clock.now() >= until {
                return Ok(None);
            }
            clock.sleep_until(clock.now().plus(TICK)).await;
        }
    }
}
