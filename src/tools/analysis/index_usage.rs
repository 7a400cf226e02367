//! Since when nobody has used an index, by our own observation: counters alone do not say how far back
//! they go, and are lost in a crash.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::index::IndexRow;
use super::recommendation::Identity;
use crate::kernel::Timestamp;

/// What the server says about its counters, as `performance/detect_unused_indexes` returns it.
#[derive(Clone, Debug, Deserialize)]
pub struct Counters {
    /// When they were last set to zero on purpose.
    pub reset_at: Option<Timestamp>,
    /// Transactions that they have counted: fewer than before means that they were lost.
    pub transactions: i64,
    /// Whether this is a read replica.
    pub in_recovery: bool,
    /// The read replicas that are connected.
    pub standbys: u64,
    /// Whether the server counts at all.
    pub counts: bool,
}

/// What one look saw of all indexes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// When.
    pub at: String,
    /// Which cluster and database; absent in outputs of earlier versions.
    #[serde(default)]
    pub server: Option<String>,
    /// When the counters were last set to zero on purpose.
    pub reset_at: Option<String>,
    /// Transactions that the counters have counted.
    pub transactions: i64,
    /// Each index that may be dropped, by its identity.
    pub indexes: BTreeMap<String, Quiet>,
}

/// How long an index has been quiet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quiet {
    /// The index.
    pub index: String,
    /// How often it was used since the counters began.
    pub scans: i64,
    /// No use was seen since.
    pub since: String,
}

/// How often an index was used: that of a partitioned table by what belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// How often.
    pub scans: i64,
    /// How long ago last.
    pub seconds_ago: Option<f64>,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// The use of an index and of all that is attached to it.
pub fn total_use(index: &IndexRow, all: &[IndexRow]) -> Use {
    let mut total = Use {
        scans: index.scans.unwrap_or_default(),
        seconds_ago: index.scanned_seconds,
        bytes: index.size_bytes,
    };
    if index.is_partitioned {
        for part in all.iter().filter(|part| part.parent_oid == Some(index.oid)) {
            let part = total_use(part, all);
            total.scans += part.scans;
            total.bytes += part.bytes;
            total.seconds_ago = match (total.seconds_ago, part.seconds_ago) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            };
        }
    }
    total
}

/// The identity of an index in observations: by its definition, since a rebuild changes its OID.
pub fn identity(index: &IndexRow) -> String {
    Identity::Drop { definition: &index.definition }.fingerprint()
}

/// What this look saw, continued from the one before.
pub fn observe(
    (now, server): (Timestamp, &str),
    counters: &Counters,
    indexes: &[(&IndexRow, Use)],
    before: Option<&Observation>,
) -> Observation {
    let reset_at = counters.reset_at.map(|at| at.to_string());
    let before = before
        .filter(|before| parsed(&before.at).is_some_and(|at| at <= now))
        .filter(|before| before.server.as_deref() == Some(server));
    let kept = before.is_some_and(|before| {
        before.reset_at == reset_at && before.transactions <= counters.transactions
    });
    let since = |index: &IndexRow, usage: &Use| {
        let known = before.and_then(|before| before.indexes.get(&identity(index)));
        // A last use that the server remembers was the last: counters lost since would not know it.
        let used = usage.seconds_ago.and_then(|ago| ago_to_time(now, ago));
        let seen = match (known, counters.reset_at) {
            (Some(known), _) if kept && known.scans == usage.scans => parsed(&known.since),
            // It was there before the counters began again, and has not been used since.
            (Some(_), Some(reset)) if !kept && usage.scans == 0 => Some(reset.min(now)),
            _ => None,
        };
        seen.into_iter().chain(used).min().unwrap_or(now)
    };
    let quiet = |(index, usage): &(&IndexRow, Use)| {
        let quiet = Quiet {
            index: index.index_name.clone(),
            scans: usage.scans,
            since: since(index, usage).to_string(),
        };
        (identity(index), quiet)
    };
    Observation {
        at: now.to_string(),
        server: Some(server.to_owned()),
        reset_at,
        transactions: counters.transactions,
        indexes: indexes.iter().map(quiet).collect(),
    }
}

