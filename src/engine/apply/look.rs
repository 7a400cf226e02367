//! Guards and measures: looking before and after an effect.

use serde_json::Value;
use tracing::warn;

use super::{Applied, ApplyContext};
use crate::kernel::{Failure, Query, Receipt};
use crate::postgres::{PgError, PgReader, PgWriter};

/// What messages call the guard and the measure of a change.
pub(super) const GUARD: &str = "guard of the change";
pub(super) const MEASURE: &str = "measure of the change";

/// What a guard returned: one row with one boolean. No row and NULL are false.
pub(super) fn truth(rows: &[Value]) -> Result<bool, Failure> {
    let wrong = || {
        Failure::permanent(
            "apply::guard_not_boolean",
            "the change's guard must return at most one row with one boolean",
        )
    };
    match rows {
        [] => Ok(false),
        [Value::Object(fields)] if fields.len() == 1 => match fields.values().next() {
            Some(Value::Bool(holds)) => Ok(*holds),
            Some(Value::Null) => Ok(false),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// Carries out an effect that no transaction of ours surrounds: guard, measure, effect, measure.
pub(super) async fn looked(
    cx: &ApplyContext<'_>,
    effect: impl Future<Output = Result<Receipt, Failure>>,
) -> Result<Applied, Failure> {
    let needed = cx.guard().is_some() || cx.change.measure.is_some();
    let reader = if needed { Some(cx.placed_reader().await?) } else { None };
    if let (Some(reader), Some(guard)) = (&reader, cx.guard())
        && !truth(&reader.query(GUARD, guard).await?)?
    {
        return Ok(Applied::Moot);
    }
    let measure = cx.change.measure.as_ref();
    let before = match (&reader, measure) {
        (Some(reader), Some(query)) => first(reader.query(MEASURE, query).await?),
        _ => Value::Null,
    };
    let start = cx.clock.now();
    let receipt = effect.await?;
    let duration_ms = cx.millis_since(start);
    let after = match (&reader, measure) {
        (Some(reader), Some(query)) => measured_after(reader, query).await,
        _ => Value::Null,
    };
    if let Some(reader) = reader {
        reader.close().await;
    }
    Ok(Applied::Done(Receipt { before, after, duration_ms, ..receipt }))
}

/// The effect is there by now: a measurement that fails must not undo its record.
async fn measured_after(reader: &PgReader, query: &Query) -> Value {
    match reader.query(MEASURE, query).await {
        Ok(rows) => first(rows),
        Err(error) => {
            warn!(%error, "measure after the change failed");
            Value::Null
        }
    }
}

/// The measure's row, in the transaction of the change.
pub(super) async fn measured(
    writer: &mut PgWriter,
    query: Option<&Query>,
) -> Result<Value, PgError> {
    match query {
        Some(query) => writer.query(MEASURE, query).await.map(first),
        None => Ok(Value::Null),
    }
}

fn first(rows: Vec<Value>) -> Value {
    rows.into_iter().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_true_holds() {
        assert!(truth(&[json!({"ok": true})]).unwrap());
        assert!(!truth(&[json!({"ok": false})]).unwrap());
        assert!(!truth(&[json!({"ok": null})]).unwrap());
        assert!(!truth(&[]).unwrap());
        assert!(truth(&[json!({"ok": 1})]).is_err());
        assert!(truth(&[json!({"a": true, "b": true})]).is_err());
        assert!(truth(&[json!({"ok": true}), json!({"ok": true})]).is_err());
    }
}
