//! Where a daily measurement goes: a robust trend with an interval that was tried on its own past. PURE.
//!
//! The slope is that of Theil and Sen: the median of the slopes of all pairs, which a quarter of wild points
//! does not move (P. K. Sen, JASA 63, 1968). Before it is taken, the series is cut at its last break (a bulk
//! delete, a new pace), and, where that explains something, each weekday is given its own level. The
//! interval is the prediction interval of a straight line, widened where forecasts from the past missed
//! more often than it allows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::as_f64;

/// Fewer days than this say nothing.
pub const LEAST_DAYS: usize = 14;

/// More days than this say nothing more.
pub const MOST_DAYS: usize = 180;

/// The share of futures that the interval is to hold.
pub const CONFIDENCE: f64 = 0.9;

/// The 95th percentile of the normal distribution: 5 % are left on each side.
const Z: f64 = 1.645;

/// From a median absolute deviation to a standard deviation, for normal noise.
const SCALE: f64 = 1.4826;

/// Weeks of data before a weekday gets a level of its own.
const LEAST_WEEKS: usize = 4;

/// A value of one day, counted from any day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The day.
    pub day: f64,
    /// The value.
    pub value: f64,
}

/// Why nothing is foretold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{days} days of measurements{since} are fewer than the {LEAST_DAYS} that a trend needs")]
pub struct TooLittle {
    /// The days that there are.
    pub days: usize,
    /// Since when, when the series was cut.
    pub since: &'static str,
}

/// A trend.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// What a day brings.
    pub slope: f64,
    /// The days that it was taken from.
    pub points: usize,
    /// The day at which the series was cut, when it was.
    pub broken_at: Option<f64>,
    /// Whether weekdays differ.
    pub weekly: bool,
    /// The share of earlier days that the interval, told from before them, held.
    pub coverage: Option<f64>,
    /// The median miss of those forecasts, as a share of the value.
    pub error: Option<f64>,
    line: Line,
    spread: f64,
}

/// A value that is foretold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outlook {
    /// The expected value.
    pub value: f64,
    /// Nine futures of ten lie above or at this, or between the two.
    pub lower: f64,
    /// The other end.
    pub upper: f64,
}

impl Forecast {
    /// What a day brings, with its interval.
    pub fn at(&self, day: f64) -> Outlook {
        let value = self.line.at(day);
        let half = self.spread * self.line.error_at(day);
        Outlook { value, lower: value - half, upper: value + half }
    }

    /// The first day from `from` on, within `days`, on which a limit is reached: as expected, and at the
    /// earliest within the interval.
    pub fn reaches(&self, limit: f64, from: f64, days: u32) -> (Option<f64>, Option<f64>) {
        let first = |value: fn(&Outlook) -> f64| {
            (0..=days)
                .map(|ahead| from + f64::from(ahead))
                .find(|day| value(&self.at(*day)) >= limit)
        };
        (first(|it| it.value), first(|it| it.upper))
    }
}

/// The trend of daily values, oldest first.
pub fn forecast(points: &[Point]) -> Result<Forecast, TooLittle> {
    let newest = points.len().saturating_sub(MOST_DAYS);
    let all = points.get(newest..).unwrap_or_default();
    if all.len() < LEAST_DAYS {
        return Err(TooLittle { days: all.len(), since: "" });
    }
    let cut = last_break(all);
    let kept = all.get(cut..).unwrap_or_default();
    if kept.len() < LEAST_DAYS {
        return Err(TooLittle { days: kept.len(), since: " since the last break" });
    }
    let line = Line::fit(kept, true);
    let past = Past::of(kept);
    let normal = student(kept.len());
    // Where forecasts missed by more than a straight line with noise would, the past decides.
    let spread =
        past.spread().map_or(normal, |seen| if seen > 1.25 * normal { seen } else { normal });
    // Where to cut was chosen by the data themselves, so what is left looks quieter than it is.
    let spread = if cut > 0 { 1.15 * spread } else { spread };
    Ok(Forecast {
        slope: line.slope,
        points: kept.len(),
        broken_at: (cut > 0).then(|| kept.first().map(|point| point.day)).flatten(),
        weekly: line.weekdays.is_some(),
        coverage: past.coverage(spread),
        error: past.error(),
        line,
        spread,
    })
}

