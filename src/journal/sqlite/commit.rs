//! What happens inside the transaction of the writer.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::reader::DROPPABLE;
use super::rows::{integer, unsigned};
use crate::journal::admission::{Admitted, JournalEnd, Known, PreparedAppend, StreamEnd, admit};
use crate::journal::blob::LONGEST_ROW;
use crate::journal::chain::{Hash, digest, genesis};
use crate::journal::derived::{Touch, touches};
use crate::journal::event::SealedRun;
use crate::journal::store::{JournalError, Stream};
use crate::kernel::{Clock, Digest, RunId, Timestamp};

/// More streams than this are not remembered.
const MOST_STREAMS: usize = 10_000;

const INSERT_EVENT: &str = "insert into event (position, stream, seq, at, kind, payload, \
     payload_digest, hash) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const TOUCH_RUN: &str = "update run set updated_at = ?2 where run_id = ?1";
const SET_OUTCOME: &str = "update run set outcome = ?2, wake_at = ?3 where run_id = ?1";

/// The writing connection, and what it remembers between commits.
pub(super) struct Ledger {
    pub(super) conn: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) genesis: Hash,
    pub(super) memory: Memory,
    /// Runs that were appended to in this transaction, with the time of their newest event.
    touched: HashMap<String, Timestamp>,
}

/// What was true after our last commit; holds for as long as nobody else commits.
#[derive(Default)]
pub(super) struct Memory {
    version: Option<i64>,
    end: Option<JournalEnd>,
    pub(super) streams: HashMap<String, StreamEnd>,
}

/// A plan as it will be stored.
#[derive(Debug)]
pub(super) struct StoredPlan {
    pub(super) id: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Hash,
}

impl StoredPlan {
    pub(super) fn new(id: Digest, bytes: Vec<u8>) -> Self {
        let digest = digest(&bytes);
        Self { id, bytes, digest }
    }
}

impl Ledger {
    pub(super) fn new(conn: Connection, clock: Arc<dyn Clock>, journal: &str) -> Self {
        let (memory, touched) = (Memory::default(), HashMap::new());
        Self { conn, clock, genesis: genesis(journal), memory, touched }
    }

    /// Begins the transaction. What we remember is dropped when another connection committed.
    pub(super) fn begin(&mut self) -> Result<(), JournalError> {
        self.touched.clear();
        self.run("begin immediate")?;
        let version = self.one::<i64>("pragma data_version")?;
        if self.memory.version != Some(version) || self.memory.streams.len() > MOST_STREAMS {
            self.memory = Memory { version: Some(version), ..Memory::default() };
        }
        Ok(())
    }

    /// Commits. After an error nothing of the transaction is there.
    pub(super) fn commit(&mut self) -> Result<(), JournalError> {
        self.write_touched()?;
        self.run("commit")
    }

    /// Notes in the runs when their newest events are: once in a transaction, however many there are.
    pub(super) fn write_touched(&mut self) -> Result<(), JournalError> {
        for (run, at) in self.touched.drain() {
            self.conn.prepare_cached(TOUCH_RUN)?.execute(params![run, at.as_millis()])?;
        }
        Ok(())
    }

    /// Takes the transaction back, if SQLite has not done so.
    pub(super) fn roll_back(&mut self) {
        self.memory = Memory::default();
        if !self.conn.is_autocommit()
            && let Err(error) = self.run("rollback")
        {
            tracing::warn!(%error, "roll back failed");
        }
    }

    /// Lets the file grow to so many pages at most.
    pub(super) fn limit_pages(&mut self, pages: u32) -> Result<(), JournalError> {
        let pragma = format!("pragma max_page_count = {pages}");
        self.conn.query_row(&pragma, (), |_| Ok(())).map_err(JournalError::from)
    }

