//! Opening the file, and bringing its schema up to date.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};

use super::rows::io_error;
use crate::journal::lock::StateLock;
use crate::journal::store::JournalError;
use crate::kernel::{IdSource, RandomIds, SqlFile};
use crate::sql_file;

/// The migrations, in order; the version is their number. Append-only.
pub(super) const MIGRATIONS: &[SqlFile] = &[
    sql_file!("journal/0001_init"),
    sql_file!("journal/0002_fact"),
    sql_file!("journal/0003_body"),
    sql_file!("journal/0004_seal"),
    sql_file!("journal/0005_conditions"),
];

/// How long a statement waits for another process to finish its commit.
const BUSY: Duration = Duration::from_secs(30);

/// How often a migration is tried while other processes have the journal open.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The journal of a state directory.
pub(super) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("journal.db")
}

/// Opens the journal for writing, after migrating it where that is needed.
pub(super) fn open(
    state_dir: &Path,
    migrations: &[SqlFile],
) -> Result<(StateLock, Connection), JournalError> {
    std::fs::create_dir_all(state_dir).map_err(|error| io_error(state_dir, &error))?;
    let path = file(state_dir);
    let known = number(migrations.len());
    let mut found = 0;
    for _ in 0..TRIES {
        let lock = StateLock::shared(state_dir).map_err(|error| io_error(state_dir, &error))?;
        let conn = connect(&path)?;
        found = version(&conn)?;
        if found > known {
            return Err(JournalError::Newer { found, known });
        }
        if found == known {
            use_wal(&conn)?;
            return Ok((lock, conn));
        }
        drop((conn, lock));
        match StateLock::try_exclusive(state_dir).map_err(|error| io_error(state_dir, &error))? {
            Some(_exclusive) => migrate(&path, migrations)?,
            None => std::thread::sleep(PAUSE),
        }
    }
    Err(JournalError::InUse { path: path.display().to_string(), found, known })
}

/// A connection with the settings that hold for each one.
pub(super) fn connect(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_prepared_statement_cache_capacity(64);
    let settings = "pragma synchronous = full; pragma foreign_keys = on;
        pragma trusted_schema = off; pragma cell_size_check = on;";
    conn.busy_timeout(BUSY).and_then(|()| conn.execute_batch(settings))?;
    Ok(conn)
}

fn use_wal(conn: &Connection) -> Result<(), JournalError> {
    let mode: String = conn.query_row("pragma journal_mode = wal", (), |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    let reason = format!("its file system does not support a write-ahead log (got `{mode}`)");
    Err(JournalError::Storage { reason, full: false })
}

/// The version of the schema; 0 when the file is empty.
fn version(conn: &Connection) -> Result<u32, JournalError> {
    let tables = "select count(*), count(*) filter (where name = 'schema_version')
        from sqlite_schema";
    let (objects, versioned): (u32, u32) =
        conn.query_row(tables, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
    if objects == 0 {
        return Ok(0);
    }
    let corrupt =
        |what: &str| JournalError::Corrupt { place: "its schema".into(), what: what.into() };
    if versioned == 0 {
        return Err(corrupt("there is no table `schema_version`; this is no journal"));
    }
    let version: Option<u32> =
        conn.query_row("select max(version) from schema_version", (), |row| row.get(0))?;
    version.ok_or_else(|| corrupt("the table `schema_version` is empty"))
}

fn migrate(path: &Path, migrations: &[SqlFile]) -> Result<(), JournalError> {
    let mut conn = connect(path)?;
    // Another process may have been faster.
    let found = version(&conn)?;
    use_wal(&conn)?;
    if found > 0 && found < number(migrations.len()) {
        let copy = path.with_extension(format!("v{found}.db"));
        conn.backup("main", &copy, None::<fn(rusqlite::backup::Progress)>)?;
        tracing::info!(copy = %copy.display(), "journal copied before its migration");
    }
    apply(&mut conn, found, migrations).map_err(JournalError::from)
}

/// Applies the migrations after version `found`, each in a transaction of its own.
fn apply(conn: &mut Connection, found: u32, migrations: &[SqlFile]) -> rusqlite::Result<()> {
    for (version, migration) in (1..).zip(migrations).filter(|(version, _)| *version > found) {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "create table if not exists schema_version (version integer primary key) strict",
        )?;
        transaction.execute_batch(migration.text)?;
        transaction.execute("insert into schema_version (version) values (?1)", [version])?;
        if version == 1 {
            let id = RandomIds.run_id();
            transaction.execute("insert into journal (id) values (?1)", [id.as_str()])?;
        }
        transaction.commit()?;
    }
    Ok(())
}

/// The identity of the journal.
pub(super) fn identity(conn: &Connection) -> Result<String, JournalError> {
    let id = conn.query_row("select id from journal", (), |row| row.get(0)).optional();
    id?.ok_or_else(|| JournalError::Corrupt {
        place: "the table `journal`".into(),
        what: "the identity of the journal is missing".into(),
    })
}

/// The objects of a schema: name and definition, in order.
pub(super) fn objects(conn: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = conn.prepare("select name, sql from sqlite_schema order by name")?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The objects that this version makes.
pub(super) fn expected_objects() -> rusqlite::Result<Vec<(String, Option<String>)>> {
    // Made in memory by the same migrations, so that they are written down once.
    let mut conn = Connection::open_in_memory()?;
    apply(&mut conn, 0, MIGRATIONS)?;
    objects(&conn)
}

fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: SqlFile =
        SqlFile { name: "test/next", text: "create table extra (x integer) strict;" };
    const FIRST: &[SqlFile] = &[MIGRATIONS[0]];
    const TWO: &[SqlFile] = &[MIGRATIONS[0], NEXT];

    #[test]
    fn migrates_and_keeps_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, conn) = open(dir.path(), FIRST).unwrap();
        let id = identity(&conn).unwrap();
        drop((lock, conn));
        let (_lock, conn) = open(dir.path(), TWO).unwrap();
        assert_eq!(version(&conn).unwrap(), 2);
        assert_eq!(identity(&conn).unwrap(), id);
        let copy = Connection::open(dir.path().join("journal.v1.db")).unwrap();
        assert_eq!((version(&copy).unwrap(), identity(&copy).unwrap()), (1, id));
    }

    #[test]
    fn a_newer_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), TWO).unwrap());
        let error = open(dir.path(), FIRST).unwrap_err();
        assert_eq!(error, JournalError::Newer { found: 2, known: 1 });
    }

    #[test]
    fn a_migration_is_refused_while_the_journal_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let _used = open(dir.path(), FIRST).unwrap();
        let error = open(dir.path(), TWO).unwrap_err();
        assert!(matches!(error, JournalError::InUse { found: 1, known: 2, .. }), "{error}");
    }

    #[test]
    fn a_failed_migration_leaves_the_version_before() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), MIGRATIONS).unwrap());
        let broken = SqlFile { name: "x", text: "create table half (x integer); nonsense;" };
        let migrations = [MIGRATIONS, &[broken]].concat();
        open(dir.path(), &migrations).unwrap_err();
        let (_lock, conn) = open(dir.path(), MIGRATIONS).unwrap();
        assert_eq!(objects(&conn).unwrap(), expected_objects().unwrap());
    }

    #[test]
    fn another_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(file(dir.path())).unwrap();
        other.execute_batch("create table mine (x)").unwrap();
        assert!(matches!(open(dir.path(), MIGRATIONS), Err(JournalError::Corrupt { .. })));
    }
}
