//! The health of a server as numbers with levels: looked at by several tools.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::analysis::level::Level;
use super::analysis::metric::{Board, Metric, Unit};
use super::analysis::missing::NotMeasured;
use super::analysis::number::{rounded, share};
use super::analysis::rates::{Sample, Window};
use super::analysis::vacuum::Holder;
use super::context::ReadContext;
use super::vacuum_state::HOLDERS;
use crate::config::Settings;
use crate::kernel::{Bind, Failure, Span, SqlFile};
use crate::sql_file;

pub(super) static NOW: SqlFile = sql_file!("shared/health_now");
pub(super) static COUNTERS_14: SqlFile = sql_file!("shared/counters14");
pub(super) static COUNTERS_16: SqlFile = sql_file!("shared/counters16");
pub(super) static COUNTERS_17: SqlFile = sql_file!("shared/counters17");
pub(super) static SEQUENCES: SqlFile = sql_file!("shared/sequence_use");
pub(super) static REPLICATION: SqlFile = sql_file!("shared/replication_links");

/// The SQL files of [`look`].
pub(super) const SQL: &[&SqlFile] =
    &[&NOW, &COUNTERS_14, &COUNTERS_16, &COUNTERS_17, &SEQUENCES, &REPLICATION, &HOLDERS];

/// Looks; `full` with rates over `interval`, and `earlier` looks for what is rare.
pub(super) async fn look(
    cx: &ReadContext<'_>,
    (depth, interval): (Depth, Span),
    min_dead_rows: u32,
    earlier: &[Value],
) -> Result<Health, Failure> {
    let least = [Bind::Int(min_dead_rows.into())];
    if depth == Depth::Live {
        let now = cx.pg.row(&NOW, &least).await?;
        return Ok(judge(&now, None, &[], cx.settings));
    }
    let sample = sample_file(cx.pg.server().await?.version_num);
    let first: Sample = cx.pg.row(sample, &[]).await?;
    cx.clock.sleep_until(cx.clock.now().plus(interval.0)).await;
    let depths = Depths {
        first,
        last: cx.pg.row(sample, &[]).await?,
        sequences: cx.pg.rows(&SEQUENCES, &[Bind::Int(SEQUENCES_LISTED)]).await?,
        links: cx.pg.rows(&REPLICATION, &[]).await?,
        holders: cx.pg.rows(&HOLDERS, &[]).await?,
    };
    let now = cx.pg.row(&NOW, &least).await?;
    Ok(judge(&now, Some(depths), earlier, cx.settings))
}

/// How many sequences are listed.
const SEQUENCES_LISTED: i64 = 5;
/// Blocks that must be asked for before their cache hit ratio means something.
const LEAST_BLOCKS: u64 = 1_000;
/// Deadlocks are rare: they are counted from an earlier output of this tool, at most this old.
const DEADLOCK_WINDOW_SECONDS: f64 = 3_600.0;
/// A counter of a sample.
type Counter = fn(&Sample) -> u64;

/// What shows the sessions of other users.
const SEE_SESSIONS: &str = "grant pg_read_all_stats to current_user";

/// How deep to look.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Depth {
    /// One query, no waiting.
    Live,
    /// Everything.
    #[default]
    Full,
}

#[derive(Deserialize)]
struct Now {
    sessions: u64,
    usable_connections: u64,
    hidden_sessions: u64,
    active_sessions: f64,
    idle_in_transaction: f64,
    longest_idle_in_transaction: f64,
    longest_transaction: f64,
    longest_query: f64,
    waiting_sessions: f64,
    longest_wait: f64,
    txid_age: f64,
    txid_database: Option<String>,
    multixact_age: f64,
    dead_ratio: Option<f64>,
    dead_table: Option<String>,
    in_recovery: bool,
    replay_lag: Option<f64>,
}

/// A sequence near its end.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct SequenceUse {
    /// The sequence.
    sequence: String,
    /// The last value that it gave.
    last_value: i64,
    /// The value at which it, or the column that it feeds, is exhausted.
    end_value: i64,
    /// The share that is used up.
    used: Option<f64>,
    /// The type of the narrowest column that it feeds.
    column_type: Option<String>,
}

