//! Verification: the chain, and all that is kept beside it.

use std::collections::VecDeque;

use rusqlite::Connection;

use super::reader::{body, check_plan, dropped};
use super::rows::{COLUMNS, RUN_COLUMNS, stored, summary, unsigned};
use super::schema;
use super::seal::{WINDOW_COLUMNS, unpacked as unpacked_window};
use crate::journal::apart::{Part, unpacked};
use crate::journal::blob::Blobs;
use crate::journal::chain::{Hash, Walk};
use crate::journal::derived::Tables;
use crate::journal::event::{Event, Fact, Rows};
use crate::journal::links::{BareLink, Seals, window};
use crate::journal::store::{Break, Entry, Head, JournalError, Sealed, Verification};
use crate::kernel::RunId;

/// Walks the chain in one snapshot, then checks the file, the schema, the derived tables and the plans.
pub(super) fn verify(conn: &Connection, blobs: &Blobs) -> Result<Verification, JournalError> {
    conn.execute_batch("begin")?;
    let journal = schema::identity(conn)?;
    let mut walk = Walk::new(&journal);
    let mut tables = Tables::default();
    let mut sealed = Sealed::default();
    let broken = match chain(conn, blobs, &mut walk, &mut tables) {
        Ok(found) => {
            sealed = found;
            beside(conn, &tables).err().map(|what| Break { position: 0, event: None, what })
        }
        Err(broken) => Some(broken),
    };
    let head = Head { journal, position: walk.position(), hash: walk.hash() };
    Ok(Verification { events: head.position, head, sealed, broken })
}

/// The bare links, window by window.
struct Bare<'a> {
    windows: rusqlite::Rows<'a>,
    /// Of the window that was read last: its number and the hash before it, until that was looked at.
    edge: Option<(u64, Hash)>,
    links: VecDeque<BareLink>,
}

impl Bare<'_> {
    /// The next link, when it stands before a position.
    fn before(&mut self, position: u64) -> Result<Option<BareLink>, JournalError> {
        if self.links.is_empty()
            && let Some(row) = self.windows.next()?
        {
            let (number, edge, links) = unpacked_window(row)?;
            (self.edge, self.links) = (Some((number, edge)), links.into());
        }
        if self.links.front().is_some_and(|link| link.position < position) {
            return Ok(self.links.pop_front());
        }
        Ok(None)
    }
}

fn chain(
    conn: &Connection,
    blobs: &Blobs,
    walk: &mut Walk,
    tables: &mut Tables,
) -> Result<Sealed, Break> {
    let unreadable = |position: u64, what: String| Break { position, event: None, what };
    let first = |error: rusqlite::Error| unreadable(1, error.to_string());
    let sql = format!("select {COLUMNS} from event order by position");
    let mut statement = conn.prepare(&sql).map_err(first)?;
    let mut rows = statement.query(()).map_err(first)?;
    let sql = format!("select {WINDOW_COLUMNS} from links order by window");
    let mut packed = conn.prepare(&sql).map_err(first)?;
    let windows = packed.query(()).map_err(first)?;
    let mut bare = Bare { windows, edge: None, links: VecDeque::new() };
    let mut seals = Seals::default();
    loop {
        let next = walk.position() + 1;
        let row = match rows.next() {
            Ok(row) => row,
            Err(error) => return Err(unreadable(next, error.to_string())),
        };
        let until = row.map_or(Ok(u64::MAX), |row| unsigned(row, 0)).unwrap_or(next);
        loop {
            let next = walk.position() + 1;
            let link = bare.before(until).map_err(|error| unreadable(next, error.to_string()))?;
            let Some(link) = link else { break };
            if let Some((number, edge)) = bare.edge.take()
                && window(next) == number
                && edge != *walk.edge()
            {
                let what = "the hash that is kept before its window is not that of the chain";
                return Err(unreadable(next, what.into()));
            }
            walk.pass(&link)?;
            seals.link(&link)?;
            tables.apply_link(&link.stream, link.at);
        }
        let Some(row) = row else {
            let (runs, events) = seals.finish()?;
            return Ok(Sealed { runs, events });
        };
        let stored = stored(row, blobs).map_err(|error| {
            // Where it can be read, the position says more: an event before this one may be missing.
            let position = unsigned(row, 0).unwrap_or(next).min(next);
            unreadable(position, error.to_string())
        })?;
        let entry = walk.step(stored)?;
        apart(conn, &entry).map_err(|what| unreadable(entry.position, what))?;
        seals.event(&entry);
        tables.apply(&entry);
    }
}