    /// Appends a batch inside the transaction. A refusal leaves nothing behind; after any other error the
    /// transaction must be rolled back.
    pub(super) fn append(&mut self, batch: &[PreparedAppend]) -> Result<Admitted, JournalError> {
        let end = self.end()?;
        let now = self.clock.now();
        let admitted = admit(self, end, now, batch)?;
        self.insert(batch, &admitted)?;
        self.memory.end = Some(admitted.end);
        for (stream, ends) in &admitted.streams {
            self.memory.streams.insert(stream.clone(), *ends);
        }
        Ok(admitted)
    }

    /// Keeps a plan inside the transaction.
    pub(super) fn keep(&mut self, plan: &StoredPlan) -> Result<(), JournalError> {
        let statement = "insert or ignore into plan (id, bytes, bytes_digest) values (?1, ?2, ?3)";
        self.conn.prepare_cached(statement).and_then(|mut statement| {
            statement.execute(params![plan.id.as_str(), plan.bytes, plan.digest])
        })?;
        // Whoever keeps a plan is about to need it.
        self.execute("delete from plan_unused where id = ?1", params![plan.id.as_str()])?;
        Ok(())
    }

    /// Drops rows that lie beside events, and notes up to where they may be gone.
    pub(super) fn drop_rows(
        &mut self,
        through: u64,
        before: Timestamp,
    ) -> Result<u64, JournalError> {
        let (before, through) = (before.as_millis(), integer(through));
        let note = format!(
            "update journal set dropped = max(dropped, \
             coalesce((select max(position) from ({DROPPABLE})), 0))"
        );
        self.execute(&note, params![before, through])?;
        let delete = format!("delete from body where part = 'rows' and position in ({DROPPABLE})");
        let dropped = self.conn.prepare_cached(&delete)?.execute(params![before, through])?;
        Ok(u64::try_from(dropped).unwrap_or_default())
    }

    fn end(&mut self) -> Result<JournalEnd, JournalError> {
        if let Some(end) = self.memory.end {
            return Ok(end);
        }
        let last = "select position, at, hash from event order by position desc limit 1";
        let end = self.conn.query_row(last, (), |row| {
            let at = Timestamp::from_millis(row.get(1)?);
            Ok(JournalEnd { position: unsigned(row, 0)?, at, hash: row.get(2)? })
        });
        let end = end.optional()?;
        let at = Timestamp::from_millis(i64::MIN);
        Ok(end.unwrap_or(JournalEnd { position: 0, at, hash: self.genesis }))
    }

    fn insert(&mut self, batch: &[PreparedAppend], admitted: &Admitted) -> rusqlite::Result<()> {
        let mut insert = self.conn.prepare_cached(INSERT_EVENT)?;
        let mut places = admitted.places.iter();
        for append in batch {
            let stream = append.stream.as_str();
            let mut last = None;
            // The batch comes first: `zip` must not take a place that it has no event for.
            for (prepared, place) in append.events.iter().zip(&mut places) {
                let inline = (prepared.payload.len() <= LONGEST_ROW).then_some(&prepared.payload);
                insert.execute(params![
                    integer(place.position),
                    stream,
                    integer(place.seq),
                    place.at.as_millis(),
                    prepared.event.kind(),
                    inline,
                    prepared.digest,
                    place.hash,
                ])?;
                for body in &prepared.bodies {
                    self.execute(
                        "insert into body (position, part, at, bytes) values (?1, ?2, ?3, ?4)",
                        params![
                            integer(place.position),
                            body.part.as_str(),
                            place.at.as_millis(),
                            body.bytes,
                        ],
                    )?;
                }
                for touch in touches(stream, place.at, &prepared.event) {
                    self.touch(stream, place.position, &touch)?;
                }
                last = Some(place.at);
            }
            if let (Some(at), Stream::Run(_)) = (last, &append.stream) {
                match self.touched.get_mut(stream) {
                    Some(newest) => *newest = at,
                    None => drop(self.touched.insert(stream.to_owned(), at)),
                }
            }
        }
        Ok(())
    }

