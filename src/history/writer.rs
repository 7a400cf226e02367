//! Appends what the journal owes, exactly once.
//!
//! The journal holds every row until it is appended, so it is the queue as well. A table's commit
//! carries a Delta application transaction: the application is the journal's id and the table, the
//! version is the journal position that the table is complete up to. Who comes after a crash reads that
//! version and leaves out what is there. The audit has a row for every run and is appended last, so its
//! version says how far *all* tables are complete; nothing about it has to be kept anywhere else, and a
//! history in a new place, or one that was deleted, is made again from the journal. Large sets of rows
//! stay there for some days after they were appended (`[history] keep_journaled`), and are dropped then:
//! else the journal would be a second, larger history.
//!
//! One process at a time appends, under a lock of the operating system. Others wait their turn, find
//! their rows appended, and are done.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use deltalake::DeltaTable;
use tokio::sync::Mutex;

use super::delta::{self, Moment};
use super::error::HistoryError;
use super::keep::Outage;
use super::location::Location;
use super::owed::{self, Owed};
use super::row::Row;
use super::schema::TableDef;
use super::tables::{self, AUDIT, REJECTED};
use super::upkeep::{self, Done};
use crate::config::HistoryConfig;
use crate::journal::retention::seal_next;
use crate::journal::store::{Retention, Sealing};
use crate::journal::{Journal, JournalError, Principal};
use crate::kernel::{BoxFuture, Clock, KillPoints, Timestamp, Upkeep};
use crate::tools::context::StoredTable;

/// How long another process may hold the lock.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// How often runs are looked for that may be sealed, once none was found.
const SEALS_EVERY: Duration = Duration::from_mins(10);

/// So many commits seal runs at the end of a run.
const SEALS_AT_ONCE: u32 = 5;

/// What was appended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Appended {
    /// Rows by table.
    pub rows: BTreeMap<&'static str, usize>,
    /// Commits that were made.
    pub commits: u64,
    /// The position of the journal that the history is complete up to, then.
    #[serde(skip)]
    pub through: u64,
}

impl Appended {
    /// How many rows fit no table and were kept as they are.
    pub fn rejected(&self) -> usize {
        self.rows.get(REJECTED).copied().unwrap_or(0)
    }
}

/// The one writer of the history of a journal.
pub struct HistoryWriter {
    location: Location,
    journal: Arc<dyn Journal>,
    lock: PathBuf,
    clock: Arc<dyn Clock>,
    kill: Arc<dyn KillPoints>,
    config: HistoryConfig,
    opened: Mutex<HashMap<&'static str, DeltaTable>>,
    pub(super) outage: Outage,
    /// When runs are looked for again that may be sealed; in milliseconds since 1970.
    seals_at: AtomicI64,
}

impl HistoryWriter {
    /// The writer for a journal whose state directory is `state`. Rows are kept as long as the defaults
    /// say.
    pub fn new(
        location: Location,
        journal: Arc<dyn Journal>,
        state: &Path,
        (clock, kill): (Arc<dyn Clock>, Arc<dyn KillPoints>),
    ) -> Self {
        let lock = state.join("history.lock");
        Self {
            location,
            journal,
            lock,
            clock,
            kill,
            config: HistoryConfig::default(),
            opened: Mutex::default(),
            outage: Outage::default(),
            seals_at: AtomicI64::new(i64::MIN),
        }
    }

    /// The same writer, with rows kept as long as a configuration says.
    #[must_use]
    pub fn keeping(mut self, config: HistoryConfig) -> Self {
        self.config = config;
        self
    }

    /// Where it writes.
    pub const fn location(&self) -> &Location {
        &self.location
    }

    /// Appends all rows of runs that are over, and the audit up to now. What is not appended stays in
    /// the journal, and the next call appends it.
    pub async fn append_owed(&self) -> Result<Appended, HistoryError> {
        let mut opened = self.opened.lock().await;
        let _lock = self.lock().await?;
        let first = self.append(&mut opened).await;
        match first {
            Err(HistoryError::Delta { source, .. }) => {
                // What is known of the tables may be outdated: somebody else wrote or removed them.
                tracing::debug!(error = %source, "the history is opened again");
                opened.clear();
                self.append(&mut opened).await
            }
            other => other,
        }
    }

    /// Does upkeep on a table, as nobody appends to it. A table that nothing was written to needs none.
    pub(super) async fn look_after(&self, upkeep: &Upkeep) -> Result<Done, HistoryError> {
        let mut opened = self.opened.lock().await;
        let _lock = self.lock().await?;
        let name = upkeep.table.as_str();
        opened.remove(name);
        let Some(stored) = delta::open(&self.location, name, Moment::Now).await? else {
            return Ok(Done::default());
        };
        upkeep::carry_out(stored, name, &upkeep.work, self.now()).await.map(|(_, done)| done)
    }

    /// What is stored of the tables that were written to.
    pub(super) async fn stored(&self) -> Result<Vec<StoredTable>, HistoryError> {
        upkeep::stored(&self.location, &self.config, self.now()).await
    }

    async fn append(
        &self,
        opened: &mut HashMap<&'static str, DeltaTable>,
    ) -> Result<Appended, HistoryError> {
        let head = self.journal.head().await?;
        let mut appended = Appended::default();
        let Some(audit) = tables::find(AUDIT) else { return Ok(appended) };
        let mut through = self.complete_up_to(opened, audit, &head.journal).await?;
        while through < head.position {
            let owed = owed::after(self.journal.as_ref(), through, &head).await?;
            through = owed.through;
            if !owed.is_empty() {
                self.append_stretch(opened, owed, &head.journal, &mut appended).await?;
            }
        }
        let kept = self.config.keep_journaled.as_millis();
        let before = self.now().as_millis().saturating_sub_unsigned(kept);
        let dropped = self.journal.drop_rows(through, Timestamp::from_millis(before)).await?;
        if dropped > 0 {
            tracing::info!(steps = dropped, "rows left the journal: they are in the history");
        }
        appended.through = through;
        Ok(appended)
    }

