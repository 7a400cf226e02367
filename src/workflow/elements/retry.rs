//! `retry`: what is tried again, and when.

use super::setting::computed;
use super::{Computed, Setting};
use crate::kernel::{RetryClass, Span};
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::tree::Node;

/// What is written of a retry policy; the rest comes from the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetrySpec {
    /// All tries, the first one included.
    pub max_attempts: Option<Setting<u32>>,
    /// The first delay.
    pub initial: Option<Setting<Span>>,
    /// What each further delay is multiplied by.
    pub factor: Option<Setting<f64>>,
    /// The longest delay.
    pub max: Option<Setting<Span>>,
    /// The part of a delay that is random.
    pub jitter: Option<Setting<f64>>,
    /// The classes of failures that are retried.
    pub on: Option<Vec<RetryClass>>,
}

/// The classes that can be retried. An effect in doubt never is.
const CLASSES: &[(&str, RetryClass)] =
    &[("transient", RetryClass::Transient), ("lock_timeout", RetryClass::LockTimeout)];

impl RetrySpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`retry`", &["max_attempts", "backoff", "on"], reporter)?;
        let max_attempts = Setting::count(&map, "max_attempts", 1, reporter);
        let mut spec = Self { max_attempts, ..Self::default() };
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
        self.initial = Setting::duration(&map, "initial", reporter);
        self.max = Setting::duration(&map, "max", reporter);
        self.factor = Setting::number(&map, "factor", (1.0, 100.0), reporter);
        self.jitter = Setting::number(&map, "jitter", (0.0, 1.0), reporter);
    }

    /// The settings that follow from the parameters.
    pub(in crate::workflow) fn computed(&self) -> impl Iterator<Item = &Computed> {
        let spans = computed([&self.initial, &self.max]);
        computed([&self.max_attempts]).chain(spans).chain(computed([&self.factor, &self.jitter]))
    }
}
