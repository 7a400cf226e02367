//! A step: one node of the workflow.

use super::registration::RISKS;
use super::setting::computed;
use super::{
    ApprovalSpec, CallSpec, Computed, ForEachSpec, RetrySpec, Setting, VerifySpec, WaitSpec,
};
use crate::kernel::{Risk, Span};
use crate::plan::document::{ApprovalMode, RunIf};
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::source::{Place, Spanned};
use crate::workflow::suggest;
use crate::workflow::tree::{Content, Node};

/// A step as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Its id; handlers without one are numbered.
    pub id: Spanned<String>,
    /// What it does.
    pub kind: StepKind,
    /// Its arguments: a template.
    pub with: Option<Node>,
    /// Its own target: a template.
    pub target: Option<Node>,
    /// The steps that it waits for.
    pub needs: Vec<Spanned<String>>,
    /// Its condition.
    pub when: Option<Spanned<String>>,
    /// Whether it runs although everything that it needs was skipped or failed.
    pub run_if: RunIf,
    /// Its fan-out.
    pub for_each: Option<ForEachSpec>,
    /// The approval policy of a write.
    pub approval: Option<Spanned<ApprovalMode>>,
    /// The risk that the file raises it to.
    pub risk: Option<Spanned<Risk>>,
    /// Whether it may wake a suspended compute.
    pub wake: bool,
    /// A lock of its own: a template.
    pub lock: Option<Spanned<String>>,
    /// How long one attempt may take.
    pub timeout: Option<Setting<Span>>,
    /// What is tried again.
    pub retry: Option<RetrySpec>,
    /// Whether dependents go on when it fails.
    pub allow_failure: bool,
    /// What replaces the inverses of its changes.
    pub compensate: Option<CallSpec>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// `tool`: a tool, or a workflow that is registered as one.
    Tool(Spanned<String>),
    /// `script`: a file of `sops/`.
    Script(Spanned<String>),
    /// `sql`: a file of `sql/`.
    Sql(Spanned<String>),
    /// `workflow`: another workflow, in the same run.
    Workflow(Spanned<String>),
    /// `approval: { … }`
    Approval(ApprovalSpec),
    /// `wait`
    Wait(WaitSpec),
    /// `verify`
    Verify(VerifySpec),
}

/// Whether a step stands among `steps`, or runs at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::workflow) enum Section {
    /// `steps`
    Main,
    /// `on_failure` or `always`
    Handlers(&'static str),
}

/// The keys that say what a step does.
const KINDS: &[&str] = &["tool", "script", "sql", "workflow", "approval", "wait", "verify"];

const KEYS: &[&str] = &[
    "id",
    "tool",
    "script",
    "sql",
    "workflow",
    "approval",
    "wait",
    "verify",
    "with",
    "target",
    "needs",
    "when",
    "run_if",
    "for_each",
    "risk",
    "wake",
    "lock",
    "timeout",
    "retry",
    "allow_failure",
    "compensate",
];

const MODES: &[(&str, ApprovalMode)] = &[
    ("auto", ApprovalMode::Auto),
    ("required", ApprovalMode::Required),
    ("never", ApprovalMode::Never),
];

const RUN_IF: &[(&str, RunIf)] = &[("success", RunIf::Success), ("always", RunIf::Always)];

impl StepSpec {
    /// Reads the `number`th step of a section.
    pub(in crate::workflow) fn parse(
        node: &Node,
        section: Section,
        number: usize,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let map = Fields::open(node, "a step", KEYS, reporter)?;
        let id = read_id(&map, section, number, reporter);
        let kind = read_kind(&map, reporter);
        refuse_misplaced(&map, section, reporter);
        let needs = map.get("needs").map(|node| fields::list(node, "the steps", reporter));
        let needs = needs.unwrap_or_default().iter();
        let needs = needs.filter_map(|item| fields::identifier(item, reporter)).collect();
        let run_if =
            map.get("run_if").and_then(|node| fields::choice(node, "run_if", RUN_IF, reporter));
        let mut flag = |key| {
            let found = map.get(key).and_then(|node| fields::boolean(node, reporter));
            found.is_some_and(|found| found.value)
        };
        let (wake, allow_failure) = (flag("wake"), flag("allow_failure"));
        Some(Self {
            with: map.get("with").cloned(),
            target: map.get("target").cloned(),
            needs,
            when: map.get("when").and_then(|node| fields::expression(node, reporter)),
            run_if: run_if.map_or_else(RunIf::default, |found| found.value),
            for_each: map.get("for_each").and_then(|node| ForEachSpec::parse(node, reporter)),
            approval: map
                .get("approval")
                .filter(|node| node.scalar().is_some())
                .and_then(|node| fields::choice(node, "approval", MODES, reporter)),
            risk: map.get("risk").and_then(|node| fields::choice(node, "risk", RISKS, reporter)),
            wake,
            lock: map.get("lock").and_then(|node| fields::template_text(node, reporter)),
            timeout: Setting::positive_duration(&map, "timeout", reporter),
            retry: map.get("retry").and_then(|node| RetrySpec::parse(node, reporter)),
            allow_failure,
            compensate: map
                .get("compensate")
                .and_then(|node| CallSpec::parse(node, "`compensate`", reporter)),
            id: id?,
            kind: kind?,
        })
    }