    /// Seals some of the runs that were over long ago and are in the history, which is complete up to a
    /// position. What keeps it from that keeps nobody from anything else.
    pub(super) async fn seal(&self, through: u64) {
        let now = self.now();
        if now.as_millis() < self.seals_at.load(Ordering::Relaxed) {
            return;
        }
        let is_more = self.seal_some(now, through).await.unwrap_or_else(|error| {
            tracing::error!(%error, "no run is sealed");
            false
        });
        if !is_more {
            self.seals_at.store(now.plus(SEALS_EVERY).as_millis(), Ordering::Relaxed);
        }
    }

    /// Whether there may be more to seal.
    async fn seal_some(&self, now: Timestamp, through: u64) -> Result<bool, JournalError> {
        let age = self.config.keep_runs;
        let from = format!("[history] keep_runs = {age}");
        let sealing = Sealing {
            runs: Vec::new(),
            retention: Retention::of(age, now, through),
            by: Principal { name: "lakeops".to_owned(), from },
            in_history: true,
            archive: None,
        };
        for _ in 0..SEALS_AT_ONCE {
            let sealed = seal_next(self.journal.as_ref(), &sealing).await?;
            if sealed.runs == 0 {
                return Ok(false);
            }
            tracing::info!(runs = sealed.runs, payloads = sealed.events, "runs were sealed");
        }
        Ok(true)
    }

    async fn append_stretch(
        &self,
        opened: &mut HashMap<&'static str, DeltaTable>,
        mut owed: Owed,
        journal: &str,
        appended: &mut Appended,
    ) -> Result<(), HistoryError> {
        for table in owed::order() {
            let Some(rows) = owed.rows.remove(table.name) else { continue };
            let done = self.complete_up_to(opened, table, journal).await?;
            let rows: Vec<Row> =
                rows.into_iter().filter(|(due, _)| *due > done).map(|(_, row)| row).collect();
            let Some(stored) = opened.get_mut(table.name) else { continue };
            if rows.is_empty() {
                continue;
            }
            let name = table.name;
            self.kill.reach(&format!("history/{name}/before append"));
            let transaction = (application(journal, table), owed.through);
            let transaction = (transaction.0.as_str(), transaction.1);
            delta::append(stored, table, &rows, transaction).await?;
            self.kill.reach(&format!("history/{name}/after append"));
            *appended.rows.entry(name).or_default() += rows.len();
            appended.commits += 1;
        }
        Ok(())
    }

    /// The journal position that a table is complete up to. Opens or makes the table.
    async fn complete_up_to(
        &self,
        opened: &mut HashMap<&'static str, DeltaTable>,
        table: &'static TableDef,
        journal: &str,
    ) -> Result<u64, HistoryError> {
        let stored = match opened.remove(table.name) {
            Some(mut stored) => {
                let failed = HistoryError::delta(table.name, "looking for newer versions");
                stored.update_state().await.map_err(failed)?;
                stored
            }
            None => delta::ready(&self.location, table).await?,
        };
        let done = delta::transaction(&stored, table.name, &application(journal, table)).await?;
        opened.insert(table.name, stored);
        Ok(done)
    }

    async fn lock(&self) -> Result<File, HistoryError> {
        let failed = |source| HistoryError::File { path: self.lock.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock);
        let file = file.map_err(failed)?;
        let until = self.clock.now().plus(PATIENCE);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if self.clock.now() > until => {
                    return Err(HistoryError::Busy { seconds: PATIENCE.as_secs() });
                }
                Err(TryLockError::WouldBlock) => {
                    self.clock.sleep_until(self.clock.now().plus(POLL)).await;
                }
            }
        }
    }

    /// How many runs are over and not appended yet; `None`: nothing was ever appended.
    pub async fn waiting(&self) -> Result<u64, HistoryError> {
        let done = self.taken().await?;
        Ok(runs_after(self.journal.as_ref(), done).await?)
    }

    /// The position of the journal that the history is complete up to.
    pub async fn taken(&self) -> Result<u64, HistoryError> {
        let head = self.journal.head().await?;
        match delta::open(&self.location, AUDIT, Moment::Now).await? {
            None => Ok(0),
            Some(stored) => {
                let application = format!("lakeops/{}/{AUDIT}", head.journal);
                delta::transaction(&stored, AUDIT, &application).await
            }
        }
    }

    /// Passes a boundary at which a test may kill the process.
    pub(super) fn reach(&self, boundary: &str) {
        self.kill.reach(boundary);
    }

    /// Holds everybody else off while something is appended.
    pub(super) async fn one_at_a_time(&self) -> Result<File, HistoryError> {
        self.lock().await
    }

    /// The present time of its clock.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        self.clock.sleep_until(at)
    }
}

async fn runs_after(journal: &dyn Journal, position: u64) -> Result<u64, JournalError> {
    let filter = crate::journal::store::EntryFilter {
        kinds: vec!["run_finished".to_owned()],
        after: position,
        ..crate::journal::store::EntryFilter::default()
    };
    let ended = journal.entries(filter).await?;
    Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
}

fn application(journal: &str, table: &TableDef) -> String {
    format!("lakeops/{journal}/{}", table.name)
}
