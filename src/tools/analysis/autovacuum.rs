//! When autovacuum comes to a table, how often that is at the pace at which the table changes, and which
//! storage parameter makes it come in time. PURE.
//!
//! Autovacuum comes when `threshold + scale_factor * rows` rows are dead (inserted, changed): a share of
//! the table. The larger a table, the longer it waits, and the more it then has to do at once. Only one
//! of the two is set: the share where it is enough, else a fixed number with a share of 0. Both together
//! would add up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::rounded;
use super::vacuum::{AutovacuumSettings, TableRow, option};

/// The shares that are set, from the largest: people read them, and a run each night finds the same.
const SHARES: [f64; 4] = [0.1, 0.05, 0.02, 0.01];

/// A change must bring this much, or it is not worth one.
const WORTH: f64 = 2.0;

/// The cost limit for a table that autovacuum comes to and does not keep up with: ten times the built-in
/// one (`vacuum_cost_limit`, 200). It is shared among all workers only where no table has its own.
const COST_LIMIT: u32 = 2_000;

/// How fast a table changes, in rows a day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Churn {
    /// Rows that die.
    pub dead: Option<f64>,
    /// Rows that are inserted.
    pub inserted: Option<f64>,
    /// Rows that are changed in any way.
    pub changed: Option<f64>,
}

/// Which of autovacuum's visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visit {
    /// VACUUM for dead rows.
    Dead,
    /// VACUUM for inserted rows.
    Inserted,
    /// ANALYZE.
    Analyze,
    /// How fast VACUUM may work.
    Pace,
}

impl Visit {
    /// Its parameters: threshold and share.
    const fn parameters(self) -> (&'static str, &'static str) {
        match self {
            Self::Inserted => {
                ("autovacuum_vacuum_insert_threshold", "autovacuum_vacuum_insert_scale_factor")
            }
            Self::Analyze => ("autovacuum_analyze_threshold", "autovacuum_analyze_scale_factor"),
            Self::Dead | Self::Pace => {
                ("autovacuum_vacuum_threshold", "autovacuum_vacuum_scale_factor")
            }
        }
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// The longest time between two visits for dead rows, in days.
    pub dead_days: f64,
    /// The same for inserted rows.
    pub inserted_days: f64,
    /// The same for ANALYZE.
    pub analyze_days: f64,
    /// Fewer rows than this are never worth a visit.
    pub least_rows: f64,
}

/// Storage parameters that make autovacuum come in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// For which visit.
    pub visit: Visit,
    /// The parameters and their values.
    pub set: Vec<(&'static str, String)>,
    /// The rows at which it comes now.
    pub now: f64,
    /// The rows at which it will come.
    pub then: f64,
    /// The rows in a day that it was judged by.
    pub per_day: f64,
    /// Why, for people.
    pub why: String,
}

/// What would make autovacuum come in time, where it does not and a change brings something. A parameter
/// that somebody set for this table is left alone.
pub fn tune(
    table: &TableRow,
    settings: &AutovacuumSettings,
    churn: Churn,
    wishes: Wishes,
) -> Vec<Tuning> {
    let visits = [
        (
            Visit::Dead,
            settings.threshold,
            settings.scale_factor,
            settings.max_threshold,
            churn.dead,
            wishes.dead_days,
        ),
        (
            Visit::Inserted,
            settings.insert_threshold,
            settings.insert_scale_factor,
            None,
            // A table whose rows die is vacuumed for those.
            churn.inserted.filter(|_| churn.dead.is_none_or(|dead| dead < 1.0)),
            wishes.inserted_days,
        ),
        (
            Visit::Analyze,
            settings.analyze_threshold,
            settings.analyze_scale_factor,
            None,
            churn.changed,
            wishes.analyze_days,
        ),
    ];
    let more_often = visits.into_iter().filter_map(|(visit, base, share, most, per_day, days)| {
        let rows = table.reltuples.max(0.0);
        let set_by_hand = || {
            let (threshold, scale) = visit.parameters();
            option(table, threshold).is_some() || option(table, scale).is_some()
        };
        if base < 0.0 || set_by_hand() {
            return None;
        }
        let now = base + share * rows;
        let now = most.filter(|most| *most >= 0.0).map_or(now, |most| now.min(most));
        in_time(visit, (rows, now), per_day?, days, wishes.least_rows)
    });
    more_often.chain(keep_up(table, settings, churn)).collect()
}

/// The parameters with which a visit comes about every `days` days.
fn in_time(
    visit: Visit,
    (rows, now): (f64, f64),
    per_day: f64,
    days: f64,
    least_rows: f64,
) -> Option<Tuning> {
    if per_day < 1.0 || now / per_day <= days {
        return None;
    }
    let wanted = (per_day * days).max(least_rows);
    let (threshold, scale) = visit.parameters();
    let fits = |share: &f64| (least_rows..=wanted).contains(&(share * rows));
    let share = SHARES.into_iter().find(fits);
    let fixed = round_down(wanted);
    let (set, then) = match share {
        // The base threshold stays: it is small beside the share of a table of some size.
        Some(share) => (vec![(scale, share.to_string())], share * rows),
        None => (vec![(scale, "0".to_owned()), (threshold, format!("{fixed:.0}"))], fixed),
    };
    if then * WORTH > now {
        return None;
    }
    let name = match visit {
        Visit::Inserted => "inserted",
        Visit::Analyze => "changed",
        Visit::Dead | Visit::Pace => "dead",
    };
    let why = format!(
        "{per_day:.0} rows a day are {name}, and autovacuum waits for {now:.0}: {} days",
        rounded((now / per_day * 10.0).round() / 10.0)
    );
    Some(Tuning { visit, set, now, then, per_day, why })
}

/// A table that autovacuum has come to and that has twice as many dead rows as it lets stand all the same.
#[expect(clippy::cast_precision_loss, reason = "compared with an estimate")]
fn keep_up(table: &TableRow, settings: &AutovacuumSettings, churn: Churn) -> Option<Tuning> {
    let per_day = churn.dead.filter(|dead| *dead >= 1.0)?;
    let now = option(table, "autovacuum_vacuum_threshold").unwrap_or(settings.threshold)
        + option(table, "autovacuum_vacuum_scale_factor").unwrap_or(settings.scale_factor)
            * table.reltuples.max(0.0);
    let behind = table.dead_rows as f64 > WORTH * now;
    let by_hand = option(table, "autovacuum_vacuum_cost_limit").is_some()
        || option(table, "autovacuum_vacuum_cost_delay").is_some();
    if !behind || !table.vacuum_running || by_hand || !settings.autovacuum {
        return None;
    }
    let why = format!(
        "it is being vacuumed and has {} dead rows all the same, of {now:.0} that may stand: \
         VACUUM may work faster",
        table.dead_rows
    );
    let set = vec![("autovacuum_vacuum_cost_limit", COST_LIMIT.to_string())];
    Some(Tuning { visit: Visit::Pace, set, now, then: now, per_day, why })
}

/// Down to 1, 2 or 5 times a power of ten.
fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    let steps = [5.0, 2.0, 1.0];
    let fits = steps.into_iter().find(|step| step * power <= value);
    fits.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::vacuum::tests::{settings, table};
    use super::*;