    fn touch(&self, run: &str, position: u64, touch: &Touch) -> rusqlite::Result<()> {
        match touch {
            Touch::Created(summary) => self.execute(
                "insert into run (run_id, created, plan_id, workflow, target, outcome, created_at, \
                 updated_at, wake_at, key) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    run,
                    integer(position),
                    summary.plan_id.as_str(),
                    summary.workflow,
                    summary.target,
                    summary.outcome.as_str(),
                    summary.created_at.as_millis(),
                    summary.updated_at.as_millis(),
                    summary.wake_at.map(Timestamp::as_millis),
                    summary.key,
                ],
            ),
            Touch::Outcome { outcome, wake_at } => self.execute(
                SET_OUTCOME,
                params![run, outcome.as_str(), wake_at.map(Timestamp::as_millis)],
            ),
            Touch::Queued { lock } => self.execute(
                "insert or ignore into lock_queue (position, lock, run_id) values (?1, ?2, ?3)",
                params![integer(position), lock, run],
            ),
            Touch::Released { lock } => self.execute(
                "delete from lock_queue where lock = ?1 and run_id = ?2",
                params![lock, run],
            ),
            Touch::ReleasedAll => {
                self.execute("delete from lock_queue where run_id = ?1", params![run])
            }
            Touch::Sealed(SealedRun { run, events }) => self.execute(
                "update run set sealed = ?2 where run_id = ?1",
                params![run.as_str(), integer(*events)],
            ),
            Touch::Fact(fact) => {
                self.execute(
                    "insert into fact (position, tool, place) values (?1, ?2, ?3)",
                    params![integer(position), fact.tool, fact.place],
                )?;
                // The next look goes on from the newest, and from the one before while this commits.
                self.execute(
                    "delete from body where part = 'carry' and position = \
                     (select position from fact where tool = ?1 and place = ?2 \
                     order by position desc limit 1 offset 2)",
                    params![fact.tool, fact.place],
                )
            }
        }
    }

    pub(super) fn execute(
        &self,
        sql: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute(params).map(drop)
    }

    fn run(&self, sql: &str) -> Result<(), JournalError> {
        self.execute(sql, &[]).map_err(JournalError::from)
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, JournalError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row((), |row| row.get(0)))
            .map_err(JournalError::from)
    }
}

impl Known for Ledger {
    fn stream(&mut self, stream: &str) -> Result<StreamEnd, JournalError> {
        if let Some(ends) = self.memory.streams.get(stream) {
            return Ok(*ends);
        }
        // The newest claim is found from the end of the stream backwards; a run has few events.
        let ends = "select \
             coalesce((select max(seq) from event where stream = ?1), 0), \
             coalesce((select seq from event where stream = ?1 and kind = 'run_claimed' \
                       order by seq desc limit 1), 0)";
        self.conn
            .prepare_cached(ends)
            .and_then(|mut statement| {
                statement.query_row([stream], |row| {
                    Ok(StreamEnd { last: unsigned(row, 0)?, claim: unsigned(row, 1)? })
                })
            })
            .map_err(JournalError::from)
    }

    fn run_with_key(&mut self, key: &str) -> Result<Option<RunId>, JournalError> {
        self.conn
            .prepare_cached("select run_id from run where key = ?1")
            .and_then(|mut statement| {
                statement.query_row([key], |row| row.get::<_, String>(0)).optional()
            })
            .map(|run| run.map(RunId::new))
            .map_err(JournalError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sqlite::schema;

    /// A table of its own for each row cost more than the row.
    #[test]
    fn what_writes_each_event_builds_no_tables() {
        let dir = tempfile::tempdir().unwrap();
        let (_lock, conn) = schema::open(dir.path(), schema::MIGRATIONS).unwrap();
        for sql in [INSERT_EVENT, TOUCH_RUN, SET_OUTCOME] {
            let mut statement = conn.prepare(&format!("explain {sql}")).unwrap();
            let steps = statement.raw_query().mapped(|row| row.get::<_, String>(1));
            let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
            assert!(steps.iter().any(|step| step == "Insert" || step == "IdxInsert"), "{steps:?}");
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{sql}: {steps:?}");
        }
    }
}
