//! From numbers to alerts: when one begins, how bad it is, when it is over. PURE.
//!
//! Each of a metric's two levels is a switch of its own. It goes on when the number has been beyond the
//! level for `hold`, and off when the number has been back for `clear`, where "back" means further than
//! the level itself by a `margin`, so that a number that trembles around its level is one alert and not
//! many. People are told when what they were told last is no longer so; while a silence holds they are
//! not, and when it ends they are told what is still true.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::level::{Level, level};
use crate::config::settings::Threshold;
use crate::kernel::Timestamp;

/// How patient an alert is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// How long a number must be beyond its level before the alert fires.
    pub hold: Duration,
    /// How long it must be back before the alert is over.
    pub clear: Duration,
    /// How much further than its level it must come back, as a share of the distance between the two
    /// levels.
    pub margin: f64,
    /// How often people are told again of what is critical; `None`: once.
    pub remind: Option<Duration>,
}

/// One of the two levels of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Switch {
    /// Whether it is on.
    pub on: bool,
    /// Since when the number says otherwise.
    pub turning_since: Option<Timestamp>,
}

/// The state of the alert of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// The metric.
    pub metric: String,
    /// How bad it is: the level that holds.
    pub level: Level,
    /// `normal`, `pending`, `firing` or `resolving`.
    pub state: State,
    /// Since when the level holds.
    pub since: Option<Timestamp>,
    /// The last value; absent when it could not be measured.
    pub value: Option<f64>,
    /// What the number belongs to, such as the worst table.
    pub detail: Option<String>,
    /// The switch of the warning level.
    pub warning: Switch,
    /// The switch of the critical level.
    pub critical: Switch,
    /// The level that people were told last.
    pub told: Level,
    /// When they were told.
    pub told_at: Option<Timestamp>,
    /// Why they are not told at present.
    pub silenced: Option<String>,
}

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is wrong.
    Normal,
    /// A number is beyond its level, and not for long enough yet.
    Pending,
    /// Something is wrong.
    Firing,
    /// The number is back, and not for long enough yet.
    Resolving,
}

/// What people are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// Something is wrong that was not.
    Fired,
    /// It became worse.
    Worsened,
    /// It became better, and is not over.
    Eased,
    /// It is over.
    Resolved,
    /// It is still critical.
    Reminded,
}

/// A number that was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The metric.
    pub metric: &'a str,
    /// Its value; absent when it could not be measured.
    pub value: Option<f64>,
    /// What it belongs to.
    pub detail: Option<&'a str>,
    /// Why people are not told of it at present.
    pub silence: Option<&'a str>,
}

/// The alert after a look, and what people are to be told. A number that could not be measured leaves
/// everything as it was: it is never taken for good.
pub fn step(
    earlier: Option<&Alert>,
    seen: Seen<'_>,
    (threshold, patience): (Threshold, &Patience),
    now: Timestamp,
) -> (Alert, Option<Turn>) {
    let mut alert = earlier.cloned().unwrap_or_else(|| quiet(seen.metric));
    alert.value = seen.value;
    alert.silenced = seen.silence.map(str::to_owned);
    if let Some(value) = seen.value {
        alert.detail = seen.detail.map(str::to_owned);
        let beyond = |switch: Switch, wanted: Level| {
            let margin = if switch.on { patience.margin } else { 0.0 };
            level(value, tightened(threshold, margin)) >= wanted
        };
        let (warning, critical) =
            (beyond(alert.warning, Level::Warning), beyond(alert.critical, Level::Critical));
        alert.warning = turned(alert.warning, warning, patience, now);
        alert.critical = turned(alert.critical, critical, patience, now);
        let level = match (alert.critical.on, alert.warning.on) {
            (true, _) => Level::Critical,
            (false, true) => Level::Warning,
            (false, false) => Level::Normal,
        };
        if level != alert.level {
            alert.since = Some(now);
            alert.level = level;
        }
        alert.state = state(&alert);
    }
    let turn = turn(&alert, patience, now);
    if turn.is_some() {
        alert.told = alert.level;
        alert.told_at = Some(now);
    }
    (alert, turn)
}

fn quiet(metric: &str) -> Alert {
    Alert {
        metric: metric.to_owned(),
        level: Level::Normal,
        state: State::Normal,
        since: None,
        value: None,
        detail: None,
        warning: Switch::default(),
        critical: Switch::default(),
        told: Level::Normal,
        told_at: None,
        silenced: None,
    }
}

