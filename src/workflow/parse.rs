//! From text to [`WorkflowSpec`].

use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Reporter};
use super::elements::step::Section;
use super::elements::{
    DefaultsSpec, LimitsSpec, ParamSpec, RegistrationSpec, ScheduleSpec, StepSpec, TriggerSpec,
};
use super::fields::{self, Fields};
use super::source::{Place, SourceText, Spanned};
use super::spec::WorkflowSpec;
use super::tree::{self, Node};
use super::yaml;
use crate::kernel::Digest;

/// The version of the language.
pub const VERSION: u64 = 1;

/// How many steps a section may have.
const MOST_STEPS: usize = 500;

const KEYS: &[&str] = &[
    "version",
    "name",
    "description",
    "params",
    "target",
    "schedule",
    "triggers",
    "lock",
    "limits",
    "defaults",
    "steps",
    "on_failure",
    "always",
    "outputs",
    "tool",
];

/// Reads a workflow file. The mistakes are complete for what stands in the file alone; whatever could
/// be understood is returned even when there are some.
pub fn parse(source: &SourceText) -> (Option<WorkflowSpec>, Vec<Diagnostic>) {
    let mut reporter = Reporter::new(source.clone());
    let tree = yaml::parse(&mut reporter);
    let spec = tree.root.as_ref().and_then(|root| read(root, tree.damaged, &mut reporter));
    if tree.root.is_none() && !reporter.has_errors() {
        let start = source.place(0, 0);
        let help = "a workflow has at least `version`, `name` and `steps`";
        reporter.hinted("workflow::empty", start, "the file is empty", help);
    }
    let mut found = reporter.finish();
    if tree.damaged {
        // What is missing may stand in the part that could not be read.
        found.retain(|found| found.code != "workflow::missing_key");
    }
    (spec, found)
}

fn read(root: &Node, damaged: bool, reporter: &mut Reporter) -> Option<WorkflowSpec> {
    let map = Fields::open(root, "a workflow", KEYS, reporter)?;
    check_version(&map, reporter);
    let name = map.require("name", "name the workflow: `name: check_indexes`", reporter);
    let name = name.and_then(|node| fields::identifier(node, reporter));
    let name =
        name.unwrap_or_else(|| Spanned::new(reporter.source().stem().to_owned(), root.place));
    let description = map.get("description").and_then(|node| fields::text(node, reporter));
    let mut lost = BTreeSet::new();
    let params = params(&map, &mut lost, reporter);
    let (schedule, schedule_places) = schedules(&map, &name.value, reporter);
    let triggers = items(&map, "triggers", reporter).iter();
    let triggers = triggers.filter_map(|node| TriggerSpec::parse(node, reporter)).collect();
    let help = "add at least one step: `steps: [{ id: look, tool: monitor_connections }]`";
    map.require("steps", help, reporter);
    Some(WorkflowSpec {
        source: reporter.source().clone(),
        digest: Digest::of_value(&root.to_json()),
        damaged,
        steps: steps(&map, "steps", Section::Main, &mut lost, reporter),
        on_failure: steps(&map, "on_failure", Section::Handlers("on_failure"), &mut lost, reporter),
        always: steps(&map, "always", Section::Handlers("always"), &mut lost, reporter),
        lost,
        description: description.map(|found| found.value).unwrap_or_default(),
        params,
        target: map.get("target").cloned(),
        schedule,
        schedule_places,
        triggers,
        lock: map.get("lock").and_then(|node| fields::template_text(node, reporter)),
        limits: read_or_default(&map, "limits", LimitsSpec::parse, reporter),
        defaults: read_or_default(&map, "defaults", DefaultsSpec::parse, reporter),
        outputs: outputs(&map, reporter),
        registration: map.get("tool").and_then(|node| RegistrationSpec::parse(node, reporter)),
        name,
    })
}

/// The schedules with their places. Their ids differ: slots are kept by them.
fn schedules(
    map: &Fields<'_>,
    workflow: &str,
    reporter: &mut Reporter,
) -> (Vec<ScheduleSpec>, Vec<Place>) {
    let (mut schedules, mut places) = (Vec::<ScheduleSpec>::new(), Vec::new());
    for node in items(map, "schedule", reporter) {
        let Some(schedule) = ScheduleSpec::parse(node, workflow, reporter) else { continue };
        if schedules.iter().any(|other| other.id == schedule.id) {
            let message = format!("two schedules have the id `{}`", schedule.id);
            let help = "slots are kept by the id: give each an `id` of its own";
            reporter.hinted("workflow::schedule_id", node.place, message, help);
        }
        schedules.push(schedule);
        places.push(node.place);
    }
    (schedules, places)
}

fn check_version(map: &Fields<'_>, reporter: &mut Reporter) {
    let Some(node) = map.require("version", "add `version: 1` as the first line", reporter) else {
        return;
    };
    if node.to_json() != serde_json::json!(VERSION) {
        let help = "this program reads `version: 1`";
        reporter.hinted("workflow::version", node.place, "unknown version of the language", help);
    }
}

