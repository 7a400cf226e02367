//! `verify: { … }`: looks until its assertions hold.

use super::wait::within;
use super::{CallSpec, Setting};
use crate::kernel::Span;
use crate::plan::document::OnVerifyFail;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// A verification.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifySpec {
    /// The read tool that looks.
    pub call: CallSpec,
    /// Expressions over `result` that must all hold.
    pub assert: Vec<Spanned<String>>,
    /// How often it looks.
    pub every: Setting<Span>,
    /// For how long at most.
    pub within: Setting<Span>,
    /// What happens when they do not.
    pub on_fail: OnVerifyFail,
}

const ON_FAIL: &[(&str, OnVerifyFail)] =
    &[("stop", OnVerifyFail::Stop), ("compensate", OnVerifyFail::Compensate)];

const KEYS: &[&str] = &["tool", "with", "assert", "every", "within", "on_fail"];

impl VerifySpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`verify`", KEYS, reporter)?;
        let every = Setting::positive_duration(&map, "every", reporter);
        let on_fail =
            map.get("on_fail").and_then(|node| fields::choice(node, "on_fail", ON_FAIL, reporter));
        // Without a deadline it looks once.
        let within = match map.get("within") {
            Some(_) => within(&map, reporter),
            None => Some(Setting::Written(Span::default())),
        };
        let help = "write what must hold: `assert: [\"result.x == 0\"]`";
        let assert = map.require("assert", help, reporter);
        let assert = assert.map(|node| fields::list(node, "the assertions", reporter));
        let assert: Vec<_> = assert
            .unwrap_or_default()
            .iter()
            .filter_map(|item| fields::expression(item, reporter))
            .collect();
        if let Some(node) = map.get("assert").filter(|_| assert.is_empty()) {
            reporter.hinted("workflow::value", node.place, "this verifies nothing", help);
        }
        let call = CallSpec::read(&map, reporter);
        Some(Self {
            call: call?,
            assert,
            every: every.unwrap_or(super::wait::EVERY),
            within: within?,
            on_fail: on_fail.map_or_else(OnVerifyFail::default, |found| found.value),
        })
    }
}
