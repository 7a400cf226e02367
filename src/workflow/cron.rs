//! Five-field Unix cron in an IANA time zone.
//!
//! The `cron` crate counts week days from 1, joins day of month and day of week by "and", and gets zones
//! with daylight saving wrong. So it is only ever given plain number lists that were read here, and only
//! wall-clock times without a zone; which instants a wall-clock time means is decided here:
//!
//! - a job whose minute or hour begins with `*` follows the clock: times that the clock skips do not
//!   exist, times that it shows twice happen twice;
//! - any other job runs exactly once per matching time: after the gap when the clock skips it, in the
//!   first pass when the clock shows it twice.
//!
//! Years after 2100 are never reached.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use chrono::{DateTime, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::suggest;
use crate::kernel::Timestamp;

/// When something starts, by the clock of a zone.
#[derive(Clone, Debug)]
pub struct CronSchedule {
    /// One schedule, or two of which either may fire.
    schedules: Vec<cron::Schedule>,
    zone: Tz,
    follows_clock: bool,
}

/// A text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The cron text cannot be read.
    #[error("{message}")]
    Field {
        /// The character, from 1, at which it goes wrong.
        column: usize,
        /// What is wrong.
        message: String,
        /// What to write instead.
        help: String,
    },
    /// There is no such zone.
    #[error("unknown time zone `{zone}`")]
    UnknownZone {
        /// The zone asked for.
        zone: String,
        /// The one that was perhaps meant.
        closest: Option<String>,
    },
}

/// The values of one field; week days count from 0, Sunday.
pub(super) struct Numbers {
    /// The values.
    pub(super) values: BTreeSet<u8>,
    /// Whether the field begins with `*`: of two day fields both must match then, else either.
    pub(super) is_star: bool,
}

/// Reads the five fields of a cron text.
pub(super) fn numbers(text: &str) -> Result<[Numbers; FIELDS.len()], CronError> {
    let text = match text.trim() {
        word if word.starts_with('@') => expand(word)?,
        _ => text,
    };
    let words = split(text);
    if words.len() != FIELDS.len() {
        return Err(wrong_count(&words));
    }
    let mut fields = Vec::with_capacity(words.len());
    for (word, field) in words.iter().zip(&FIELDS) {
        let mut values = field.read(*word)?;
        // Sunday is 0 and 7.
        if field.most == 7 && values.remove(&7) {
            values.insert(0);
        }
        fields.push(Numbers { values, is_star: is_star(*word) });
    }
    fields.try_into().map_err(|_| wrong_count(&words))
}

/// One of the five fields: its name, its range, and names for its values.
struct Field {
    what: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { what: "minute", least: 0, most: 59, names: &[] },
    Field { what: "hour", least: 0, most: 23, names: &[] },
    Field { what: "day of month", least: 1, most: 31, names: &[] },
    Field {
        what: "month",
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        what: "day of week",
        least: 0,
        most: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    },
];

const MACROS: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A field as it is written, with the column of its first character.
#[derive(Clone, Copy)]
struct Word<'t> {
    text: &'t str,
    column: usize,
}

impl Word<'_> {
    fn error(self, message: String, help: impl Into<String>) -> CronError {
        CronError::Field { column: self.column, message, help: help.into() }
    }
}

impl CronSchedule {
    /// Reads a cron text and a zone's name.
    pub fn parse(text: &str, zone: &str) -> Result<Self, CronError> {
        let zone = parse_zone(zone)?;
        let [minute, hour, day, month, mut week_day] = numbers(text)?;
        // Sunday is 0 here, and 1 in the crate.
        week_day.values = week_day.values.iter().map(|day| day + 1).collect();
        let (day_list, week_list) = (list(&day.values), list(&week_day.values));
        let schedule = |day: &str, week: &str| {
            let [minute, hour, month] = [&minute, &hour, &month].map(|field| list(&field.values));
            let text = format!("0 {minute} {hour} {day} {month} {week}");
            let first = Word { text: "", column: 1 };
            cron::Schedule::from_str(&text)
                .map_err(|error| first.error(format!("this is no schedule: {error}"), ""))
        };
        let schedules = if day.is_star || week_day.is_star {
            vec![schedule(&day_list, &week_list)?]
        } else {
            vec![schedule(&day_list, "*")?, schedule("*", &week_list)?]
        };
        let follows_clock = minute.is_star || hour.is_star;
        Ok(Self { schedules, zone, follows_clock })
    }

