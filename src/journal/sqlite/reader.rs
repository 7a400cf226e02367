//! Reading: connections of their own, which never wait for the writer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, params};

use super::rows::{COLUMNS, RUN_COLUMNS, damaged_event, integer, stored, summary, unsigned};
use super::{schema, seal};
use crate::journal::apart::{self, Part};
use crate::journal::blob::Blobs;
use crate::journal::chain::{Hash, digest};
use crate::journal::event::{Event, Fact, Rows};
use crate::journal::links::BareLink;
use crate::journal::store::{
    Entry, EntryFilter, Held, JournalError, RawEvent, Retention, RunFilter, RunSummary, Sealable,
    Space,
};
use crate::kernel::digest::hex;
use crate::kernel::{Digest, RunId, Timestamp};
use crate::plan::Plan;

/// The condition on `kind` is that of the index `event_decision`, word for word.
const DECISIONS: &str = "stream = ?1 and seq > ?2 and (kind = 'cancel_requested' \
     or kind = 'approval_decided' or kind = 'doubt_settled' or kind = 'unstuck' \
     or kind = 'override') order by seq";

/// The condition on `kind` is that of the index `event_rare`, word for word.
const RARE: &str = "?5 is null \
     and (kind = 'override' or kind = 'set_rehearsed' or kind = 'event_published' \
     or kind = 'runs_sealed')";

/// The reading side of a journal.
pub(super) struct Reader {
    path: PathBuf,
    blobs: Blobs,
    idle: Mutex<Vec<Connection>>,
    decisions: Mutex<Decisions>,
    /// The bare links that were looked at last: whoever holds an archive against the chain asks for one after
    /// the other, and a link never changes.
    window: Mutex<Vec<BareLink>>,
}

/// What is known of decisions for as long as nobody commits.
#[derive(Default)]
struct Decisions {
    conn: Option<Connection>,
    version: Option<i64>,
    /// The streams without a decision after a sequence number.
    none_after: HashMap<String, u64>,
}

impl Reader {
    pub(super) fn new(path: PathBuf, blobs: Blobs) -> Self {
        Self {
            path,
            blobs,
            idle: Mutex::default(),
            decisions: Mutex::default(),
            window: Mutex::default(),
        }
    }

    /// A connection that can write, beside the one of the writer.
    pub(super) fn connect_to_write(&self) -> Result<Connection, JournalError> {
        schema::connect(&self.path)
    }

