//! What the counters of statements grew by between two looks. PURE.
//!
//! Counters belong to an *epoch*: they began at zero together, when the server was started or somebody
//! reset them. Across epochs nothing is compared. Within one, a statement can still begin anew on its
//! own: it was forgotten and came back, or was reset alone. Then all that it has counted was counted
//! since, and never is a difference negative.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::{Digest, Timestamp};

/// The counters whose growth is kept, and the column that keeps it.
pub const GROWING: [(&str, &str); 16] = [
    ("calls", "calls_delta"),
    ("plans", "plans_delta"),
    ("rows", "rows_delta"),
    ("total_exec_time", "total_exec_time_delta"),
    ("total_plan_time", "total_plan_time_delta"),
    ("shared_blks_hit", "shared_blks_hit_delta"),
    ("shared_blks_read", "shared_blks_read_delta"),
    ("shared_blks_dirtied", "shared_blks_dirtied_delta"),
    ("shared_blks_written", "shared_blks_written_delta"),
    ("shared_blk_read_time", "shared_blk_read_time_delta"),
    ("shared_blk_write_time", "shared_blk_write_time_delta"),
    ("temp_blks_read", "temp_blks_read_delta"),
    ("temp_blks_written", "temp_blks_written_delta"),
    ("wal_records", "wal_records_delta"),
    ("wal_fpi", "wal_fpi_delta"),
    ("wal_bytes", "wal_bytes_delta"),
];

/// The places of `calls`, `plans` and `total_exec_time` among [`GROWING`].
const CALLS: usize = 0;
const PLANS: usize = 1;
const EXEC_TIME: usize = 3;

/// Which statement: the key of `pg_stat_statements`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Key {
    /// The database.
    pub dbid: i64,
    /// The user.
    pub userid: i64,
    /// Whether it was sent by a client, and not from inside a function.
    pub toplevel: bool,
    /// The fingerprint of the statement.
    pub queryid: i64,
}

/// A statement as it was at the last look: its key, since when it counts (17 and later; microseconds
/// since 1970), and the values of [`GROWING`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Known(i64, i64, bool, i64, Option<i64>, Vec<f64>);

impl Known {
    const fn key(&self) -> Key {
        Key { dbid: self.0, userid: self.1, toplevel: self.2, queryid: self.3 }
    }
}

/// What the next look goes on from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// When it was taken, by the server's clock.
    pub at: Option<Timestamp>,
    /// The epoch of the counters.
    pub epoch: String,
    /// Every statement.
    pub statements: Vec<Known>,
}

/// The name of an epoch: counters can be compared only where it is the same.
pub fn epoch(parts: &[Option<&str>]) -> String {
    let text: Vec<&str> = parts.iter().map(|part| part.unwrap_or("?")).collect();
    Digest::of_bytes(text.join("|").as_bytes()).short().to_owned()
}

/// One look at all statements.
#[derive(Debug)]
pub struct Look {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// The epoch of the counters.
    pub epoch: String,
    /// The statements, each an object of the columns of the history.
    pub statements: Vec<Map<String, Value>>,
}

/// What became of the statements since the look before.
#[derive(Debug, Default, PartialEq)]
pub struct Grown {
    /// The length of the window; `None`: there is nothing to compare with, and nothing is said to have grown.
    pub window_seconds: Option<f64>,
    /// Each statement that is worth a row, with what it grew by, and whether it was known before.
    pub rows: Vec<Row>,
    /// Statements that did nothing.
    pub unchanged: u64,
    /// Statements that began anew within the window.
    pub restarted: u64,
    /// What the next look goes on from.
    pub baseline: Baseline,
}

/// A statement that is worth a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which one.
    pub key: Key,
    /// Its columns, with what they grew by.
    pub columns: Map<String, Value>,
    /// How much longer it has run, in milliseconds.
    pub exec_time_grown: Option<f64>,
    /// How often it was called.
    pub calls_grown: Option<f64>,
    /// Whether the look before saw it.
    pub known: bool,
}