    /// The first instant after `after` at which it fires; `None`: never again.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // Instants beyond the calendar would read as its beginning.
        let next = self.next_instant(after.to_datetime()).map(Timestamp::from);
        next.filter(|next| *next > after)
    }

    fn next_instant(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let shift = self.shift_around(after);
        // Near a change of the clock a later instant can have an earlier wall-clock time.
        let back = if shift.is_zero() { shift } else { shift + TimeDelta::seconds(1) };
        let start = self.wall_clock(after).checked_sub_signed(back)?;
        let mut best: Option<DateTime<Utc>> = None;
        let mut last = NaiveDateTime::MAX;
        for wall in self.walls_after(start) {
            if wall > last {
                break;
            }
            let Some(instant) = self.instants(wall).into_iter().filter(|at| *at > after).min()
            else {
                continue;
            };
            if best.is_none() {
                last = wall.checked_add_signed(self.shift_around(instant)).unwrap_or(wall);
            }
            best = Some(best.map_or(instant, |known| known.min(instant)));
        }
        best
    }

    /// By how much the zone's clock is changed within the days around an instant.
    fn shift_around(&self, at: DateTime<Utc>) -> TimeDelta {
        let offset = |hours| {
            let there = at.checked_add_signed(TimeDelta::hours(hours)).unwrap_or(at);
            self.zone.offset_from_utc_datetime(&there.naive_utc()).fix().local_minus_utc()
        };
        TimeDelta::seconds(i64::from(offset(26).abs_diff(offset(-26))))
    }

    fn wall_clock(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.with_timezone(&self.zone).naive_local()
    }

    /// Matching wall-clock times after `start`, in order.
    fn walls_after(&self, start: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> + '_ {
        let dressed = start.and_utc();
        let mut iterators: Vec<_> =
            self.schedules.iter().map(|schedule| schedule.after(&dressed).peekable()).collect();
        std::iter::from_fn(move || {
            let next = iterators.iter_mut().filter_map(|times| times.peek().copied()).min()?;
            for times in &mut iterators {
                times.next_if(|time| *time == next);
            }
            Some(next.naive_utc())
        })
    }

    /// The instants at which a matching wall-clock time means to fire.
    fn instants(&self, wall: NaiveDateTime) -> Vec<DateTime<Utc>> {
        match self.zone.from_local_datetime(&wall) {
            chrono::LocalResult::Single(at) => vec![at.to_utc()],
            chrono::LocalResult::Ambiguous(first, second) if self.follows_clock => {
                vec![first.to_utc(), second.to_utc()]
            }
            chrono::LocalResult::Ambiguous(first, second) => {
                vec![first.to_utc().min(second.to_utc())]
            }
            chrono::LocalResult::None if self.follows_clock => Vec::new(),
            chrono::LocalResult::None => self.after_gap(wall).into_iter().collect(),
        }
    }

    /// The first minute that the clock shows after the gap that `wall` lies in.
    fn after_gap(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        /// Zones have skipped a whole day when they crossed the date line.
        const LONGEST_GAP: i64 = 48 * 60;
        (1..=LONGEST_GAP).find_map(|minutes| {
            let later = wall.checked_add_signed(TimeDelta::minutes(minutes))?;
            self.zone.from_local_datetime(&later).earliest().map(|at| at.to_utc())
        })
    }
}

impl Field {
    /// Reads `*`, `5`, `1-5`, `*/10`, `5/15`, `1-30/2` and lists of these.
    fn read(&self, word: Word<'_>) -> Result<BTreeSet<u8>, CronError> {
        let mut set = BTreeSet::new();
        let mut column = word.column;
        for text in word.text.split(',') {
            self.read_part(Word { text, column }, &mut set)?;
            column += text.chars().count() + 1;
        }
        Ok(set)
    }

