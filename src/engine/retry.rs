//! When a failed try is tried again. PURE.

use std::time::Duration;

use crate::kernel::{Failure, Timestamp};
use crate::plan::document::{Backoff, Retry};

/// When the next try is due; `None` when there is none. `draw` is a random number from `[0, 1)`.
pub fn retry_at(
    retry: &Retry,
    attempt: u32,
    failure: &Failure,
    (now, draw): (Timestamp, f64),
) -> Option<Timestamp> {
    let allowed = attempt < retry.max_attempts && retry.on.contains(&failure.class);
    allowed.then(|| now.plus(delay(&retry.backoff, attempt, draw)))
}

/// The delay after the `attempt`th try: `initial · factor^(attempt − 1)`, at most `max`, spread evenly
/// over `± jitter` of itself.
pub fn delay(backoff: &Backoff, attempt: u32, draw: f64) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let longest = backoff.max.0.as_secs_f64();
    let grown = backoff.initial.0.as_secs_f64() * backoff.factor.max(0.0).powi(exponent);
    let base = if grown.is_finite() { grown.min(longest) } else { longest };
    let spread = 1.0 + backoff.jitter.clamp(0.0, 1.0) * (2.0 * draw - 1.0);
    Duration::try_from_secs_f64(base * spread).unwrap_or(backoff.max.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{RetryClass, Span};

    fn backoff() -> Backoff {
        Backoff { initial: Span::from_secs(1), factor: 2.0, max: Span::from_secs(5), jitter: 0.5 }
    }

    #[test]
    fn delays_grow_to_the_longest_and_are_spread() {
        let middle = |attempt| delay(&backoff(), attempt, 0.5).as_millis();
        assert_eq!([1, 2, 3, 4, 400].map(middle), [1000, 2000, 4000, 5000, 5000]);
        assert_eq!(delay(&backoff(), 1, 0.0).as_millis(), 500);
        assert!(delay(&backoff(), 1, 0.999).as_millis() < 1500);
        let odd = Backoff { factor: f64::INFINITY, ..backoff() };
        assert_eq!(delay(&odd, 9, 0.5).as_secs(), 5);
    }

    #[test]
    fn only_listed_classes_are_retried_and_only_so_often() {
        let now = Timestamp::from_millis(0);
        let retry = Retry { max_attempts: 2, backoff: backoff(), on: vec![RetryClass::Transient] };
        let passing = Failure::transient("x", "y");
        assert_eq!(retry_at(&retry, 1, &passing, (now, 0.5)), Some(Timestamp::from_millis(1000)));
        assert_eq!(retry_at(&retry, 2, &passing, (now, 0.5)), None);
        assert_eq!(retry_at(&retry, 1, &Failure::permanent("x", "y"), (now, 0.5)), None);
    }
}
