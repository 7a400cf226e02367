//! Sealing: the payloads of runs that were over long ago go, their links stay.
//!
//! Everything happens in the one transaction of the seal: links are packed, rows deleted, and the event
//! that says so is appended. Whoever dies before its commit has done nothing. Files are removed by the next
//! sealing, inside its transaction: no writer can be about to name one of them then.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::commit::Ledger;
use super::rows::{COLUMNS, damaged_event, integer, stored, unsigned};
use crate::journal::admission::{Large, prepare};
use crate::journal::blob::Blobs;
use crate::journal::chain::Hash;
use crate::journal::event::{Event, SealedRun};
use crate::journal::links::{BareLink, Packed, edge, pack, unpack, window};
use crate::journal::store::{
    Append, Expect, JournalError, MOST_EARLIER, Retention, Sealable, Sealed, Sealing, Stream,
};
use crate::kernel::{Redactor, RunId};

/// How long a plan that no run needs any more is kept, in milliseconds: somebody may be about to start a run
/// of it.
const PLAN_UNUSED: i64 = 24 * 3_600 * 1_000;

/// The condition of a run that may be sealed; the part on `run` is that of the index `run_sealable`, word for
/// word. An output that a later look goes on from keeps its run.
fn sealable_sql(rest: &str) -> String {
    format!(
        "sealed is null \
         and (outcome = 'succeeded' or outcome = 'failed' or outcome = 'cancelled') \
         and updated_at < ?1 \
         and (select position from event where stream = run.run_id order by seq desc limit 1) <= ?2 \
         and not exists (select 1 from event cross join fact on fact.position = event.position \
         where event.stream = run.run_id and (select count(*) from (select 1 from fact as newer \
         where newer.tool = fact.tool and newer.place = fact.place \
         and newer.position > fact.position limit {MOST_EARLIER})) < {MOST_EARLIER}) {rest}"
    )
}

/// The kinds that stay, as SQL.
fn stays() -> String {
    Event::STAYS.map(|kind| format!("'{kind}'")).join(", ")
}

