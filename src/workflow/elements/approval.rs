//! `approval: { … }`: a step that asks a person.

use super::Setting;
use crate::kernel::Span;
use crate::plan::document::OnReject;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::Spanned;
use crate::workflow::tree::Node;

/// A step that asks a person.
#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalSpec {
    /// The question: a template.
    pub prompt: Spanned<String>,
    /// What is shown with it: expressions.
    pub show: Vec<Spanned<String>>,
    /// The steps whose change sets it approves.
    pub covers: Vec<Spanned<String>>,
    /// When it is rejected by itself.
    pub expires: Option<Setting<Span>>,
    /// What a rejection does.
    pub on_reject: OnReject,
    /// Demands rehearsal evidence that is not older.
    pub rehearsed_within: Option<Setting<Span>>,
}

const ON_REJECT: &[(&str, OnReject)] =
    &[("stop", OnReject::Stop), ("skip_dependents", OnReject::SkipDependents)];

const KEYS: &[&str] = &["prompt", "show", "covers", "expires", "on_reject", "rehearsed_within"];

impl ApprovalSpec {
    pub(in crate::workflow) fn parse(node: &Node, reporter: &mut Reporter) -> Option<Self> {
        let map = Fields::open(node, "`approval`", KEYS, reporter)?;
        let show = map.get("show").map(|node| fields::list(node, "what is shown", reporter));
        let show = show.unwrap_or_default().iter();
        let show = show.filter_map(|item| fields::expression(item, reporter)).collect();
        let covers = map.get("covers").map(|node| fields::list(node, "the steps", reporter));
        let covers = covers.unwrap_or_default().iter();
        let covers = covers.filter_map(|item| fields::identifier(item, reporter)).collect();
        let expires = Setting::positive_duration(&map, "expires", reporter);
        let rehearsed_within = Setting::positive_duration(&map, "rehearsed_within", reporter);
        let on_reject = map
            .get("on_reject")
            .and_then(|node| fields::choice(node, "on_reject", ON_REJECT, reporter));
        let prompt = map.require("prompt", "write the question that is asked", reporter)?;
        Some(Self {
            prompt: fields::template_text(prompt, reporter)?,
            show,
            covers,
            expires,
            on_reject: on_reject.map_or_else(OnReject::default, |found| found.value),
            rehearsed_within,
        })
    }
}
