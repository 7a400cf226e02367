//! After how long without activity a compute should be suspended, from when it was used. PURE.
//!
//! Time goes by in looks: at each of them the compute was in use, idle, or asleep. Between two looks that are
//! too far apart nothing is known, and nothing is counted. What remains are gaps between uses. A compute that
//! is suspended after `T` without use is awake for `min(gap, T)` of each gap, and a gap longer than `T` ends
//! with a cold start. So each timeout has two prices, hours awake and cold starts, and one cold start is worth
//! as much as somebody says.

use schemars::JsonSchema;
use serde::Serialize;

use super::forecast::median;
use super::number::as_f64;

/// What was seen of a compute at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Somebody used it.
    Used,
    /// It was awake, and nobody but us did anything.
    Idle,
    /// It was asleep.
    Asleep,
}

/// A look at a compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// When, in seconds from any moment.
    pub at: f64,
    /// What was seen.
    pub seen: Seen,
}

/// Looks that are farther apart than this many usual distances say nothing of what was between them.
const HOLE: f64 = 10.0;

/// What was observed: gaps between uses, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Use {
    /// Gaps that a use ended.
    pub gaps: Vec<f64>,
    /// Gaps whose end or begin was not seen.
    pub open_gaps: Vec<f64>,
    /// Seconds that were observed in all.
    pub observed: f64,
    /// The usual distance of two looks, in seconds: shorter gaps cannot be told from use.
    pub resolution: f64,
    /// How many looks found it in use.
    pub used: usize,
}

impl Use {
    /// What a series of looks shows, in any order.
    pub fn of(looks: &[Look]) -> Self {
        let mut looks = looks.to_vec();
        looks.sort_by(|one, two| one.at.total_cmp(&two.at));
        let mut steps: Vec<f64> =
            looks.iter().zip(looks.iter().skip(1)).map(|(one, two)| two.at - one.at).collect();
        let resolution = median(&mut steps);
        let mut found = Self {
            resolution,
            used: looks.iter().filter(|look| look.seen == Seen::Used).count(),
            ..Self::default()
        };
        let mut stretch: Option<Stretch> = None;
        for look in looks {
            match &mut stretch {
                Some(open) if look.at - open.last <= HOLE * resolution => {
                    found.observed += look.at - open.last;
                    open.take(look, &mut found);
                }
                _ => {
                    if let Some(ended) = stretch.take() {
                        ended.end(&mut found);
                    }
                    stretch = Some(Stretch::begin(look));
                }
            }
        }
        if let Some(ended) = stretch {
            ended.end(&mut found);
        }
        found
    }

    /// Hours awake and cold starts with a timeout in seconds; `None`: never suspended.
    pub fn with_timeout(&self, timeout: Option<f64>) -> Price {
        let Some(timeout) = timeout else {
            return Price { awake: self.observed, cold_starts: 0 };
        };
        let asleep = |gap: &f64| (gap - timeout).max(0.0);
        let all = self.gaps.iter().chain(&self.open_gaps);
        let starts = self.gaps.iter().filter(|gap| **gap > timeout).count();
        Price { awake: self.observed - all.map(asleep).sum::<f64>(), cold_starts: starts }
    }
}

/// Looks that follow each other closely enough.
struct Stretch {
    /// When it was last used, or the stretch began.
    since: f64,
    /// Whether a use was seen in it.
    is_begun: bool,
    last: f64,
}

impl Stretch {
    fn begin(look: Look) -> Self {
        Self { since: look.at, is_begun: look.seen == Seen::Used, last: look.at }
    }

    fn take(&mut self, look: Look, found: &mut Use) {
        self.last = look.at;
        if look.seen != Seen::Used {
            return;
        }
        let gap = look.at - self.since;
        if self.is_begun {
            found.gaps.push(gap);
        } else {
            found.open_gaps.push(gap);
        }
        (self.since, self.is_begun) = (look.at, true);
    }

    fn end(self, found: &mut Use) {
        found.open_gaps.push(self.last - self.since);
    }
}

