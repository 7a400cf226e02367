//! `limits` and `defaults`: what bounds a run, and what its steps inherit.

use super::RetrySpec;
use crate::kernel::Span;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::tree::Node;

/// What bounds a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsSpec {
    /// How long it may work, the time spent waiting not counted.
    pub timeout: Option<Span>,
    /// How many changes it may carry out.
    pub max_changes: Option<u32>,
}

/// What steps inherit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DefaultsSpec {
    /// How long one attempt may take.
    pub timeout: Option<Span>,
    /// What is tried again.
    pub retry: Option<RetrySpec>,
}

impl LimitsSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`limits`", &["timeout", "max_changes"], reporter)?;
        let timeout = map.get("timeout").and_then(|node| fields::positive_duration(node, reporter));
        let changes = map.get("max_changes").and_then(|node| fields::count(node, 0, reporter));
        Some(Self {
            timeout: timeout.map(|found| found.value),
            max_changes: changes.map(|found| found.value),
        })
    }
}

impl DefaultsSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`defaults`", &["timeout", "retry"], reporter)?;
        let timeout = map.get("timeout").and_then(|node| fields::positive_duration(node, reporter));
        let retry = map.get("retry").and_then(|node| RetrySpec::parse(node, reporter));
        Some(Self { timeout: timeout.map(|found| found.value), retry })
    }
}
