//! Texts and bound values on their way to the driver: the one place that hands it a text.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Arguments as _, AssertSqlSafe, PgConnection, Postgres};

use super::PgError;
use crate::kernel::{Bind, Secret};

/// Looks a secret up by name.
pub(super) type SecretLookup<'a> = &'a (dyn Fn(&str) -> Option<Secret<String>> + Send + Sync);

/// Encodes bound values with their real types. Secrets enter here and nowhere before.
pub(super) fn arguments(
    query: &str,
    binds: &[Bind],
    secret: SecretLookup<'_>,
) -> Result<PgArguments, PgError> {
    let mut arguments = PgArguments::default();
    for (index, bind) in binds.iter().enumerate() {
        let error = |why| PgError::Bind { query: query.to_owned(), position: index + 1, why };
        let added = match bind {
            Bind::Text(text) => arguments.add(text),
            Bind::Int(number) => arguments.add(number),
            Bind::Float(number) => arguments.add(number),
            Bind::Bool(flag) => arguments.add(flag),
            Bind::Timestamp(at) => arguments.add::<DateTime<Utc>>(at.to_datetime()),
            Bind::Json(value) => arguments.add(value),
            Bind::TextArray(texts) => arguments.add(texts),
            Bind::IntArray(numbers) => arguments.add(numbers),
            Bind::Null => arguments.add(None::<&str>),
            Bind::Secret(name) => match secret(name) {
                Some(value) => arguments.add(value.expose()),
                None => return Err(error(format!("secret `{name}` has no value here"))),
            },
        };
        added.map_err(|source| error(source.to_string()))?;
    }
    Ok(arguments)
}

/// A time limit as PostgreSQL takes it: milliseconds, never 0, which would mean "none".
pub(super) fn timeout_millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// A word of ours as a literal, for messages that take no bound values. What could mean something else
/// under some setting of the server is replaced, as PostgreSQL does in an `application_name`.
pub(super) fn literal(word: &str) -> String {
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('\'');
    for c in word.chars() {
        quoted.push(if c.is_ascii_graphic() && !matches!(c, '\'' | '\\') { c } else { '?' });
    }
    quoted.push('\'');
    quoted
}

/// One statement with bound values, by the extended protocol, which refuses a second statement in the
/// text. Nothing is kept prepared: it would not survive a pooler, nor be used twice.
pub(super) fn statement(
    text: String,
    arguments: PgArguments,
) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    sqlx::query_with(AssertSqlSafe(text), arguments).persistent(false)
}

/// A text of ours, by the simple protocol: several statements in one round trip, or one that no
/// transaction may surround.
pub(super) async fn simple(
    connection: &mut PgConnection,
    text: String,
) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(connection).await
}

/// Has the server parse a text without running it.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    text: String,
) -> Result<sqlx::postgres::PgStatement, sqlx::Error> {
    use sqlx::{Connection as _, Executor as _, SqlSafeStr as _};
    let prepared = connection.prepare(AssertSqlSafe(text).into_sql_str()).await?;
    connection.clear_cached_statements().await?;
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn no_word_leaves_its_quotes() {
        assert_eq!(literal("lakeops:00ff"), "'lakeops:00ff'");
        assert_eq!(literal("a'; drop table t; --\\"), "'a?;?drop?table?t;?--?'");
        assert_eq!(literal("é\n"), "'??'");
    }
}