/// What a timeout costs over the time that was observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Seconds awake.
    pub awake: f64,
    /// How often somebody waited for a start.
    pub cold_starts: usize,
}

/// How the two prices are weighed, and what it takes to say anything.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// How many seconds of compute one cold start is worth.
    pub cold_start_worth: f64,
    /// How long a start takes, in seconds.
    pub cold_start_seconds: f64,
    /// Compute hours a day that a change must save.
    pub least_saving: f64,
    /// Days that must have been observed.
    pub least_days: f64,
    /// Gaps that must have been seen to end.
    pub least_gaps: usize,
}

/// A timeout with its prices.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Choice {
    /// The timeout in seconds; absent: never suspended.
    pub timeout_seconds: Option<f64>,
    /// Whether it is the present one.
    pub is_current: bool,
    /// Hours a day that the compute is awake.
    pub awake_hours_per_day: f64,
    /// Hours a day that this saves against the present timeout; negative: that it costs.
    pub saved_hours_per_day: f64,
    /// Cold starts a day.
    pub cold_starts_per_day: f64,
    /// Seconds a day that clients wait for them in all.
    pub waiting_seconds_per_day: f64,
    /// Whether the looks were close enough to tell; false: its prices are too rough to be recommended.
    pub is_resolved: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Another timeout is better by more than the least saving.
    Change,
    /// Nothing worth a change is saved.
    Keep,
    /// Too little was observed to say.
    TooLittleData,
}

/// The choices and what follows from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// What follows.
    pub verdict: Verdict,
    /// The choice that is recommended, when another than the present one is.
    pub recommended: Option<Choice>,
    /// Why.
    pub reason: String,
    /// All choices, the shortest first.
    pub choices: Vec<Choice>,
}

const DAY: f64 = 86_400.0;
const HOUR: f64 = 3_600.0;

/// Weighs timeouts for what was observed.
pub fn advise(found: &Use, current: Option<f64>, candidates: &[f64], weights: &Weights) -> Advice {
    let days = found.observed / DAY;
    let mut timeouts: Vec<Option<f64>> = candidates.iter().copied().map(Some).collect();
    timeouts.push(None);
    if !timeouts.contains(&current) {
        timeouts.push(current);
    }
    let seconds = |timeout: &Option<f64>| timeout.unwrap_or(f64::INFINITY);
    timeouts.sort_by(|one, two| seconds(one).total_cmp(&seconds(two)));
    timeouts.dedup();
    let now = found.with_timeout(current);
    let choices: Vec<Choice> = timeouts
        .iter()
        .filter(|_| days > 0.0)
        .map(|timeout| {
            let price = found.with_timeout(*timeout);
            let starts = as_f64(price.cold_starts) / days;
            Choice {
                timeout_seconds: *timeout,
                is_current: *timeout == current,
                awake_hours_per_day: price.awake / HOUR / days,
                saved_hours_per_day: (now.awake - price.awake) / HOUR / days,
                cold_starts_per_day: starts,
                waiting_seconds_per_day: starts * weights.cold_start_seconds,
                is_resolved: timeout.is_none_or(|timeout| timeout >= found.resolution),
            }
        })
        .collect();
    let (verdict, recommended, reason) = verdict(found, &choices, weights);
    Advice { verdict, recommended, reason, choices }
}