    const WISHES: Wishes =
        Wishes { dead_days: 1.0, inserted_days: 7.0, analyze_days: 7.0, least_rows: 10_000.0 };

    fn tuned(extra: &Value, churn: Churn) -> Vec<(Visit, Vec<(&'static str, String)>)> {
        let tunings = tune(&table(extra), &settings(), churn, WISHES);
        tunings.into_iter().map(|tuning| (tuning.visit, tuning.set)).collect()
    }

    fn dead(per_day: f64) -> Churn {
        Churn { dead: Some(per_day), ..Churn::default() }
    }

    #[test]
    fn a_large_table_gets_a_share_and_a_huge_one_a_number() {
        // 20 % of 10 million are 2 million: 20 days at 100,000 a day.
        let large = tuned(&json!({"reltuples": 10e6}), dead(100_000.0));
        assert_eq!(large, [(Visit::Dead, vec![("autovacuum_vacuum_scale_factor", "0.01".into())])]);
        let huge = tuned(&json!({"reltuples": 1e9}), dead(700_000.0));
        let fixed = vec![
            ("autovacuum_vacuum_scale_factor", "0".into()),
            ("autovacuum_vacuum_threshold", "500000".into()),
        ];
        assert_eq!(huge, [(Visit::Dead, fixed)]);
    }

    #[test]
    fn what_is_in_time_is_left_alone() {
        assert_eq!(tuned(&json!({"reltuples": 10e6}), dead(2_100_000.0)), []);
        // 20 % of 100,000 are 20,000; 10,000 are the least: a change would bring no more than half.
        assert_eq!(tuned(&json!({"reltuples": 90_000.0}), dead(100.0)), []);
        assert_eq!(tuned(&json!({"reltuples": 10e6}), Churn::default()), [], "nobody looked");
        assert_eq!(tuned(&json!({"reltuples": 10e6}), dead(0.0)), []);
    }

    #[test]
    fn what_somebody_set_is_left_alone() {
        let by_hand = json!({"reltuples": 10e6, "options": ["autovacuum_vacuum_threshold=900000"]});
        assert_eq!(tuned(&by_hand, dead(100_000.0)), []);
        // Followed, the advice is not given again.
        let own = json!({"reltuples": 10e6, "options": ["autovacuum_vacuum_scale_factor=0.01"]});
        assert_eq!(tuned(&own, dead(100_000.0)), []);
    }

    #[test]
    fn inserts_and_statistics_have_their_own() {
        let churn = Churn { dead: Some(0.0), inserted: Some(50_000.0), changed: Some(50_000.0) };
        let found = tuned(&json!({"reltuples": 50e6}), churn);
        let visits: Vec<Visit> = found.iter().map(|(visit, _)| *visit).collect();
        assert_eq!(visits, [Visit::Inserted, Visit::Analyze]);
        assert_eq!(found[0].1[1], ("autovacuum_vacuum_insert_threshold", "200000".to_owned()));
        let with_dead = Churn { dead: Some(20e6), ..churn };
        let visits: Vec<Visit> =
            tuned(&json!({"reltuples": 50e6}), with_dead).iter().map(|(visit, _)| *visit).collect();
        assert_eq!(visits, [Visit::Analyze], "VACUUM comes for the dead rows");
    }

    #[test]
    fn a_visit_that_does_not_keep_up_may_work_faster() {
        let busy = json!({"reltuples": 1e6, "dead_rows": 900_000, "vacuum_running": true});
        let pace = vec![("autovacuum_vacuum_cost_limit", "2000".to_owned())];
        assert_eq!(tuned(&busy, dead(9e5)), [(Visit::Pace, pace)]);
        let waiting = json!({"reltuples": 1e6, "dead_rows": 900_000});
        assert_eq!(tuned(&waiting, dead(9e5)), []);
    }

    #[test]
    fn numbers_are_round() {
        for (value, expected) in [(1.0, 1.0), (4.9, 2.0), (700_000.0, 500_000.0), (10.0, 10.0)] {
            assert!((round_down(value) - expected).abs() < 1e-6, "{value}");
        }
    }
}