/// Runs that may be sealed, those that were over first first.
pub(super) fn sealable(
    conn: &Connection,
    retention: Retention,
    most: u32,
) -> Result<Vec<Sealable>, JournalError> {
    let kinds = stays();
    let sql = format!(
        "select run_id, \
         (select count(*) from event where stream = run_id and kind not in ({kinds})), \
         (select coalesce(sum(length(payload)), 0) from event \
          where stream = run_id and kind not in ({kinds})) \
         from run where {}",
        sealable_sql("order by updated_at limit ?3")
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let params = params![retention.before.as_millis(), integer(retention.through), most];
    let rows = statement.query_map(params, |row| {
        let run = RunId::new(row.get::<_, String>(0)?);
        Ok(Sealable { run, events: unsigned(row, 1)?, bytes: unsigned(row, 2)? })
    })?;
    rows.collect::<Result<_, _>>().map_err(JournalError::from)
}

/// The links of a window, and the hash before it.
struct Window {
    edge: Hash,
    links: Vec<BareLink>,
}

/// The columns that [`unpacked`] reads.
pub(super) const WINDOW_COLUMNS: &str = "window, edge, columns, digests";

/// A window as it is stored: its number, the hash before it, its links.
pub(super) fn unpacked(
    row: &rusqlite::Row<'_>,
) -> Result<(u64, Hash, Vec<BareLink>), JournalError> {
    let number = unsigned(row, 0)?;
    let packed = Packed { columns: row.get(2)?, digests: row.get(3)? };
    let links = unpack(&packed).map_err(|what| {
        damaged_event(edge(number) + 1, format!("of the links from there on: {what}"))
    })?;
    if links.iter().any(|link| window(link.position) != number) {
        return Err(damaged_event(edge(number) + 1, "a link lies in the wrong window".into()));
    }
    Ok((number, row.get(1)?, links))
}

fn find_window(conn: &Connection, number: u64) -> Result<Option<Window>, JournalError> {
    let sql = format!("select {WINDOW_COLUMNS} from links where window = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([integer(number)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    unpacked(row).map(|(_, edge, links)| Some(Window { edge, links }))
}

/// The links of the window that a position lies in.
pub(super) fn links_around(
    conn: &Connection,
    position: u64,
) -> Result<Vec<BareLink>, JournalError> {
    Ok(find_window(conn, window(position))?.map(|found| found.links).unwrap_or_default())
}

/// The hash of the event at a position, of which maybe only the link is there.
pub(super) fn hash_at(conn: &Connection, position: u64) -> Result<Option<Hash>, JournalError> {
    let exact = "select hash from event where position = ?1";
    let found = conn.prepare_cached(exact)?.query_row([integer(position)], |row| row.get(0));
    if let Some(hash) = found.optional()? {
        return Ok(Some(hash));
    }
    if position == 0 {
        return Ok(None);
    }
    let number = window(position);
    let Some(Window { edge: before, links }) = find_window(conn, number)? else { return Ok(None) };
    let nearest = "select position, hash from event where position < ?1 and position > ?2 \
         order by position desc limit 1";
    let found = conn
        .prepare_cached(nearest)?
        .query_row(params![integer(position), integer(edge(number))], |row| {
            Ok((unsigned(row, 0)?, row.get(1)?))
        });
    let (mut at, mut hash) = found.optional()?.unwrap_or((edge(number), before));
    for link in links.iter().filter(|link| link.position <= position) {
        if link.position == at + 1 {
            (at, hash) = (link.position, link.hash(&hash));
        }
    }
    Ok((at == position).then_some(hash))
}

/// What a sealing found, before it writes anything.
#[derive(Default)]
struct Found {
    runs: Vec<SealedRun>,
    /// The links that are to be bare.
    bare: BTreeMap<u64, Vec<BareLink>>,
    /// Their windows as they will be stored: number, hash before it, links.
    windows: Vec<(u64, Hash, Packed)>,
    /// The payloads among them that lie in files.
    files: Vec<Hash>,
}

impl Ledger {
    /// Seals runs inside the transaction. The inner error leaves nothing behind; after the outer one the
    /// transaction must be rolled back.
    pub(super) fn seal(
        &mut self,
        sealing: &Sealing,
        (blobs, redactor): (&Blobs, &Redactor),
    ) -> Result<Result<Sealed, JournalError>, JournalError> {
        self.write_touched()?;
        let found = match self.look(sealing, blobs) {
            Ok(found) => found,
            Err(error @ JournalError::Corrupt { .. }) => return Ok(Err(error)),
            Err(error) => return Err(error),
        };
        self.remove_unused(blobs)?;
        if found.runs.is_empty() {
            return Ok(Ok(Sealed::default()));
        }
        self.bare(&found)?;
        // What is remembered of the ends of streams may be of events that are gone.
        self.memory.streams.clear();
        let runs = found.runs;
        let names: Vec<RunId> = runs.iter().map(|one| one.run.clone()).collect();
        let events = runs.iter().map(|one| one.events).sum();
        let Sealing { by, in_history, archive, .. } = sealing.clone();
        let event = Event::RunsSealed { by, in_history, archive, runs };
        let append =
            Append { stream: Stream::System, expect: Expect::Anything, events: vec![event] };
        self.append(&prepare(vec![append], redactor, Large::Apart)?)?;
        self.mark_plans(&names)?;
        Ok(Ok(Sealed { runs: count(names.len()), events }))
    }

    fn look(&self, sealing: &Sealing, blobs: &Blobs) -> Result<Found, JournalError> {
        let mut found = Found::default();
        for run in &sealing.runs {
            if self.may_be_sealed(run, sealing.retention)? {
                let links = self.links_of(run, blobs, &mut found.files)?;
                found.runs.push(SealedRun { run: run.clone(), events: count(links.len()) });
                for link in links {
                    found.bare.entry(window(link.position)).or_default().push(link);
                }
            }
        }
        for (number, fresh) in &found.bare {
            found.windows.push(self.with_links(*number, fresh)?);
        }
        Ok(found)
    }

    fn may_be_sealed(&self, run: &RunId, retention: Retention) -> Result<bool, JournalError> {
        let sql =
            format!("select exists (select 1 from run where {})", sealable_sql("and run_id = ?3"));
        let params =
            params![retention.before.as_millis(), integer(retention.through), run.as_str()];
        Ok(self.conn.prepare_cached(&sql)?.query_row(params, |row| row.get(0))?)
    }

    /// The links of the events of a run whose payloads go. Each payload is held against its digest first:
    /// what was changed must not leave with what was not.
    fn links_of(
        &self,
        run: &RunId,
        blobs: &Blobs,
        files: &mut Vec<Hash>,
    ) -> Result<Vec<BareLink>, JournalError> {
        // The end of the stream stays, whatever it is: nobody may append at a place that was taken.
        let sql = format!(
            "select {COLUMNS} from event where stream = ?1 and kind not in ({}) \
             and seq < (select max(seq) from event where stream = ?1) order by seq",
            stays()
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([run.as_str()])?;
        let mut links = Vec::new();
        while let Some(row) = rows.next()? {
            let found = stored(row, blobs)?;
            let link = found.link.clone();
            if row.get::<_, Option<String>>(5)?.is_none() {
                files.push(link.payload_digest);
            }
            found.entry().map_err(|what| damaged_event(link.position, what))?;
            links.push(link);
        }
        Ok(links)
    }

    /// A window as it will be stored with these links, too.
    fn with_links(
        &self,
        number: u64,
        fresh: &[BareLink],
    ) -> Result<(u64, Hash, Packed), JournalError> {
        let known = find_window(&self.conn, number)?;
        let (before, mut links) = if let Some(Window { edge, links }) = known {
            (edge, links)
        } else {
            let at = edge(number);
            let before = if at == 0 { Some(self.genesis) } else { hash_at(&self.conn, at)? };
            let missing = || damaged_event(at, "it is missing".into());
            (before.ok_or_else(missing)?, Vec::new())
        };
        links.extend(fresh.iter().cloned());
        links.sort_by_key(|link| link.position);
        let packed = pack(&links).map_err(|error| JournalError::Storage {
            reason: format!("links cannot be packed: {error}"),
            full: false,
        })?;
        Ok((number, before, packed))
    }

    /// Writes the links and deletes what they are of, with all that lies beside it.
    fn bare(&self, found: &Found) -> Result<(), JournalError> {
        let insert = "insert or replace into links (window, edge, columns, digests) \
             values (?1, ?2, ?3, ?4)";
        for (number, edge, Packed { columns, digests }) in &found.windows {
            self.execute(insert, params![integer(*number), edge, columns, digests])?;
        }
        for link in found.bare.values().flatten() {
            let position = integer(link.position);
            for table in ["event", "body", "fact"] {
                self.execute(&format!("delete from {table} where position = ?1"), &[&position])?;
            }
        }
        for digest in &found.files {
            self.execute("insert or ignore into blob_unused (digest) values (?1)", &[digest])?;
        }
        Ok(())
    }

    /// Notes the plans of these runs that no other run needs.
    fn mark_plans(&self, runs: &[RunId]) -> Result<(), JournalError> {
        let now = self.clock.now().as_millis();
        let mark = "insert or ignore into plan_unused (id, since) \
             select plan_id, ?2 from run where run_id = ?1 and not exists \
             (select 1 from run as other where other.plan_id = run.plan_id and other.sealed is null)";
        for run in runs {
            self.execute(mark, params![run.as_str(), now])?;
        }
        Ok(())
    }

    /// Removes what earlier sealings left: plans that nobody has kept again since, and files that no event
    /// names.
    fn remove_unused(&self, blobs: &Blobs) -> Result<(), JournalError> {
        let since = self.clock.now().as_millis().saturating_sub(PLAN_UNUSED);
        let old = "select id from plan_unused where since < ?1 and not exists \
             (select 1 from run where run.plan_id = plan_unused.id and run.sealed is null)";
        self.execute(&format!("delete from plan where id in ({old})"), &[&since])?;
        self.execute("delete from plan_unused where since < ?1", &[&since])?;
        let unused = "select digest from blob_unused where not exists (select 1 from event \
             where event.payload_digest = blob_unused.digest and event.payload is null)";
        let mut statement = self.conn.prepare_cached(unused)?;
        let digests = statement.query_map((), |row| row.get::<_, Hash>(0))?;
        for digest in digests.collect::<Result<Vec<_>, _>>()? {
            if let Err(error) = blobs.remove(&digest) {
                tracing::warn!(%error, "a file of a payload that is gone stays");
            }
        }
        self.execute("delete from blob_unused", &[])?;
        Ok(())
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sqlite::schema;

    #[test]
    fn runs_that_may_be_sealed_are_read_from_their_index() {
        let dir = tempfile::tempdir().unwrap();
        let (_lock, conn) = schema::open(dir.path(), schema::MIGRATIONS).unwrap();
        let sql = format!(
            "explain query plan select run_id from run where {}",
            sealable_sql("order by updated_at limit ?3")
        );
        let mut statement = conn.prepare(&sql).unwrap();
        let lines = statement.query_map(params![0, 0, 1], |row| row.get::<_, String>(3)).unwrap();
        let lines: Vec<String> = lines.collect::<Result<_, _>>().unwrap();
        assert!(lines[0].contains("run_sealable"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("fact_by_name")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("TEMP B-TREE")), "{lines:?}");
    }
}
