//! Waiting for what a dead process left at work: it goes on after its client is gone, and until it has
//! ended nobody can say how it ends.

use std::time::Duration;

use serde::Deserialize;

use super::ApplyContext;
use crate::kernel::{Bind, Failure, SqlFile};
use crate::postgres::PgReader;
use crate::sql_file;

/// Finds sessions that carry a change out.
pub(super) const SESSIONS_BY_NAME: SqlFile = sql_file!("engine/sessions_by_name");

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Session {
    pid: i64,
    state: Option<String>,
}

/// Waits until no session of this change's name is left; says why not, when the patience ends.
pub(super) async fn wait_for_session(
    cx: &ApplyContext<'_>,
    reader: &PgReader,
) -> Result<Option<String>, Failure> {
    let name = cx.key.application_name();
    let patience = cx.settings.limits.orphan_wait;
    let deadline = cx.clock.now().plus(patience.0);
    let mut told = None;
    loop {
        let sessions: Vec<Session> =
            reader.rows(&SESSIONS_BY_NAME, &[Bind::Text(name.clone())]).await?;
        let Some(Session { pid, state }) = sessions.first() else { return Ok(None) };
        let state = state.as_deref().unwrap_or("unknown");
        if cx.clock.now() >= deadline {
            return Ok(Some(format!(
                "backend {pid}, left by an earlier process, is still at work ({state}) after {patience}; \
                 when it has ended, or was ended with pg_terminate_backend({pid}), resume"
            )));
        }
        if told != Some(*pid) {
            told = Some(*pid);
            (cx.progress)(format!(
                "waiting for backend {pid}, which an earlier process left ({state})"
            ));
        }
        cx.clock.sleep_until(cx.clock.now().plus(EVERY)).await;
    }
}