/// A straight line, with a level for each weekday where that explains something.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    slope: f64,
    level: f64,
    weekdays: Option<[f64; 7]>,
    /// The standard deviation of what is left.
    noise: f64,
    count: f64,
    middle: f64,
    squares: f64,
}

impl Line {
    fn fit(points: &[Point], with_weekdays: bool) -> Self {
        let (slope, level) = theil_sen(points);
        let rest: Vec<f64> =
            points.iter().map(|point| point.value - level - slope * point.day).collect();
        let plain = deviation(&rest);
        if with_weekdays && points.len() >= LEAST_WEEKS * 7 {
            let weekdays = levels(points, &rest);
            let even: Vec<Point> = points
                .iter()
                .map(|point| Point { value: point.value - weekdays[weekday(point.day)], ..*point })
                .collect();
            let (slope, level) = theil_sen(&even);
            let left: Vec<f64> =
                even.iter().map(|point| point.value - level - slope * point.day).collect();
            if deviation(&left) < 0.7 * plain {
                return Self::new(points, (slope, level), Some(weekdays), &left);
            }
        }
        Self::new(points, (slope, level), None, &rest)
    }

    fn new(
        points: &[Point],
        (slope, level): (f64, f64),
        weekdays: Option<[f64; 7]>,
        rest: &[f64],
    ) -> Self {
        let count = as_f64(points.len());
        let middle = points.iter().map(|point| point.day).sum::<f64>() / count;
        let squares = points.iter().map(|point| (point.day - middle).powi(2)).sum::<f64>();
        let fitted = if weekdays.is_some() { 8.0 } else { 2.0 };
        let noise = deviation(rest).max(trimmed(rest)) * (count / (count - fitted).max(1.0)).sqrt();
        Self { slope, level, weekdays, noise, count, middle, squares }
    }

    fn at(&self, day: f64) -> f64 {
        let weekday = self.weekdays.map_or(0.0, |levels| levels[weekday(day)]);
        self.level + self.slope * day + weekday
    }

    /// The standard error of one value of a day: noise, and the uncertainty of the line.
    fn error_at(&self, day: f64) -> f64 {
        let far = (day - self.middle).powi(2) / self.squares.max(1.0);
        self.noise * (1.0 + 1.0 / self.count + far).sqrt()
    }
}

/// The median of the slopes of all pairs, and the level with which half of the points lie above.
fn theil_sen(points: &[Point]) -> (f64, f64) {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (at, one) in points.iter().enumerate() {
        for two in points.iter().skip(at + 1) {
            let days = two.day - one.day;
            if days > 0.0 {
                slopes.push((two.value - one.value) / days);
            }
        }
    }
    let slope = median(&mut slopes);
    let mut levels: Vec<f64> = points.iter().map(|point| point.value - slope * point.day).collect();
    (slope, median(&mut levels))
}

/// The level of each weekday over the others.
fn levels(points: &[Point], rest: &[f64]) -> [f64; 7] {
    let mut levels = [0.0; 7];
    for (day, level) in levels.iter_mut().enumerate() {
        let mut of_day: Vec<f64> = points
            .iter()
            .zip(rest)
            .filter(|(point, _)| weekday(point.day) == day)
            .map(|(_, rest)| *rest)
            .collect();
        *level = median(&mut of_day);
    }
    let mean = levels.iter().sum::<f64>() / 7.0;
    levels.map(|level| level - mean)
}