fn read_or_default<T: Default>(
    map: &Fields<'_>,
    key: &str,
    parse: fn(&Node, &mut Reporter) -> Option<T>,
    reporter: &mut Reporter,
) -> T {
    map.get(key).and_then(|node| parse(node, reporter)).unwrap_or_default()
}

fn items<'n>(map: &Fields<'n>, key: &str, reporter: &mut Reporter) -> &'n [Node] {
    map.get(key).map(|node| fields::list(node, "the entries", reporter)).unwrap_or_default()
}

fn params(
    map: &Fields<'_>,
    lost: &mut BTreeSet<String>,
    reporter: &mut Reporter,
) -> Vec<ParamSpec> {
    let entries = map.get("params").map(|node| fields::map(node, "parameters", reporter));
    let mut params = Vec::new();
    for entry in entries.unwrap_or_default() {
        match ParamSpec::parse(entry, reporter) {
            Some(param) => params.push(param),
            None => {
                lost.insert(entry.key.clone());
            }
        }
    }
    params
}

fn steps(
    map: &Fields<'_>,
    key: &str,
    section: Section,
    lost: &mut BTreeSet<String>,
    reporter: &mut Reporter,
) -> Vec<StepSpec> {
    let nodes = items(map, key, reporter);
    if let Some(node) = map.get(key)
        && section == Section::Main
        && node.to_json() == serde_json::json!([])
    {
        reporter.error("workflow::missing_key", node.place, "there is no step");
    }
    if let Some(node) = nodes.get(MOST_STEPS) {
        let message = format!("a workflow has at most {MOST_STEPS} steps");
        let help = "move some of them into a workflow of their own, and embed it";
        reporter.hinted("workflow::too_large", node.place, message, help);
    }
    let mut steps = Vec::new();
    for (node, number) in nodes.iter().take(MOST_STEPS).zip(1..) {
        if let Some(step) = StepSpec::parse(node, section, number, reporter) {
            steps.push(step);
        } else {
            let id = node.get("id").and_then(Node::scalar);
            lost.insert(id.map(|scalar| scalar.text.clone()).unwrap_or_default());
        }
    }
    steps
}

fn outputs(map: &Fields<'_>, reporter: &mut Reporter) -> Vec<(Spanned<String>, Spanned<String>)> {
    let entries = map.get("outputs").map(|node| fields::map(node, "outputs", reporter));
    let read = |entry: &tree::Entry| {
        let is_name = fields::check_identifier(&entry.key, entry.place, reporter);
        let expression = fields::expression(&entry.value, reporter)?;
        is_name.then(|| (Spanned::new(entry.key.clone(), entry.place), expression))
    };
    entries.unwrap_or_default().iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let (_, found) = parse(&SourceText::new("workflows/w.yaml", text));
        let show = |found: Diagnostic| {
            let at = found.span.unwrap().start;
            format!("{}:{} {} {}", at.line, at.column, found.code, found.message)
        };
        found.into_iter().map(show).collect()
    }

    #[test]
    fn all_mistakes_come_out_at_once() {
        let text = "version: 1
name: Check
steps:
  - id: a
    tool: x
    script: sops/x.rhai
  - tool: y
    timeout: 90
    when: \"${{ steps.a }}\"
  - id: b
    wait: { tool: x, until: result.ok }
    nedds: [a]
";
        let expected = [
            "2:7 workflow::name `Check` is not a name",
            "6:5 workflow::step_kind a step does one thing, this one has `tool` (line 5) and `script` (line 6)",
            "7:5 workflow::missing_key a step lacks `id`",
            "8:14 workflow::value `90` is not a duration",
            "9:11 workflow::expression the expression stands here without `${{ }}`",
            "11:11 workflow::missing_key this `wait` lacks `within`",
            "12:5 workflow::unknown_key unknown key `nedds` of a step",
        ];
        assert_eq!(found(text), expected);
    }

    #[test]
    fn an_empty_file_is_no_workflow() {
        assert_eq!(found(""), ["1:1 workflow::empty the file is empty"]);
        assert_eq!(found("# nothing\n").len(), 1);
        assert_eq!(found("- 1"), ["1:1 workflow::type a workflow is a map, not a list"]);
    }

    #[test]
    fn what_is_missing_is_not_told_of_a_damaged_file() {
        let found = found("version: 1\nname: [x\nsteps:\n  - id: a\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("syntax") && found[1].contains("does nothing"), "{found:?}");
    }

    #[test]
    fn spacing_and_order_do_not_change_the_digest() {
        let digest = |text: &str| parse(&SourceText::new("w", text)).0.unwrap().digest;
        let one = digest("version: 1\nname: w\nsteps: [{ id: a, tool: t }]\n");
        assert_eq!(one, digest("name: w # here\nversion: 1\nsteps:\n  - tool: 't'\n    id: a\n"));
        assert_ne!(one, digest("version: 1\nname: w\nsteps: [{ id: b, tool: t }]\n"));
    }
}