/// A replication slot or a standby.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct Link {
    /// `slot` or `standby`.
    kind: String,
    /// Its name.
    name: String,
    /// Whether someone uses it.
    active: bool,
    /// Its state.
    state: Option<String>,
    /// Bytes of WAL that are kept for it, or that it has not replayed.
    retained_bytes: Option<f64>,
    /// How far behind a standby is.
    lag_seconds: Option<f64>,
    /// How long a slot has been unused (17 and later).
    inactive_seconds: Option<f64>,
}

/// What only a full look sees.
struct Depths {
    first: Sample,
    last: Sample,
    sequences: Vec<SequenceUse>,
    links: Vec<Link>,
    holders: Vec<Holder>,
}

/// What was measured.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// The worst level of all metrics.
    level: Level,
    /// The metrics beyond their thresholds, the worst first.
    breaches: Vec<String>,
    /// Every metric by name.
    pub(super) metrics: BTreeMap<String, Metric>,
    /// The sequences that are nearest their end.
    sequences: Vec<SequenceUse>,
    /// Replication slots and standbys.
    replication: Vec<Link>,
    /// What keeps VACUUM from removing dead rows, the oldest first.
    pub(super) horizon_holders: Vec<Holder>,
    /// The length of the window that rates come from; absent without one.
    window_seconds: Option<f64>,
    /// The counters themselves, for windows that reach further back.
    sample: Option<Sample>,
    /// What could not be measured.
    pub(super) not_measured: Vec<NotMeasured>,
}

/// The views behind the counters moved between versions.
fn sample_file(version_num: u32) -> &'static SqlFile {
    match version_num {
        170_000.. => &COUNTERS_17,
        160_000.. => &COUNTERS_16,
        _ => &COUNTERS_14,
    }
}

fn judge(now: &Now, depths: Option<Depths>, earlier: &[Value], settings: &Settings) -> Health {
    let mut board = Board::new(settings);
    sessions(&mut board, now);
    ages(&mut board, now);
    let mut window_seconds = None;
    if let Some(depths) = &depths {
        window_seconds = rates(&mut board, depths, earlier);
        ends(&mut board, depths);
    }
    lag(&mut board, now, depths.as_ref().map_or(&[], |depths| &depths.links));
    let mut breaches: Vec<_> =
        board.metrics.iter().filter(|(_, metric)| metric.level > Level::Normal).collect();
    breaches.sort_by_key(|(name, metric)| (std::cmp::Reverse(metric.level), *name));
    let level = breaches.first().map_or(Level::Normal, |(_, metric)| metric.level);
    let breaches = breaches.into_iter().map(|(name, _)| name.clone()).collect();
    let (sample, sequences, replication, horizon_holders) = match depths {
        Some(depths) => (Some(depths.last), depths.sequences, depths.links, depths.holders),
        None => (None, Vec::new(), Vec::new(), Vec::new()),
    };
    Health {
        level,
        breaches,
        metrics: board.metrics,
        sequences,
        replication,
        horizon_holders,
        window_seconds,
        sample,
        not_measured: board.not_measured,
    }
}

fn sessions(board: &mut Board<'_>, now: &Now) {
    let utilization = share(now.sessions, now.usable_connections);
    let detail = format!("{} of {}", now.sessions, now.usable_connections);
    board.put_with("connection_utilization", Unit::Ratio, utilization, Some(detail));
    board.put("waiting_sessions", Unit::Count, now.waiting_sessions);
    board.put("lock_wait_seconds", Unit::Seconds, now.longest_wait);
    let of_sessions = [
        ("active_sessions", Unit::Count, now.active_sessions),
        ("idle_in_transaction_sessions", Unit::Count, now.idle_in_transaction),
        ("longest_idle_in_transaction_seconds", Unit::Seconds, now.longest_idle_in_transaction),
        ("longest_transaction_seconds", Unit::Seconds, now.longest_transaction),
        ("slow_query_seconds", Unit::Seconds, now.longest_query),
    ];
    for (name, unit, value) in of_sessions {
        if now.hidden_sessions == 0 {
            board.put(name, unit, value);
        } else {
            let why = format!("{} sessions are hidden from us", now.hidden_sessions);
            board.missing(name, unit, NotMeasured::new(name, why).needs(SEE_SESSIONS));
        }
    }
}