fn verdict(
    found: &Use,
    choices: &[Choice],
    weights: &Weights,
) -> (Verdict, Option<Choice>, String) {
    let days = found.observed / DAY;
    let too_little = |why: String| (Verdict::TooLittleData, None, why);
    if days < weights.least_days {
        return too_little(format!(
            "{days:.1} days were observed; it takes {:.0} to tell a habit from chance",
            weights.least_days
        ));
    }
    if found.used > 0 && found.gaps.len() < weights.least_gaps {
        return too_little(format!(
            "{} gaps between uses were seen from begin to end; it takes {}",
            found.gaps.len(),
            weights.least_gaps
        ));
    }
    // In hours of compute a day.
    let worth = weights.cold_start_worth / HOUR;
    let cost = |choice: &Choice| choice.awake_hours_per_day + choice.cold_starts_per_day * worth;
    let Some(current) = choices.iter().find(|choice| choice.is_current) else {
        return too_little("nothing was observed".to_owned());
    };
    let resolved = choices.iter().filter(|choice| choice.is_resolved);
    let best = resolved.min_by(|one, two| cost(one).total_cmp(&cost(two))).unwrap_or(current);
    let gain = cost(current) - cost(best);
    if best.is_current || gain < weights.least_saving {
        let reason = format!(
            "nothing worth a change is saved: the best other choice gains {:.2} compute hours a day, \
             cold starts weighed, and a change must gain {:.2}",
            gain.max(0.0),
            weights.least_saving
        );
        return (Verdict::Keep, None, reason);
    }
    let reason = format!(
        "awake {:.2} instead of {:.2} hours a day, {:.1} instead of {:.1} cold starts a day",
        best.awake_hours_per_day,
        current.awake_hours_per_day,
        best.cold_starts_per_day,
        current.cold_starts_per_day
    );
    (Verdict::Change, Some(best.clone()), reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEIGHTS: Weights = Weights {
        cold_start_worth: 300.0,
        cold_start_seconds: 0.5,
        least_saving: 0.25,
        least_days: 3.0,
        least_gaps: 20,
    };

    const CANDIDATES: [f64; 6] = [60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0];

    /// A look every minute of some days; used where `is_used` says of the minute of the day.
    fn minutes(days: u32, is_used: impl Fn(u32) -> bool) -> Vec<Look> {
        (0..days * 1440)
            .map(|minute| {
                let seen = if is_used(minute % 1440) { Seen::Used } else { Seen::Idle };
                Look { at: f64::from(minute) * 60.0, seen }
            })
            .collect()
    }

    #[test]
    fn office_hours_are_worth_a_suspension() {
        // Used from nine to five, every two minutes, never suspended.
        let looks = minutes(7, |minute| (540..1020).contains(&minute) && minute % 2 == 0);
        let found = Use::of(&looks);
        let advice = advise(&found, None, &CANDIDATES, &WEIGHTS);
        assert_eq!(advice.verdict, Verdict::Change);
        assert_eq!(advice.recommended.as_ref().unwrap().timeout_seconds, Some(300.0));
        let at =
            |timeout| advice.choices.iter().find(|one| one.timeout_seconds == timeout).unwrap();
        assert!(at(Some(300.0)).saved_hours_per_day > 15.0, "{:?}", at(Some(300.0)));
        // A minute saves nothing more, and starts cold all day long.
        assert!(at(Some(60.0)).cold_starts_per_day > 200.0, "{:?}", at(Some(60.0)));
        assert!((at(None).awake_hours_per_day - 24.0).abs() < 1e-6);
    }

    #[test]
    fn where_nothing_is_saved_nothing_is_recommended() {
        // Used every minute, day and night.
        let busy = Use::of(&minutes(7, |_| true));
        let advice = advise(&busy, Some(300.0), &CANDIDATES, &WEIGHTS);
        assert_eq!((advice.verdict, advice.recommended), (Verdict::Keep, None));
        // Never used: it sleeps already, whatever the timeout is.
        let idle = Use::of(&minutes(7, |_| false));
        let advice = advise(&idle, Some(300.0), &CANDIDATES, &WEIGHTS);
        assert_eq!((advice.verdict, advice.recommended), (Verdict::Keep, None));
        assert!(advice.reason.contains("nothing worth a change"), "{}", advice.reason);
    }

    #[test]
    fn too_little_is_said() {
        let advice = advise(&Use::of(&[]), Some(300.0), &CANDIDATES, &WEIGHTS);
        assert_eq!(advice.verdict, Verdict::TooLittleData);
        assert!(advice.choices.is_empty());
        let short = Use::of(&minutes(2, |minute| minute % 10 == 0));
        let advice = advise(&short, Some(300.0), &CANDIDATES, &WEIGHTS);
        assert!(advice.reason.starts_with("2.0 days"), "{}", advice.reason);
        let few = Use::of(&minutes(7, |minute| minute == 600));
        let advice = advise(&few, None, &CANDIDATES, &WEIGHTS);
        assert_eq!(advice.verdict, Verdict::TooLittleData, "six gaps: {}", advice.reason);
    }

    #[test]
    fn what_was_not_observed_is_not_counted() {
        let mut looks = minutes(1, |minute| minute % 30 == 0);
        let whole = Use::of(&looks);
        looks.retain(|look| !(20_000.0..50_000.0).contains(&look.at));
        let holed = Use::of(&looks);
        assert!(holed.observed < whole.observed - 29_000.0, "{holed:?}");
        assert!(holed.gaps.iter().all(|gap| (*gap - 1800.0).abs() < 1.0), "{:?}", holed.gaps);
    }

    #[test]
    fn a_timeout_below_the_distance_of_looks_is_not_recommended() {
        let looks: Vec<Look> =
            minutes(14, |minute| minute % 60 < 10).into_iter().step_by(5).collect();
        let advice = advise(&Use::of(&looks), None, &[60.0, 600.0], &WEIGHTS);
        let short = advice.choices.iter().find(|one| one.timeout_seconds == Some(60.0)).unwrap();
        assert!(!short.is_resolved);
        assert!(advice.recommended.is_none_or(|one| one.timeout_seconds != Some(60.0)));
    }

    fn looks() -> impl Strategy<Value = Vec<Look>> {
        let seen = prop_oneof![Just(Seen::Used), Just(Seen::Idle), Just(Seen::Asleep)];
        prop::collection::vec((30.0_f64..90.0, seen), 0..400).prop_map(|steps| {
            let mut at = 0.0;
            let look = |(step, seen)| {
                at += step;
                Look { at, seen }
            };
            steps.into_iter().map(look).collect()
        })
    }

    proptest! {
        #[test]
        fn longer_timeouts_are_awake_longer_and_start_less(looks in looks()) {
            let found = Use::of(&looks);
            let prices: Vec<Price> =
                CANDIDATES.iter().map(|timeout| found.with_timeout(Some(*timeout))).collect();
            for (short, long) in prices.iter().zip(prices.iter().skip(1)) {
                prop_assert!(short.awake <= long.awake + 1e-6);
                prop_assert!(short.cold_starts >= long.cold_starts);
            }
            let never = found.with_timeout(None);
            prop_assert!(prices.iter().all(|price| price.awake <= never.awake + 1e-6));
            prop_assert!(prices.iter().all(|price| price.awake >= -1e-6));
        }

        #[test]
        fn what_is_recommended_costs_less_by_the_least_saving(
            looks in looks(),
            current in prop::sample::select(vec![None, Some(60.0), Some(300.0), Some(3600.0)]),
        ) {
            let weights = Weights { least_days: 0.0, least_gaps: 0, ..WEIGHTS };
            let advice = advise(&Use::of(&looks), current, &CANDIDATES, &weights);
            let cost = |choice: &Choice| {
                choice.awake_hours_per_day
                    + choice.cold_starts_per_day * weights.cold_start_worth / HOUR
            };
            if let Some(then) = &advice.recommended {
                let now = advice.choices.iter().find(|one| one.is_current).unwrap();
                prop_assert!(cost(now) - cost(then) >= weights.least_saving - 1e-9);
                prop_assert!(then.is_resolved);
            }
        }

        #[test]
        fn when_it_began_does_not_matter(looks in looks(), shift in -1e6_f64..1e6) {
            let moved: Vec<Look> =
                looks.iter().map(|look| Look { at: look.at + shift, ..*look }).collect();
            let (one, two) = (Use::of(&looks), Use::of(&moved));
            prop_assert!((one.observed - two.observed).abs() < 1e-3);
            prop_assert_eq!(one.gaps.len(), two.gaps.len());
        }
    }
}
