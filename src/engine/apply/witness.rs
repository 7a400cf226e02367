//! Seeing which locks a change takes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::ApplyContext;
use crate::journal::rehearsal::HeldLock;
use crate::kernel::{Bind, Query, SqlFile};
use crate::postgres::{PgError, PgWriter};
use crate::sql_file;

pub(super) const SESSION_LOCKS: SqlFile = sql_file!("engine/session_locks");

/// How often a statement outside a transaction is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Sees which locks on relations a change holds.
#[derive(Debug, Default)]
pub struct Witness(Mutex<BTreeSet<HeldLock>>);

impl Witness {
    /// What was seen since the last time.
    pub fn take(&self) -> Vec<HeldLock> {
        let seen = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        seen.into_iter().collect()
    }

    fn saw(&self, locks: impl IntoIterator<Item = HeldLock>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(locks);
    }
}

/// Looks from within the change's own transaction, which holds all its locks until it ends.
pub(super) async fn look_inside(
    cx: &ApplyContext<'_>,
    writer: &mut PgWriter,
) -> Result<(), PgError> {
    let Some(witness) = cx.witness else { return Ok(()) };
    let query = Query::with_binds(SESSION_LOCKS.text, vec![own_name(cx)]);
    let rows = writer.query(SESSION_LOCKS.name, &query).await?;
    witness.saw(rows.into_iter().filter_map(|row| serde_json::from_value(row).ok()));
    Ok(())
}

/// Looks from outside again and again, until it is dropped.
pub(super) async fn look_on(cx: &ApplyContext<'_>) -> std::convert::Infallible {
    let (Some(witness), Ok(reader)) = (cx.witness, cx.reader()) else {
        return std::future::pending().await;
    };
    loop {
        // Whoever may not see it sees nothing; that is no reason to stop the change.
        let seen = reader.rows::<HeldLock>(&SESSION_LOCKS, &[own_name(cx)]).await;
        witness.saw(seen.unwrap_or_default());
        cx.clock.sleep_until(cx.clock.now().plus(LOOK_EVERY)).await;
    }
}

fn own_name(cx: &ApplyContext<'_>) -> Bind {
    Bind::Text(cx.key.application_name())
}
