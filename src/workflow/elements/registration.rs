//! `tool: { family, risk }`: a workflow that is offered as a tool of its name.

use crate::kernel::Risk;
use crate::tools::tool::Family;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// How a workflow is offered as a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrationSpec {
    /// The family that it is listed under.
    pub family: Family,
    /// Its risk, when it is written.
    pub risk: Option<Spanned<Risk>>,
}

const FAMILIES: &[(&str, Family)] = &[
    ("provisioning", Family::Provisioning),
    ("performance", Family::Performance),
    ("health", Family::Health),
    ("core", Family::Core),
];

pub(in crate::workflow) const RISKS: &[(&str, Risk)] =
    &[("low", Risk::Low), ("medium", Risk::Medium), ("high", Risk::High)];

impl RegistrationSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`tool`", &["family", "risk"], reporter)?;
        let risk = map.get("risk").and_then(|node| fields::choice(node, "risk", RISKS, reporter));
        let family = map.require("family", "name the family that it is listed under", reporter)?;
        let family = fields::choice(family, "family", FAMILIES, reporter)?.value;
        Some(Self { family, risk })
    }
}