/// The levels moved towards the good side by a share of their distance. Where the critical one is far away,
/// by half of the warning one at most: a number that cannot be negative must be able to come back.
fn tightened(threshold: Threshold, margin: f64) -> Threshold {
    let by = (threshold.warning - threshold.critical) * margin;
    let by = if threshold.warning > 0.0 { by.max(-threshold.warning / 2.0) } else { by };
    Threshold { warning: threshold.warning + by, critical: threshold.critical + by }
}

fn turned(switch: Switch, wanted: bool, patience: &Patience, now: Timestamp) -> Switch {
    if switch.on == wanted {
        return Switch { turning_since: None, ..switch };
    }
    let since = switch.turning_since.unwrap_or(now);
    let wait = if wanted { patience.hold } else { patience.clear };
    if now.since(since) >= wait {
        Switch { on: wanted, turning_since: None }
    } else {
        Switch { on: switch.on, turning_since: Some(since) }
    }
}

const fn state(alert: &Alert) -> State {
    match (alert.warning.on || alert.critical.on, alert.warning.turning_since.is_some()) {
        (true, true) => State::Resolving,
        (true, false) => State::Firing,
        (false, true) => State::Pending,
        (false, false) => State::Normal,
    }
}

fn turn(alert: &Alert, patience: &Patience, now: Timestamp) -> Option<Turn> {
    if alert.silenced.is_some() {
        return None;
    }
    if alert.told == alert.level {
        let due = |told: Timestamp, every: Duration| now.since(told) >= every;
        let again = alert.told_at.zip(patience.remind).is_some_and(|(at, every)| due(at, every));
        return (alert.level == Level::Critical && again).then_some(Turn::Reminded);
    }
    Some(match (alert.told, alert.level) {
        (_, Level::Normal | Level::NotMeasured) => Turn::Resolved,
        (Level::Normal | Level::NotMeasured, _) => Turn::Fired,
        (told, now) if now > told => Turn::Worsened,
        _ => Turn::Eased,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Settings;

    const AT_ONCE: Patience =
        Patience { hold: Duration::ZERO, clear: Duration::ZERO, margin: 0.1, remind: None };

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(second))
    }

    fn seen(value: f64) -> Seen<'static> {
        Seen { metric: "m", value: Some(value), detail: None, silence: None }
    }

    /// What people are told about a row of values, one each second.
    fn told(threshold: Threshold, patience: Patience, values: &[f64]) -> Vec<(usize, Turn)> {
        let mut alert = None;
        let mut turns = Vec::new();
        for (second, value) in values.iter().enumerate() {
            let now = at(u64::try_from(second).unwrap());
            let (next, turn) = step(alert.as_ref(), seen(*value), (threshold, &patience), now);
            turns.extend(turn.map(|turn| (second, turn)));
            alert = Some(next);
        }
        turns
    }

    #[test]
    fn every_metric_alerts_beyond_its_levels_and_not_at_them() {
        let settings = Settings::default();
        let seeds = "cache_hit_ratio connection_utilization dead_tuple_ratio lock_wait_seconds \
            deadlocks_per_hour slow_query_seconds txid_age replication_lag_seconds";
        for metric in seeds.split_whitespace() {
            assert!(settings.thresholds.contains_key(metric), "{metric}");
        }
        for (metric, threshold) in &settings.thresholds {
            let Threshold { warning, critical } = *threshold;
            let nudge = (critical - warning).abs() * 1e-6 * (critical - warning).signum();
            for (value, expected) in [
                (warning - nudge, vec![]),
                (warning, vec![]),
                (warning + nudge, vec![(0, Level::Warning)]),
                (critical, vec![(0, Level::Warning)]),
                (critical + nudge, vec![(0, Level::Critical)]),
            ] {
                let (alert, turn) = step(None, seen(value), (*threshold, &AT_ONCE), at(0));
                let found: Vec<_> = turn.map(|_| (0, alert.level)).into_iter().collect();
                assert_eq!(found, expected, "{metric} at {value}");
            }
        }
    }

    #[test]
    fn a_trembling_number_is_one_alert() {
        let levels = Threshold { warning: 0.7, critical: 0.85 };
        let values = [0.71, 0.695, 0.71, 0.69, 0.86, 0.84, 0.86, 0.8, 0.68];
        let turns = told(levels, AT_ONCE, &values);
        let expected =
            [(0, Turn::Fired), (4, Turn::Worsened), (7, Turn::Eased), (8, Turn::Resolved)];
        assert_eq!(turns, expected);
        // The same where less is worse.
        let levels = Threshold { warning: 0.99, critical: 0.95 };
        let turns = told(levels, AT_ONCE, &[0.98, 0.991, 0.98, 0.995]);
        assert_eq!(turns, [(0, Turn::Fired), (3, Turn::Resolved)]);
    }

    #[test]
    fn levels_that_lie_far_apart_do_not_keep_an_alert_for_ever() {
        let threshold = Threshold { warning: 1.0, critical: 100.0 };
        let turns = told(threshold, AT_ONCE, &[50.0, 0.7, 0.4]);
        assert_eq!(turns, [(0, Turn::Fired), (2, Turn::Resolved)]);
    }

    #[test]
    fn it_must_last() {
        let levels = Threshold { warning: 1.0, critical: 2.0 };
        let patience =
            Patience { hold: Duration::from_secs(2), clear: Duration::from_secs(2), ..AT_ONCE };
        // A spike is no alert, and a dip does not end one.
        let values = [1.5, 0.0, 1.5, 2.5, 2.5, 2.5, 0.0, 2.5, 0.0, 0.0, 0.0];
        let turns = told(levels, patience, &values);
        assert_eq!(turns, [(4, Turn::Fired), (5, Turn::Worsened), (10, Turn::Resolved)]);
    }

    #[test]
    fn a_silence_only_delays() {
        let levels = (Threshold { warning: 1.0, critical: 2.0 }, &AT_ONCE);
        let silent = |value| Seen { silence: Some("deploy"), ..seen(value) };
        let (alert, turn) = step(None, silent(3.0), levels, at(0));
        assert_eq!((alert.level, turn), (Level::Critical, None));
        let (alert, turn) = step(Some(&alert), seen(3.0), levels, at(1));
        assert_eq!(turn, Some(Turn::Fired), "it is still true when the silence ends");
        let (alert, turn) = step(Some(&alert), silent(0.0), levels, at(2));
        assert_eq!((alert.level, turn), (Level::Normal, None));
        assert_eq!(step(Some(&alert), seen(0.0), levels, at(3)).1, Some(Turn::Resolved));
        // What began and ended in silence is never heard of.
        let (alert, _) = step(None, silent(3.0), levels, at(0));
        assert_eq!(step(Some(&alert), seen(0.0), levels, at(1)).1, None);
    }

    #[test]
    fn what_is_not_measured_stays_as_it_was() {
        let levels = (Threshold { warning: 1.0, critical: 2.0 }, &AT_ONCE);
        let (alert, _) = step(None, seen(3.0), levels, at(0));
        let unknown = Seen { value: None, ..seen(0.0) };
        let (alert, turn) = step(Some(&alert), unknown, levels, at(1));
        assert_eq!((alert.level, alert.state, turn), (Level::Critical, State::Firing, None));
    }

    #[test]
    fn critical_alerts_come_again_when_asked_for() {
        let levels = Threshold { warning: 1.0, critical: 2.0 };
        let patience = Patience { remind: Some(Duration::from_secs(3)), ..AT_ONCE };
        let turns = told(levels, patience, &[3.0; 8]);
        let expected = [(0, Turn::Fired), (3, Turn::Reminded), (6, Turn::Reminded)];
        assert_eq!(turns, expected);
        assert_eq!(told(levels, patience, &[1.5; 8]), [(0, Turn::Fired)]);
    }

    proptest! {
        /// Whatever the numbers do: nothing is told twice, and what is told follows from what was.
        #[test]
        fn people_are_told_what_changes(
            values in prop::collection::vec(0.0..3.0_f64, 1..60),
            hold in 0_u64..4,
            clear in 0_u64..4,
        ) {
            let levels = Threshold { warning: 1.0, critical: 2.0 };
            let patience = Patience {
                hold: Duration::from_secs(hold),
                clear: Duration::from_secs(clear),
                ..AT_ONCE
            };
            let mut known = false;
            for (_, turn) in told(levels, patience, &values) {
                match turn {
                    Turn::Fired => prop_assert!(!known),
                    _ => prop_assert!(known),
                }
                known = turn != Turn::Resolved;
            }
        }
    }
}
