//! Finding what a step does: its tool, script, query or workflow.

use serde_json::{Value, json};

use super::diagnostic::{Diagnostic, Reporter, shorten};
use super::elements::{CallSpec, StepKind, StepSpec, WaitSpec};
use super::resolve::{Loaded, Session, report_recursion};
use super::resolved::Action;
use super::source::{Place, SourceText, Spanned};
use super::tree::{Content, Node};
use super::{suggest, types};
use crate::kernel::SqlFile;
use crate::tools::AnyTool;

/// What a step does and the type of its output. `None`: it could not be found, which is reported.
pub(super) fn resolve(
    session: &mut Session<'_>,
    step: &StepSpec,
    reporter: &mut Reporter,
) -> Option<(Action, Value)> {
    match &step.kind {
        StepKind::Tool(name) => tool_or_workflow(session, name, reporter),
        StepKind::Workflow(name) => workflow(session, name, reporter),
        StepKind::Script(path) => script(session, path, step.with.as_ref(), reporter),
        StepKind::Sql(name) => sql(session, name, step.with.as_ref(), reporter),
        StepKind::Approval(gate) => {
            let text = json!({ "type": "string" });
            let fields = [("approved_by", text.clone()), ("reason", text.clone()), ("at", text)];
            Some((Action::Approval(gate.clone()), types::object(fields)))
        }
        StepKind::Wait(wait) => {
            let output = wait_output(session, wait, reporter)?;
            Some((Action::Wait(wait.clone()), output))
        }
        StepKind::Verify(verify) => {
            let tool = read_tool(session, &verify.call, reporter)?;
            let result = session.types_of(tool).output.clone();
            let passed = json!({ "type": "boolean" });
            let assertions = ("assertions", types::anything());
            let output = types::object([("passed", passed), ("result", result), assertions]);
            Some((Action::Verify(verify.clone()), output))
        }
    }
}

fn wait_output(
    session: &mut Session<'_>,
    wait: &WaitSpec,
    reporter: &mut Reporter,
) -> Option<Value> {
    let waited = ("waited", types::anything());
    Some(match wait {
        WaitSpec::Timer { .. } => types::object([waited]),
        WaitSpec::Event { .. } => types::object([waited, ("event", types::anything())]),
        WaitSpec::Condition { call, .. } => {
            let tool = read_tool(session, call, reporter)?;
            types::object([waited, ("result", session.types_of(tool).output.clone())])
        }
    })
}

/// The read tool of a call; a write tool is reported.
pub(super) fn read_tool(
    session: &Session<'_>,
    call: &CallSpec,
    reporter: &mut Reporter,
) -> Option<AnyTool> {
    let tool = find_tool(session, &call.tool, reporter)?;
    if tool.is_write() {
        let message =
            format!("`{}` changes things, and only a look is allowed here", call.tool.value);
        let help = "make a step of it, or name a tool that only looks";
        reporter.hinted("workflow::write_tool", call.tool.place, message, help);
        return None;
    }
    Some(tool)
}

/// The tool of a name; an unknown one is reported.
pub(super) fn find_tool(
    session: &Session<'_>,
    name: &Spanned<String>,
    reporter: &mut Reporter,
) -> Option<AnyTool> {
    let found = session.resolver.catalog.find(&name.value);
    if found.is_none() {
        unknown_tool(session, name, reporter);
    }
    found
}

fn unknown_tool(session: &Session<'_>, name: &Spanned<String>, reporter: &mut Reporter) {
    let tools: Vec<&str> = session.resolver.catalog.iter().map(|tool| tool.meta().name).collect();
    let workflows = session.resolver.sources.workflows();
    let known: Vec<&str> = tools.into_iter().chain(workflows).collect();
    let message = format!("unknown tool `{}`", shorten(&name.value));
    let help = suggest::help(&name.value, known.iter().copied())
        .filter(|help| help.starts_with("did you mean"))
        .unwrap_or_else(|| "`lakeops tools list` shows all tools".to_owned());
    reporter.hinted("workflow::unknown_tool", name.place, message, help);
}

fn tool_or_workflow(
    session: &mut Session<'_>,
    name: &Spanned<String>,
    reporter: &mut Reporter,
) -> Option<(Action, Value)> {
    if let Some(tool) = session.resolver.catalog.find(&name.value) {
        return Some((Action::Tool(tool), session.types_of(tool).output.clone()));
    }
    if session.is_registered(&name.value) {
        return workflow(session, name, reporter);
    }
    if session.resolver.sources.workflow(&name.value).is_some() {
        let message = format!("`{}` is a workflow, not a tool", name.value);
        let help = format!("write `workflow: {}`", name.value);
        reporter.hinted("workflow::unknown_tool", name.place, message, help);
        return None;
    }
    unknown_tool(session, name, reporter);
    None
}

fn workflow(
    session: &mut Session<'_>,
    name: &Spanned<String>,
    reporter: &mut Reporter,
) -> Option<(Action, Value)> {
    match session.load(&name.value) {
        Loaded::Sound(child) => {
            let outputs = child.outputs.clone();
            Some((Action::Workflow(child), outputs))
        }
        Loaded::Broken => {
            let message = format!("workflow `{}` has mistakes of its own", name.value);
            let help = "mend them first; they are listed with its file";
            reporter.hinted("workflow::broken", name.place, message, help);
            None
        }
        Loaded::Open(path) => {
            report_recursion(&path, name.place, reporter);
            None
        }
        Loaded::Unknown => {
            let known = session.resolver.sources.workflows();
            let message = format!("unknown workflow `{}`", shorten(&name.value));
            let what = (message.as_str(), name.value.as_str());
            reporter.unknown("workflow::unknown_workflow", name.place, what, known);
            None
        }
    }
}