/// What lies beside an event is what its digest says. What an older look carried may be gone, and so may
/// rows that are in the history.
fn apart(conn: &Connection, entry: &Entry) -> Result<(), String> {
    let Event::StepSucceeded { history, fact, .. } = &entry.event else { return Ok(()) };
    let text = |error: JournalError| error.to_string();
    if let Rows::Apart { digest, .. } = history {
        match body(conn, entry.position, Part::Rows).map_err(text)? {
            Some(bytes) => {
                drop(unpacked(&bytes, digest).map_err(|error| format!("its rows: {error}"))?);
            }
            None if entry.position <= dropped(conn).map_err(text)? => {}
            None => return Err("its rows are missing".into()),
        }
    }
    if let Some(digest) = fact.as_ref().and_then(|found| found.apart.as_ref())
        && let Some(bytes) = body(conn, entry.position, Part::Carry).map_err(text)?
    {
        unpacked(&bytes, digest).map_err(|error| format!("what it carries: {error}"))?;
    }
    Ok(())
}

/// All that the chain does not cover. The error says what is wrong.
fn beside(conn: &Connection, rebuilt: &Tables) -> Result<(), String> {
    integrity(conn)?;
    let text = |error: rusqlite::Error| error.to_string();
    let expected = schema::expected_objects().map_err(text)?;
    if schema::objects(conn).map_err(text)? != expected {
        return Err("the schema is not the one that this version makes".into());
    }
    let stored = derived(conn).map_err(text)?;
    if let Some(difference) = rebuilt.difference(&stored) {
        return Err(difference);
    }
    plans(conn)
}

fn integrity(conn: &Connection) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let mut statement = conn.prepare("pragma integrity_check").map_err(text)?;
    let found = statement.query_map((), |row| row.get::<_, String>(0)).map_err(text)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(text)?;
    if found == ["ok"] { Ok(()) } else { Err(format!("the file is damaged: {}", found.join("; "))) }
}

/// The derived tables as they are stored.
fn derived(conn: &Connection) -> rusqlite::Result<Tables> {
    let mut tables = Tables::default();
    let mut runs = conn.prepare(&format!("select {RUN_COLUMNS} from run"))?;
    for run in runs.query_map((), summary)? {
        let (created, run) = run?;
        tables.runs.insert(run.run_id.clone(), (created, run));
    }
    let mut queue =
        conn.prepare("select position, lock, run_id from lock_queue order by position")?;
    let rows = queue.query_map((), |row| {
        Ok((unsigned(row, 0)?, row.get::<_, String>(1)?, RunId::new(row.get::<_, String>(2)?)))
    })?;
    for row in rows {
        let (position, lock, run) = row?;
        tables.locks.entry(lock).or_default().push((position, run));
    }
    let mut facts = conn.prepare("select position, tool, place from fact order by position")?;
    let rows = facts.query_map((), |row| {
        Ok((unsigned(row, 0)?, Fact { tool: row.get(1)?, place: row.get(2)? }))
    })?;
    for row in rows {
        let (position, fact) = row?;
        tables.facts.entry(fact).or_default().push(position);
    }
    Ok(tables)
}

fn plans(conn: &Connection) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let mut statement = conn.prepare("select id, bytes, bytes_digest from plan").map_err(text)?;
    let rows = statement
        .query_map((), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Hash>(2)?))
        })
        .map_err(text)?;
    for row in rows {
        let (id, bytes, digest) = row.map_err(text)?;
        check_plan(&id, &bytes, digest).map_err(|error| error.to_string())?;
    }
    Ok(())
}
