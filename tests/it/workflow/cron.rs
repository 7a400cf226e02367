//! Cron against a model that looks at every minute.
//!
//! The model knows nothing of schedules: it walks the minutes of UTC, asks the zone what its clocks
//! show, and remembers which wall-clock minutes were skipped and which were shown before.

use std::collections::BTreeMap;

use chrono::{
    DateTime, Datelike as _, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, Timelike as _,
    Utc,
};
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

/// One field: whether it begins with a star, and its values as bits.
struct Field {
    star: bool,
    values: u64,
}

impl Field {
    fn has(&self, value: u32) -> bool {
        self.values >> value & 1 == 1
    }
}

fn field(text: &str, least: u32, most: u32) -> Field {
    let mut values = 0;
    for part in text.replace("sun", "0").split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        for value in (from..=to).step_by(step.parse().unwrap()) {
            values |= 1 << value;
        }
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
        let on_day = day.has(wall.day());
        let on_week_day = week_day.has(sunday) || (sunday == 0 && week_day.has(7));
        let on_date =
            if day.star || week_day.star { on_day && on_week_day } else { on_day || on_week_day };
        minute.has(wall.minute()) && hour.has(wall.hour()) && month.has(wall.month()) && on_date
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

/// The minutes from an instant on, with what the clocks of a zone show.
fn minutes(zone: Tz, start: DateTime<Utc>, count: i64) -> Vec<(DateTime<Utc>, NaiveDateTime)> {
    let minute = |at| start + TimeDelta::minutes(at);
    (0..count).map(minute).map(|at| (at, at.with_timezone(&zone).naive_local())).collect()
}

/// The fire times of a schedule after an instant.
fn found(pattern: &str, zone: Tz, (start, end): (Timestamp, Timestamp)) -> Vec<Timestamp> {
    let schedule = CronSchedule::parse(pattern, zone.name()).unwrap();
    let next = |at: &Timestamp| schedule.next_after(*at).filter(|next| *next <= end);
    std::iter::successors(next(&start), next).collect()
}

/// The fire times of a schedule, which are those of the model, after the first of some minutes.
fn compare(pattern: &str, zone: Tz, minutes: &[(DateTime<Utc>, NaiveDateTime)]) -> Vec<Timestamp> {
    let (Some((start, _)), Some((end, _))) = (minutes.first(), minutes.last()) else { panic!() };
    let (start, end) = (Timestamp::from(*start), Timestamp::from(*end));
    let expected = Model::new(pattern).fires(minutes);
    let expected: Vec<Timestamp> =
        expected.into_iter().map(Timestamp::from).filter(|at| *at > start).collect();
    assert_eq!(found(pattern, zone, (start, end)), expected, "{pattern} in {zone} from {start}");
    expected
}

const THREE_YEARS: (&str, i64) = ("2026-11-27T00:00:00Z", 3 * 365 * 24);

/// The hours after which a zone's clocks are changed.
fn transitions(zone: Tz) -> Vec<DateTime<Utc>> {
    let (from, hours) = THREE_YEARS;
    let from = Timestamp::parse(from).unwrap().to_datetime();
    let offset = |hour| {
        let at = from + TimeDelta::hours(hour);
        (at, zone.offset_from_utc_datetime(&at.naive_utc()).fix())
    };
    let pairs = (0..hours).map(|hour| (offset(hour), offset(hour + 1)));
    pairs.filter(|(before, after)| before.1 != after.1).map(|(before, _)| before.0).collect()
}

/// What a zone's clocks show around its changes: zones with the same are one to a schedule.
fn signature(zone: Tz, changes: &[DateTime<Utc>]) -> Vec<(DateTime<Utc>, i32, i32)> {
    let offset =
        |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
    let later = |at: DateTime<Utc>| at + TimeDelta::hours(1);
    changes.iter().map(|at| (*at, offset(*at), offset(later(*at)))).collect()
}

/// What a change of the clock can hit: times that follow the clock, in the gap, shown twice, at midnight.
const AROUND: &[&str] = &[
    "*/15 * * * *",
    "30 * * * *",
    "*/20 1-3 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "15,45 2,3 * * *",
    "0 0 29 * 5",
];

#[test]
fn every_zone_is_right_around_its_changes_in_the_next_three_years() {
    let (mut zones, mut windows, mut compared) = (0, 0, 0);
    // Zones with the same changes have the same model: the minutes are walked once for each set of them.
    let mut known = BTreeMap::new();
    for zone in chrono_tz::TZ_VARIANTS {
        let changes = transitions(zone);
        if changes.is_empty() {
            continue;
        }
        zones += 1;
        let window = |at: DateTime<Utc>| {
            (at - TimeDelta::hours(24), at + TimeDelta::hours(24) - TimeDelta::minutes(1))
        };
        let expected = known.entry(signature(zone, &changes)).or_insert_with(|| {
            let walk = |at: &DateTime<Utc>| {
                let minutes = minutes(zone, window(*at).0, 48 * 60);
                AROUND.iter().map(|pattern| compare(pattern, zone, &minutes)).collect::<Vec<_>>()
            };
            changes.iter().map(walk).collect::<Vec<_>>()
        });
        for (at, expected) in changes.iter().zip(expected) {
            let (start, end) = window(*at);
            windows += 1;
            for (pattern, expected) in AROUND.iter().zip(expected) {
                let found = found(pattern, zone, (start.into(), end.into()));
                assert_eq!(found, *expected, "{pattern} in {zone} around {at}");
                compared += found.len();
            }
        }
    }
    println!("{zones} zones, {windows} changes, {} different, {compared} times", known.len());
    assert!(zones > 150 && windows > 900 && compared > 200_000, "{zones} {windows} {compared}");
}

#[test]
fn a_whole_year_is_right_in_three_zones() {
    let start = Timestamp::parse("2027-01-01T00:00:00Z").unwrap().to_datetime();
    for zone in [chrono_tz::America::New_York, chrono_tz::Australia::Lord_Howe, chrono_tz::UTC] {
        let year = minutes(zone, start, 365 * 24 * 60);
        for pattern in ["*/15 * * * *", "30 2 * * *", "0 3 * * 0", "0 0 29 * 5", "5 1-2 1,15 * *"] {
            compare(pattern, zone, &year);
        }
    }
}

#[test]
fn every_fire_time_is_that_of_the_model() {
    const DAYS: i64 = 2;
    let mut compared = 0;
    for (name, starts) in ZONES {
        let zone: Tz = name.parse().unwrap();
        for start in *starts {
            let start = Timestamp::parse(start).unwrap().to_datetime();
            let minutes = minutes(zone, start, DAYS * 1440);
            for pattern in PATTERNS {
                compared += compare(pattern, zone, &minutes).len();
                // A scheduler that starts in the middle is given the same times.
                let expected = Model::new(pattern).fires(&minutes);
                let schedule = CronSchedule::parse(pattern, name).unwrap();
                let end = minutes.last().map(|(at, _)| Timestamp::from(*at)).unwrap();
                for (instant, _) in minutes.iter().step_by(97) {
                    let instant = Timestamp::from(*instant);
                    let next = schedule.next_after(instant).filter(|next| *next <= end);
                    let first =
                        expected.iter().map(|at| Timestamp::from(*at)).find(|at| *at > instant);
                    assert_eq!(next, first, "{pattern} in {name}");
                }
            }
        }
    }
    assert!(compared > 40_000, "{compared}");
}
