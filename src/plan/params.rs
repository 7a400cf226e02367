//! The parameters of a plan: what is given, checked, with defaults for the rest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::planner::Given;
use crate::workflow::{Diagnostic, WorkflowSpec};

/// The value of every parameter, or everything that is wrong with what is given.
pub(super) fn resolve(
    spec: &WorkflowSpec,
    given: &BTreeMap<String, Given>,
) -> Result<Map<String, Value>, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let file = spec.source.path();
    for name in given.keys() {
        let known = || spec.params.iter().map(|param| param.name.value.as_str());
        if !known().any(|param| param == name) {
            let message = format!("workflow `{}` has no parameter `{name}`", spec.name.value);
            let mistake = Diagnostic::error("plan::unknown_parameter", file, message);
            let help = crate::workflow::suggest::help(name, known());
            let help = help.unwrap_or_else(|| "it has no parameters".to_owned());
            mistakes.push(mistake.with_help(help));
        }
    }
    let mut params = Map::new();
    for param in &spec.params {
        let name = &param.name.value;
        let value = match given.get(name) {
            Some(Given::Text(text)) => param.read(text),
            Some(Given::Json(value)) => param.check(value).map(|()| value.clone()),
            None if param.required && param.default.is_none() => {
                let message = format!("parameter `{name}` must be given");
                let about = match param.description.trim_end_matches('.') {
                    "" => String::new(),
                    about => format!(" ({about})"),
                };
                let kind = param.kind.as_str();
                let help = format!("add `-p {name}=…`, a {kind}{about}");
                let mistake = Diagnostic::error("plan::missing_parameter", file, message);
                mistakes.push(mistake.at(&spec.source, param.name.place).with_help(help));
                continue;
            }
            None => Ok(param.default.clone().unwrap_or_default()),
        };
        match value {
            Ok(value) => {
                params.insert(name.clone(), value);
            }
            Err(unfit) => {
                let mistake = Diagnostic::error("plan::bad_parameter", file, unfit.message);
                mistakes.push(mistake.at(&spec.source, param.name.place).with_help(unfit.help));
            }
        }
    }
    if mistakes.is_empty() { Ok(params) } else { Err(mistakes) }
}
