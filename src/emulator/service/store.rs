//! The catalogue: everything that the service knows, in one SQLite file.
//!
//! Resources are documents, found by their name. What a call changes commits together, with the
//! operation that carries it out; so a process that dies leaves an operation to go on with, and never
//! half a change. Commits are not synced one by one: like the databases, the catalogue survives every
//! crash of processes.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

const SCHEMA: &str = "
    create table if not exists document (
        name text primary key, collection text not null, body text not null
    ) strict, without rowid;
    create index if not exists document_collection on document (collection, name);
    create table if not exists operation (
        number integer primary key, name text not null unique, resource text not null,
        done integer not null, body text not null
    ) strict;
    create index if not exists operation_open on operation (resource) where done = 0;
    create table if not exists token (
        digest text primary key, expires integer not null, body text not null
    ) strict, without rowid;";
/// How many operations can still be read.
const KEPT_OPERATIONS: i64 = 10_000;
/// The newest form of the catalogue.
const FORMAT: i64 = 1;

/// The catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A document cannot be read or written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A newer version wrote it.
    #[error("it has format {found}, and this version of lakeops knows {FORMAT}")]
    Newer {
        /// Its format.
        found: i64,
    },
}

/// The catalogue.
pub(super) struct Store {
    connection: Mutex<Connection>,
}

/// A transaction on the catalogue.
pub(super) struct Tx<'a>(rusqlite::Transaction<'a>);

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        connection.execute_batch("pragma journal_mode = wal; pragma synchronous = normal;")?;
        let found: i64 = connection.query_row("pragma user_version", (), |row| row.get(0))?;
        if found > FORMAT {
            return Err(StoreError::Newer { found });
        }
        connection.execute_batch(SCHEMA)?;
        let old = "delete from operation where done = 1
                     and number <= (select max(number) - ?1 from operation)";
        connection.execute(old, [KEPT_OPERATIONS])?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Does something as a whole: when it fails, nothing has happened.
    pub(super) fn transact<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = Tx(connection.transaction().map_err(StoreError::from)?);
        let done = work(&tx)?;
        tx.0.commit().map_err(StoreError::from)?;
        Ok(done)
    }
}

/// The collection of a name: `projects/a/branches` of `projects/a/branches/b`.
fn collection_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(collection, _)| collection)
}

