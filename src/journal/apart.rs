//! What lies beside an event because it is large: the rows for the history, and what the next look of
//! its tool goes on from.
//!
//! The event names such a part by the digest of its text, so the chain covers it, and the part itself is
//! compressed. Both can be dropped without a break in the chain: rows once they are in the history and
//! some days old, the state of a tool once newer looks have replaced it. So the journal of a collection
//! stays small, and whoever replays a run reads none of it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event::{Event, Found, Rows};
use crate::kernel::{Digest, Redactor};
use crate::tools::tool::HistoryRow;

/// So many rows stay in their event.
const FEW: usize = 50;

/// How well it is compressed: more takes longer than it saves.
const LEVEL: i32 = 3;

/// Which part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its rows for the history.
    Rows,
    /// What the next look goes on from.
    Carry,
}

impl Part {
    /// As it is stored.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Carry => "carry",
        }
    }
}

/// A part as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) part: Part,
    pub(super) bytes: Vec<u8>,
}

/// What is wrong with a part.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
    #[error("it is not what its digest says")]
    Changed,
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Takes the large parts out of an event, masked, and leaves their digests in it.
pub(super) fn take(event: &mut Event, redactor: &Redactor) -> Result<Vec<Body>, Unfit> {
    let Event::StepSucceeded { history, fact, .. } = event else { return Ok(Vec::new()) };
    let mut bodies = Vec::new();
    if let Rows::Here(rows) = history
        && rows.len() > FEW
    {
        let (digest, bytes) = packed(serde_json::to_string(&table_wise(rows))?, redactor)?;
        *history = Rows::Apart { digest, count: rows.len() };
        bodies.push(Body { part: Part::Rows, bytes });
    }
    if let Some(Found { carry, apart, .. }) = fact
        && let Some(value) = carry.take()
    {
        let (digest, bytes) = packed(value.to_string(), redactor)?;
        *apart = Some(digest);
        bodies.push(Body { part: Part::Carry, bytes });
    }
    Ok(bodies)
}

fn packed(mut text: String, redactor: &Redactor) -> Result<(Digest, Vec<u8>), Unfit> {
    if !redactor.is_empty() && redactor.mask(&text) != text {
        let mut value: Value = serde_json::from_str(&text)?;
        redactor.mask_json(&mut value);
        text = value.to_string();
    }
    let bytes = zstd::bulk::compress(text.as_bytes(), LEVEL)?;
    Ok((Digest::of_bytes(text.as_bytes()), bytes))
}

/// The text of a part, when it is what its digest says.
pub(super) fn unpacked(bytes: &[u8], digest: &Digest) -> Result<Vec<u8>, Unfit> {
    let text = zstd::stream::decode_all(bytes)?;
    if Digest::of_bytes(&text) == *digest { Ok(text) } else { Err(Unfit::Changed) }
}

/// The rows of a part.
pub(super) fn rows(bytes: &[u8], digest: &Digest) -> Result<Vec<HistoryRow>, Unfit> {
    let tables: Vec<Table> = serde_json::from_slice(&unpacked(bytes, digest)?)?;
    Ok(tables.into_iter().flat_map(Table::rows).collect())
}

/// What the next look goes on from.
pub(super) fn carry(bytes: &[u8], digest: &Digest) -> Result<Value, Unfit> {
    Ok(serde_json::from_slice(&unpacked(bytes, digest)?)?)
}

/// Rows of one table: what they share stands once, and the names of their columns too.
#[derive(Serialize, Deserialize)]
struct Table<V = Value> {
    #[serde(rename = "table")]
    name: String,
    /// Columns that have one value in all rows.
    same: Map<String, Value>,
    columns: Vec<String>,
    rows: Vec<Vec<V>>,
    /// Rows that are no objects: the history says so of each.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    odd: Vec<V>,
}

/// The tables in the order of their first rows. A column that a row lacks is null in it, which means the same.
fn table_wise(rows: &[HistoryRow]) -> Vec<Table<&Value>> {
    let mut names: Vec<&str> = Vec::new();
    let mut groups: HashMap<&str, Vec<&HistoryRow>> = HashMap::new();
    for row in rows {
        let group = groups.entry(row.table.as_str()).or_default();
        if group.is_empty() {
            names.push(&row.table);
        }
        group.push(row);
    }
    names
        .into_iter()
        .map(|name| Table::of(name, groups.get(name).map(Vec::as_slice).unwrap_or_default()))
        .collect()
}

static NULL: Value = Value::Null;