/// Compares a look with the one before. `all` makes a row of every statement, also of those that did
/// nothing.
pub fn grown(before: Option<&Baseline>, look: Look, all: bool) -> Grown {
    let before = before.filter(|before| before.epoch == look.epoch);
    let window_seconds = before
        .and_then(|before| before.at)
        .map(|at| look.at.since(at).as_secs_f64())
        .filter(|seconds| *seconds > 0.0);
    let comparable = before.filter(|_| window_seconds.is_some());
    let known: HashMap<Key, &Known> = comparable
        .map(|before| before.statements.iter().map(|known| (known.key(), known)).collect())
        .unwrap_or_default();
    let mut grown = Grown { window_seconds, ..Grown::default() };
    grown.baseline = Baseline { at: Some(look.at), epoch: look.epoch, statements: Vec::new() };
    for mut columns in look.statements {
        let Some(key) = key(&columns) else { continue };
        let values: Vec<f64> = GROWING.iter().map(|(name, _)| number(&columns, name)).collect();
        let since = columns.get("stats_since").and_then(Value::as_str).and_then(micros);
        let earlier = known.get(&key);
        let growth = comparable.map(|_| growth(earlier, since, &values));
        grown.restarted += u64::from(growth.as_ref().is_some_and(|growth| growth.restarted));
        let idle = growth.as_ref().is_some_and(Growth::is_idle);
        let known = Known(key.dbid, key.userid, key.toplevel, key.queryid, since, values);
        grown.baseline.statements.push(known);
        if idle && !all {
            grown.unchanged += 1;
            continue;
        }
        if let Some(growth) = &growth {
            for ((name, column), by) in GROWING.iter().zip(&growth.by) {
                if columns.contains_key(*name) {
                    columns.insert((*column).to_owned(), (*by).into());
                }
            }
        }
        grown.rows.push(Row {
            key,
            columns,
            exec_time_grown: growth.as_ref().map(|growth| growth.by[EXEC_TIME]),
            calls_grown: growth.as_ref().map(|growth| growth.by[CALLS]),
            known: earlier.is_some(),
        });
    }
    grown
}

struct Growth {
    by: Vec<f64>,
    restarted: bool,
}

impl Growth {
    fn is_idle(&self) -> bool {
        !self.restarted && self.by[CALLS] == 0.0 && self.by[PLANS] == 0.0
    }
}

/// A statement that the look before did not see came within the window: all that it counted is growth.
fn growth(earlier: Option<&&Known>, since: Option<i64>, values: &[f64]) -> Growth {
    let whole = |restarted| Growth { by: values.to_vec(), restarted };
    let Some(Known(.., earlier_since, earlier)) = earlier.copied() else { return whole(false) };
    let began_anew = *earlier_since != since;
    let went_back = earlier.iter().zip(values).any(|(before, now)| now < before);
    if began_anew || went_back || earlier.len() != values.len() {
        return whole(true);
    }
    let by = earlier.iter().zip(values).map(|(before, now)| now - before).collect();
    Growth { by, restarted: false }
}

fn key(columns: &Map<String, Value>) -> Option<Key> {
    let number = |name: &str| columns.get(name).and_then(Value::as_i64);
    Some(Key {
        dbid: number("dbid")?,
        userid: number("userid")?,
        toplevel: columns.get("toplevel").and_then(Value::as_bool).unwrap_or(true),
        queryid: number("queryid")?,
    })
}