impl Tx<'_> {
    /// The document of this name.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let mut query = self.0.prepare_cached("select body from document where name = ?1")?;
        let body: Option<String> = query.query_row([name], |row| row.get(0)).optional()?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    pub(super) fn put<T: Serialize>(&self, name: &str, document: &T) -> Result<(), StoreError> {
        let sql = "insert or replace into document (name, collection, body) values (?1, ?2, ?3)";
        let body = serde_json::to_string(document)?;
        self.0.prepare_cached(sql)?.execute(params![name, collection_of(name), body])?;
        Ok(())
    }

    /// Removes the document of this name and all below it.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let sql = "delete from document where name = ?1 or (name > ?2 and name < ?3)";
        let (from, to) = range_below(name);
        self.0.prepare_cached(sql)?.execute(params![name, from, to])?;
        Ok(())
    }

    /// The documents of a collection, by name.
    pub(super) fn list<T: DeserializeOwned>(&self, collection: &str) -> Result<Vec<T>, StoreError> {
        let sql = "select body from document where collection = ?1 order by name";
        let mut query = self.0.prepare_cached(sql)?;
        let bodies = query.query_map([collection], |row| row.get::<_, String>(0))?;
        bodies.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }

    /// The documents below a name, by name.
    pub(super) fn below<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, StoreError> {
        let sql = "select body from document where name > ?1 and name < ?2 order by name";
        let (from, to) = range_below(name);
        let mut query = self.0.prepare_cached(sql)?;
        let bodies = query.query_map([from, to], |row| row.get::<_, String>(0))?;
        bodies.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }

    pub(super) fn put_operation<T: Serialize>(
        &self,
        (name, resource): (&str, &str),
        done: bool,
        operation: &T,
    ) -> Result<(), StoreError> {
        let sql = "insert into operation (name, resource, done, body) values (?1, ?2, ?3, ?4)
                   on conflict (name) do update set done = excluded.done, body = excluded.body";
        let body = serde_json::to_string(operation)?;
        self.0.prepare_cached(sql)?.execute(params![name, resource, done, body])?;
        Ok(())
    }

    pub(super) fn operation<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let mut query = self.0.prepare_cached("select body from operation where name = ?1")?;
        let body: Option<String> = query.query_row([name], |row| row.get(0)).optional()?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// The operations that have not ended, the oldest first.
    pub(super) fn open_operations<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        let sql = "select body from operation where done = 0 order by number";
        let mut query = self.0.prepare_cached(sql)?;
        let bodies = query.query_map((), |row| row.get::<_, String>(0))?;
        bodies.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }

    pub(super) fn put_token<T: Serialize>(
        &self,
        digest: &str,
        expires: i64,
        token: &T,
    ) -> Result<(), StoreError> {
        let sql = "insert or replace into token (digest, expires, body) values (?1, ?2, ?3)";
        let body = serde_json::to_string(token)?;
        self.0.prepare_cached(sql)?.execute(params![digest, expires, body])?;
        Ok(())
    }

    /// A token that has not expired.
    pub(super) fn token<T: DeserializeOwned>(
        &self,
        digest: &str,
        now: i64,
    ) -> Result<Option<T>, StoreError> {
        let sql = "select body from token where digest = ?1 and expires > ?2";
        let mut query = self.0.prepare_cached(sql)?;
        let found = query.query_row(params![digest, now], |row| row.get::<_, String>(0));
        Ok(found.optional()?.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// Forgets the tokens that have expired.
    pub(super) fn forget_tokens(&self, now: i64) -> Result<(), StoreError> {
        self.0.execute("delete from token where expires <= ?1", [now])?;
        Ok(())
    }
}

/// What lies below a name: everything between `name/` and `name0`, the byte after `/`.
fn range_below(name: &str) -> (String, String) {
    (format!("{name}/"), format!("{name}0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Store) {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("catalogue.db")).unwrap();
        (place, store)
    }

    #[test]
    fn documents_are_found_by_name_and_removed_with_what_is_below() {
        let (_place, store) = open();
        store
            .transact(|tx| {
                for name in ["p/a", "p/a/b/x", "p/a/b/y", "p/ab", "p/a-b"] {
                    tx.put(name, &name)?;
                }
                assert_eq!(tx.list::<String>("p")?, ["p/a", "p/a-b", "p/ab"]);
                assert_eq!(tx.below::<String>("p/a")?, ["p/a/b/x", "p/a/b/y"]);
                tx.remove("p/a")?;
                assert_eq!(tx.list::<String>("p")?, ["p/a-b", "p/ab"]);
                assert_eq!(tx.get::<String>("p/a/b/x")?, None);
                Ok::<(), StoreError>(())
            })
            .unwrap();
    }

    #[test]
    fn what_fails_has_not_happened() {
        let (_place, store) = open();
        let failed = store.transact(|tx| {
            tx.put("p/a", &1)?;
            Err::<(), _>(StoreError::Newer { found: 9 })
        });
        assert!(failed.is_err());
        let found = store.transact(|tx| tx.get::<i64>("p/a"));
        assert_eq!(found.unwrap(), None);
    }

    #[test]
    fn a_token_ends() {
        let (_place, store) = open();
        store.transact(|tx| tx.put_token("d", 100, &"ann")).unwrap();
        let at = |now| store.transact(|tx| tx.token::<String>("d", now)).unwrap();
        assert_eq!((at(99).as_deref(), at(100)), (Some("ann"), None));
    }
}
