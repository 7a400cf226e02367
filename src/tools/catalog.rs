//! All tools by name.

use std::collections::BTreeMap;

use super::tool::AnyTool;
use super::{core, health, performance, provisioning};

/// All tools by name.
#[derive(Clone, Default)]
pub struct Catalog {
    tools: BTreeMap<&'static str, AnyTool>,
}

impl Catalog {
    /// The tools that are built in.
    pub fn builtin() -> Self {
        let families = [core::TOOLS, health::TOOLS, performance::TOOLS, provisioning::TOOLS];
        let tools = families.iter().flat_map(|tools| tools.iter());
        Self { tools: tools.map(|tool| (tool.meta().name, **tool)).collect() }
    }

    /// Just these tools: for tests.
    pub fn of(tools: &[AnyTool]) -> Self {
        Self { tools: tools.iter().map(|tool| (tool.meta().name, *tool)).collect() }
    }

    /// The tool of a name.
    pub fn find(&self, name: &str) -> Option<AnyTool> {
        self.tools.get(name).copied()
    }

    /// All tools, by name.
    pub fn iter(&self) -> impl Iterator<Item = AnyTool> + '_ {
        self.tools.values().copied()
    }
}