    /// A connection that cannot write.
    pub(super) fn connect(&self) -> Result<Connection, JournalError> {
        let conn = schema::connect(&self.path)?;
        conn.execute_batch("pragma query_only = on")?;
        Ok(conn)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| self.connect(), Ok)?;
        let result = work(&conn);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        result
    }

    fn select(
        &self,
        conn: &Connection,
        rest: &str,
        params: impl Params,
    ) -> Result<Vec<Entry>, JournalError> {
        let sql = format!("select {COLUMNS} from event where {rest}");
        let mut statement = prepare(conn, &sql)?;
        let mut rows = statement.query(params)?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let stored = stored(row, &self.blobs)?;
            let position = stored.link.position;
            entries.push(stored.entry().map_err(|what| damaged_event(position, what))?);
        }
        Ok(entries)
    }

    /// The first so many entries of a stream after a sequence number.
    pub(super) fn read_some(
        &self,
        stream: &str,
        after: u64,
        most: u32,
    ) -> Result<Vec<Entry>, JournalError> {
        let rest = "stream = ?1 and seq > ?2 order by seq limit ?3";
        self.with(|conn| self.select(conn, rest, params![stream, integer(after), most]))
    }

    /// Entries across streams.
    pub(super) fn entries(&self, filter: &EntryFilter) -> Result<Vec<Entry>, JournalError> {
        let kinds = (!filter.kinds.is_empty()).then(|| serde_json::json!(filter.kinds).to_string());
        let since = filter.since.map(Timestamp::as_millis);
        let limit = filter.limit.map_or(-1, i64::from);
        let rest = entries_sql(filter);
        let mut found = self.with(|conn| {
            let older = filter.since.map_or(Ok(0), |since| last_before(conn, since))?;
            let after = integer(filter.after.max(older));
            let params = params![after, since, kinds, limit, filter.stream];
            self.select(conn, &rest, params)
        })?;
        if filter.newest {
            found.reverse();
        }
        Ok(found)
    }

    /// The decisions of a stream. One pragma when nobody committed since the last call.
    pub(super) fn decisions(&self, stream: &str, after: u64) -> Result<Vec<Entry>, JournalError> {
        let mut known = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        let conn = match known.conn.take() {
            Some(conn) => conn,
            None => self.connect()?,
        };
        let version = prepare(&conn, "pragma data_version")?.query_row((), |row| row.get(0))?;
        if known.version != Some(version) {
            known.version = Some(version);
            known.none_after.clear();
        }
        let mut found = Vec::new();
        if known.none_after.get(stream).is_none_or(|none| after < *none) {
            found = self.select(&conn, DECISIONS, params![stream, integer(after)])?;
            if found.is_empty() {
                known.none_after.insert(stream.to_owned(), after);
            }
        }
        known.conn = Some(conn);
        Ok(found)
    }

    /// Runs, newest first.
    pub(super) fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        let sql = runs_sql(filter.unfinished);
        let limit = filter.limit.map_or(-1, i64::from);
        self.with(|conn| summaries(conn, &sql, params![filter.workflow, limit]))
    }

    /// The one run whose id begins with `prefix`.
    pub(super) fn find_run(&self, prefix: &str) -> Result<RunSummary, JournalError> {
        let exact = format!("select {RUN_COLUMNS} from run where run_id = ?1");
        let begins = format!(
            "select {RUN_COLUMNS} from run \
             where run_id >= ?1 and run_id < ?1 || char(1114111) \
             and substr(run_id, 1, length(?1)) = ?1"
        );
        let mut found = self.with(|conn| match summaries(conn, &exact, [prefix])? {
            none if none.is_empty() => summaries(conn, &begins, [prefix]),
            one => Ok(one),
        })?;
        match (found.pop(), found.len()) {
            (Some(run), 0) => Ok(run),
            (last, others) => Err(JournalError::NoSuchRun {
                prefix: prefix.to_owned(),
                found: others + usize::from(last.is_some()),
            }),
        }
    }

    /// The run at the front of a lock's queue.
    pub(super) fn lock_holder(&self, lock: &str) -> Result<Option<RunId>, JournalError> {
        let sql = "select run_id from lock_queue where lock = ?1 order by position limit 1";
        self.with(|conn| {
            let holder = prepare(conn, sql)?.query_row([lock], |row| row.get::<_, String>(0));
            holder.optional().map(|run| run.map(RunId::new)).map_err(JournalError::from)
        })
    }

    /// The newest events that hold what a tool found, newest first.
    pub(super) fn facts(&self, fact: &Fact, limit: u32) -> Result<Vec<Entry>, JournalError> {
        let rest = "position in (select position from fact where tool = ?1 and place = ?2 \
             order by position desc limit ?3) order by position desc";
        self.with(|conn| {
            let mut entries = self.select(conn, rest, params![fact.tool, fact.place, limit])?;
            for Entry { position, event, .. } in &mut entries {
                if let Event::StepSucceeded { fact: Some(found), .. } = event
                    && let Some(digest) = &found.apart
                    && let Some(bytes) = body(conn, *position, Part::Carry)?
                {
                    let carry = apart::carry(&bytes, digest);
                    found.carry = Some(carry.map_err(|error| unfit(*position, &error))?);
                }
            }
            Ok(entries)
        })
    }

    /// The entries with the rows that lie beside them.
    pub(super) fn with_rows(&self, mut entries: Vec<Entry>) -> Result<Vec<Entry>, JournalError> {
        for Entry { position, event, .. } in &mut entries {
            let Event::StepSucceeded { history, .. } = event else { continue };
            let Rows::Apart { digest, .. } = history else { continue };
            match self.with(|conn| body(conn, *position, Part::Rows))? {
                Some(bytes) => {
                    let rows = apart::rows(&bytes, digest);
                    *history = rows.map_err(|error| unfit(*position, &error))?.into();
                }
                None if *position <= self.with(dropped)? => {}
                None => return Err(damaged_event(*position, "its rows are missing".into())),
            }
        }
        Ok(entries)
    }

    /// Whether there is anything to drop.
    pub(super) fn has_rows(&self, through: u64, before: Timestamp) -> Result<bool, JournalError> {
        let sql = format!("select exists ({DROPPABLE})");
        self.with(|conn| {
            let params = params![before.as_millis(), integer(through)];
            Ok(prepare(conn, &sql)?.query_row(params, |row| row.get(0))?)
        })
    }

    /// A plan, checked against its id and the digest of its bytes.
    pub(super) fn plan(&self, id: &Digest) -> Result<Option<Plan>, JournalError> {
        let sql = "select bytes, bytes_digest from plan where id = ?1";
        let found = self.with(|conn| {
            let row = prepare(conn, sql)?
                .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional();
            row.map_err(JournalError::from)
        })?;
        found
            .map(|(bytes, digest): (Vec<u8>, Hash)| check_plan(id.as_str(), &bytes, digest))
            .transpose()
    }

    /// The position and the hash of the newest event.
    pub(super) fn end(&self) -> Result<Option<(u64, String)>, JournalError> {
        let last = self.with(|conn| {
            let sql = "select position, hash from event order by position desc limit 1";
            let row = prepare(conn, sql)?
                .query_row((), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Hash>(1)?)));
            row.optional().map_err(JournalError::from)
        })?;
        Ok(last.map(|(position, hash)| (u64::try_from(position).unwrap_or_default(), hex(&hash))))
    }

    /// The hash of the event at a position.
    pub(super) fn hash_at(&self, position: u64) -> Result<Option<String>, JournalError> {
        self.with(|conn| Ok(seal::hash_at(conn, position)?.map(|hash| hex(&hash))))
    }

    /// Runs that may be sealed.
    pub(super) fn sealable(
        &self,
        retention: Retention,
        most: u32,
    ) -> Result<Vec<Sealable>, JournalError> {
        self.with(|conn| seal::sealable(conn, retention, most))
    }

    /// The events of a stream as they were written.
    pub(super) fn raw(&self, stream: &str) -> Result<Vec<RawEvent>, JournalError> {
        let sql = format!("select {COLUMNS} from event where stream = ?1 order by seq");
        self.with(|conn| {
            let mut statement = prepare(conn, &sql)?;
            let mut rows = statement.query([stream])?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                let found = stored(row, &self.blobs)?;
                let position = found.link.position;
                let entry = found.clone().entry();
                let entry = entry.map_err(|what| damaged_event(position, what))?;
                let beside = match &entry.event {
                    Event::StepSucceeded { history: Rows::Apart { digest, .. }, .. } => {
                        body(conn, position, Part::Rows)?
                            .map(|bytes| apart::unpacked(&bytes, digest))
                            .transpose()
                            .map_err(|error| unfit(position, &error))?
                    }
                    _ => None,
                };
                let beside = beside.map(|text| String::from_utf8_lossy(&text).into_owned());
                events.push(found.raw(beside));
            }
            Ok(events)
        })
    }

    /// What the chain holds of the event at a position.
    pub(super) fn held(&self, position: u64) -> Result<Option<Held>, JournalError> {
        let known = {
            let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.iter().find(|link| link.position == position).map(BareLink::held)
        };
        if known.is_some() {
            return Ok(known);
        }
        let sql = "select stream, seq, at, kind, payload_digest from event where position = ?1";
        let here = self.with(|conn| {
            let here = prepare(conn, sql)?.query_row([integer(position)], |row| {
                let (stream, seq, kind) = (row.get(0)?, unsigned(row, 1)?, row.get(3)?);
                let at = Timestamp::from_millis(row.get(2)?);
                Ok(BareLink { position, stream, seq, at, kind, payload_digest: row.get(4)? })
            });
            Ok(here.optional()?)
        })?;
        if let Some(link) = here {
            return Ok(Some(link.held()));
        }
        let links = self.with(|conn| seal::links_around(conn, position))?;
        let held = links.iter().find(|link| link.position == position).map(BareLink::held);
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = links;
        Ok(held)
    }

    /// How much of the file is used.
    pub(super) fn space(&self) -> Result<Space, JournalError> {
        self.with(|conn| {
            let pages = |pragma: &str| -> Result<u64, JournalError> {
                Ok(prepare(conn, pragma)?.query_row((), |row| unsigned(row, 0))?)
            };
            let each = pages("pragma page_size")?;
            let bytes = each * pages("pragma page_count")?;
            Ok(Space { bytes, free: each * pages("pragma freelist_count")? })
        })
    }
}