impl<'a> Table<&'a Value> {
    fn of(table: &str, rows: &[&'a HistoryRow]) -> Self {
        let (mut objects, mut odd) = (Vec::with_capacity(rows.len()), Vec::new());
        let mut columns: Vec<&str> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for row in rows {
            let Value::Object(columns_of) = &row.row else {
                odd.push(&row.row);
                continue;
            };
            let names = columns_of.keys().map(String::as_str);
            columns.extend(names.filter(|name| known.insert(*name)));
            objects.push(columns_of);
        }
        let value = |object: &'a Map<String, Value>, name: &str| object.get(name).unwrap_or(&NULL);
        let mut same = Map::new();
        columns.retain(|name| {
            let Some(first) = objects.first().map(|object| value(object, name)) else {
                return true;
            };
            let one =
                objects.len() > 1 && objects.iter().all(|object| value(object, name) == first);
            if one {
                same.insert((*name).to_owned(), first.clone());
            }
            !one
        });
        let cells = |object: &&'a Map<String, Value>| {
            columns.iter().map(|name| value(object, name)).collect()
        };
        Self {
            name: table.to_owned(),
            rows: objects.iter().map(cells).collect(),
            columns: columns.into_iter().map(str::to_owned).collect(),
            same,
            odd,
        }
    }
}

impl Table {
    fn rows(self) -> impl Iterator<Item = HistoryRow> {
        let Self { name, same, columns, rows, odd } = self;
        let objects = rows.into_iter().map(move |cells| {
            let mut row = same.clone();
            row.extend(columns.iter().cloned().zip(cells));
            Value::Object(row)
        });
        objects.chain(odd).map(move |row| HistoryRow { table: name.clone(), row })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn statement(n: usize) -> HistoryRow {
        let mut row = json!({
            "epoch_id": "e", "snapshot_timestamp": "2026-11-22T10:00:00Z", "queryid": n * 7_919,
            "calls": n, "total_exec_time": 0.25, "user_name": "ann",
        });
        if n.is_multiple_of(2) {
            row["calls_delta"] = json!(1.5);
        }
        HistoryRow { table: "pg_stat_history".to_owned(), row }
    }

    fn event(history: Vec<HistoryRow>, carry: Option<Value>) -> Event {
        let place = crate::journal::event::Fact { tool: "t".into(), place: "p".into() };
        Event::StepSucceeded {
            step: "look".into(),
            output: json!({}).into(),
            history: history.into(),
            seen: Vec::new(),
            fact: Some(Found::new(place, carry)),
        }
    }

    /// Without the columns that are null, which mean the same as those that are not there.
    fn plain(rows: Vec<HistoryRow>) -> Vec<HistoryRow> {
        let strip = |mut row: HistoryRow| {
            if let Value::Object(columns) = &mut row.row {
                columns.retain(|_, value| !value.is_null());
            }
            row
        };
        rows.into_iter().map(strip).collect()
    }

    #[test]
    fn many_rows_lie_apart_and_come_back() {
        let odd = HistoryRow { table: "pg_stat_history".to_owned(), row: json!([1]) };
        let text =
            HistoryRow { table: "query_texts".to_owned(), row: json!({ "query": "select 1" }) };
        let mut given: Vec<_> = (0..100).map(statement).collect();
        given.extend([odd, text]);
        let mut event = event(given.clone(), None);
        let bodies = take(&mut event, &Redactor::default()).unwrap();
        let Event::StepSucceeded { history: Rows::Apart { digest, count }, .. } = &event else {
            panic!("{event:?}")
        };
        assert_eq!((bodies.len(), *count), (1, 102));
        assert_eq!(plain(rows(&bodies[0].bytes, digest).unwrap()), given);
        let written = serde_json::to_string(&given).unwrap().len();
        assert!(bodies[0].bytes.len() * 10 < written, "{} of {written}", bodies[0].bytes.len());
        let other = Digest::of_bytes(b"other");
        assert!(matches!(rows(&bodies[0].bytes, &other), Err(Unfit::Changed)));
        assert!(matches!(rows(b"nonsense", digest), Err(Unfit::Packed(_))));
    }

    #[test]
    fn few_rows_stay_and_state_never_does() {
        let state = json!({ "baseline": [1, 2, 3] });
        let mut event = event((0..50).map(statement).collect(), Some(state.clone()));
        let bodies = take(&mut event, &Redactor::default()).unwrap();
        let Event::StepSucceeded { history: Rows::Here(rows), fact: Some(found), .. } = &event
        else {
            panic!("{event:?}")
        };
        assert_eq!((rows.len(), bodies.len(), &found.carry), (50, 1, &None));
        assert_eq!(carry(&bodies[0].bytes, found.apart.as_ref().unwrap()).unwrap(), state);
    }

    #[test]
    fn secrets_are_masked_in_what_lies_apart() {
        let redactor = Redactor::default();
        redactor.register("S", "topsecretvalue").unwrap();
        let state = json!({ "text": "a topsecretvalue" });
        let mut event = event(Vec::new(), Some(state));
        let bodies = take(&mut event, &redactor).unwrap();
        let text = zstd::stream::decode_all(&*bodies[0].bytes).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"text":"a [redacted]"}"#);
    }
}
