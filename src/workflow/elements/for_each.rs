//! `for_each`: one step over many items.

use super::Setting;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// A fan-out over a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ForEachSpec {
    /// A template of the list.
    pub items: Node,
    /// A template of an item's key.
    pub key: Spanned<String>,
    /// How many items are worked on at once; by default one.
    pub max_parallel: Option<Setting<u32>>,
    /// Whether the first failure keeps further items from starting.
    pub fail_fast: bool,
}

impl ForEachSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let known = ["in", "key", "max_parallel", "fail_fast"];
        let map = Fields::open(node, "`for_each`", &known, reporter)?;
        let max_parallel = Setting::count(&map, "max_parallel", 1, reporter);
        let fail_fast = map.get("fail_fast").and_then(|node| fields::boolean(node, reporter));
        let help = "write a text that is unique per item: `key: \"${{ item.name }}\"`";
        let key = map.require("key", help, reporter);
        let items = map.require("in", "write the list: `in: \"${{ steps.x.rows }}\"`", reporter)?;
        if !fields::has_expression(items) {
            fields::list(items, "the items", reporter);
        }
        let key = fields::template_text(key?, reporter)?;
        if !key.value.contains("${{") {
            reporter.hinted(
                "workflow::value",
                key.place,
                "every item would have the same key",
                help,
            );
            return None;
        }
        Some(Self {
            items: items.clone(),
            key,
            max_parallel,
            fail_fast: fail_fast.is_none_or(|found| found.value),
        })
    }
}
