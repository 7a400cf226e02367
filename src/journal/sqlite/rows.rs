//! Between rows and values.

use std::io;
use std::path::Path;

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Error, ErrorCode, Row};

use crate::journal::blob::Blobs;
use crate::journal::chain::{Hash, Stored};
use crate::journal::event::Outcome;
use crate::journal::links::BareLink;
use crate::journal::store::{JournalError, RunSummary};
use crate::kernel::{Digest, RunId, Timestamp};

/// An integer as SQLite stores it.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl From<Error> for JournalError {
    fn from(error: Error) -> Self {
        let damaged = |what: String| Self::Corrupt { place: "journal.db".into(), what };
        match &error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => {
                    Self::Storage { reason: "no space is left".into(), full: true }
                }
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(error.to_string()),
                _ => Self::Storage { reason: error.to_string(), full: false },
            },
            Error::SqlInputError { .. }
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
            | Error::QueryReturnedNoRows => damaged(error.to_string()),
            _ => Self::Storage { reason: error.to_string(), full: false },
        }
    }
}

/// A failure of the file system.
pub(super) fn io_error(path: &Path, error: &io::Error) -> JournalError {
    JournalError::Storage {
        reason: format!("{}: {error}", path.display()),
        full: error.kind() == io::ErrorKind::StorageFull,
    }
}

/// The columns that [`stored`] reads.
pub(super) const COLUMNS: &str = "position, stream, seq, at, kind, payload, payload_digest, hash";

/// An event as it is stored, its payload fetched when it lies in a file.
pub(super) fn stored(row: &Row<'_>, blobs: &Blobs) -> Result<Stored, JournalError> {
    let position = unsigned(row, 0)?;
    read(row, position, blobs).map_err(|what| damaged_event(position, what))
}

/// An event that is not what was written.
pub(super) fn damaged_event(position: u64, what: String) -> JournalError {
    JournalError::Corrupt { place: format!("event {position}"), what }
}

fn read(row: &Row<'_>, position: u64, blobs: &Blobs) -> Result<Stored, String> {
    let text = |error: Error| error.to_string();
    let payload_digest: Hash = row.get(6).map_err(text)?;
    let inline: Option<String> = row.get(5).map_err(text)?;
    let payload = match inline {
        Some(payload) => payload,
        None => blobs
            .read(&payload_digest)
            .map_err(|error| format!("the file with its payload cannot be read: {error}"))?,
    };
    let link = BareLink {
        position,
        stream: row.get(1).map_err(text)?,
        seq: unsigned(row, 2).map_err(text)?,
        at: Timestamp::from_millis(row.get(3).map_err(text)?),
        kind: row.get(4).map_err(text)?,
        payload_digest,
    };
    Ok(Stored { link, payload, hash: row.get(7).map_err(text)? })
}

/// A number that is never negative.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| Error::IntegralValueOutOfRange(index, number))
}

/// The columns that [`summary`] reads.
pub(super) const RUN_COLUMNS: &str = "run_id, created, plan_id, workflow, target, outcome, \
     created_at, updated_at, wake_at, key, sealed";

/// A run with the position of its creation.
pub(super) fn summary(row: &Row<'_>) -> rusqlite::Result<(u64, RunSummary)> {
    let unreadable = |index| {
        let error = Box::new(FromSqlError::InvalidType);
        move || Error::FromSqlConversionFailure(index, Type::Text, error)
    };
    let outcome: String = row.get(5)?;
    let summary = RunSummary {
        run_id: RunId::new(row.get::<_, String>(0)?),
        plan_id: Digest::parse(&row.get::<_, String>(2)?).ok_or_else(unreadable(2))?,
        workflow: row.get(3)?,
        target: row.get(4)?,
        outcome: Outcome::parse(&outcome).ok_or_else(unreadable(5))?,
        created_at: Timestamp::from_millis(row.get(6)?),
        updated_at: Timestamp::from_millis(row.get(7)?),
        wake_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_millis),
        key: row.get(9)?,
        sealed: row.get::<_, Option<i64>>(10)?.map(|events| u64::try_from(events).unwrap_or(0)),
    };
    Ok((unsigned(row, 1)?, summary))
}