/// Since when an index is quiet in every one of these observations; `None` when one does not know it.
pub fn quiet_since<'a>(
    identity: &str,
    observations: impl Iterator<Item = &'a Observation>,
) -> Option<Timestamp> {
    let since = |seen: &Observation| seen.indexes.get(identity).and_then(|it| parsed(&it.since));
    let all: Option<Vec<Timestamp>> = observations.map(since).collect();
    all?.into_iter().max()
}

fn parsed(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text)
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds since the epoch fit")]
fn ago_to_time(now: Timestamp, seconds: f64) -> Option<Timestamp> {
    let millis = (seconds * 1e3).max(0.0);
    millis.is_finite().then(|| Timestamp::from_millis(now.as_millis() - millis as i64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::index::tests::index;
    use super::*;

    const SERVER: &str = "7000 16384";

    const DAY: Duration = Duration::from_hours(24);

    fn day(number: u32) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(DAY * number)
    }

    fn counters(transactions: i64, reset_at: Option<Timestamp>) -> Counters {
        Counters { reset_at, transactions, in_recovery: false, standbys: 0, counts: true }
    }

    fn look(at: u32, counters: &Counters, scans: i64, before: Option<&Observation>) -> Observation {
        let index = index(&json!({}));
        let usage = Use { scans, ..Use::default() };
        observe((day(at), SERVER), counters, &[(&index, usage)], before)
    }

    fn since(seen: &Observation) -> Timestamp {
        quiet_since(&identity(&index(&json!({}))), [seen].into_iter()).unwrap()
    }

    #[test]
    fn quiet_days_add_up_from_our_first_look() {
        let first = look(0, &counters(10, None), 0, None);
        assert_eq!(since(&first), day(0));
        let later = look(9, &counters(20, None), 0, Some(&first));
        assert_eq!(since(&later), day(0));
        let used = look(10, &counters(30, None), 1, Some(&later));
        assert_eq!(since(&used), day(10));
    }

    #[test]
    fn lost_counters_begin_a_new_window() {
        let first = look(0, &counters(10, None), 0, None);
        let crashed = look(9, &counters(3, None), 0, Some(&first));
        assert_eq!(since(&crashed), day(9), "what was used before the crash is not known");
        let reset = look(9, &counters(3, Some(day(5))), 0, Some(&first));
        assert_eq!(since(&reset), day(5));
        let used = look(9, &counters(3, Some(day(5))), 2, Some(&first));
        assert_eq!(since(&used), day(9));
    }

    #[test]
    fn another_server_begins_a_window_of_its_own() {
        let index = index(&json!({}));
        let first = look(0, &counters(10, None), 0, None);
        let all = [(&index, Use::default())];
        let elsewhere = observe((day(9), "other"), &counters(20, None), &all, Some(&first));
        assert_eq!(since(&elsewhere), day(9));
    }

    #[test]
    fn the_server_may_know_the_last_use() {
        let index = index(&json!({}));
        let usage = Use { scans: 7, seconds_ago: Some(86_400.0 * 3.0), bytes: 0 };
        let seen = observe((day(9), SERVER), &counters(1, None), &[(&index, usage)], None);
        assert_eq!(since(&seen), day(6));
    }

    #[test]
    fn every_endpoint_must_know_it() {
        let here = look(0, &counters(10, None), 0, None);
        let replica = look(4, &counters(10, None), 0, None);
        let id = identity(&index(&json!({})));
        assert_eq!(quiet_since(&id, [&here, &replica].into_iter()), Some(day(4)));
        let blind = Observation { indexes: BTreeMap::new(), ..replica };
        assert_eq!(quiet_since(&id, [&here, &blind].into_iter()), None);
    }

    #[test]
    fn a_partitioned_index_is_used_by_its_parts() {
        let parent =
            index(&json!({"oid": 1, "is_partitioned": true, "scans": null, "size_bytes": 0}));
        let part = |oid: i64, scans: i64| {
            index(&json!({"oid": oid, "parent_oid": 1, "scans": scans, "size_bytes": 5}))
        };
        let all = [parent.clone(), part(2, 3), part(3, 4)];
        assert_eq!(total_use(&parent, &all), Use { scans: 7, seconds_ago: None, bytes: 10 });
    }
}
