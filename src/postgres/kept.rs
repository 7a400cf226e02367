//! Making a session as good as new, so that it can be kept for what comes next.

use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;

use super::session::answer;
use super::{PgError, bind, decode};

/// How long a session that was kept may take to answer; making another one takes no longer.
pub(super) const SOON: Duration = Duration::from_secs(2);

/// What messages call it.
const RESET: &str = "reset of the session";

/// What `DISCARD ALL` does, in one message. Left out are plans, which change no answer, and statements that the
/// driver has prepared: it goes on using them.
const CLEAN: &str = "close all; reset session authorization; reset role; reset all; unlisten *; discard temp; \
    discard sequences; \
    select exists (select from pg_catalog.pg_prepared_statements as p where p.from_sql) as prepared \
      from pg_catalog.pg_advisory_unlock_all()";

/// Resets a session and, in the same message, goes on with `next`. The reset is a transaction of its own: what
/// was set at the end of the last one holds for the beginning of none of the next. `false`: something is left that
/// a statement has prepared, and the session is of no more use.
pub(super) async fn reset(connection: &mut PgConnection, next: &str) -> Result<bool, PgError> {
    let text = format!("begin; {CLEAN}; commit; {next}");
    let rows = answer(RESET, 0, SOON, bind::simple(connection, text)).await?;
    let answers = decode::objects(RESET, &rows)?;
    // Messages of the simple protocol are answered in texts.
    Ok(answers.iter().any(|row| row["prepared"] == json!("f")))
}