fn ages(board: &mut Board<'_>, now: &Now) {
    let database = now.txid_database.as_ref().map(|name| format!("database {name}"));
    board.put_with("txid_age", Unit::Transactions, now.txid_age, database);
    board.put("multixact_age", Unit::Transactions, now.multixact_age);
    let ratio = now.dead_ratio.unwrap_or(0.0);
    let table = now.dead_table.as_ref().map(|name| format!("table {name}"));
    board.put_with("dead_tuple_ratio", Unit::Ratio, ratio, table);
}

fn lag(board: &mut Board<'_>, now: &Now, links: &[Link]) {
    if now.in_recovery {
        let why = "nothing has been replayed yet";
        board.put_or("replication_lag_seconds", Unit::Seconds, now.replay_lag, why);
        return;
    }
    let standbys = || links.iter().filter(|link| link.kind == "standby");
    let worst = standbys()
        .filter_map(|link| Some((link.lag_seconds?, &link.name)))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    if let Some((lag, name)) = worst {
        let detail = Some(format!("standby {name}"));
        board.put_with("replication_lag_seconds", Unit::Seconds, lag, detail);
    } else if standbys().next().is_some() {
        let missing = NotMeasured::new("replication_lag_seconds", "lags are hidden from us");
        board.missing("replication_lag_seconds", Unit::Seconds, missing.needs(SEE_SESSIONS));
    }
}

/// Returns the length of the window.
fn rates(board: &mut Board<'_>, depths: &Depths, earlier: &[Value]) -> Option<f64> {
    let Some(window) = Window::between(&depths.first, &depths.last) else {
        let why = "the counters were reset between the two samples";
        board.not_measured.push(NotMeasured::new("rates", why));
        return None;
    };
    let quiet = format!(
        "fewer than {LEAST_BLOCKS} blocks were asked for in {:.1} s; measure under load or with \
         a longer `interval`",
        window.seconds
    );
    let hits = window.share(|s| s.block_hits, |s| s.block_reads, LEAST_BLOCKS);
    board.put_or("cache_hit_ratio", Unit::Ratio, hits, &quiet);
    let per_second: [(&str, Unit, Counter); 6] = [
        ("transactions_per_second", Unit::PerSecond, |s| s.commits + s.rollbacks),
        ("block_reads_per_second", Unit::PerSecond, |s| s.block_reads),
        ("temp_bytes_per_second", Unit::BytesPerSecond, |s| s.temp_bytes),
        ("wal_bytes_per_second", Unit::BytesPerSecond, |s| s.wal_bytes),
        ("wal_buffers_full_per_second", Unit::PerSecond, |s| s.wal_buffers_full),
        ("backend_fsyncs_per_second", Unit::PerSecond, |s| s.backend_fsyncs),
    ];
    for (name, unit, counter) in per_second {
        board.put_or(name, unit, window.per_second(counter), "the counter was reset");
    }
    if let Some(rollbacks) = window.share(|s| s.rollbacks, |s| s.commits, 1) {
        board.put("rollback_ratio", Unit::Ratio, rollbacks);
    }
    deadlocks(board, depths, window, earlier);
    let requested = share(
        depths.last.checkpoints_requested,
        depths.last.checkpoints_requested + depths.last.checkpoints_timed,
    );
    let detail = Some("since the statistics began".to_owned());
    board.put_with("checkpoints_requested_ratio", Unit::Ratio, requested, detail);
    Some(rounded(window.seconds))
}