    /// The settings that follow from the parameters.
    pub(in crate::workflow) fn computed(&self) -> Vec<&Computed> {
        let mut found: Vec<&Computed> = computed([&self.timeout]).collect();
        found.extend(self.retry.iter().flat_map(RetrySpec::computed));
        found.extend(computed(self.for_each.iter().map(|for_each| &for_each.max_parallel)));
        match &self.kind {
            StepKind::Approval(gate) => {
                found.extend(computed([&gate.expires, &gate.rehearsed_within]));
            }
            StepKind::Wait(wait) => found.extend(wait.computed()),
            StepKind::Verify(verify) => {
                found.extend(
                    [&verify.every, &verify.within].into_iter().filter_map(Setting::computed),
                );
            }
            StepKind::Tool(_) | StepKind::Script(_) | StepKind::Sql(_) | StepKind::Workflow(_) => {}
        }
        found
    }
}

fn read_id(
    map: &Fields<'_>,
    section: Section,
    number: usize,
    reporter: &mut Reporter,
) -> Option<Spanned<String>> {
    match (map.get("id"), section) {
        (Some(node), _) => fields::identifier(node, reporter),
        (None, Section::Main) => {
            map.require("id", "name the step: `id: diagnose`", reporter);
            None
        }
        (None, Section::Handlers(name)) => {
            Some(Spanned::new(format!("{name}_{number}"), map.place()))
        }
    }
}

fn read_kind(map: &Fields<'_>, reporter: &mut Reporter) -> Option<StepKind> {
    let is_policy = |node: &Node| node.scalar().is_some();
    let found: Vec<(&str, &Node, Place)> = KINDS
        .iter()
        .filter_map(|kind| map.entry(kind).map(|entry| (*kind, &entry.value, entry.place)))
        .filter(|(kind, node, _)| !(*kind == "approval" && is_policy(node)))
        .collect();
    match found.as_slice() {
        [(kind, node, _)] => read_one_kind(kind, node, reporter),
        [] => {
            let help = format!("add one of {}", suggest::join(KINDS));
            reporter.hinted("workflow::step_kind", map.place(), "this step does nothing", help);
            None
        }
        [(first, _, one), (second, _, other), ..] => {
            let (one, place) = (one.start.line, *other);
            let other = other.start.line;
            let message = format!(
                "a step does one thing, this one has `{first}` (line {one}) and `{second}` (line {other})"
            );
            reporter.hinted("workflow::step_kind", place, message, "make two steps of it");
            None
        }
    }
}

fn read_one_kind(kind: &str, node: &Node, reporter: &mut Reporter) -> Option<StepKind> {
    match kind {
        "approval" => ApprovalSpec::parse(node, reporter).map(StepKind::Approval),
        "wait" => WaitSpec::parse(node, reporter).map(StepKind::Wait),
        "verify" => VerifySpec::parse(node, reporter).map(StepKind::Verify),
        "tool" => fields::literal(node, reporter).map(StepKind::Tool),
        "script" => fields::literal(node, reporter).map(StepKind::Script),
        "sql" => fields::literal(node, reporter).map(StepKind::Sql),
        _ => fields::literal(node, reporter).map(StepKind::Workflow),
    }
}

/// Reports keys that mean nothing beside what the step does.
fn refuse_misplaced(map: &Fields<'_>, section: Section, reporter: &mut Reporter) {
    let has = |key: &str| map.entry(key).is_some();
    let acts = has("tool") || has("workflow");
    let asks = map.get("approval").is_some_and(|node| matches!(node.content, Content::Map(_)));
    let mut refuse = |key: &str, message: &str, help: &str| {
        if let Some(entry) = map.entry(key) {
            reporter.hinted("workflow::misplaced_key", entry.place, message, help);
        }
    };
    if !acts && !asks {
        let help =
            "write it beside `tool` or `workflow`; to ask a person, write `approval: { prompt }`";
        refuse("approval", "an approval policy needs something to approve", help);
    }
    if !acts {
        refuse("compensate", "only what changes something is undone", "move it to that step");
    }
    if !acts && !has("script") && !has("sql") {
        let help = "arguments of a wait or a verification stand inside it";
        refuse("with", "`with` belongs to `tool`, `script`, `sql` or `workflow`", help);
    }
    if asks && !acts {
        refuse("for_each", "a person is asked once, for all items", "leave `for_each` out");
    }
    if let Section::Handlers(name) = section {
        let message = format!("steps of `{name}` run one after the other");
        refuse("needs", &message, "leave `needs` out");
    }
}