/// Where the series begins to be what it is now: 0 when it always was.
///
/// A split counts when two lines leave much less than one does; of those that count, the best.
fn last_break(points: &[Point]) -> usize {
    let count = points.len();
    if count < LEAST_DAYS * 2 {
        return jump(points);
    }
    let left = |points: &[Point]| {
        let (slope, level) = theil_sen(points);
        points.iter().map(|point| (point.value - level - slope * point.day).abs()).sum::<f64>()
    };
    let whole = left(points);
    let (mut best, mut least) = (0, whole);
    let mut look = |places: std::ops::RangeInclusive<usize>, step: usize| {
        for at in places.step_by(step) {
            let (before, after) = points.split_at(at);
            let two = left(before) + left(after);
            if two < least {
                (best, least) = (at, two);
            }
        }
        best
    };
    // First roughly, then around the best place.
    let (first, last, step) = (LEAST_DAYS, count - LEAST_DAYS, 1 + count / 60);
    let near = look(first..=last, step);
    look(near.saturating_sub(step).max(first)..=(near + step).min(last), 1);
    // A line more always leaves less; by chance not by this much.
    let found = if least < 0.6 * whole { best } else { 0 };
    let rest = points.get(found..).unwrap_or_default();
    // Around the best split, the jump itself says on which day it was.
    found + jump(rest)
}

/// How many days on each side say whether a jump stayed.
const AROUND: usize = 5;

/// So many jumps of about one size in one direction are how the series grows, and no break.
const AGAIN: usize = 3;

/// The day after the last jump between two neighbours that stayed, and does not come again and again.
fn jump(points: &[Point]) -> usize {
    let steps: Vec<f64> =
        points.iter().zip(points.iter().skip(1)).map(|(one, two)| two.value - one.value).collect();
    let usual = median(&mut steps.clone());
    let rest: Vec<f64> = steps.iter().map(|step| step - usual).collect();
    let spread = deviation(&rest).max(trimmed(&rest));
    // Where every day brings the same, anything else would look like a jump.
    let size = median(&mut points.iter().map(|point| point.value.abs()).collect::<Vec<_>>());
    let ordinary = spread.max(0.1 * usual.abs()).max(1e-6 * size);
    let around = |range: &[Point]| median(&mut range.iter().map(|p| p.value).collect::<Vec<_>>());
    let stayed = |at: usize, excess: f64| {
        let before = points.get((at + 1).saturating_sub(AROUND)..=at).unwrap_or_default();
        let end = (at + 1 + AROUND).min(points.len());
        let after = points.get(at + 1..end).unwrap_or_default();
        let days = as_f64(before.len() + after.len()) / 2.0;
        let moved = around(after) - around(before) - usual * days;
        after.len() >= 3 && moved.abs() > 0.6 * excess.abs()
    };
    let is_jump =
        |(at, excess): &(usize, f64)| excess.abs() > 8.0 * ordinary && stayed(*at, *excess);
    let jumps: Vec<(usize, f64)> = rest.into_iter().enumerate().filter(is_jump).collect();
    let alike =
        |size: f64| jumps.iter().filter(|(_, other)| (0.5..=2.0).contains(&(other / size))).count();
    jumps.iter().rfind(|(_, size)| alike(*size) < AGAIN).map_or(0, |(at, _)| at + 1)
}

/// What forecasts from earlier days, each with what was known then, made of later ones.
struct Past {
    /// The miss in standard errors.
    misses: Vec<f64>,
    /// The miss as a share of the value.
    shares: Vec<f64>,
}

impl Past {
    fn of(points: &[Point]) -> Self {
        let mut past = Self { misses: Vec::new(), shares: Vec::new() };
        let count = points.len();
        for origin in (LEAST_DAYS..count).step_by(1 + count / 40) {
            let (known, later) = points.split_at(origin);
            let line = Line::fit(known, true);
            for point in later.iter().take(origin) {
                let miss = (point.value - line.at(point.day)).abs();
                let error = line.error_at(point.day);
                if error > 0.0 {
                    past.misses.push(miss / error);
                }
                if point.value.abs() > f64::EPSILON {
                    past.shares.push(miss / point.value.abs());
                }
            }
        }
        past
    }

