//! `limits` and `defaults`: what bounds a run, and what its steps inherit.

use super::setting::computed;
use super::{Computed, RetrySpec, Setting};
use crate::kernel::Span;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::Fields;
use crate::workflow::tree::Node;

/// What bounds a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsSpec {
    /// How long it may work, the time spent waiting not counted.
    pub timeout: Option<Setting<Span>>,
    /// How many changes it may carry out.
    pub max_changes: Option<Setting<u32>>,
}

/// What steps inherit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DefaultsSpec {
    /// How long one attempt may take.
    pub timeout: Option<Setting<Span>>,
    /// What is tried again.
    pub retry: Option<RetrySpec>,
}

impl LimitsSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`limits`", &["timeout", "max_changes"], reporter)?;
        Some(Self {
            timeout: Setting::positive_duration(&map, "timeout", reporter),
            max_changes: Setting::count(&map, "max_changes", 0, reporter),
        })
    }

    /// The settings that follow from the parameters.
    pub(in crate::workflow) fn computed(&self) -> impl Iterator<Item = &Computed> {
        computed([&self.timeout]).chain(computed([&self.max_changes]))
    }
}

impl DefaultsSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`defaults`", &["timeout", "retry"], reporter)?;
        let timeout = Setting::positive_duration(&map, "timeout", reporter);
        let retry = map.get("retry").and_then(|node| RetrySpec::parse(node, reporter));
        Some(Self { timeout, retry })
    }

    /// The settings that follow from the parameters.
    pub(in crate::workflow) fn computed(&self) -> impl Iterator<Item = &Computed> {
        computed([&self.timeout]).chain(self.retry.iter().flat_map(RetrySpec::computed))
    }
}
