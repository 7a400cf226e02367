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

/// What `DISCARD ALL` does, in one message, and the name by which the session is known meanwhile. Left out are
/// plans, which change no answer, and statements that the driver has prepared: it goes on using them.
fn reset_text(name: &str) -> String {
    let name = bind::literal(name);
    format!(
        "close all; reset session authorization; reset role; reset all; unlisten *; discard temp; \
         discard sequences; set application_name = {name}; \
         select exists (select from pg_catalog.pg_prepared_statements as p where p.from_sql) as prepared \
           from pg_catalog.pg_advisory_unlock_all()"
    )
}

/// Resets a session and gives it a name. `false`: something is left that a statement has prepared, and the
/// session is of no more use.
pub(super) async fn reset(connection: &mut PgConnection, name: &str) -> Result<bool, PgError> {
    let rows = answer(RESET, 0, SOON, bind::simple(connection, reset_text(name))).await?;
    let answers = decode::objects(RESET, &rows)?;
    // Messages of the simple protocol are answered in texts.
    Ok(answers.last().is_some_and(|row| row["prepared"] == json!("f")))
}