    fn read_part(&self, part: Word<'_>, set: &mut BTreeSet<u8>) -> Result<(), CronError> {
        let (range, step) = match part.text.split_once('/') {
            Some((range, step)) => (range, Some(self.step(part, range, step)?)),
            None => (part.text, None),
        };
        let (from, to) = if range == "*" {
            (self.least, self.most)
        } else if let Some((from, to)) = range.split_once('-') {
            let skipped = from.chars().count() + 1;
            let end = Word { text: to, column: part.column + skipped };
            (self.value(Word { text: from, ..part })?, self.value(end)?)
        } else {
            let value = self.value(Word { text: range, ..part })?;
            (value, if step.is_some() { self.most } else { value })
        };
        // `sat-sun` and `5-0` go on to the Sunday at the end of the week.
        let to = if self.most == 7 && to == 0 && from > 0 { 7 } else { to };
        if from > to {
            let help = format!("write `{from}-{},{}-{to}`", self.most, self.least);
            return Err(part.error(format!("the range `{range}` runs backwards"), help));
        }
        set.extend((from..=to).step_by(usize::from(step.unwrap_or(1))));
        Ok(())
    }

    fn step(&self, part: Word<'_>, range: &str, step: &str) -> Result<u8, CronError> {
        let at = Word { text: step, column: part.column + range.chars().count() + 1 };
        let number = step.parse::<u8>().ok().filter(|_| is_digits(step));
        number.filter(|number| (1..=self.most.max(1)).contains(number)).ok_or_else(|| {
            let message = format!("`{step}` is no step for the {}", self.what);
            at.error(message, format!("write a number from 1 to {}", self.most))
        })
    }

    fn value(&self, word: Word<'_>) -> Result<u8, CronError> {
        let folded = word.text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == folded) {
            return Ok(u8::try_from(at).unwrap_or(0) + self.least);
        }
        let number = word.text.parse::<u8>().ok().filter(|_| is_digits(word.text));
        number.filter(|number| (self.least..=self.most).contains(number)).ok_or_else(|| {
            let message = format!("`{}` is no {}", word.text, self.what);
            let names = match self.names {
                [first, .., last] => format!(", or a name from `{first}` to `{last}`"),
                _ => String::new(),
            };
            word.error(
                message,
                format!("write a number from {} to {}{names}", self.least, self.most),
            )
        })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_star(word: Word<'_>) -> bool {
    word.text.starts_with('*')
}

pub(super) fn list(set: &BTreeSet<u8>) -> String {
    set.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

fn split(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut column = 1;
    for text in text.split(char::is_whitespace) {
        if !text.is_empty() {
            words.push(Word { text, column });
        }
        column += text.chars().count() + 1;
    }
    words
}

fn expand(word: &str) -> Result<&'static str, CronError> {
    let found = MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, text)| *text).ok_or_else(|| {
        let at = Word { text: word, column: 1 };
        let help = suggest::help(word, MACROS.iter().map(|(name, _)| *name)).unwrap_or_default();
        at.error(format!("`{word}` is not supported"), help)
    })
}