/// Which entries a filter lets through, in which order.
fn entries_sql(filter: &EntryFilter) -> String {
    let is_rare = |kind: &String| RARE.contains(&format!("'{kind}'"));
    // Within a stream the sequence has the order of the positions, and an index.
    let (condition, order) = match filter.stream {
        Some(_) => ("stream = ?5", "seq"),
        None if !filter.kinds.is_empty() && filter.kinds.iter().all(is_rare) => (RARE, "position"),
        None => ("?5 is null", "position"),
    };
    let direction = if filter.newest { "desc" } else { "asc" };
    format!(
        "position > ?1 and at >= coalesce(?2, at) \
         and (?3 is null or kind in (select value from json_each(?3))) \
         and {condition} order by {order} {direction} limit ?4"
    )
}

/// The position of the last event that is older than a time: journal time never runs backwards, so it is found
/// by halves.
fn last_before(conn: &Connection, since: Timestamp) -> Result<u64, JournalError> {
    let newest = "select coalesce(max(position), 0) from event";
    let mut most = prepare(conn, newest)?.query_row((), |row| unsigned(row, 0))?;
    let mut least = 0;
    // Of some positions only the link is left: the next event stands for them.
    let sql = "select position, at from event where position >= ?1 order by position limit 1";
    let mut statement = prepare(conn, sql)?;
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        let found = statement
            .query_row([integer(middle)], |row| Ok((unsigned(row, 0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        match found {
            Some((position, at)) if at < since.as_millis() => least = position,
            _ => most = middle - 1,
        }
    }
    Ok(least)
}

/// The positions of rows that may go: older than a time, and of a run that was over at a position. Those of
/// a run that still waits for somebody are in no history yet.
pub(super) const DROPPABLE: &str = "select body.position from body \
     join event on event.position = body.position \
     where body.part = 'rows' and body.at < ?1 and exists (select 1 from event as ended \
     where ended.stream = event.stream and ended.kind = 'run_finished' and ended.position <= ?2)";

/// The condition on `outcome` is that of the index `run_unfinished`, word for word.
fn runs_sql(unfinished: bool) -> String {
    let condition = if unfinished {
        "outcome <> 'succeeded' and outcome <> 'failed' and outcome <> 'cancelled' and "
    } else {
        ""
    };
    format!(
        "select {RUN_COLUMNS} from run where {condition}(?1 is null or workflow = ?1) \
         order by created desc limit ?2"
    )
}

/// What lies beside an event.
pub(super) fn body(
    conn: &Connection,
    position: u64,
    part: Part,
) -> Result<Option<Vec<u8>>, JournalError> {
    let sql = "select bytes from body where position = ?1 and part = ?2";
    let params = params![integer(position), part.as_str()];
    Ok(prepare(conn, sql)?.query_row(params, |row| row.get(0)).optional()?)
}

/// Up to where rows may be gone.
pub(super) fn dropped(conn: &Connection) -> Result<u64, JournalError> {
    Ok(prepare(conn, "select dropped from journal")?.query_row((), |row| unsigned(row, 0))?)
}

fn unfit(position: u64, error: &apart::Unfit) -> JournalError {
    damaged_event(position, format!("of what lies beside it: {error}"))
}

/// A plan whose bytes are what was stored, and whose content is what its id says.
pub(super) fn check_plan(id: &str, bytes: &[u8], stored: Hash) -> Result<Plan, JournalError> {
    let damaged =
        |what: &str| JournalError::Corrupt { place: format!("plan {id}"), what: what.to_owned() };
    if digest(bytes) != stored {
        return Err(damaged("its bytes are not what was stored"));
    }
    let plan = Plan::parse(bytes).map_err(|error| JournalError::damaged_plan(id, &error))?;
    if plan.id.as_str() == id { Ok(plan) } else { Err(damaged("it holds another plan")) }
}

fn prepare<'c>(conn: &'c Connection, sql: &str) -> Result<CachedStatement<'c>, JournalError> {
    conn.prepare_cached(sql).map_err(JournalError::from)
}

fn summaries(
    conn: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<RunSummary>, JournalError> {
    let mut statement = prepare(conn, sql)?;
    let rows = statement.query_map(params, |row| summary(row).map(|(_, run)| run))?;
    rows.collect::<Result<_, _>>().map_err(JournalError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Event;

    #[test]
    fn decisions_are_read_from_their_index() {
        for kind in Event::DECISIONS {
            assert!(DECISIONS.contains(&format!("'{kind}'")), "{kind}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (_lock, conn) = schema::open(dir.path(), schema::MIGRATIONS).unwrap();
        let sql = format!("explain query plan select {COLUMNS} from event where {DECISIONS}");
        let plan: String = conn.query_row(&sql, ("a", 1), |row| row.get(3)).unwrap();
        assert!(plan.contains("event_decision"), "{plan}");
    }

    #[test]
    fn kinds_that_are_few_are_read_from_their_index() {
        let dir = tempfile::tempdir().unwrap();
        let (_lock, conn) = schema::open(dir.path(), schema::MIGRATIONS).unwrap();
        for (kind, is_rare) in [("override", true), ("run_created", false)] {
            let kinds = vec![kind.to_owned()];
            let rest = entries_sql(&EntryFilter { kinds, ..EntryFilter::default() });
            let sql = format!("explain query plan select {COLUMNS} from event where {rest}");
            let params = params![0, None::<i64>, format!("[\"{kind}\"]"), -1, None::<&str>];
            let plan: String = conn.query_row(&sql, params, |row| row.get(3)).unwrap();
            assert_eq!(plan.contains("event_rare"), is_rare, "{plan}");
        }
    }

    #[test]
    fn unfinished_runs_are_read_from_their_index() {
        let dir = tempfile::tempdir().unwrap();
        let (_lock, conn) = schema::open(dir.path(), schema::MIGRATIONS).unwrap();
        for (unfinished, index) in [(true, "run_unfinished"), (false, "run_by_creation")] {
            let sql = format!("explain query plan {}", runs_sql(unfinished));
            let plan: String =
                conn.query_row(&sql, params![None::<&str>, -1], |row| row.get(3)).unwrap();
            assert!(plan.contains(index), "{plan}");
        }
    }
}