fn number(columns: &Map<String, Value>, name: &str) -> f64 {
    columns.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

fn micros(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn statement(queryid: i64, calls: f64, since: Option<&str>) -> Map<String, Value> {
        let value = json!({
            "dbid": 5, "userid": 10, "toplevel": true, "queryid": queryid, "calls": calls,
            "total_exec_time": calls * 2.0, "stats_since": since,
        });
        serde_json::from_value(value).unwrap()
    }

    fn look(second: i64, epoch: &str, statements: Vec<Map<String, Value>>) -> Look {
        Look { at: at(second), epoch: epoch.to_owned(), statements }
    }

    fn calls(grown: &Grown) -> Vec<Option<f64>> {
        grown.rows.iter().map(|row| row.calls_grown).collect()
    }

    #[test]
    fn what_grew_is_the_difference_and_what_did_nothing_is_left_out() {
        let first = grown(None, look(0, "e", vec![statement(1, 5.0, None)]), false);
        assert_eq!((first.window_seconds, calls(&first)), (None, vec![None]));
        assert!(!first.rows[0].columns.contains_key("calls_delta"), "nothing to compare with");
        let statements =
            || vec![statement(1, 8.0, None), statement(2, 3.0, None), statement(1, 5.0, None)];
        let next = grown(Some(&first.baseline), look(60, "e", statements()), false);
        assert_eq!(next.window_seconds, Some(60.0));
        assert_eq!(calls(&next), [Some(3.0), Some(3.0)], "the second is new: all of it is growth");
        assert_eq!(next.rows[0].columns["total_exec_time_delta"], 6.0);
        assert!(!next.rows[0].columns.contains_key("wal_bytes_delta"), "not measured");
        assert_eq!((next.unchanged, next.rows[0].known, next.rows[1].known), (1, true, false));
        let all = grown(Some(&first.baseline), look(60, "e", statements()), true);
        assert_eq!(calls(&all), [Some(3.0), Some(3.0), Some(0.0)]);
    }

    #[test]
    fn nothing_is_compared_across_epochs_or_backwards_in_time() {
        let first = grown(None, look(100, "e", vec![statement(1, 5.0, None)]), false);
        let other =
            grown(Some(&first.baseline), look(160, "f", vec![statement(1, 9.0, None)]), false);
        assert_eq!((other.window_seconds, calls(&other)), (None, vec![None]));
        let back =
            grown(Some(&first.baseline), look(90, "e", vec![statement(1, 9.0, None)]), false);
        assert_eq!((back.window_seconds, calls(&back)), (None, vec![None]));
    }

    #[test]
    fn a_statement_that_began_anew_grew_by_all_that_it_has() {
        let (one, other) = ("2026-01-01T00:00:00.5+00:00", "2026-01-01T00:00:30+00:00");
        let first = grown(None, look(0, "e", vec![statement(1, 5.0, Some(one))]), false);
        // It counts more than before, and yet is another.
        let next = grown(
            Some(&first.baseline),
            look(60, "e", vec![statement(1, 7.0, Some(other))]),
            false,
        );
        assert_eq!((calls(&next), next.restarted), (vec![Some(7.0)], 1));
        let old = grown(None, look(0, "e", vec![statement(1, 5.0, None)]), false);
        let less = grown(Some(&old.baseline), look(60, "e", vec![statement(1, 2.0, None)]), false);
        assert_eq!((calls(&less), less.restarted), (vec![Some(2.0)], 1));
    }

    #[test]
    fn an_epoch_is_named_by_all_its_parts() {
        let of = |parts: [Option<&str>; 2]| epoch(&parts);
        assert_eq!(of([Some("a"), None]), of([Some("a"), None]));
        assert_ne!(of([Some("a"), None]), of([Some("b"), None]));
        assert_ne!(of([Some("a"), None]), of([Some("a"), Some("x")]));
    }

    proptest! {
        #[test]
        fn no_difference_is_ever_negative(ticks in prop::collection::vec(
            (0_u8..3, prop::collection::vec((0_i64..4, 0_u32..50, 0_u8..3), 0..6)), 1..12,
        )) {
            let mut baseline = None;
            for (second, (epoch, statements)) in (0_i64..).zip(ticks) {
                let statements = statements
                    .into_iter()
                    .map(|(id, calls, since)| {
                        let since = format!("2026-01-01T00:00:0{since}+00:00");
                        statement(id, f64::from(calls), Some(&since))
                    })
                    .collect();
                let seen = grown(baseline.as_ref(), look(second, &epoch.to_string(), statements), false);
                for row in &seen.rows {
                    prop_assert!(row.calls_grown.is_none_or(|grown| grown >= 0.0));
                    prop_assert!(row.exec_time_grown.is_none_or(|grown| grown >= 0.0));
                }
                baseline = Some(seen.baseline);
            }
        }
    }
}
