//! `retry`: what is tried again, and when.

use crate::kernel::{RetryClass, Span};
use crate::plan::document::{Backoff, Retry};
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::tree::Node;

/// What is written of a retry policy; the rest comes from the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetrySpec {
    /// All tries, the first one included.
    pub max_attempts: Option<u32>,
    /// The first delay.
    pub initial: Option<Span>,
    /// What each further delay is multiplied by.
    pub factor: Option<f64>,
    /// The longest delay.
    pub max: Option<Span>,
    /// The part of a delay that is random.
    pub jitter: Option<f64>,
    /// The classes of failures that are retried.
    pub on: Option<Vec<RetryClass>>,
}

/// The classes that can be retried. An effect in doubt never is.
const CLASSES: &[(&str, RetryClass)] =
    &[("transient", RetryClass::Transient), ("lock_timeout", RetryClass::LockTimeout)];

impl RetrySpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`retry`", &["max_attempts", "backoff", "on"], reporter)?;
        let attempts = map.get("max_attempts").and_then(|node| fields::count(node, 1, reporter));
        let mut spec = Self { max_attempts: attempts.map(|found| found.value), ..Self::default() };
        if let Some(node) = map.get("backoff") {
            spec.read_backoff(node, reporter);
        }
        if let Some(node) = map.get("on") {
            let items = fields::list(node, "the classes", reporter);
            let classes =
                items.iter().filter_map(|item| fields::choice(item, "class", CLASSES, reporter));
            spec.on = Some(classes.map(|found| found.value).collect());
        }
        Some(spec)
    }

    fn read_backoff(&mut self, node: &Node, reporter: &mut Reporter) {
        let known = ["initial", "factor", "max", "jitter"];
        let Some(map) = Fields::open(node, "`backoff`", &known, reporter) else { return };
        let mut span =
            |key| map.get(key).and_then(|node| fields::duration(node, reporter)).map(|s| s.value);
        self.initial = span("initial");
        self.max = span("max");
        let mut number = |key, range| {
            map.get(key).and_then(|node| fields::number(node, range, reporter)).map(|n| n.value)
        };
        self.factor = number("factor", (1.0, 100.0));
        self.jitter = number("jitter", (0.0, 1.0));
    }

    /// What is written here, over what is inherited.
    pub fn over(&self, inherited: &Retry) -> Retry {
        let backoff = Backoff {
            initial: self.initial.unwrap_or(inherited.backoff.initial),
            factor: self.factor.unwrap_or(inherited.backoff.factor),
            max: self.max.unwrap_or(inherited.backoff.max),
            jitter: self.jitter.unwrap_or(inherited.backoff.jitter),
        };
        Retry {
            max_attempts: self.max_attempts.unwrap_or(inherited.max_attempts),
            backoff,
            on: self.on.clone().unwrap_or_else(|| inherited.on.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_inherited() {
        let spec = RetrySpec { max_attempts: Some(5), jitter: Some(0.0), ..RetrySpec::default() };
        let retry = spec.over(&Retry::default());
        assert_eq!((retry.max_attempts, retry.backoff.jitter), (5, 0.0));
        assert_eq!(retry.backoff.initial, Span::from_secs(1));
        assert_eq!(retry.on.len(), 2);
    }
}
