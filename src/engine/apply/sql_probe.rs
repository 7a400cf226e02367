//! Statements that no transaction surrounds, looked for after a crash: building, dropping and
//! rebuilding indexes.

use serde::Deserialize;
use serde_json::Value;

use super::index_probe::{Finding, Index, IndexStatement, Indexes, is_left_unusable, judge};
use super::sql::{connect, statement_name};
use super::{ApplyContext, Recovered};
use crate::kernel::{
    Bind, Failure, Operation, QualifiedName, Receipt, Recovery, SqlFile, SqlStatement,
};
use crate::postgres::{PgError, PgReader};
use crate::sql_file;

/// Lists the indexes of a table.
pub(super) const INDEXES_AROUND: SqlFile = sql_file!("engine/indexes_around");

/// The indexes before the effect; null for a statement that cannot be looked for.
pub(super) async fn fingerprint(
    cx: &ApplyContext<'_>,
    statement: &SqlStatement,
) -> Result<Value, Failure> {
    let Some(known) = IndexStatement::parse(&statement.text) else { return Ok(Value::Null) };
    let reader = cx.placed_reader().await?;
    let indexes = indexes(&reader, &known, None).await;
    reader.close().await;
    to_json(&indexes?)
}

/// Compares what is there now with the fingerprint, and removes what is half done.
pub(super) async fn find(
    cx: &ApplyContext<'_>,
    statement: &SqlStatement,
    fingerprint: &Value,
    reader: &PgReader,
) -> Result<Recovered, Failure> {
    let unknown = |why: &str| Ok(Recovered::Unknown(why.to_owned()));
    let Some(known) = IndexStatement::parse(&statement.text) else {
        return unknown(&format!("whether `{}` happened cannot be seen", statement.text));
    };
    let Ok(before) = serde_json::from_value::<Indexes>(fingerprint.clone()) else {
        return unknown("it was started without a record of the indexes before");
    };
    let now = indexes(reader, &known, before.table).await?;
    let finding = judge(&known, &before, &now);
    let (Finding::Applied(remnants) | Finding::NotApplied(remnants)) = &finding else {
        let Finding::Unknown(why) = finding else { return unknown("") };
        return Ok(Recovered::Unknown(why));
    };
    if !remnants.is_empty() {
        remove(cx, remnants).await?;
        let left = match judge(&known, &before, &indexes(reader, &known, before.table).await?) {
            Finding::Applied(left) | Finding::NotApplied(left) => left,
            Finding::Unknown(why) => return Ok(Recovered::Unknown(why)),
        };
        if let Some(left) = left.first() {
            return unknown(&format!("its remnant {left} could not be removed"));
        }
    }
    Ok(match finding {
        Finding::Applied(_) => {
            Recovered::Applied(Receipt { recovered: true, ..Receipt::default() })
        }
        Finding::NotApplied(_) | Finding::Unknown(_) => Recovered::NotApplied,
    })
}

/// After the server refused the statement: removes what it left half done, so that another try starts
/// from nothing. `before` is what stood there right before the statement.
pub(super) async fn tidy_up(
    cx: &ApplyContext<'_>,
    statement: &SqlStatement,
    before: &Value,
    failure: Failure,
) -> Failure {
    let (Recovery::Probe, Some(known)) = (cx.recovery, IndexStatement::parse(&statement.text))
    else {
        return failure;
    };
    match tidy(cx, &known, before).await {
        Ok(None) => failure,
        Ok(Some(note)) => Failure { message: format!("{}; {note}", failure.message), ..failure },
        Err(error) => Failure {
            message: format!("{}; what it left could not be removed: {error}", failure.message),
            ..failure
        },
    }
}

async fn tidy(
    cx: &ApplyContext<'_>,
    known: &IndexStatement,
    before: &Value,
) -> Result<Option<String>, Failure> {
    let Ok(before) = serde_json::from_value::<Indexes>(before.clone()) else { return Ok(None) };
    let reader = cx.placed_reader().await?;
    let now = indexes(&reader, known, before.table).await;
    reader.close().await;
    let now = now?;
    if is_left_unusable(known, &before, &now) {
        return Ok(Some("the index is still there, but marked invalid: drop or rebuild it".into()));
    }
    match judge(known, &before, &now) {
        Finding::Applied(remnants) | Finding::NotApplied(remnants) if !remnants.is_empty() => {
            remove(cx, &remnants).await.map(|()| None)
        }
        Finding::Applied(_) | Finding::NotApplied(_) => Ok(None),
        Finding::Unknown(why) => Ok(Some(why)),
    }
}

/// The change's own clean-up, or dropping exactly these remnants.
async fn remove(cx: &ApplyContext<'_>, remnants: &[QualifiedName]) -> Result<(), Failure> {
    let mut writer = connect(cx).await?;
    let own = match &cx.change.cleanup {
        Some(Operation::Sql { statement, .. }) => vec![statement.clone()],
        _ => remnants
            .iter()
            .map(|name| SqlStatement::new(format!("drop index concurrently if exists {name}")))
            .collect(),
    };
    for statement in own {
        (cx.progress)(format!("removing what an earlier try left: {}", statement.text));
        let name = format!("clean-up of the {}", statement_name(cx));
        writer.execute(&name, &statement, &|_| None).await?;
    }
    writer.close().await;
    Ok(())
}

#[derive(Deserialize)]
struct Row {
    table_oid: i64,
    oid: Option<i64>,
}

async fn indexes(
    reader: &PgReader,
    statement: &IndexStatement,
    table: Option<i64>,
) -> Result<Indexes, PgError> {
    let table = table.map_or(Bind::Null, Bind::Int);
    let binds = [Bind::Text(statement.relation().to_owned()), table];
    let rows: Vec<Value> = reader.rows(&INDEXES_AROUND, &binds).await?;
    let mut found = Indexes::default();
    for row in rows {
        let decode = |error: serde_json::Error| PgError::Decode {
            query: INDEXES_AROUND.name.to_owned(),
            why: error.to_string(),
        };
        let Row { table_oid, oid } = Row::deserialize(&row).map_err(decode)?;
        found.table = Some(table_oid);
        if oid.is_some() {
            found.indexes.push(Index::deserialize(&row).map_err(decode)?);
        }
    }
    Ok(found)
}

fn to_json(indexes: &Indexes) -> Result<Value, Failure> {
    serde_json::to_value(indexes)
        .map_err(|error| Failure::permanent("apply::fingerprint", error.to_string()))
}