fn script(
    session: &mut Session<'_>,
    path: &Spanned<String>,
    with: Option<&Node>,
    reporter: &mut Reporter,
) -> Option<(Action, Value)> {
    let sources = session.resolver.sources;
    let Some(text) = sources.script(&path.value) else {
        let message = format!("unknown script `{}`", shorten(&path.value));
        let what = (message.as_str(), path.value.as_str());
        let known = sources.scripts();
        reporter.unknown("workflow::unknown_script", path.place, what, known);
        return None;
    };
    let variables: Vec<&str> = match with.map(|node| &node.content) {
        Some(Content::Map(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
        _ => Vec::new(),
    };
    if let Err(error) = session.sandbox().script(&path.value, text, &variables) {
        let source = SourceText::new(&path.value, text);
        let start = source.at(error.line, error.column);
        let place = Place { start, end: source.at(error.line, error.column + 1) };
        let at = reporter.source().path();
        let line = path.place.start.line;
        let message = format!("this script does not work: {}", error.message);
        let help = error.help.clone().unwrap_or_else(|| {
            format!("it sees the names under `with` of the step at {at}:{line}")
        });
        let found = Diagnostic::error("workflow::script", &path.value, message);
        session.keep(found.at(&source, place).with_help(help));
        reporter.hinted(
            "workflow::script",
            path.place,
            format!("script `{}` has a mistake", path.value),
            format!("it is at {}:{}:{}", path.value, error.line, error.column),
        );
        return None;
    }
    let action = Action::Script { path: path.value.clone(), text: text.to_owned() };
    Some((action, types::anything()))
}

fn sql(
    session: &Session<'_>,
    written: &Spanned<String>,
    with: Option<&Node>,
    reporter: &mut Reporter,
) -> Option<(Action, Value)> {
    let sources = session.resolver.sources;
    let name = written.value.strip_prefix("sql/").unwrap_or(&written.value);
    let name = name.strip_suffix(".sql").unwrap_or(name);
    let Some(text) = sources.sql(name) else {
        let known = sources.sql_names();
        reporter.unknown(
            "workflow::unknown_sql",
            written.place,
            (&format!("unknown query `{}`", shorten(name)), name),
            known,
        );
        return None;
    };
    let binds = binds(name, text, with, written.place, reporter)?;
    let action = Action::Sql { name: name.to_owned(), text: text.to_owned(), binds };
    let row = json!({ "type": "object" });
    Some((action, types::object([("rows", types::list_of(&row))])))
}

/// The bound values of a query in the order of its parameters.
fn binds(
    name: &str,
    text: &str,
    with: Option<&Node>,
    place: Place,
    reporter: &mut Reporter,
) -> Option<Vec<Node>> {
    let wanted = sql_params(text);
    let given = match with.map(|node| &node.content) {
        None => Vec::new(),
        Some(Content::List(items)) => items.clone(),
        Some(Content::Map(entries)) => {
            let Some(wanted) = &wanted else {
                let help =
                    "list the values in the order of `$1`, `$2`, …, or add `-- params:` to it";
                let message = format!("query `{name}` does not say what its parameters are called");
                reporter.hinted("workflow::argument", place, message, help);
                return None;
            };
            let known = || wanted.iter().map(String::as_str);
            for entry in entries.iter().filter(|entry| !wanted.contains(&entry.key)) {
                let what = format!("unknown argument `{}` of `{name}`", shorten(&entry.key));
                let what = (what.as_str(), entry.key.as_str());
                reporter.unknown("workflow::unknown_argument", entry.place, what, known());
            }
            let value = |key: &String| entries.iter().find(|entry| entry.key == *key);
            wanted.iter().filter_map(|key| value(key).map(|entry| entry.value.clone())).collect()
        }
        Some(Content::Scalar(_)) => {
            let help = "write `with: { name: value }`, or a list in the order of `$1`, `$2`, …";
            reporter.hinted("workflow::argument", place, "a query takes named values", help);
            return None;
        }
    };
    if let Some(wanted) = wanted.filter(|wanted| wanted.len() != given.len()) {
        let message =
            format!("query `{name}` takes {} values, {} are given", wanted.len(), given.len());
        let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let help = match names.as_slice() {
            [] => "leave `with` out".to_owned(),
            names => format!("give {}", suggest::join(names)),
        };
        reporter.hinted("workflow::argument", place, message, help);
        return None;
    }
    Some(given)
}

/// The names in the header `-- params: $1 name type, …`; `None`: it has no such line.
fn sql_params(text: &str) -> Option<Vec<String>> {
    // The header is read the same way as that of embedded files, whose texts live for ever.
    let params = SqlFile::params_of(text)?;
    Some(params.into_iter().map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_from_the_header() {
        let text = "-- purpose: x\n-- params: $1 pid int8, $2 states text[]\nselect 1";
        assert_eq!(sql_params(text).unwrap(), ["pid", "states"]);
        assert_eq!(sql_params("-- params: none\nselect 1"), Some(Vec::new()));
        assert_eq!(sql_params("select 1"), None);
    }
}
