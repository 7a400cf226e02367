//! `tool` and `with`: a tool and its arguments.

use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// A tool and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSpec {
    /// The tool's name.
    pub tool: Spanned<String>,
    /// Its arguments: a template.
    pub with: Option<Node>,
}

impl CallSpec {
    /// Reads `{ tool, with }`.
    pub(in crate::workflow) fn parse(
        node: &Node,
        what: &'static str,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let map = Fields::open(node, what, &["tool", "with"], reporter)?;
        Self::read(&map, reporter)
    }

    /// Reads the two keys of a larger map.
    pub(in crate::workflow) fn read(map: &Fields<'_>, reporter: &mut Reporter) -> Option<Self> {
        let tool = map.require("tool", "name the tool that looks or acts", reporter)?;
        let tool = fields::literal(tool, reporter)?;
        Some(Self { tool, with: map.get("with").cloned() })
    }
}
