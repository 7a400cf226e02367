//! Whether a day is unlike the days before it. PURE.
//!
//! The distance from the median in robust standard deviations (1.4826 times the median absolute deviation),
//! beyond 3.5: B. Iglewicz and D. Hoaglin, *How to Detect and Handle Outliers*, 1993. Half of the days before
//! may be wild without moving either number. A level that two of the days before had is no news, so a job that
//! runs every few days is not reported each time; and where every day is alike, a twentieth is still noise.

use super::forecast::{deviation, median};

/// Fewer days than this before say nothing.
pub const LEAST_DAYS: usize = 14;

/// Robust standard deviations beyond which a day is unlike the others.
const UNUSUAL: f64 = 3.5;

/// A share of the median that is noise however alike the days were.
const NOISE: f64 = 0.05;

/// How many of the days before must have had a level for it to be known.
const KNOWN: usize = 2;

/// A day that is unlike those before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unusual {
    /// What was usual: the median of the days before.
    pub usual: f64,
    /// How far away it is, in robust standard deviations; negative: below.
    pub distance: f64,
}

/// There are too few days before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{days} days before it are fewer than the {LEAST_DAYS} that it takes to say what is usual")]
pub struct TooFew {
    /// The days that there are.
    pub days: usize,
}

/// Judges a day by those before. Differences below `least`, in the unit of the values, are never unusual.
pub fn judge(before: &[f64], value: f64, least: f64) -> Result<Option<Unusual>, TooFew> {
    if before.len() < LEAST_DAYS {
        return Err(TooFew { days: before.len() });
    }
    let usual = median(&mut before.to_vec());
    let spread = deviation(before).max(NOISE * usual.abs()).max(least / UNUSUAL);
    if spread <= 0.0 {
        return Ok(((value - usual).abs() > 0.0)
            .then_some(Unusual { usual, distance: f64::INFINITY.copysign(value - usual) }));
    }
    let distance = (value - usual) / spread;
    let reached =
        |one: &&f64| if distance > 0.0 { **one >= value - spread } else { **one <= value + spread };
    let is_known = before.iter().filter(reached).count() >= KNOWN;
    Ok((distance.abs() > UNUSUAL && !is_known).then_some(Unusual { usual, distance }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three weeks around a level, a little different each day.
    fn days(level: f64) -> Vec<f64> {
        (0..21).map(|day| level + f64::from(day % 5) * level / 100.0).collect()
    }

    #[test]
    fn what_is_far_from_the_usual_is_found_on_both_sides() {
        let before = days(10.0);
        assert_eq!(judge(&before, 10.4, 0.0), Ok(None));
        let high = judge(&before, 20.0, 0.0).unwrap().unwrap();
        assert!(high.distance > UNUSUAL && (high.usual - 10.2).abs() < 0.2, "{high:?}");
        assert!(judge(&before, 0.0, 0.0).unwrap().unwrap().distance < -UNUSUAL);
        assert_eq!(judge(&before, 20.0, 50.0), Ok(None), "too small to matter");
    }

    #[test]
    fn wild_days_before_do_not_hide_a_new_one() {
        let mut before = days(10.0);
        before[3] = 1_000.0;
        assert!(judge(&before, 30.0, 0.0).unwrap().is_some());
        // A level that was there twice is known.
        before[10] = 1_000.0;
        assert_eq!(judge(&before, 900.0 + 100.0, 0.0), Ok(None));
    }

    #[test]
    fn a_weekly_job_is_no_news() {
        let before: Vec<f64> = (0..28).map(|day| if day % 7 == 0 { 40.0 } else { 0.0 }).collect();
        assert_eq!(judge(&before, 40.0, 0.1), Ok(None));
        assert!(judge(&before, 90.0, 0.1).unwrap().is_some());
        assert_eq!(judge(&[0.0; 20], 0.0, 0.0), Ok(None));
        assert!(judge(&[0.0; 20], 1.0, 0.0).unwrap().is_some());
    }

    #[test]
    fn too_few_days_say_so() {
        let failure = judge(&[1.0; 13], 99.0, 0.0).unwrap_err();
        assert_eq!(failure, TooFew { days: 13 });
        assert!(failure.to_string().contains("13 days"), "{failure}");
    }

    proptest! {
        #[test]
        fn the_unit_does_not_matter(
            before in prop::collection::vec(1.0_f64..1e6, LEAST_DAYS..60),
            value in 1.0_f64..1e6,
            scale in prop::sample::select(vec![0.25, 4.0, 1024.0]),
        ) {
            let scaled: Vec<f64> = before.iter().map(|one| one * scale).collect();
            let one = judge(&before, value, 0.0).unwrap().is_some();
            prop_assert_eq!(one, judge(&scaled, value * scale, 0.0).unwrap().is_some());
        }

        #[test]
        fn what_was_usual_stays_usual(
            before in prop::collection::vec(0.0_f64..1e6, LEAST_DAYS..60),
        ) {
            let usual = median(&mut before.clone());
            prop_assert_eq!(judge(&before, usual, 0.0), Ok(None));
        }
    }
}