fn wrong_count(words: &[Word<'_>]) -> CronError {
    let at = words.last().copied().unwrap_or(Word { text: "", column: 1 });
    let help = if words.len() > FIELDS.len() {
        "seconds and years are not supported; write minute, hour, day of month, month, day of week"
    } else {
        "write minute, hour, day of month, month, day of week"
    };
    at.error(format!("cron has five fields, here are {}", words.len()), help)
}

fn parse_zone(zone: &str) -> Result<Tz, CronError> {
    zone.parse::<Tz>().map_err(|_| {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let distance =
            |name: &str| strsim::damerau_levenshtein(&zone.to_lowercase(), &name.to_lowercase());
        let near = names.map(|name| (distance(name), name)).min().filter(|_| zone.len() <= 64);
        let near = near.filter(|(distance, _)| *distance <= zone.chars().count() / 3);
        CronError::UnknownZone {
            zone: super::diagnostic::shorten(zone),
            closest: near.map(|(_, name)| name.to_owned()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = CronSchedule::parse(cron, zone).unwrap();
        let mut at = Timestamp::parse(from).unwrap();
        let mut found = Vec::new();
        while let Some(next) = schedule.next_after(at).filter(|_| found.len() < count) {
            assert!(next > at);
            found.push(next.to_string().replace(":00.000Z", "Z"));
            at = next;
        }
        found
    }

    #[test]
    fn week_days_count_from_sunday() {
        // 2026-01-01 is a Thursday.
        let from = "2026-01-01T00:00:00Z";
        for cron in ["0 3 * * 0", "0 3 * * 7", "0 3 * * sun"] {
            assert_eq!(times(cron, "UTC", from, 1), ["2026-01-04T03:00Z"], "{cron}");
        }
        let weekend = ["2026-01-03T00:00Z", "2026-01-04T00:00Z", "2026-01-10T00:00Z"];
        assert_eq!(times("0 0 * * sat-sun", "UTC", from, 3), weekend);
        let friday_on = ["2026-01-02T00:00Z", "2026-01-03T00:00Z", "2026-01-04T00:00Z"];
        assert_eq!(times("0 0 * * 5-7", "UTC", from, 3), friday_on);
    }

    #[test]
    fn two_day_fields_mean_either() {
        let from = "2026-02-01T00:00:00Z";
        let either = ["2026-02-06T00:00Z", "2026-02-13T00:00Z", "2026-02-15T00:00Z"];
        assert_eq!(times("0 0 15 * fri", "UTC", from, 3), either);
        // A star with a step still means both, as in Vixie cron.
        assert_eq!(times("0 0 */2 * fri", "UTC", from, 1), ["2026-02-13T00:00Z"]);
    }

    #[test]
    fn the_clock_is_changed() {
        let spring = "2026-03-28T12:00:00Z";
        let amsterdam = "Europe/Amsterdam";
        assert_eq!(
            times("30 2 * * *", amsterdam, spring, 2),
            ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]
        );
        let autumn = "2026-10-31T12:00:00Z";
        let once = ["2026-11-01T05:30Z", "2026-11-02T06:30Z"];
        assert_eq!(times("30 1 * * *", "America/New_York", autumn, 2), once);
        let hour = ["05:45", "06:00", "06:15", "06:30", "06:45", "07:00"];
        let hour: Vec<String> = hour.iter().map(|time| format!("2026-11-01T{time}Z")).collect();
        assert_eq!(times("*/15 * * * *", "America/New_York", "2026-11-01T05:30:00Z", 6), hour);
    }

    #[test]
    fn what_never_fires_is_known() {
        let never = CronSchedule::parse("0 0 31 2 *", "UTC").unwrap();
        assert_eq!(never.next_after(Timestamp::from_millis(0)), None);
        let leap = CronSchedule::parse("0 0 29 2 *", "UTC").unwrap();
        assert!(leap.next_after(Timestamp::from_millis(0)).is_some());
        let late = Timestamp::from_millis(i64::MAX);
        assert_eq!(leap.next_after(late), None);
    }

    #[test]
    fn bad_texts_are_refused_with_their_column() {
        for (text, column) in [
            ("", 1),
            ("* * * *", 7),
            ("0 0 0 * * *", 11),
            ("60 * * * *", 1),
            ("* 24 * * *", 3),
            ("* * 0 * *", 5),
            ("* * * 13 *", 7),
            ("* * * * 8", 9),
            ("*/0 * * * *", 3),
            ("1,5-3 * * * *", 3),
            ("a * * * *", 1),
            ("@reboot", 1),
            ("* * ? * *", 5),
            ("1,,2 * * * *", 3),
            ("+1 * * * *", 1),
            ("* * * * 1-9", 11),
            ("L * * * *", 1),
            ("-5 * * * *", 1),
        ] {
            match CronSchedule::parse(text, "UTC") {
                Err(CronError::Field { column: found, .. }) => assert_eq!(found, column, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let closest = Some("Europe/Amsterdam".to_owned());
        let zone = "europe/amsterdm".to_owned();
        let error = CronSchedule::parse("* * * * *", &zone).unwrap_err();
        assert_eq!(error, CronError::UnknownZone { zone, closest });
    }

    #[test]
    fn macros_are_expanded() {
        assert_eq!(times("@hourly", "UTC", "2026-01-01T00:00:30Z", 1), ["2026-01-01T01:00Z"]);
        assert_eq!(times("@weekly", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-04T00:00Z"]);
    }
}