    /// The standard errors that held nine of ten of them; `None` when there are too few to say.
    fn spread(&self) -> Option<f64> {
        (self.misses.len() >= 20).then(|| quantile(&mut self.misses.clone(), CONFIDENCE))
    }

    fn coverage(&self, spread: f64) -> Option<f64> {
        let held = self.misses.iter().filter(|miss| **miss <= spread).count();
        (!self.misses.is_empty()).then(|| as_f64(held) / as_f64(self.misses.len()))
    }

    fn error(&self) -> Option<f64> {
        (!self.shares.is_empty()).then(|| median(&mut self.shares.clone()))
    }
}

/// The 95th percentile of Student's distribution, by the first term of its expansion in 1/n.
fn student(points: usize) -> f64 {
    let free = as_f64(points.saturating_sub(2).max(1));
    Z + (Z.powi(3) + Z) / (4.0 * free)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a day of the week, from 0 to 6"
)]
fn weekday(day: f64) -> usize {
    day.rem_euclid(7.0).floor().min(6.0) as usize
}

/// A standard deviation that wild points do not move.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let middle = median(&mut values.to_vec());
    SCALE * median(&mut values.iter().map(|value| (value - middle).abs()).collect::<Vec<_>>())
}

/// The same from the mean size of the smaller four fifths: not 0 when half of the values are equal. Of normal
/// noise that mean is 0.54 standard deviations; four fifths of it are a floor.
fn trimmed(values: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let kept = sizes.get(..sizes.len() * 4 / 5).unwrap_or_default();
    0.8 / 0.54 * kept.iter().sum::<f64>() / as_f64(kept.len().max(1))
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share of the others lies; of two neighbours, in between.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
fn quantile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let place = share * (as_f64(values.len()) - 1.0);
    let (_, low, above) = values.select_nth_unstable_by(place.floor() as usize, f64::total_cmp);
    let next = above.iter().copied().min_by(f64::total_cmp).unwrap_or(*low);
    *low + place.fract() * (next - *low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look like chance and are the same in every run (splitmix64).
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        #[expect(clippy::cast_precision_loss, reason = "53 bits of it")]
        fn even(&mut self) -> f64 {
            ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        }

        /// By Box and Muller.
        fn normal(&mut self) -> f64 {
            (-2.0 * self.even().ln()).sqrt() * (std::f64::consts::TAU * self.even()).cos()
        }
    }

    /// The share of futures that the interval holds, over many series: `shape` is the truth of a day.
    fn coverage(days: u32, ahead: u32, shape: impl Fn(f64) -> f64) -> f64 {
        let mut chance = Chance(7);
        let (mut held, mut all) = (0_u32, 0_u32);
        for _ in 0..120 {
            let mut value = |day: u32| shape(f64::from(day)) + 5.0 * chance.normal();
            let points: Vec<Point> =
                (0..days).map(|day| Point { day: f64::from(day), value: value(day) }).collect();
            let Ok(found) = forecast(&points) else { continue };
            for day in [days + ahead / 2, days + ahead] {
                let outlook = found.at(f64::from(day));
                let truth = value(day);
                held += u32::from(outlook.lower <= truth && truth <= outlook.upper);
                all += 1;
            }
        }
        assert!(all >= 200, "it refused too often: {all}");
        f64::from(held) / f64::from(all)
    }

    #[test]
    fn the_interval_holds_nine_of_ten_futures() {
        let about_nine = |share: f64, what: &str| {
            assert!((0.84..=0.97).contains(&share), "{what}: {share}");
        };
        about_nine(coverage(60, 30, |day| 100.0 + 2.0 * day), "trend");
        about_nine(coverage(20, 7, |day| 100.0 + 2.0 * day), "short trend");
        about_nine(coverage(90, 30, |_| 100.0), "no trend");
        let weekend = |day: f64| if day % 7.0 < 2.0 { 60.0 } else { 0.0 };
        about_nine(coverage(70, 28, |day| 300.0 + day - weekend(day)), "season");
        let deleted = |day: f64| if day < 40.0 { 500.0 + 3.0 * day } else { 200.0 + 3.0 * day };
        about_nine(coverage(80, 20, deleted), "bulk delete");
        let faster = |day: f64| if day < 40.0 { day } else { 40.0 + 6.0 * (day - 40.0) };
        about_nine(coverage(80, 20, faster), "new pace");
    }

    fn line(days: u32, shape: impl Fn(f64) -> f64) -> Vec<Point> {
        // A little noise that adds up to nothing.
        let noise = |day: u32| if day.is_multiple_of(2) { 0.1 } else { -0.1 };
        (0..days)
            .map(|day| Point { day: f64::from(day), value: shape(f64::from(day)) + noise(day) })
            .collect()
    }

    #[test]
    fn ten_days_say_nothing() {
        let error = forecast(&line(10, |day| day)).unwrap_err();
        assert_eq!(error, TooLittle { days: 10, since: "" });
        assert!(forecast(&[]).is_err());
        // Nor do ten days after everything changed.
        let error = forecast(&line(25, |day| if day < 15.0 { 1000.0 } else { 10.0 })).unwrap_err();
        assert_eq!((error.days, error.since), (10, " since the last break"));
    }

    #[test]
    fn a_quarter_of_wild_points_does_not_move_it() {
        let mut points = line(40, |day| 100.0 + 3.0 * day);
        for at in [3, 9, 14, 20, 25, 31, 36] {
            points[at].value = 5_000.0;
        }
        let found = forecast(&points).unwrap();
        assert!((found.slope - 3.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn the_day_of_a_limit() {
        let found = forecast(&line(30, |day| 100.0 + 10.0 * day)).unwrap();
        let (expected, earliest) = found.reaches(500.0, 29.0, 100);
        assert_eq!(expected, Some(40.0));
        assert!(earliest <= expected);
        assert_eq!(found.reaches(1e9, 29.0, 100), (None, None));
        assert!(found.coverage.unwrap() >= 0.9, "{found:?}");
    }

    #[test]
    fn a_break_is_dated() {
        let found =
            forecast(&line(60, |day| if day < 30.0 { 900.0 } else { 100.0 + day })).unwrap();
        assert_eq!(found.broken_at, Some(30.0));
        assert!((found.slope - 1.0).abs() < 0.05, "{found:?}");
        assert_eq!(forecast(&line(60, |day| day)).unwrap().broken_at, None);
    }

    #[test]
    fn what_comes_again_and_again_is_no_break() {
        let steps = |every: u32, size: f64| -> Vec<Point> {
            let value = |day: u32| 100.0 + size * f64::from(day / every);
            (0..60).map(|day| Point { day: f64::from(day), value: value(day) }).collect()
        };
        // A count that rises now and then, and a load once a week.
        for (every, size) in [(3, 1.0), (7, 1.0), (7, 500.0)] {
            let found = forecast(&steps(every, size)).unwrap();
            assert_eq!((found.broken_at, found.points), (None, 60), "every {every}: {found:?}");
            let pace = size / f64::from(every);
            assert!((found.slope - pace).abs() < 0.2 * pace, "every {every}: {found:?}");
        }
        let saw: Vec<Point> = (0_u32..40)
            .map(|day| Point { day: f64::from(day), value: f64::from(2 * day + (day + 1) % 3) })
            .collect();
        assert_eq!(forecast(&saw).unwrap().broken_at, None);
    }

    proptest::proptest! {
        #[test]
        fn no_series_makes_it_panic(values in proptest::collection::vec(-1e12_f64..1e12, 0..60)) {
            let points: Vec<Point> = (0_u32..)
                .zip(values)
                .map(|(day, value)| Point { day: f64::from(day), value })
                .collect();
            if let Ok(found) = forecast(&points) {
                let outlook = found.at(100.0);
                proptest::prop_assert!(outlook.lower <= outlook.upper);
            }
        }
    }
}