/// Counts from the oldest comparable output of the last hour: a second says little of rare things.
fn deadlocks(board: &mut Board<'_>, depths: &Depths, window: Window<'_>, earlier: &[Value]) {
    let samples: Vec<Sample> = earlier
        .iter()
        .filter_map(|output| serde_json::from_value(output.get("sample")?.clone()).ok())
        .collect();
    let longer = samples
        .iter()
        .filter_map(|sample| Window::between(sample, &depths.last))
        .filter(|window| window.seconds <= DEADLOCK_WINDOW_SECONDS)
        .max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let window = longer.unwrap_or(window);
    let rate = window.per_second(|sample| sample.deadlocks).map(|rate| rate * 3_600.0);
    match rate {
        Some(rate) => {
            let detail = Some(format!("over {:.0} s", window.seconds));
            board.put_with("deadlocks_per_hour", Unit::PerHour, rate, detail);
        }
        None => board.put_or("deadlocks_per_hour", Unit::PerHour, None, "the counter was reset"),
    }
}

fn ends(board: &mut Board<'_>, depths: &Depths) {
    let fullest = depths.sequences.first();
    let used = fullest.and_then(|sequence| sequence.used).unwrap_or(0.0);
    let name = fullest.map(|sequence| format!("sequence {}", sequence.sequence));
    board.put_with("sequence_used", Unit::Ratio, used, name);
    let slots = depths.links.iter().filter(|link| link.kind == "slot");
    let widest = slots
        .filter_map(|slot| Some((slot.retained_bytes?, &slot.name)))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let (bytes, name) = widest.map_or((0.0, None), |(bytes, name)| (bytes, Some(name)));
    let detail = name.map(|name| format!("slot {name}"));
    board.put_with("slot_retained_bytes", Unit::Bytes, bytes, detail);
    let oldest = depths
        .holders
        .iter()
        .filter(|holder| holder.is_certain())
        .filter_map(|holder| holder.held_seconds);
    board.put("horizon_held_seconds", Unit::Seconds, oldest.fold(0.0, f64::max));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::analysis::rates::tests::sample;

    fn now(extra: &Value) -> Now {
        let mut row = json!({
            "sessions": 10, "usable_connections": 100, "hidden_sessions": 0, "active_sessions": 1,
            "idle_in_transaction": 0, "longest_idle_in_transaction": 0.0,
            "longest_transaction": 0.5, "longest_query": 0.5, "waiting_sessions": 0,
            "longest_wait": 0.0, "txid_age": 1000, "txid_database": "shop", "multixact_age": 0,
            "dead_ratio": null, "dead_table": null, "in_recovery": false, "replay_lag": null,
        });
        for (key, value) in extra.as_object().unwrap() {
            row[key] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    fn depths(first: &Value, last: &Value) -> Depths {
        Depths {
            first: sample(0, first),
            last: sample(2, last),
            sequences: Vec::new(),
            links: Vec::new(),
            holders: Vec::new(),
        }
    }

    fn live(extra: &Value) -> Health {
        judge(&now(extra), None, &[], &Settings::default())
    }

    fn full(depths: Depths, earlier: &[Value]) -> Health {
        judge(&now(&json!({})), Some(depths), earlier, &Settings::default())
    }

    #[test]
    fn a_healthy_server_breaches_nothing() {
        let output = live(&json!({}));
        assert_eq!((output.level, output.breaches.len()), (Level::Normal, 0));
        assert_eq!(output.metrics["connection_utilization"].value, Some(0.1));
        assert!(output.not_measured.is_empty() && output.sample.is_none());
    }

    #[test]
    fn the_worst_comes_first() {
        let output = live(&json!({
            "sessions": 86, "longest_wait": 31.0, "dead_ratio": 0.26, "dead_table": "public.t",
            "txid_age": 500_000_001,
        }));
        assert_eq!(output.level, Level::Critical);
        let expected =
            ["connection_utilization", "dead_tuple_ratio", "lock_wait_seconds", "txid_age"];
        assert_eq!(output.breaches, expected);
        assert_eq!(output.metrics["dead_tuple_ratio"].detail.as_deref(), Some("table public.t"));
    }

    #[test]
    fn hidden_sessions_are_not_measured() {
        let output = live(&json!({"hidden_sessions": 3, "longest_query": 0.0}));
        let metric = &output.metrics["slow_query_seconds"];
        assert_eq!((metric.value, metric.level), (None, Level::NotMeasured));
        let missing =
            output.not_measured.iter().find(|missing| missing.what == "slow_query_seconds");
        assert_eq!(missing.unwrap().needs.as_deref(), Some(SEE_SESSIONS));
        assert_eq!(output.level, Level::Normal);
    }

    #[test]
    fn rates_come_from_the_window() {
        let last = json!({"block_hits": 940, "block_reads": 60, "commits": 10, "wal_bytes": 4096});
        let output = full(depths(&json!({}), &last), &[]);
        let metric = |name: &str| output.metrics[name].clone();
        assert_eq!(metric("cache_hit_ratio").value, Some(0.94));
        assert_eq!(metric("cache_hit_ratio").level, Level::Critical);
        assert_eq!(metric("transactions_per_second").value, Some(5.0));
        assert_eq!(metric("wal_bytes_per_second").value, Some(2048.0));
        assert_eq!(output.window_seconds, Some(2.0));
    }

    #[test]
    fn a_quiet_second_has_no_cache_hit_ratio() {
        let output = full(depths(&json!({}), &json!({"block_reads": 999})), &[]);
        assert_eq!(output.metrics["cache_hit_ratio"].level, Level::NotMeasured);
        let reset = depths(&json!({"commits": 9}), &json!({"epoch": "f"}));
        let output = full(reset, &[]);
        assert_eq!(output.not_measured[0].what, "rates");
        assert!(!output.metrics.contains_key("cache_hit_ratio"));
    }

    #[test]
    fn deadlocks_are_counted_over_earlier_outputs() {
        let now = || depths(&json!({"deadlocks": 3}), &json!({"deadlocks": 3}));
        assert_eq!(full(now(), &[]).metrics["deadlocks_per_hour"].value, Some(0.0));
        let mut old = sample(0, &json!({"deadlocks": 1}));
        old.at = "2024-12-31T23:30:02.500000+00:00".into();
        let earlier = [json!({"sample": null}), json!({"sample": old})];
        let metric = full(now(), &earlier).metrics["deadlocks_per_hour"].clone();
        assert_eq!(metric.value, Some(4.0));
        assert_eq!(metric.level, Level::Warning);
        old.at = "2024-12-31T22:30:02.500000+00:00".into();
        let metric = full(now(), &[json!({"sample": old})]).metrics["deadlocks_per_hour"].clone();
        assert_eq!(metric.value, Some(0.0), "older than an hour");
    }

    #[test]
    fn ends_and_lags_name_their_owner() {
        let mut depths = depths(&json!({}), &json!({}));
        depths.sequences = serde_json::from_value(json!([
            {"sequence": "public.s", "last_value": 9, "end_value": 10, "used": 0.91,
             "column_type": "integer"},
        ]))
        .unwrap();
        let link = |kind: &str, name: &str, bytes: f64, lag: Option<f64>| Link {
            kind: kind.into(),
            name: name.into(),
            active: true,
            state: None,
            retained_bytes: Some(bytes),
            lag_seconds: lag,
            inactive_seconds: None,
        };
        depths.links = vec![link("slot", "a", 2e10, None), link("standby", "b", 0.0, Some(61.0))];
        let output = full(depths, &[]);
        let metric = |name: &str| {
            let metric = &output.metrics[name];
            (metric.level, metric.detail.clone().unwrap())
        };
        assert_eq!(metric("sequence_used"), (Level::Critical, "sequence public.s".into()));
        assert_eq!(metric("slot_retained_bytes"), (Level::Warning, "slot a".into()));
        assert_eq!(metric("replication_lag_seconds"), (Level::Critical, "standby b".into()));
    }

    #[test]
    fn each_version_has_its_sample() {
        let name = |version| sample_file(version).name.rsplit('/').next().unwrap();
        assert_eq!(
            [name(140_023), name(150_018), name(160_014), name(170_010), name(180_004)],
            ["counters14", "counters14", "counters16", "counters17", "counters17"]
        );
    }
}
