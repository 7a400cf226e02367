//! Cron against a model that looks at every minute.
//!
//! The model knows nothing of schedules: it walks the minutes of UTC, asks the zone what its clocks
//! show, and remembers which wall-clock minutes were skipped and which were shown before.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, NaiveDateTime, TimeDelta, Timelike as _, Utc};
use chrono_tz::Tz;
use lakeops::kernel::Timestamp;
use lakeops::workflow::cron::CronSchedule;

/// Zones with changes of an hour, of half an hour, at midnight, and with none.
const ZONES: &[(&str, &[&str])] = &[
    ("UTC", &["2026-03-28T00:00:00Z"]),
    ("America/New_York", &["2026-03-07T12:00:00Z", "2026-10-31T12:00:00Z"]),
    ("Europe/Amsterdam", &["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"]),
    ("America/Santiago", &["2026-04-04T12:00:00Z", "2026-09-05T12:00:00Z"]),
    ("Africa/Cairo", &["2026-04-23T12:00:00Z", "2026-10-29T12:00:00Z"]),
    ("Australia/Lord_Howe", &["2026-04-04T00:00:00Z", "2026-10-03T00:00:00Z"]),
    ("Asia/Kolkata", &["2026-10-24T12:00:00Z"]),
];

const PATTERNS: &[&str] = &[
    "* * * * *",
    "*/5 * * * *",
    "*/15 * * * *",
    "0 * * * *",
    "30 * * * *",
    "0 */6 * * *",
    "*/20 1-3 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "15,45 2,3 * * *",
    "0 3 * * 0",
    "0 3 * * 7",
    "0 0 29 * 5",
    "10 1-2 * * 1-5",
    "59 23 * * *",
    "0 0 1,25 */2 *",
    "0 12 */2 * sun",
];

/// One field: whether it begins with a star, and its values.
struct Field {
    star: bool,
    values: BTreeSet<u32>,
}

fn field(text: &str, least: u32, most: u32) -> Field {
    let mut values = BTreeSet::new();
    for part in text.replace("sun", "0").split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        values.extend((from..=to).step_by(step.parse().unwrap()));
    }
    Field { star: text.starts_with('*'), values }
}

struct Model {
    fields: Vec<Field>,
}

impl Model {
    fn new(pattern: &str) -> Self {
        let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
        let fields = pattern.split(' ').zip(ranges).map(|(text, (from, to))| field(text, from, to));
        Self { fields: fields.collect() }
    }

    fn follows_clock(&self) -> bool {
        self.fields[0].star || self.fields[1].star
    }

    fn matches(&self, wall: NaiveDateTime) -> bool {
        let [minute, hour, day, month, week_day] = &self.fields[..] else { panic!("five fields") };
        let sunday = wall.weekday().num_days_from_sunday();
        let on_day = day.values.contains(&wall.day());
        let on_week_day =
            week_day.values.contains(&sunday) || (sunday == 0 && week_day.values.contains(&7));
        let on_date =
            if day.star || week_day.star { on_day && on_week_day } else { on_day || on_week_day };
        minute.values.contains(&wall.minute())
            && hour.values.contains(&wall.hour())
            && month.values.contains(&wall.month())
            && on_date
    }

    /// The instants among `minutes` (with the wall clock of each) at which it fires.
    fn fires(&self, minutes: &[(DateTime<Utc>, NaiveDateTime)]) -> Vec<DateTime<Utc>> {
        let mut fired = Vec::new();
        let mut latest: Option<NaiveDateTime> = None;
        for (instant, wall) in minutes {
            let skipped = latest.map_or(0, |latest| (*wall - latest).num_minutes() - 1).max(0);
            let was_shown = latest.is_some_and(|latest| *wall <= latest);
            let is_due = if self.follows_clock() {
                self.matches(*wall)
            } else {
                let in_gap =
                    (1..=skipped).any(|back| self.matches(*wall - TimeDelta::minutes(back)));
                (self.matches(*wall) && !was_shown) || in_gap
            };
            if is_due {
                fired.push(*instant);
            }
            latest = Some(latest.map_or(*wall, |latest| latest.max(*wall)));
        }
        fired
    }
}

#[test]
fn every_fire_time_is_that_of_the_model() {
    const DAYS: i64 = 2;
    let mut compared = 0;
    for (name, starts) in ZONES {
        let zone: Tz = name.parse().unwrap();
        for start in *starts {
            let start = Timestamp::parse(start).unwrap();
            let minute = |at| start.to_datetime() + TimeDelta::minutes(at);
            let wall = |at: DateTime<Utc>| (at, at.with_timezone(&zone).naive_local());
            let minutes: Vec<_> = (0..DAYS * 1440).map(minute).map(wall).collect();
            for pattern in PATTERNS {
                let expected = Model::new(pattern).fires(&minutes);
                let expected: Vec<Timestamp> =
                    expected.into_iter().map(Timestamp::from).filter(|at| *at > start).collect();
                let schedule = CronSchedule::parse(pattern, name).unwrap();
                let end = minutes.last().map(|(at, _)| Timestamp::from(*at)).unwrap();
                let mut at = start;
                let next = || {
                    at = schedule.next_after(at).filter(|next| *next <= end)?;
                    Some(at)
                };
                let found: Vec<Timestamp> = std::iter::from_fn(next).collect();
                assert_eq!(found, expected, "{pattern} in {name} from {start}");
                compared += found.len();
                // A scheduler that starts in the middle is given the same times.
                for (instant, _) in minutes.iter().step_by(97) {
                    let instant = Timestamp::from(*instant);
                    let next = schedule.next_after(instant).filter(|next| *next <= end);
                    let first = expected.iter().copied().find(|at| *at > instant);
                    assert_eq!(next, first, "{pattern} in {name}");
                }
            }
        }
    }
    assert!(compared > 40_000, "{compared}");
}
